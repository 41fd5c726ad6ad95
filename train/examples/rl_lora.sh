#!/usr/bin/env bash
# Reinforcement learning of an adapter, from a checkpoint of sft_lora.sh:  NPROC=8 bash train/examples/rl_lora.sh [MODEL [--KEY VALUE ...]]
# Memory and hours are not computed yet: python -m train.planning.examples --only rl_lora
set -euo pipefail
start=${1:-checkpoints/qwen25vl-3b-modal-mixed/model}
exec bash "$(dirname "$0")/../rl.sh" train/recipes/qwen_rl.yaml --init_from "$start" "${@:2}"

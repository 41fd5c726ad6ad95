#!/usr/bin/env bash
# Reinforcement learning of an adapter, from a checkpoint of sft_lora.sh:  NPROC=8 bash train/examples/rl_lora.sh [MODEL [--KEY VALUE ...]]
# Computed by train.plan, not measured: GiB of each GPU; hours on an H100 at 40% of its peak.
set -euo pipefail
start=${1:-checkpoints/qwen25vl-3b-modal-mixed/model}
exec bash "$(dirname "$0")/../rl.sh" train/recipes/qwen_rl.yaml --init_from "$start" "${@:2}"

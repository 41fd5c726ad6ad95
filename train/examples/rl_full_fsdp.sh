#!/usr/bin/env bash
# Reinforcement learning of the whole text model, split among GPUs, from a checkpoint of sft_full_fsdp.sh:  NPROC=8 bash train/examples/rl_full_fsdp.sh CHECKPOINT [--KEY VALUE ...]
# Memory and hours are not computed yet: python -m train.planning.examples --only rl_full_fsdp
set -euo pipefail
start=${1:-checkpoints/qwen25vl-3b-modal-mixed/model}
exec bash "$(dirname "$0")/../rl.sh" train/recipes/qwen_rl.yaml --init_from "$start" --lora.rank 0 --trainable '[text_model, embeddings, head]' --fsdp true "${@:2}"

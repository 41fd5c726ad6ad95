#!/usr/bin/env bash
# Reinforcement learning of the whole text model, from a checkpoint of sft_full.sh:  NPROC=8 bash train/examples/rl_full.sh CHECKPOINT [--KEY VALUE ...]
# Computed by train.plan, not measured: GiB of each GPU; hours on an H100 at 40% of its peak.
#   Qwen/Qwen2.5-VL-3B-Instruct: 54.4 GiB on 1 GPU, 57.9 GiB on 8 GPUs; 200 steps in 0.25 hours
#   Qwen/Qwen2.5-VL-7B-Instruct: 128.2 GiB on 1 GPU, 139.1 GiB on 8 GPUs; 200 steps in 0.57 hours
#   Qwen/Qwen3-VL-4B-Instruct: 72.3 GiB on 1 GPU, 74.3 GiB on 8 GPUs; 200 steps in 0.33 hours
#   Qwen/Qwen3-VL-8B-Instruct: 139.2 GiB on 1 GPU, 149.8 GiB on 8 GPUs; 200 steps in 0.60 hours
set -euo pipefail
start=${1:-checkpoints/qwen25vl-3b-modal-mixed/model}
exec bash "$(dirname "$0")/../rl.sh" train/recipes/qwen_rl.yaml --init_from "$start" --lora.rank 0 --trainable '[text_model, embeddings, head]' "${@:2}"

#!/usr/bin/env bash
# Reinforcement learning of the whole text model, split among GPUs, from a checkpoint of sft_full_fsdp.sh:  NPROC=8 bash train/examples/rl_full_fsdp.sh CHECKPOINT [--KEY VALUE ...]
# Computed by train.plan, not measured: GiB of each GPU; hours on an H100 at 40% of its peak.
#   Qwen/Qwen2.5-VL-3B-Instruct: 20.9 GiB on 8 GPUs; 200 steps in 0.31 hours
#   Qwen/Qwen2.5-VL-7B-Instruct: 43.3 GiB on 8 GPUs; 200 steps in 0.70 hours
#   Qwen/Qwen3-VL-4B-Instruct: 32.5 GiB on 8 GPUs; 200 steps in 0.43 hours
#   Qwen/Qwen3-VL-8B-Instruct: 52 GiB on 8 GPUs; 200 steps in 0.75 hours
set -euo pipefail
start=${1:-checkpoints/qwen25vl-3b-modal-mixed/model}
exec bash "$(dirname "$0")/../rl.sh" train/recipes/qwen_rl.yaml --init_from "$start" --lora.rank 0 --trainable '[text_model, embeddings, head]' --fsdp true --data.global_batch_size 64 "${@:2}"

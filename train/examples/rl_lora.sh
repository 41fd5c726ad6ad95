#!/usr/bin/env bash
# Reinforcement learning of an adapter, from a checkpoint of sft_lora.sh:  NPROC=8 bash train/examples/rl_lora.sh [MODEL [--KEY VALUE ...]]
# Computed by train.plan, not measured: GiB of each GPU; hours on an H100 at 40% of its peak.
#   Qwen/Qwen2.5-VL-3B-Instruct: 12.1 GiB on 1 GPU, 12.1 GiB on 8 GPUs; 200 steps in 0.23 hours
#   Qwen/Qwen2.5-VL-7B-Instruct: 23.5 GiB on 1 GPU, 23.5 GiB on 8 GPUs; 200 steps in 0.51 hours
#   Qwen/Qwen3-VL-4B-Instruct: 17.8 GiB on 1 GPU, 17.8 GiB on 8 GPUs; 200 steps in 0.30 hours
#   Qwen/Qwen3-VL-8B-Instruct: 27.8 GiB on 1 GPU, 27.8 GiB on 8 GPUs; 200 steps in 0.54 hours
set -euo pipefail
start=${1:-checkpoints/qwen25vl-3b-modal-mixed/model}
exec bash "$(dirname "$0")/../rl.sh" train/recipes/qwen_rl.yaml --init_from "$start" "${@:2}"

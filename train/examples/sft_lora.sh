#!/usr/bin/env bash
# Supervised training of an adapter:  NPROC=8 bash train/examples/sft_lora.sh [MODEL [--KEY VALUE ...]]
# Computed by train.plan, not measured: GiB of each GPU; hours on an H100 at 40% of its peak.
#   Qwen/Qwen2.5-VL-3B-Instruct: 11.7 GiB on 1 GPU, 11.8 GiB on 8 GPUs; 1,000 steps in 0.05 hours
#   Qwen/Qwen2.5-VL-7B-Instruct: 23.1 GiB on 1 GPU, 23.2 GiB on 8 GPUs; 1,000 steps in 0.11 hours
#   Qwen/Qwen3-VL-4B-Instruct: 13.8 GiB on 1 GPU, 14 GiB on 8 GPUs; 1,000 steps in 0.06 hours
#   Qwen/Qwen3-VL-8B-Instruct: 25.2 GiB on 1 GPU, 25.4 GiB on 8 GPUs; 1,000 steps in 0.11 hours
set -euo pipefail
model=${1:-Qwen/Qwen2.5-VL-3B-Instruct}
exec bash "$(dirname "$0")/../sft.sh" train/recipes/qwen25vl_3b_modal_mixed.yaml --backbone.name "$model" "${@:2}"

#!/usr/bin/env bash
# Supervised training of the whole text model, split among GPUs:  NPROC=8 bash train/examples/sft_full_fsdp.sh [MODEL [--KEY VALUE ...]]
# Computed by train.plan, not measured: GiB of each GPU; hours on an H100 at 40% of its peak.
#   Qwen/Qwen2.5-VL-3B-Instruct: 19.3 GiB on 8 GPUs; 1,000 steps in 0.06 hours
#   Qwen/Qwen2.5-VL-7B-Instruct: 40.7 GiB on 8 GPUs; 1,000 steps in 0.14 hours
#   Qwen/Qwen3-VL-4B-Instruct: 22.8 GiB on 8 GPUs; 1,000 steps in 0.07 hours
#   Qwen/Qwen3-VL-8B-Instruct: 43.9 GiB on 8 GPUs; 1,000 steps in 0.14 hours
set -euo pipefail
model=${1:-Qwen/Qwen2.5-VL-3B-Instruct}
exec bash "$(dirname "$0")/../sft.sh" train/recipes/qwen25vl_3b_modal_mixed.yaml --backbone.name "$model" --backbone.options.dtype float32 --lora.rank 0 --trainable '[text_model, embeddings, head]' --precision bf16-mixed --fsdp true --data.global_batch_size 64 --optim.lr 1.0e-5 "${@:2}"

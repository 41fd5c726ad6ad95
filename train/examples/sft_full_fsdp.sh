#!/usr/bin/env bash
# Supervised training of the whole text model, split among GPUs:  NPROC=8 bash train/examples/sft_full_fsdp.sh [MODEL [--KEY VALUE ...]]
# Memory and hours are not computed yet: python -m train.planning.examples --only sft_full_fsdp
set -euo pipefail
model=${1:-Qwen/Qwen2.5-VL-3B-Instruct}
exec bash "$(dirname "$0")/../sft.sh" train/recipes/qwen25vl_3b_modal_mixed.yaml --backbone.name "$model" --backbone.options.dtype float32 --lora.rank 0 --trainable '[text_model, embeddings, head]' --precision bf16-mixed --fsdp true --optim.lr 1.0e-5 "${@:2}"

#!/usr/bin/env bash
# Supervised training of an adapter:  NPROC=8 bash train/examples/sft_lora.sh [MODEL [--KEY VALUE ...]]
set -euo pipefail
model=${1:-Qwen/Qwen2.5-VL-3B-Instruct}
exec bash "$(dirname "$0")/../sft.sh" train/recipes/qwen25vl_3b_modal_mixed.yaml --backbone.name "$model" "${@:2}"

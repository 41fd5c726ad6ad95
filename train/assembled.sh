#!/usr/bin/env bash
# A small pretrained model without a hub learns to read pictures, then to sketch, whole and on this machine.
#   bash train/assembled.sh             # one to two hours on 2 CPU cores; its steps have run one by one, not yet in one go
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source train/setup.sh
run() { printf '\n== %s\n' "$*" >&2; "$PYTHON" -m "$@"; }
out=checkpoints/assembled-report
[ -d checkpoints/assembled ] || run latent_reason assemble checkpoints/assembled
[ -d data/easy-vqa ] || run latent_reason easy-vqa data/easy-vqa
[ -f data/texts.jsonl ] || run latent_reason texts data/texts.jsonl
[ -d checkpoints/assembled-connector/model ] || run train.sft --config train/recipes/assembled_connector.yaml
[ -d checkpoints/assembled-frozenlake/model ] || run train.sft --config train/recipes/assembled_frozenlake.yaml
[ -d checkpoints/assembled-drawing/model ] || run train.decoder --config train/recipes/decoder.yaml --init_from checkpoints/assembled-frozenlake --run_name assembled-drawing \
    --data.levels '[3]' --data.items 600 --data.global_batch_size 16
model=checkpoints/assembled-drawing
mkdir -p "$out"
run eval.answers checkpoints/assembled-connector/stage-1 data/easy-vqa --max-new-tokens 16 --out "$out/answers.json" --overwrite
run eval.language "$model" --base checkpoints/assembled --out "$out/language.json" --overwrite
run eval.run "$model" --tasks frozenlake_plan --levels 3 --n 100 --out "$out/eval.json" --overwrite
run latent_reason render "$model" --out "$out/sketches.png" --overwrite
run latent_reason generate "$model"

#!/usr/bin/env bash
# Train a sketch decoder for a frozen eye:  bash train/decoder.sh train/recipes/decoder.yaml --init checkpoints/X/model
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source train/setup.sh
recipe="${1:?give a recipe, such as train/recipes/decoder.yaml}"; shift
if [ "${NPROC:-1}" -gt 1 ]; then
  exec "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$NPROC" -m -- train.decoder --config "$recipe" "$@"
fi
exec "$PYTHON" -m train.decoder --config "$recipe" "$@"

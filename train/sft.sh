#!/usr/bin/env bash
# Train a method from a recipe:  bash train/sft.sh train/recipes/frozenlake_modal_mixed.yaml --run my-run
# Several GPUs:                  NPROC=8 bash train/sft.sh RECIPE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source train/setup.sh
recipe="${1:?give a recipe, such as train/recipes/quickstart.yaml}"; shift
if [ "${NPROC:-1}" -gt 1 ]; then
  exec "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$NPROC" -m -- train.sft --config "$recipe" "$@"
fi
exec "$PYTHON" -m train.sft --config "$recipe" "$@"

#!/usr/bin/env bash
# What sft.sh and decoder.sh share:  bash train/launch.sh MODULE RECIPE [--a.b value ...]
# Several GPUs:  NPROC=8 bash train/sft.sh RECIPE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source train/setup.sh
[ $# -gt 1 ] || { echo "give a recipe, such as train/recipes/quickstart.yaml" >&2; exit 2; }
module=$1 recipe=$2; shift 2
launcher=(-m)
if [ "${NPROC:-1}" -gt 1 ]; then
  launcher=(-m torch.distributed.run --standalone --nproc-per-node "$NPROC" -m --)
fi
exec "$PYTHON" "${launcher[@]}" "$module" --config "$recipe" "$@"

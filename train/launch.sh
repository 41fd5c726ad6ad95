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
  # A process that dies takes the others with it; with RESTARTS=3 and --resume auto torchrun starts all again.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # otherwise a new process reads the addresses of dead ones
  launcher=(-m torch.distributed.run --standalone --nproc-per-node "$NPROC" --max-restarts "${RESTARTS:-0}" -m --)
fi
exec "$PYTHON" "${launcher[@]}" "$module" --config "$recipe" "$@"

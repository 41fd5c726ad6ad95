#!/usr/bin/env bash
# The main job, whole, on this machine: make data, pretrain, teach sketching, evaluate, probe, render, export.
#   bash train/quickstart.sh            # 7 to 14 minutes on 2 CPU cores; uses a GPU where there is one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source train/setup.sh
exec "$PYTHON" -m train.quickstart "$@"

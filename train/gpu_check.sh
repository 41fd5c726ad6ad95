#!/usr/bin/env bash
# What a GPU does with this library, in at most eight minutes:  bash train/gpu_check.sh [--out FILE.json]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source train/setup.sh
exec "$PYTHON" -m train.gpu_check "$@"

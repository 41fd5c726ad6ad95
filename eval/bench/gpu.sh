#!/usr/bin/env bash
# Decoding and training of 0.5B and 3B on one GPU, in at most eight minutes:  bash eval/bench/gpu.sh [--out FILE.json]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source train/setup.sh
exec timeout 480 "$PYTHON" -m eval.bench --gpu --out bench-gpu.json "$@"  # the file is written after every part

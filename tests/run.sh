#!/usr/bin/env bash
# Runs the linter and all tests:  bash tests/run.sh [arguments of pytest]
# Larger repetitions of some tests:  bash tests/run.sh --slow
set -euo pipefail
cd "$(dirname "$0")/.."
source train/setup.sh

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
unset PYTHONDONTWRITEBYTECODE  # otherwise every process of the tests compiles the library again
has() { "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }

if ! has pytest; then
    echo "pytest is not installed. Run: $PYTHON -m pip install -e '.[dev]' -c constraints.txt" >&2
    exit 1
fi
status=0
if has ruff; then
    "$PYTHON" -m ruff check . || status=$?
else
    echo "ruff is not installed: the linter is left out" >&2
fi
workers=()
if has xdist; then workers=(-n 2 --dist worksteal); fi
"$PYTHON" -m pytest -q ${workers[@]+"${workers[@]}"} "$@" || status=$?
exit "$status"

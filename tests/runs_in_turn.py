"""``python -m runs_in_turn --config FOLDER``: every recipe of a folder, one after the other, in the same processes.

To start two processes that import torch takes half a minute. Recipes whose name begins with ``rl`` are run by train.rl,
the others by train.sft.
"""

from __future__ import annotations

import sys
from pathlib import Path

from train import sft
from train.rl import trainer

if __name__ == "__main__":
    for recipe in sorted(Path(sys.argv[-1]).glob("*.yaml")):
        sys.argv = [sys.argv[0], "--config", str(recipe)]
        (trainer if recipe.name.startswith("rl") else sft).main()

"""``python -m runs_in_turn --config FOLDER``: every recipe of a folder, one after the other, in the same processes.

To start two processes that import torch takes half a minute. Recipes whose name begins with ``rl`` are run by train.rl,
the others by train.sft. A run that keeps all its states is then resumed from that of its second step, in a copy of its
folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from resumed_runs import stopped_copy

from train import sft
from train.config import RLTrainingConfig, SFTConfig, load
from train.rl import trainer

RESUMED = "-resumed"  # after the name of the run


def resume(run: Path, train) -> None:
    """Continue a copy of a run."""
    copy = run.with_name(run.name + RESUMED)
    if os.environ["RANK"] == "0":
        stopped_copy(run, copy, 2)
    torch.distributed.barrier()
    sys.argv = [sys.argv[0], "--resume", str(copy)]
    train.main()


if __name__ == "__main__":
    for recipe in sorted(Path(sys.argv[-1]).glob("*.yaml")):
        sys.argv = [sys.argv[0], "--config", str(recipe)]
        is_rl = recipe.name.startswith("rl")
        train = trainer if is_rl else sft
        train.main()
        made = load(recipe, RLTrainingConfig if is_rl else SFTConfig)
        if not made.save_total_limit:
            resume(Path(made.run_name), train)

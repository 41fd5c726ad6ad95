"""``python -m killed_run POINT COUNT train.sft ...``: a training command that kills itself (SIGKILL) when it comes to a
point for the COUNT-th time. With the variable ONLY_RANK, only that process of several does so, and only in the first
round of torchrun."""

from __future__ import annotations

import os
import runpy
import signal
import sys

from latent_reason import checkpoint, files
from train import state_files
from train.lit_modules import SFTModule
from train.state_files import StateFiles

#: where a run may die: the owner of a function, its name, and whether death comes after it
POINTS = {
    "before a step": (SFTModule, "training_step", False),
    "after an optimizer step": (SFTModule, "on_optimizer_step", True),
    "before a state is copied": (StateFiles, "write", False),
    "while training goes on beside a save": (StateFiles, "write", True),
    "before files are written": (StateFiles, "_make", True),
    "after files are written": (StateFiles, "_finish_own", False),
    "after the index is written": (state_files, "flush_to_disk", False),
    "after a state has its name": (StateFiles, "_commit", True),
    "while an old state is removed": (state_files.shutil, "rmtree", False),
    "before the model is saved": (checkpoint, "save", False),
    "before the model has its name": (files, "_swap", False),
    "after the model is saved": (checkpoint, "save", True),
    "before states are removed": (StateFiles, "remove", False),
}


def die_at(point: str, count: int) -> None:
    """Kill this process when it comes to a point for the ``count``-th time."""
    owner, name, is_after = POINTS[point]
    original, left = getattr(owner, name), [count]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def call(*args, **kwargs):
        if not is_after:
            die()
        result = original(*args, **kwargs)
        if is_after:
            die()
        return result

    setattr(owner, name, call)


if __name__ == "__main__":
    point, count, module, *words = sys.argv[1:]
    rank, only = os.environ.get("RANK", "0"), os.environ.get("ONLY_RANK", "0")
    if rank == only and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" and point != "never":
        die_at(point, int(count))
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

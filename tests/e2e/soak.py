"""Train, decode and evaluate for a long time in one process, and watch its memory.

    python tests/e2e/soak.py --minutes 120 --out paper_figs/data/soak.json

One round is a short run of supervised training with validation, a short run by reward, and an evaluation. After the rounds
of a tenth of the time, the resident memory must not grow by more than 5 %. The figure compares the median of the first
third after that with the median of the last third.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from tiny_runs import recipe, rewarded, tiny_checkpoint  # noqa: E402

from eval import run as accuracy  # noqa: E402
from train import sft  # noqa: E402
from train.progress import console  # noqa: E402
from train.rl import trainer as rl  # noqa: E402
from train.trainer import make_run_folder  # noqa: E402

MOST_GROWTH = 0.05
LONG = {"tiny_runs.long": 1.0}  # a reward that an untrained model earns


def one_round(folder: Path) -> None:
    """A run of supervised training, a run by reward, and an evaluation of held-out items."""
    shared = {"save_steps": 2, "data__val_items": 2}
    made = recipe(folder / "sft", optim__max_steps=6, eval_steps=3, init_from=str(tiny_checkpoint()), **shared)
    sft.train(made, make_run_folder(made))
    made = rewarded(
        folder / "rl", optim__max_steps=2, data__val_items=0, rl__max_completion_length=16, rl__rewards=LONG
    )
    rl.train(made, make_run_folder(made))
    words = [str(folder / "sft"), "--tasks", "frozenlake_plan", "--levels", "3", "--n", "2"]
    with redirect_stdout(StringIO()):
        accuracy.main([*words, "--out", str(folder / "eval.json")])
    shutil.rmtree(folder)


def resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    console.quiet = True
    began, samples = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        while (time.monotonic() - began) / 60 < given.minutes:
            one_round(Path(folder) / "round")
            minutes = (time.monotonic() - began) / 60
            samples.append([round(minutes, 2), round(resident_mib(), 1)])
    warm = [memory for minutes, memory in samples if minutes > given.minutes / 10]
    third = max(1, len(warm) // 3)
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    found = {
        "command": f"python tests/e2e/soak.py --minutes {given.minutes:g}",
        "rounds": len(samples),
        "threads": torch.get_num_threads(),
        "device": "CPU",
        "mib_first_third": first,
        "mib_last_third": last,
        "growth": round(last / first - 1, 4),
        "samples": samples[:: max(1, len(samples) // 100)],
    }
    print(json.dumps({name: value for name, value in found.items() if name != "samples"}, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    sys.exit(found["growth"] > MOST_GROWTH)


if __name__ == "__main__":
    main()

"""Kill a run again and again at random points, resume it each time, and compare its model with that of a whole run.

    python tests/e2e/chaos.py --kills 100 --out paper_figs/data/chaos.json

Each kill is a SIGKILL: in a step, in a save, between the files of a save, at the end. tests/e2e/test_chaos.py has few of
them in each run of the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("ignore")

from killed_run import POINTS  # noqa: E402
from processes import python  # noqa: E402
from resumed_runs import weights_of  # noqa: E402
from tiny_runs import ROOT, recipe  # noqa: E402

from train.config import dump  # noqa: E402

STEPS = 6


def write_recipe(folder: Path, run_name: str) -> Path:
    """A recipe of a few steps, with noise in its loss, that saves after each of them."""
    flow = {"k": 4, "head": "flow", "head_options": {"hidden": 16, "depth": 1}}
    shared = {"data__items": 12, "data__val_items": 0, "data__global_batch_size": 4, "save_steps": 1}
    made = recipe(folder / run_name, optim__max_steps=STEPS, method__options=flow, **shared)
    (folder / f"{run_name}.yaml").write_text(dump(made))
    return folder / f"{run_name}.yaml"


def run(config: Path, point: str = "never", count: int = 1) -> int:
    """The exit status of a run that is killed at a point, and resumed where it was."""
    words = ("-m", "killed_run", point, count, "train.sft", "--config", config, "--resume", "auto")
    done = python(*words, cwd=ROOT, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", OMP_NUM_THREADS="1")
    if done.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(done.stdout + done.stderr)
    return done.returncode


def torment(folder: Path, kills: int, seed: int) -> Counter:
    """Kill runs ``kills`` times at random points, each until its model is there; returns how often at which point.

    Raises:
        AssertionError: a model is not that of the whole run.
    """
    chance, died = random.Random(seed), Counter()
    run(write_recipe(folder, "whole"))
    wanted = weights_of(folder / "whole")
    while died.total() < kills:
        config = write_recipe(folder, "tormented")
        while not (folder / "tormented" / "model").is_dir() and died.total() < kills:
            point = chance.choice(list(POINTS))
            if run(config, point, chance.randint(1, 3)) == -signal.SIGKILL:
                died[point] += 1
        run(config)
        assert weights_of(folder / "tormented") == wanted, f"another model after {dict(died)}"
        left = {path.name for path in (folder / "tormented").iterdir()}
        assert left <= {"logs", "model", "recipe.yaml", ".lock", "state"}, left
        shutil.rmtree(folder / "tormented")
    return died


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        died = torment(Path(folder), given.kills, given.seed)
    command = f"python tests/e2e/chaos.py --kills {given.kills} --seed {given.seed}"
    found = {"command": command, "seed": given.seed, "kills": died.total(), "steps": STEPS, "equal": True}
    found["points"] = dict(sorted(died.items()))
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

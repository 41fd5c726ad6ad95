"""All methods from one start, on the same items, steps and seeds: one JSON, then one table.

    python -m train.compare --config train/recipes/compare_frozenlake.yaml --init CHECKPOINT --out FILE.json
    python -m train.compare --config train/recipes/rl_compare_frozenlake.yaml --init CHECKPOINT --by rl --out FILE.json
    python paper_figs/compare.py FILE.json            # the table, as Markdown

With ``--by rl`` arms learn by reward (train/rl.py), may each begin with a checkpoint of their own (``init``), and the
checkpoints they begin with are measured too. An arm that FILE.json holds already is not trained again, so a comparison
that was stopped goes on where it was; its runs are kept under ``--runs``, and one cut off half-way has to be moved
away. Leaves out on purpose: tuning each method by itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eval.collapse import latent_diagnostics
from eval.probe import MAIN, probe, sketched_items, verdict
from eval.statistics import wilson
from latent_reason import checkpoint, methods, tasks
from latent_reason.decoding.items import decode, distinct_items, main_score
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json
from latent_reason.model.batch import TEXT
from latent_reason.model.heads import ConstantHead, PadHead

from . import config as recipes
from . import sft
from .config import Data, Recipe, armed, staged
from .data import make_task
from .rl import trainer
from .trainer import console, run_folder

BY = {"sft": sft.train, "rl": trainer.train}
CURVES = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "reward/by_mode/mixed",
    "reward/by_mode/text",
    "accuracy",
    "entropy",
    "kl",
    "kl/latent",
    "val/success",
    "val/accuracy",
    "val/exact",
    "val/sketch_equal",
    "completions/mean_length",
    "completions/clipped_ratio",
    "switch/start_rate",
    "spans/per_answer",
    "latents/per_answer",
    "latents/cos_to_sft",
    "latents/norm",
    "clip_ratio/region_mean",
    "clip_ratio/latent",
    "ratio/latent_mean",
    "probe/p3_follow",
    "probe/p5_delta",
)  # kept of a run by reward


def fair(base: Recipe, arms: dict[str, Recipe], by: str = "sft") -> None:
    """Raises ValueError for an arm with other items (they may be worded otherwise), another number of optimiser steps
    or rollouts than the rest, or, where arms learn by example, another start."""
    if not arms:
        raise ValueError("nothing to compare: the recipe has no arms. Name them under 'arms:'.")
    for name, arm in arms.items():
        if by == "sft" and arm.init != base.init:
            raise ValueError(f"arm {name!r} begins with {arm.init!r}. One start is the point; leave init out.")
        if arm.rl.prompts * arm.rl.group != base.rl.prompts * base.rl.group:
            raise ValueError(
                f"arm {name!r} takes {arm.rl.prompts} x {arm.rl.group} rollouts a step, the comparison "
                f"{base.rl.prompts} x {base.rl.group}. Equal rollouts are the point."
            )
        steps, data = (
            sum(stage.optim.steps / stage.rl.updates for stage in staged(arm)),
            {s.data.batch_size for s in staged(arm)},
        )
        if steps != base.optim.steps / base.rl.updates or data != {base.data.batch_size}:
            raise ValueError(
                f"arm {name!r} takes {steps:g} steps of batch {sorted(data)}, the comparison "
                f"{base.optim.steps} of {base.data.batch_size}. Equal steps are the point."
            )
        if other := {
            f for stage in staged(arm) for f, value in drawn(stage.data).items() if value != drawn(base.data)[f]
        }:
            raise ValueError(f"arm {name!r} has other data ({', '.join(sorted(other))}). Equal items are the point.")


def drawn(data: Data) -> dict:
    """What decides which items there are; ``omit_state_p`` only how they are worded."""
    options = {name: value for name, value in data.options.items() if name != "omit_state_p"}
    return {name: getattr(data, name) for name in ("task", "levels", "items", "seed", "folder")} | {"options": options}


def measure(reasoner, decoder, recipe: Recipe, n: int) -> dict:
    """Accuracy on n held-out items a level, what an answer costs, and probes of the latents if there are any."""
    mode, data = methods.load(reasoner.method.name).MODE, recipe.data
    items = [
        i
        for level in data.levels
        for i in distinct_items(
            tasks.make(data.task, split="test", seed=1, level=level, **tasks.own(data.task, data.options)), n
        )
    ]
    task, began = make_task(data, "test"), time.time()
    results = decode(reasoner, None, task, items, mode)
    seconds, key = time.time() - began, main_score(results)
    found = {"n": len(items), "seconds_per_answer": round(seconds / len(items), 4)}
    for name in dict.fromkeys((key, *({"exact"} & results[0].scores.keys()))):
        interval = wilson(sum(r.scores[name] for r in results), len(results))
        found[name] = {k: round(v, 4) for k, v in zip(("value", "low", "high"), interval, strict=True)}
    found["right"] = "".join(str(int(r.scores[key] == 1)) for r in results)  # item by item, the same in every arm
    found["words_per_answer"] = round(
        sum(int((r.rollout.token_type[r.row] == TEXT).sum()) for r in results) / len(items), 2
    )
    found["latents_per_answer"] = round(sum(len(z) for r in results for z in r.latents) / len(items), 2)
    blind = decode(reasoner, None, task, items, mode, make_trace=lambda item: task.blind(item, mode))
    found["blind"] = round(sum(r.scores[key] for r in blind) / len(items), 4)
    if found["latents_per_answer"]:
        if not isinstance(reasoner.head, ConstantHead | PadHead):  # constants have no statistics
            found["health"] = {k: round(v, 4) for k, v in latent_diagnostics(reasoner, results).items()}
        report = probe(reasoner, task, sketched_items(task, min(n, 100)), seed=1, only=MAIN)
        kept = ("accuracy", "difference", "follow_rate", "follow_by_chance", "follow_beyond_idle", "gain_recovered")
        found["probes"] = {name: {k: r[k] for k in kept if k in r} for name, r in report.items()}
        found["verdict"] = verdict(report)
    return found


def train_one(arm: Recipe, folder: Path, train: Callable = sft.train):
    """(reasoner, decoder) of an arm, trained, or as an earlier call left it."""
    if (folder / "model").is_dir():
        return checkpoint.load(folder)
    arm.run = str(folder)
    reasoner, decoder = train(arm, run_folder(arm))
    return reasoner, decoder


def curves(folder: Path) -> dict[str, list[list[float]]]:
    """tag -> [step, value] pairs of what a run by reward logged."""
    found = EventAccumulator(str(folder / "logs"), size_guidance={"scalars": 0})
    found.Reload()
    there = found.Tags()["scalars"]
    return {tag: [[e.step, round(e.value, 5)] for e in found.Scalars(tag)] for tag in CURVES if tag in there}


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--init", required=True, help="the checkpoint every arm starts from")
    parser.add_argument("--out", required=True)
    parser.add_argument("--by", choices=BY, default="sft", help="what trains the arms")
    parser.add_argument("--seeds", type=numbers, default="0,1")
    parser.add_argument("--n", type=at_least(1), default=100, help="held-out items per level")
    parser.add_argument("--only", help="arms whose name holds this")
    parser.add_argument("--runs", default="checkpoints/compare", help="where the runs are kept")
    given = parser.parse_args(argv)
    base = recipes.load(given.config, init=given.init)
    arms = armed(base)
    fair(base, arms, given.by)
    out = Path(given.out)
    rows = json.loads(out.read_text(encoding="utf-8"))["results"] if out.is_file() else []

    def wanted(name: str, seed: int) -> bool:
        return (not given.only or given.only in name) and all((r["arm"], r["seed"]) != (name, seed) for r in rows)

    def note(name: str, seed: int, arm: Recipe, found: dict) -> None:
        rows.append({"arm": name, "method": arm.method.name, "seed": seed} | found)
        console.print({key: value for key, value in rows[-1].items() if key != "curves"})
        atomic_write_json(
            out,
            {
                "schema": 1,
                "command": f"python -m train.compare --config {given.config} --init {given.init}"
                + (" --by rl" if given.by == "rl" else ""),
                "steps": base.optim.steps,
                "batch_size": base.data.batch_size,
                "items": base.data.items,
                "task": base.data.task,
                "levels": base.data.levels,
                "threads": torch.get_num_threads(),
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
                "results": rows,
            },
        )

    if given.by == "rl":
        for init, name in {arm.init: f"start of {name}" for name, arm in reversed(arms.items())}.items():
            if wanted(name, base.seed):
                console.rule(name)
                arm = next(arm for arm in arms.values() if arm.init == init)
                note(name, base.seed, arm, measure(*checkpoint.load(init), arm, given.n))
    for seed in given.seeds:
        for name in arms:
            if not wanted(name, seed):
                continue
            console.rule(f"{name}, seed {seed}")
            arm = armed(recipes.load(given.config, init=given.init, seed=seed))[name]
            folder = Path(given.runs) / f"{name}-{seed}"
            reasoner, decoder = train_one(arm, folder, BY[given.by])
            note(
                name,
                seed,
                arm,
                measure(reasoner, decoder, arm, given.n) | ({"curves": curves(folder)} if given.by == "rl" else {}),
            )
    console.print(f"Written to {out}. The table: python paper_figs/compare.py {out}")


if __name__ == "__main__":
    main()

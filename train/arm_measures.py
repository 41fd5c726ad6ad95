"""What a comparison measures of a trained arm. Results are kept item by item until the row of the arm is written, so that
an arm that was cut off while it was measured decodes only what is missing.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval.baselines import make_baseline
from eval.collapse import DrawnSpan, diagnose, drawn_spans
from eval.probe import MAIN, probe, sketched_items
from eval.resume import ProgressFile, items_digest, model_digest
from eval.run import decode_kept
from eval.statistics import wilson
from eval.turns.baseline import Baseline
from eval.turns.episodes import EpisodeLimits, check_baseline
from eval.turns.evaluate import answer_items
from eval.verdict import verdict
from latent_reason import checkpoint, methods, tasks
from latent_reason.decoding.items import Result, distinct_items
from latent_reason.model.batch import TEXT
from latent_reason.tasks import Item
from latent_reason.trace import Trace

from .config import StagedConfig
from .results_file import recipe_digest
from .traces import make_task

UNFINISHED = ".unfinished"  # in the folder of an arm, while it is measured
BATCH = 64
#: what is said of a rendered sketch: a picture of the task, the state that the text describes, the state of the item
SHOWN = ("valid", "equal", "gold")


@contextmanager
def measured(folder: str | Path, arm: StagedConfig, n: int, unfinished: Path) -> Iterator[dict]:
    """The measures of the checkpoint in ``folder`` on n held-out items a level, for a block that writes them. Results are
    kept in the file ``unfinished``, which is removed after the block.

    Raises:
        ValueError: the file has the results of another model, or of other items.
        BlockingIOError: another process holds it.
    """
    items = held_out_items(arm, n)
    identity = {
        "command": "train.compare",
        "model": model_digest(folder),
        "items": items_digest(items),
        "test_items": n,
        "recipe": recipe_digest(arm),
    }
    with ProgressFile(unfinished, identity) as progress:
        reasoner, decoder = checkpoint.load(folder)
        task, baseline = make_task(arm.data, "test"), getattr(arm.data, "baseline", None)
        if baseline:
            yield measure_baseline(reasoner, decoder, make_baseline(baseline), task, items, progress)
        else:
            yield measure(reasoner, decoder, task, items, n, progress)
        progress.remove()


def held_out_items(arm: StagedConfig, n: int) -> list[Item]:
    """The first n distinct items of every level."""
    name, options = arm.data.task, tasks.own(arm.data.task, arm.data.options)
    by_level = (tasks.make(name, split="test", seed=1, level=level, **options) for level in arm.data.levels)
    return [item for task in by_level for item in distinct_items(task, n)]


def measure(reasoner, decoder, task: tasks.Task, items: list[Item], n: int, progress: ProgressFile) -> dict:
    """Accuracy on the items, what an answer costs, what its sketches show where there is a decoder, and probes of the
    latents on at most n items if there are any."""
    mode = methods.load(reasoner.method.name).MODE
    has_statistics = not (reasoner.can_sketch and reasoner.head.is_constant)  # constants have none

    def describe(result: Result) -> dict:
        spans = drawn_spans(result)
        return {
            "scores": result.scores,
            "words": int((result.rollout.token_type[result.row] == TEXT).sum()),
            "latents": sum(len(span.latents) for span in spans),
            "passes": result.cost.passes,
            "pictures": len(result.trace.prompt().images()),
            "spans": [to_json(span) for span in spans] if has_statistics else [],
            "sketches": [{name: bool(sketch[name]) for name in SHOWN} for sketch in result.sketches],
        }

    found = decode_kept(reasoner, decoder, task, items, "held-out items", describe, BATCH, progress)
    row, key = answers_row(found), next(iter(found[0]["scores"]))
    if sketches := [sketch for r in found for sketch in r.get("sketches", [])]:
        for name in SHOWN:
            interval = wilson(sum(sketch[name] for sketch in sketches), len(sketches))
            row[f"sketch_{name}"] = {k: round(v, 4) for k, v in zip(("value", "low", "high"), interval, strict=True)}
        row["sketches"] = len(sketches)
    row["blind"] = round(blind_accuracy(reasoner, task, items, mode, key, progress), 4)
    if row["latents_per_answer"]:
        if has_statistics:
            drawn = [[from_json(span) for span in r["spans"]] for r in found]
            figures = diagnose(reasoner, drawn, [task.trace(item, mode) for item in items])
            row["health"] = {k: round(v, 4) for k, v in figures.items()}
        probed = sketched_items(task, min(n, 100))
        report = probe(reasoner, task, probed, seed=1, only=MAIN, recall=progress.recall)
        kept = (
            "accuracy",
            "difference",
            "holm_p",
            "follow_rate",
            "follow_by_chance",
            "follow_beyond_idle",
            "gain_recovered",
        )
        row["probes"] = {name: {k: r[k] for k in kept if k in r} for name, r in report.items()}
        row["verdict"] = verdict(report)
    return row


def answers_row(found: list[dict]) -> dict:
    """Accuracies and costs of answers, each with ``scores``, ``words``, ``latents``, ``passes``, ``pictures`` and
    ``seconds``."""
    key, count = next(iter(found[0]["scores"])), len(found)
    row = {"n": count, "seconds_per_answer": round(sum(r["seconds"] for r in found) / count, 4)}
    for name in dict.fromkeys((key, *({"exact"} & found[0]["scores"].keys()))):
        interval = wilson(sum(r["scores"][name] for r in found), count)
        row[name] = {k: round(v, 4) for k, v in zip(("value", "low", "high"), interval, strict=True)}
    row["right"] = "".join(str(int(r["scores"][key] == 1)) for r in found)  # item by item, the same in every arm
    for name in ("words", "latents", "passes", "pictures"):
        row[f"{name}_per_answer"] = round(sum(r[name] for r in found) / count, 2)
    return row


def measure_baseline(
    reasoner, decoder, baseline: Baseline, task: tasks.Task, items: list[Item], progress: ProgressFile
) -> dict:
    """Accuracy of a baseline of explicit thinking and what an answer costs. It has no latents to probe. An answer may take
    twice as many positions as the longest demonstration, as other answers may."""
    check_baseline(baseline, reasoner, decoder, runs_code=True)
    longest = max(positions_written(reasoner, baseline.demonstrate(task, item)) for item in items)
    limits = EpisodeLimits(new_tokens=max(EpisodeLimits().new_tokens, 2 * longest))
    found = answer_items(reasoner, decoder, baseline, task, items, "held-out items", limits, BATCH, progress)
    rates = {
        "calls_per_answer": sum(r["calls"] for r in found) / len(found),
        "cut_off": sum(r["ended"] != "answer" for r in found) / len(found),
    }
    row = answers_row([r | {"words": r["tokens"]} for r in found])
    return row | {name: round(value, 4) for name, value in rates.items()} | {"max_new_tokens": limits.new_tokens}


def positions_written(reasoner, trace: Trace) -> int:
    """Positions of all replies of a chat, the ends of turns included."""
    encode, count = reasoner.processor.encode, 0
    for number, message in enumerate(trace.messages):
        if message.role == "assistant":
            before = replace(trace, messages=trace.messages[:number])
            after = replace(trace, messages=trace.messages[: number + 1])
            count += len(encode(after).ids) - len(encode(before, generate=True).ids)
    return count


def blind_accuracy(reasoner, task: tasks.Task, items: list[Item], mode: str, key: str, progress: ProgressFile) -> float:
    """The main score where items are asked without what only the image shows."""
    found = decode_kept(
        reasoner,
        None,
        task,
        items,
        "blind",
        lambda result: {"score": result.scores[key]},
        BATCH,
        progress,
        make_trace=lambda item: task.blind(item, mode),
    )
    return sum(r["score"] for r in found) / len(items)


def to_json(span: DrawnSpan) -> dict:
    """A span with its latents as the bytes of float32 in base64."""
    values = span.latents.float().numpy().astype("<f4")
    return {
        "grid": list(span.grid),
        "cause": span.cause,
        "shape": list(values.shape),
        "latents": b64encode(values.tobytes()).decode(),
    }


def from_json(span: dict) -> DrawnSpan:
    """The inverse of :func:`to_json`."""
    values = np.frombuffer(b64decode(span["latents"]), "<f4").reshape(span["shape"])
    return DrawnSpan(tuple(span["grid"]), span["cause"], torch.from_numpy(values.copy()))

"""Audit of a task without any model: are its sketches needed, or do question and input images already determine them?

    python -m eval.task_audit --out FILE.json                                      # every task, every trained level
    python -m eval.task_audit rush_hour slide --out FILE.json --levels 1 --n 300
    python -m eval.task_audit --out FILE.json --n-of rush_hour=300

Results of other tasks in FILE.json are kept. There are three rules, for each level and for all levels together. ``--n``
is the number of train items per level and of val items per task.

**Question**: no predictor that uses only the question beats the best constant answer by more than 3 points (significant
after Holm's correction for the two predictors). The predictors are the most frequent answer to the question, and logistic regression on its words and
on counts along its moves. For a task with several kinds of questions, the constant is the best per kind. Predictors are
fitted on train and graded on val by the task's rule.

**Image**: for 100 val items, no sketch shows a state that an input image shows, no sketch is an enlarged crop of an input
image (or contains one made smaller), and no question contains the state of a sketch or the answer.

**Glance**: logistic regression on 32 x 32 thumbnails of the input images and on the words of the question predicts all
variables in which a sketch differs from the input for less than 60 % of val items. It is given the names of these
variables. If a task varies the number of moves between two sketches, each number has a classifier of its own.

Sketches marked redundant do not count, nor does a last sketch whose state the input shows. Val items are distinct, so a
small level has fewer.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, numbers

from .statistics import ALPHA, LEAST_N, holm, paired_bootstrap, paired_p


def parse_task_count(text: str) -> tuple[str, int]:
    """``rush_hour=300``, for argparse."""
    name, _, number = text.partition("=")
    return name, at_least(LEAST_N)(number)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.task_audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    add_output(parser, "the JSON file of the results; those of other tasks in it are kept")
    parser.add_argument(
        "--n", type=at_least(LEAST_N), default=2000, help="train items per level, and val items per task"
    )
    parser.add_argument(
        "--n-of", type=parse_task_count, nargs="*", default=[], metavar="TASK=N", help="another n for a task"
    )
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels each task trains on")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, zip_longest
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from rich.console import Console

from latent_reason import tasks
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.tasks import Item, Step, Task
from latent_reason.tasks.shortcuts import MAX_GAIN, NUM_COMMON, answers_by_question, best_constant, check_answers

from .audit_file import audit_table, left_tasks, read_audits
from .metrics import share
from .sketch_predictors import (
    Changes,
    as_increments,
    can_predict,
    constant_is_right,
    crop_correlation,
    predict_logistic,
    reduce_columns,
    standardize,
    text_features,
    tokenize,
)

console = Console(soft_wrap=True)

MAX_READ_RATE = 0.6  # limit of the rule Glance
CROP_CORRELATION = 0.98  # a sketch with at least this correlation is a crop
THUMBNAIL, IMAGE_ITEMS = 32, 100  # pixels per side; items of the rule Image
PATIENCE = 200  # a level is exhausted after this number of items in a row without a new puzzle


@dataclass(frozen=True)
class AuditItem:
    """The parts of an item that the audit keeps.

    Args:
        item: the item without images and steps.
        thumbs: thumbnails (P, 32, 32, 3) of its images.
        sketches: (first or last, moves between sketches; 0 if the task does not vary them) -> changes in that sketch.
    """

    item: Item
    thumbs: np.ndarray
    sketches: dict[tuple[str, int], Changes]


# -- items --------------------------------------------------------------------------------------------------------------
def sketch_steps(item: Item) -> list[Step]:
    return [step for step in item.steps if step.sketch is not None]


def is_shown(task: Task, item: Item, state: Any) -> bool:
    """Whether the input shows a state."""
    return task.same(task.shown(item), state) or any(
        task.same(task.parse_sketch(image, item.meta).state, state) for image in item.images
    )


def counted_steps(task: Task, item: Item) -> list[Step]:
    """The steps whose sketches count."""
    steps = [step for step in sketch_steps(item) if not step.redundant]
    return steps[:-1] if steps and steps[-1] is item.steps[-1] and is_shown(task, item, steps[-1].state) else steps


def state_changes(task: Task, item: Item, state: Any) -> Changes:
    shown = task.shown(item)
    old, new = ({} if s is None else task.variables(s) for s in (shown, state))
    return {name: (old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)}


def audit_item(variants: dict[int, Task], item: Item) -> AuditItem:
    """``variants``: number of moves between sketches -> the task with that number."""
    thumbs = np.stack([np.asarray(i.resize((THUMBNAIL, THUMBNAIL), PILImage.Resampling.BOX)) for i in item.images])
    sketches = {}
    for moves, task in variants.items():
        item = task.build(item.state, item.level, item.index) if moves else item
        if steps := counted_steps(task, item):
            sketches |= {
                ("first", moves): state_changes(task, item, steps[0].state),
                ("last", moves): state_changes(task, item, steps[-1].state),
            }
    return AuditItem(replace(item, images=[], steps=[]), thumbs, sketches)


# -- images ------------------------------------------------------------------------------------------------------------
def question_contains(question: str, tokens: Sequence[str]) -> bool:
    """Whether a question contains the words in a row; at least two, because a single word may occur by chance."""
    return len(tokens) > 1 and f" {' '.join(tokens)} " in f" {' '.join(tokenize(question))} "


def state_tokens(task: Task, item: Item, state: Any, contrast: Any) -> list[str]:
    """The words that identify a state: its sentence without the parts that the sentence of another state shares."""
    first, second = (
        tokenize(task.state_sentence(s, task.stream(item.level, item.index, "needed"))) for s in (state, contrast)
    )
    for _ in range(2):
        same = next((k for k, (a, b) in enumerate(zip_longest(first, second)) if a != b), len(first))
        first, second = first[same:][::-1], second[same:][::-1]
    return first


def check_images(task: Task, items: Sequence[Item]) -> dict:
    """Shares of the counted sketches that the input shows (``shown``), that are crops (``crop``), and whose state or
    answer the question contains (``said``); and the largest crop correlation."""
    found: dict[str, list] = {"shown": [], "crop": [], "said": []}
    for item, neighbor in zip(items, [*items[1:], *items[:1]], strict=True):
        contrast = next((step.state for step in sketch_steps(neighbor)), None)
        for step in counted_steps(task, item):
            found["shown"].append(is_shown(task, item, step.state))
            found["crop"].append(max(crop_correlation(step.sketch, image) for image in item.images))
            tokens = [] if contrast is None else state_tokens(task, item, step.state, contrast)
            found["said"].append(
                question_contains(item.question, tokens) or question_contains(item.question, tokenize(item.answer))
            )
    if not found["crop"]:
        return {"items": len(items), "sketches": 0}
    return {
        "items": len(items),
        "sketches": len(found["crop"]),
        "most_alike": round(max(found["crop"]), 4),
        "shown": share(found["shown"]),
        "crop": share([c > CROP_CORRELATION for c in found["crop"]]),
        "said": share(found["said"]),
    }


# -- a task ------------------------------------------------------------------------------------------------------------
def question_rule(task: Task, train: Sequence[Item], val: Sequence[Item]) -> dict:
    kinds = sorted({task.kind(item) for item in train})
    constants = {kind: best_constant(task, [item for item in train if task.kind(item) == kind]) for kind in kinds}
    constant_answers = [constants.get(task.kind(item), "") for item in val]
    common = {answer for answer, _ in Counter(item.answer for item in train).most_common(2 * NUM_COMMON)}
    common_rows = [k for k, item in enumerate(train) if item.answer in common]
    tokens = standardize(text_features([i.question for i in (*train, *val)], len(train)), len(train))
    guesses = {
        "by_question": answers_by_question(train, val, constant_answers),
        "by_words": predict_logistic(tokens[common_rows], [train[k].answer for k in common_rows], tokens[len(train) :]),
    }
    chance, report = (
        check_answers(task, constant_answers, val),
        {"constant": constants if len(kinds) > 1 else constants[kinds[0]]},
    )
    for name, answers in guesses.items():
        scores = check_answers(task, answers, val)
        gain = paired_bootstrap(scores, chance)._asdict() | {"p": paired_p(scores, chance)}
        report[name] = share(scores) | {
            "gain": {key: round(float(v), 5 if key == "p" else 4) for key, v in gain.items()}
        }
    return {"chance": share(chance), **report}


Hits = dict[
    tuple[str, int], dict[str, list[bool]]
]  # (first or last, moves between sketches) -> method -> is right, per val item


def glance_rule(train: Sequence[AuditItem], val: Sequence[AuditItem]) -> Hits:
    """Whether the sketches of val items are predicted from thumbnails and words (``read``), by a constant state
    (``constant``) and by a constant change of the input state (``change``)."""
    hits: Hits = {}
    for key in sorted({key for s in val for key in s.sketches} & {key for s in train for key in s.sketches}):
        parts = [[s for s in part if key in s.sketches] for part in (train, val)]
        features = glance_features(*parts)
        states = [[{name: new for name, (_, new) in s.sketches[key].items()} for s in part] for part in parts]
        moves = [[as_increments(s.sketches[key]) for s in part] for part in parts]
        hits[key] = {"read": can_predict(features, *states), "constant": constant_is_right(*states)}
        if moves[0] != states[0]:
            hits[key]["change"] = constant_is_right(*moves)
    return hits


def glance_features(train: Sequence[AuditItem], val: Sequence[AuditItem]) -> torch.Tensor:
    """(train + val, F) standardized thumbnails and word counts."""
    n = len(train)
    thumbnails = np.stack([s.thumbs.ravel() for s in (*train, *val)]).astype(np.float32) / 255
    tokens = text_features([s.item.question for s in (*train, *val)], n)
    return reduce_columns(torch.cat([standardize(thumbnails, n), standardize(tokens, n)], 1), n)


def hit_rates(hits: Hits) -> dict:
    """Rates for the first and the last sketch, over all numbers of moves between sketches, and for each (``after``)."""
    rates = {}
    for position in dict.fromkeys(position for position, _ in hits):
        by_moves = {moves: hits_by_method for (sketch, moves), hits_by_method in hits.items() if sketch == position}
        rates[position] = {
            name: share([hit for hits_by_method in by_moves.values() for hit in hits_by_method.get(name, ())])
            for name in next(iter(by_moves.values()))
        }
        if len(by_moves) > 1:
            rates[position]["after"] = {
                str(moves): share(hits_by_method["read"]) for moves, hits_by_method in by_moves.items()
            }
    return rates


def pool_hits(parts: Iterable[Hits]) -> Hits:
    pooled: Hits = defaultdict(lambda: defaultdict(list))
    for part in parts:
        for key, hits_by_method in part.items():
            for name, hits in hits_by_method.items():
                pooled[key][name] += hits
    return pooled


def report_row(level: int | str, question: dict, hits: Hits) -> dict:
    glance, reasons = hit_rates(hits), []
    predictors = [question["by_question"], question["by_words"]]
    for predictor, p in zip(predictors, holm([predictor["gain"]["p"] for predictor in predictors]), strict=True):
        predictor["gain"]["holm_p"] = round(float(p), 5)
    best = max(predictors, key=lambda predictor: predictor["value"])
    if best["gain"]["estimate"] > MAX_GAIN and best["gain"]["holm_p"] < ALPHA:
        reasons.append(
            f"the question predicts the answer: {best['value']:.2f}, chance {question['chance']['value']:.2f}"
        )
    reasons += [
        f"the {position} sketch is predictable at a glance: {rates['read']['value']:.2f}"
        for position, rates in glance.items()
        if rates["read"]["value"] >= MAX_READ_RATE
    ]
    return {"level": level, "question": question, "glance": glance, "reasons": reasons}


def image_reasons(found: dict) -> list[str]:
    if not found["sketches"]:
        return ["no sketch counts: all are redundant or shown by the input"]
    texts = {
        "shown": "the input shows the state of a sketch",
        "crop": "a sketch is a crop of the input",
        "said": "the question contains the state of a sketch or the answer",
    }
    return [f"{text}: {found[rule]['value']:.2f} of sketches" for rule, text in texts.items() if found[rule]["value"]]


def audit_task(make: Callable[..., Task], levels: Sequence[int], n: int, sample: int = IMAGE_ITEMS) -> dict:
    """The report on a task. ``make`` builds it from ``split``, ``level`` and, if the task has it, ``chunk``."""
    start, task = time.time(), make(split="val", level=tuple(levels))
    pictures = check_images(task, list(islice(task.distinct(sample), sample)))
    min_moves, max_moves = getattr(task, "chunk", (0, 0))
    rows, hits, items = [], [], ([], [])
    for level in levels:
        parts = []
        for split, count in (("train", n), ("val", -(-n // len(levels)))):
            level_task = make(split=split, level=level)
            variants = {
                moves: make(split=split, level=level, chunk=(moves, moves)) if moves else level_task
                for moves in range(min_moves, max_moves + 1)
            }
            items_of_level = (
                islice(level_task.distinct(PATIENCE), count)
                if split == "val"
                else map(level_task.__getitem__, range(count))
            )
            parts.append([audit_item(variants, item) for item in items_of_level])
            items[split == "val"].extend(s.item for s in parts[-1])
        hits.append(glance_rule(*parts))
        rows.append(report_row(level, question_rule(task, *([s.item for s in part] for part in parts)), hits[-1]))
    if len(levels) > 1:
        rows.append(report_row("all", question_rule(task, *items), pool_hits(hits)))
    reasons = [*image_reasons(pictures), *rows[-1]["reasons"]]
    return {
        "task": task.name,
        "version": task.version,
        "n": n,
        "seconds": round(time.time() - start),
        "needed": not reasons,
        "reasons": reasons,
        "pictures": pictures,
        "rows": rows,
    }


# -- the command -------------------------------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        args = parse_arguments(argv)
        audit_to_file(args, shlex.join(["python", "-m", "eval.task_audit", *(sys.argv[1:] if argv is None else argv)]))


def audit_to_file(args: argparse.Namespace, command: str) -> None:
    names, counts, out = args.tasks or tasks.names(), dict(args.n_of), check_output(args.out, True)
    for name in (*names, *counts):
        tasks.options(name)
    results = read_audits(out) if out.exists() else []
    if not args.overwrite:
        names = left_tasks(names, results, command, out)
    for name in names:
        levels = args.levels or tasks.make(name).trained
        result = {"command": command, **audit_task(partial(tasks.make, name), levels, counts.get(name, args.n))}
        results = sorted([*(r for r in results if r["task"] != name), result], key=lambda r: r["task"])
        atomic_write_json(out, {"schema": 2, "results": results})
        console.print(audit_table([result]))
    console.print(f"Results written to {args.out}")


if __name__ == "__main__":
    main()

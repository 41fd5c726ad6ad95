"""Does a task need its sketches? Not if its question, or a glance at its pictures, tells what they show.

    python -m eval.task_audit --out FILE.json                                      # every task, every trained level
    python -m eval.task_audit rush_hour slide --out FILE.json --levels 1 --n 300
    python -m eval.task_audit --out FILE.json --n-of rush_hour=300

What FILE.json holds about other tasks is kept.

Three rules, for each level and for all together; ``--n`` counts the train items of a level and the val items of a task.

**Question**: no predictor that reads the question alone (its commonest answer; logistic regression on its words and on
what can be counted along its moves) beats the best constant answer by more than 3 points, but by luck (95 %); of a task
that asks several kinds of questions, the best to each kind. All are found on train and scored on val by its rule.

**Picture**: of 100 val items no sketch shows a state that an input picture shows, none is an enlarged crop of one (or
holds one made smaller), and no question says what a sketch shows or the answer.

**Glance**: logistic regression on 32 x 32 thumbnails of the pictures and on the words of the question gets everything
that a sketch shows differently from the input right on less than 60 % of val items. It is told which variables those
are. Where a task draws how many moves lie between two sketches it is told that too: each number is read by itself.

Sketches marked redundant do not count, nor does a last one whose state the input shows. Val items differ from each
other, so that a small level has fewer.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table

from latent_reason import tasks
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json
from latent_reason.tasks import Item, Step, Task
from latent_reason.tasks.shortcuts import COMMON, GAIN, by_question, constant, right

from .metrics import share
from .statistics import paired_bootstrap

console = Console(soft_wrap=True)

READ, ALIKE = 0.6, 0.98  # what a glance may read, a crop may correlate
THUMB, SMALL, SAMPLE = 32, 96, 100  # pixels a side; of a sketch that is sought in the input; items looked at so
SCALES = (1 / 2, 2 / 3, 4 / 5, 5 / 4, 3 / 2, 2, 5 / 2, 3, 4)  # of a crop; at 1 it is the picture, judged by its state
DECAY, ROUNDS = 1e-5, 100  # weight decay and steps of L-BFGS
PATIENCE = 200  # items in a row that may bring no new puzzle before a level counts as used up
WAYS = {
    "u": (-1, 0),
    "up": (-1, 0),
    "north": (-1, 0),
    "d": (1, 0),
    "down": (1, 0),
    "south": (1, 0),
    "l": (0, -1),
    "left": (0, -1),
    "west": (0, -1),
    "r": (0, 1),
    "right": (0, 1),
    "east": (0, 1),
}

Changes = dict[Any, tuple[Any, Any]]  # variable -> its value in the input and in a sketch, where these differ


@dataclass(frozen=True)
class Seen:
    """What is kept of an item: its words, thumbnails (P, 32, 32, 3) of its pictures, and what its first and its last
    sketch that count change, by which of the two and the number of moves between sketches (0: the task does not draw
    it)."""

    item: Item
    thumbs: np.ndarray
    sketches: dict[tuple[str, int], Changes]


# -- reading items -----------------------------------------------------------------------------------------------------
def drawn(item: Item) -> list[Step]:
    return [step for step in item.steps if step.sketch is not None]


def shown(task: Task, item: Item, state: Any) -> bool:
    """Whether the input shows a state."""
    return task.same(task.shown(item), state) or any(
        task.same(task.parse_sketch(image, item.meta).state, state) for image in item.images
    )


def counted(task: Task, item: Item) -> list[Step]:
    """The steps whose sketches count."""
    steps = [step for step in drawn(item) if not step.redundant]
    return steps[:-1] if steps and steps[-1] is item.steps[-1] and shown(task, item, steps[-1].state) else steps


def changes(task: Task, item: Item, state: Any) -> Changes:
    first = task.shown(item)
    old, new = ({} if s is None else task.variables(s) for s in (first, state))
    return {name: (old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)}


def seen(variants: dict[int, Task], item: Item) -> Seen:
    """``variants``: the task by the number of moves between sketches."""
    thumbs = np.stack([np.asarray(i.resize((THUMB, THUMB), PILImage.Resampling.BOX)) for i in item.images])
    sketches = {}
    for moves, task in variants.items():
        item = task.build(item.state, item.level, item.index) if moves else item
        if steps := counted(task, item):
            sketches |= {
                ("first", moves): changes(task, item, steps[0].state),
                ("last", moves): changes(task, item, steps[-1].state),
            }
    return Seen(replace(item, images=[], steps=[]), thumbs, sketches)


def tokens(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


# -- the question ------------------------------------------------------------------------------------------------------
def counts_of(question: str) -> dict[str, float]:
    """How often each word occurs; and of the moves told, how many there are, how many cells they visit on a boundless
    board and how often one undoes the one before."""
    words = tokens(question)
    moves = [WAYS[word] for word in words if word in WAYS]
    cells = np.cumsum([(0, 0), *moves], 0)
    return {
        **Counter(words),
        "#moves": len(moves),
        "#cells": len(set(map(tuple, cells))),
        "#reversals": sum(a == (-y, -x) for a, (y, x) in pairwise(moves)),
    }


def word_features(questions: Sequence[str], train: int) -> np.ndarray:
    """(n, F) counts of each question; only those that occur among the first ``train``."""
    rows = [counts_of(question) for question in questions]
    names = {name: k for k, name in enumerate(sorted({name for row in rows[:train] for name in row}))}
    table = np.zeros((len(rows), len(names)), np.float32)
    for line, row in zip(table, rows, strict=True):
        for name, value in row.items():
            if name in names:
                line[names[name]] = value
    return table


# -- linear reading ----------------------------------------------------------------------------------------------------
def scaled(table: np.ndarray, train: int) -> torch.Tensor:
    """(n, F) each column with mean 0 and equal variance over the first ``train`` rows, those of length 1 on average."""
    spread = table[:train].std(0)
    table = (table - table[:train].mean(0))[:, spread > 1e-3] / spread[spread > 1e-3]
    return torch.from_numpy(table / max(table.shape[1], 1) ** 0.5)


def compact(table: torch.Tensor, train: int) -> torch.Tensor:
    """(n, at most ``train``) the rows along the axes that the first ``train`` span: all that a linear model with weight
    decay fitted to those can use."""
    if table.shape[1] <= train:
        return table
    size, axes = torch.linalg.eigh(table[:train] @ table[:train].T)
    kept = size > 1e-6 * size.max()
    return table @ (table[:train].T @ (axes[:, kept] / size[kept].sqrt()))


def logistic(features: torch.Tensor, labels: Sequence, others: torch.Tensor) -> list:
    """Multinomial logistic regression: labels of ``features`` (n, F) -> the likeliest label of each of ``others``."""
    classes = list(dict.fromkeys(labels))
    if len(classes) == 1:
        return classes * len(others)
    number = {label: k for k, label in enumerate(classes)}
    wanted = torch.tensor([number[label] for label in labels])
    weight = torch.zeros(features.shape[1], len(classes), requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(features @ weight + bias, wanted) + DECAY / 2 * weight.square().sum()
        value.backward()
        return value

    torch.set_flush_denormal(True)  # losses of separable classes underflow, and slow numbers take ten times as long
    try:
        optimiser.step(loss)
    finally:
        torch.set_flush_denormal(False)
    return [classes[k] for k in (others @ weight + bias).argmax(1).tolist()]


def read(features: torch.Tensor, train: Sequence[dict], val: Sequence[dict]) -> list[bool]:
    """Whether all values of each val item are read off its features (train, then val), variable by variable."""
    done = [True] * len(val)
    for name in {name for values in val for name in values}:
        mine, asked = ([i for i, values in enumerate(part) if name in values] for part in (train, val))
        found = [object()] * len(asked)  # a variable that no train item changed is never read
        if mine:
            found = logistic(features[mine], [train[i][name] for i in mine], features[[len(train) + i for i in asked]])
        for i, value in zip(asked, found, strict=True):
            done[i] &= value == val[i][name]
    return done


def fixed(train: Sequence[dict], val: Sequence[dict]) -> list[bool]:
    """Whether one set of values, found on train, holds for each val item: each variable's commonest value, or the
    commonest set."""
    known: dict[Any, Counter] = defaultdict(Counter)
    for values in train:
        for name, value in values.items():
            known[name][value] += 1
    sets = Counter(tuple(sorted(values.items(), key=str)) for values in train).most_common(COMMON)
    tries = [{name: found.most_common(1)[0][0] for name, found in known.items()}, *(dict(s) for s, _ in sets)]

    def fits(guess: dict, values: dict) -> bool:
        return all(name in guess and guess[name] == value for name, value in values.items())

    best = max(tries, key=lambda guess: sum(fits(guess, values) for values in train))
    return [fits(best, values) for values in val]


def moved(change: Changes) -> dict:
    """What a change adds to each number, and what it puts for anything else."""
    return {
        name: ("+", new - old) if isinstance(old, int) and isinstance(new, int) else new
        for name, (old, new) in change.items()
    }


# -- the pictures ------------------------------------------------------------------------------------------------------
def within(large: np.ndarray, small: np.ndarray) -> float:
    """The largest normalised cross-correlation of a picture (h, w, 3) with any part of another that is its size. Parts
    that are nearly flat are left out."""
    (height, width), (h, w) = large.shape[:2], small.shape[:2]
    small = small - small.mean()
    spectrum = np.fft.rfft2(large, axes=(0, 1)) * np.fft.rfft2(small, (height, width), axes=(0, 1)).conj()
    product = np.fft.irfft2(spectrum.sum(-1), (height, width))[: height - h + 1, : width - w + 1]

    def total(values: np.ndarray) -> np.ndarray:
        summed = np.pad(values.sum(-1).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return summed[h:, w:] - summed[:-h, w:] - summed[h:, :-w] + summed[:-h, :-w]

    power = total(large**2) - total(large) ** 2 / small.size
    clear = power > 0.01 * small.size * large.var()
    if not clear.any() or not small.any():
        return 0.0
    return float((product[clear] / np.sqrt(power[clear] * (small**2).sum())).max())


def crop_likeness(sketch: PILImage.Image, image: PILImage.Image) -> float:
    """How well the sketch matches an enlarged crop of the picture, or a part of the sketch the whole picture made
    smaller: the largest correlation over places and ``SCALES``."""

    def at(picture: PILImage.Image, factor: float) -> np.ndarray:
        size = [max(1, round(side * factor)) for side in picture.size]
        return np.asarray(picture.resize(size, PILImage.Resampling.BOX), float) / 255

    unit, found = SMALL / max(sketch.size), []
    for scale in SCALES:
        pair = (at(image, unit), at(sketch, unit / scale)) if scale > 1 else (at(sketch, unit), at(image, unit * scale))
        if all(large >= small for large, small in zip(*(p.shape for p in pair), strict=True)):
            found.append(within(*pair))
    return max(found, default=0.0)


def says(question: str, words: Sequence[str]) -> bool:
    """Whether a question holds at least two words in a row; a single one may stand there by chance."""
    return len(words) > 1 and f" {' '.join(words)} " in f" {' '.join(tokens(question))} "


def told(task: Task, item: Item, state: Any, another: Any) -> list[str]:
    """The words that tell a state in full: its sentence without what the same wording shares with another state's."""
    one, other = (
        tokens(task.state_sentence(s, task.stream(item.level, item.index, "needed"))) for s in (state, another)
    )
    for _ in range(2):
        same = next((k for k, (a, b) in enumerate(zip_longest(one, other)) if a != b), len(one))
        one, other = one[same:][::-1], other[same:][::-1]
    return one


def look(task: Task, items: Sequence[Item]) -> dict:
    """What is wrong with the sketches that count of items: the share that the input shows, that are crops (and the
    largest correlation of any), whose state or answer the question says."""
    found: dict[str, list] = {"shown": [], "crop": [], "said": []}
    for item, other in zip(items, [*items[1:], *items[:1]], strict=True):
        contrast = next((step.state for step in drawn(other)), None)
        for step in counted(task, item):
            found["shown"].append(shown(task, item, step.state))
            found["crop"].append(max(crop_likeness(step.sketch, image) for image in item.images))
            words = [] if contrast is None else told(task, item, step.state, contrast)
            found["said"].append(says(item.question, words) or says(item.question, tokens(item.answer)))
    if not found["crop"]:
        return {"items": len(items), "sketches": 0}
    return {
        "items": len(items),
        "sketches": len(found["crop"]),
        "most_alike": round(max(found["crop"]), 4),
        "shown": share(found["shown"]),
        "crop": share([c > ALIKE for c in found["crop"]]),
        "said": share(found["said"]),
    }


# -- a task ------------------------------------------------------------------------------------------------------------
def question_rule(task: Task, train: Sequence[Item], val: Sequence[Item]) -> dict:
    kinds = sorted({task.kind(item) for item in train})
    constants = {kind: constant(task, [item for item in train if task.kind(item) == kind]) for kind in kinds}
    best = [constants.get(task.kind(item), "") for item in val]
    common = {answer for answer, _ in Counter(item.answer for item in train).most_common(2 * COMMON)}
    mine = [k for k, item in enumerate(train) if item.answer in common]
    words = scaled(word_features([i.question for i in (*train, *val)], len(train)), len(train))
    guesses = {
        "by_question": by_question(train, val, best),
        "by_words": logistic(words[mine], [train[k].answer for k in mine], words[len(train) :]),
    }
    chance, found = right(task, best, val), {"constant": constants if len(kinds) > 1 else constants[kinds[0]]}
    for name, answers in guesses.items():
        scored = right(task, answers, val)
        gain = paired_bootstrap(scored, chance)._asdict()
        found[name] = share(scored) | {"gain": {key: round(float(v), 4) for key, v in gain.items()}}
    return {"chance": share(chance), **found}


Hits = dict[tuple[str, int], dict[str, list[bool]]]  # which sketch, moves between sketches -> how -> val items right


def glance_rule(train: Sequence[Seen], val: Sequence[Seen]) -> Hits:
    """Which val items' sketches are read off thumbnails and words, and for which one constant state, or one constant
    change of the state shown, is right."""
    found: Hits = {}
    for key in sorted({key for s in val for key in s.sketches} & {key for s in train for key in s.sketches}):
        parts = [[s for s in part if key in s.sketches] for part in (train, val)]
        features = glanced(*parts)
        states = [[{name: new for name, (_, new) in s.sketches[key].items()} for s in part] for part in parts]
        moves = [[moved(s.sketches[key]) for s in part] for part in parts]
        found[key] = {"read": read(features, *states), "constant": fixed(*states)}
        if moves[0] != states[0]:
            found[key]["change"] = fixed(*moves)
    return found


def glanced(train: Sequence[Seen], val: Sequence[Seen]) -> torch.Tensor:
    """(train + val, F) what there is to see and to read at a glance."""
    n = len(train)
    pictures = np.stack([s.thumbs.ravel() for s in (*train, *val)]).astype(np.float32) / 255
    words = word_features([s.item.question for s in (*train, *val)], n)
    return compact(torch.cat([scaled(pictures, n), scaled(words, n)], 1), n)


def rates(hits: Hits) -> dict:
    """Shares of the first and of the last sketch, over all numbers of moves between sketches and ``after`` each."""
    found = {}
    for which in dict.fromkeys(which for which, _ in hits):
        mine = {moves: how for (one, moves), how in hits.items() if one == which}
        found[which] = {
            name: share([hit for how in mine.values() for hit in how.get(name, ())])
            for name in next(iter(mine.values()))
        }
        if len(mine) > 1:
            found[which]["after"] = {str(moves): share(how["read"]) for moves, how in mine.items()}
    return found


def pooled(parts: Iterable[Hits]) -> Hits:
    whole: Hits = defaultdict(lambda: defaultdict(list))
    for part in parts:
        for key, how in part.items():
            for name, hits in how.items():
                whole[key][name] += hits
    return whole


def row(level: int | str, question: dict, hits: Hits) -> dict:
    glance, against = rates(hits), []
    best = max(question["by_question"], question["by_words"], key=lambda found: found["value"])
    if best["gain"]["estimate"] > GAIN and best["gain"]["low"] > 0:
        against.append(f"the question tells the answer: {best['value']:.2f}, chance {question['chance']['value']:.2f}")
    against += [
        f"the {which} sketch is read at a glance: {found['read']['value']:.2f}"
        for which, found in glance.items()
        if found["read"]["value"] >= READ
    ]
    return {"level": level, "question": question, "glance": glance, "reasons": against}


def picture_reasons(found: dict) -> list[str]:
    if not found["sketches"]:
        return ["no sketch counts: all are redundant or shown by the input"]
    said = {
        "shown": "the input shows the state of a sketch",
        "crop": "a sketch is a crop of the input",
        "said": "the question says what a sketch shows or the answer",
    }
    return [f"{text}: {found[rule]['value']:.2f} of sketches" for rule, text in said.items() if found[rule]["value"]]


def judged(make: Callable[..., Task], levels: Sequence[int], n: int, sample: int = SAMPLE) -> dict:
    """The report on one task, which ``make`` makes of ``split``, ``level`` and, where it has one, ``chunk``."""
    began, whole = time.time(), make(split="val", level=tuple(levels))
    pictures = look(whole, list(islice(whole.distinct(sample), sample)))
    fewest, most = getattr(whole, "chunk", (0, 0))
    rows, hits, items = [], [], ([], [])
    for level in levels:
        parts = []
        for split, count in (("train", n), ("val", -(-n // len(levels)))):
            task = make(split=split, level=level)
            variants = {k: make(split=split, level=level, chunk=(k, k)) if k else task for k in range(fewest, most + 1)}
            drawn = islice(task.distinct(PATIENCE), count) if split == "val" else map(task.__getitem__, range(count))
            parts.append([seen(variants, item) for item in drawn])
            items[split == "val"].extend(s.item for s in parts[-1])
        hits.append(glance_rule(*parts))
        rows.append(row(level, question_rule(whole, *([s.item for s in part] for part in parts)), hits[-1]))
    if len(levels) > 1:
        rows.append(row("all", question_rule(whole, *items), pooled(hits)))
    against = [*picture_reasons(pictures), *rows[-1]["reasons"]]
    return {
        "task": whole.name,
        "version": whole.version,
        "n": n,
        "seconds": round(time.time() - began),
        "needed": not against,
        "reasons": against,
        "pictures": pictures,
        "rows": rows,
    }


# -- the command -------------------------------------------------------------------------------------------------------
def cell(found: dict | None) -> str:
    return f"{found['value']:.2f}\n{found['low']:.2f}-{found['high']:.2f}" if found else "-"


def table(results: Sequence[dict]) -> Table:
    """One line a level; shares of val items with their Wilson intervals."""
    shown = Table(title="what tells the answer, and what a sketch shows, without it")
    for name in (
        "task",
        "level",
        "n",
        "chance",
        "question",
        "words",
        "first sketch",
        "constant",
        "change",
        "last sketch",
        "needed",
    ):
        shown.add_column(name)
    for found in results:
        for line in found["rows"]:
            question, first, last = line["question"], *(line["glance"].get(which, {}) for which in ("first", "last"))
            whole = line is found["rows"][-1]
            shown.add_row(
                found["task"],
                str(line["level"]),
                str(question["chance"]["n"]),
                *(cell(question[name]) for name in ("chance", "by_question", "by_words")),
                *(cell(first.get(name)) for name in ("read", "constant", "change")),
                cell(last.get("read")),
                "; ".join(found["reasons"] if whole else line["reasons"]) or "yes",
                end_section=whole,
            )
    return shown


def number_of(text: str) -> tuple[str, int]:
    """``rush_hour=300``, for argparse."""
    name, _, number = text.partition("=")
    return name, at_least(1)(number)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.task_audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="default: all")
    parser.add_argument("--out", required=True)
    parser.add_argument("--n", type=at_least(1), default=2000, help="train items a level, and val items a task")
    parser.add_argument("--n-of", type=number_of, nargs="*", default=[], metavar="TASK=N", help="another n for a task")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels each task trains on")
    with cli_errors():
        given = parser.parse_args(argv)
        judge_to_file(given, shlex.join(["python", "-m", "eval.task_audit", *(sys.argv[1:] if argv is None else argv)]))


def judge_to_file(given: argparse.Namespace, command: str) -> None:
    names, counts, out = given.tasks or tasks.names(), dict(given.n_of), Path(given.out)
    results = json.loads(out.read_text(encoding="utf-8"))["results"] if out.is_file() else []
    for name in (*names, *counts):
        tasks.options(name)
    for name in names:
        levels = given.levels or tasks.make(name).trained
        found = {"command": command, **judged(partial(tasks.make, name), levels, counts.get(name, given.n))}
        results = sorted([*(r for r in results if r["task"] != name), found], key=lambda r: r["task"])
        atomic_write_json(out, {"schema": 2, "results": results})
        console.print(table([found]))
    console.print(f"Written to {given.out}")


if __name__ == "__main__":
    main()

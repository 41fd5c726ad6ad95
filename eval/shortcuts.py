"""Predictors that solve a task without its sketches: constants, the question text, linear models, crops of the input.

:mod:`.task_audit` measures with them whether a task needs its sketches.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from latent_reason.tasks import Item, Task

CROP_SIDE = 96  # pixels of the longer side of a sketch in the search for crops
SCALES = (1 / 2, 2 / 3, 4 / 5, 5 / 4, 3 / 2, 2, 5 / 2, 3, 4)  # of a crop; scale 1 is left to the comparison of states
WEIGHT_DECAY, LBFGS_STEPS = 1e-5, 100
NUM_COMMON, BEAM_WIDTH, NUM_PIECES, MAX_PIECES, NUM_SEARCH_ITEMS = 24, 6, 8, 14, 300  # search for a constant answer
DIRECTIONS = {
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

Changes = dict[Any, tuple[Any, Any]]  # variable that differs -> (value in the input, value in the sketch)


def tokenize(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


# -- the question ------------------------------------------------------------------------------------------------------
def check_answers(task: Task, answers: Iterable[str], items: Sequence[Item]) -> np.ndarray:
    """(n,) 1 if the task's rule accepts the answer of an item."""
    return np.array(
        [task.check(f"\\boxed{{{answer}}}", item.meta).ok for answer, item in zip(answers, items, strict=True)], float
    )


def best_constant(task: Task, items: Sequence[Item], max_pieces: int = MAX_PIECES) -> str:
    """The best constant answer found: a frequent one, or one extended by up to ``max_pieces`` pieces (beam search)."""
    common = [answer for answer, _ in Counter(item.answer for item in items).most_common(NUM_COMMON)]
    split = re.compile(r"[,;](?![^(]*\))")
    pieces = [p for p, _ in Counter(p for item in items for p in split.split(item.answer)).most_common(NUM_PIECES)]
    separators, accuracy = split.findall(" ".join(common)), {}

    def keep_best(answers: Iterable[str], width: int) -> list[str]:
        for answer in (answers := list(dict.fromkeys(answers))):
            if answer not in accuracy:
                accuracy[answer] = check_answers(
                    task, [answer] * len(items[:NUM_SEARCH_ITEMS]), items[:NUM_SEARCH_ITEMS]
                ).mean()
        return sorted(answers, key=lambda a: -accuracy[a])[:width]

    beam = keep_best(common, BEAM_WIDTH)
    for _ in range(max_pieces if separators and accuracy[beam[0]] else 0):
        beam = keep_best(
            [*(f"{answer}{separators[0]}{piece}" for answer in beam for piece in pieces), *beam], BEAM_WIDTH
        )
    return max(keep_best(accuracy, BEAM_WIDTH), key=lambda a: check_answers(task, [a] * len(items), items).mean())


def answers_by_question(train: Sequence[Item], items: Sequence[Item], fallbacks: Sequence[str]) -> list[str]:
    """The most frequent train answer to each item's question, or its fallback if the question is new."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for item in train:
        counts[item.question][item.answer] += 1
    return [
        counts[i.question].most_common(1)[0][0] if i.question in counts else fallback
        for i, fallback in zip(items, fallbacks, strict=True)
    ]


def count_features(question: str) -> dict[str, float]:
    """Counts of each word; of the moves in the text: their number, the number of distinct cells on an unbounded board,
    and how often a move reverses the previous one."""
    tokens = tokenize(question)
    moves = [DIRECTIONS[word] for word in tokens if word in DIRECTIONS]
    cells = np.cumsum([(0, 0), *moves], 0)
    return {
        **Counter(tokens),
        "#moves": len(moves),
        "#cells": len(set(map(tuple, cells))),
        "#reversals": sum(a == (-y, -x) for a, (y, x) in pairwise(moves)),
    }


def text_features(questions: Sequence[str], train: int) -> np.ndarray:
    """(n, F) counts for each question, for words that occur among the first ``train`` questions."""
    rows = [count_features(question) for question in questions]
    names = {name: k for k, name in enumerate(sorted({name for counts in rows[:train] for name in counts}))}
    features = np.zeros((len(rows), len(names)), np.float32)
    for vector, counts in zip(features, rows, strict=True):
        for name, value in counts.items():
            if name in names:
                vector[names[name]] = value
    return features


# -- linear predictors -------------------------------------------------------------------------------------------------
def standardize(features: np.ndarray, train: int) -> torch.Tensor:
    """(n, F) columns with mean 0 and equal variance over the first ``train`` rows, whose mean norm is about 1."""
    std = features[:train].std(0)
    features = (features - features[:train].mean(0))[:, std > 1e-3] / std[std > 1e-3]
    return torch.from_numpy(features / max(features.shape[1], 1) ** 0.5)


def reduce_columns(features: torch.Tensor, train: int) -> torch.Tensor:
    """(n, at most ``train``) the rows in the span of the first ``train`` rows. A linear model with weight decay that is
    fitted to these can use nothing else."""
    if features.shape[1] <= train:
        return features
    size, axes = torch.linalg.eigh(features[:train] @ features[:train].T)
    is_kept = size > 1e-6 * size.max()
    return features @ (features[:train].T @ (axes[:, is_kept] / size[is_kept].sqrt()))


def predict_logistic(features: torch.Tensor, labels: Sequence, others: torch.Tensor) -> list:
    """Multinomial logistic regression of ``labels`` on ``features`` (n, F): the most likely label of each of ``others``."""
    classes = list(dict.fromkeys(labels))
    if len(classes) == 1:
        return classes * len(others)
    number = {label: k for k, label in enumerate(classes)}
    targets = torch.tensor([number[label] for label in labels])
    weight = torch.zeros(features.shape[1], len(classes), requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (
            torch.nn.functional.cross_entropy(features @ weight + bias, targets)
            + WEIGHT_DECAY / 2 * weight.square().sum()
        )
        value.backward()
        return value

    torch.set_flush_denormal(True)  # losses of separable classes underflow; denormal numbers are ten times slower
    try:
        optimizer.step(loss)
    finally:
        torch.set_flush_denormal(False)
    return [classes[k] for k in (others @ weight + bias).argmax(1).tolist()]


def can_predict(features: torch.Tensor, train: Sequence[dict], val: Sequence[dict]) -> list[bool]:
    """Whether all values of each val item are predicted from its features (train, then val), variable by variable."""
    is_right = [True] * len(val)
    for name in {name for values in val for name in values}:
        train_rows, val_rows = ([i for i, values in enumerate(part) if name in values] for part in (train, val))
        predicted = [object()] * len(val_rows)  # a variable without train items is never right
        if train_rows:
            predicted = predict_logistic(
                features[train_rows], [train[i][name] for i in train_rows], features[[len(train) + i for i in val_rows]]
            )
        for i, value in zip(val_rows, predicted, strict=True):
            is_right[i] &= value == val[i][name]
    return is_right


def constant_is_right(train: Sequence[dict], val: Sequence[dict]) -> list[bool]:
    """Whether one fixed set of values is right for each val item: the most frequent value of each variable, or one of
    the most frequent sets. Chosen on train."""
    counts: dict[Any, Counter] = defaultdict(Counter)
    for values in train:
        for name, value in values.items():
            counts[name][value] += 1
    sets = Counter(tuple(sorted(values.items(), key=str)) for values in train).most_common(NUM_COMMON)
    candidates = [{name: counter.most_common(1)[0][0] for name, counter in counts.items()}, *(dict(s) for s, _ in sets)]

    def fits(guess: dict, values: dict) -> bool:
        return all(name in guess and guess[name] == value for name, value in values.items())

    chosen = max(candidates, key=lambda guess: sum(fits(guess, values) for values in train))
    return [fits(chosen, values) for values in val]


def as_increments(change: Changes) -> dict:
    """The increment of each number, and the new value of anything else."""
    return {
        name: ("+", new - old) if isinstance(old, int) and isinstance(new, int) else new
        for name, (old, new) in change.items()
    }


# -- images ------------------------------------------------------------------------------------------------------------
def max_correlation(large: np.ndarray, small: np.ndarray) -> float:
    """The largest normalized cross-correlation of ``small`` (h, w, 3) with any part of ``large`` of its size. Nearly
    flat parts are left out."""
    (height, width), (h, w) = large.shape[:2], small.shape[:2]
    small = small - small.mean()
    spectrum = np.fft.rfft2(large, axes=(0, 1)) * np.fft.rfft2(small, (height, width), axes=(0, 1)).conj()
    products = np.fft.irfft2(spectrum.sum(-1), (height, width))[: height - h + 1, : width - w + 1]

    def total(values: np.ndarray) -> np.ndarray:
        summed = np.pad(values.sum(-1).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return summed[h:, w:] - summed[:-h, w:] - summed[h:, :-w] + summed[:-h, :-w]

    power = total(large**2) - total(large) ** 2 / small.size
    is_textured = power > 0.01 * small.size * large.var()
    if not is_textured.any() or not small.any():
        return 0.0
    return float((products[is_textured] / np.sqrt(power[is_textured] * (small**2).sum())).max())


def crop_correlation(sketch: PILImage.Image, image: PILImage.Image) -> float:
    """Similarity of the sketch to an enlarged crop of the image, or of a part of the sketch to the image made smaller:
    the largest correlation over positions and ``SCALES``."""

    def resized(image: PILImage.Image, factor: float) -> np.ndarray:
        size = [max(1, round(side * factor)) for side in image.size]
        return np.asarray(image.resize(size, PILImage.Resampling.BOX), float) / 255

    unit, correlations = CROP_SIDE / max(sketch.size), []
    for scale in SCALES:
        pair = (
            (resized(image, unit), resized(sketch, unit / scale))
            if scale > 1
            else (resized(sketch, unit), resized(image, unit * scale))
        )
        if all(large >= small for large, small in zip(*(p.shape for p in pair), strict=True)):
            correlations.append(max_correlation(*pair))
    return max(correlations, default=0.0)

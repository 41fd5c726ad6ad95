"""Decode items with a reasoner and score what comes out: the one loop behind accuracy, probes and panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import track

from ..model.batch import PAD
from ..tasks import Item, Task
from ..trace import Trace
from ..visualization.storyboard import DecodedTrace, decode_sketches, split_text
from .config import GenerationConfig
from .prompt_store import PromptStore
from .queue import Cost, Request, decode_requests
from .rollout import Rollout
from .strategies import Decoding


@dataclass
class Result:
    """One decoded item: row ``row`` of ``rollout`` answers the prompt of ``trace``."""

    item: Item
    text: str
    scores: dict[str, float]
    rollout: Rollout
    row: int
    sketches: list[dict] = field(default_factory=list)  # valid, equal, gold, legal, ... of each rendered sketch
    trace: Trace | None = None
    cost: Cost | None = None  # what was computed for it

    @property
    def decoded(self) -> DecodedTrace:
        """The trace with its row of the rollout, for :func:`draw_storyboard`."""
        assert self.trace is not None  # as decode makes it
        return DecodedTrace(self.trace, self.rollout, self.row)

    @property
    def latents(self) -> list:
        """(K, D) of each span."""
        return [self.rollout.latents(s) for s in self.rollout.spans_of(self.row)]


def decode(
    reasoner, decoder, task: Task, items: Sequence[Item], mode: str, *, progress: str = "", **options
) -> list[Result]:
    """Results of items in order; arguments as of :func:`decode_each`. ``progress`` names a progress bar."""
    found: Iterable[tuple[int, Result]] = decode_each(reasoner, decoder, task, items, mode, **options)
    if progress:  # a bar that goes away; a line where there is no terminal
        found = track(found, progress, len(items), transient=Console().is_terminal)
    results = dict(found)
    return [results[i] for i in range(len(items))]


def decode_each(
    reasoner,
    decoder,
    task: Task,
    items: Sequence[Item],
    mode: str,
    *,
    batch_size: int = 64,
    max_new_tokens: int | Callable[[Sequence[Item]], list[int]] = 640,
    make_trace: Callable[[Item], Trace] | None = None,
    row_ids: Sequence[int] | None = None,
    decoding: Decoding | None = None,
    prompts: PromptStore | None = None,
    **options,
) -> Iterator[tuple[int, Result]]:
    """The place of each item and its result, as they finish, decoded by continuous batching in ``batch_size`` slots.

    ``options`` are fields of :class:`GenerationConfig`; each may be a function of the items, as may
    ``max_new_tokens``. ``row_ids`` are the keys of each item's randomness (default: its place among the items), and
    ``decoding`` is a method of :mod:`.strategies`. ``prompts`` keeps computed prompts for further calls with the same
    trace objects. Items of high levels come first, because a long answer that begins
    last would be decoded alone.
    """
    given = {n: v(items) if callable(v) else v for n, v in ({"max_new_tokens": max_new_tokens} | options).items()}
    budgets, forced = given.pop("max_new_tokens"), given.pop("forced_tokens", None)
    budgets = [budgets] * len(items) if isinstance(budgets, int) else budgets
    forced = [None] * len(items) if forced is None else forced
    requests = [
        Request(
            make_trace(items[i]) if make_trace else task.trace(items[i], mode),
            i,
            None if row_ids is None else row_ids[i],
            budgets[i],
            forced[i],
            prompts=prompts,
        )
        for i in sorted(range(len(items)), key=lambda i: -items[i].level)
    ]
    answer = decode_requests if decoding is None else decoding
    for request, rollout, row, cost in answer(reasoner, requests, GenerationConfig(**given), batch_size):
        item, text = items[request.number], rollout.text(row, reasoner.vocabulary)
        result = Result(item, text, task.score(text, item.meta), rollout, row, trace=request.trace)
        result.cost = cost
        if decoder is not None and reasoner.is_renderable and rollout.spans_of(row):
            pictures = decode_sketches(reasoner, decoder, rollout, row, item.images[-1])
            said = split_text(rollout, row, reasoner.vocabulary)
            result.sketches = task.sketch_report(pictures, item, said)["sketches"]
        yield request.number, result


def room(results: Sequence[Result]) -> Callable[[Sequence[Item]], list[int]]:
    """``max_new_tokens`` for the items of these results, so that one that a probe makes ramble is cut to save time: twice as
    many positions as its output took, or as many as the longest output of its level, whichever is more."""
    taken = {r.item.id: int((r.rollout.token_type[r.row] != PAD).sum()) for r in results}
    longest = {r.item.level: 0 for r in results}
    for r in results:
        longest[r.item.level] = max(longest[r.item.level], taken[r.item.id])
    return lambda chunk: [max(2 * taken[item.id], longest[item.level]) for item in chunk]


def distinct_items(
    task: Task, n: int, fits: Callable[[Item], bool] = lambda item: True, patience: int = 100
) -> list[Item]:
    """The first n items that fit and whose puzzles differ; fewer where ``patience`` items in a row bring nothing new
    (there are some 130 held-out boards of 3 x 3).

    Raises:
        ValueError: not a single item fits.
    """
    found: dict[str, Item] = {}
    index = last = 0
    while len(found) < n and index - last <= patience:
        item = task[index]
        if fits(item) and (name := task.canon(item.state)) not in found:
            found[name], last = item, index
        index += 1
    if not found:
        raise ValueError(f"none of {index} items of {task.name}, level {task.levels}, can be used here.")
    return list(found.values())


def main_score(results: Sequence[Result]) -> str:
    """The headline measure of a task: the first its ``score`` names."""
    return next(iter(results[0].scores))


def summarise(results: Sequence[Result]) -> dict[str, float]:
    """Means over items, and over sketches: ``sketch_equal`` asks whether the drawn board is the one the model's own
    moves lead to."""
    means = {n: sum(r.scores[n] for r in results) / len(results) for n in results[0].scores}
    sketches = [s for r in results for s in r.sketches]
    means["sketches"] = sum(len(r.rollout.spans_of(r.row)) for r in results) / len(results)
    for name in ("valid", "equal", "legal", "gold") if sketches else ():
        means[f"sketch_{name}"] = sum(s[name] for s in sketches) / len(sketches)
    return means

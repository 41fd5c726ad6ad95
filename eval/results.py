"""The result files of eval.benchmark, eval.run, eval.probe and train.compare, read into rows that can be laid side by
side. A file that is none of them is ``None``; one that is, but is broken, is a ValueError that names file and field.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

SCHEMA = 1
MOST_BYTES = 50 * 2**20
ROUNDING = 1e-3  # files keep four digits
LARGEST = 10**15


@dataclass(frozen=True)
class Share:
    """A share of 0-1, or a difference of two, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Probes:
    """What replacing latents did to a checkpoint: accuracy lost, and how often a foreign sketch was followed.

    ``on`` names the items, as a checkpoint may be probed on other items than it is measured on.
    """

    noise: Share | None = None
    foreign: Share | None = None
    follows: float | None = None
    by_chance: float | None = None
    task: str = ""
    on: str = ""
    n: int = 0


@dataclass(frozen=True)
class Row:
    """One accuracy of one model. ``protocol`` holds all that must be equal for two of them to be compared."""

    file: str
    method: str  # or the arm of a comparison
    model: str
    benchmark: str
    task: str  # a part of the benchmark
    protocol: dict[str, Any]
    n: int
    share: Share
    seed: int | None = None
    chance: float | None = None
    unparsed: int | None = None  # of all items of the file
    latents: float | None = None  # these three of one item
    tokens: float | None = None
    seconds: float | None = None
    device: str = ""
    probes: Probes | None = None


@dataclass
class Found:
    """What a file holds: rows, or the probes of a checkpoint."""

    rows: list[Row] = field(default_factory=list)
    probes: dict[str, Probes] = field(default_factory=dict)  # by checkpoint


class Fields:
    """A JSON object whose fields are asked for by name; what is wrong is said with file and field."""

    def __init__(self, value: Any, file: str, place: str = ""):
        self.file, self.place = file, place
        if not isinstance(value, dict):
            raise self.wrong(value, "an object")
        self.value = value

    def wrong(self, value: Any, expected: str, name: str = "") -> ValueError:
        at = ".".join(part for part in (self.place, name) if part)
        said = repr(value)
        shown = said if len(said) <= 60 else said[:57] + "..."
        return ValueError(f"'{self.file}': {at or 'the file'} is {shown}, expected {expected}. Write it again.")

    def _get(self, name: str, kinds: type | tuple, expected: str, optional: bool) -> Any:
        found = self.value.get(name)
        if found is None and optional:
            return None
        if not isinstance(found, kinds) or isinstance(found, bool):
            raise self.wrong(found, expected, name)
        return found

    def text(self, name: str, optional: bool = False) -> str:
        return self._get(name, str, "words", optional) or ""

    def number(
        self,
        name: str,
        optional: bool = False,
        low: float = -LARGEST,
        high: float = LARGEST,
        kinds: tuple = (int, float),
    ) -> float | None:
        found = self._get(name, kinds, "a number" if float in kinds else "a whole number", optional)
        if found is not None and not low <= found <= high:
            raise self.wrong(found, f"a number from {low:g} to {high:g}", name)
        return found

    def whole(self, name: str, optional: bool = False, low: int = -LARGEST) -> int | None:
        return self.number(name, optional, low, kinds=(int,))

    def part(self, name: str, optional: bool = False) -> Fields | None:
        found = self._get(name, dict, "an object", optional)
        return None if found is None else Fields(found, self.file, ".".join(p for p in (self.place, name) if p))

    def rows(self, name: str) -> list[Fields]:
        found = self._get(name, list, "a list", False)
        return [Fields(one, self.file, f"{name}[{at}]") for at, one in enumerate(found)]

    def share(self, low: float = 0) -> Share:
        value, *ends = (self.number(name, low=low, high=1) for name in ("value", "low", "high"))
        if not ends[0] - ROUNDING <= value <= ends[1] + ROUNDING:
            raise self.wrong([value, *ends], "low, value and high in this order")
        return Share(value, *ends)


def read(path: Path, shown: str) -> Found | None:
    """What the file at ``path`` holds, None where it is no result file; ``shown`` is its name in sentences.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    found = _json(path, shown)
    reader = _kind(found)
    if reader is None:
        return None
    fields = Fields(found, shown)
    if found.get("schema") != SCHEMA:
        raise fields.wrong(found.get("schema"), f"{SCHEMA}, which this version reads", "schema")
    return reader(fields)


def _json(path: Path, shown: str) -> Any:
    def refuse(name: str):
        raise ValueError(f"{name} is not JSON")

    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(
            f"'{shown}' has {size / 2**20:,.0f} MiB; result files have less than "
            f"{MOST_BYTES / 2**20:,.0f}. Move it elsewhere."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # halves of characters could not be written again
        return found
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{shown}' is not readable JSON ({str(error)[:100]}). Write it again.") from None


def _kind(found: Any) -> Callable[[Fields], Found] | None:
    if not isinstance(found, dict):
        return None
    if found.get("kind") == "benchmark":
        return benchmark
    if {"checkpoint", "protocol", "probes"} <= found.keys():
        return probed
    if {"checkpoint", "method", "decoding", "results"} <= found.keys():
        return accuracy
    if {"command", "steps", "results"} <= found.keys() and "train.compare" in str(found["command"]):
        return comparison
    return None


def same_model(checkpoint: str) -> str:
    """A checkpoint's name without what may be left out: a run folder stands for the ``model`` in it."""
    path = PurePosixPath(checkpoint)
    return str(path.parent if path.name == "model" else path)


def benchmark(found: Fields) -> Found:
    """The JSON of eval.benchmark: one row a result. Results of another metric have another protocol."""
    name, protocol, rows = found.text("benchmark"), found.part("protocol").value, []
    costs = {to: found.number(f"{to}_per_item", optional=True, low=0) for to in ("latents", "tokens", "seconds")}
    costs["unparsed"] = found.whole("unparsed", optional=True, low=0)
    for result in found.rows("results"):
        rows.append(
            Row(
                found.file,
                found.text("method"),
                same_model(found.text("checkpoint")),
                name,
                result.text("task"),
                protocol | {"metric": result.text("metric")},
                result.whole("n", low=1),
                result.share(),
                chance=result.number("chance", optional=True, low=0, high=1),
                seed=found.whole("seed", optional=True),
                device=found.text("device", optional=True),
                **costs,
            )
        )
    return Found(rows)


def accuracy(found: Fields) -> Found:
    """The JSON of eval.run: the headline measure of each set of items, which is the first that stands there; its best
    fixed answer is what chance scores."""
    rows, options = [], found.part("options", optional=True)
    options = options and options.value
    results = sorted(found.rows("results"), key=_items)  # stable: measures keep their order
    for (task, level, split), group in groupby(results, key=_items):
        measures = {result.text("metric"): result for result in group}
        metric, main = next(iter(measures.items()))
        constant = measures.get("constant")
        costs = {
            to: measures[f"{to}_per_item"].number("value", low=0)
            for to in ("latents", "tokens")
            if f"{to}_per_item" in measures
        }
        rows.append(
            Row(
                found.file,
                found.text("method"),
                same_model(found.text("checkpoint")),
                task,
                f"level {level}",
                {
                    "program": "eval.run",
                    "decoding": found.text("decoding"),
                    "split": split,
                    "metric": metric,
                    "options": "not named" if options is None else _worded(options.get(task)),
                },
                main.whole("n", low=1),
                main.share(),
                seed=found.whole("seed", optional=True),
                chance=constant.number("value", low=0, high=1) if constant else None,
                **costs,
            )
        )
    return Found(rows)


def _worded(options: Any) -> str:
    given = options if isinstance(options, dict) else {}
    return ", ".join(f"{name} {value}" for name, value in sorted(given.items())) or "as usual"


def _items(result: Fields) -> tuple[str, str, str]:
    return result.text("task"), str(result.value.get("level")), result.text("split")


def _levels(found: Fields) -> str:
    levels = found.value.get("levels")
    return f"levels {', '.join(map(str, levels))}" if isinstance(levels, list) else "levels not named"


def probed(found: Fields) -> Found:
    """The JSON of eval.probe."""
    n, task = found.whole("n", low=1), found.text("task")
    probes = replace(
        _probes(found.part("probes")), task=task, n=n, on=f"{task}, {_levels(found)}, n {n}, {found.text('protocol')}"
    )
    return Found(probes={same_model(found.text("checkpoint")): probes})


def _probes(found: Fields) -> Probes:
    def part(name: str) -> Fields | None:
        return found.part(name, optional=True)

    def loss(name: str) -> Share | None:
        difference = part(name) and part(name).part("difference", optional=True)
        return difference and difference.share(low=-1)

    foreign = part("foreign")
    rates = [
        foreign and foreign.number(name, optional=True, low=0, high=1) for name in ("follow_rate", "follow_by_chance")
    ]
    return Probes(loss("noise"), loss("foreign"), *rates)


def comparison(found: Fields) -> Found:
    """The JSON of train.compare: one row an arm and seed. The command is part of the protocol, as it names recipe and
    start; arms of two comparisons are not laid side by side."""
    protocol = {
        name: found.value[name] for name in ("command", "steps", "batch_size", "items", "levels") if name in found.value
    }
    rows, task = [], found.text("task", optional=True) or "task not named"
    for result in found.rows("results"):
        metric = next((n for n, kept in result.value.items() if isinstance(kept, dict) and "value" in kept), None)
        if metric is None:
            raise result.wrong(result.value, "an arm with a measure")
        probes = result.part("probes", optional=True)
        rows.append(
            Row(
                found.file,
                result.text("arm"),
                result.text("method"),
                task,
                _levels(found),
                protocol | {"metric": metric},
                result.whole("n", low=1),
                result.part(metric).share(),
                seed=result.whole("seed"),
                latents=result.number("latents_per_answer", optional=True, low=0),
                tokens=result.number("words_per_answer", optional=True, low=0),
                seconds=result.number("seconds_per_answer", optional=True, low=0),
                device=found.text("device", optional=True),
                probes=probes and replace(_probes(probes), on="at most 100 of them, with a sketch"),
            )
        )
    return Found(rows)

"""Reads the result files of eval.benchmark, eval.run, eval.probe, eval.dossier and train.compare into rows of one format. Other files
give ``None``; a damaged result file is a ValueError that names file and field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from latent_reason.json_files import read_json

SCHEMA = 1
ROUNDING = 1e-3  # tolerance for low <= value <= high: files have four digits
MAX_NUMBER = 10**15


@dataclass(frozen=True)
class Share:
    """A share in 0-1, or a difference of two, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Probes:
    """Effect of replaced latents on a checkpoint: loss of accuracy, and rate of following a foreign sketch.

    ``on`` describes the items, because probes may use other items than the accuracy.
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
    """One accuracy of one model. ``protocol`` has all settings that must be equal for two rows to be comparable."""

    file: str
    method: str  # or the arm of a train.compare run
    model: str
    benchmark: str
    task: str  # a part of the benchmark
    protocol: dict[str, Any]
    n: int
    share: Share
    seed: int | None = None
    chance: float | None = None
    unparsed: int | None = None  # over all items of the file
    latents: float | None = None  # per item, as the next four
    tokens: float | None = None
    passes: float | None = None
    pictures: float | None = None
    seconds: float | None = None
    device: str = ""
    probes: Probes | None = None
    by_seed: tuple[tuple[int, float], ...] = ()  # of a mean over seeds
    dossiers: tuple[str, ...] = ()  # pages of the checkpoint
    is_explicit: bool = False  # a baseline of explicit thinking: it has no latents to probe


@dataclass
class ResultFile:
    """The content of a result file: rows, the probes of a checkpoint, or the checkpoint that a dossier is about."""

    rows: list[Row] = field(default_factory=list)
    probes: dict[str, Probes] = field(default_factory=dict)  # checkpoint -> probes
    dossier_of: str = ""


class Fields:
    """Typed access to the fields of a JSON object. Errors name file and field."""

    def __init__(self, value: Any, file: str, path: str = ""):
        self.file, self.path = file, path
        if not isinstance(value, dict):
            raise self.error(value, "an object")
        self.value = value

    def error(self, value: Any, expected: str, name: str = "") -> ValueError:
        where = ".".join(part for part in (self.path, name) if part)
        text = repr(value)
        excerpt = text if len(text) <= 60 else text[:57] + "..."
        return ValueError(f"'{self.file}': {where or 'the file'} is {excerpt}, expected {expected}. Write it again.")

    def _get(self, name: str, kinds: type | tuple, expected: str, optional: bool) -> Any:
        value = self.value.get(name)
        if value is None and optional:
            return None
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.error(value, expected, name)
        return value

    def text(self, name: str, optional: bool = False) -> str:
        return self._get(name, str, "a text", optional) or ""

    def number(
        self,
        name: str,
        optional: bool = False,
        low: float = -MAX_NUMBER,
        high: float = MAX_NUMBER,
        kinds: tuple = (int, float),
    ) -> float | None:
        value = self._get(name, kinds, "a number" if float in kinds else "a whole number", optional)
        if value is not None and not low <= value <= high:
            raise self.error(value, f"a number from {low:g} to {high:g}", name)
        return value

    def whole(self, name: str, optional: bool = False, low: int = -MAX_NUMBER) -> int | None:
        return self.number(name, optional, low, kinds=(int,))

    def part(self, name: str, optional: bool = False) -> Fields | None:
        value = self._get(name, dict, "an object", optional)
        return None if value is None else Fields(value, self.file, ".".join(p for p in (self.path, name) if p))

    def rows(self, name: str) -> list[Fields]:
        value = self._get(name, list, "a list", False)
        return [Fields(item, self.file, f"{name}[{at}]") for at, item in enumerate(value)]

    def share(self, low: float = 0) -> Share:
        value, *ends = (self.number(name, low=low, high=1) for name in ("value", "low", "high"))
        if not ends[0] - ROUNDING <= value <= ends[1] + ROUNDING:
            raise self.error([value, *ends], "low, value and high in this order")
        return Share(value, *ends)


def read(path: Path, name: str) -> ResultFile | None:
    """The content of the file at ``path``, None if it is not a result file. ``name`` is its name in errors.

    Raises:
        ValueError: names the file and the problem.
    """
    value = read_json(path, "a result file", name=name)
    reader = _reader_of(value)
    if reader is None:
        return None
    fields = Fields(value, name)
    if value.get("schema") != SCHEMA:
        raise fields.error(value.get("schema"), f"{SCHEMA}, which this version reads", "schema")
    return reader(fields)


def _reader_of(value: Any) -> Callable[[Fields], ResultFile] | None:
    if not isinstance(value, dict):
        return None
    if value.get("kind") == "benchmark":
        return read_benchmark
    if {"about", "main_score"} <= value.keys():
        return read_dossier
    if {"checkpoint", "protocol", "probes"} <= value.keys():
        return read_probes
    if {"checkpoint", "method", "decoding", "results"} <= value.keys():
        return read_accuracy
    if {"command", "steps", "results"} <= value.keys() and "train.compare" in str(value["command"]):
        return read_comparison
    return None


def model_name(checkpoint: str) -> str:
    """The name of a checkpoint: the run folder, also if the path is the folder ``model`` in it."""
    path = PurePosixPath(checkpoint)
    return str(path.parent if path.name == "model" else path)


def read_benchmark(fields: Fields) -> ResultFile:
    """The JSON of eval.benchmark: one row per result. Each metric is a protocol of its own."""
    name, protocol, rows = fields.text("benchmark"), fields.part("protocol").value, []
    costs = {cost: fields.number(f"{cost}_per_item", optional=True, low=0) for cost in ("latents", "tokens", "seconds")}
    costs["unparsed"] = fields.whole("unparsed", optional=True, low=0)
    for result in fields.rows("results"):
        rows.append(
            Row(
                fields.file,
                fields.text("method"),
                model_name(fields.text("checkpoint")),
                name,
                result.text("task"),
                protocol | {"metric": result.text("metric")},
                result.whole("n", low=1),
                result.share(),
                chance=result.number("chance", optional=True, low=0, high=1),
                seed=fields.whole("seed", optional=True),
                device=fields.text("device", optional=True),
                **costs,
            )
        )
    return ResultFile(rows)


def read_accuracy(fields: Fields) -> ResultFile:
    """The JSON of eval.run: the headline (the first metric) of each set of items. Its chance level is the best fixed
    answer."""
    rows, options = [], fields.part("options", optional=True)
    options = options and options.value
    method, baseline = fields.text("method"), fields.text("baseline", optional=True)
    if baseline:  # with its options, and what the model was trained as: seeds of one row have both in common
        method = f"{baseline} ({fields.text('trained_as', optional=True)})"
    results = sorted(fields.rows("results"), key=_set_key)  # stable: metrics keep their order
    for (task, level, split), group in groupby(results, key=_set_key):
        metrics = {result.text("metric"): result for result in group}
        metric, main = next(iter(metrics.items()))
        constant = metrics.get("constant")
        costs = {
            cost: metrics[f"{cost}_per_item"].number("value", low=0)
            for cost in ("latents", "tokens", "passes", "pictures")
            if f"{cost}_per_item" in metrics
        }
        rows.append(
            Row(
                fields.file,
                method,
                model_name(fields.text("checkpoint")),
                task,
                f"level {level}",
                {
                    "program": "eval.run",
                    "decoding": fields.text("decoding"),
                    "split": split,
                    "metric": metric,
                    "options": "not named" if options is None else _format_options(options.get(task)),
                },
                main.whole("n", low=1),
                main.share(),
                seed=fields.whole("seed", optional=True),
                chance=constant.number("value", low=0, high=1) if constant else None,
                is_explicit=bool(baseline),
                **costs,
            )
        )
    return ResultFile(rows)


def _format_options(options: Any) -> str:
    known = options if isinstance(options, dict) else {}
    return ", ".join(f"{name} {value}" for name, value in sorted(known.items())) or "as usual"


def _set_key(result: Fields) -> tuple[str, str, str]:
    return result.text("task"), str(result.value.get("level")), result.text("split")


def _levels(fields: Fields) -> str:
    levels = fields.value.get("levels")
    return f"levels {', '.join(map(str, levels))}" if isinstance(levels, list) else "levels not named"


def read_probes(fields: Fields) -> ResultFile:
    """The JSON of eval.probe."""
    n, task = fields.whole("n", low=1), fields.text("task")
    probes = replace(
        _parse_probes(fields.part("probes")),
        task=task,
        n=n,
        on=f"{task}, {_levels(fields)}, n {n}, {fields.text('protocol')}",
    )
    return ResultFile(probes={model_name(fields.text("checkpoint")): probes})


def read_dossier(fields: Fields) -> ResultFile:
    """The dossier.json of eval.dossier."""
    return ResultFile(dossier_of=model_name(fields.part("about").text("checkpoint")))


def _parse_probes(fields: Fields) -> Probes:
    def part(name: str) -> Fields | None:
        return fields.part(name, optional=True)

    def loss(name: str) -> Share | None:
        difference = part(name) and part(name).part("difference", optional=True)
        return difference and difference.share(low=-1)

    foreign = part("foreign")
    rates = [
        foreign and foreign.number(name, optional=True, low=0, high=1) for name in ("follow_rate", "follow_by_chance")
    ]
    return Probes(loss("noise"), loss("foreign"), *rates)


def read_comparison(fields: Fields) -> ResultFile:
    """The JSON of train.compare: one row per arm and seed. The command is part of the protocol, because it contains
    recipe and start; arms of two comparisons are never in one table."""
    protocol = {
        name: fields.value[name]
        for name in ("command", "steps", "batch_size", "items", "levels")
        if name in fields.value
    }
    rows, task = [], fields.text("task", optional=True) or "task not named"
    for result in fields.rows("results"):
        metric = next((n for n, entry in result.value.items() if isinstance(entry, dict) and "value" in entry), None)
        if metric is None:
            raise result.error(result.value, "an arm with a metric")
        probes = result.part("probes", optional=True)
        rows.append(
            Row(
                fields.file,
                result.text("arm"),
                result.text("method"),
                task,
                _levels(fields),
                protocol | {"metric": metric},
                result.whole("n", low=1),
                result.part(metric).share(),
                seed=result.whole("seed"),
                latents=result.number("latents_per_answer", optional=True, low=0),
                tokens=result.number("words_per_answer", optional=True, low=0),
                passes=result.number("passes_per_answer", optional=True, low=0),
                pictures=result.number("pictures_per_answer", optional=True, low=0),
                seconds=result.number("seconds_per_answer", optional=True, low=0),
                device=fields.text("device", optional=True),
                probes=probes and replace(_parse_probes(probes), on="at most 100 of them, with a sketch"),
            )
        )
    return ResultFile(rows)

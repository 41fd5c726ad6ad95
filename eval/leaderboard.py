"""Result files of a folder as one sortable page that needs no other file, and as Markdown beside it.

    python -m eval.leaderboard DIR --out leaderboard.html      # writes leaderboard.md too

Below DIR are read: the JSON of eval.benchmark, eval.run and train.compare, and that of eval.probe, which joins the rows
of its checkpoint. Accuracies stand in one table only where their protocols are equal: prompt, checker, metric and all
else that the file says. ``--one-table`` insists on one, and says what differs. Files that are broken or something else
are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from rich.console import Console

from latent_reason.errors import cli_errors, did_you_mean
from latent_reason.files import atomic_write_text

from .leaderboard_page import markdown, page
from .results import Probes, Row, Share, read

console = Console(soft_wrap=True)
SPREAD = 3  # seeds from which on a mean is given


class Table(NamedTuple):
    """Rows of one protocol. Both formats print ``columns`` of ``rows``, then ``seeds``."""

    title: str
    protocol: dict[str, str]
    rows: list[Row]
    seeds: list[Seeds]


class Seeds(NamedTuple):
    """One method on one task: its value with each seed, with mean and standard deviation where there are enough."""

    method: str
    model: str
    task: str
    each: list[tuple[int, float]]
    mean: float | None
    sd: float | None
    note: str


class Column(NamedTuple):
    """``of(row)`` is what is printed and what is sorted by, None where there is nothing."""

    title: str
    note: str
    of: Callable[[Row], tuple[str, str | float | None]]
    number: bool = True


def _words(title: str, note: str, of: Callable[[Row], str]) -> Column:
    return Column(title, note, lambda row: (of(row), of(row) or None), number=False)


def _number(title: str, note: str, of: Callable[[Row], float | None], form: str = "{:.3f}") -> Column:
    return Column(title, note, lambda row: ("" if of(row) is None else form.format(of(row)), of(row)))


def _loss(title: str, note: str, of: Callable[[Probes], Share | None]) -> Column:
    def cell(row: Row):
        loss = row.probes and of(row.probes)
        return (f"{loss.value:+.3f} ({loss.low:+.2f} to {loss.high:+.2f})", loss.value) if loss else ("", None)

    return Column(title, note, cell)


def _follows(row: Row) -> tuple[str, float | None]:
    found = row.probes
    if found is None or found.follows is None:
        return "", None
    return f"{found.follows:.2f}" + ("" if found.by_chance is None else f" ({found.by_chance:.2f})"), found.follows


def task_of(row: Row) -> str:
    return row.benchmark if row.task == row.benchmark else f"{row.benchmark}, {row.task}"


COLUMNS = [
    _words("method", "or the arm of a comparison", lambda r: r.method),
    _words("model", "checkpoint; of an arm, its method", lambda r: r.model),
    _words("task", "", task_of),
    Column(
        "share",
        "of items right, with its 95 % interval",
        lambda r: (f"{r.share.value:.3f} ({r.share.low:.2f} to {r.share.high:.2f})", r.share.value),
    ),
    _number("chance", "guessing, or the best fixed answer", lambda r: r.chance),
    _loss("loss under noise", "accuracy lost when latents are noise, paired", lambda p: p.noise),
    _loss("under foreign latents", "accuracy lost under another item's latents, paired", lambda p: p.foreign),
    Column("follows (chance)", "how often the answer obeys a foreign sketch", _follows),
    _number(
        "unparsed", "answers of the whole file that could not be read and count as wrong", lambda r: r.unparsed, "{:,}"
    ),
    _number("latents", "an item", lambda r: r.latents, "{:.2f}"),
    _number("tokens", "an item", lambda r: r.tokens, "{:.2f}"),
    _number("seconds", "an item", lambda r: r.seconds, "{:.4g}"),
    _number("n", "items", lambda r: r.n, "{:,}"),
    _number("seed", "", lambda r: r.seed, "{}"),
    _words("probed on", "items the probes were run on", lambda r: r.probes.on if r.probes else ""),
    _words("device", "", lambda r: r.device),
    _words("file", "", lambda r: r.file),
]


# -- reading -----------------------------------------------------------------------------------------------------------
def gather(folder: Path) -> tuple[list[Row], list[str]]:
    """(rows of all result files below ``folder``, sentences about what was left out). Links that lead out are not
    followed."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'. Name one that holds result files.")
    rows, probes, broken, foreign = [], {}, [], []
    inside = folder.resolve()
    for path in sorted(folder.rglob("*.json")):
        shown = path.relative_to(folder).as_posix().encode(errors="backslashreplace").decode()
        try:
            if not Path(os.path.realpath(path)).is_relative_to(inside):
                raise ValueError(f"'{shown}' is a link out of the folder. Put the file itself there.")
            found = read(path, shown) if path.is_file() else None
        except (ValueError, OSError) as error:
            broken.append(f"Left out: {error}")
            continue
        if found is None:
            foreign.append(shown)
        else:
            rows += found.rows
            for model, probed in found.probes.items():
                probes.setdefault(model, []).append(probed)
    measured = {row.model for row in rows}
    broken += [
        f"Left out: probes of '{model}', of which no file says how often it is right. Measure it, or name it "
        "alike in both."
        for model in sorted(probes.keys() - measured)
    ]
    if foreign:
        broken.append(f"Left out, as they are no result files: {', '.join(foreign)}.")
    return [joined(row, probes.get(row.model, [])) for row in rows], broken


def joined(row: Row, probes: list[Probes]) -> Row:
    """The row with probes of its checkpoint: those on its own task before others, then those on most items."""
    if row.probes or not probes:
        return row
    best = max(probes, key=lambda p: (p.task in (row.benchmark, row.task), p.n))
    return Row(**vars(row) | {"probes": best})


# -- tables ------------------------------------------------------------------------------------------------------------
def tables(rows: list[Row], one: bool = False) -> list[Table]:
    """A table a protocol. An accuracy of another metric has another protocol, even in one file.

    Raises:
        ValueError: with ``one``, where protocols differ; names two files and each field in which they do.
    """
    alike = _alike(rows, lambda r: _exactly(r.protocol))
    if one and len(alike) > 1:
        (first, *_), (second, *_), *_ = alike.values()
        pairs = [
            (name, _said(first, name), _said(second, name))
            for name in sorted(first.protocol.keys() | second.protocol.keys())
        ]
        differing = [f"{name} ({one} and {other})" for name, one, other in pairs if one != other]
        raise ValueError(
            f"'{first.file}' and '{second.file}' cannot stand in one table: their protocols differ in "
            f"{', '.join(differing)}. Leave --one-table out, keep only one of them in the folder, or "
            "choose one measure with --metric."
        )
    found = []
    for group in alike.values():
        group.sort(key=lambda r: (_natural(task_of(r)), -r.share.value, r.method, r.seed or 0))
        names = ", ".join(dict.fromkeys(r.benchmark for r in group))
        protocol = {name: _plain(value) for name, value in group[0].protocol.items()}
        found.append(Table(f"{names}: {protocol['metric']}", protocol, group, seeds(group)))
    return sorted(found, key=lambda t: (_natural(t.title), list(t.protocol.items())))


def _exactly(value: Any) -> str:
    """A JSON value as a text that is equal for equal values: 0 and 0.0 are, 0 and false are not."""

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: whole(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [whole(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return json.dumps(whole(value), ensure_ascii=False, sort_keys=True)


def _said(row: Row, name: str) -> str:
    return _exactly(row.protocol[name]) if name in row.protocol else "nothing"


def _plain(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else _exactly(value)


def _natural(text: str) -> list:
    """Numbers in a text sort as numbers: level 10 comes after level 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,9})", text) if part]


def seeds(rows: Iterable[Row]) -> list[Seeds]:
    """Each method that was measured with several seeds on a task: over its models, or where two models have one seed,
    model by model. No mean is taken where a seed still stands twice."""
    found = []
    for (method, task), group in _alike(rows, lambda r: (r.method, task_of(r))).items():
        by_model = _alike(group, lambda r: r.model)
        for same in by_model.values() if _repeated(group) and len(by_model) > 1 else [group]:
            each = sorted((r.seed, r.share.value) for r in same if r.seed is not None)
            if len(dict(each)) < 2:
                continue
            values, models = [value for _, value in each], sorted({r.model for r in same})
            note = (
                "a seed stands twice: no mean"
                if _repeated(same)
                else (f"{len(each)} seeds: no mean" if len(each) < SPREAD else "")
            )
            found.append(
                Seeds(
                    method,
                    models[0] if len(models) == 1 else f"{len(models)} models",
                    task,
                    each,
                    None if note else mean(values),
                    None if note else stdev(values),
                    note,
                )
            )
    return found


def _alike(rows: Iterable[Row], key: Callable) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _repeated(rows: list[Row]) -> bool:
    found = [row.seed for row in rows if row.seed is not None]
    return len(set(found)) < len(found)


INTRODUCTION = (
    "Each table holds results of one protocol; numbers of different tables are not comparable. Intervals are of 95 %."
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.leaderboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--out", default="leaderboard.html", help="the page; Markdown gets the same name with .md")
    parser.add_argument("--metric", help="only results of this measure, such as accuracy")
    parser.add_argument("--one-table", action="store_true", help="refuse results of different protocols")
    with cli_errors():
        to_files(parser.parse_args(argv))


def to_files(given: argparse.Namespace) -> None:
    out = Path(given.out)
    if out.suffix != ".html":
        raise ValueError(f"--out {given.out}: give a name that ends in .html; the Markdown goes beside it.")
    rows, left_out = gather(Path(given.folder))
    for sentence in left_out:
        console.print(sentence, markup=False, highlight=False)
    if not rows:
        raise ValueError(
            f"'{given.folder}' holds no result files. Write some with eval.benchmark, eval.run or train.compare."
        )
    if given.metric:
        measures = {row.protocol["metric"] for row in rows}
        rows = [row for row in rows if row.protocol["metric"] == given.metric]
        if not rows:
            raise ValueError(f"no result is of measure '{given.metric}'. {did_you_mean(given.metric, measures)}")
    found = tables(rows, given.one_table)
    atomic_write_text(out, page(found, COLUMNS, INTRODUCTION, left_out))
    atomic_write_text(out.with_suffix(".md"), markdown(found, COLUMNS, INTRODUCTION, left_out))
    console.print(
        f"{len(rows)} results of {len({r.file for r in rows})} files in {len(found)} tables, one a protocol. "
        f"Written to {out} and {out.with_suffix('.md')}",
        markup=False,
        highlight=False,
    )


if __name__ == "__main__":
    main()

"""All result files of a folder as one self-contained HTML page with sortable tables, and as Markdown beside it.

    python -m eval.leaderboard DIR --out leaderboard.html      # writes leaderboard.md too

It reads the JSON of eval.benchmark, eval.run and train.compare below DIR, and that of eval.probe, which is joined with
the rows of its checkpoint. A table has only accuracies of equal protocol: prompt, checker, metric and all other
settings in the file. ``--one-table`` requires a single table and otherwise reports the differences. Damaged files and
other files are listed and left out.
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

from latent_reason.cli.arguments import add_output
from latent_reason.errors import cli_errors, did_you_mean
from latent_reason.files import atomic_write_text
from latent_reason.outputs import check_output

from .leaderboard_page import markdown, page
from .results import Probes, Row, Share, read

console = Console(soft_wrap=True)
MIN_SEEDS = 3  # smallest number of seeds with a mean


class Table(NamedTuple):
    """Rows of one protocol. Both output formats print ``columns`` of ``rows``, then ``seeds``."""

    title: str
    protocol: dict[str, str]
    rows: list[Row]
    seeds: list[Seeds]


class Seeds(NamedTuple):
    """One method on one task: its value for each seed, and mean and standard deviation if there are enough seeds."""

    method: str
    model: str
    task: str
    values_by_seed: list[tuple[int, float]]
    mean: float | None
    sd: float | None
    note: str


class Column(NamedTuple):
    """``of(row)`` gives the printed text and the sort key; the key is None if the cell is empty."""

    title: str
    note: str
    of: Callable[[Row], tuple[str, str | float | None]]
    number: bool = True


def _text_column(title: str, note: str, of: Callable[[Row], str]) -> Column:
    return Column(title, note, lambda row: (of(row), of(row) or None), number=False)


def _number_column(title: str, note: str, of: Callable[[Row], float | None], form: str = "{:.3f}") -> Column:
    return Column(title, note, lambda row: ("" if of(row) is None else form.format(of(row)), of(row)))


def _loss_column(title: str, note: str, of: Callable[[Probes], Share | None]) -> Column:
    def cell(row: Row):
        loss = row.probes and of(row.probes)
        return (f"{loss.value:+.3f} ({loss.low:+.2f} to {loss.high:+.2f})", loss.value) if loss else ("", None)

    return Column(title, note, cell)


def _follows_cell(row: Row) -> tuple[str, float | None]:
    probes = row.probes
    if probes is None or probes.follows is None:
        return "", None
    return f"{probes.follows:.2f}" + ("" if probes.by_chance is None else f" ({probes.by_chance:.2f})"), probes.follows


def task_of(row: Row) -> str:
    return row.benchmark if row.task == row.benchmark else f"{row.benchmark}, {row.task}"


COLUMNS = [
    _text_column("method", "or the arm of a train.compare run", lambda r: r.method),
    _text_column("model", "the checkpoint; for an arm, its method", lambda r: r.model),
    _text_column("task", "", task_of),
    Column(
        "share",
        "share of right items with its 95 % interval",
        lambda r: (f"{r.share.value:.3f} ({r.share.low:.2f} to {r.share.high:.2f})", r.share.value),
    ),
    _number_column("chance", "a random guess, or the best fixed answer", lambda r: r.chance),
    _loss_column("loss under noise", "loss of accuracy if latents are noise, paired", lambda p: p.noise),
    _loss_column("under foreign latents", "loss of accuracy with another item's latents, paired", lambda p: p.foreign),
    Column("follows (chance)", "how often the answer follows a foreign sketch", _follows_cell),
    _number_column(
        "unparsed",
        "answers of the whole file that could not be parsed; they count as wrong",
        lambda r: r.unparsed,
        "{:,}",
    ),
    _number_column("latents", "per item", lambda r: r.latents, "{:.2f}"),
    _number_column("tokens", "per item", lambda r: r.tokens, "{:.2f}"),
    _number_column("seconds", "per item", lambda r: r.seconds, "{:.4g}"),
    _number_column("n", "number of items", lambda r: r.n, "{:,}"),
    _number_column("seed", "", lambda r: r.seed, "{}"),
    _text_column("probed on", "items of the probes", lambda r: r.probes.on if r.probes else ""),
    _text_column("device", "", lambda r: r.device),
    _text_column("file", "", lambda r: r.file),
]


# -- reading -----------------------------------------------------------------------------------------------------------
def gather_results(folder: Path) -> tuple[list[Row], list[str]]:
    """(rows of all result files below ``folder``, warnings about files that were left out). Links to files outside the
    folder are ignored."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'. Give a folder with result files.")
    rows, probes, warnings, other_files = [], {}, [], []
    inside = folder.resolve()
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix().encode(errors="backslashreplace").decode()
        try:
            if not Path(os.path.realpath(path)).is_relative_to(inside):
                raise ValueError(f"'{name}' is a link to a file outside the folder. Copy the file into the folder.")
            result_file = read(path, name) if path.is_file() else None
        except (ValueError, OSError) as error:
            warnings.append(f"Left out: {error}")
            continue
        if result_file is None:
            other_files.append(name)
        else:
            rows += result_file.rows
            for model, checkpoint_probes in result_file.probes.items():
                probes.setdefault(model, []).append(checkpoint_probes)
    measured = {row.model for row in rows}
    warnings += [
        f"Left out: probes of '{model}', because no file has its accuracy. Evaluate it, or use the same checkpoint path "
        "in both files."
        for model in sorted(probes.keys() - measured)
    ]
    if other_files:
        warnings.append(f"Left out, because they are not result files: {', '.join(other_files)}.")
    return [with_probes(row, probes.get(row.model, [])) for row in rows], warnings


def with_probes(row: Row, probes: list[Probes]) -> Row:
    """The row with the probes of its checkpoint: probes on its own task come first, then those on the most items."""
    if row.probes or not probes:
        return row
    best = max(probes, key=lambda p: (p.task in (row.benchmark, row.task), p.n))
    return Row(**vars(row) | {"probes": best})


# -- tables ------------------------------------------------------------------------------------------------------------
def build_tables(rows: list[Row], one_table: bool = False) -> list[Table]:
    """One table per protocol. Different metrics are different protocols, even in one file.

    Raises:
        ValueError: with ``one_table``, if protocols differ. Names two files and each field that differs.
    """
    groups = _group_by(rows, lambda r: _canonical_json(r.protocol))
    if one_table and len(groups) > 1:
        (first, *_), (second, *_), *_ = groups.values()
        pairs = [
            (name, _protocol_value(first, name), _protocol_value(second, name))
            for name in sorted(first.protocol.keys() | second.protocol.keys())
        ]
        differences = [f"{name} ({a} and {b})" for name, a, b in pairs if a != b]
        raise ValueError(
            f"'{first.file}' and '{second.file}' cannot be in one table: their protocols differ in "
            f"{', '.join(differences)}. Leave --one-table out, keep only one of the files in the folder, or "
            "choose one metric with --metric."
        )
    tables = []
    for group in groups.values():
        group.sort(key=lambda r: (_natural_key(task_of(r)), -r.share.value, r.method, r.seed or 0))
        names = ", ".join(dict.fromkeys(r.benchmark for r in group))
        protocol = {name: _protocol_text(value) for name, value in group[0].protocol.items()}
        tables.append(Table(f"{names}: {protocol['metric']}", protocol, group, seeds(group)))
    return sorted(tables, key=lambda t: (_natural_key(t.title), list(t.protocol.items())))


def _canonical_json(value: Any) -> str:
    """A JSON value as text that is equal for equal values: 0 and 0.0 are equal, 0 and false are not."""

    def normalize(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: normalize(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [normalize(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return json.dumps(normalize(value), ensure_ascii=False, sort_keys=True)


def _protocol_value(row: Row, name: str) -> str:
    return _canonical_json(row.protocol[name]) if name in row.protocol else "nothing"


def _protocol_text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else _canonical_json(value)


def _natural_key(text: str) -> list:
    """A sort key that compares numbers in a text as numbers: level 10 comes after level 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,9})", text) if part]


def seeds(rows: Iterable[Row]) -> list[Seeds]:
    """The methods with several seeds on a task, over all models of a method, or per model if two models share a seed.
    There is no mean if a seed still occurs twice."""
    out = []
    for (method, task), group in _group_by(rows, lambda r: (r.method, task_of(r))).items():
        by_model = _group_by(group, lambda r: r.model)
        for same_method in by_model.values() if _has_repeated_seed(group) and len(by_model) > 1 else [group]:
            values_by_seed = sorted((r.seed, r.share.value) for r in same_method if r.seed is not None)
            if len(dict(values_by_seed)) < 2:
                continue
            values, models = [value for _, value in values_by_seed], sorted({r.model for r in same_method})
            note = (
                "a seed occurs twice: no mean"
                if _has_repeated_seed(same_method)
                else (f"{len(values_by_seed)} seeds: no mean" if len(values_by_seed) < MIN_SEEDS else "")
            )
            out.append(
                Seeds(
                    method,
                    models[0] if len(models) == 1 else f"{len(models)} models",
                    task,
                    values_by_seed,
                    None if note else mean(values),
                    None if note else stdev(values),
                    note,
                )
            )
    return out


def _group_by(rows: Iterable[Row], key: Callable) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _has_repeated_seed(rows: list[Row]) -> bool:
    seeds = [row.seed for row in rows if row.seed is not None]
    return len(set(seeds)) < len(seeds)


INTRODUCTION = (
    "Each table has the results of one protocol. Numbers of different tables are not comparable. Intervals are 95 %."
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.leaderboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR")
    add_output(parser, "HTML file; the Markdown file has the suffix .md", required=False, default="leaderboard.html")
    parser.add_argument("--metric", help="only results of this metric, such as accuracy")
    parser.add_argument("--one-table", action="store_true", help="raise an error if protocols differ")
    with cli_errors():
        write_leaderboard(parser.parse_args(argv))


def write_leaderboard(args: argparse.Namespace) -> None:
    out = Path(args.out)
    if out.suffix != ".html":
        raise ValueError(f"--out {args.out}: give a name that ends in .html. The Markdown file is written beside it.")
    for path in (out, out.with_suffix(".md")):
        check_output(path, args.overwrite)
    rows, left_out = gather_results(Path(args.folder))
    for sentence in left_out:
        console.print(sentence, markup=False, highlight=False)
    if not rows:
        raise ValueError(
            f"'{args.folder}' has no result files. Create some with eval.benchmark, eval.run or train.compare."
        )
    if args.metric:
        metrics = {row.protocol["metric"] for row in rows}
        rows = [row for row in rows if row.protocol["metric"] == args.metric]
        if not rows:
            raise ValueError(f"no result has the metric '{args.metric}'. {did_you_mean(args.metric, metrics)}")
    board_tables = build_tables(rows, args.one_table)
    atomic_write_text(out, page(board_tables, COLUMNS, INTRODUCTION, left_out))
    atomic_write_text(out.with_suffix(".md"), markdown(board_tables, COLUMNS, INTRODUCTION, left_out))
    console.print(
        f"{len(rows)} results of {len({r.file for r in rows})} files in {len(board_tables)} tables, one per protocol. "
        f"Written to {out} and {out.with_suffix('.md')}",
        markup=False,
        highlight=False,
    )


if __name__ == "__main__":
    main()

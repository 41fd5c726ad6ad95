"""All result files of a folder as one self-contained HTML page with sortable tables, and as Markdown beside it.

    python -m eval.leaderboard DIR --out leaderboard.html      # writes leaderboard.md too

It reads the JSON of eval.benchmark, eval.run and train.compare below DIR, and that of eval.probe, which is joined with
the rows of its checkpoint. Rows link to the pages of eval.dossier below DIR. A table has accuracies on the same items by
the same protocol: prompt, checker, metric and all other settings in the file. Seeds of a method are one row: their mean.
``--columns`` chooses columns and their order; the page can hide some. ``--one-table`` requires a single table and
otherwise reports the differences. Damaged files and other files are listed and left out.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.leaderboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR")
    add_output(parser, "HTML file; the Markdown file has the suffix .md", required=False, default="leaderboard.html")
    parser.add_argument("--metric", help="only results of this metric, such as accuracy")
    parser.add_argument("--items", help="only results on these items, such as 'level 3-6' or all")
    parser.add_argument(
        "--columns", type=lambda t: t.split(","), help="columns in this order, such as share,method,seconds"
    )
    parser.add_argument("--one-table", action="store_true", help="raise an error if protocols or items differ")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console

from latent_reason.errors import cli_errors, did_you_mean
from latent_reason.files import atomic_write_text
from latent_reason.outputs import check_output

from .leaderboard_columns import chosen_columns
from .leaderboard_page import markdown, page
from .results import Probes, Row, Share, read

console = Console(soft_wrap=True)


#: numbers of a row whose mean over seeds is shown
MEANS = ("chance", "latents", "tokens", "passes", "pictures", "seconds")


class Table(NamedTuple):
    """Rows of one protocol and one set of items."""

    title: str
    protocol: dict[str, str]
    rows: list[Row]


# -- reading -----------------------------------------------------------------------------------------------------------
def gather_results(folder: Path) -> tuple[list[Row], list[str]]:
    """(rows of all result files below ``folder``, warnings about files that were left out). Links to files outside the
    folder are ignored."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'. Give a folder with result files.")
    rows, probes, dossiers, warnings, other_files = [], {}, {}, [], []
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
            if result_file.dossier_of and path.with_name("index.html").is_file():
                dossiers.setdefault(result_file.dossier_of, []).append(str(path.with_name("index.html")))
    measured = {row.model for row in rows}
    warnings += [
        f"Left out: probes of '{model}', because no file has its accuracy. Evaluate it, or use the same checkpoint path "
        "in both files."
        for model in sorted(probes.keys() - measured)
    ]
    if other_files:
        warnings.append(f"Left out, because they are not result files: {', '.join(other_files)}.")
    return [
        replace(with_probes(row, probes.get(row.model, [])), dossiers=tuple(dossiers.get(row.model, ())))
        for row in rows
    ], warnings


def with_probes(row: Row, probes: list[Probes]) -> Row:
    """The row with the probes of its checkpoint: probes on its own task come first, then those on the most items."""
    if row.probes or not probes or row.is_explicit:
        return row
    best = max(probes, key=lambda p: (p.task in (row.benchmark, row.task), p.n))
    return replace(row, probes=best)


# -- tables ------------------------------------------------------------------------------------------------------------
def build_tables(rows: list[Row], one_table: bool = False) -> list[Table]:
    """One table a protocol and set of items. Different metrics are different protocols, even in one file.

    Raises:
        ValueError: with ``one_table``, if protocols or items differ. Names two files and each field that differs.
    """
    groups = _group_by(rows, lambda r: (r.benchmark, r.task, r.n, _canonical_json(r.protocol)))
    if one_table and len(groups) > 1:
        (first, *_), (second, *_), *_ = groups.values()
        pairs = [
            (name, _protocol_value(first, name), _protocol_value(second, name))
            for name in sorted(first.protocol.keys() | second.protocol.keys())
        ]
        pairs += [("items", items_of(first), items_of(second))]
        differences = [f"{name} ({a} and {b})" for name, a, b in pairs if a != b]
        raise ValueError(
            f"'{first.file}' and '{second.file}' cannot be in one table: they differ in {', '.join(differences)}. Leave "
            "--one-table out, keep only one of the files in the folder, or choose with --metric and --items."
        )
    tables = []
    for group in groups.values():
        means = sorted(mean_over_seeds(group), key=lambda r: (-r.share.value, r.method, r.seed or 0))
        protocol = {name: _protocol_text(value) for name, value in group[0].protocol.items()}
        tables.append(Table(f"{items_of(group[0])}: {protocol['metric']}", protocol, means))
    return sorted(tables, key=lambda t: (_natural_key(t.title), list(t.protocol.items())))


def items_of(row: Row) -> str:
    """The set of items of a row, such as "frozenlake_plan, level 3-6, n 700"."""
    name = row.benchmark if row.task == row.benchmark else f"{row.benchmark}, {row.task}"
    return f"{name}, n {row.n:,}"


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


def mean_over_seeds(rows: Sequence[Row]) -> list[Row]:
    """The rows of one table, where those of a method that differ in their seed are one: over all models of a method, or
    per model if two models share a seed. A seed that still occurs twice has rows of its own."""
    out = []
    for group in _group_by(rows, lambda r: r.method).values():
        for same in _group_by(group, lambda r: r.model).values() if _has_repeated_seed(group) else [group]:
            out += same if len(same) == 1 or _has_repeated_seed(same) else [mean_row(same)]
    return out


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of rows of several seeds. The ends of its interval are the means of theirs: it covers items, not seeds."""
    rows = sorted(rows, key=lambda r: r.seed)
    models, files = dict.fromkeys(r.model for r in rows), dict.fromkeys(r.file for r in rows)
    probes = [r.probes for r in rows if r.probes]
    return replace(
        rows[0],
        model=rows[0].model if len(models) == 1 else f"{len(models)} models",
        file=rows[0].file if len(files) == 1 else f"{len(files)} files",
        share=mean_share([r.share for r in rows]),
        seed=None,
        by_seed=tuple((r.seed, r.share.value) for r in rows),
        unparsed=None if None in (counts := [r.unparsed for r in rows]) else sum(counts),
        dossiers=tuple(dict.fromkeys(page for r in rows for page in r.dossiers)),
        probes=mean_probes(probes) if probes else None,
        **{name: mean_known([getattr(r, name) for r in rows]) for name in MEANS},
    )


def mean_share(shares: Sequence[Share]) -> Share:
    return Share(*(mean(getattr(share, name) for share in shares) for name in ("value", "low", "high")))


def mean_known(values: Iterable[float | None]) -> float | None:
    """The mean of the numbers; None without one."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def mean_probes(probes: Sequence[Probes]) -> Probes:
    losses = {name: [loss for p in probes if (loss := getattr(p, name))] for name in ("noise", "foreign")}
    return replace(
        probes[0],
        **{name: mean_share(found) if found else None for name, found in losses.items()},
        **{name: mean_known(getattr(p, name) for p in probes) for name in ("follows", "by_chance")},
    )


def _group_by(rows: Iterable[Row], key: Callable) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _has_repeated_seed(rows: Sequence[Row]) -> bool:
    """Whether seeds cannot tell rows apart: one occurs twice, or is not named."""
    return len({row.seed for row in rows} - {None}) < len(rows)


INTRODUCTION = (
    "Each table has the results of one protocol on one set of items. Numbers of different tables are not comparable. A row "
    "of several seeds is their mean. Intervals are 95 %, over items."
)


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        write_leaderboard(parse_arguments(argv))


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
    rows = chosen_rows(rows, args.metric, args.items)
    tables, columns = build_tables(rows, args.one_table), chosen_columns(args.columns, out.parent)
    atomic_write_text(out, page(tables, columns, INTRODUCTION, left_out))
    atomic_write_text(out.with_suffix(".md"), markdown(tables, columns, INTRODUCTION, left_out))
    console.print(
        f"{len(rows)} results of {len({r.file for r in rows})} files in {len(tables)} tables, one a protocol and set of "
        f"items. Written to {out} and {out.with_suffix('.md')}",
        markup=False,
        highlight=False,
    )


def chosen_rows(rows: list[Row], metric: str | None, items: str | None) -> list[Row]:
    """The rows of a metric and a set of items; None chooses all. Raises ValueError if there are none."""
    for title, name, of in (("metric", metric, lambda r: r.protocol["metric"]), ("items", items, lambda r: r.task)):
        if name is None:
            continue
        known, rows = {of(row) for row in rows}, [row for row in rows if of(row) == name]
        if not rows:
            raise ValueError(f"no result has the {title} '{name}'. {did_you_mean(name, known)}")
    return rows


if __name__ == "__main__":
    main()

"""Compares result files by item: accuracy, paired differences to the first file and corrected p-values.

    python -m eval.compare A.json B.json [C.json ...] [--items "frozenlake_plan test"] [--table FILE.md]
    python -m eval.compare FILE.json [--against ARM] [--table FILE.tex]     # the arms of train.compare, train.rl.compare

The first line is for files of eval.run, eval.answers or eval.benchmark. Items are paired by their id, so all files need the same items
and the same protocol. Single items are read from FILE.items.jsonl beside FILE.json; --items chooses those of one task,
split and level. Files of one comparison (other arms or seeds) are read together. ``--table`` writes
Markdown, CSV or LaTeX, by its ending.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_overwrite


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--items", metavar="TEXT", help='task, split and level, such as "frozenlake_plan test 4"')
    parser.add_argument("--against", metavar="NAME", help="what the others are compared with (default: the first)")
    parser.add_argument("--table", metavar="FILE", help="write the table too: FILE.md, FILE.csv or FILE.tex")
    add_overwrite(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from rich.console import Console

from latent_reason.errors import cli_errors, did_you_mean
from latent_reason.json_files import fields_of, read_json

from .comparison import COSTS, System, compare_systems, metric_of, systems_of_arms
from .comparison_table import check_table_output, console_tables, notes, write_table
from .item_lines import items_path, read_items
from .results import read

console = Console(soft_wrap=True)
EXPECTED = "the JSON of eval.run, eval.benchmark or train.compare"
#: keys of a comparison that have to be equal
SAME = ("steps", "batch_size", "items", "task", "levels", "test_items")


def systems_of(files: Sequence[str], chosen: str | None = None) -> tuple[str, list[System]]:
    """(metric, systems) of result files. ``chosen`` is the task, split and level of the items of eval.run and
    eval.benchmark, or a beginning of these words.

    Raises:
        FileNotFoundError, ValueError: a file is missing, of another kind or of another protocol, or has other items.
    """
    reports = {file: read_json(file, EXPECTED, ("results",)) for file in dict.fromkeys(files)}
    if all(str(report.get("command", "")).startswith("python -m train.") for report in reports.values()):
        if chosen:
            raise ValueError(
                "--items chooses items of eval.run and eval.benchmark, not of train.compare. Leave it out."
            )
        return systems_of_comparisons(reports)
    protocol_of(files[0], reports[files[0]])
    if len(reports) < 2:
        raise ValueError(f"'{files[0]}' is one result. Give two or more files of eval.run or eval.benchmark.")
    return systems_of_results(reports, chosen)


def systems_of_comparisons(reports: dict[str, dict]) -> tuple[str, list[System]]:
    """The arms of comparisons; those of one name are seeds of one arm."""
    (first, about), *others = reports.items()
    for file, report in others:
        if differ := [key for key in SAME if about.get(key) != report.get(key)]:
            raise ValueError(f"'{first}' and '{file}' are other comparisons: they differ in {', '.join(differ)}.")
    names = ", ".join(reports)
    with fields_of(names, EXPECTED):
        rows = [row for report in reports.values() for row in report["results"]]
        if not rows:
            raise ValueError(f"{names}: no arm was measured yet. Let the comparison go on.")
        if len({(row["arm"], row["seed"]) for row in rows}) < len(rows):
            raise ValueError(f"{names}: an arm occurs twice with one seed. Leave one of the files out.")
        return metric_of(rows), systems_of_arms(rows)


def systems_of_results(reports: dict[str, dict], chosen: str | None) -> tuple[str, list[System]]:
    """One system a file of eval.run or eval.benchmark, on the chosen items."""
    (first, about), *others = reports.items()
    metric, protocols = protocol_of(first, about)
    tables = {file: items_by_id(file) for file in reports}
    for file, report in others:
        other_metric, other = protocol_of(file, report)
        differ = sorted(key for key in protocols.keys() | other.keys() if protocols.get(key) != other.get(key))
        if differ or other_metric != metric:
            raise ValueError(
                f"'{first}' and '{file}' are of other protocols: they differ in "
                f"{', '.join(differ or ['metric'])}. Evaluate again with the same options."
            )
        check_same_items(first, tables[first], file, tables[file])
    names = names_of(list(reports))
    ids = chosen_ids(tables[first], chosen)
    clusters = [tables[first][key].get("cluster", place) for place, key in enumerate(ids)]
    return metric, [system_of(names[file], file, [tables[file][key] for key in ids], clusters) for file in reports]


def protocol_of(file: str, report: dict) -> tuple[str, dict]:
    """(metric, all settings that have to be equal) of a result file."""
    content = read(Path(file), file)
    if content is None or not content.rows:
        raise ValueError(f"'{file}' is not {EXPECTED}. Name another file.")
    protocol = {"program": report.get("kind", "eval.run")}
    for row in content.rows:
        place = f"{row.benchmark}, {row.task}: " if len(content.rows) > 1 else ""
        protocol |= {f"{place}{key}": value for key, value in row.protocol.items()}
    seed = {} if "kind" in report else {"seed": report.get("seed")}  # which draws the items of eval.run
    return "accuracy" if "kind" in report else content.rows[0].protocol["metric"], protocol | seed


def place_of(item: dict) -> list:
    """The task of an item of eval.benchmark; task, split and level of one of eval.run."""
    return [item[part] for part in ("task", "split", "level") if part in item]


def items_by_id(file: str) -> dict[str, dict]:
    """id -> line. Levels and splits are a part of the id, because the items of VSP occur in several files."""
    found, path = {}, str(items_path(file))
    for number, item in enumerate(read_items(file), 1):
        with fields_of(path, "the items of eval.run or eval.benchmark"):
            key = " ".join([*map(str, place_of(item)), item["id"]])
            item["score"] = float(item["right"] if "right" in item else next(iter(item["scores"].values())))
            if key in found:
                raise ValueError(f"'{path}', line {number}: item '{key}' occurs twice.")
        found[key] = item
    return found


def check_same_items(first: str, items: dict[str, dict], file: str, other_items: dict[str, dict]) -> None:
    """Raises ValueError unless two files have the same items. Names three of those that only one has."""
    parts = []
    for name, own, other in ((first, items, other_items), (file, other_items, items)):
        if only := [key for key in own if key not in other]:
            parts.append(f"{len(only)} are only in '{name}' ({', '.join(only[:3])}{', ...' * (len(only) > 3)})")
    if parts:
        raise ValueError(
            f"'{first}' and '{file}' have other items: {'; '.join(parts)}. Evaluate both on the same items."
        )


def chosen_ids(items: dict[str, dict], chosen: str | None) -> list[str]:
    """The ids of the items whose task, split and level begin with the words ``chosen``. Tasks and splits of eval.run are
    no common set of items, so one has to be chosen where there are several. Raises ValueError otherwise."""
    sets = dict.fromkeys(" ".join(map(str, words)) for item in items.values() if len(words := place_of(item)) > 2)
    if chosen is None:
        groups = dict.fromkeys(name.rpartition(" ")[0] for name in sets)
        if len(groups) > 1:
            raise ValueError(f"the files have items of several sets: {', '.join(groups)}. Choose one with --items.")
        return list(items)
    words = chosen.split()
    if found := [key for key, item in items.items() if list(map(str, place_of(item)))[: len(words)] == words]:
        return found
    known = sets or dict.fromkeys(" ".join(map(str, place_of(item))) for item in items.values())
    raise ValueError(f"--items: no item is of '{chosen}'. {did_you_mean(chosen, known)}")


def names_of(files: Sequence[str]) -> dict[str, str]:
    """A short name for each file: its stem, or its path where two files share one."""
    stems = [Path(file).stem for file in files]
    return {file: stem if stems.count(stem) == 1 else file for file, stem in zip(files, stems, strict=True)}


def system_of(name: str, file: str, items: Sequence[dict], clusters: Sequence) -> System:
    scores = np.array([[item["score"]] for item in items])
    with fields_of(str(items_path(file)), "the items of eval.run or eval.benchmark"):
        costs = {cost: mean(_amount(item[cost]) for item in items) for cost in COSTS if cost in items[0]}
    return System(name, len(items), {None: float(scores.mean())}, scores, [str(label) for label in clusters], costs)


def _amount(value: float | list[float]) -> float:
    """A cost of one item; latents are given for each span."""
    return float(sum(value)) if isinstance(value, list) else float(value)


def put_first(systems: list[System], name: str | None) -> list[System]:
    """The systems, that named ``name`` first."""
    if name is None:
        return systems
    names = [system.name for system in systems]
    if name not in names:
        raise ValueError(f"--against: there is no '{name}'. {did_you_mean(name, names)}")
    return sorted(systems, key=lambda system: system.name != name)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with cli_errors():
        table = check_table_output(args.table, args.overwrite) if args.table else None
        metric, systems = systems_of(args.files, args.items)
        print_comparison(put_first(systems, args.against), metric, table, console)


def print_comparison(systems: Sequence[System], metric: str, table: Path | None, console: Console) -> None:
    """Print the table of a comparison, and write it to the file ``table`` if one is given."""
    lines = compare_systems(systems)
    for part in console_tables(lines, metric):
        console.print(part, "")
    console.print(notes(lines, metric), soft_wrap=False, markup=False, highlight=False)
    if table:
        write_table(lines, metric, table)
        console.print(f"Table written to {table}", markup=False, highlight=False)


if __name__ == "__main__":
    main()

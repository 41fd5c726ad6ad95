"""The table of a comparison: on the console at 80 columns, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from latent_reason.checkpoint.markdown import code
from latent_reason.files import atomic_write_text
from latent_reason.outputs import check_output

from .comparison import PROBES, Line
from .statistics import LEAST_N, p_text

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


class Column(NamedTuple):
    """A column of all formats: ``cell(line)`` is text, empty if there is nothing to show."""

    title: str
    cell: Callable[[Line], str]


def share(line: Line) -> str:
    low, high = line.share.low, line.share.high
    return f"{line.share.estimate:.3f} ({low:.2f}-{high:.2f})"


def difference(line: Line) -> str:
    if line.difference is None:
        return ""
    estimate, low, high = line.difference
    return f"{estimate:+.3f} ({low:+.2f} to {high:+.2f})"


def p_value(line: Line) -> str:
    return "" if line.p is None else p_text(line.p)


def each_seed(line: Line) -> str:
    shares = line.system.by_seed.values()
    return ", ".join(f"{value:.2f}" for value in shares) if len(shares) > 1 else ""


def cost(name: str, form: str, factor: float = 1) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        value = line.system.costs.get(name)
        return "" if value is None else form.format(factor * value)

    return cell


def probe(name: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        value, chance = line.system.probes.get(name), line.system.probes.get(f"{name} by chance")
        return "" if value is None else f"{value:.2f}" + ("" if chance is None else f" ({chance:.2f})")

    return cell


def columns(lines: Sequence[Line], metric: str) -> list[Column]:
    """The columns that some line fills."""
    titles = [name for name in PROBES if not name.endswith("chance")]
    all_columns = [
        Column(metric, share),
        Column("each seed", each_seed),
        Column("difference", difference),
        Column("p (Holm)", p_value),
        Column("latents", cost("latents", "{:.2f}")),
        Column("tokens", cost("tokens", "{:.2f}")),
        Column("passes", cost("passes", "{:.0f}")),
        Column("pictures", cost("pictures", "{:.1f}")),
        Column("ms", cost("seconds", "{:.0f}", 1000)),
        *(Column(name + " (chance)" * (name == "follows"), probe(name)) for name in titles),
    ]
    return [column for column in all_columns if any(column.cell(line) for line in lines)]


def notes(lines: Sequence[Line], metric: str) -> str:
    """What the table shows, in sentences."""
    first = lines[0].system
    seeds = max(len(line.system.by_seed) for line in lines)
    text = f"{metric}: {first.n} items" + (f", {seeds} seeds" if seeds > 1 else "") + ", 95 % intervals over items."
    if any(line.difference for line in lines):
        text += f" Differences to {first.name!r}, paired by item; p after Holm's correction."
    elif len(lines) > 1:
        text += " No differences: the files have no single items."
    if any(line.system.probes for line in lines):
        text += " Probes: right answers while latents are replaced ('probed': as generated)."
    if first.n < LEAST_N:
        text += f" {first.n} items are too few for a conclusion: {LEAST_N} are needed, {LEAST_N - first.n} more."
    return text


def console_tables(lines: Sequence[Line], metric: str) -> list[Table]:
    """The table, and a second one of the probes, each at most 80 columns wide: intervals stand below their values."""
    shown = columns(lines, metric)
    probed = {name + " (chance)" * (name == "follows") for name in PROBES}
    parts = [[c for c in shown if c.title not in probed], [c for c in shown if c.title in probed]]
    tables = []
    for part in filter(None, parts):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("", max_width=24, overflow="fold")
        for column in part:
            table.add_column(Text(column.title.replace("each seed", "seeds").replace(" (", "\n(")), justify="right")
        for line in lines:
            cells = [column.cell(line).rstrip(")").replace(" (", "\n").replace(", ", "\n") for column in part]
            if any(cells):
                table.add_row(Text(line.system.name), *cells)
        tables.append(table)
    return tables


# -- files -------------------------------------------------------------------------------------------------------------
def markdown(lines: Sequence[Line], metric: str) -> str:
    shown = columns(lines, metric)
    rows = [
        ["", *(column.title for column in shown)],
        ["---", *("---:" for _ in shown)],
        *([code(line.system.name), *(column.cell(line) for column in shown)] for line in lines),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + f"\n{notes(lines, metric)}\n"


def latex(lines: Sequence[Line], metric: str) -> str:
    """A tabular for booktabs, with the notes as a comment."""
    shown = columns(lines, metric)

    def row(cells: Sequence[str]) -> str:
        return "  " + " & ".join("".join(LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            f"% {notes(lines, metric)}",
            rf"\begin{{tabular}}{{l{'r' * len(shown)}}}",
            r"  \toprule",
            row(["", *(column.title for column in shown)]),
            r"  \midrule",
            *(row([line.system.name, *(column.cell(line) for column in shown)]) for line in lines),
            r"  \bottomrule",
            "\\end{tabular}\n",
        ]
    )


def csv_text(lines: Sequence[Line], metric: str) -> str:
    """Numbers without rounding, one column each."""
    records = []
    for line in lines:
        system, gap = line.system, line.difference or (None, None, None)
        records.append(
            {
                "name": system.name,
                "metric": metric,
                "n": system.n,
                "seeds": " ".join(str(seed) for seed in system.by_seed if seed is not None),
                **dict(zip(("value", "low", "high"), line.share, strict=True)),
                "by_seed": " ".join(map(str, system.by_seed.values())),
                **dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True)),
                "p_holm": line.p,
                **system.costs,
                **{name.replace(" ", "_"): value for name, value in system.probes.items()},
            }
        )
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


FORMATS = {".md": markdown, ".csv": csv_text, ".tex": latex}


def check_table_output(file: str | Path, overwrite: bool) -> Path:
    """The path of a table that a command will write. Raises ValueError for another ending than those of ``FORMATS``;
    other errors are those of :func:`latent_reason.outputs.check_output`."""
    if Path(file).suffix not in FORMATS:
        raise ValueError(f"'{file}' does not end in {', '.join(FORMATS)}. Give the table one of these endings.")
    return check_output(file, overwrite)


def write_table(lines: Sequence[Line], metric: str, file: Path) -> None:
    atomic_write_text(file, FORMATS[file.suffix](lines, metric))

"""Convert records between formats and count them: the verbs ``data convert`` and ``data stats``.

All invalid rows are reported. A new folder is written atomically.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from rich.table import Table

from ..errors import did_you_mean
from ..files import atomic_write_text
from ..outputs import check_output, check_output_folder
from ..trace import Text, Trace
from . import formats, native
from .checks import Overlap
from .errors import DataError, Report
from .labels import Labels, refuse, with_checker
from .places import ImageRoots
from .sources import SUFFIXES


class _TooManyErrors(Exception):
    """Too many invalid rows: the new folder is discarded."""


def read(
    format: str,
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    checker: str | None = None,
    **options,
) -> Iterator[Trace | DataError]:
    """Read the rows of a source in ``format`` (also ``native``). ``checker`` names the rule that grades their answers;
    None leaves it to the format. Raises ValueError for an unknown option or checker."""
    report = Report() if report is None else report
    known = [] if format == "native" else formats.options(format)
    if checker is not None and "checker" in known:  # then its errors name the row
        options["checker"] = checker
    elif checker is not None:
        return with_checker(read(format, source, image_root, report, **options), checker, report)
    for option in options:
        if option not in known:
            has = ", ".join(f"--{name.replace('_', '-')}" for name in known) or "none"
            raise ValueError(f"'{format}' has no option --{option.replace('_', '-')}. Its options are: {has}.")
    if format == "native":
        return native.examine(source, image_root, report=report)
    return formats.load(format).read(source, image_root, report, **options)


def check(
    format: str,
    source: str | Path,
    image_root: ImageRoots = None,
    fits: Callable[[Trace], None] | None = None,
    **options,
) -> Report:
    """Read all rows of a source in ``format`` and report every error, as ``native.check`` does for records."""
    if format == "native":
        if "checker" in options:
            raise ValueError("'native' has no option --checker here: each record names its own. Leave it out.")
        read(format, source, **options)  # it has no options
        return native.check(source, image_root, fits=fits)
    report, overlap = Report(), Overlap()
    for row in read(format, source, image_root, report, **options):
        if isinstance(row, Trace):
            overlap.add(row)
            try:
                if fits is not None:
                    fits(row)
            except DataError as error:
                report.errors.append(error.at(f"trace '{row.id}'", id=row.id))
    report.errors.extend(overlap.errors())
    if not report.traces:
        report.errors.append(report.nothing_usable(", ".join(SUFFIXES)))
    return report


def convert(
    format: str,
    source: str | Path,
    folder: str | Path,
    to: str = "native",
    image_root: ImageRoots = None,
    skip: bool = False,
    max_skip: float = 0.01,
    lossy: bool = False,
    labels: Labels | None = None,
    **options,
) -> tuple[Path | None, Report]:
    """Write the rows of ``source`` to a new ``folder`` in the format ``to``; returns the path and the report.

    ``labels`` changes task, split and mode of the records, and leaves easy ones out. ``options`` are those of :func:`read`. If there are invalid rows, nothing is written and the path is None.
    With ``skip``, the valid rows are written and the others are listed in ``folder``.skipped.jsonl, unless their
    fraction exceeds ``max_skip``.

    Raises:
        ValueError: unknown format or option; or information would be lost and ``lossy`` is false.
        FileExistsError: ``folder`` is not empty.
        FileNotFoundError: ``source`` does not exist.
    """
    report, source, folder, labels = Report(), Path(source), Path(folder), labels or Labels()
    check_writable(to)
    check_outside(folder, source)
    check_output_folder(folder)
    skipped = check_output(f"{folder}.skipped.jsonl", None) if skip else None
    results = read(format, source, image_root, report, **options)

    def valid_traces() -> Iterator[Trace]:
        for row in results:
            if isinstance(row, Trace):
                try:
                    labelled = labels.apply(row) if labels.keeps(row) else None
                except DataError as error:
                    refuse(row, error, report)
                else:
                    if labelled is not None:
                        yield labelled
        num_bad = max(len(report.errors), report.rows - report.traces)  # one error may stand for a file
        if report.errors and not (skip and num_bad <= max_skip * report.rows):
            raise _TooManyErrors
        if not report.traces:
            raise report.nothing_usable(".jsonl" if format == "native" else ", ".join(SUFFIXES))
        labels.check_filled(report.traces)

    try:
        path = write(valid_traces(), folder, to, lossy, report)
    except _TooManyErrors:
        return None, report
    if report.errors and skipped:
        atomic_write_text(
            skipped,
            "".join(
                json.dumps({"file": e.file, "row": e.row, "id": e.id, "code": e.code}) + "\n" for e in report.errors
            ),
        )
    return path, report


def write(
    traces: Iterable[Trace], folder: str | Path, to: str = "native", lossy: bool = False, report: Report | None = None
) -> Path:
    """Write traces to a new folder in the format ``to``; returns the path of the file. Errors: native.write, writing.write;
    ValueError for a format that cannot be written."""
    check_writable(to)
    return native.write(traces, folder) if to == "native" else formats.load(to).write(traces, folder, lossy, report)


def check_writable(to: str) -> None:
    """Raises ValueError if the format ``to`` cannot be written."""
    if to != "native" and to not in formats.writable():
        raise ValueError(f"format '{to}' cannot be written. {did_you_mean(to, ['native', *formats.writable()])}")


def check_outside(folder: str | Path, source: str | Path) -> None:
    """Raises ValueError if a new ``folder`` is inside the source folder."""
    if Path(source).is_dir() and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(source)):
        raise ValueError(f"'{folder}' lies in the source folder, which must not change. Use a folder outside it.")


@dataclass
class _Group:
    """Counts of the traces of one split, task and mode."""

    sketches: list[int] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, trace: Trace) -> None:
        sketches = [sketch.image for sketch in trace.sketches()]
        self.sketches.append(len(sketches))
        self.characters.append(sum(len(p.text) for m in trace.messages for p in m.content if isinstance(p, Text)))
        self.sizes.update(picture.size for picture in trace.images() + sketches)

    def row(self) -> list[str]:
        common = self.sizes.most_common()
        sizes = [f"{count} of {width}x{height}" for (width, height), count in common[:3]]
        if len(common) > 3:
            sizes.append(f"{sum(count for _, count in common[3:])} of {len(common) - 3} other sizes")
        spreads = [f"{min(values)} - {mean(values):.1f} - {max(values)}" for values in (self.sketches, self.characters)]
        return [str(len(self.sketches)), *spreads, ", ".join(sizes)]


def stats(traces: Iterable[Trace]) -> Table:
    """Counts by split, task and mode: sketches and characters per trace (min - mean - max) and image sizes."""
    groups: dict[tuple[str, str, str], _Group] = {}
    for trace in traces:
        groups.setdefault((trace.split, trace.task, trace.mode), _Group()).add(trace)
    table = Table("split", "task", "mode", "traces", "sketches per trace", "characters per trace", "images")
    for column in table.columns:
        column.overflow = "fold"  # long names are wrapped in a narrow window
    for name, group in sorted(groups.items()):
        table.add_row(*name, *group.row())
    return table

"""From any format to any that can be written, and what a set holds: the verbs ``data convert`` and ``data stats``.

Bad rows are all named before anything is decided; a new folder is there whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from rich.table import Table

from ..errors import did_you_mean
from ..files import atomic_write_text
from ..trace import Text, Trace
from . import formats, native
from .errors import DataError, Report
from .reading import SUFFIXES


class _Stop(Exception):
    """Too many bad rows: the folder being written is given up."""


def read(
    format: str, source: str | Path, image_root: str | Path | None = None, report: Report | None = None, **options
) -> Iterator[Trace | DataError]:
    """The rows of a source in ``format``, ``native`` among them. Raises ValueError for an option it does not have."""
    known = [] if format == "native" else formats.options(format)
    for option in options:
        if option not in known:
            has = ", ".join(f"--{name.replace('_', '-')}" for name in known) or "none"
            raise ValueError(f"'{format}' has no option --{option.replace('_', '-')}. Its own are: {has}.")
    if format == "native":
        return native.examine(source, image_root, report=report)
    return formats.load(format).read(source, image_root, report, **options)


def convert(
    format: str,
    source: str | Path,
    folder: str | Path,
    to: str = "native",
    image_root: str | Path | None = None,
    skip: bool = False,
    max_skip: float = 0.01,
    lossy: bool = False,
    **options,
) -> tuple[Path | None, Report]:
    """Writes the rows of ``source`` to a new ``folder`` in the format ``to``; returns what it wrote and what it found.

    Bad rows: with ``skip`` those that are good are written and the others listed beside, in ``folder``.skipped.jsonl,
    unless their share is above ``max_skip``; else nothing is written and the path is None.

    Raises:
        ValueError: a format or option that is not there; something is lost and ``lossy`` is false.
        FileExistsError: ``folder`` is not empty.
        FileNotFoundError: there is no ``source``.
    """
    report, source, folder = Report(), Path(source), Path(folder)
    if to != "native" and to not in formats.writable():
        raise ValueError(f"'{to}' cannot be written. {did_you_mean(to, ['native', *formats.writable()])}")
    check_outside(folder, source)
    found = read(format, source, image_root, report, **options)

    def good() -> Iterator[Trace]:
        for one in found:
            if isinstance(one, Trace):
                yield one
        if report.errors and not (skip and len(report.errors) <= max_skip * report.rows):
            raise _Stop
        if not report.traces:
            raise report.nothing_usable(".jsonl" if format == "native" else ", ".join(SUFFIXES))

    try:
        path = native.write(good(), folder) if to == "native" else formats.load(to).write(good(), folder, lossy, report)
    except _Stop:
        return None, report
    if report.errors:
        atomic_write_text(
            f"{folder}.skipped.jsonl",
            "".join(
                json.dumps({"file": e.file, "row": e.row, "id": e.id, "code": e.code}) + "\n" for e in report.errors
            ),
        )
    return path, report


def check_outside(folder: str | Path, source: str | Path) -> None:
    """Raises ValueError where a new ``folder`` would lie in the source."""
    if Path(source).is_dir() and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(source)):
        raise ValueError(f"'{folder}' lies in the source folder, which is only read. Name one outside it.")


@dataclass
class _Group:
    """What is counted of the traces of one split, task and mode."""

    sketches: list[int] = field(default_factory=list)
    letters: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, trace: Trace) -> None:
        sketches = [sketch.image for sketch in trace.sketches()]
        self.sketches.append(len(sketches))
        self.letters.append(sum(len(p.text) for m in trace.messages for p in m.content if isinstance(p, Text)))
        self.sizes.update(picture.size for picture in trace.images() + sketches)

    def row(self) -> list[str]:
        common = self.sizes.most_common()
        named = [f"{count} of {width}x{height}" for (width, height), count in common[:3]]
        if len(common) > 3:
            named.append(f"{sum(count for _, count in common[3:])} of {len(common) - 3} other sizes")
        spreads = [f"{min(values)} - {mean(values):.1f} - {max(values)}" for values in (self.sketches, self.letters)]
        return [str(len(self.sketches)), *spreads, ", ".join(named)]


def stats(traces: Iterable[Trace]) -> Table:
    """Counts by split, task and mode; sketches and letters a trace (least - mean - most); sizes of pictures."""
    groups: dict[tuple[str, str, str], _Group] = {}
    for trace in traces:
        groups.setdefault((trace.split, trace.task, trace.mode), _Group()).add(trace)
    table = Table("split", "task", "mode", "traces", "sketches a trace", "letters a trace", "pictures")
    for column in table.columns:
        column.overflow = "fold"  # a narrow window cuts no name
    for name, group in sorted(groups.items()):
        table.add_row(*name, *group.row())
    return table

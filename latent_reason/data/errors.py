"""Data errors, printed as ``<file>:<row>: <field>: <what is wrong>. <what to do>``, and the report of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


def list_names(names: Iterable[str], most: int = 20) -> str:
    """Names of a file in a sentence: the first, each cut at 40 characters, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(name[:40] for name in listed[:most]) + more


class DataError(ValueError):
    """One error in one row. ``code`` is E01-E26; ``id`` is the record's id, if known. ``row`` is a line number from 1,
    or the index of an element of a JSON list from 0.

    The function that finds the error sets code, field and message; the reader adds file, row and id with ``at``.
    """

    def __init__(self, code: str, field: str, what: str, file: str = "", row: int | None = None, id: str | None = None):
        super().__init__(code, field, what, file, row, id)
        self.code, self.field, self.what, self.file, self.row, self.id = code, field, what, file, row, id

    def at(self, file: str, row: int | None = None, id: object = None) -> DataError:
        """Set file, row and id, and return this error."""
        self.file, self.row, self.id = file, row, id if isinstance(id, str) else None
        return self

    def __str__(self) -> str:
        place = [self.file] if self.row is None else [f"{self.file}:{self.row}"]
        # some messages start with the field: "id 'x' already used"
        named = [] if not self.field or self.what.startswith(self.field) else [self.field]
        return ": ".join(part for part in [*place, *named, self.what] if part)


@dataclass
class Report:
    """Counts, warnings and errors of a data set, at most one error per row. ``str()`` gives a readable summary."""

    files: int = 0
    rows: int = 0
    traces: int = 0
    empty_lines: int = 0
    warnings: list[str] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)

    def count(self, *, files: int = 0, rows: int = 0, traces: int = 0, empty_lines: int = 0) -> None:
        """Add to the counts."""
        self.files, self.rows = self.files + files, self.rows + rows
        self.traces, self.empty_lines = self.traces + traces, self.empty_lines + empty_lines

    @property
    def ok(self) -> bool:
        return not self.errors

    @property
    def codes(self) -> dict[str, int]:
        """Number of errors per code."""
        return dict(sorted(Counter(error.code for error in self.errors).items()))

    def nothing_usable(self, kind: str = ".jsonl") -> DataError:
        """The error E25 for a data set without a valid row."""
        if not self.files:
            return DataError("E25", "", f"no {kind} file found. Name a folder that contains one.")
        first = f" First error: {self.errors[0]}" if self.errors else " They contain no rows."
        return DataError("E25", "", f"no usable rows in {self.files} file{'s' * (self.files != 1)}.{first}")

    def as_json(self) -> dict:
        """The report as a JSON value."""
        return {
            "files": self.files,
            "rows": self.rows,
            "usable": self.traces,
            "empty_lines": self.empty_lines,
            "problems": self.codes,
            "warnings": self.warnings,
            "errors": [
                {"code": e.code, "file": e.file, "row": e.row, "id": e.id, "field": e.field, "message": str(e)}
                for e in self.errors
            ],
        }

    def _by_files(self) -> list[tuple[DataError, str]]:
        """The errors in order, each with a note on other files. An error of several files is listed once."""
        files: dict[tuple[str, str, str], set[str]] = {}
        for error in self.errors:
            files.setdefault((error.code, error.field, error.what), set()).add(error.file)
        listed: dict[tuple, tuple[DataError, str]] = {}
        for number, error in enumerate(self.errors):
            kind = error.code, error.field, error.what
            more = len(files[kind]) - 1
            note = f" ({more} more file{'s' * (more > 1)} with the same error)" if more else ""
            listed.setdefault(kind if more else (number,), (error, note))
        return list(listed.values())

    def __str__(self) -> str:
        errors = self._by_files()
        lines = [f"{error.code} {error}{note}" for error, note in errors[:20]]
        if len(errors) > 20:
            lines.append(f"... and {len(errors) - 20} more")
        lines += [f"warning: {sentence}" for sentence in self.warnings]
        if self.errors:
            lines.append("errors: " + ", ".join(f"{code} {count}" for code, count in self.codes.items()))
        lines.append(
            f"{self.traces} of {self.rows} rows usable in {self.files} file{'s' * (self.files != 1)}, "
            f"{self.empty_lines} empty lines skipped"
        )
        return "\n".join(lines)

"""Shared by scripts that read train.compare: rows of an arm, which are its seeds, together."""

from __future__ import annotations

from eval.statistics import Interval, wilson


def pooled(rows: list[dict], metric: str) -> Interval:
    """Mean over seeds with the 95 % Wilson interval of all items together. All seeds use the same items, so the interval
    covers items, not seeds; the tables list the seeds."""
    return wilson(sum(row[metric]["value"] * row["n"] for row in rows), sum(row["n"] for row in rows))


def mean(rows: list[dict], *path: str) -> str:
    """The mean of an entry over the rows that have it; empty if none has."""
    values = []
    for row in rows:
        for key in path:
            row = row.get(key) if isinstance(row, dict) else None
        values.append(row)
    values = [value for value in values if value is not None]
    return f"{sum(values) / len(values):.2f}" if values else ""

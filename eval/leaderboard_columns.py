"""The columns of the leaderboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import stdev
from typing import NamedTuple
from urllib.parse import quote

from latent_reason.errors import did_you_mean

from .results import Probes, Row, Share


class Column(NamedTuple):
    """``of(row)`` gives the printed text and the sort key; the key is None if the cell is empty. ``links(row)`` are
    addresses of pages, relative to the leaderboard."""

    title: str
    note: str
    of: Callable[[Row], tuple[str, str | float | None]]
    number: bool = True
    links: Callable[[Row], list[str]] = lambda row: []


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


def _seeds_cell(row: Row) -> tuple[str, str | None]:
    if not row.by_seed:
        return ("", None) if row.seed is None else (str(row.seed), str(row.seed))
    values = [value for _, value in row.by_seed]
    spread = f", sd {stdev(values):.3f}" if len(values) > 2 else ""
    cell = ", ".join(f"{seed}: {value:.3f}" for seed, value in row.by_seed) + spread
    return cell, cell


COLUMNS = [
    Column(
        "share",
        "share of right items with its 95 % interval; the mean over seeds",
        lambda r: (f"{r.share.value:.3f} ({r.share.low:.2f} to {r.share.high:.2f})", r.share.value),
    ),
    _text_column("method", "or the arm of a train.compare run", lambda r: r.method),
    Column(
        "dossier",
        "all measurements of the checkpoint",
        lambda r: (f"{len(r.dossiers)}" * bool(r.dossiers), None),
        False,
    ),
    _loss_column("loss under noise", "loss of accuracy if latents are noise, paired", lambda p: p.noise),
    _loss_column("under foreign latents", "loss of accuracy with another item's latents, paired", lambda p: p.foreign),
    Column("follows (chance)", "how often the answer follows a foreign sketch", _follows_cell),
    _number_column("chance", "a random guess, or the best fixed answer", lambda r: r.chance),
    _number_column("latents", "per item", lambda r: r.latents, "{:.2f}"),
    _number_column("tokens", "per item", lambda r: r.tokens, "{:.2f}"),
    _number_column("passes", "of the text model one after the other, per item", lambda r: r.passes, "{:.0f}"),
    _number_column("pictures", "that the vision encoder read, per item", lambda r: r.pictures, "{:.1f}"),
    _number_column("seconds", "per item", lambda r: r.seconds, "{:.4g}"),
    _number_column(
        "unparsed",
        "answers of the whole file that could not be parsed; they count as wrong",
        lambda r: r.unparsed,
        "{:,}",
    ),
    Column("seeds", "the seed, or the share of each and their standard deviation", _seeds_cell, number=False),
    _text_column("model", "the checkpoint; for an arm, its method", lambda r: r.model),
    _text_column("probed on", "items of the probes", lambda r: r.probes.on if r.probes else ""),
    _text_column("device", "", lambda r: r.device),
    _text_column("file", "", lambda r: r.file),
]


def chosen_columns(titles: Sequence[str] | None, folder: Path) -> list[Column]:
    """The columns with these titles in their order, all without titles, for a page in ``folder``. Raises ValueError for a
    title that no column has."""
    by_title = {column.title: column for column in COLUMNS}

    def links(row: Row) -> list[str]:
        return [quote(Path(os.path.relpath(file, folder)).as_posix()) for file in row.dossiers]

    by_title["dossier"] = by_title["dossier"]._replace(links=links)
    if unknown := [title for title in titles or () if title not in by_title]:
        raise ValueError(f"--columns: there is no column '{unknown[0]}'. {did_you_mean(unknown[0], by_title)}")
    return [by_title[title] for title in titles or by_title]

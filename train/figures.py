"""Figures of a run as text: one line while it trains, one table for each validation; at most 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

#: figure of held-out items -> its unit; of others, the share of items
UNITS = {
    "text": "nats a token",
    "latent": "loss of the head",
    "stop": "nats a decision",
    "reconstruction": "squared error of pixels",
    "token_accuracy": "share of tokens",
    "sketches": "sketches an item",
    "sketch_valid": "share of sketches",
    "sketch_equal": "share of sketches",
    "sketch_legal": "share of sketches",
    "sketch_gold": "share of sketches",
    "latent_rms": "times the true ones, or embeddings",
    "latent_cosine": "between items, at most 1",
    "latent_rank": "dimensions",
    "latent_error": "1: as far as the mean",
    "latent_retrieval": "share of sketches",
}
ITEMS = "share of items"
#: figures that are logged and not printed: what others are compared to, and causes of stops
NOT_PRINTED = ("true_", "retrieval_chance", "latent_along", "stop_")


def figures_of(metrics: Mapping, stage: str) -> dict[str, float]:
    """The figures of a stage by their short names: ``text`` from ``train/text``."""
    return {
        name.removeprefix(f"{stage}/"): float(value) for name, value in metrics.items() if name.startswith(f"{stage}/")
    }


def join_fields(fields: Sequence[str], width: int = 80) -> str:
    """Fields beside each other, two spaces apart; those that do not fit follow on indented lines, and none is broken."""
    lines = [""]
    for field in fields:
        line = f"{lines[-1]}  {field}" if lines[-1].strip() else lines[-1] + field
        if len(line) > width and lines[-1].strip():
            lines.append(f"  {field}")
        else:
            lines[-1] = line
    return "\n".join(lines)


def show_duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 20 min``."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def show_number(value: float) -> str:
    """Three decimals, or four digits of what is very small or large."""
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def held_out_table(title: str, now: Mapping[str, float], before: Mapping[str, float]) -> Table:
    """The main figures of a validation with their units, and how they changed since the one before, if there was one."""
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    if before:
        table.add_column("change", justify="right")
    table.add_column("unit")
    for name, value in now.items():
        if name.startswith(NOT_PRINTED):
            continue
        change = [f"{value - before[name]:+.3f}" if name in before else ""] if before else []
        table.add_row(name, show_number(value), *change, UNITS.get(name, ITEMS))
    return table

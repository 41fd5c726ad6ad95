"""What a measure found: a number, its aim, and whether it is met."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from .clock import Ratio


@dataclass(frozen=True)
class Aim:
    """At least or at most ``value``."""

    value: float
    is_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.value if self.is_least else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.value:g}"


def at_least(value: float) -> Aim:
    return Aim(value, is_least=True)


def at_most(value: float) -> Aim:
    return Aim(value)


@dataclass(frozen=True)
class Finding:
    """One number of a measure. ``details`` are what it was made of."""

    name: str
    value: float
    aim: Aim | None = None
    is_timed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None: there is none."""
        return None if self.aim is None else self.aim.is_met(self.value)

    def to_json(self) -> dict[str, Any]:
        aim = None if self.aim is None else asdict(self.aim)
        kind = "timed" if self.is_timed else "counted"
        return {"value": round(self.value, 4), "kind": kind, "aim": aim, "is_met": self.is_met, **self.details}


def timed(name: str, ratio: Ratio, aim: Aim | None = None, **details: Any) -> Finding:
    """A ratio of times."""
    spread = {"least": round(ratio.least, 4), "greatest": round(ratio.greatest, 4), "turns": ratio.turns}
    return Finding(name, ratio.median, aim, True, spread | details)


def table_of(findings: dict[str, list[Finding]]) -> Table:
    """Findings by measure, one line each."""
    shown = Table("measure", "what", "value", "aim", "met", "how")
    for measure, found in findings.items():
        for at, one in enumerate(found):
            met = {None: "", True: "yes", False: "[bold]no[/bold]"}[one.is_met]
            how = "timed" if one.is_timed else "counted"
            if "turns" in one.details:
                how = "{least:.2f} to {greatest:.2f}, {turns} turn(s)".format(**one.details)
            shown.add_row("" if at else measure, one.name, f"{one.value:.2f}", str(one.aim or ""), met, how)
        shown.add_section()
    return shown

"""What a check finds wrong."""

from __future__ import annotations

from dataclasses import dataclass

AGAIN = "Export the checkpoint again."


@dataclass
class Finding:
    """The file, what was found in it, what was expected, and what to do."""

    file: str
    found: str
    expected: str
    fix: str = AGAIN

    def __str__(self) -> str:
        return f"{self.file}: found {self.found}, expected {self.expected}. {self.fix}"

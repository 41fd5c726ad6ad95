"""What a long run has found so far, kept until it ends, so that one that breaks off goes on where it was.

A file of JSON lines: first what the run is, then what it found, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode, lines


class Unfinished:
    """The findings of ``run`` (what it is, as JSON) in ``path``; ``found`` are those of a run that broke off."""

    def __init__(self, path: str | Path, run: dict):
        """Raises ValueError where the file is of another run, or is none."""
        self.path, self.found = Path(path), []
        run, whole = json.loads(json.dumps(run)), 0
        if self.path.is_file():
            for number, line in lines(self.path):
                if not line.endswith(b"\n"):
                    break  # it broke off here
                try:
                    value = decode(line)
                except DataError as error:
                    raise error.at(str(self.path), number) from None
                if number == 1 and value != run:
                    raise ValueError(
                        f"'{self.path}' is what another run had found when it broke off. Finish that run, "
                        "remove the file, or name another --out."
                    )
                whole += len(line)
                self.found.append(value)
            with open(self.path, "r+b") as file:
                file.truncate(whole)
            del self.found[:1]
        if not whole:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.add([json.dumps(run)])

    def add(self, found: Sequence[str]) -> None:
        """Keep lines of JSON, all of them or, where the machine stops, as many as were written."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in found)

    def ended(self) -> None:
        """The run has written what it found elsewhere."""
        self.path.unlink(missing_ok=True)

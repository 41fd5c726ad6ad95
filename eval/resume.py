"""Results of a long run, kept in a file until the run ends, so that an interrupted run can resume.

The file has JSON lines: first a description of the run, then one result a line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode, lines


class ProgressFile:
    """A progress file. ``header`` describes the run (as JSON); ``results`` are those of an interrupted run.

    Raises:
        ValueError: the file belongs to another run, or is not a progress file.
    """

    def __init__(self, path: str | Path, header: dict):
        self.path, self.results = Path(path), []
        header, size = json.loads(json.dumps(header)), 0
        if self.path.is_file():
            for number, line in lines(self.path):
                if not line.endswith(b"\n"):
                    break  # the run was interrupted while it wrote this line
                try:
                    value = decode(line)
                except DataError as error:
                    raise error.at(str(self.path), number) from None
                if number == 1 and value != header:
                    raise ValueError(
                        f"'{self.path}' has the results of another interrupted run. Finish that run, "
                        "remove the file, or give another --out."
                    )
                size += len(line)
                self.results.append(value)
            with open(self.path, "r+b") as file:
                file.truncate(size)
            del self.results[:1]
        if not size:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.add([json.dumps(header)])

    def add(self, results: Sequence[str]) -> None:
        """Appends JSON lines."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in results)

    def remove(self) -> None:
        """Deletes the file, after the results were written elsewhere."""
        self.path.unlink(missing_ok=True)

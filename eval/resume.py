"""Results of a long run, kept in a file until the run ends, so that an interrupted run can resume.

The file has JSON lines: first the identity of the run, then results by key. A run is resumed only by a run of the same
identity, and one process at a time holds the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from latent_reason import checkpoint
from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode, lines, to_line
from latent_reason.data.pictures import pixel_hash
from latent_reason.locks import open_locked
from latent_reason.tasks import Item

console = Console(soft_wrap=True)
SAMPLES, SAMPLE_BYTES = 64, 4096  # of a weight file, for the identity of a model


class ProgressFile:
    """The results of an unfinished run. Use it in a ``with`` statement, which frees its lock.

    Args:
        identity: all that decides the results, as JSON.

    Attributes:
        kept: key -> result, those of an interrupted run included.

    Raises:
        ValueError: the file belongs to another run, or is not a progress file.
        BlockingIOError: another process holds the file.
    """

    def __init__(self, path: str | Path, identity: dict):
        self.path, self.kept = Path(path), {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_locked(self.path)
        try:
            self._read(json.loads(json.dumps(identity)))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()

    def _read(self, identity: dict) -> None:
        size = 0
        for number, line in lines(self.path):
            if not line.endswith(b"\n"):
                console.print(f"{self.path}: the last line is incomplete and is dropped.")
                break  # the run was interrupted while it wrote this line
            try:
                value = decode(line)
            except DataError as error:
                raise error.at(str(self.path), number) from None
            if number == 1:
                self._check(value, identity)
            elif not isinstance(value, dict) or value.keys() != {"key", "value"}:
                raise ValueError(f"'{self.path}', line {number}, is no result of a run. Remove the file.")
            else:
                self.kept[value["key"]] = value["value"]
            size += len(line)
        self._file.truncate(size)
        if not size:
            self._write([identity])
        if self.kept:
            console.print(f"{self.path}: resumes an interrupted run, {len(self.kept)} results are kept.")

    def _check(self, found: Any, identity: dict) -> None:
        differ = different_keys(found, identity) if isinstance(found, dict) else ["all of it"]
        if differ:
            raise ValueError(
                f"'{self.path}' has the results of another interrupted run, which differs in {', '.join(differ)}. "
                "Finish that run, or remove the file."
            )

    def _write(self, values: Iterable[Any]) -> None:
        self._file.write("".join(to_line(value) + "\n" for value in values).encode())
        self._file.flush()

    def add(self, results: dict[str, Any]) -> None:
        """Append results by key; they are on their way to the disk when this returns."""
        self._write({"key": key, "value": value} for key, value in results.items())
        self.kept |= results

    def recall(self, key: str, compute: Callable[[], Any]) -> Any:
        """The kept result of a key, else that of ``compute``, which is added."""
        if key not in self.kept:
            self.add({key: json.loads(to_line(compute()))})  # as it is read back
        return self.kept[key]

    def remove(self) -> None:
        """Delete the file, after the results were written elsewhere."""
        self.path.unlink(missing_ok=True)


def compute_now(key: str, compute: Callable[[], Any]) -> Any:
    """A ``recall`` that keeps nothing."""
    return compute()


def different_keys(first: dict, second: dict, prefix: str = "") -> list[str]:
    """Dotted names of the entries that differ."""
    out = []
    for key in sorted(first.keys() | second.keys()):
        values = [part.get(key) for part in (first, second)]
        if all(isinstance(value, dict) for value in values):
            out += different_keys(*values, f"{prefix}{key}.")
        elif values[0] != values[1]:
            out.append(f"{prefix}{key}")
    return out


# -- identities --------------------------------------------------------------------------------------------------------
def model_digest(folder: str | Path) -> str:
    """A hash of a checkpoint: its JSON, and sizes and samples of its files. A copy has the same.

    Raises:
        FileNotFoundError, ValueError: it is no checkpoint, or an incomplete one.
    """
    config, folder = checkpoint.read_config(folder), checkpoint.find_checkpoint(folder)
    digest = sha256((folder / checkpoint.CONFIG_FILE).read_bytes())
    for name in sorted(config.get("files", ())):
        size = (folder / name).stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with open(folder / name, "rb") as file:
            for number in range(SAMPLES if size > SAMPLE_BYTES else 1):
                file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1) if number else 0)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def items_digest(items: Iterable[Item]) -> str:
    """A hash of items of a task in their order: ids, questions, answers and images."""
    digest = sha256()
    for item in items:
        pictures = [pixel_hash(image.convert("RGB")) for image in item.images]
        digest.update(to_line({"": [item.id, item.question, str(item.answer), pictures]}).encode())
    return digest.hexdigest()[:16]

"""Folders of strangers: plain files that stay inside, and JSON of bounded size and depth.

Nothing else is opened, because a named pipe never ends, a device has no end, and a link may lead to any file of this
machine. A snapshot of the Hub cache consists of links to ``blobs`` of the same repository, which are accepted.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

HUB_FOLDER = re.compile(r"(?:datasets|models|spaces)--.")
MAX_FILES = 20_000
MAX_TEXT_BYTES = 64 * 2**20  # the largest tokenizer.json of a supported family has 33 MB
MAX_DEPTH = 64
TEXTS = (".json", ".jinja", ".txt", ".yaml", ".md", ".py")
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def check_folder(folder: str | Path) -> None:
    """Check every file of a folder, at any depth, by its kind and size. Nothing is opened.

    Raises:
        ValueError: a file that is no plain file, a link that leaves the folder, a text of more than
            ``MAX_TEXT_BYTES``, or more than ``MAX_FILES`` files.
    """
    number = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            number += 1
            if number > MAX_FILES:
                raise ValueError(f"'{folder}' has more than {MAX_FILES:,} files. Name the folder of one checkpoint.")
            check_file(Path(place, name), Path(folder))


def check_file(path: Path, folder: Path) -> None:
    """Check one entry of a folder. Raises as :func:`check_folder`."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    inside = [os.path.join(place, "") for place in (root, blobs_of(root)) if place]
    if not real.startswith(tuple(inside)) and real != root:
        raise ValueError(f"'{path}' is a link that leaves the folder. Copy what it points to, or remove it.")
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read ({error.strerror}). Remove it, or copy the folder again.") from error
    if kind := KINDS.get(stat.S_IFMT(found.st_mode)):
        raise ValueError(f"'{path}' is {kind}, not a plain file. Remove it, or copy the folder again.")
    if path.suffix in TEXTS and stat.S_ISREG(found.st_mode) and found.st_size > MAX_TEXT_BYTES:
        raise ValueError(
            f"'{path}' has {found.st_size:,} bytes, more than {MAX_TEXT_BYTES:,}. Copy the folder again, or remove it."
        )


def read_json(path: str | Path) -> Any:
    """The value of a JSON file whose kind and size were checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or lists and objects are nested deeper than ``MAX_DEPTH``.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not readable JSON ({str(error)[:100]}). Copy the checkpoint again.") from error
    level, depth = [value], 0
    while level:
        level = [c for v in level if isinstance(v, dict | list) for c in (v.values() if isinstance(v, dict) else v)]
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(
                f"'{path}' is not readable JSON (nested deeper than {MAX_DEPTH}). Copy the checkpoint again."
            )
    return value


def snapshot_around(folder: str) -> str | None:
    """The snapshot of the Hub cache that a real folder is in; None if it is in none."""
    parts = Path(folder).parts
    for i in range(1, len(parts) - 1):
        if parts[i] == "snapshots" and HUB_FOLDER.match(parts[i - 1]):
            return os.path.join(*parts[: i + 2])
    return None


def blobs_of(folder: str) -> str | None:
    """The blobs that the links of a Hub cache snapshot lead to; None if the real ``folder`` is in no snapshot."""
    snapshot = snapshot_around(folder)
    blobs = os.path.normpath(os.path.join(snapshot, "..", "..", "blobs")) if snapshot else ""
    return blobs if os.path.isdir(blobs) and not os.path.islink(blobs) else None

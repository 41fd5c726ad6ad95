"""Files that are either whole or not there.

Everything the library writes goes through here: it is written beside its place under a hidden name and renamed at
the end, so that an interrupt or a full disk leaves what was there before, and nothing half-written.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty folder to write into, which becomes ``path`` when the block ends.

    Raises FileExistsError, before anything is written, where ``path`` is a file or a folder that is not empty and
    ``overwrite`` is false; OSError (ENOSPC) with the folder and the free space in its sentence. On any exception,
    KeyboardInterrupt too, the unfinished folder is removed and ``path`` is as it was.
    """
    path = Path(path)
    _refuse_used(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _sibling(path)
    unfinished.mkdir()
    try:
        with _saying_disk_full(path):
            yield unfinished
            _flush(unfinished)
        _refuse_used(path, overwrite)  # somebody may have come first
        _swap(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _flush(path.parent, files=False)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8 with ``\\n`` line ends; replaces ``path`` in one step, follows no link."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Writes ``data``; replaces ``path`` in one step, follows no link."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _sibling(path)
    try:
        with _saying_disk_full(path), open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def atomic_write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON. Raises ValueError for NaN and infinities, which are not JSON."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"'{path}' was not written: {error}. Replace NaN and infinities, with None for example."
        ) from error
    atomic_write_text(path, text + "\n")


def new_run_folder(base: str | Path) -> Path:
    """Makes and returns ``base``, or ``base-2``, ``base-3``, ...: the first that was not there, safe against races."""
    base = Path(base)
    base.parent.mkdir(parents=True, exist_ok=True)
    number, folder = 1, base
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = base.with_name(f"{base.name}-{number}")


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def _refuse_used(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        if not overwrite and any(path.iterdir()):
            raise FileExistsError(f"Folder '{path}' exists and is not empty. Name a new one, or allow overwriting.")
    elif path.exists() or path.is_symlink():
        raise FileExistsError(f"'{path}' is a file, expected the name of a folder. Name another one.")


def _swap(new: Path, path: Path) -> None:
    """Puts ``new`` in the place of ``path``, which may be there; puts the old one back if that fails."""
    if not path.exists():
        new.rename(path)
        return
    old = _sibling(path)
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path, files: bool = True) -> None:
    """Asks the disk to keep ``folder`` and the files at its top; thousands of small ones below would take minutes."""
    for path in [*(p for p in folder.iterdir() if files and p.is_file()), folder]:
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # systems that open no folders
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
        finally:
            os.close(handle)


@contextmanager
def _saying_disk_full(path: Path) -> Iterator[None]:
    """Turns 'no space left', however a library words it, into a sentence with the folder and the free space."""
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and "no space left" not in str(error).lower():
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(
            errno.ENOSPC,
            f"The disk is full: '{path}' was not written, {free:,.0f} MiB are free in '{path.parent}'. "
            "Free some space or name another folder",
        ) from error

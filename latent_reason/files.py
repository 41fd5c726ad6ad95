"""Atomic writes of files and folders.

The library writes all its files with these functions. Data goes to a hidden temporary name in the same folder, which
is renamed at the end. After an interrupt or a full disk the previous content is still in place.
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

MANY_FILES = 256


@contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder to write into. It is renamed to ``path`` when the block ends.

    On any exception, KeyboardInterrupt too, the temporary folder is removed and ``path`` is unchanged.

    Raises:
        FileExistsError: before anything is written, if ``path`` is a file, or is a folder with files and ``overwrite``
            is false.
        OSError: ENOSPC; the message names the folder and the free space.
    """
    path = Path(path)
    _check_unused(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        with _explain_disk_full(path):
            yield temporary
            flush_to_disk(temporary)
        _check_unused(path, overwrite)  # another process may have created it
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush(path.parent)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends. Replaces ``path`` atomically; symbolic links are not followed."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data``. Replaces ``path`` atomically; symbolic links are not followed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        with _explain_disk_full(path), open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON. Raises ValueError for NaN and infinities, which JSON does not have."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"'{path}' was not written: {error}. Replace NaN and infinities, with None for example."
        ) from error
    atomic_write_text(path, text + "\n")


def new_run_folder(base: str | Path) -> Path:
    """Create and return the first of ``base``, ``base-2``, ``base-3``, ... that does not exist. Safe against races."""
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


def _check_unused(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        if not overwrite and any(path.iterdir()):
            raise FileExistsError(f"Folder '{path}' exists and is not empty. Name a new one, or allow overwriting.")
    elif path.exists() or path.is_symlink():
        raise FileExistsError(f"'{path}' is a file, expected the name of a folder. Name another one.")


def _swap(new: Path, path: Path) -> None:
    """Move ``new`` to ``path``. An existing ``path`` is replaced, and restored if the move fails."""
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


def flush_to_disk(folder: Path) -> None:
    """Wait until the disk has a folder and everything below it, so that what it replaces may be removed.

    Raises:
        OSError: the disk is full or broken.
    """
    paths = [*folder.rglob("*"), folder]
    if len(paths) > MANY_FILES:
        os.sync()  # one call for all; fsync of thousands of pictures takes minutes
    else:
        for path in paths:
            _flush(path)


def _flush(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return  # some systems cannot open folders
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(handle)


def sweep_unfinished(folder: Path) -> None:
    """Remove what killed processes left in a folder under temporary names of this module. Call it only where no other
    process writes into the folder."""
    for path in folder.glob(".*.unfinished") if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _explain_disk_full(path: Path) -> Iterator[None]:
    """Replace an error about a full disk, of any library, by one that names the folder and the free space."""
    try:
        yield
    except Exception as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not is_full and "no space left" not in str(error).lower():
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(
            errno.ENOSPC,
            f"The disk is full: '{path}' was not written, {free:,.0f} MiB are free in '{path.parent}'. "
            "Free some space or name another folder",
        ) from error

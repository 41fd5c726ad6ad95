"""Output files of commands, checked before the work begins, so that no result is lost or replaced at its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from .files import atomic_write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

PROBE_BYTES = 64 * 2**10
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_output(path: str | Path, overwrite: bool | None) -> Path:
    """The path of a file that a command will write. ``overwrite`` is None for a command without that option.

    Raises:
        FileExistsError: it exists, without ``overwrite``; or it is a device or a pipe.
        IsADirectoryError: it is a folder.
        OSError: it cannot be written: a folder above it is a file or read-only, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder, expected the name of a file. Name a file in it.")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"'{path}' is a device or a pipe, expected the name of a file. Name another one.")
    if os.path.lexists(path) and not overwrite:
        way_out = "move it away" if overwrite is None else "add --overwrite"
        raise FileExistsError(f"'{path}' exists, and nothing was changed. Name another file, or {way_out}.")
    _probe(path)
    return path


def check_picture_output(path: str | Path, overwrite: bool | None, endings: Iterable[str] = tuple(PICTURES)) -> Path:
    """The same for an image. Raises ValueError, too, if its name has another ending than ``endings``."""
    if Path(path).suffix.lower() not in endings:
        raise ValueError(f"'{path}' does not end in {', '.join(endings)}. Give it one of these endings.")
    return check_output(path, overwrite)


def save_picture(image: Image, path: Path) -> None:
    """Write an RGB image to a path that ``check_picture_output`` has checked."""
    data = BytesIO()
    image.save(data, PICTURES[path.suffix.lower()])
    atomic_write_bytes(path, data.getvalue())


def check_output_folder(path: str | Path) -> Path:
    """The path of a folder that a command will write. It may exist if it is empty.

    Raises:
        FileExistsError: it is a file, or a folder with files.
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"Folder '{path}' exists and is not empty. Name a new one; nothing was changed.")
    if os.path.lexists(path) and not path.is_dir():
        raise FileExistsError(f"'{path}' is a file, expected the name of a folder. Name another one.")
    _probe(path)
    return path


def _probe(path: Path) -> None:
    """Write a file beside ``path``, or in the nearest folder above it that exists, and remove it."""
    folder = next(above for above in path.absolute().parents if os.path.lexists(above))
    try:
        handle, name = tempfile.mkstemp(".unfinished", f".{path.name}.", folder)
        try:
            os.write(handle, bytes(PROBE_BYTES))
            os.fsync(handle)
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        raise type(error)(f"'{path}' cannot be written ({error.strerror}: '{folder}'). Name another place.") from None

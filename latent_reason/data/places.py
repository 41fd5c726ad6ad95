"""Which files a reader may open: those of the data folder, those below folders that the user names, and no others.

A path, a link or a ``file://`` address that leads elsewhere is refused, so a data set of strangers cannot read other
files of this machine. A snapshot of the Hub cache consists of links to ``blobs`` of the same repository, which may be
read, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from ..folders import HUB_FOLDER, blobs_of, snapshot_around
from .errors import DataError

ImageRoots = str | Path | Iterable[str | Path] | None
FILE_ADDRESS = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)


def list_roots(image_root: ImageRoots) -> list[Path]:
    """The folders that a user names for images. Raises FileNotFoundError for a folder that does not exist."""
    roots = [] if image_root is None else [image_root] if isinstance(image_root, str | Path) else list(image_root)
    for root in roots:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"There is no folder '{root}'. Correct --image-root.")
    return [Path(root) for root in roots]


class Places:
    """The data ``folder`` and the ``named`` folders of a user.

    Relative paths are looked up below each named folder, then below the data folder. Absolute paths must be below a
    named folder.
    """

    def __init__(self, folder: str | Path, named: Iterable[str | Path] = ()):
        self.folder, self.named = str(folder), [str(root) for root in named]
        self._named = [_below(path) for root in self.named for path in (os.path.abspath(root), os.path.realpath(root))]
        self._bases = [*map(os.path.realpath, self.named), os.path.realpath(folder)]
        if snapshot := snapshot_around(self._bases[-1]):  # paths of its files are relative to the whole snapshot
            self._bases.append(snapshot)
        real = [_below(base) for base in self._bases]
        self._readable = tuple(real + [_below(blobs) for base in self._bases if (blobs := blobs_of(base))])
        self._real_folders: dict[str, str] = {}

    def contains(self, file: str | Path) -> bool:
        """Whether a file, with links followed, is in one of these folders."""
        try:
            return os.path.realpath(file).startswith(self._readable)
        except ValueError:  # a NUL in the path
            return False

    def find(self, name: str, field: str) -> str:
        """The real path of an image. Raises DataError E07 or E08. Paths that name another place are refused before the
        disk is read, links after it."""
        quoted_name = repr(name if len(name) <= 200 else name[:200] + "...")
        path = FILE_ADDRESS.sub("", name)
        if path != name:
            path = unquote(path)
        if reason := _fault_of(path):
            raise DataError("E08", field, f"{quoted_name} {reason}. Give a path relative to the data folder.")
        is_absolute = path.startswith("/")
        paths = [os.path.normpath(os.path.join(base, path)) for base in self._bases[: 1 if is_absolute else None]]
        allowed = tuple(self._named) if is_absolute else self._readable
        inside = [candidate for candidate in paths if candidate.startswith(allowed)]
        if not inside and is_absolute:
            what = (
                "is an absolute path. Give a path relative to the data folder, or name a folder above it: --image-root."
            )
            raise DataError("E08", field, f"{quoted_name} {what}")
        if not inside:
            what = "leaves the data folder. Move the image inside it, or name a folder above it: --image-root."
            raise DataError("E08", field, f"{quoted_name} {what}")
        found = [real for candidate in dict.fromkeys(inside) if (real := self._real_file(candidate))]
        if not found:
            looked = " or ".join(f"'{root}'" for root in (*self.named, *([] if is_absolute else [self.folder])))
            raise DataError(
                "E07", field, f"{quoted_name} not found under {looked}. Correct the path or give --image-root."
            )
        if not found[0].startswith(self._readable):
            what = "leaves the data folder by a link. Move the image inside it, or name its folder: --image-root."
            raise DataError("E08", field, f"{quoted_name} {what}")
        return found[0]

    def _real_file(self, path: str) -> str | None:
        """The real path of a plain file; None if there is none. The real paths of folders are kept."""
        folder, base = os.path.split(path)
        try:
            if folder not in self._real_folders:
                self._real_folders[folder] = os.path.realpath(folder)
            real = os.path.join(self._real_folders[folder], base)
            real = os.path.realpath(real) if os.path.islink(real) else real
            return real if os.path.isfile(real) else None
        except (OSError, ValueError):
            return None


def _below(folder: str) -> str:
    """How paths below a folder begin."""
    return os.path.join(folder, "")


def _fault_of(path: str) -> str:
    """Why a path is refused by its letters; empty if it is not."""
    if "\0" in path:
        return "contains a NUL character"
    if "\\" in path:
        return "contains a backslash; separate folders with '/'"
    if re.match(r"[A-Za-z]:", path):
        return "begins with a drive letter"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
        return "looks like a URL; nothing is downloaded"
    return ""


def snapshot_of(source: Path) -> Path:
    """The snapshot of a repository in the Hub cache, or of its folder ``snapshots``; any other source itself.

    Raises ValueError if there are several and the cache does not say which one is the main one.
    """
    repository = source.parent if source.name == "snapshots" else source
    folder = repository / "snapshots"
    if not HUB_FOLDER.match(Path(os.path.abspath(repository)).name) or not folder.is_dir():
        return source
    snapshots = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    main = repository / "refs" / "main"
    if len(snapshots) > 1 and main.is_file():
        with open(main, encoding="utf-8", errors="replace") as file:
            named = folder / file.read(200).strip().replace("\0", "")
        snapshots = [named] if named in snapshots else snapshots
    if len(snapshots) != 1:
        names = ", ".join(entry.name for entry in snapshots[:3])
        raise ValueError(f"'{folder}' holds {len(snapshots)} snapshots ({names}). Name the folder of one.")
    return snapshots[0]

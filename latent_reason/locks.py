"""Files that one process at a time may hold."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def open_locked(path: str | Path, *, wait: bool = False) -> BinaryIO:
    """Open a file for reading and appending, created if it is missing, and hold its lock until it is closed.

    The kernel frees the lock when the process ends, so a process that was killed blocks nobody. A file system without
    locks gives none.

    Args:
        wait: wait until another process frees the lock.

    Raises:
        BlockingIOError: another process holds the lock, without ``wait``.
    """
    while True:
        file = open(path, "a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise BlockingIOError(
                f"'{path}' is in use by another process. Wait until it ends, or name another file."
            ) from None
        except OSError:
            return file
        if _is_at(file, path):
            return file
        file.close()  # its last holder removed it


def _is_at(file: BinaryIO, path: str | Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False

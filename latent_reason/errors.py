"""Errors of the command lines: one sentence instead of a traceback.

A ValueError or RuntimeError of the project's own code and every OSError are printed as one sentence. An error raised
inside another library is a bug and keeps its traceback. ``LATENT_REASON_TRACEBACK=1`` shows every traceback.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_NAMED = 60  # known names in one error: the columns of a stranger's table may be many
OWN_PACKAGES = ("latent_reason", "train", "eval")


@contextmanager
def cli_errors() -> Iterator[None]:
    """End the process with ``error: <sentence>`` and status 1 if the block raises an error that the user can correct.

    with cli_errors():
        train(recipe)
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C; no incomplete file was left")
    except Exception as error:
        if os.environ.get("LATENT_REASON_TRACEBACK") or not is_sentence(error):
            raise
        sys.exit(f"error: {sentence(error)}")


def is_sentence(error: Exception) -> bool:
    """Whether the message of an error was written for the user of the command line."""
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError | RuntimeError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or _module_name(frames[-1].f_globals).partition(".")[0] in OWN_PACKAGES


def _module_name(module_globals: dict) -> str:
    """The full name of a module, also if it runs as ``__main__``."""
    spec = module_globals.get("__spec__")
    return spec.name if spec is not None else module_globals.get("__name__", "")


def sentence(error: Exception) -> str:
    """The message of an error. The number of an OSError is left out."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror  # without "[Errno 28]"
    return str(error)


def find_checkout() -> Path | None:
    """The root of the repository if this copy is part of a checkout; None for an installed copy."""
    return ROOT if (ROOT / "pyproject.toml").is_file() and (ROOT / "train").is_dir() else None


def pip_install(extra: str) -> str:
    """The command that installs an extra, in a checkout or for an installed copy."""
    return (
        f"pip install -e '.[{extra}]' -c constraints.txt"
        if find_checkout()
        else f"pip install 'latent_reason[{extra}]'"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Help after an unknown name: ``Did you mean 'x'?``, or the list of known names."""
    by_casefold = {known_name.casefold(): known_name for known_name in known}
    close = difflib.get_close_matches(name.casefold(), by_casefold, n=1)
    if close:
        return f"Did you mean '{by_casefold[close[0]]}'?"
    if not by_casefold:
        return "None is available."
    listed = sorted(by_casefold.values())
    more = f" and {len(listed) - MOST_NAMED:,} more" if len(listed) > MOST_NAMED else ""
    return f"Available: {', '.join(one[:80] for one in listed[:MOST_NAMED])}{more}."


def at_least(lowest: int) -> Callable[[str], int]:
    """An argparse type: integers of at least ``lowest``."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < lowest:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is not an integer of at least {lowest:,}, of 9 digits at most"
            )
        return int(text)

    return number


def numbers(text: str) -> list[int]:
    """An argparse type: integers as ``3,4,5``."""
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: write levels as 3,4,5")
    return [int(item) for item in text.split(",")]


def size(text: str) -> str:
    """An argparse type: a file size as ``5GB`` or ``200MB``."""
    if not re.fullmatch(r"[1-9]\d*(KB|MB|GB)", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write sizes as 5GB, 200MB or 50KB")
    return text

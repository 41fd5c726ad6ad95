"""What every command line of this project shares: what goes wrong is said in one sentence, without a traceback.

Only what our own code says, and what the system says of files, is shortened so; an error that comes up inside a
library is a bug and shows where it is. ``LATENT_REASON_TRACEBACK=1`` shows it for every error.
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
OURS = ("latent_reason", "train", "eval")


@contextmanager
def cli_errors() -> Iterator[None]:
    """Ends the process with ``error: <sentence>`` and status 1 where the block raises what a person can act on."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C; nothing was left half-written")
    except Exception as error:
        if os.environ.get("LATENT_REASON_TRACEBACK") or not is_sentence(error):
            raise
        sys.exit(f"error: {sentence(error)}")


def is_sentence(error: Exception) -> bool:
    """Whether the words of an error were written for the person at the command line."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    where = Path(frames[-1].filename).resolve() if frames else ROOT / OURS[0]
    return (
        isinstance(error, ValueError | RuntimeError)
        and where.is_relative_to(ROOT)
        and (where.relative_to(ROOT).parts[0] in OURS)
    )


def sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror  # without "[Errno 28]"
    return str(error)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after a wrong name: ``Did you mean 'x'?``, or the list of known names."""
    by_casefold = {known_name.casefold(): known_name for known_name in known}
    close = difflib.get_close_matches(name.casefold(), by_casefold, n=1)
    if close:
        return f"Did you mean '{by_casefold[close[0]]}'?"
    return f"There is: {', '.join(sorted(by_casefold.values()))}." if by_casefold else "There is none."


def at_least(lowest: int) -> Callable[[str], int]:
    """Whole numbers from ``lowest`` on, for argparse."""

    def number(text: str) -> int:
        if not text.isdigit() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} on")
        return int(text)

    return number


def numbers(text: str) -> list[int]:
    """Whole numbers as ``3,4,5``, for argparse."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write levels as 3,4,5") from None


def size(text: str) -> str:
    """A size of files as ``5GB`` or ``200MB``, for argparse."""
    if not re.fullmatch(r"[1-9]\d*(KB|MB|GB)", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write sizes as 5GB, 200MB or 50KB")
    return text

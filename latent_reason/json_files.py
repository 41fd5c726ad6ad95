"""The one reader of whole JSON files that a person names. JSON lines and data sets: data/jsonl.py."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_BYTES = 50 * 2**20
ADVICE = "Name another file, or write it again."


def read_json(path: str | Path, expected: str, keys: Iterable[str] = (), name: str | None = None) -> Any:
    """The content of a JSON file.

    Args:
        expected: what the file should be, for errors: ``the JSON of eval.benchmark``.
        keys: names that the object in the file must have; none: any JSON value.
        name: the name of the file in errors; default: its path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no plain file, larger than 50 MiB, not JSON (NaN and infinity included), or without one of ``keys``.
            Names the file and ``expected``.
    """
    path, name = Path(path), name or str(path)
    if not path.exists():
        raise FileNotFoundError(f"'{name}' does not exist. Expected {expected}.")
    if not path.is_file():
        raise ValueError(f"'{name}' is no file. Expected {expected}.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(
            f"'{name}' has {size / 2**20:,.0f} MiB, at most {MAX_BYTES / 2**20:,.0f} are read. Expected {expected}."
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # unpaired surrogates could not be written again
    except (ValueError, RecursionError) as error:
        why = str(error)[:100]
        raise ValueError(f"'{name}' is not readable JSON ({why}). Expected {expected}. {ADVICE}") from None
    if keys and not isinstance(value, dict):
        raise ValueError(f"'{name}' is not {expected}: it holds {_kind(value)} instead of an object. {ADVICE}")
    if missing := [key for key in keys if key not in value]:
        raise ValueError(f"'{name}' is not {expected}: it has no '{missing[0]}'. {ADVICE}")
    return value


@contextmanager
def fields_of(path: str | Path, expected: str) -> Iterator[None]:
    """Turn an error about a field that is missing or of another kind, while the block uses the content of a JSON file,
    into a ValueError that names the file and ``expected``."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, StopIteration) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # it names the file already
        what = (
            f"it has no {error}"
            if isinstance(error, KeyError)
            else f"a field is missing or of another kind ({str(error)[:100]})"
        )
        raise ValueError(f"'{path}' is not {expected}: {what}. {ADVICE}") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:20]} is beyond all floats")
    return value


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")

"""Values that people set: their types, their bounds, and the one check of both.

A number has a type that says what it may be: ``k: Count = 8``. Fields of configs and options of methods, heads and tasks
are declared so, and ``check`` names the key of a value that does not fit.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal

MOST = 10**9  # steps, items, positions: no run has more
LONGEST_TEXT = 10**5  # characters
DEEPEST, MOST_VALUES = 20, 10_000  # of nested options
SHOWN = 80  # characters of a value in an error
NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


@dataclass(frozen=True)
class Bounds:
    """The lowest and the highest value of a number; ``above`` and ``below`` exclude them."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        """What a number must be: ``1 or more``, ``between 0 and 1``."""
        if self.high >= MOST:
            return f"more than {self.low:,}" if self.above else f"{self.low:,} or more"
        if self.above or self.below:
            least = f"more than {self.low:,}" if self.above else f"at least {self.low:,}"
            return f"{least} and {'below' if self.below else 'at most'} {self.high:,}"
        return f"between {self.low:,} and {self.high:,}"

    def check(self, value: float, key: str) -> None:
        """Raises ValueError for a number outside."""
        if value < self.low or (self.above and value == self.low):
            raise ValueError(f"{key}={show(value)}: must be {self}.")
        if value > self.high or (self.below and value == self.high):
            raise ValueError(f"{key}={show(value)}: must be {self if self.high < MOST else f'{self.high:,} or less'}.")


@dataclass(frozen=True)
class OneLine:
    """A text that is not empty and has one line, such as a name or a path."""

    def check(self, value: str, key: str) -> None:
        """Raises ValueError for another text."""
        if not value.strip():
            raise ValueError(f"{key} is empty. Write a text, or remove the key.")
        if not value.isprintable():
            raise ValueError(f"{key}={show(value)}: has a line end or another control character. Remove it.")


@dataclass(frozen=True)
class InOrder:
    """A lowest and a highest value, in this order."""

    def check(self, value: tuple[float, float], key: str) -> None:
        """Raises ValueError if the first is above the second."""
        if value[0] > value[1]:
            raise ValueError(f"{key}={show(value)}: the first must not be above the second.")


Count = Annotated[int, Bounds(1, MOST)]
Natural = Annotated[int, Bounds(0, MOST)]
Size = Annotated[int, Bounds(1, 2**16)]  # of a layer
SizeOrZero = Annotated[int, Bounds(0, 2**16)]
Depth = Annotated[int, Bounds(0, 1000)]  # layers
Seed = Annotated[int, Bounds(0, 2**32 - 1)]  # NumPy takes no other
Share = Annotated[float, Bounds(0, 1)]
ShareBelow1 = Annotated[float, Bounds(0, 1, below=True)]
Weight = Annotated[float, Bounds(0, MOST)]
Positive = Annotated[float, Bounds(0, MOST, above=True)]
Temperature = Annotated[float, Bounds(0, 100)]
Interval = Annotated[tuple[Count, Count], InOrder()]
Name = Annotated[str, OneLine()]


def check(value: Any, hint: Any, key: str) -> None:
    """Raises ValueError for a value that is not of a type or is outside its bounds; the sentence names the ``key``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        check(value, inner[0], key)
        for rule in inner[1:]:
            rule.check(value, key)
    elif origin in (typing.Union, types.UnionType):
        _check_one_of(value, inner, key)
    elif origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in inner):
            raise ValueError(f"{key}={show(value)}: must be one of {', '.join(map(str, inner))}.")
    elif origin in (list, tuple, dict):
        _check_items(value, origin, inner, key)
    elif hint in NAMES:
        _check_kind(value, hint, key)
    elif hint is Any or hint is inspect.Parameter.empty:
        check_plain(value, key)


def _check_one_of(value: Any, hints: tuple, key: str) -> None:
    """The value fits one of several types; else the error is that of the first."""
    errors = []
    for hint in hints:
        try:
            return check(value, hint, key)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _check_items(value: Any, kind: type, inner: tuple, key: str) -> None:
    if kind is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}={show(value)}: must be names with values, such as {{name: 1}}.")
        for name, one in value.items():
            check(name, Name, f"a name in {key}")
            check(one, inner[1], f"{key}.{name}")
        return
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key}={show(value)}: must be a list.")
    hints = [inner[0]] * len(value) if kind is list or inner[-1] is Ellipsis else list(inner)
    if len(value) != len(hints):
        raise ValueError(f"{key}={show(value)}: must be a list of {len(hints)}.")
    for i, (one, hint) in enumerate(zip(value, hints, strict=True)):
        check(one, hint, f"{key}[{i}]")


def _check_kind(value: Any, kind: type, key: str) -> None:
    """The value is of a plain type. True and false are no numbers, and an integer is a number."""
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{key}={show(value)}: must be {NAMES[kind]}.")
    _check_leaf(value, key)


def _check_leaf(value: Any, key: str) -> None:
    """A number is finite and of 64 bits, a text can be written to a file."""
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{key}={show(value)}: is too large.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}={show(value)}: must be a finite number.")
    if isinstance(value, str) and (len(value) > LONGEST_TEXT or "\0" in value):
        what = "has a NUL character" if "\0" in value else f"has more than {LONGEST_TEXT:,} characters"
        raise ValueError(f"{key}={show(value)}: {what}.")
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{key}={show(value)}: is not UTF-8. Write it again.")


def check_plain(value: Any, key: str) -> None:
    """Raises ValueError for a value that JSON does not hold, a number that is not finite, and values too many or too deep."""
    stack, num_values = [(value, key, 0)], 0
    while stack:
        value, where, depth = stack.pop()
        num_values += 1
        if num_values > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"{key}: holds more than {MOST_VALUES:,} values, or lists in lists {DEEPEST} deep.")
        if isinstance(value, Mapping):
            for name in value:
                check(name, Name, f"a name in {where}")
            stack += [(one, f"{where}.{name}", depth + 1) for name, one in value.items()]
        elif isinstance(value, list | tuple):
            stack += [(one, f"{where}[{i}]", depth + 1) for i, one in enumerate(value[: MOST_VALUES + 1])]
        elif value is None or isinstance(value, bool | int | float | str):
            _check_leaf(value, where)
        else:
            raise ValueError(f"{where}: is a {type(value).__name__}. Write a number, a text, true or false, or null.")


def check_fields(made: Any, prefix: str = "") -> None:
    """Check every field of a dataclass. Raises ValueError."""
    kind: Any = type(made)
    hints = hints_of(kind)
    for one in fields(made):
        check(getattr(made, one.name), hints.get(one.name), prefix + one.name)


def check_options(options: Mapping[str, Any], function: Callable, prefix: str) -> None:
    """Check options against the annotations of the function that takes them; those of other functions are not checked.
    Raises ValueError."""
    hints = hints_of(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in options and not (options[name] is None and parameter.default is None):
            check(options[name], hints.get(name, parameter.empty), prefix + name)


def read_options(text: str, name: str, kind: str) -> dict[str, Any]:
    """``window=8,close_phrase=so`` -> values by name. Numbers and true or false are read as such. ``kind`` and ``name`` say
    in an error whose options they are."""
    options = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{kind} {name!r}: {pair!r} is no option. Write {name}:option=value,option=value.")
        try:
            options[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            options[key.strip()] = value
    return options


@cache
def hints_of(annotated: Any) -> dict[str, Any]:
    """The annotations of a function or class with their bounds; none if they name what only a type checker imports."""
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except NameError:
        return {}


def argument(hint: Any) -> Callable[[str], Any]:
    """An argparse type: a number of an annotated type, as ``argument(Seed)``."""
    kind = typing.get_args(hint)[0]

    def read(text: str) -> Any:
        try:
            value = kind(text)
            check(value, hint, text)
        except (ValueError, OverflowError):
            what = f"{NAMES[kind]}, {bounds_of(hint)}"
            raise argparse.ArgumentTypeError(f"{show(text)!r} is not {what}") from None
        return value

    return read


def bounds_of(hint: Any) -> Bounds | None:
    """The bounds of the numbers in a type: its own, or those of its items; None if it has none."""
    found = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Bounds)]
    found += [inner for one in typing.get_args(hint) if (inner := bounds_of(one)) is not None]
    return found[0] if found else None


def show(value: Any) -> str:
    """A value on one line of an error, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length():,} bits"
    text = f"{value!r}" if isinstance(value, str) and not value.isprintable() else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

"""Helpers of the verbs: the help formatter, ``add_verb`` and argparse types."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable

from ..errors import at_least, numbers, size

__all__ = [
    "HelpFormatter",
    "add_decoding",
    "add_limits",
    "add_output",
    "add_overwrite",
    "add_verb",
    "at_least",
    "limits_of",
    "numbers",
    "pairs",
    "replaced",
    "size",
    "splits",
]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions, so that each example command stays on its own line."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28)


def add_verb(verbs, name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """Add a verb that calls ``function`` and return its parser. The docstring of ``function`` is the help text."""
    description = inspect.getdoc(function) or ""
    parser = verbs.add_parser(
        name, help=description.partition("\n")[0], description=description, formatter_class=HelpFormatter
    )
    parser.set_defaults(function=function)
    return parser


def pairs(text: str) -> dict[str, str]:
    """An argparse type: a mapping of names as ``name=column,name=column``."""
    if not all(pair.partition("=")[2] for pair in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: write names as images=pictures,messages=chat")
    return dict(pair.split("=", 1) for pair in text.split(","))


def splits(text: str) -> str | dict[str, float]:
    """An argparse type: a split, or the share of each split as ``train=0.8,val=0.1,test=0.1``."""
    from ..data.labels import parse_splits

    try:
        return parse_splits(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def replaced(by: str) -> Callable[[str], str]:
    """An argparse type of an option that is no more: every value is an error that names the new option."""

    def refuse(text: str) -> str:
        raise argparse.ArgumentTypeError(f"is no option any more. Use {by}.")

    return refuse


def add_output(parser, help: str = "the JSON file of the results", **options) -> None:
    """Add ``--out`` and ``--overwrite``. ``options`` are those of argparse for ``--out``, which is required unless they
    say otherwise."""
    parser.add_argument("--out", help=help, **{"required": True, "metavar": "FILE"} | options)
    add_overwrite(parser)


def add_decoding(parser) -> None:
    """Add ``--decoding``, the test-time method by which a model answers."""
    parser.add_argument(
        "--decoding",
        default="plain",
        metavar="NAME",
        help="plain, soft_thinking, swi_reasoning, lead, ltpo, dmlr, best_of_n, self_consistency or step_search, with options "
        "as in lead:window=8,top_n=20 (default: plain)",
    )


def add_limits(parser) -> None:
    """Add limits of pixels and positions, in place of those that a checkpoint was trained with; see :func:`limits_of`."""
    for name, meaning in (
        ("image.min_pixels", "fewest pixels to which an image is resized"),
        ("image.max_pixels", "most pixels to which an image is resized"),
        ("max_length", "most positions of a row, images and answer included"),
    ):
        where = name.rpartition(".")[2]
        help = f"{meaning} (default: as in training)"
        parser.add_argument(f"--{name}", dest=where, type=at_least(1), metavar="N", help=help)


def limits_of(arguments: argparse.Namespace):
    """The :class:`InputLimits` of a command line with :func:`add_limits`."""
    from ..model.limits import InputLimits  # which imports torch; --help does not

    return InputLimits(arguments.min_pixels, arguments.max_pixels, arguments.max_length)


def add_overwrite(parser) -> None:
    """Add ``--overwrite``, without which no file that exists is replaced."""
    parser.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")

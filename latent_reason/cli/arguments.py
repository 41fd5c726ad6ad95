"""What the verbs share: how a verb is added to the parser, and types of arguments."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable

from ..errors import at_least, numbers, size

__all__ = ["HelpFormatter", "add_verb", "at_least", "numbers", "pairs", "size"]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions, so that examples stay one command a line."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28)


def add_verb(verbs, name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """The parser of a new verb that calls ``function``, whose docstring is its help."""
    description = inspect.getdoc(function)
    parser = verbs.add_parser(
        name, help=description.partition("\n")[0], description=description, formatter_class=HelpFormatter
    )
    parser.set_defaults(function=function)
    return parser


def pairs(text: str) -> dict[str, str]:
    """Names as ``ours=theirs,ours=theirs``, for argparse."""
    if not all(pair.partition("=")[2] for pair in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: write names as images=pictures,messages=chat")
    return dict(pair.split("=", 1) for pair in text.split(","))

"""``--help`` of the training commands: one entry a key, readable on 80 columns."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Iterable
from typing import Any

import yaml
from jsonargparse import DefaultHelpFormatter

from latent_reason.values import bounds_of

from .keys import hints_of


def describe_type(hint) -> str:
    """What to write for a type, in words that need no Python: ``1d | 2d``, ``NUMBER``, ``[TEXT, ...]``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "|".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return "|".join(describe_type(one) for one in inner if one is not type(None))
    if origin is list:
        return f"[{'CHOICE' if choices_of(inner[0]) else describe_type(inner[0])}, ...]"
    if origin is tuple:
        return f"[{', '.join(map(describe_type, inner))}]"
    if origin is dict:
        return "{NAME: NUMBER, ...}" if inner[1] is float else "{NAME: VALUE, ...}"
    return {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT", Any: "VALUE"}.get(hint, "VALUE")


def choices_of(hint) -> tuple:
    """The values that a type allows, itself or in a list; empty where it allows any."""
    if typing.get_origin(hint) in (list, typing.Union, types.UnionType):
        return choices_of(typing.get_args(hint)[0])
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def show_value(value) -> str:
    """A value as a recipe writes it, on one line."""
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def formatter_for(config: type) -> type[argparse.HelpFormatter]:
    """The formatter of the parser of one config."""
    hints, bounded = hints_of(config), hints_of(config, with_bounds=True)
    groups = {key.rpartition(".")[0] for key in hints} - {""}

    class Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keys with their choices, text and default; without the options that set a whole group from a file."""

        def __init__(self, prog: str):
            super().__init__(prog, max_help_position=8)

        def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
            super().add_arguments([action for action in actions if action.dest not in groups])

        def _format_action_invocation(self, action: argparse.Action) -> str:
            if action.dest not in hints:
                return super()._format_action_invocation(action)
            line = f"--{action.dest} {describe_type(hints[action.dest])}"
            return line if len(line) <= self._width - 2 else f"--{action.dest} CHOICE"

        def _get_help_string(self, action: argparse.Action) -> str:
            if action.dest not in hints:
                return super()._get_help_string(action)
            named = "CHOICE" in self._format_action_invocation(action)
            choices = f" Choices: {', '.join(choices_of(hints[action.dest]))}." if named else ""
            bounds = bounds_of(bounded[action.dest])
            limits = f" {str(bounds).capitalize()}." if bounds else ""
            return f"{action.help}{choices}{limits} (default: {show_value(action.default)})"

    return Formatter

"""Recipe files and command lines to configs: jsonargparse reads them, and what is wrong is one sentence."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import SUPPRESS, ActionConfigFile, ArgumentError, ArgumentParser, set_parsing_settings

from latent_reason.values import check_plain, show

from .help import choices_of, describe_type, formatter_for
from .keys import (
    check_keys,
    explain_old_value,
    explain_unknown_key,
    flatten,
    hints_of,
    is_group,
    is_list,
    is_open,
    is_text,
    types_of,
)
from .machine import check_machine
from .others import drop_others
from .recipe_file import parse_yaml, read_recipe
from .resuming import RECIPE, continued, folder_of, folder_to_resume

set_parsing_settings(docstring_parse_attribute_docstrings=True)

Config = TypeVar("Config")
HERE = "command line"
NUMBER = r"\s*[-+]?\.?\d[\d._]*(e[-+]?\d+)?\s*"
NUMBERS = re.compile(f"{NUMBER}(,{NUMBER})+")  # a list without brackets


def parse_command_line(config: type[Config], description: str, argv: Sequence[str] | None = None) -> Config:
    """The config of this process's command line, for devices that this machine has. What is wrong with it is one
    sentence, and the process exits with 2."""
    try:
        made = parse(config, sys.argv[1:] if argv is None else argv, description)
        check_machine(made)
        return made
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def answer_help(config: type, description: str) -> None:
    """Print the help of a command and exit, if this process's command line asks for it. A command calls it before it
    imports torch, which takes seconds."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        _parser(config, description).print_help()
        raise SystemExit(0)


def parse(config: type[Config], argv: Sequence[str] = (), description: str = "") -> Config:
    """The config of a command line: ``--config FILE`` and dotted keys (``--optim.max_steps 500``); later ones win. A change
    of method or task drops what a file says of the one before (:func:`drop_others`).

    Raises:
        ValueError, FileNotFoundError: one sentence on what is wrong where.
    """
    words = _plain_words(config, list(argv))
    files = [word for word in words if isinstance(word, Recipe)]
    given = later = _read_words(config, [word for word in words if not isinstance(word, Recipe)], description)
    recipes: dict[str, str] = {}
    for file in reversed(files):
        values = read(file, config)
        recipes[file] = json.dumps(drop_others(values, later, config))
        later = _merged(values, later)
    if files:
        whole = [f"--values={recipes[word]}" if isinstance(word, Recipe) else word for word in words]
        given = _read_words(config, whole, description)
    where = ", ".join(files) or HERE
    return _continued(config, given, where) if given.get("resume") else _make(config, given, where)


def _read_words(config: type, words: list[str], description: str) -> dict:
    """The nested values of the words of a command line. Raises ValueError."""
    try:
        given = _parser(config, description).parse_args(words, defaults=False).as_dict()
    except ArgumentError as error:
        raise ValueError(_explain(str(error), config, HERE)) from None
    return {name: value for name, value in given.items() if name not in ("config", "values")}


def _continued(config: type[Config], given: dict, where: str) -> Config:
    """The config of ``--resume RUN``, or of ``--resume auto``: the run of the config, if there is one already."""
    name = given.pop("resume")
    if name == "auto":
        new = _make(config, given, where)
        folder = folder_of(new.run_name)
        if not (folder / RECIPE).is_file():
            return new
    else:
        folder = folder_to_resume(name)
        new = _make(config, _merged(read(folder / RECIPE, config), given), where)
    new = continued(folder, load(folder / RECIPE, config), new)
    return dataclasses.replace(
        new, resume=str(folder), run_name=str(folder) if len(folder.parts) > 1 else f"./{folder}"
    )


def load(path: str | Path, config: type[Config], **changes) -> Config:
    """The config of a recipe file. ``changes`` are dotted keys with ``__``: ``load(f, SFTConfig, optim__max_steps=3)``.

    Raises as :func:`parse`.
    """
    values = _keys_of(path, config)
    for key, value in changes.items():
        changed = _nested(key.replace("__", "."), value)
        check_keys(changed, config, "load")
        values = _merged(drop_others(values, changed, config), changed)
    return _make(config, values, str(path))


def read(path: str | Path, config: type) -> dict:
    """The plain values of a recipe file.

    Raises:
        FileNotFoundError: it does not exist; names the nearest shipped recipe.
        ValueError: it cannot be read (recipe_file.py), has a key that the config does not have, or a value of the wrong
            type.
    """
    values = _with_texts(_keys_of(path, config), config)
    for key, value in flatten(values, config):
        check_plain(value, f"{path}: {key}")
    _check_types(config, values, str(path))
    return values


def _keys_of(path: str | Path, config: type) -> dict:
    """The values of a recipe file, whose types are not checked. Raises as :func:`read`."""
    values = read_recipe(path) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no keys. Write lines like 'seed: 0'.")
    check_keys(values, config, str(path))
    return values


def dump(config) -> str:
    """The resolved config as YAML."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as lists
    plain.pop("resume", None)  # it belongs to a command, not to a run
    return yaml.safe_dump(plain, sort_keys=False)


# -- stages and arms ---------------------------------------------------------------------------------------------------
def stages_of(config: Config) -> list[Config]:
    """The config of every stage; of a config without stages, itself.

    Raises:
        ValueError: a stage has a key or value that the config may not have; names the stage.
    """
    fixed = {"stages", "arms", "run_name", "init_from", "dry_run"}
    return [
        _changed(config, type(config), changes, f"stage {number}", fixed)
        for number, changes in enumerate(config.stages, 1)
    ] or [config]


def arms_of(config) -> dict[str, Any]:
    """The config of every arm of a comparison by its name, as the trainer of the arms takes it. Raises ValueError as
    :func:`stages_of`."""
    return {
        name: _changed(config, config.trainer, changes, f"arm {name!r}", {"arms", "run_name", "dry_run"})
        for name, changes in config.arms.items()
    }


def _changed(config, made: type, changes: dict, where: str, fixed: set[str]):
    """The values of ``config`` with some keys changed, as a config of the class ``made``; ``fixed`` keys may not be. Only
    what changes is checked by its type: the rest has been."""
    if not isinstance(changes, dict) or fixed & changes.keys():
        raise ValueError(f"{where}: holds keys of the config, but none of {', '.join(sorted(fixed))}; got {changes!r}.")
    check_keys(changes, made, where)
    names = {field.name for field in dataclasses.fields(made)}
    values = {name: value for name, value in dataclasses.asdict(config).items() if name in names} | {"stages": []}
    values = drop_others(values, changes, made)
    return _build_whole(made, _merged(values, _typed(made, changes, where)), where)


# -- jsonargparse ------------------------------------------------------------------------------------------------------
@cache
def _parser(config: type, description: str = "") -> ArgumentParser:
    """The parser of a config, whose ``--values`` merges values as JSON into what stands before it. To build one takes a
    tenth of a second, and every stage and arm needs one."""

    class ValuesAction(ActionConfigFile):
        def __call__(self, parser, given, value, option_string=None):
            for key, new in flatten(json.loads(value), config):
                old = given.get(key)
                given[key] = _merged(old, new) if isinstance(old, dict) and isinstance(new, dict) else new

    parser = ArgumentParser(
        prog=f"python -m {config.command}",
        usage="%(prog)s --config RECIPE [--KEY VALUE ...]",
        description=description,
        formatter_class=formatter_for(config),
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
    )
    parser.add_argument("--config", metavar="RECIPE", help="A YAML file; later keys change it.")
    parser.add_argument("--values", action=ValuesAction, help=SUPPRESS)
    parser.add_class_arguments(config, sub_configs=False)
    return parser


class Recipe(str):
    """The path of a recipe among the words of a command line."""


def _plain_words(config: type, argv: list[str]) -> list[str]:
    """A command line as jsonargparse takes it, but for its recipes: a switch without a value is set to true, a list gets
    its brackets, and options below a key such as method.options become values, which are merged to any depth."""
    words: list[str] = []
    hints = hints_of(config)
    while argv:
        word = argv.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        has_value = equals or (argv and not argv[0].startswith("--"))
        if key == "config" and has_value:
            words.append(Recipe(text if equals else argv.pop(0)))
        elif any(is_open(hint) and key.startswith(f"{name}.") for name, hint in hints.items()) and has_value:
            text = text if equals else argv.pop(0)
            value = parse_yaml(f"[{text}]" if NUMBERS.fullmatch(text) else text, f"{HERE}: {key}")
            check_plain(value, key)
            words += ["--values", json.dumps(_nested(key, value))]
        elif is_list(hints.get(key)) and has_value:
            text = (text if equals else argv.pop(0)).strip()
            words.append(f"--{key}={text if text.startswith('[') else f'[{text}]'}")
        else:
            if key in hints and not is_text(hints[key]) and has_value:
                _check_word(text if equals else argv[0], key)
            words.append(f"{word}=true" if hints.get(key) is bool and not has_value else word)
    return words


def _check_word(text: str, key: str) -> None:
    """Raises ValueError for a number with more digits than Python turns into a float."""
    if re.fullmatch(r"\s*[-+]?[0-9_]{100,}\s*", text):
        raise ValueError(f"{HERE}: {key}={show(text)}: is too large.")


def _make(config: type[Config], values: dict, where: str) -> Config:
    """A config of plain values. Raises ValueError for a value of the wrong type, and what a config itself raises."""
    return _build_whole(config, _typed(config, values, where), where)


def _typed(config: type, values: dict, where: str) -> dict:
    """Plain values of keys as their types want them. Raises ValueError."""
    try:
        for key, value in flatten(values, config):
            check_plain(value, key)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    checked = _check_types(config, _with_texts(values, config), where)
    checked.pop("config", None)
    return checked


def _build_whole(config: type[Config], values: dict, where: str) -> Config:
    """A config of typed values, with stages and arms that it may have. Raises what a config itself raises."""
    try:
        made = _build(config, values)
        if hasattr(made, "stages"):
            stages_of(made)
        if hasattr(made, "arms"):
            arms_of(made)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return made


def _check_types(config: type, values: dict, where: str) -> dict:
    """The values as their types want them. Raises ValueError."""
    try:
        return _parser(config).parse_object(values, defaults=False).as_dict()
    except ArgumentError as error:
        raise ValueError(_explain(str(error), config, where)) from None


def _build(config: type[Config], values: dict) -> Config:
    hints = types_of(config)
    return config(**{k: _build(hints[k], v) if is_group(hints[k]) else v for k, v in values.items()})


def _explain(message: str, config: type, where: str) -> str:
    """What jsonargparse says, in a sentence that names the key as a recipe writes it."""
    if found := re.match(r"unrecognized arguments: (--)?([^\s=]+)", message):
        dashes, word = found.groups()
        if not dashes:
            return f"{where}: '{word}' belongs to no key. Write keys as --optim.max_steps 100."
        return f"{where}: {explain_unknown_key(word, config)}"
    if found := re.match(r"argument --(\S+?): expected one argument", message):
        return f"{where}: --{found[1]} needs a value."
    if found := re.match(r'Parser key "(.*?)"', message):
        return f"{where}: {_explain_value(found[1], message, config)}"
    return f"{where}: {' '.join(message.split())}"


def _explain_value(key: str, message: str, config: type) -> str:
    """The same of a value that a key does not take."""
    hints = hints_of(config)
    if key not in hints:
        return f"{key} holds keys, such as {next((k for k in hints if k.startswith(f'{key}.')), key)}."
    if deeper := re.search(r"NestedArg\(key='(.*?)'", message):
        return explain_unknown_key(f"{key}.{deeper[1]}", config)
    value = re.split(r"Got value: |Given value: ", message)[-1]
    expected = describe_type(hints[key])
    if choices := choices_of(hints[key]):
        expected = f"{'a list of ' if expected.startswith('[') else 'one of '}{', '.join(choices)}"
    return f"{key}: expected {expected}; got {show(' '.join(value.split()))}{explain_old_value(key, value)}."


# -- nested values -----------------------------------------------------------------------------------------------------
def _nested(key: str, value) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _merged(old: dict, new: dict) -> dict:
    both = {
        k: _merged(old[k], v) if isinstance(v, dict) and isinstance(old.get(k), dict) else v for k, v in new.items()
    }
    return old | both


def _with_texts(values: dict, config: type) -> dict:
    """The values with numbers as text where a key holds text: YAML reads ``run_name: 7`` as a number."""
    hints, out = types_of(config), {}
    for name, value in values.items():
        if is_group(hints[name]) and isinstance(value, dict):
            value = _with_texts(value, hints[name])
        elif is_text(hints[name]) and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        out[name] = value
    return out

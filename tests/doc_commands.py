"""Commands of Markdown files: read from their fenced blocks, and checked with the parsers that they would meet.

Nothing that a command starts is run. ``check`` raises AssertionError (or what the parser raises) for a command that does
not exist, an option that it does not have, a config key or value that is wrong, or a file of the repository that is
missing.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
#: places of the repository; a word that begins with one of them is a file that must exist, unless the command writes it
TREE = re.compile(r"(?:latent_reason|train|eval|tests|paper_figs|docs)/[\w./-]+|checkpoints/frozenlake-tiny[\w./-]*")
WRITES = {"--out", "--report", "--json", ">"}  # options and signs that are followed by a file the command writes
#: packages that are commands, and the module that reads their command line
PACKAGES = {
    "latent_reason": "latent_reason.cli",
    "eval.bench": "eval.bench.__main__",
    "eval.baselines": "eval.baselines.__main__",
}
#: programs of others: how they are called is not checked
OTHERS = set("git cd curl mkdocs tensorboard hf mypy codespell source cp jupyter".split())


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the names in the HTML comments just before it."""

    language: str
    text: str
    marks: tuple[str, ...]


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = re.findall(r"((?:^<!-- .+? -->\n)*)^```(\w*)\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE)
    return [Block(language, text, tuple(re.findall(r"<!-- (.+?) -->", marks))) for marks, language, text in found]


def commands(script: str) -> list[list[str]]:
    """The words of each command of a shell script."""
    out = []
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "||", ";", "|")), len(words))
            out.append(words[:end])
            words = words[end + 1 :]
    return [command for command in out if command]


class Parsed(Exception):
    """The parser accepted the command line."""


def parse_only(main, argv: list[str]) -> None:
    """Let the parser of ``main`` read a command line and stop there."""

    original = argparse.ArgumentParser.parse_args
    original_known = argparse.ArgumentParser.parse_known_args

    def parse(parser, args=None, namespace=None):
        with patch.object(argparse.ArgumentParser, "parse_known_args", original_known):
            raise Parsed(original(parser, args, namespace))

    def parse_known(parser, args=None, namespace=None):  # of a command that also takes keys of a recipe
        raise Parsed(original_known(parser, args, namespace))

    patched = {"parse_args": parse, "parse_known_args": parse_known}
    try:
        with patch.multiple(argparse.ArgumentParser, **patched), patch.object(sys, "argv", ["command", *argv]):
            main()
    except Parsed:
        return
    except SystemExit as ended:  # an option that prints something and ends
        if ended.code:
            raise
        return
    raise AssertionError("it reads no command line")


def check_config(module: str, argv: list[str]) -> bool:
    """Parse the config of a training command; False for a module that has none."""
    from train.config import CONFIGS, parse

    config = {config.command: config for config in CONFIGS}.get(module)
    if "--resume" in argv and argv[argv.index("--resume") + 1] != "auto":  # a run of the reader
        argv = argv[: argv.index("--resume")] + argv[argv.index("--resume") + 2 :]
    if config is not None:
        parse(config, argv)
    return config is not None


def check_module(module: str, argv: list[str]) -> None:
    """``python -m MODULE ARGUMENTS``."""
    if module in ("timeit", "pytest", "build"):
        return
    if module == "torch.distributed.run":
        module, *argv = argv[argv.index("--") + 1 :]
    assert find_spec(module), f"no module {module}"
    if (
        "--help" in argv
        or check_config(module, argv)
        or module in ("train.config.reference", "latent_reason.contracts")
    ):
        return
    name = PACKAGES.get(module, module)
    parse_only(importlib.import_module(name).main, argv)


def check_script(script: str, argv: list[str]) -> None:
    """``bash SCRIPT ARGUMENTS``. The launchers of train/ take a recipe and config keys."""
    assert (ROOT / script).is_file(), f"no script {script}"
    launched = {"train/sft.sh": "train.sft", "train/rl.sh": "train.rl", "train/decoder.sh": "train.decoder"}
    if script in launched:
        recipe, *keys = argv
        assert check_config(launched[script], ["--config", recipe, *keys])


def check_pip(argv: list[str]) -> None:
    """``pip install``: extras of this project exist, and so does the constraints file."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in argv:
        if own := re.fullmatch(r"\.(?:\[([\w,]+)\])?", word):
            assert set(filter(None, (own[1] or "").split(","))) <= extras.keys(), word
    if "-c" in argv:
        assert (ROOT / argv[argv.index("-c") + 1]).is_file()


def check_files(words: list[str]) -> None:
    """Files of the repository that a command reads exist."""
    for before, word in zip(["", *words], words, strict=False):
        for path in TREE.findall(word) if before not in WRITES else ():
            assert (ROOT / path).exists(), f"no file {path}"


def check(words: list[str]) -> None:
    """Check one command; see the module's docstring."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # settings before the program
        words = words[1:]
    if not words:
        return
    check_files(words)
    if ">" in words:
        words = words[: words.index(">")]
    program, *argv = words
    if program == "python" and argv[0] == "-m":
        check_module(argv[1], argv[2:])
    elif program == "python":
        assert (ROOT / argv[0]).is_file() or "/" not in argv[0], f"no script {argv[0]}"
    elif program == "torchrun":
        check_module("torch.distributed.run", argv)
    elif program == "sbatch":
        script = next(word for word in argv if word.endswith(".sbatch"))
        module, *keys = argv[argv.index(script) + 1 :]
        assert (ROOT / script).is_file() and check_config(module, keys)
    elif program == "latent-reason":
        check_module("latent_reason", argv)
    elif program == "bash":
        check_script(argv[0], argv[1:])
    elif program == "pip":
        check_pip(argv)
    elif program == "lmms-eval":
        assert "latent_reason" in argv
    else:
        assert program in OTHERS | {"pytest", "ruff", "pre-commit"}, f"unknown program {program}"

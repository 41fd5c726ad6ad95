"""Shared by all scripts: result files from the command line, or one sentence about what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from latent_reason.errors import cli_errors
from latent_reason.json_files import fields_of, read_json


@contextmanager
def read_sources(files: Sequence[Path], expected: str, *keys: str) -> Iterator[list[dict]]:
    """The objects in JSON files. Files that are not ``expected``, or lack one of ``keys`` or a field that the block
    uses, end the process with a sentence."""
    with cli_errors():
        contents = [read_json(file, expected, keys) for file in files]
        with fields_of(", ".join(map(str, files)), expected):
            yield contents

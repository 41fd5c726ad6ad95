"""Shared by all figure scripts: the command line.

python paper_figs/NAME.py [FILE.json ...] [--out FILE.pdf|.svg|.png] [--overwrite]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from sources import read_sources
from style import ENDINGS, STYLE

from latent_reason.cli.arguments import add_output
from latent_reason.errors import cli_errors
from latent_reason.outputs import check_picture_output

HERE = Path(__file__).parent


def figure_arguments(
    doc: str, name: str, *sources: str, nargs: str = "?", endings: tuple[str, ...] = tuple(ENDINGS)
) -> tuple[list[Path], Path]:
    """(the sources, the file to write), from the command line. Defaults: ``sources`` (relative to this folder) and
    NAME.pdf in the current folder. ``nargs`` is that of argparse for the sources."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = name + endings[0]
    parser.add_argument("sources", nargs=nargs, type=Path, default=[HERE / source for source in sources])
    add_output(parser, f"file that ends in {', '.join(endings)}; default: {default}", required=False, default=default)
    args = parser.parse_args()
    with cli_errors():
        out = check_picture_output(args.out, args.overwrite, endings)
    out.parent.mkdir(parents=True, exist_ok=True)
    return args.sources if isinstance(args.sources, list) else [args.sources], out


@contextmanager
def figure_of(
    doc: str, name: str, source: str, expected: str, *keys: str, nargs: str = "?"
) -> Iterator[tuple[list[dict], Path]]:
    """(the objects in the sources, the file to write), for a block that draws in the style of all figures. Errors:
    :func:`sources.read_sources`."""
    files, out = figure_arguments(doc, name, source, nargs=nargs)
    with read_sources(files, expected, *keys) as contents, plt.rc_context(STYLE):
        yield contents, out

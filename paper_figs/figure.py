"""Shared by all figure scripts: the command line.

python paper_figs/NAME.py [FILE.json ...] [--out FILE.png]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

HERE = Path(__file__).parent


def from_json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def load_sources(doc: str, name: str, *sources: str, read: Callable = from_json) -> tuple[list, Path]:
    """(the loaded sources, the PNG to write), from the command line. Defaults: ``sources`` (relative to this folder) and
    NAME.png beside this file."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, default=[HERE / source for source in sources])
    parser.add_argument("--out", type=Path, default=HERE / f"{name}.png")
    args = parser.parse_args()
    return [read(source) for source in args.sources], args.out

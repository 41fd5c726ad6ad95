"""What every figure script shares: what it reads and where it draws.

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


def asked(doc: str, name: str, *sources: str, read: Callable = from_json) -> tuple[list, Path]:
    """(what ``read`` makes of the sources, the PNG to write): those of the command line, else ``sources`` (paths from
    this folder) and NAME.png beside this file."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, default=[HERE / source for source in sources])
    parser.add_argument("--out", type=Path, default=HERE / f"{name}.png")
    given = parser.parse_args()
    return [read(source) for source in given.sources], given.out

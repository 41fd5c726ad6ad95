"""Speed and memory of ``data convert``, ``check`` and ``pack``, on made-up rows.

    python -m train.bench_rows FOLDER [--n 100000]

Writes n questions, with one 32 x 32 image each (half PNG, half JPEG), to one row group of a parquet file in the new
FOLDER. Converts them to records, checks and packs these and checks the shards, each in a process of its own. Prints for
each command: rows a second of processor time (of all threads) and on the clock, and the largest resident size.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from latent_reason.data.parquet import arrow
from latent_reason.errors import at_least, cli_errors

SIDE = 32  # of an image
COLUMNS = ("--columns", "question=problem", "--checker", "number", "--split", "train=0.98,val=0.02")
#: what runs in the folder, in this order: the arguments of ``latent_reason data``
COMMANDS = {
    "convert table": ("convert", "table", "rows.parquet", "records", *COLUMNS),
    "check of the records": ("check", "records"),
    "pack --to parquet": ("pack", "records", "shards", "--to", "parquet"),
    "check of the shards": ("check", "shards"),
}


def rows(n: int) -> Iterator[dict]:
    """Made-up rows in the layout of EasyR1. No two images are equal."""
    random = np.random.default_rng(0)
    for i in range(n):
        pixels = np.repeat(np.repeat(random.integers(0, 256, (8, 8, 3), np.uint8), SIDE // 8, 0), SIDE // 8, 1)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, ("PNG", "JPEG")[i % 2])
        picture = {"bytes": data.getvalue(), "path": None}
        yield {"id": f"row-{i}", "problem": f"<image>What is {i} + 1?", "answer": str(i + 1), "images": [picture]}


def write(folder: Path, n: int) -> Path:
    """Write n rows to one row group of a parquet file in the new ``folder``; returns its path."""
    parquet = arrow()
    import pyarrow

    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows(n))), folder / "rows.parquet", row_group_size=n)
    return folder / "rows.parquet"


def measure(arguments: tuple[str, ...], folder: Path) -> tuple[float, float, float]:
    """Run ``latent_reason data`` in ``folder``: seconds of processor time, seconds on the clock, megabytes."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "latent_reason", "data", *arguments]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if process.returncode:
        raise ValueError(f"'{' '.join(words)}' in '{folder}' failed. Its message is above.")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return used.ru_utime + used.ru_stime, seconds, used.ru_maxrss * unit / 1e6


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.bench_rows", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--n", type=at_least(1), default=100_000, help="number of rows (default: 100000)")
    given = parser.parse_args(argv)
    file, shown = write(given.folder, given.n), Table("command", "rows a second", "on the clock", "MB")
    for name, arguments in COMMANDS.items():
        processor, clock, size = measure(arguments, given.folder)
        shown.add_row(name, f"{given.n / processor:,.0f}", f"{given.n / clock:,.0f}", f"{size:,.0f}")
    Console().print(shown)
    print(f"{given.n:,} rows of {file}, {file.stat().st_size / 1e6:,.0f} MB in one row group")


if __name__ == "__main__":
    main()

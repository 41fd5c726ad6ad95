"""A small data set of one's own: squares of four colors, each under a circle.

python tests/own_data.py mine --train 400 --val 20 --test 60    # records, after the one in docs/data.md
python tests/own_data.py pictures --llava 500                   # pictures and a JSON, after docs/quickstart-own-data.md
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLOURS = ("red", "blue", "green", "orange")


def example(page: str) -> str:
    """The first JSON block of a page: the row of shape-0, a red square."""
    return re.search(r"```json\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)[1]


def draw(folder: Path, n: int) -> Iterator[tuple[str, str]]:
    """Draw n pictures into a new folder, each with and without its circle; the name and the color of each. No two have
    the same square in the same place."""
    folder.mkdir(parents=True)
    rng, used = random.Random(0), set()
    for number in range(n):
        while (drawn := (rng.choice(COLOURS), rng.randrange(10, 78), rng.randrange(10, 78))) in used:
            continue
        used.add(drawn)
        colour, x, y = drawn
        for name, hidden in ((f"shape-{number}.png", True), (f"shape-{number}-under.png", False)):
            picture = Image.new("RGB", (128, 128), "white")
            pen = ImageDraw.Draw(picture)
            pen.rectangle((x, y, x + 40, y + 40), fill=colour)
            if hidden:
                pen.ellipse((x - 4, y - 4, x + 36, y + 36), fill="grey")
            picture.save(folder / name)
        yield f"shape-{number}", colour


def write(folder: Path, **splits: int) -> None:
    """A new folder of pictures and records, so many of each split."""
    record, of_split = example("data.md"), [name for name, n in splits.items() for _ in range(n)]
    rows = []
    for split, (name, colour) in zip(of_split, draw(folder, len(of_split)), strict=True):
        row = json.loads(record.replace("shape-0", name).replace("red", colour))
        rows.append(json.dumps(row | {"split": split}) + "\n")
    (folder / "traces.jsonl").write_text("".join(rows), encoding="utf-8")


def write_llava(folder: Path, n: int) -> None:
    """A new folder of pictures and ``data.json``, a list of n rows as LLaVA users have them."""
    row = example("quickstart-own-data.md")
    rows = [json.loads(row.replace("shape-0", name).replace("red", colour))[0] for name, colour in draw(folder, n)]
    (folder / "data.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--llava", type=int, metavar="N", help="N pictures and a JSON instead of records")
    for name, n in (("train", 400), ("val", 20), ("test", 60)):
        parser.add_argument(f"--{name}", type=int, default=n)
    given = vars(parser.parse_args())
    folder, num_rows = given.pop("folder"), given.pop("llava")
    write(folder, **given) if num_rows is None else write_llava(folder, num_rows)

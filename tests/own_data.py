"""A small data set of one's own, after the record in docs/data.md: squares of four colors, each under a circle.

python tests/own_data.py mine --train 400 --val 20 --test 60
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

from PIL import Image, ImageDraw

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
COLOURS = ("red", "blue", "green", "orange")


def section() -> str:
    """The section on own data of the page on data."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index("## Your own data") : text.index("## The format table")]


def write(folder: Path, **splits: int) -> None:
    """A new folder of pictures and records, so many of each split, no two of the same square in the same place."""
    record = re.search(r"```json\n(.*?)```", section(), re.DOTALL)[1]
    folder.mkdir(parents=True)
    rng, used, rows = random.Random(0), set(), []
    for number, split in enumerate(name for name, n in splits.items() for _ in range(n)):
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
        row = json.loads(record.replace("shape-0", f"shape-{number}").replace("red", colour))
        rows.append(json.dumps(row | {"split": split}) + "\n")
    (folder / "traces.jsonl").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, n in (("train", 400), ("val", 20), ("test", 60)):
        parser.add_argument(f"--{name}", type=int, default=n)
    given = vars(parser.parse_args())
    write(given.pop("folder"), **given)

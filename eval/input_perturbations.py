"""What a model makes of other inputs: accuracy without the picture, with it said in words or drawn as words, with a
spoilt, turned or cut one, each paired with the same items as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from math import ceil
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageEnhance, ImageFilter, ImageFont

from latent_reason.decoding.items import Result, decode, main_score, room
from latent_reason.tasks import Item, Task
from latent_reason.tasks.base import TURNS
from latent_reason.trace import Trace
from latent_reason.visualization.contact_sheet import wrap_text

from .metrics import difference, share

SPOILT = ("noise", "blur", "jpeg", "low_contrast")
FONTS = ("Aileron", "DejaVuSerif")  # Pillow's own, and one of matplotlib's
SIZES = (12, 20)  # pixels
NARROWEST, WIDEST, MARGIN = 192, 512, 8  # pixels of a page


# -- pictures ----------------------------------------------------------------------------------------------------------
def spoilt(how: str) -> Callable[[PILImage.Image], PILImage.Image]:
    """A picture made worse in a way that leaves its answer as it is."""

    def noise(picture):
        pixels = np.asarray(picture, np.float64)
        drawn = np.random.default_rng(0).normal(0, 16, pixels.shape)
        return PILImage.fromarray((pixels + drawn).clip(0, 255).astype(np.uint8))

    def jpeg(picture):
        held = BytesIO()
        picture.save(held, "JPEG", quality=20)
        return PILImage.open(held).convert("RGB")

    return {
        "noise": noise,
        "jpeg": jpeg,
        "blur": lambda p: p.filter(ImageFilter.GaussianBlur(2)),
        "low_contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.5),
    }[how]


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    if name == "Aileron":
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(matplotlib.get_data_path(), f"fonts/ttf/{name}.ttf"), size)


def on_paper(words: str, drawn: ImageFont.FreeTypeFont, size: tuple[int, int]) -> PILImage.Image:
    """Words in black on white: a page about as wide as ``size``, and as high or as high as the words need."""
    width = min(max(size[0], NARROWEST), WIDEST)
    pen = ImageDraw.Draw(PILImage.new("RGB", (1, 1)))
    lines = "\n".join(wrap_text(words, drawn, width - 2 * MARGIN))
    bottom = pen.multiline_textbbox((MARGIN, MARGIN), lines, drawn)[3]
    page = PILImage.new("RGB", (width, max(size[1], ceil(bottom) + MARGIN)), "white")
    ImageDraw.Draw(page).multiline_text((MARGIN, MARGIN), lines, "black", drawn)
    return page


def cropped(task: Task, item: Item) -> Item | None:
    """The item with the part of its last picture that suffices to answer, as large as the whole; None without one."""
    if (box := task.box(item)) is None:
        return None
    *others, picture = item.images
    corners = [round(share * side) for share, side in zip(box, picture.size * 2, strict=True)]
    return replace(item, images=[*others, picture.crop(corners).resize(picture.size)])


# -- accuracy on other inputs ------------------------------------------------------------------------------------------
def inputs(reasoner, task: Task, mode: str, plain: Sequence[Result]) -> dict:
    """Accuracy on changed items, each with its paired loss against ``plain``: without the picture, with it said in
    words, with a spoilt one; and where the task has a rule for it, with the part that suffices, enlarged (the zoom gap
    is minus that loss), and with turned pictures."""
    out = changed(reasoner, task, mode, plain, "blind", make_trace=lambda item: task.blind(item, mode))
    out |= changed(reasoner, task, mode, plain, "text_twin", make_trace=lambda item: task.text_twin(item, mode))
    for how in SPOILT:
        out |= changed(
            reasoner,
            task,
            mode,
            plain,
            how,
            lambda item, how=how: replace(item, images=[spoilt(how)(i) for i in item.images]),
        )
    out |= changed(reasoner, task, mode, plain, "gold_crop", lambda item: cropped(task, item))
    for turn in TURNS:
        out |= changed(reasoner, task, mode, plain, turn, lambda item, turn=turn: task.turned(item, turn))
    return out


def as_pixels(reasoner, task: Task, mode: str, plain: Sequence[Result]) -> dict:
    """Accuracy with the words of the items' text twins drawn on paper in place of the pictures: each cell of a grid of
    fonts and sizes, and the least, median and greatest of them."""
    cells: dict = {}
    for name in FONTS:
        for size in SIZES:
            drawn = font(name, size)
            cells |= changed(
                reasoner,
                task,
                mode,
                plain,
                f"{name} {size}",
                lambda item, drawn=drawn: replace(
                    item, images=[on_paper(task.in_words(item), drawn, item.images[-1].size)]
                ),
            )
    values = [cell["value"] for cell in cells.values()]
    return {"grid": cells, "min": min(values), "median": round(float(np.median(values)), 4), "max": max(values)}


def changed(
    reasoner,
    task: Task,
    mode: str,
    plain: Sequence[Result],
    name: str,
    change: Callable[[Item], Item | None] = lambda item: item,
    make_trace: Callable[[Item], Trace] | None = None,
) -> dict:
    """{name: accuracy with the paired loss} on the items that can be changed so; {} where none can."""
    pairs = [(r, item) for r in plain if (item := change(r.item)) is not None]
    if not pairs:
        return {}
    kept, items = zip(*pairs, strict=True)
    found = decode(
        reasoner,
        None,
        task,
        items,
        mode,
        make_trace=make_trace,
        max_new_tokens=room(plain),
        progress=name.replace("_", " "),
    )
    key = main_score(plain)
    return {name: share([r.scores[key] for r in found]) | {"loss": difference(kept, found, key)}}

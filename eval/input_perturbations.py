"""Accuracy on changed inputs: no image, text instead of the image, and degraded, rotated or cropped images. Each is
paired with the same unchanged items.
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
from latent_reason.tasks.item import TURNS
from latent_reason.trace import Trace
from latent_reason.visualization.contact_sheet import wrap_text

from .metrics import difference, share
from .records import RecordTask, change_images

DEGRADATIONS = ("noise", "blur", "jpeg", "low_contrast")
FONTS = ("Aileron", "DejaVuSerif")  # Pillow's own, and one of matplotlib's
SIZES = (12, 20)  # font sizes in pixels
MIN_WIDTH, MAX_WIDTH, MARGIN = 192, 512, 8  # of a page, in pixels


# -- images ------------------------------------------------------------------------------------------------------------
def degradation(name: str) -> Callable[[PILImage.Image], PILImage.Image]:
    """A function that degrades an image but leaves its answer unchanged."""

    def noise(image):
        pixels = np.asarray(image, np.float64)
        noise_values = np.random.default_rng(0).normal(0, 16, pixels.shape)
        return PILImage.fromarray((pixels + noise_values).clip(0, 255).astype(np.uint8))

    def jpeg(image):
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=20)
        return PILImage.open(buffer).convert("RGB")

    return {
        "noise": noise,
        "jpeg": jpeg,
        "blur": lambda p: p.filter(ImageFilter.GaussianBlur(2)),
        "low_contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.5),
    }[name]


def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    if name == "Aileron":
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(matplotlib.get_data_path(), f"fonts/ttf/{name}.ttf"), size)


def render_text(text: str, font: ImageFont.FreeTypeFont, size: tuple[int, int]) -> PILImage.Image:
    """Black text on a white page of about the width of ``size`` and at least its height."""
    width = min(max(size[0], MIN_WIDTH), MAX_WIDTH)
    pen = ImageDraw.Draw(PILImage.new("RGB", (1, 1)))
    lines = "\n".join(wrap_text(text, font.getlength, width - 2 * MARGIN))
    bottom = pen.multiline_textbbox((MARGIN, MARGIN), lines, font)[3]
    page = PILImage.new("RGB", (width, max(size[1], ceil(bottom) + MARGIN)), "white")
    ImageDraw.Draw(page).multiline_text((MARGIN, MARGIN), lines, "black", font)
    return page


def crop_to_box(task: Task, item: Item) -> Item | None:
    """The item with its last image cropped to the part that contains the answer, resized to the original size. None if
    the task has no such part."""
    if (box := task.box(item)) is None:
        return None
    *others, image = item.images
    corners = [round(share * side) for share, side in zip(box, image.size * 2, strict=True)]
    return replace(item, images=[*others, image.crop(corners).resize(image.size)])


# -- accuracy on other inputs ------------------------------------------------------------------------------------------
def evaluate_inputs(reasoner, task: Task, mode: str, plain: Sequence[Result]) -> dict:
    """Accuracy on changed items, each with its paired loss against ``plain``.

    The changes: no image, text instead of the image, degraded images. If the task has a rule for it: the image cropped
    to the answer (the zoom gap is minus this loss), and rotated images.
    """
    out = evaluate_images(reasoner, task, mode, plain)
    out |= evaluate_changed(
        reasoner, task, mode, plain, "text_twin", make_trace=lambda item: task.text_twin(item, mode)
    )
    out |= evaluate_changed(reasoner, task, mode, plain, "gold_crop", lambda item: crop_to_box(task, item))
    for turn in TURNS:
        out |= evaluate_changed(reasoner, task, mode, plain, turn, lambda item, turn=turn: task.turned(item, turn))
    return out


def evaluate_images(reasoner, task: Task | RecordTask, mode: str, plain: Sequence[Result]) -> dict:
    """Accuracy without the image, and on degraded images, each with its paired loss against ``plain``: what needs no
    generator of puzzles."""
    out = evaluate_changed(reasoner, task, mode, plain, "blind", make_trace=lambda item: task.blind(item, mode))
    for name in DEGRADATIONS:
        out |= evaluate_changed(
            reasoner,
            task,
            mode,
            plain,
            name,
            make_trace=lambda item, name=name: change_images(task.trace(item, mode), degradation(name)),
        )
    return out


def evaluate_text_as_image(reasoner, task: Task, mode: str, plain: Sequence[Result]) -> dict:
    """Accuracy with the text twins of the items rendered as images, for each font and size, with minimum, median and
    maximum."""
    cells: dict = {}
    for name in FONTS:
        for size in SIZES:
            font = load_font(name, size)
            cells |= evaluate_changed(
                reasoner,
                task,
                mode,
                plain,
                f"{name} {size}",
                lambda item, font=font: replace(
                    item, images=[render_text(task.in_words(item), font, item.images[-1].size)]
                ),
            )
    values = [cell["value"] for cell in cells.values()]
    return {"grid": cells, "min": min(values), "median": round(float(np.median(values)), 4), "max": max(values)}


def evaluate_changed(
    reasoner,
    task: Task | RecordTask,
    mode: str,
    plain: Sequence[Result],
    name: str,
    change: Callable[[Item], Item | None] = lambda item: item,
    make_trace: Callable[[Item], Trace] | None = None,
) -> dict:
    """{name: accuracy with the paired loss} on the items to which the change applies; {} if there are none."""
    pairs = [(r, item) for r in plain if (item := change(r.item)) is not None]
    if not pairs:
        return {}
    unchanged, items = zip(*pairs, strict=True)
    results = decode(
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
    return {name: share([r.scores[key] for r in results]) | {"loss": difference(unchanged, results, key)}}

"""Tools on pictures: enlarge a region, draw marks, abstract a picture. Coordinates are pixels of the picture, or thousandths
of its sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFilter, ImageOps

Scale = Literal["pixels", "thousandths"]  # of a coordinate
Point = tuple[float, float]
COLOR = (230, 30, 30)
THINNEST = 20  # the longer side over the shorter one; some encoders refuse a picture of 200


class ToolError(ValueError):
    """A tool cannot do what a model asked for. The message is given to the model."""


def describe_scale(picture: PILImage.Image, scale: Scale) -> str:
    """What the numbers of a call mean, for the model."""
    if scale == "thousandths":
        return "Numbers are x and y in thousandths of the picture's width and height."
    return f"Numbers are x and y in pixels of the picture, which is {picture.width} wide and {picture.height} high."


def read_points(
    name: str, numbers: Sequence[float], size: tuple[int, int], scale: Scale, count: int | None
) -> list[Point]:
    """Numbers of a call as points in pixels, within the picture. ``count`` is how many points there are; None: two or more.

    Raises:
        ToolError: another number of numbers.
    """
    if len(numbers) % 2 or (len(numbers) != 2 * count if count else len(numbers) < 4):
        wanted = f"{2 * count} numbers" if count else "x and y of two points or more"
        raise ToolError(f"{name} needs {wanted}; it has {len(numbers)}.")
    width, height = size
    factors = (1.0, 1.0) if scale == "pixels" else (width / 1000, height / 1000)
    xs, ys = ([x * factor for x in numbers[axis::2]] for axis, factor in enumerate(factors))
    return [(min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in zip(xs, ys, strict=True)]


def read_box(name: str, numbers: Sequence[float], size: tuple[int, int], scale: Scale) -> tuple[int, int, int, int]:
    """Four numbers as a box (x0, y0, x1, y1) in pixels of at least one pixel. Its corners may come in any order.

    Raises:
        ToolError: not four numbers.
    """
    (x, y), (u, v) = read_points(name, numbers, size, scale, 2)
    width, height = size
    left, top = min(int(min(x, u)), width - 1), min(int(min(y, v)), height - 1)
    right, bottom = max(round(max(x, u)), left + 1), max(round(max(y, v)), top + 1)
    return left, top, right, bottom


def enlarge(picture: PILImage.Image, box: tuple[int, int, int, int], side: int | None = None) -> PILImage.Image:
    """A region of a picture, enlarged so that its longer side is that of the picture, or ``side`` pixels."""
    region = picture.crop(box)
    factor = (side or max(picture.size)) / max(region.size)
    size = tuple(max(1, round(x * factor)) for x in region.size)
    return region.resize(size, PILImage.Resampling.NEAREST if factor > 1 else PILImage.Resampling.BOX)


def pad_thin(picture: PILImage.Image) -> PILImage.Image:
    """A picture that is at most ``THINNEST`` times as long as it is wide: a thin one stands on white."""
    short = -(-max(picture.size) // THINNEST)
    if min(picture.size) >= short:
        return picture
    size = max(picture.width, short), max(picture.height, short)
    sheet = PILImage.new("RGB", size, "white")
    sheet.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return sheet


def draw_mark(picture: PILImage.Image, name: str, numbers: Sequence[float], scale: Scale) -> PILImage.Image:
    """A copy of a picture with a ``box``, a ``line`` through points or a ``point``.

    Raises:
        ToolError: an unknown mark, or another number of numbers.
    """
    drawn = picture.copy()
    pen, thick = ImageDraw.Draw(drawn), max(2, min(picture.size) // 40)
    if name == "box":
        pen.rectangle(read_box(name, numbers, picture.size, scale), outline=COLOR, width=thick)
    elif name == "line":
        pen.line(read_points(name, numbers, picture.size, scale, None), fill=COLOR, width=thick)
    elif name == "point":
        ((x, y),) = read_points(name, numbers, picture.size, scale, 1)
        pen.ellipse((x - 2 * thick, y - 2 * thick, x + 2 * thick, y + 2 * thick), fill=COLOR)
    else:
        raise ToolError(f"there is no mark {name!r}. Marks: box, line, point.")
    return drawn


def draw_edges(picture: PILImage.Image) -> PILImage.Image:
    """The edges of a picture, dark on white."""
    gray = ImageOps.expand(picture.convert("L"), 1, 0)  # the filter leaves the outermost pixels as they are
    edges = ImageOps.crop(gray.filter(ImageFilter.FIND_EDGES), 1)
    return ImageOps.invert(ImageOps.autocontrast(edges)).convert("RGB")


def draw_segments(picture: PILImage.Image, colors: int = 6) -> PILImage.Image:
    """A picture in few colors, each region of one color."""
    smooth = picture.convert("RGB").filter(ImageFilter.MedianFilter(3))
    return smooth.quantize(colors, dither=PILImage.Dither.NONE).convert("RGB")

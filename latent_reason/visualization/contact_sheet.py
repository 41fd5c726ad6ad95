"""Contact sheets: pictures and texts with captions, in rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

Cell = tuple[str, PILImage.Image | str | None]  # caption and content; "" and None leave the place empty

FONT_SIZE, LINE_HEIGHT, GAP = 13, 17, 8  # pixels
TEXT, CAPTION, RULE = (0, 0, 0), (100, 100, 100), (210, 210, 210)  # colors


def draw_sheet(rows: Sequence[Sequence[Cell]], tile: int = 128, text_width: int = 200) -> PILImage.Image:
    """Draw rows of cells under each other.

    Args:
        rows: each row is a list of (caption, content). An empty row becomes a horizontal rule.
        tile: longest side of a picture, in pixels. Pictures keep their proportions.
        text_width: width of a column of texts, in pixels. Longer texts wrap. A row is as high as its highest cell, so
            no text is cut.
    """
    font = ImageFont.load_default(FONT_SIZE)
    num_columns = max(map(len, rows))
    widths = [0] * num_columns
    for row in rows:
        for column, (_, content) in enumerate(row):
            widths[column] = max(widths[column], text_width if isinstance(content, str) else tile)
    blocks = [
        [
            (wrap_text(caption, font.getlength, width), fit_content(content, font, tile, width))
            for (caption, content), width in zip(row, widths, strict=False)
        ]
        for row in rows
    ]
    caption_heights = [LINE_HEIGHT * max((len(lines) for lines, _ in row), default=0) for row in blocks]
    content_heights = [max((measure_height(content) for _, content in row), default=0) for row in blocks]
    height = GAP + sum(caption_heights) + sum(content_heights) + GAP * len(rows)
    canvas = PILImage.new("RGB", (sum(widths) + GAP * (num_columns + 1), height), "white")
    pen, top = ImageDraw.Draw(canvas), GAP
    for block, caption_height, content_height in zip(blocks, caption_heights, content_heights, strict=True):
        if not block:
            pen.line((GAP, top, canvas.width - GAP, top), fill=RULE)
        left = GAP
        for (caption, content), width in zip(block, widths, strict=False):
            draw_lines(pen, (left, top), caption, font, CAPTION)
            if isinstance(content, PILImage.Image):
                canvas.paste(content, (left, top + caption_height))
            else:
                draw_lines(pen, (left, top + caption_height), content, font, TEXT)
            left += width + GAP
        top += caption_height + content_height + GAP
    return canvas


def fit_content(
    content: PILImage.Image | str | None, font: ImageFont.FreeTypeFont, tile: int, width: int
) -> PILImage.Image | list[str]:
    """A picture scaled to a longest side of ``tile`` pixels, or a text as lines of at most ``width`` pixels."""
    if isinstance(content, PILImage.Image):
        size = [max(1, round(side * tile / max(content.size))) for side in content.size]
        return content.convert("RGB").resize(size, PILImage.Resampling.BILINEAR)
    return wrap_text(content or "", font.getlength, width)


def measure_height(content: PILImage.Image | list[str]) -> int:
    """Height in pixels of a picture or of the lines of a text."""
    return content.height if isinstance(content, PILImage.Image) else LINE_HEIGHT * len(content)


def draw_lines(pen: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], font, color) -> None:
    """Draw lines of text under each other; ``corner`` (x, y) is the top left one."""
    x, y = corner
    for number, line in enumerate(lines):
        pen.text((x, y + LINE_HEIGHT * number), line, fill=color, font=font)


def wrap_text(text: str, measure: Callable[[str], float], width: float) -> list[str]:
    """Break a text into lines of at most ``width``, in the unit in which ``measure`` gives the width of a text. Line breaks of the text are kept. A word wider than a line
    is broken between characters."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and measure(longer) > width:
                lines.append(line)
                longer = word
            while len(longer) > 1 and measure(longer) > width:
                fitting = next(n for n in range(len(longer) - 1, 0, -1) if n == 1 or measure(longer[:n]) <= width)
                lines.append(longer[:fitting])
                longer = longer[fitting:]
            line = longer
        lines.append(line)
    return lines

"""One answer as a figure for a paper: steps from left to right, each text under its sketch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from PIL import Image as PILImage

from ..files import atomic_write_bytes
from .answer_view import AnswerView, SketchView
from .contact_sheet import wrap_text

FONT_SIZE, LINE = 7.0, 0.125  # points; inches from line to line
CELL, GAP, MARGIN = 1.12, 0.1, 0.06  # inches: side of a picture, between columns, around the figure
CAPTION, LABEL = 0.16, 0.34  # inches: above a picture, left of a row of pictures
BLUE, GREEN, RED, GRAY = "#0072B2", "#009E73", "#D55E00", "#666666"  # Okabe and Ito, colour-blind-safe
MARKS = {True: ("✓", GREEN), False: ("✗", RED)}


@dataclass(frozen=True)
class Column:
    """What stands in one column: a caption, the sketch of the model or a picture of the input, the true sketch, and text
    under them."""

    caption: str
    picture: PILImage.Image | None = None
    gold: PILImage.Image | None = None
    text: str = ""
    mark: bool | None = None
    frame: str = GRAY
    text_color: str = "black"


def arrange_columns(view: AnswerView) -> list[Column]:
    """The columns of an answer: the pictures of the question, each sketch with the text before it, and the last text."""
    images = [Column("input" if i == 0 else f"input {i + 1}", image) for i, image in enumerate(view.images)]
    if images:
        images[0] = Column("input", view.images[0], text=view.question, text_color=GRAY)
    else:
        images = [Column("question", text=view.question, text_color=GRAY)]
    columns, before = list[Column](), ""
    for step in view.steps:
        if isinstance(step, SketchView):
            kind = "sketch" if step.is_rendered else "latents"
            columns.append(
                Column(f"{kind} {step.number}", step.picture, step.gold, before.strip(), step.is_right, BLUE)
            )
            before = ""
        else:
            before += step
    gold = f"\n(gold: {view.gold_answer})" if view.gold_answer else ""
    columns.append(Column("answer", text=(before.strip() or "(none)") + gold, mark=view.is_right))
    return images + columns


def text_width(figure: Figure) -> Callable[[str], float]:
    """A function that measures a text in inches, as the figure will write it."""
    renderer, font = FigureCanvasAgg(figure).get_renderer(), FontProperties(size=FONT_SIZE)
    return lambda text: renderer.get_text_width_height_descent(text, font, ismath=False)[0] / figure.dpi


def draw_answer_figure(view: AnswerView, width: float = 7.0) -> Figure:
    """Draw an answer from left to right, in as many bands as the width in inches needs.

    Example:
        >>> figure = draw_answer_figure(view_answer(reasoner, decoder, ask(reasoner, trace)))
        >>> save_figure(figure, "answer.pdf")

    The sketch of the model has a blue frame, and the true sketch stands above it where it is known. A tick or a cross says
    whether sketch and answer are right.
    """
    columns = arrange_columns(view)
    has_gold = any(column.gold is not None for column in columns)
    left = MARGIN + (LABEL if has_gold else 0)
    a_band = max(1, int((width - left - MARGIN + GAP) / (CELL + GAP)))
    bands = [columns[i : i + a_band] for i in range(0, len(columns), a_band)]
    figure = Figure(figsize=(width, 1), dpi=200)
    measure = text_width(figure)
    texts = [[wrap_text(column.text, measure, CELL) for column in band] for band in bands]
    pictures = [any(column.picture is not None for column in band) for band in bands]
    heights = [
        CAPTION
        + (CELL + GAP if has_gold and shown else 0)
        + max(
            (CELL + 0.05 if column.picture is not None else 0) + LINE * len(lines)
            for column, lines in zip(band, text, strict=True)
        )
        + GAP
        for band, text, shown in zip(bands, texts, pictures, strict=True)
    ]
    total = sum(heights) + 2 * MARGIN
    used = min(a_band, len(columns))
    width = left + used * (CELL + GAP) - GAP + MARGIN
    figure.set_size_inches(width, total)
    top = MARGIN
    for band, text, height, shown in zip(bands, texts, heights, pictures, strict=True):
        _draw_band(figure, band, text, (left, top), (width, total), has_gold, shown)
        top += height
    return figure


def _draw_band(figure: Figure, band, texts, corner, size, has_gold: bool, has_pictures: bool) -> None:
    """Draw columns beside each other from ``corner`` (x, y from the top, inches) on a figure of ``size`` inches."""
    (left, top), (width, total) = corner, size

    def write(x: float, y: float, text: str, **options) -> None:
        given: dict[str, Any] = {"fontsize": FONT_SIZE, "va": "top", "ha": "left", "parse_math": False} | options
        figure.text(x / width, 1 - y / total, text, **given)

    below = top + CAPTION + (CELL + GAP if has_gold and has_pictures else 0)
    if has_gold and any(column.gold is not None for column in band):
        for y, name, color in ((top + CAPTION, "true", GRAY), (below, "model", BLUE)):
            write(left - 0.08, y + CELL / 2, name, rotation=90, va="center", ha="right", color=color)
    for number, (column, lines) in enumerate(zip(band, texts, strict=True)):
        x = left + number * (CELL + GAP)
        write(x, top, column.caption, color=GRAY)
        if column.mark is not None:
            mark, color = MARKS[column.mark]
            write(x + CELL, top, mark, ha="right", color=color, fontweight="bold", fontsize=FONT_SIZE + 1)
        for picture, y, frame in ((column.gold, top + CAPTION, GRAY), (column.picture, below, column.frame)):
            if picture is not None:
                _draw_picture(figure, picture, (x, y), size, frame)
        y = below + (CELL + 0.05 if column.picture is not None else 0)
        for line, text in enumerate(lines):
            write(x, y + line * LINE, text, color=column.text_color)


def _draw_picture(figure: Figure, picture: PILImage.Image, corner, size, frame: str) -> None:
    """Draw a picture centered in a square cell, with a frame."""
    (x, y), (width, total) = corner, size
    scale = CELL / max(picture.size)
    w, h = picture.width * scale, picture.height * scale
    x, y = x + (CELL - w) / 2, y + (CELL - h) / 2
    place = (x / width, 1 - (y + h) / total, w / width, h / total)
    axes = figure.add_axes(place)
    axes.imshow(picture.convert("RGB"), interpolation="nearest" if max(picture.size) < 128 else "antialiased")
    axes.axis("off")
    figure.patches.append(
        Rectangle(place[:2], *place[2:], transform=figure.transFigure, fill=False, edgecolor=frame, linewidth=0.9)
    )


#: endings of figures, and their formats
FIGURES = {".png": "png", ".pdf": "pdf", ".svg": "svg"}


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG, by the ending of its name. The same figure gives the same bytes."""
    path, data = Path(path), BytesIO()
    kind = FIGURES[path.suffix.lower()]
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    figure.savefig(data, format=kind, metadata=metadata)
    atomic_write_bytes(path, data.getvalue())


def as_png(figure: Figure) -> bytes:
    """The bytes of a figure as a PNG."""
    data = BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def as_pdf(views: Sequence[AnswerView], width: float = 7.0) -> bytes:
    """Figures of several answers as the bytes of a PDF, one a page."""
    data = BytesIO()
    with PdfPages(data, metadata={"CreationDate": None}) as pages:
        for view in views:
            pages.savefig(draw_answer_figure(view, width))
    return data.getvalue()


def stack_figures(views: Sequence[AnswerView], width: float = 7.0) -> PILImage.Image:
    """Figures of several answers under each other, as one picture."""
    pictures = [PILImage.open(BytesIO(as_png(draw_answer_figure(view, width)))).convert("RGB") for view in views]
    canvas = PILImage.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    y = 0
    for picture in pictures:
        canvas.paste(picture, (0, y))
        y += picture.height
    return canvas

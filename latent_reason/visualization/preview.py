"""Previews of data: contact sheets of items and of traces, and an encoded trace position by position."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image as PILImage
from rich.text import Text as StyledText

from ..model.processor import IMAGE, LATENT, EncodedExample, Vocabulary
from ..trace import Text, Trace
from .contact_sheet import draw_sheet

TILE, TEXT_WIDTH = 160, 230  # pixels


def draw_items(items: Sequence, max_pictures: int = 9) -> PILImage.Image:
    """Draw items of a task, one row for each: question and answer, the texts of its steps, its input pictures and its
    gold sketches. Input pictures and sketches together are at most ``max_pictures``."""
    rows = []
    for item in items:
        pictures = [(f"input, level {item.level}", picture) for picture in item.images]
        pictures += [(f"sketch {i}", step.sketch) for i, step in enumerate(item.steps, 1) if step.sketch is not None]
        answer = item.answer.replace(",", ", ")  # so that a long list wraps
        rows.append(
            [
                ("question and answer", f"{item.question} [{answer}]"),
                ("text", " | ".join(step.text for step in item.steps)),
                *pictures[:max_pictures],
            ]
        )
    return draw_sheet(rows, TILE, TEXT_WIDTH)


def draw_traces(traces: Sequence[Trace], max_pictures: int = 9) -> PILImage.Image:
    """Draw traces, one row for each: question and answer, the text of the last message, the input pictures and the
    sketches. Input pictures and sketches together are at most ``max_pictures``; long texts are shortened."""
    rows = []
    for trace in traces:
        *prompt, reply = trace.messages
        question, text = (
            " ".join(part.text for message in messages for part in message.content if isinstance(part, Text))
            for messages in (prompt, [reply])
        )
        pictures = [(f"input, {trace.split}", picture) for picture in trace.images()]
        pictures += [
            (f"sketch {i}", sketch.image) for i, sketch in enumerate(trace.sketches(), 1) if sketch.image is not None
        ]
        rows.append(
            [
                ("question and answer", f"{shorten(question, 300)} [{trace.answer}]"),
                ("text", shorten(text, 600)),
                *pictures[:max_pictures],
            ]
        )
    return draw_sheet(rows, TILE, TEXT_WIDTH)


def shorten(text: str, length: int) -> str:
    """The text, cut to ``length`` characters with an ellipsis where it is longer."""
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def list_texts(trace: Trace) -> list[str]:
    """The texts of all messages of a trace, in order."""
    return [part.text for message in trace.messages for part in message.content if isinstance(part, Text)]


def style_tokens(row: EncodedExample, vocabulary: Vocabulary) -> StyledText:
    """An encoded trace as styled text: tokens with a loss are green, latents blue, all others dim."""
    styled, start = StyledText(), 0
    while start < len(row.ids):
        kind, has_loss, stop = row.token_type[start], row.loss_weight[start] > 0, start + 1
        while stop < len(row.ids) and row.token_type[stop] == kind and (row.loss_weight[stop] > 0) == has_loss:
            stop += 1
        if kind == IMAGE:
            styled.append(f"[picture of {stop - start} tokens]", style="dim cyan")
        elif kind == LATENT:
            styled.append(f"[{stop - start} latents]", style="bold blue")
        else:
            text = vocabulary.tokenizer.decode(row.ids[start:stop])
            styled.append(text, style="bold green" if has_loss else "dim")
        start = stop
    return styled

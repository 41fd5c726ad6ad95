"""Tasks and traces as a person wants to see them: a contact sheet of items, one trace position by position."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image as PILImage
from rich.text import Text as Coloured

from ..model.processor import IMAGE, LATENT, EncodedExample, Vocabulary
from ..trace import Text, Trace
from .sketch_decoder import sheet


def items_sheet(items: Sequence, most: int = 9) -> PILImage.Image:
    """One line an item of a task: question and answer, the words of its steps, its pictures and gold sketches (at most
    ``most`` of both)."""
    lines = []
    for item in items:
        pictures = [(f"problem, level {item.level}", p) for p in item.images]
        pictures += [(f"sketch {i}", s.sketch) for i, s in enumerate(item.steps, 1) if s.sketch is not None]
        answer = item.answer.replace(",", ", ")  # a long list has to wrap
        lines.append(
            [
                ("question and answer", f"{item.question} [{answer}]"),
                ("words", " | ".join(step.text for step in item.steps)),
                *pictures[:most],
            ]
        )
    return sheet(lines, tile=160, text_width=230)


def traces_sheet(traces: Sequence[Trace], most: int = 9) -> PILImage.Image:
    """One line a trace: what is asked and the answer, the words of its reply, its pictures and sketches (at most
    ``most`` of both)."""
    lines = []
    for trace in traces:
        *asked, last = trace.messages
        question, words = (
            " ".join(part.text for message in some for part in message.content if isinstance(part, Text))
            for some in (asked, [last])
        )
        pictures = [(f"picture, {trace.split}", picture) for picture in trace.images()]
        pictures += [(f"sketch {i}", s.image) for i, s in enumerate(trace.sketches(), 1) if s.image is not None]
        lines.append(
            [("question and answer", f"{question[:300]} [{trace.answer}]"), ("words", words[:600]), *pictures[:most]]
        )
    return sheet(lines, tile=160, text_width=230)


def words_of(trace: Trace) -> list[str]:
    return [part.text for m in trace.messages for part in m.content if isinstance(part, Text)]


def coloured(row: EncodedExample, vocabulary: Vocabulary) -> Coloured:
    """An encoded trace as a model is taught it: words with a loss green, latents blue, all else dim."""
    shown, at = Coloured(), 0
    while at < len(row.ids):
        kind, taught, stop = row.token_type[at], row.loss_weight[at] > 0, at + 1
        while stop < len(row.ids) and row.token_type[stop] == kind and (row.loss_weight[stop] > 0) == taught:
            stop += 1
        if kind == IMAGE:
            shown.append(f"[picture of {stop - at} tokens]", style="dim cyan")
        elif kind == LATENT:
            shown.append(f"[{stop - at} latents]", style="bold blue")
        else:
            shown.append(vocabulary.tokenizer.decode(row.ids[at:stop]), style="bold green" if taught else "dim")
        at = stop
    return shown

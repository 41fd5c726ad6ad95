"""What a rollout looks like to a person: its sketches drawn beside the gold ones, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image as PILImage

from ..decoding.engine import Rollout, Span
from ..trace import Trace
from .sketch_decoder import sheet


def own_sketches(reasoner, decoder, rollout: Rollout, row: int, picture: PILImage.Image) -> list[PILImage.Image]:
    """The pictures a model drew in one row; ``picture`` is the input they are as large as."""
    size = reasoner.backbone.token_grid(picture)
    return [decoder.draw(rollout.latents(s), s.grid, size) for s in rollout.spans_of(row)]


def texts_between(rollout: Rollout, row: int, vocabulary) -> list[str]:
    """Words before each span of a row, then the words after the last one."""
    texts = [""]
    for piece in rollout.segments(row, vocabulary):
        if isinstance(piece, Span):
            texts.append("")
        else:
            texts[-1] += piece
    return texts


def decoded_target(reasoner, decoder, picture: PILImage.Image) -> PILImage.Image:
    """A picture through the target encoder and back: the best any drawn sketch can look."""
    looked = reasoner.processor.preprocess_sketches([picture]).to(reasoner.device)
    size = reasoner.backbone.token_grid(picture)
    grid = reasoner.target.latent_grid(*size)
    return decoder.draw(reasoner.target.encode_embeddings(looked, [grid])[0], grid, size)


def storyboard(reasoner, decoder, traces: Sequence[Trace], rollout: Rollout, tile: int = 128) -> PILImage.Image:
    """One line a step: input, gold sketch, decoded target, decoded own sketch, words. Gold stops where the gold trace
    does, own where the model's does."""
    lines = []
    for row, trace in enumerate(traces):
        picture = trace.images()[-1]
        gold, own = trace.sketches(), own_sketches(reasoner, decoder, rollout, row, picture)
        texts = texts_between(rollout, row, reasoner.vocabulary)
        for step in range(max(len(texts), len(gold))):
            line = [("input" if step == 0 else "", picture if step == 0 else None)]
            shown = gold[step].image if step < len(gold) else None
            line.append(("gold sketch" if shown else "", shown))
            line.append(("decoded target" if shown else "", shown and decoded_target(reasoner, decoder, shown)))
            drawn = own[step] if step < len(own) else None
            line.append(("own sketch" if drawn else "", drawn))
            words = texts[step] if step < len(texts) else ""
            if step == 0:
                words += f" (gold answer: {trace.answer})"
            lines.append([*line, (f"words, step {step + 1}", words)])
    return sheet(lines, tile=tile)

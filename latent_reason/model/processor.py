"""Processor: examples people read -> one MixedBatch. It owns tokenizer, image geometry and span grids.

It is the only bridge between :class:`~latent_reason.trace.Trace` and tensors, as a Hugging Face processor is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from PIL import Image as PILImage

from ..trace import Image, Message, Sketch, Text, Trace
from .batch import ImageBatch, MixedBatch
from .switching import Switch
from .tokenization import IMAGE, LATENT, PAD, TEXT, Vocabulary

if TYPE_CHECKING:
    from .backbones.base import Backbone
    from .targets import LatentTarget


@dataclass(frozen=True)
class CachedFeatures:
    """An image that a frozen vision encoder has encoded: patch grid (3,) and features (T, D) in half precision."""

    grid: torch.Tensor
    features: torch.Tensor


@dataclass
class EncodedExample:
    """One encoded example: parallel lists over positions, then its images and spans in order of appearance."""

    ids: list[int] = field(default_factory=list)
    token_type: list[int] = field(default_factory=list)
    loss_weight: list[float] = field(default_factory=list)
    images: list[PILImage.Image] = field(default_factory=list)
    sketches: list[PILImage.Image | None] = field(default_factory=list)  # None for a span that no image teaches
    spans: list[tuple[int, int, int]] = field(default_factory=list)  # start, grid height, grid width
    span_weight: list[float] = field(default_factory=list)
    boxes: list[tuple] = field(default_factory=list)  # image of the row before a span (-1: none), x0, y0, x1, y1
    image_features: list[CachedFeatures] | None = None  # in place of images, after a feature cache
    sketch_features: list[CachedFeatures | None] | None = None  # in place of sketches
    document_lengths: list[tuple[int, int]] = field(default_factory=list)  # packed: length and images of each example
    teacher_example: EncodedExample | None = None  # the same example as a teacher reads it

    @property
    def num_images(self) -> int:
        return len(self.images if self.image_features is None else self.image_features)

    @property
    def num_sketches(self) -> int:
        return len(self.sketches if self.sketch_features is None else self.sketch_features)


class Processor:
    """Encodes traces and collates them into batches.

    Example:
        >>> batch = reasoner.processor([trace], generate=True)  # prompts, ready to be continued
        >>> rollout = generate(reasoner, batch.to(reasoner.device))

    Without ``switch``, spans have the number of latents of their target. ``system_prompt`` is the system turn of traces
    that have none.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        backbone: Backbone,
        target: LatentTarget | None,
        switch: Switch | None = None,
        system_prompt: str = "",
    ):
        self.vocabulary, self.backbone, self.target, self.switch = vocabulary, backbone, target, switch or Switch()
        self.system_prompt = system_prompt

    def __call__(self, traces: Sequence[Trace], *, generate: bool = False) -> MixedBatch:
        """Traces -> MixedBatch on the CPU. ``generate`` drops the last assistant turn of each and ends with its header."""
        batch = self.collate([self.encode(trace, generate=generate) for trace in traces])
        return replace(batch, positions=self.backbone.position_ids(batch))

    def encode(self, trace: Trace, *, generate: bool = False) -> EncodedExample:
        """Encode one trace.

        Raises:
            ValueError: a part of a message is neither Text, Image nor Sketch.
        """
        row, layout, v = EncodedExample(), self.vocabulary.layout, self.vocabulary

        def put(ids: list[int], weight: float = 0.0, token_type: int = TEXT) -> None:
            row.ids += ids
            row.token_type += [token_type] * len(ids)
            row.loss_weight += [weight] * len(ids)

        put(v.encode_text(layout.begin))
        messages = (trace.prompt() if generate else trace).messages
        if self.system_prompt and "system" not in [message.role for message in messages[:1]]:
            messages = (Message("system", (Text(self.system_prompt),)), *messages)
        for message in messages:
            weight = float(message.role == "assistant")
            is_untaught = {p.loss for p in message.content if isinstance(p, Text)} == {0}
            put(v.encode_text(layout.header(message.role)))
            for part in message.content:
                if isinstance(part, Text):
                    put(v.encode_text(part.text, plain=True), weight if part.loss is None else part.loss)
                elif isinstance(part, Image):
                    for mark, positions in self.backbone.image_layout(part.image):
                        put(v.encode_text(mark))
                        put([v.image] * positions, token_type=IMAGE)
                    row.images.append(part.image)
                elif isinstance(part, Sketch):
                    h, w = self.span_grid(part, row.images[-1] if row.images else None)
                    put([v.open], weight if part.loss and self.switch.open_loss else 0.0)
                    row.spans.append((len(row.ids), h, w))
                    row.span_weight.append(part.loss)
                    row.boxes.append((len(row.images) - 1, *(part.box or (0.0, 0.0, 1.0, 1.0))))
                    put([v.latent] * (h * w), token_type=LATENT)
                    put([v.close])  # the stop is learned by the two-way stop loss, never by the text loss
                    row.sketches.append(part.image)
                else:
                    raise ValueError(
                        f"trace '{trace.id}': a message contains {part!r}. Its parts must be Text, Image or Sketch."
                    )
            put([v.end], 0.0 if is_untaught else weight)
            put(v.encode_text(layout.after))
        if generate:
            put(v.encode_text(layout.header("assistant")))
        return row

    def span_grid(self, sketch: Sketch, image: PILImage.Image | None) -> tuple[int, int]:
        """Grid (h, w) of the latents that stand for a sketch after ``image``: its own where the model learns to stop,
        else the planned one, as in decoding."""
        own = self.own_grid(sketch, image)
        return own if self.switch.stop != "count" else self.planned_grid(self._size(image))

    def own_grid(self, sketch: Sketch, image: PILImage.Image | None) -> tuple[int, int]:
        """The grid that a sketch would have by itself: of its image, or of its number ``k``."""
        if sketch.image is not None and self.target is not None:
            return self.target.span_grid(sketch, image)
        return (1, sketch.k) if sketch.k else self.planned_grid(self._size(image))

    def planned_grid(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """The grid of the latents of a span after an image of ``size`` tokens (None: after no image)."""
        if self.target is None:
            return 1, self.switch.count or 1
        if self.switch.count:  # a fixed number, near a square
            return self.target.latent_grid(self.switch.count, self.switch.count, self.switch.count)
        side = self.target.standardizer.side
        return (side, side) if size is None else self.target.latent_grid(*size)

    def _size(self, image: PILImage.Image | None) -> tuple[int, int] | None:
        return None if image is None else self.backbone.token_grid(image)

    def collate(self, rows: Sequence[EncodedExample]) -> MixedBatch:
        """Left-pad encoded examples into one batch on the CPU, without position ids. For training see
        :func:`~latent_reason.objectives.packing.collate_examples`.

        Raises:
            ValueError: a row has spans without sketches, or only some sketches of the batch have an image, or only
                some rows have cached features.
        """
        for i, row in enumerate(rows):
            if len(row.spans) != row.num_sketches:
                raise ValueError(f"row {i}: {len(row.spans)} spans but {row.num_sketches} sketches.")
        width = max(len(row.ids) for row in rows)

        def table(name: str, fill: float, dtype: torch.dtype) -> torch.Tensor:
            padded = [[fill] * (width - len(row.ids)) + getattr(row, name) for row in rows]
            return torch.tensor(padded, dtype=dtype)

        spans = [(i, start + width - len(row.ids), h, w) for i, row in enumerate(rows) for start, h, w in row.spans]
        boxes, first = [], 0
        for row in rows:
            boxes += [(first + image if image >= 0 else -1, *box) for image, *box in row.boxes]
            first += row.num_images
        return MixedBatch(
            ids=table("ids", self.vocabulary.pad, torch.long),
            token_type=table("token_type", PAD, torch.long),
            loss_weight=table("loss_weight", 0.0, torch.float32),
            spans=torch.tensor(spans, dtype=torch.long).reshape(-1, 4),
            span_weight=torch.tensor([w for row in rows for w in row.span_weight], dtype=torch.float32),
            images=self._images(rows),
            sketches=self._sketches(rows),
            image_rows=[i for i, row in enumerate(rows) for _ in range(row.num_images)],
            boxes=boxes,
        )

    def preprocess_sketches(self, images: list[PILImage.Image]) -> ImageBatch:
        """Images of sketches as the target's encoder takes them."""
        encoder = self.backbone if self.target is None else self.target
        return encoder.preprocess_images(images, tiled=False)

    def _images(self, rows: Sequence[EncodedExample]) -> ImageBatch | None:
        images = [image for row in rows for image in row.images]
        return self.backbone.preprocess_images(images) if images else None

    def _sketches(self, rows: Sequence[EncodedExample]) -> ImageBatch | None:
        found = [sketch for row in rows for sketch in row.sketches]
        check_all_or_none(found)
        return self.preprocess_sketches(found) if found and found[0] is not None else None


def check_all_or_none(sketches: Sequence[object | None]) -> None:
    """Raises ValueError if only some sketches have an image, or features of one."""
    if (count := sum(s is not None for s in sketches)) not in (0, len(sketches)):
        raise ValueError(f"{count} of {len(sketches)} sketches of a batch have an image. All of them must, or none.")

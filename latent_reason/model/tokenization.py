"""Control tokens and prompt layout on any tokenizer. The only place that knows an id.

Every method speaks of three roles: ``open`` a span of latents, ``latent`` (the placeholder that stands at a latent's
position) and ``close``. Their ids come from the tokenizer at hand; nothing in this project writes an id down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..trace import Image, Sketch, Text, Trace

PAD, TEXT, IMAGE, LATENT = range(4)  # what stands at a position


@dataclass(frozen=True)
class Layout:
    """The strings a model family puts around turns and pictures (defaults: ChatML as in Qwen-VL). ``roles`` are its
    names for ours; ``trailing`` picture positions follow the grid of a picture's tokens; ``tile`` stands before each
    tile of a picture that is cut up."""

    begin: str = ""
    turn: str = "<|im_start|>{role}\n"
    end: str = "<|im_end|>"
    after: str = "\n"
    image_open: str = "<|vision_start|>"
    image: str = "<|image_pad|>"
    image_close: str = "<|vision_end|>"
    tile: str = ""
    trailing: int = 0
    pad: str = "<|endoftext|>"
    roles: dict[str, str] = field(default_factory=dict)

    def header(self, role: str) -> str:
        return self.turn.format(role=self.roles.get(role, role))


@dataclass(frozen=True)
class Roles:
    """The strings of the three control tokens of a method."""

    open: str = "<|sketch_start|>"
    latent: str = "<|sketch|>"
    close: str = "<|sketch_end|>"


@dataclass
class Row:
    """One encoded trace: parallel lists over positions, then its pictures and spans in order of appearance."""

    ids: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    images: list = field(default_factory=list)
    sketches: list = field(default_factory=list)  # None for a thought without a picture
    spans: list[tuple[int, int, int]] = field(default_factory=list)  # start, grid height, grid width
    span_weight: list[float] = field(default_factory=list)
    boxes: list[tuple] = field(default_factory=list)  # picture of the row before a span (-1: none), x0, y0, x1, y1
    documents: list[tuple[int, int]] = field(default_factory=list)  # length and pictures of each trace packed into it
    told: Row | None = None  # the same trace as a teacher reads it


class Vocabulary:
    """A tokenizer with the control tokens of a method added to it.

    Adding is idempotent, so a reloaded tokenizer keeps its ids. ``added`` lists the ids that are new to the model.

    Raises:
        ValueError: the tokenizer lacks a token the layout names.
    """

    def __init__(self, tokenizer, layout: Layout | None = None, roles: Roles | None = None):
        self.tokenizer, self.layout, self.roles = tokenizer, layout or Layout(), roles or Roles()
        before = len(tokenizer)
        tokenizer.add_tokens([self.roles.open, self.roles.latent, self.roles.close], special_tokens=True)
        self.added = list(range(before, len(tokenizer)))
        self.open, self.latent, self.close = (
            self.id(t) for t in (self.roles.open, self.roles.latent, self.roles.close)
        )
        self.image, self.end, self.pad = (
            self.id(t) for t in (self.layout.image, self.layout.end, tokenizer.pad_token or self.layout.pad)
        )
        marks = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        #: ids a model may never write as text: all marks but the end of a turn and the opening of a span
        self.silent = sorted((marks | {self.image, self.pad, self.latent, self.close}) - {self.end, self.open})

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def control_tokens(self) -> dict[str, list]:
        """Role -> [token, id]: what a checkpoint says of them."""
        return {role: [getattr(self.roles, role), getattr(self, role)] for role in ("open", "latent", "close")}

    def id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or (found == self.tokenizer.unk_token_id and token != self.tokenizer.unk_token):
            raise ValueError(f"the tokenizer has no token {token!r}. Use the layout of this model family.")
        return found

    def words(self, text: str, *, plain: bool = False) -> list[int]:
        """Ids of a text. ``plain`` reads what looks like a control token as the letters it is made of: nobody's data
        can open a span or end a turn."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]

    def text(self, ids: Sequence[int]) -> str:
        """Words only: control tokens, placeholders and ends are left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def kinds(self, ids: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N) what stands at the positions of rows that were laid out by this vocabulary; ``there`` (B, N) marks
        what is no padding (None: all)."""
        kind = torch.full_like(ids, TEXT).masked_fill(ids == self.image, IMAGE).masked_fill(ids == self.latent, LATENT)
        return kind if there is None else kind.masked_fill(~there.bool(), PAD)

    def forbidden(self, *, open_too: bool, size: int, device=None) -> torch.Tensor:
        """(V,) bool: what may not be sampled as text. ``size`` is the width of the logits (padding included)."""
        mask = torch.zeros(size, dtype=torch.bool, device=device)
        mask[self.silent] = True
        mask[len(self) :] = True
        mask[self.open] = open_too
        return mask

    def encode(self, trace: Trace, laid: Callable, span_grid: Callable, *, generate: bool = False) -> Row:
        """Lay a trace out as one row.

        ``laid(picture) -> [(mark, positions), ...]`` is how a picture stands there (:meth:`Backbone.laid`), and
        ``span_grid(sketch, seen) -> (h', w')`` the grid of latents a sketch becomes after the last picture seen (None:
        there is none). ``generate`` drops the last assistant turn and ends with its header, ready to be continued.

        Raises:
            ValueError: a part that is neither Text, Image nor Sketch; it would be left out without a word.
        """
        row, layout = Row(), self.layout

        def put(ids, weight=0.0, kind=TEXT):
            row.ids += ids
            row.kind += [kind] * len(ids)
            row.weight += [weight] * len(ids)

        put(self.words(layout.begin))
        messages = trace.prompt().messages if generate else trace.messages
        for message in messages:
            role = message.role
            spoken = 1.0 if role == "assistant" else 0.0
            put(self.words(layout.header(role)))
            for part in message.content:
                if isinstance(part, Text):
                    put(self.words(part.text, plain=True), spoken if part.loss is None else part.loss)
                elif isinstance(part, Image):
                    for mark, positions in laid(part.image):
                        put(self.words(mark))
                        put([self.image] * positions, kind=IMAGE)
                    row.images.append(part.image)
                elif isinstance(part, Sketch):
                    seen = row.images[-1] if row.images else None
                    h, w = (1, part.k) if part.image is None else span_grid(part, seen)
                    put([self.open], spoken)
                    row.spans.append((len(row.ids), h, w))
                    row.span_weight.append(part.loss)
                    row.boxes.append((len(row.images) - 1, *(part.box or (0.0, 0.0, 1.0, 1.0))))
                    put([self.latent] * (h * w), kind=LATENT)
                    put([self.close])  # a stop is learnt by the two-way stop loss, never by the text loss
                    row.sketches.append(part.image)
                else:
                    raise ValueError(
                        f"trace '{trace.id}': a message holds {part!r}. Its parts are Text, Image or Sketch."
                    )
            put([self.end], spoken)
            put(self.words(layout.after))
        if generate:
            put(self.words(layout.header("assistant")))
        return row

"""Control tokens and prompt layout on any tokenizer. Only this module knows a token id.

Every method uses three control tokens: ``open`` starts a span of latents, ``latent`` is the placeholder at a latent's
position, ``close`` ends the span. Their ids come from the tokenizer at hand; no id is written down in this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

PAD, TEXT, IMAGE, LATENT = range(4)  # token types: what stands at a position


@dataclass(frozen=True)
class Layout:
    """The strings a model family puts around turns and images (defaults: ChatML as in Qwen-VL).

    ``roles`` maps our role names to the family's. ``trailing`` image positions follow the token grid of an image.
    ``tile`` stands before each tile of an image that is split into tiles.
    """

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
        """The string that opens a turn of ``role``."""
        return self.turn.format(role=self.roles.get(role, role))


@dataclass(frozen=True)
class ControlTokens:
    """The strings of the three control tokens."""

    open: str = "<|sketch_start|>"
    latent: str = "<|sketch|>"
    close: str = "<|sketch_end|>"


class Vocabulary:
    """A tokenizer with the control tokens added to it.

    Adding is idempotent, so a reloaded tokenizer keeps its ids. ``added`` lists the ids that are new to the model.
    ``suppress_tokens`` are ids that a model may never generate as text: all special tokens except the end of a turn
    and the opening of a span.

    Raises:
        ValueError: the tokenizer lacks a token that the layout names.
    """

    def __init__(self, tokenizer, layout: Layout | None = None, tokens: ControlTokens | None = None):
        self.tokenizer, self.layout, self.tokens = tokenizer, layout or Layout(), tokens or ControlTokens()
        size = len(tokenizer)
        tokenizer.add_tokens([self.tokens.open, self.tokens.latent, self.tokens.close], special_tokens=True)
        self.added = list(range(size, len(tokenizer)))
        self.open, self.latent, self.close = map(
            self.token_id, (self.tokens.open, self.tokens.latent, self.tokens.close)
        )
        self.image, self.end = self.token_id(self.layout.image), self.token_id(self.layout.end)
        self.pad = self.token_id(tokenizer.pad_token or self.layout.pad)
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        suppressed = (special | {self.image, self.pad, self.latent, self.close}) - {self.end, self.open}
        self.suppress_tokens = sorted(suppressed)

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def control_tokens(self) -> dict[str, list]:
        """Role -> [token, id], as a checkpoint records them."""
        return {role: [getattr(self.tokens, role), getattr(self, role)] for role in ("open", "latent", "close")}

    def token_id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or (found == self.tokenizer.unk_token_id and token != self.tokenizer.unk_token):
            raise ValueError(f"the tokenizer has no token {token!r}. Use the layout of this model family.")
        return found

    def encode_text(self, text: str, *, plain: bool = False) -> list[int]:
        """Ids of a text. With ``plain``, strings that look like control tokens are encoded letter by letter, so that
        no data can open a span or end a turn."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def ends_sentence(self) -> list[bool]:
        """Whether the text of each id ends with a full stop."""
        return [self.decode([i]).rstrip().endswith(".") for i in range(len(self))]

    def token_types(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N) token types of ids (B, N). ``mask`` (B, N) is False or 0 at padding; None: there is none."""
        kind = torch.full_like(ids, TEXT).masked_fill(ids == self.image, IMAGE).masked_fill(ids == self.latent, LATENT)
        return kind if mask is None else kind.masked_fill(~mask.bool(), PAD)

    def forbidden_mask(self, *, forbid_open: bool, size: int, device: torch.device | None = None) -> torch.Tensor:
        """(V,) bool: ids that may not be generated as text. ``size`` is the width of the logits (padding included)."""
        mask = torch.zeros(size, dtype=torch.bool, device=device)
        mask[self.suppress_tokens] = True
        mask[len(self) :] = True
        mask[self.open] = forbid_open
        return mask

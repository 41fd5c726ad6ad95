"""The interface of a latent head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..arguments import KeepsArguments


@dataclass
class HeadContext:
    """What a head may read besides the state before a latent.

    ``image_tokens`` (R, T, D) are the image tokens of every row, ``image_mask`` (R, T) marks those that exist, and the
    last ``last_image_length`` (R,) of them belong to the row's last image. While latents are drawn one after the
    other, ``rows`` (n,) and ``slot`` (n,) say which latents they are, ``states`` (R, L, D) are the states of every row
    so far, ``text_mask`` (R, L) marks those of the text since its last span, and ``memory`` keeps what the head stores
    between calls. ``places`` are row and slot of these latents as numbers, where the host knows them.
    """

    image_tokens: torch.Tensor
    image_mask: torch.Tensor
    last_image_length: torch.Tensor
    rows: torch.Tensor | None = None
    slot: torch.Tensor | None = None
    states: torch.Tensor | None = None
    text_mask: torch.Tensor | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    places: list[tuple[int, int]] | None = None

    def for_rows(
        self,
        rows: torch.Tensor,
        slot: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        places: list[tuple[int, int]] | None = None,
    ) -> HeadContext:
        """The same for latents of these rows, with the states so far where they are given. The memory is shared."""
        states, text_mask = (self.states, self.text_mask) if states is None else (states, text_mask)
        return replace(self, rows=rows, slot=slot, states=states, text_mask=text_mask, places=places)

    def host_places(self) -> list[tuple[int, int]]:
        """Row and slot of each latent as numbers; they are read from the device where they are not known."""
        if self.places is None:
            assert self.rows is not None and self.slot is not None  # it is for latents
            return list(zip(self.rows.tolist(), self.slot.tolist(), strict=True))
        return self.places

    def select(self, index: torch.Tensor) -> HeadContext:
        """The context of other rows, with memory of their own."""
        return HeadContext(self.image_tokens[index], self.image_mask[index], self.last_image_length[index])

    def put(self, index: torch.Tensor, other: HeadContext) -> None:
        """Replace the rows at ``index`` by all of ``other``. The head resets what it stores of them."""
        longest = max(self.image_mask.shape[1], other.image_mask.shape[1])
        for name in ("image_tokens", "image_mask", "last_image_length"):
            mine, theirs = (
                F.pad(x, (0, 0) * (x.ndim - 2) + (0, longest - x.shape[1])) if x.ndim > 1 else x
                for x in (getattr(self, name), getattr(other, name))
            )
            setattr(self, name, mine.index_copy(0, index, theirs))

    def to(self, dtype: torch.dtype) -> HeadContext:
        """The same in another precision. The memory is shared."""
        states = None if self.states is None else self.states.to(dtype)
        return replace(self, image_tokens=self.image_tokens.to(dtype), states=states)

    def for_spans(self, rows: torch.Tensor, states: torch.Tensor, text_mask: torch.Tensor) -> HeadContext:
        """A context with memory of its own for each of ``rows`` (S,), which may repeat."""
        return HeadContext(
            self.image_tokens[rows],
            self.image_mask[rows],
            self.last_image_length[rows],
            states=states,
            text_mask=text_mask,
        )

    def tokens_of_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Image tokens (n, T, D) of the rows drawn for, and a padding mask (n, T), True where a token is missing. A
        row without images attends to zeros, because attention over nothing is undefined."""
        mask = self.image_mask[self.rows]
        return self.image_tokens[self.rows], ~mask & mask.any(1, keepdim=True)


class LatentHead(KeepsArguments, nn.Module, ABC):
    """Draws latents of width Z from states of width D. A head is :meth:`loss` and :meth:`sample`.

    Heads that work ``in_hidden_space`` draw in the space of the backbone's own states. Training normalizes what they
    draw before the loss, and it is fed back as it is, or times the one number of
    :meth:`~latent_reason.model.reasoner.LatentReasoner.scale_latents`. Other heads work in the target's normalized space.
    """

    in_hidden_space: bool = False
    is_stochastic: bool = False  # whether a draw is random
    needs_context: bool = False  # whether it reads more than the state; it then gets a HeadContext
    is_constant: bool = False  # whether its latents depend on no state, but at most on their slot
    reads_slot: bool = False  # whether it reads the place in the span; ``sample`` then takes ``slot`` (n,)
    draws_whole_span: bool = False  # whether the state before a span decides all of it; it then has ``draw_span``

    def __init__(self, width: int, latent_width: int):
        super().__init__()
        self.width, self.latent_width = width, latent_width

    def cast_inputs(self, h: torch.Tensor, context: HeadContext | None) -> tuple[torch.Tensor, HeadContext | None]:
        """States and context in the precision of the head, which stays in fp32 on a backbone in bf16."""
        dtype = next((p.dtype for p in self.parameters()), h.dtype)
        return h.to(dtype), context and context.to(dtype)

    @abstractmethod
    def sample(
        self, h: torch.Tensor, context: HeadContext | None = None, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """States (n, D), their context and standard normal noise (n, Z) -> latents (n, Z)."""

    def draw_span(self, h: torch.Tensor, length: int, context: HeadContext | None = None) -> torch.Tensor:
        """States (n, D) before the first latents of spans, in the precision of the head -> all their latents (n, length,
        Z). ``context`` names the rows of the spans. Only a head that ``draws_whole_span`` has it."""
        raise NotImplementedError(f"{type(self).__name__} draws a span latent by latent.")

    def reset_memory(self, memory: dict[str, Any], rows: torch.Tensor) -> None:
        """Forget what :meth:`sample` has stored of ``rows`` (n,), which are other rows now."""

    def sampling_constants(self) -> torch.Tensor | None:
        """What :meth:`sample` computes from the weights alone. If it is no None, decoding computes it once and passes it
        to ``sample`` as ``constants``."""
        return None

    def loss(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """States (n, D) and targets (n, Z) -> losses (n,), in fp32."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of single latents.")

    def span_loss(
        self,
        h: torch.Tensor,
        z: torch.Tensor,
        places: tuple[torch.Tensor, torch.Tensor],
        context: HeadContext | None,
    ) -> torch.Tensor:
        """States (S, K, D) and targets (S, K, Z) of whole spans -> losses (n,) of the n latents that there are.
        ``places`` are their spans (n,) and slots (n,)."""
        return self.loss(h[places], z[places])

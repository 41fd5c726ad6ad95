"""The interface of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import nn


@dataclass
class Context:
    """What a head that ``reads`` may look at beside the state before a latent.

    ``seen`` (R, T, D) are the picture tokens of every row, ``there`` (R, T) which of them exist, and the ``last`` (R,)
    of them are those of its last picture. While latents are drawn one after the other, ``rows`` (n,) and ``slot`` (n,)
    say whose and which they are, ``states`` (R, L, D) are the states of every row so far, of which ``said`` (R, L)
    belong to the words since its last span, and ``memory`` is the head's to keep things in from call to call.
    """

    seen: torch.Tensor
    there: torch.Tensor
    last: torch.Tensor
    rows: torch.Tensor | None = None
    slot: torch.Tensor | None = None
    states: torch.Tensor | None = None
    said: torch.Tensor | None = None
    memory: dict = field(default_factory=dict)

    def at(self, rows: torch.Tensor, slot: torch.Tensor | None = None) -> Context:
        """The same for latents of these rows; the memory is shared."""
        return replace(self, rows=rows, slot=slot)

    def to(self, dtype: torch.dtype) -> Context:
        """The same tokens and states in another precision; the memory is shared."""
        return replace(self, seen=self.seen.to(dtype), states=None if self.states is None else self.states.to(dtype))

    def spread(self, rows: torch.Tensor, states: torch.Tensor, said: torch.Tensor) -> Context:
        """A context of its own, with ``states`` and ``said``, for each of ``rows`` (S,), which may repeat."""
        return Context(self.seen[rows], self.there[rows], self.last[rows], states=states, said=said)

    def pictures(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (n, T, D) of the rows drawn for, and which of them are missing (n, T); a row without any looks at
        zeros, because nothing can be attended to where all is missing."""
        there = self.there[self.rows]
        return self.seen[self.rows], ~there & there.any(1, keepdim=True)


class LatentHead(nn.Module, ABC):
    """Draws latents of width Z from states of width D. All else hides behind ``loss`` and ``sample``.

    ``raw`` heads draw in the space of the backbone's own states; the reasoner standardises what they draw before the
    loss and feeds it back as it is. The others live in the standardised space. A head that ``reads`` takes a
    :class:`Context` after the noise and overrides :meth:`span_loss` where a latent depends on those before it.
    """

    raw: bool = False
    noise: bool = False  # whether a draw is random
    reads: bool = False  # whether it looks at more than the state

    def __init__(self, width: int, latent: int):
        super().__init__()
        self.width, self.latent = width, latent

    def taken(self, h: torch.Tensor, context: Context | None) -> tuple[torch.Tensor, Context | None]:
        """States and context in the precision of the head, which stays in fp32 on a backbone in bf16."""
        dtype = next((p.dtype for p in self.parameters()), h.dtype)
        return h.to(dtype), context and context.to(dtype)

    @abstractmethod
    def loss(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """States (n, D) and targets (n, Z) -> losses (n,), in fp32."""

    def span_loss(self, h: torch.Tensor, z: torch.Tensor, mask: torch.Tensor, context: Context | None) -> torch.Tensor:
        """States (S, K, D) and targets (S, K, Z) of whole spans -> losses (n,) of the n slots of ``mask`` (S, K)."""
        return self.loss(h[mask], z[mask])

    @abstractmethod
    def sample(self, h: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """States (n, D) and standard normal noise (n, Z) -> latents (n, Z)."""

"""When a span of latents starts and stops: the switch, which is saved with the weights, and its state for each row.

The model opens a span by a control token, or one span comes before every answer. A span closes at a fixed count, or by
the model's own two-way decision with a cap. No text logits are used inside a span: with them, an untrained model would
open again and the span would never end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

WRITING, DRAWING, DONE = range(3)


@dataclass(frozen=True)
class Switch:
    """Rules for starting and stopping spans.

    Args:
        start: ``token`` (the model generates the open token), ``first`` (one span before every answer and no other) or
            ``rule`` (a span after every sentence; Latent Sketchpad 2510.24514).
        count: number of latents of a span; 0: it follows from the image.
        stop: ``count`` (after the planned number of latents), ``close`` (the model decides, from ``min_latents`` on and
            at most ``cap`` times the planned number) or ``distance`` (within the same limits, once the state is as
            close to the close token's embedding as ``near``, in mean square; LVR 2509.24251).
        supervise: supervision of the stop: ``none``, ``end_only`` (only at the last slot, so nothing teaches "not yet";
            SkiLa, SwimBird) or ``full``.
        max_spans: the most spans of a row.
        open_loss: whether the open token has a text loss. It need not have one where no model generates it.

    Raises:
        ValueError: an unknown value, or a learned stop without supervision.
    """

    start: str = "token"
    count: int = 0
    stop: str = "count"
    supervise: str = "none"
    min_latents: int = 1
    cap: float = 2.0
    near: float = 0.05
    max_spans: int = 8
    open_loss: bool = True

    def __post_init__(self):
        if self.start not in ("token", "first", "rule"):
            raise ValueError(f"start={self.start!r}: must be 'token', 'first' or 'rule'.")
        if self.stop not in ("count", "close", "distance"):
            raise ValueError(f"stop={self.stop!r}: must be 'count', 'close' or 'distance'.")
        if self.supervise not in ("none", "end_only", "full"):
            raise ValueError(f"supervise={self.supervise!r}: must be 'none', 'end_only' or 'full'.")
        if self.stop != "count" and self.supervise == "none":
            raise ValueError(f"stop={self.stop!r} needs supervise='end_only' or 'full'.")
        if self.start == "token" and not self.open_loss:
            raise ValueError(
                "open_loss=False needs start='first' or 'rule': the model would never learn to open a span."
            )

    def limit_of(self, plan: torch.Tensor) -> torch.Tensor:
        """The most latents of spans that should have ``plan`` latents."""
        return plan if self.stop == "count" else (plan * self.cap).long().clamp_min(1)


class SwitchState:
    """Mode, slot and limits of B rows, as tensors. It does not depend on a model.

    ``plan`` (B,) is the number of latents a span of each row should have.
    """

    def __init__(self, switch: Switch, plan: torch.Tensor):
        self.switch, self.plan = switch, plan
        b, device = len(plan), plan.device
        self.mode = torch.full((b,), WRITING, device=device)
        self.slot = torch.zeros(b, dtype=torch.long, device=device)  # latents of the open span so far
        self.spans = torch.zeros(b, dtype=torch.long, device=device)  # spans opened so far
        self.rested = torch.ones(b, dtype=torch.bool, device=device)  # text came since the last span

    @property
    def limit(self) -> torch.Tensor:
        """(B,) the most latents of a span."""
        return self.switch.limit_of(self.plan)

    def may_open(self) -> torch.Tensor:
        """(B,) rows that may open a span: it needs text before it, and there are at most ``max_spans``."""
        if self.switch.start != "token":
            return torch.zeros_like(self.rested)
        return self.has_room()

    def has_room(self) -> torch.Tensor:
        return (self.spans < self.switch.max_spans) & self.rested

    def must_close(self) -> torch.Tensor:
        return (self.mode == DRAWING) & (self.slot >= self.limit)

    def may_close(self) -> torch.Tensor:
        """(B,) rows whose own stop decision counts in this step."""
        if self.switch.stop == "count":
            return torch.zeros_like(self.rested)
        return (self.mode == DRAWING) & (self.slot >= self.switch.min_latents) & (self.slot < self.limit)

    def update(
        self,
        *,
        wrote: torch.Tensor | None = None,
        drew: torch.Tensor | None = None,
        closed: torch.Tensor | None = None,
        opened: torch.Tensor | None = None,
        ended: torch.Tensor | None = None,
    ) -> None:
        """Apply what each row (B,) did in this step. None: no row did that."""
        if wrote is not None:
            self.rested = self.rested | wrote
        if drew is not None:
            self.slot = self.slot + drew
        if closed is not None:
            self.rested, self.mode = self.rested & ~closed, self.mode.masked_fill(closed, WRITING)
        if opened is not None:
            self.slot, self.spans = self.slot.masked_fill(opened, 0), self.spans + opened
            self.mode = self.mode.masked_fill(opened, DRAWING)
        if ended is not None:
            self.mode = self.mode.masked_fill(ended, DONE)

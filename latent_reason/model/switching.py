"""When to sketch and when to stop: the policy that is saved with the weights, and its state row by row.

The model opens a span by a control token, or one stands before every answer. A span closes by count, or by the model's
own two-way decision with a cap. No text logit is read inside a span: read there, an untrained model would open again
and the span would never end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

WRITING, DRAWING, DONE = range(3)


@dataclass(frozen=True)
class Switch:
    """``start``: ``token`` leaves it to the model, ``first`` puts one span before every answer and no other, ``rule``
    puts one after every sentence (Latent Sketchpad 2510.24514).
    ``count`` is the number of latents of a span; 0 takes it from the picture.

    ``stop``: ``count`` closes after the planned number of latents; ``close`` lets the model close from ``min_latents``
    on, at most ``cap`` times the planned number; ``distance`` closes, within the same limits, where the state comes as
    near to the close token's embedding as ``near`` (mean square; LVR 2509.24251). ``supervise`` says what teaches a
    stop: ``none``, ``end_only`` (SkiLa, SwimBird: only the last slot is told, so nothing teaches "not yet"), or
    ``full``."""

    start: str = "token"
    count: int = 0
    stop: str = "count"
    supervise: str = "none"
    min_latents: int = 1
    cap: float = 2.0
    near: float = 0.05
    max_spans: int = 8

    def __post_init__(self):
        if self.start not in ("token", "first", "rule"):
            raise ValueError(f"start={self.start!r}: a span opens by a 'token' of the model's, 'first' or by 'rule'.")
        if self.stop not in ("count", "close", "distance"):
            raise ValueError(f"stop={self.stop!r}: a span closes by 'count', the model's own 'close' or 'distance'.")
        if self.supervise not in ("none", "end_only", "full"):
            raise ValueError(f"supervise={self.supervise!r}: 'none', 'end_only' or 'full'.")
        if self.stop != "count" and self.supervise == "none":
            raise ValueError(f"stop={self.stop!r} needs supervise='end_only' or 'full': nothing else teaches a stop.")


class SwitchState:
    """Mode, place in the span and limits of B rows. Tensors only; knows no model.

    ``plan`` (B,) is the number of latents a span of each row should have.
    """

    def __init__(self, switch: Switch, plan: torch.Tensor):
        self.switch, self.plan = switch, plan
        b, device = len(plan), plan.device
        self.mode = torch.full((b,), WRITING, device=device)
        self.slot = torch.zeros(b, dtype=torch.long, device=device)  # latents drawn in the open span
        self.spans = torch.zeros(b, dtype=torch.long, device=device)  # spans opened so far
        self.rested = torch.ones(b, dtype=torch.bool, device=device)  # text was written since the last span

    @property
    def limit(self) -> torch.Tensor:
        """(B,) the most latents of a span."""
        if self.switch.stop == "count":
            return self.plan
        return (self.plan * self.switch.cap).long().clamp_min(1)

    def may_open(self) -> torch.Tensor:
        """(B,) loop guard: a span needs text before it, and there are only so many."""
        if self.switch.start != "token":
            return torch.zeros_like(self.rested)
        return self.has_room()

    def has_room(self) -> torch.Tensor:
        return (self.spans < self.switch.max_spans) & self.rested

    def must_close(self) -> torch.Tensor:
        return (self.mode == DRAWING) & (self.slot >= self.limit)

    def may_close(self) -> torch.Tensor:
        """(B,) rows whose own stop decision counts now."""
        if self.switch.stop == "count":
            return torch.zeros_like(self.rested)
        return (self.mode == DRAWING) & (self.slot >= self.switch.min_latents) & (self.slot < self.limit)

    def update(
        self, opened: torch.Tensor, drew: torch.Tensor, closed: torch.Tensor, wrote: torch.Tensor, ended: torch.Tensor
    ) -> None:
        """Apply what each row (B,) really did in this step."""
        self.rested = (self.rested | wrote) & ~closed
        self.slot = torch.where(opened, 0, self.slot + drew.long())
        self.spans = self.spans + opened.long()
        self.mode = torch.where(opened, DRAWING, torch.where(closed, WRITING, self.mode))
        self.mode = torch.where(ended, DONE, self.mode)

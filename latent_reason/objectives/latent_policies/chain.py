"""Denoising chains whose steps are actions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch

from ...model.heads import DiffusionHead, FlowHead, LatentHead
from ...model.heads.denoise import euler
from .base import LatentPolicy
from .normal import LOG_ROOT


class Chain(LatentPolicy, ABC):
    """Every step of a stochastic denoising chain is an action (Flow-GRPO 2505.05470, DDPO 2305.13301). With ``window``,
    only that many consecutive steps of each latent are, chosen at random and cyclically, so that each step is chosen
    equally often (0: all). A window stores less of the chain and needs fewer network calls.

    The record holds the chain's states in the space of the latent (around the regression mean of a residual head, in
    units of its scale), so a moving mean changes their likelihood. For a window it holds the states within it, after a
    row with its first step. Log-probabilities are means over channels.
    """

    clip = 5e-4
    ends_at_random = True  # whether the last step is random; if not, the latent stands in the record behind the states

    def __init__(self, head: LatentHead, window: int = 0):
        self.first = int(head.mean is not None)  # for a residual head, the first state of the chain is an action too
        self.whole = self.transitions(head) + self.first
        if not 0 <= window <= self.whole:
            raise ValueError(f"window={window}: must be from 1 to the {self.whole} steps of a latent, or 0 for all.")
        self.window, self.steps = window % self.whole, window or self.whole
        super().__init__(head)
        self.num_draws = self.transitions(head) + 1 + bool(self.window)

    def transitions(self, head: LatentHead) -> int:
        """Steps of the chain that are random."""
        return head.steps

    def finish(self, head: LatentHead, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """The latent (n, Z) from the state x (n, Z) after all random steps, by those that are not."""
        return x

    @abstractmethod
    def step(self, head: LatentHead, j: int, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Mean (n, Z) and std of the state after step j from x (n, Z)."""

    def around(self, head: LatentHead, h: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Mean (n, Z) and scale of the space in which a residual head denoises."""
        return (0.0, 1.0) if head.mean is None else (head.mean.net(h), head.scale)

    def sample(self, head, h, noise):
        mean, scale = self.around(head, h)
        x = noise[:, 0].to(h.dtype)
        states = [x]
        for j in range(self.transitions(head)):
            middle, spread = self.step(head, j, x, h)
            x = middle + spread * noise[:, j + 1].to(h.dtype)
            states.append(x)
        record = torch.stack([mean + scale * x for x in states], 1)
        latent = mean + scale * self.finish(head, states[-1], h)
        if self.window:
            return latent, self.cut(record, noise[:, -1, 0])
        return latent, record if self.ends_at_random else torch.cat([record, latent[:, None]], 1)

    def cut(self, record: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
        """(n, 3 + window, Z) the window of each chain (n, J, Z), chosen by a normal number ``chance`` (n,)."""
        start = (torch.special.ndtr(chance.float()) * self.whole).long().clamp_max(self.whole - 1)
        at = (start[:, None] + torch.arange(self.window + 2, device=start.device)) % (self.whole + 1)
        kept = self.padded(record).gather(1, at[..., None].expand(-1, -1, record.shape[-1]))
        return torch.cat([start.to(record)[:, None, None].expand(-1, 1, record.shape[-1]), kept], 1)

    def padded(self, record: torch.Tensor) -> torch.Tensor:
        """(n, whole + 1, Z): a state before every action; the first action of a residual head does not read it."""
        return torch.cat([record[:, :1].expand(-1, self.first, -1), record], 1)

    def actions(self, start: int, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """For each action from ``start`` on: its transition (-1: the first state itself) and the states (n, Z) before
        and after it."""
        for i in range(self.steps):
            action = (start + i) % self.whole
            at = (action - start) % (self.whole + 1)
            yield action - self.first, states[:, at], states[:, at + 1]

    def log_prob(self, head, h, record):
        return self.by_window(record, lambda rows, start, states: self.scores(head, h[rows], start, states))

    def by_window(self, record: torch.Tensor, scores: Callable) -> torch.Tensor:
        """(n, steps) ``scores(rows, start, states)``, called for all rows whose window starts at the same action."""
        if not self.window:
            return scores(slice(None), 0, self.padded(record))
        starts, found, order = record[:, 0, 0].round().long(), [], []
        for start in starts.unique().tolist():
            rows = (starts == start).nonzero()[:, 0]
            order.append(rows)
            found.append(scores(rows, start, record[rows, 1:]))
        return torch.cat(found)[torch.cat(order).argsort()] if found else record.new_zeros(0, self.steps).float()

    def scores(self, head, h, start: int, states: torch.Tensor) -> torch.Tensor:
        mean, scale = self.around(head, h)
        found = []
        for j, before, after in self.actions(start, states):
            middle, spread = self.step(head, j, (before - mean) / scale, h) if j >= 0 else (0.0, 1.0)
            found.append(self.score(((after - mean) / scale - middle).float(), spread))
        return torch.stack(found, 1) - (scale.float().log() if self.first else 0.0)

    @staticmethod
    def score(away: torch.Tensor, spread: float) -> torch.Tensor:
        """Distances (n, Z) from the mean of a normal -> mean log density (n,)."""
        return -((away / spread).square() / 2).mean(-1) - math.log(spread) - LOG_ROOT

    def kl(self, head, h, other, other_h, record):
        """Exact for each step, for policies whose chains have the same scale."""
        return self.by_window(
            record, lambda rows, start, states: self.apart(head, h[rows], other, other_h[rows], start, states)
        )

    def apart(self, head, h, other, other_h, start: int, states: torch.Tensor) -> torch.Tensor:
        mean, scale = self.around(head, h)
        other_mean, other_scale = self.around(other, other_h)
        found = []
        for j, y, _ in self.actions(start, states):
            own, there, spread = 0.0, 0.0, 1.0
            if j >= 0:
                own, spread = self.step(head, j, (y - mean) / scale, h)
                there, _ = self.step(other, j, (y - other_mean) / other_scale, other_h)
            gap = (mean + scale * own - other_mean - other_scale * there) / scale
            found.append((gap.float() / spread).square().mean(-1) / 2)
        return torch.stack(found, 1)


class FlowSde(Chain):
    """The flow head's Euler chain with the noise of the SDE that has the same marginals (Flow-GRPO 2505.05470, eq. 9).
    With ``noise`` 0 it would be the chain itself."""

    def __init__(self, head: LatentHead, noise: float = 0.7, window: int = 0):
        if not isinstance(head, FlowHead):
            raise ValueError(f"policy FlowSde needs a flow head, not a {type(head).__name__}.")
        if noise <= 0:
            raise ValueError(f"noise={noise}: must be more than 0, or the policy does not explore.")
        super().__init__(head, window)
        self.noise = noise

    def step(self, head, j, x, h):
        times, sigmas = euler(head.steps)
        now, length = sigmas[j], sigmas[j + 1] - sigmas[j]
        s2 = self.noise**2 * now / (1 - (sigmas[1] if now == 1 else now)) if head.steps > 1 else self.noise**2
        v = head.net(x, torch.full((len(h),), times[j], device=h.device), h)
        middle = x * (1 + s2 * length / (2 * now)) + v * (1 + s2 * (1 - now) / (2 * now)) * length
        return middle, math.sqrt(-s2 * length)


class DdpmSde(Chain):
    """The diffusion head's chain with DDPM noise (DDPO 2305.13301), by diffusers' scheduler at eta = 1. Its last step
    has no noise, so it is no action, and as a function of weights and state it gets no gradient from the reward.

    Raises:
        ValueError: another head, or a chain without a random step.
    """

    ends_at_random = False

    def __init__(self, head: LatentHead, window: int = 0):
        if not isinstance(head, DiffusionHead):
            raise ValueError(f"policy DdpmSde needs a diffusion head, not a {type(head).__name__}.")
        if head.steps < 2:
            raise ValueError(
                "policy DdpmSde: the last step of a chain has no noise. Set the head's steps to 2 or more."
            )
        super().__init__(head, window)

    def transitions(self, head):
        return head.steps - 1

    def finish(self, head, x, h):
        return self.step(head, head.steps - 1, x, h)[0]

    def step(self, head, j, x, h):
        scheduler, at = head.scheduler, head.steps - 1 - j
        predicted = head.net(x, torch.full((len(h),), head.step_times[at], device=h.device), h)
        middle = scheduler.step(predicted, at, x, eta=1.0, variance_noise=torch.zeros_like(x), return_dict=False)[0]
        gone, left = scheduler.alphas_cumprod[at], scheduler.alphas_cumprod[at - 1] if at else torch.ones(())
        return middle, math.sqrt((1 - left) / (1 - gone) * (1 - gone / left))

"""A flow that is sampled in one step: it learns the average velocity over an interval of time (MeanFlow 2505.13447)."""

from __future__ import annotations

import torch
from torch import nn

from ...values import Depth, Share, Size, SizeOrZero
from .denoise import Denoiser, DenoisingHead


class IntervalDenoiser(Denoiser):
    """(x_t (n, Z), interval (n, 2) as (t, t - r) in 0..1, h (n, D)) -> average velocity (n, Z).

    Times go through a small MLP. With the waves of the flow head, of up to 1000 radians, the derivative by time is so
    large that training diverges.
    """

    def __init__(self, width: int, latent_width: int, hidden: int, depth: int):
        super().__init__(width, latent_width, hidden, depth)
        self.time = nn.Sequential(nn.Linear(2, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def embed_times(self, t, dtype):
        """Intervals (..., 2) -> (..., hidden)."""
        return self.time(t.to(dtype))


class MeanFlowHead(DenoisingHead):
    """Draws in ``steps`` steps, one by default. Otherwise as the flow head: x_t = (1 - t) z + t noise with velocity
    v = noise - z, around a regression mean if ``residual``.

    The net predicts the average velocity u(x_t, r, t) between r and t, so that x_r = x_t - (t - r) u. Its target is
    u = v - (t - r) du/dt (eq. 6) with the derivative along the flow by a JVP, and without a gradient (eq. 10). For
    ``instant`` of the latents r = t, where the loss is that of the flow head.

    The paper draws times from a logit-normal distribution and weights losses by their size. Here times are uniform,
    because one step starts at t = 1, which a logit-normal seldom draws, and losses are not weighted.
    """

    denoiser = IntervalDenoiser

    def __init__(
        self,
        width: int,
        latent_width: int,
        hidden: SizeOrZero = 0,
        depth: Depth = 2,
        repeats: Size = 1,
        steps: Size = 1,
        instant: Share = 0.5,
        residual: bool = True,
    ):
        super().__init__(width, latent_width, hidden, depth, repeats, steps, residual)
        self.instant = instant

    def denoising_loss(self, h, z):
        dtype = self.scale.dtype
        with torch.autocast(z.device.type, enabled=False):  # a derivative in bf16 is too coarse for a target
            noise, (t, r) = torch.randn_like(z), self.draw_intervals(len(z), z.device)
            velocity, h = noise - z, h.to(dtype)

            def predict(x, t):
                return self.net(x, torch.cat([t, t - r], 1), h)

            x, t, r, tangent = (part.to(dtype) for part in ((1 - t) * z + t * noise, t, r, velocity))
            u, derivative = torch.func.jvp(predict, (x, t), (tangent, torch.ones_like(t)))
            goal = velocity - (t - r) * derivative.detach()
            return (u.float() - goal.float()).square().mean(-1)

    def draw_intervals(self, n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 1) ends t and (n, 1) starts r <= t of random intervals of time."""
        first, second, share = torch.rand(3, n, 1, device=device)
        t = torch.maximum(first, second)
        return t, torch.where(share < self.instant, t, torch.minimum(first, second))

    def chain_times(self):
        """(steps, 2) the intervals of the sampling chain, from 1 to 0 in equal steps."""
        ends = 1 - torch.arange(self.steps) / self.steps
        return torch.stack([ends, torch.full_like(ends, 1 / self.steps)], 1)

    def denoise(self, chain, x):
        path = []
        for modulation in chain:
            x = torch.sub(x, self.net.step(x, modulation), alpha=1 / self.steps)
            path.append(x)
        return path

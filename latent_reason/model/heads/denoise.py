"""Denoising heads: a small AdaLN-MLP, one chain a latent, conditioned on the state before it (MAR 2406.11838,
Modal-Mixed CoT 2602.00574). Schedules and samplers are those of diffusers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.schedulers import DDIMScheduler, DDPMScheduler
from torch import nn

from ...values import Depth, Size, SizeOrZero
from ..batch import to_device
from .base import LatentHead
from .regression import MLPHead

TRAINING_TIMES = 1000  # of a diffusion head


class AdaLNBlock(nn.Module):
    """Residual MLP with conditional normalization (AdaLN-Zero, DiT 2212.09748)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.ada = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.ada.weight)
        nn.init.zeros_(self.ada.bias)

    def forward(self, x, modulation):
        shift, scale, gate = modulation
        return torch.addcmul(x, gate, self.mlp(torch.addcmul(shift, scale, self.norm(x))))


class Denoiser(nn.Module):
    """(x_t (n, Z), t (n,) in 0..1000, h (n, D)) -> prediction (n, Z).

    The modulation of the normalizations depends on t and h but not on x_t. So :meth:`modulation` computes it for all
    steps of a chain at once, and :meth:`step` is all that is left inside the chain.
    """

    def __init__(self, width: int, latent_width: int, hidden: int, depth: int):
        super().__init__()
        self.enter = nn.Linear(latent_width, hidden)
        self.time = nn.Sequential(
            Timesteps(128, flip_sin_to_cos=True, downscale_freq_shift=0), TimestepEmbedding(128, hidden)
        )
        self.condition = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(AdaLNBlock(hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.ada = nn.Linear(hidden, 2 * hidden)
        self.leave = nn.Linear(hidden, latent_width)
        for layer in (self.ada, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def embed_times(self, t, dtype):
        """Times (...) -> (..., hidden)."""
        waves, embed = self.time
        return embed(waves(t.flatten()).to(dtype)).unflatten(0, t.shape)

    def modulation(self, times, h):
        """Embedded times (..., hidden) and h (n, D) -> shift, scale and, in blocks, a gate of every normalization."""
        c = F.silu(self.condition(h) + times)
        layers = [*(block.ada for block in self.blocks), self.ada]
        parts = (layer(c).split(self.norm.normalized_shape[0], -1) for layer in layers)
        return [(shift, 1 + scale, *gate) for shift, scale, *gate in parts]

    def step(self, x, modulation):
        x = self.enter(x)
        for block, values in zip(self.blocks, modulation, strict=False):
            x = block(x, values)
        shift, scale = modulation[-1]
        return self.leave(torch.addcmul(shift, scale, self.norm(x)))

    def forward(self, x, t, h):
        return self.step(x, self.modulation(self.embed_times(t, h.dtype), h))

    def chain(self, times, h):
        """The modulation of :meth:`step` at each of the embedded times (T, hidden) of a sampling chain."""
        modulation = self.modulation(times[:, None], h)
        return list(zip(*(zip(*values, strict=True) for values in modulation), strict=True))


NoiseTimes = Literal["uniform", "late", "logit_normal"]


def draw_times(n: int, kind: NoiseTimes, device: torch.device) -> torch.Tensor:
    """(n,) random noise levels in (0, 1), of which 1 is pure noise.

    ``uniform``; ``late``: u^(1/4) of a uniform u, so more noise; ``logit_normal``: the logistic function of a standard
    normal, so more of the middle (SD3 2403.03206).
    """
    if kind == "logit_normal":
        return torch.randn(n, device=device).sigmoid()
    times = torch.rand(n, device=device)
    return times**0.25 if kind == "late" else times


class DenoisingHead(LatentHead):
    """What diffusion, flow and mean flow share. ``hidden`` 0 is as wide as a latent. ``repeats`` noises are drawn for each target.

    ``residual`` denoises around an MLP's mean: the MLP learns by regression (and gives the backbone its gradient), the
    denoiser learns the residual in units of its rms. Without it a backbone trained from scratch learned to sketch
    several times more slowly (paper_figs/data/heads.json), so it is the default. ``times`` says at which noise levels flow
    and diffusion learn; see :func:`draw_times`.
    """

    is_stochastic = True
    denoiser: type[Denoiser] = Denoiser

    def __init__(self, width, latent_width, hidden, depth, repeats, steps, residual, times="uniform"):
        super().__init__(width, latent_width)
        if times not in get_args(NoiseTimes):
            raise ValueError(f"times={times!r}: {', '.join(map(repr, get_args(NoiseTimes)))}.")
        self.times = times
        self.net = self.denoiser(width, latent_width, hidden or latent_width, depth)
        self.repeats, self.steps = repeats, steps
        self.mean = MLPHead(width, latent_width) if residual else None
        self.register_buffer("scale", torch.ones(()))  # rms of the residual

    def set_steps(self, steps: int) -> None:
        """Sample in so many steps."""
        self.steps = steps

    def loss(self, h, z):
        z, extra = z.float(), 0.0
        if self.mean is not None:
            mean = self.mean.net(h).float()
            extra = (mean - z).square().mean(-1)
            rest = (z - mean).detach()
            if self.training and len(rest) and next(self.mean.parameters()).requires_grad:
                size = rest.square().mean().sqrt().clamp_min(1e-3).to(self.scale.dtype)
                self.scale = self.scale.lerp(
                    size, 0.01
                )  # not in place: latents of this step were drawn with the old value
            z, h = rest / self.scale, h.detach()
        h, z = (x.repeat(self.repeats, *[1] * (x.ndim - 1)) for x in (h, z))
        return extra + self.denoising_loss(h, z).unflatten(0, (self.repeats, -1)).mean(0)

    def sampling_constants(self):
        return self.net.embed_times(to_device(self.chain_times(), self.scale.device), self.scale.dtype)

    def sample(self, h, context=None, noise=None, constants=None):
        """``constants`` (T, hidden) are the embedded times of the chain."""
        noise = torch.randn(len(h), self.latent_width, device=h.device, dtype=h.dtype) if noise is None else noise
        times = self.sampling_constants() if constants is None else constants
        z = self.denoise(self.net.chain(times.to(h.dtype), h), noise.to(h.dtype))[-1]
        return z if self.mean is None else torch.addcmul(self.mean.net(h), self.scale, z)

    def sample_path(self, h: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """States (n, D) and noise (n, Z) -> (T + 1, n, Z): the noise, and the latents after each of the T steps of the
        chain. The last ones are those of :meth:`sample`."""
        path = [
            noise.to(h.dtype),
            *self.denoise(self.net.chain(self.sampling_constants().to(h.dtype), h), noise.to(h.dtype)),
        ]
        return torch.stack([x if self.mean is None else torch.addcmul(self.mean.net(h), self.scale, x) for x in path])

    def denoising_loss(self, h, z):
        raise NotImplementedError

    def chain_times(self) -> torch.Tensor:
        """(T, ...) the times of the sampling chain, as the denoiser reads them."""
        raise NotImplementedError

    def denoise(self, chain, x) -> list[torch.Tensor]:
        """Noise x (n, Z) -> latents (n, Z) after each step, by the modulation of every step."""
        raise NotImplementedError


def euler(steps: int) -> tuple[list[float], list[float]]:
    """The times (steps,) of a flow's chain, from 1000 on, and its sigmas (steps + 1), from 1 to 0 in equal steps. (The
    scheduler of diffusers goes to 0.001 first, and its last step does nothing.)"""
    sigmas = [1 - i / steps for i in range(steps + 1)]
    return [1000 * sigma for sigma in sigmas[:-1]], sigmas


class FlowHead(DenoisingHead):
    """Rectified flow: x_s = (1 - s) z + s noise, the net predicts noise - z, Euler from s = 1 to 0 (2209.03003)."""

    def __init__(
        self,
        width: int,
        latent_width: int,
        hidden: SizeOrZero = 0,
        depth: Depth = 2,
        repeats: Size = 1,
        steps: Size = 4,
        residual: bool = True,
        times: NoiseTimes = "uniform",
    ):
        super().__init__(width, latent_width, hidden, depth, repeats, steps, residual, times)

    def denoising_loss(self, h, z):
        noise, s = torch.randn_like(z), draw_times(len(z), self.times, z.device)[:, None]
        x = (1 - s) * z + s * noise
        v = self.net(x.to(h.dtype), 1000 * s[:, 0], h)
        return (v.float() - (noise - z)).square().mean(-1)

    def chain_times(self):
        return torch.tensor(euler(self.steps)[0])

    def denoise(self, chain, x):
        path = []
        for modulation, (now, after) in zip(chain, pairwise(euler(self.steps)[1]), strict=True):
            x = torch.add(x, self.net.step(x, modulation), alpha=after - now)
            path.append(x)
        return path


class DiffusionHead(DenoisingHead):
    """Cosine-schedule diffusion with eps, x or v prediction, sampled by DDIM (deterministic given its noise).

    Sampling begins at the last of the 1000 training times at which at least ``LEAST_SIGNAL`` of a latent is left (later
    only for more steps than there are such times). At the very last one the estimate of an eps net,
    z = (x - eps) / 5e-5, is only a sign, and ten steps do not make up for it.
    """

    NAMES = {"eps": "epsilon", "x": "sample", "v": "v_prediction"}
    BOUND = 5.0  # of an estimated latent, in the normalized space
    LEAST_SIGNAL = 0.02  # sqrt(alpha-bar)

    def __init__(
        self,
        width: int,
        latent_width: int,
        prediction: str = "v",
        hidden: SizeOrZero = 0,
        depth: Depth = 2,
        repeats: Size = 1,
        steps: Size = 10,
        residual: bool = True,
        times: NoiseTimes = "uniform",
    ):
        super().__init__(width, latent_width, hidden, depth, repeats, steps, residual, times)
        if prediction not in self.NAMES:
            raise ValueError(f"prediction={prediction!r}: 'eps', 'x' or 'v'.")
        self.prediction = prediction
        with torch.device("cpu"):
            self.train_scheduler = DDPMScheduler(
                num_train_timesteps=TRAINING_TIMES,
                beta_schedule="squaredcos_cap_v2",
                clip_sample=False,
                prediction_type=self.NAMES[prediction],
            )
        self.set_steps(steps)

    def set_steps(self, steps: int) -> None:
        """Sample in so many steps. ``scheduler`` has them alone as its times, of which 0 has the least noise, and
        ``step_times`` are the training times of these.

        Raises:
            ValueError: fewer than 1 or more than 1000.
        """
        if not 1 <= steps <= TRAINING_TIMES:
            raise ValueError(f"steps={steps}: must be from 1 to {TRAINING_TIMES}.")
        with torch.device("cpu"):  # numbers, also where a model is built without memory
            alpha = self.train_scheduler.alphas_cumprod.double()
            first = max(int((alpha.sqrt() >= self.LEAST_SIGNAL).sum()), steps)
            self.step_times = [round((i + 1) * first / steps) - 1 for i in range(steps)]
            left = alpha[self.step_times]
            betas = (1 - left / torch.cat([left.new_ones(1), left[:-1]])).tolist()
            self.scheduler = DDIMScheduler(
                num_train_timesteps=steps,
                trained_betas=betas,
                clip_sample=self.prediction == "eps",
                clip_sample_range=self.BOUND,
                prediction_type=self.NAMES[self.prediction],
            )
            self.scheduler.set_timesteps(steps)
        self.steps = steps

    def denoising_loss(self, h, z):
        noise, s = torch.randn_like(z), draw_times(len(z), self.times, z.device)
        t = (s * TRAINING_TIMES).long().clamp_max(TRAINING_TIMES - 1)
        x = self.train_scheduler.add_noise(z, noise, t)
        goal = {"eps": lambda: noise, "x": lambda: z, "v": lambda: self.train_scheduler.get_velocity(z, noise, t)}[
            self.prediction
        ]()
        return (self.net(x.to(h.dtype), t, h).float() - goal).square().mean(-1)

    def chain_times(self):
        return torch.tensor(self.step_times[::-1])

    def denoise(self, chain, x):
        path = []
        for step, modulation in zip(range(self.steps - 1, -1, -1), chain, strict=True):
            x = self.scheduler.step(self.net.step(x, modulation), step, x, return_dict=False)[0]
            path.append(x)
        return path

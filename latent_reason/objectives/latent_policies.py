"""Latents as actions of reinforcement learning: how a policy samples a latent, and its log-probability.

A policy works in the space of its head (normalized, except for heads in the hidden space). For every latent it keeps a
``record`` (n, J, Z) with everything :meth:`LatentPolicy.log_prob` needs besides the state. The context holds the latent
as it was fed back; a policy never samples it again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch

from ..model.heads import DiffusionHead, FlowHead, LatentHead
from ..model.heads.denoise import euler

LOG_ROOT = 0.5 * math.log(2 * math.pi)


class LatentPolicy:
    """One latent takes ``num_draws`` standard normals of width Z and consists of ``steps`` actions (0: it is no
    action). ``clip`` bounds its ratio to 1 - clip and 1 + clip.

    Raises:
        ValueError: the policy does not support this head.
    """

    clip = 0.2
    steps = 0
    uses_head_loss = False  # whether minus the head's own loss takes the place of a log-probability

    def __init__(self, head: LatentHead):
        if (head.needs_context or head.reads_slot) and self.has_log_prob:
            raise ValueError(
                f"policy {type(self).__name__}: a {type(head).__name__} reads more than the state, so a latent has no "
                "density of its own. Use the policy Mask."
            )
        self.num_draws = int(head.is_stochastic)

    @property
    def has_log_prob(self) -> bool:
        """Whether latents have a likelihood."""
        return bool(self.steps)

    def sample(self, head: LatentHead, h: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (n, D) and normals (n, num_draws, Z) -> latents (n, Z) and their record (n, J, Z). Without a
        likelihood, the head samples as usual and the record is empty."""
        return sample_head(head, h, noise[:, :1]), noise[:, :0]

    def log_prob(self, head: LatentHead, h: torch.Tensor, record: torch.Tensor) -> torch.Tensor:
        """States (n, D) and records -> log-probabilities (n, steps), in fp32."""
        return h.new_zeros(len(h), 0, dtype=torch.float32)

    def kl(
        self, head: LatentHead, h: torch.Tensor, other: LatentHead, other_h: torch.Tensor, record: torch.Tensor
    ) -> torch.Tensor:
        """(n, steps) KL divergence to the head ``other`` in its states, at the record."""
        return h.new_zeros(len(h), 0, dtype=torch.float32)


def sample_head(head: LatentHead, h: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Latents (n, Z) of a head for states and its noise (n, 0 or 1, Z)."""
    return head.sample(h, noise=noise[:, 0]) if head.is_stochastic else head.sample(h)


class Mask(LatentPolicy):
    """Latents are part of the environment; only text and control tokens are actions (LVR 2509.24251). A stochastic head
    still explores."""


#: advantages (R,) and whether a rollout is correct and the best of its group (R,) -> weight of the rollout
WEIGHTINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "positive": lambda a, best: a.clamp_min(0),
    "raft": lambda a, best: best.to(a),
    "awr": lambda a, best: a.exp().clamp_max(20),
}


class RewardWeighted(LatentPolicy):
    """No likelihood: the head is trained on its own latents of good rollouts with its own loss, and minus that loss
    takes the place of a log-probability. The record is the latent.

    ``weighting``: ``positive`` (positive advantages), ``raft`` (correct rollouts among the best of their group; RAFT
    2304.06767) or ``awr`` (the exponential of the advantage; AWR 1910.00177).

    Raises:
        ValueError: the head is not stochastic, so it would reproduce its latents anyway.
    """

    steps = 1
    uses_head_loss = True

    def __init__(self, head: LatentHead, weighting: str = "positive"):
        super().__init__(head)
        if not head.is_stochastic:
            raise ValueError(
                f"policy RewardWeighted trains a head on its own latents, but a {type(head).__name__} is not stochastic. "
                "Use a flow, diffusion or gaussian head."
            )
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting={weighting!r}: one of {', '.join(WEIGHTINGS)}.")
        self.weight = WEIGHTINGS[weighting]

    def log_prob(self, head, h, record):
        training = head.training
        head.eval()  # running statistics of the head are those of targets, not of its own latents
        try:
            return -head.loss(h, record[:, -1].detach()).float()[:, None]
        finally:
            head.train(training)

    def kl(self, head, h, other, other_h, record):
        return h.new_zeros(len(h), 1, dtype=torch.float32)

    def sample(self, head, h, noise):
        z = sample_head(head, h, noise[:, :1])
        return z, z[:, None]


class Normal(LatentPolicy, ABC):
    """A normal density around the head's output. The record is the head's noise, if it takes any, and the latent."""

    steps = 1

    def mean(self, head: LatentHead, h: torch.Tensor, record: torch.Tensor) -> torch.Tensor:
        return sample_head(head, h, record[:, :-1]).float()

    @abstractmethod
    def away(self, z: torch.Tensor, mean: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """(n, Z), (n, Z) -> (n,) half the squared distance in units of the density's std at the latent ``at``."""

    def kl(self, head, h, other, other_h, record):
        """Exact, because both densities have the same std."""
        means = self.mean(head, h, record), self.mean(other, other_h, record)
        return self.away(*means, record[:, -1].float())[:, None]


class Vlpo(Normal):
    """Monet's VLPO (2511.21395): the latent is the mean itself, has_log_prob by a normal of spread ``sigma`` (None:
    ``relative`` times the latent's length, which says the same on any backbone).

    Its gradient is zero until the policy has moved, as nothing is explored: it acts from the second update of a
    rollout on, and then pulls to (or pushes from) what was drawn.
    """

    def __init__(self, head: LatentHead, sigma: float | None = None, relative: float = 0.15):
        super().__init__(head)
        if relative <= 0 or (sigma is not None and sigma <= 0):
            raise ValueError(f"sigma={sigma}, relative={relative}: must be more than 0.")
        self.sigma, self.relative = sigma, relative

    def sample(self, head, h, noise):
        z = sample_head(head, h, noise[:, :1])
        return z, torch.cat([noise[:, : self.num_draws], z[:, None]], 1)

    def away(self, z, mean, at):
        spread = self.relative * at.norm(dim=-1) if self.sigma is None else self.sigma
        return (z - mean).square().sum(-1) / (2 * spread**2)

    def log_prob(self, head, h, record):
        z = record[:, -1].float()
        return -self.away(z, self.mean(head, h, record), z)[:, None]


class Gaussian(Normal):
    """Noise of ``fraction`` times a channel's ``spread`` (std) on the head's output; the noise is the action.

    A density over Z channels gives ratios that are always clipped, so ``norm`` tempers the log-probability: ``sum``
    (the true ratio), ``sqrt`` or ``mean`` divide it by 1, by the root of the number of channels, or by that number.
    With a ``basis`` (Z, r) of orthonormal columns the noise stays in their span, and ``sum`` counts r coordinates.
    """

    def __init__(
        self,
        head: LatentHead,
        fraction: float = 0.05,
        norm: str = "sqrt",
        spread: float | torch.Tensor = 1.0,
        basis: torch.Tensor | None = None,
    ):
        super().__init__(head)
        if norm not in ("sum", "sqrt", "mean"):
            raise ValueError(f"norm={norm!r}: must be 'sum', 'sqrt' or 'mean'.")
        if fraction <= 0:
            raise ValueError(f"fraction={fraction}: must be more than 0, or the policy does not explore.")
        self.fraction, self.spread, self.basis = fraction, spread, basis
        self.channels = head.latent_width if basis is None else basis.shape[1]
        self.divisor = {"sum": 1, "sqrt": self.channels**0.5, "mean": self.channels}[norm]
        self.num_draws = int(head.is_stochastic) + 1

    @staticmethod
    def directions(latents: torch.Tensor, rank: int) -> torch.Tensor:
        """(Z, rank) the first principal directions of latents (n, Z). Raises ValueError for a rank they do not have."""
        if not 1 <= rank <= min(latents.shape):
            raise ValueError(f"rank={rank}: must be from 1 to {min(latents.shape)}.")
        centred = latents.float() - latents.float().mean(0)
        return torch.linalg.svd(centred, full_matrices=False).Vh[:rank].T.contiguous()

    def sample(self, head, h, noise):
        own, xi = noise[:, :-1], noise[:, -1]
        if self.basis is not None:
            xi = xi[:, : self.channels] @ self.basis.to(xi).T
        z = sample_head(head, h, own)
        z = z + (self.spread * self.fraction * xi).to(z.dtype)
        return z, torch.cat([own.to(z.dtype), z[:, None]], 1)

    def noise_of(self, z: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """(n, channels) the noise between a mean and a latent."""
        a = (z - mean) / (self.spread * self.fraction)
        return a if self.basis is None else a @ self.basis.to(a)

    def away(self, z, mean, at):
        return self.noise_of(z, mean).square().sum(-1) / 2 / self.divisor

    def log_prob(self, head, h, record):
        z = record[:, -1].float()
        volume = self.channels * (math.log(self.fraction) + LOG_ROOT)
        if self.basis is None:
            volume = (
                volume + torch.as_tensor(self.spread, device=z.device).float().expand(head.latent_width).log().sum()
            )
        return (-self.away(z, self.mean(head, h, record), z) - volume / self.divisor)[:, None]


class Chain(LatentPolicy, ABC):
    """Every step of a stochastic denoising chain is an action (Flow-GRPO 2505.05470, DDPO 2305.13301). With ``window``,
    only that many consecutive steps of each latent are, chosen at random and cyclically, so that each step is chosen
    equally often (0: all). A window stores less of the chain and needs fewer network calls.

    The record holds the chain's states in the space of the latent (around the regression mean of a residual head, in
    units of its scale), so a moving mean changes their likelihood. For a window it holds the states within it, after a
    row with its first step. Log-probabilities are means over channels.
    """

    clip = 5e-4

    def __init__(self, head: LatentHead, window: int = 0):
        self.first = int(head.mean is not None)  # for a residual head, the first state of the chain is an action too
        self.whole = self.transitions(head) + self.first
        if not 0 <= window <= self.whole:
            raise ValueError(f"window={window}: must be from 1 to the {self.whole} steps of a latent, or 0 for all.")
        self.window, self.steps = window % self.whole, window or self.whole
        super().__init__(head)
        self.num_draws = self.transitions(head) + 1 + bool(self.window)

    def transitions(self, head: LatentHead) -> int:
        return head.steps

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
        return record[:, -1], self.cut(record, noise[:, -1, 0]) if self.window else record

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
    """The diffusion head's chain with DDPM noise (DDPO 2305.13301), by diffusers' scheduler at eta = 1."""

    FLOOR = 1e-3  # of a std: the last step has none

    def __init__(self, head: LatentHead, window: int = 0):
        if not isinstance(head, DiffusionHead):
            raise ValueError(f"policy DdpmSde needs a diffusion head, not a {type(head).__name__}.")
        super().__init__(head, window)

    def step(self, head, j, x, h):
        scheduler = head.scheduler
        scheduler.set_timesteps(head.steps, device=h.device)
        t = scheduler.timesteps[j]
        middle = scheduler.step(
            head.net(x, t.expand(len(h)), h), t, x, eta=1.0, variance_noise=torch.zeros_like(x), return_dict=False
        )[0]
        before = int(t) - scheduler.config.num_train_timesteps // head.steps
        alpha = scheduler.alphas_cumprod
        gone, left = alpha[int(t)], alpha[before] if before >= 0 else scheduler.final_alpha_cumprod
        return middle, max(math.sqrt((1 - left) / (1 - gone) * (1 - gone / left)), self.FLOOR)

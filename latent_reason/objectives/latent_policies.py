"""Latents as actions of reinforcement learning: how a policy draws one, and how likely it was.

A policy works in the space its head draws in (standardised, but for raw heads) and keeps of every latent a ``record``
(n, J, Z) that says all :meth:`LatentPolicy.log_prob` needs beside the state. What stands in the context is the latent
as it was fed; a policy never draws again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from ..decoding.engine import Decoder
from ..decoding.rollout import Rollout
from ..model.heads import DiffusionHead, FlowHead, LatentHead
from ..model.heads.denoise import euler

LOG_ROOT = 0.5 * math.log(2 * math.pi)


class PolicyDecoder(Decoder):
    """Decoding whose latents a policy draws, with a record of each.

    Raises:
        ValueError: the model has no head.
    """

    def __init__(self, model, prompt, config, row_ids):
        if not model.can_sketch:
            raise ValueError("latent_policy: this model has no latent head. Remove the option.")
        super().__init__(model, prompt, config, row_ids)
        self.policy_records: dict[tuple[int, int], torch.Tensor] = {}

    def sample_latents(self, h: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        policy, head = self.config.latent_policy, self.model.head
        if not policy.has_log_prob:
            return super().sample_latents(h, rows, step)
        index, slot = rows.nonzero()[:, 0], self.state.slot[rows]
        states, _ = head.cast_inputs(h[rows], None)
        noise = self.latent_noise(rows, step, policy.num_draws).to(states)
        z, record = policy.sample(head, states, noise)
        self.policy_records |= {(row, step): r for row, r in zip(index.tolist(), record, strict=True)}
        return self.model.to_embeddings(z, self.grids[index], slot).to(h.dtype)

    def finish(self) -> Rollout:
        records = [self.policy_records[key] for key in sorted(self.policy_records)]
        return replace(super().finish(), policy_records=torch.stack(records) if records else None)


class LatentPolicy:
    """``draws`` standard normals of width Z are what one latent takes; ``steps`` are the actions it is made of (0: it
    is none). ``clip`` bounds its ratio to 1 - clip and 1 + clip.

    Raises:
        ValueError: the head is not one of those that the policy can be a policy of.
    """

    clip = 0.2
    steps = 0
    decoder = PolicyDecoder
    uses_head_loss = False  # whether it learns by the head's own loss, so that a log-probability is minus that

    def __init__(self, head: LatentHead):
        if head.needs_context and self.has_log_prob:
            raise ValueError(
                f"policy {type(self).__name__}: a {type(head).__name__} looks at more than the state, so "
                "a latent has no density of its own. Use the policy Mask."
            )
        self.num_draws = int(head.is_stochastic)

    @property
    def has_log_prob(self) -> bool:
        """Whether latents have a likelihood."""
        return bool(self.steps)

    def sample(self, head: LatentHead, h: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States (n, D) and normals (n, draws, Z) -> latents (n, Z) and their record (n, J, Z). Where latents have no
        likelihood, they are drawn as ever and nothing is noted."""
        return sample_head(head, h, noise[:, :1]), noise[:, :0]

    def log_prob(self, head: LatentHead, h: torch.Tensor, record: torch.Tensor) -> torch.Tensor:
        """States (n, D) and records -> log-probabilities (n, steps), in fp32."""
        return h.new_zeros(len(h), 0, dtype=torch.float32)

    def kl(
        self, head: LatentHead, h: torch.Tensor, other: LatentHead, other_h: torch.Tensor, record: torch.Tensor
    ) -> torch.Tensor:
        """(n, steps) divergence to what ``other`` would do in its states, where the record stands."""
        return h.new_zeros(len(h), 0, dtype=torch.float32)


def sample_head(head: LatentHead, h: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """(n, Z) what a head gives for states and the noise (n, 0 or 1, Z) it takes."""
    return head.sample(h, noise=noise[:, 0]) if head.is_stochastic else head.sample(h)


class Mask(LatentPolicy):
    """Latents are whatever the head gives, and no action: words and control tokens learn, given them (LVR 2509.24251).
    Whose head draws with noise still explores."""


#: advantages (R,) and which are right and the best of their group (R,) -> what a rollout weighs
WEIGHTINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "positive": lambda a, best: a.clamp_min(0),
    "raft": lambda a, best: best.to(a),
    "awr": lambda a, best: a.exp().clamp_max(20),
}


class RewardWeighted(LatentPolicy):
    """No likelihood: the head is taught its own latents of good rollouts by its own loss, minus which stands for a
    log-probability. The record is the latent. ``weighting``: those that did better than their group, by how much
    (``positive``), the right ones among the best of their group (``raft``: RAFT 2304.06767), or all, by the
    exponential of how much better they did (``awr``: AWR 1910.00177).

    Raises:
        ValueError: the head draws without noise, so that its own latents are what it would give anyway.
    """

    steps = 1
    uses_head_loss = True

    def __init__(self, head: LatentHead, weighting: str = "positive"):
        super().__init__(head)
        if not head.is_stochastic:
            raise ValueError(
                f"policy RewardWeighted teaches a head its own latents, which a {type(head).__name__} "
                "gives already, as it draws without noise. Take a flow, diffusion or gaussian head."
            )
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting={weighting!r}: one of {', '.join(WEIGHTINGS)}.")
        self.weight = WEIGHTINGS[weighting]

    def log_prob(self, head, h, record):
        training = head.training
        head.eval()  # what it measures of latents in training are taught ones, and its own are narrower
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
    """Scores a latent under a normal density around what the head gives. The record is the head's noise, if it takes
    any, and the latent."""

    steps = 1

    def mean(self, head: LatentHead, h: torch.Tensor, record: torch.Tensor) -> torch.Tensor:
        return sample_head(head, h, record[:, :-1]).float()

    @abstractmethod
    def away(self, z: torch.Tensor, mean: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """(n, Z), (n, Z) -> (n,) half the squared distance in units of the density's spread at the latent ``at``."""

    def kl(self, head, h, other, other_h, record):
        """Exact, as both densities have one spread."""
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
            raise ValueError(f"sigma={sigma}, relative={relative}: more than 0.")
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
    """Noise of a share ``fraction`` of a channel's ``spread`` on what the head gives; the noise is the action.

    A density over Z channels makes ratios that no clip can hold, so it is tempered by ``norm``: ``sum`` (the true
    ratio), ``sqrt`` or ``mean``, which divide by 1, the root of the channels, or their number. With a ``basis`` (Z, r)
    of orthonormal columns the noise stays within it, and ``sum`` counts r coordinates.
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
            raise ValueError(f"norm={norm!r}: 'sum', 'sqrt' or 'mean'.")
        if fraction <= 0:
            raise ValueError(f"fraction={fraction}: more than 0, or nothing is explored.")
        self.fraction, self.spread, self.basis = fraction, spread, basis
        self.channels = head.latent_width if basis is None else basis.shape[1]
        self.divisor = {"sum": 1, "sqrt": self.channels**0.5, "mean": self.channels}[norm]
        self.num_draws = int(head.is_stochastic) + 1

    @staticmethod
    def directions(latents: torch.Tensor, rank: int) -> torch.Tensor:
        """(Z, rank) the first principal directions of latents (n, Z): a basis on which they really differ. Raises
        ValueError for a rank that they do not have."""
        if not 1 <= rank <= min(latents.shape):
            raise ValueError(f"rank={rank}: from 1 to {min(latents.shape)}, as latents have so many directions.")
        centred = latents.float() - latents.float().mean(0)
        return torch.linalg.svd(centred, full_matrices=False).Vh[:rank].T.contiguous()

    def sample(self, head, h, noise):
        own, xi = noise[:, :-1], noise[:, -1]
        if self.basis is not None:
            xi = xi[:, : self.channels] @ self.basis.to(xi).T
        z = sample_head(head, h, own)
        z = z + (self.spread * self.fraction * xi).to(z.dtype)
        return z, torch.cat([own.to(z.dtype), z[:, None]], 1)

    def acted(self, z: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """(n, channels) the noise that brought a mean to a latent."""
        a = (z - mean) / (self.spread * self.fraction)
        return a if self.basis is None else a @ self.basis.to(a)

    def away(self, z, mean, at):
        return self.acted(z, mean).square().sum(-1) / 2 / self.divisor

    def log_prob(self, head, h, record):
        z = record[:, -1].float()
        volume = self.channels * (math.log(self.fraction) + LOG_ROOT)
        if self.basis is None:
            volume = (
                volume + torch.as_tensor(self.spread, device=z.device).float().expand(head.latent_width).log().sum()
            )
        return (-self.away(z, self.mean(head, h, record), z) - volume / self.divisor)[:, None]


class Chain(LatentPolicy, ABC):
    """Scores each step of a denoising chain that is made noisy (Flow-GRPO 2505.05470, DDPO 2305.13301), or, of each
    latent, ``window`` of them in a row that chance picks (0: all; after the last comes the first, so that each is
    picked equally often), which keeps less of the chain and asks the network less often.

    The record are the chain's states in the space of the latent (around the regression mean of a residual head, in
    units of its scale), so a mean that moves changes how likely they were; of a window, those within it, after a row
    that holds where it begins. A log-probability is the mean over channels.
    """

    clip = 5e-4

    def __init__(self, head: LatentHead, window: int = 0):
        self.first = int(head.mean is not None)  # of a residual head, the state the chain begins with is an action too
        self.whole = self.transitions(head) + self.first
        if not 0 <= window <= self.whole:
            raise ValueError(f"window={window}: from 1 to the {self.whole} steps of a latent, or 0 for all.")
        self.window, self.steps = window % self.whole, window or self.whole
        super().__init__(head)
        self.num_draws = self.transitions(head) + 1 + bool(self.window)

    def transitions(self, head: LatentHead) -> int:
        return head.steps

    @abstractmethod
    def step(self, head: LatentHead, j: int, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Where step j goes from x (n, Z): the mean (n, Z) and the spread of what comes next."""

    def around(self, head: LatentHead, h: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Mean (n, Z) and scale of the space a residual head denoises in."""
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
        """(n, 3 + window, Z) the window of each chain (n, J, Z) that a normal ``chance`` (n,) picks."""
        start = (torch.special.ndtr(chance.float()) * self.whole).long().clamp_max(self.whole - 1)
        at = (start[:, None] + torch.arange(self.window + 2, device=start.device)) % (self.whole + 1)
        kept = self.padded(record).gather(1, at[..., None].expand(-1, -1, record.shape[-1]))
        return torch.cat([start.to(record)[:, None, None].expand(-1, 1, record.shape[-1]), kept], 1)

    def padded(self, record: torch.Tensor) -> torch.Tensor:
        """(n, whole + 1, Z): every action has a state before it, which the first of a residual head does not read."""
        return torch.cat([record[:, :1].expand(-1, self.first, -1), record], 1)

    def actions(self, start: int, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """The transition of each action from ``start`` on (-1: the first state itself), and the states (n, Z) before
        and after it."""
        for i in range(self.steps):
            action = (start + i) % self.whole
            at = (action - start) % (self.whole + 1)
            yield action - self.first, states[:, at], states[:, at + 1]

    def log_prob(self, head, h, record):
        return self.by_window(record, lambda rows, start, states: self.scores(head, h[rows], start, states))

    def by_window(self, record: torch.Tensor, scores: Callable) -> torch.Tensor:
        """(n, steps) ``scores(rows, start, states)`` of the rows whose states begin before the same action."""
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
        """(n, Z) -> (n,) mean log density of what is that far from the mean of a normal."""
        return -((away / spread).square() / 2).mean(-1) - math.log(spread) - LOG_ROOT

    def kl(self, head, h, other, other_h, record):
        """Exact for each step, of policies whose chains have one scale."""
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
    """The flow head's Euler chain with the noise of the SDE that has the same marginals (Flow-GRPO 2505.05470, eq. 9);
    ``noise`` 0 would be the chain itself."""

    def __init__(self, head: LatentHead, noise: float = 0.7, window: int = 0):
        if not isinstance(head, FlowHead):
            raise ValueError(f"policy FlowSde is one of a flow head, not of a {type(head).__name__}.")
        if noise <= 0:
            raise ValueError(f"noise={noise}: more than 0, or nothing is explored.")
        super().__init__(head, window)
        self.noise = noise

    def step(self, head, j, x, h):
        times, sigmas = euler(head.steps)
        now, length = sigmas[j], sigmas[j + 1] - sigmas[j]
        s2 = self.noise**2 * now / (1 - (sigmas[1] if now == 1 else now)) if head.steps > 1 else self.noise**2
        v = head.net(x, times[j].to(h.device).expand(len(h)), h)
        middle = x * (1 + s2 * length / (2 * now)) + v * (1 + s2 * (1 - now) / (2 * now)) * length
        return middle, math.sqrt(-s2 * length)


class DdpmSde(Chain):
    """The diffusion head's chain with the noise of DDPM (DDPO 2305.13301), by diffusers' scheduler at eta = 1."""

    FLOOR = 1e-3  # of a spread: the last step has none

    def __init__(self, head: LatentHead, window: int = 0):
        if not isinstance(head, DiffusionHead):
            raise ValueError(f"policy DdpmSde is one of a diffusion head, not of a {type(head).__name__}.")
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

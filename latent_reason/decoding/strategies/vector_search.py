"""The search for vectors in a prompt, without a model: its options, the rewards of predictions, noise and updates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch

from ..sampling import noise_counters, normal, row_keys

Reward = Literal["entropy", "normalized_entropy", "confidence"]
Estimator = Literal["antithetic", "reinforce"]
REWARDS: tuple[Reward, ...] = get_args(Reward)


@dataclass(frozen=True)
class PromptVectors:
    """How the vectors of a prompt are optimised. The default is ours; ``PromptVectors.PAPER`` is DMLR's formula and
    ``PromptVectors.LTPO`` that of LTPO's released code.

    Example:
        >>> options = replace(PromptVectors.PAPER, sigma_unit="rms")

    Args:
        length: L, how many vectors.
        patches: m, how many image tokens stand behind each. 0: none (LTPO). With patches, every candidate has them; only
            the first vectors are also scored without.
        iterations: T. 0 decodes the prompt as it is.
        top_k: k of the reward.
        sigma: standard deviation of the perturbations, which ``decay`` multiplies after each iteration.
        sigma_unit: ``rms`` (times the RMS of the first vectors) or ``absolute``. DMLR gives 10 % without saying of what.
        step: ``antithetic``: the RMS of a step over that of the first vectors, which decays as sigma does.
            ``reinforce``: eta of the formula.
        samples: perturbations an iteration; with ``antithetic``, each is also scored with the opposite sign.
        estimator: ``reinforce`` is t + eta * R * xi / sigma^2, the formula of both papers, averaged over samples.
            ``antithetic`` (ours) weights noise u by the differences R(t + sigma u) - R(t - sigma u), which need no
            baseline, and takes a step of a fixed length in that direction.
        reward: how sure the model is of what follows each vector and its patches, as the mean over the vectors of
            ``entropy``, 1 - H with H the sum of -p log p over the k likeliest tokens
            (DMLR); of ``normalized_entropy`` (ours), 1 - H / log k with their probabilities made to sum to 1, so that
            it lies in [0, 1] (without this, a flat distribution over a large vocabulary has a low H too); or of
            ``confidence``, the mean of -log p over the k tokens (LTPO).
        patience: stop after so many iterations without a better reward; None: never.
        patch_positions: patches take positions on the text ``line``, and what follows them shifts; or each keeps that
            of its token in the ``image``. The papers do not say.
        start: text whose tokens, repeated, are the first vectors.

    Raises:
        ValueError: a value that is out of its range.
    """

    PAPER: ClassVar[PromptVectors]
    LTPO: ClassVar[PromptVectors]
    OURS: ClassVar[PromptVectors]

    length: int = 4
    patches: int = 2
    iterations: int = 15
    top_k: int = 10
    sigma: float = 0.1
    sigma_unit: Literal["absolute", "rms"] = "rms"
    decay: float = 0.95
    step: float = 0.05
    samples: int = 4
    estimator: Estimator = "antithetic"
    reward: Reward = "normalized_entropy"
    patience: int | None = 5
    patch_positions: Literal["line", "image"] = "line"
    start: str = "..."

    def __post_init__(self):
        for name, least in (("length", 1), ("patches", 0), ("iterations", 0), ("samples", 1), ("top_k", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}.")
        for name in ("sigma", "step"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: must be a positive number.")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay}: must be more than 0 and at most 1.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience}: must be at least 1, or None to take all iterations.")
        choices = {"sigma_unit": ("absolute", "rms"), "patch_positions": ("line", "image")}
        for name, known in (choices | {"estimator": get_args(Estimator), "reward": REWARDS}).items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(known)}.")


PromptVectors.OURS = PromptVectors()
PromptVectors.PAPER = PromptVectors(
    sigma_unit="absolute", step=1e-3, samples=1, estimator="reinforce", reward="entropy", patience=None
)
PromptVectors.LTPO = PromptVectors(
    length=8,
    patches=0,
    iterations=10,
    sigma=4.0,
    sigma_unit="absolute",
    decay=0.9,
    step=0.04,
    samples=1,
    estimator="reinforce",
    reward="confidence",
    patience=None,
)


def reward_of_logits(logits: torch.Tensor, reward: Reward, top_k: int) -> torch.Tensor:
    """Logits (..., V) -> how sure the prediction is (...), in fp32; see :class:`PromptVectors`."""
    log_p = logits.float().log_softmax(-1).topk(top_k, -1).values
    if reward == "confidence":
        return -log_p.mean(-1)
    if reward == "normalized_entropy":
        log_p = log_p.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return 1 - entropy / (math.log(top_k) if reward == "normalized_entropy" else 1)


def antithetic_gradient(rewards: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The direction in which rewards grow, by evolution strategies with mirrored noise (1703.03864): (...) for noise u
    (n, ...) and ``rewards`` (2n,), those at t + sigma u before those at t - sigma u. It is sigma times the gradient, on
    average."""
    plus, minus = rewards.chunk(2)
    return torch.einsum("n,n...->...", (plus - minus).to(noise.dtype), noise) / len(rewards)


def rms(x: torch.Tensor) -> torch.Tensor:
    """Root mean square over the last axis."""
    return x.square().mean(-1).sqrt()


class Search:
    """The state of the search of one item: vectors (L, D) in fp32, sigma and step in units of the embeddings."""

    def __init__(self, options: PromptVectors, start: torch.Tensor, seed: int, row_id: int):
        self.options, self.vectors, self.iteration = options, start.float(), 0
        scale = float(rms(self.vectors.flatten()))
        self.sigma = options.sigma * (scale if options.sigma_unit == "rms" else 1.0)
        self.step = options.step * (scale if options.estimator == "antithetic" else 1.0)
        self.key = row_keys(seed, [row_id]).to(start.device)
        self.counters = noise_counters(options.samples * start.numel(), start.device)

    def perturbations(self) -> torch.Tensor:
        """(n, L, D) standard normal noise of this iteration; negative positions of the row's random numbers are those
        that its answer does not use."""
        position = torch.full_like(self.key, -1 - self.iteration)
        return normal(self.key, position, self.counters).view(-1, *self.vectors.shape).to(self.vectors.dtype)

    def candidates(self, noise: torch.Tensor) -> torch.Tensor:
        """(n, L, D), or (2n, L, D) with both signs."""
        signed = torch.cat([noise, -noise]) if self.options.estimator == "antithetic" else noise
        return self.vectors + self.sigma * signed

    def update(self, noise: torch.Tensor, rewards: torch.Tensor) -> float:
        """Move the vectors by what the candidates of ``noise`` earned. Returns the length of the step over that of the
        vector, of the vector that moves most by this measure."""
        if self.options.estimator == "antithetic":
            gradient = antithetic_gradient(rewards, noise)
            move = self.step * gradient / rms(gradient.flatten()).clamp_min(1e-8)
            self.step *= self.options.decay
        else:  # xi = sigma u
            move = self.step / self.sigma * torch.einsum("n,n...->...", rewards.to(noise.dtype), noise) / len(noise)
        relative = float((rms(move) / rms(self.vectors).clamp_min(1e-12)).max())
        self.vectors, self.sigma = self.vectors + move, self.sigma * self.options.decay
        self.iteration += 1
        return relative

"""The interface of a latent policy, and the policies under which a latent has no likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from ...model.heads import LatentHead


class LatentPolicy:
    """One latent takes ``num_draws`` standard normals of width Z and consists of ``steps`` actions (0: it is no
    action). ``clip`` bounds its ratio to 1 - clip and 1 + clip.

    Raises:
        ValueError: the policy does not support this head.
    """

    clip = 0.2
    steps = 0
    uses_head_loss = False  # whether minus the head's own loss takes the place of a log-probability
    has_path = False  # whether a replay draws latents again, with the gradient of what follows them

    def __init__(self, head: LatentHead):
        if (head.needs_context or head.reads_slot) and self.has_record:
            raise ValueError(
                f"policy {type(self).__name__}: a {type(head).__name__} reads more than the state, so a latent is no "
                "function of the state and its noise. Use the policy Mask."
            )
        self.num_draws = int(head.is_stochastic)

    @property
    def has_log_prob(self) -> bool:
        """Whether latents have a likelihood."""
        return bool(self.steps)

    @property
    def has_record(self) -> bool:
        """Whether a replay needs a record of the latents."""
        return self.has_log_prob or self.has_path

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
    """Latents (n, Z) of a head for states and its noise (n, J, Z), of which a stochastic head takes the first."""
    return head.sample(h, noise=noise[:, 0]) if head.is_stochastic else head.sample(h)


class Mask(LatentPolicy):
    """Latents are part of the environment; only text and control tokens are actions (LVR 2509.24251). A stochastic head
    still explores."""


class Pathwise(LatentPolicy):
    """Latents are a function of weights, earlier tokens and recorded noise, and the gradient of the text after them goes
    through them into head and trunk. That is the exact policy gradient for given noise (reparameterization, 1312.6114);
    :class:`Mask` drops this path. It needs no likelihood of latents, so the head may be deterministic.

    A replay draws the latents again from their noise. With ``path="one"`` it makes one pass over the latents of the
    rollout, draws all of them again from its states, and makes a second pass over what it has drawn. That is exact but
    for the path from a latent to later latents. With ``path="full"`` it draws one latent after the other through the
    cache, which is exact and needs a pass for each column of latents.

    ``credit`` says which text the gradient of a latent comes from. With ``"rollout"`` it is all text after it. With
    ``"span"`` it is the text up to the first latent of the next span alone, with the decision to open it: the replay
    scores that text with the latents of its own span drawn, and those of earlier spans as constants of the same value.
    So each sketch answers for the text that it serves directly. This is ours, and biased: it leaves out what a sketch
    does to the text after the next one. In return a latent has the score of fewer tokens in its gradient, and so less
    variance. Log-probabilities do not change, and where no row has more than one span, neither do gradients. It takes a
    pass (with ``path="full"``, all its passes) for each span of the row with most of them.

    A reward of the sketch alone, such as whether it is right, can not weight this gradient in place of the advantage:
    given the sketch, the score of the text after it has mean zero, so the product has too, and would be noise.

    The record is the noise. ``explore`` adds noise of that many ``spread`` (stds of a channel) to what the head draws.

    Raises:
        ValueError: an option that does not exist, or a head that reads more than the state.
    """

    has_path = True

    def __init__(
        self,
        head: LatentHead,
        path: Literal["one", "full"] = "one",
        explore: float = 0.0,
        spread: float | torch.Tensor = 1.0,
        credit: Literal["rollout", "span"] = "rollout",
    ):
        super().__init__(head)
        if path not in ("one", "full"):
            raise ValueError(f"path={path!r}: must be 'one' or 'full'.")
        if credit not in ("rollout", "span"):
            raise ValueError(f"credit={credit!r}: must be 'rollout' or 'span'.")
        if explore < 0:
            raise ValueError(f"explore={explore}: must be 0 or more.")
        self.path, self.credit, self.explore, self.spread = path, credit, explore, spread
        self.num_draws = int(head.is_stochastic) + bool(explore)

    def sample(self, head, h, noise):
        z = sample_head(head, h, noise)
        if self.explore:
            z = z + (self.explore * self.spread * noise[:, -1]).to(z.dtype)
        return z, noise


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

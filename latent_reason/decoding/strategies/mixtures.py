"""Text positions that are fed a mixture of token embeddings in place of one token: Soft Thinking, SwiReasoning, LEAD.

The weights of a mixture are next-token probabilities. Control tokens and other tokens that may not be written have no
part in it. A row is never fed a mixture inside a span of latents, where the rule is suspended, nor once its answer has
begun. What a row shows at such a position is the most probable token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...model.reasoner import LatentReasoner
from ..rows import Rows


class Mixed(NamedTuple):
    """Rows (S,) that are fed a mixture now, these vectors (S, D), and rows that are forced to close their reasoning."""

    soft: torch.Tensor
    vectors: torch.Tensor
    closing: torch.Tensor


@dataclass(frozen=True)
class Mixture(ABC):
    """Knobs that all of them have.

    Args:
        top_n: how many tokens a mixture has, with weights that sum to 1. 1 is the token itself.
        temperature: of the weights.
        answer_marker: text that begins the answer. From it on, a row writes tokens.
        close_phrase: text that a row is forced to write where its reasoning is closed ('': nothing).
    """

    top_n: int = 10
    temperature: float = 1.0
    answer_marker: str = "\\boxed{"
    close_phrase: str = ""

    def __post_init__(self):
        if self.top_n < 1 or self.temperature <= 0:
            raise ValueError(f"top_n={self.top_n}, temperature={self.temperature}: must be at least 1 and more than 0.")

    def bind(self, model: LatentReasoner) -> Mixer:
        """What applies it to rows of a model."""
        return Mixer(self, model)

    def first_state(self, rows: int, device: torch.device) -> dict[str, torch.Tensor]:
        """What is kept of each row, as tensors (rows,)."""
        return {}

    @abstractmethod
    def choose_soft(self, state: dict[str, torch.Tensor], entropy: torch.Tensor, free: torch.Tensor) -> Mixed:
        """Rows among ``free`` (S,) that are fed a mixture now, by the entropy (S,) of the next token in nats; and rows
        that close their reasoning. Moves ``state`` on. ``vectors`` hold the weight (S,) that the mixture has against
        :meth:`anchor`."""

    def anchor(self, model: LatentReasoner) -> torch.Tensor | None:
        """(D,) the vector that a mixture is moved toward in its first step; None: none."""
        return None


class Mixer:
    """A mixture rule on one model. The state of its rows lies in ``rows.strategy``."""

    def __init__(self, rule: Mixture, model: LatentReasoner):
        self.rule, self.model, v = rule, model, model.vocabulary
        self.discrete = torch.tensor([v.open, v.end], device=model.device)
        self.forbidden = model.forbidden_tokens()[0].index_fill(0, self.discrete, True)  # by id: no part of a mixture
        self.marker = torch.tensor(v.encode_text(rule.answer_marker) or [-1], device=model.device)
        self.phrase = torch.tensor(v.encode_text(rule.close_phrase), dtype=torch.long, device=model.device)
        self.anchor = rule.anchor(model)

    def first_state(self, rows: int) -> dict[str, torch.Tensor]:
        """The state of rows that begin."""
        device = self.model.device
        tail = torch.full((rows, len(self.marker)), -2, device=device)
        locked = torch.zeros(rows, dtype=torch.bool, device=device)
        return {"tail": tail, "locked": locked, **self.rule.first_state(rows, device)}

    def mix(
        self, rows: Rows, logits: torch.Tensor, ids: torch.Tensor, writing: torch.Tensor, forced: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which of the rows that are ``writing`` (S,) are fed a mixture, the ids they show, and the vectors (S, D).

        Args:
            logits: (S, V) of the next token, fp32.
            ids: (S,) what rows would write; ``forced`` (S,) says which of them they were forced to.
        """
        state = rows.strategy
        best = logits.masked_fill(self.forbidden, float("-inf")).argmax(-1)
        log_probs = logits.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        free = writing & ~forced & ~state["locked"] & ~torch.isin(ids, self.discrete)
        soft, weight, closing = self.rule.choose_soft(state, entropy, free)
        shown = torch.where(soft, best, ids)
        tail = torch.cat([state["tail"][:, 1:], shown[:, None]], 1)
        state["tail"] = torch.where(writing[:, None], tail, state["tail"])
        begun = writing & (state["tail"] == self.marker).all(-1)
        state["locked"] = state["locked"] | begun | closing
        if len(self.phrase):
            rows.force(closing, self.phrase)
        return soft, shown, self.vectors(logits, weight)

    def vectors(self, logits: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(S, D) mixtures, each with ``weight`` (S,) against the anchor."""
        allowed = (logits / self.rule.temperature).masked_fill(self.forbidden, float("-inf"))
        top = allowed.topk(min(self.rule.top_n, allowed.shape[-1]))
        embeds = self.model.backbone.embed(top.indices)
        mixed = (top.values.softmax(-1)[..., None] * embeds.float()).sum(1)
        if self.anchor is not None:
            mixed = mixed.lerp(self.anchor.float().expand_as(mixed), 1 - weight[:, None])
        return mixed.to(embeds.dtype)


@dataclass(frozen=True)
class SoftThinking(Mixture):
    """A mixture at every text position until the answer begins (2505.15778).

    Args:
        cold_entropy, cold_steps: after so many steps in a row with an entropy below ``cold_entropy`` nats, the
            reasoning is closed (0 steps: never).
    """

    cold_entropy: float = 0.1
    cold_steps: int = 0

    def first_state(self, rows, device):
        return {"cold": torch.zeros(rows, dtype=torch.long, device=device)}

    def choose_soft(self, state, entropy, free):
        cold = torch.where(entropy < self.cold_entropy, state["cold"] + 1, 0)
        state["cold"] = torch.where(free, cold, state["cold"])
        closing = free & (state["cold"] >= self.cold_steps) if self.cold_steps else torch.zeros_like(free)
        return Mixed(free & ~closing, torch.ones_like(entropy), closing)


@dataclass(frozen=True)
class EntropySwitch(Mixture):
    """Mixtures while the entropy of the next token is above what it was at the last switch (SwiReasoning 2510.05069).

    A row turns to tokens at once when the entropy falls below its value at the last switch, and to mixtures when it
    rises above it and the row has written at least ``window`` tokens since. Entropies are of the whole distribution at
    temperature 1.

    Args:
        window: as above. With ``math.inf`` a row never turns to mixtures.
        first_weight: weight of the first mixture of a segment against :meth:`anchor`.
        max_switches: after so many turns from mixtures to tokens, the reasoning is closed and tokens are written.
        starts_soft: whether a row begins with mixtures.

    The released code also feeds a mixture at the first token after a segment. Here the token that is shown is fed.
    """

    top_n: int = 50
    window: float = 128
    first_weight: float = 1.0
    max_switches: int = 5
    starts_soft: bool = False

    def first_state(self, rows, device):
        zero = torch.zeros(rows, dtype=torch.long, device=device)
        level = torch.full((rows,), float("nan"), device=device)  # none yet
        soft = torch.full((rows,), self.starts_soft, device=device)
        return {"level": level, "stay": zero, "switches": zero.clone(), "soft": soft, "new": soft.clone()}

    def choose_soft(self, state, entropy, free):
        level = torch.where(state["level"].isnan(), entropy, state["level"])
        to_tokens = free & state["soft"] & (entropy < level)
        to_soft = free & ~state["soft"] & (entropy > level) & (state["stay"] >= self.window)
        turned = to_tokens | to_soft
        state["level"] = torch.where(turned | (free & state["level"].isnan()), entropy, state["level"])
        state["switches"] = state["switches"] + to_tokens
        closing = to_tokens & (state["switches"] >= self.max_switches)
        state["soft"] = (state["soft"] | to_soft) & ~to_tokens
        state["stay"] = torch.where(turned, 0, state["stay"] + free)
        soft = free & state["soft"]
        is_first = soft & (to_soft | state["new"])
        state["new"] = state["new"] & ~soft
        return Mixed(soft, torch.where(is_first, self.first_weight, 1.0), closing)


@dataclass(frozen=True)
class SwiReasoning(EntropySwitch):
    """SwiReasoning (2510.05069): the first mixture of a segment has the weight ``first_weight`` against the embedding
    of ``open_phrase``, the token that opens thinking ('': it is the mixture alone)."""

    first_weight: float = 0.6
    open_phrase: str = ""

    def anchor(self, model):
        return mean_embedding(model, [self.open_phrase]) if self.open_phrase else None


@dataclass(frozen=True)
class Lead(EntropySwitch):
    """LEAD (2603.13366): the first mixture of a segment is moved toward the mean embedding of the tokens around and of
    an image, with the weight 1 - ``first_weight`` = 0.4."""

    first_weight: float = 0.6

    def anchor(self, model):
        layout = model.vocabulary.layout
        return mean_embedding(model, [layout.image_open, layout.image, layout.image_close])


def mean_embedding(model: LatentReasoner, texts: Sequence[str]) -> torch.Tensor:
    """(D,) the mean of the embeddings of texts, each the mean of its tokens."""
    ids = [model.vocabulary.encode_text(text) for text in texts]
    return torch.stack(
        [model.backbone.embed(torch.tensor(one, device=model.device)).mean(0) for one in ids if one]
    ).mean(0)

"""Rewards of reinforcement learning: ``reward(group) -> floats``, one for each rollout of one prompt.

A recipe names those it wants with their weights (``rl.rewards: {accuracy: 1.0, format: 0.1}``), ours by name, anyone
else's by dotted path (``package.module.function``). What is marked as ``process`` is paid to right answers alone, so
that no wrong rollout outranks a right one for its manners.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from latent_reason.files import nearest
from latent_reason.tasks import Item
from latent_reason.tasks.checkers import boxed


@dataclass(frozen=True)
class Graded:
    """One rollout as rewards see it: the ``score`` of its task in 0-1, what it wrote and how much it took."""

    item: Item
    text: str
    score: float
    words: int
    latents: int
    spans: int
    ended: bool
    budget: int = 1  # positions it could have taken

    @property
    def right(self) -> bool:
        return self.score >= 1


Reward = Callable[[Sequence[Graded]], Sequence[float]]


def process(reward: Reward) -> Reward:
    """Mark a reward as one for how an answer was found."""
    reward.process = True
    return reward


def accuracy(group: Sequence[Graded]) -> list[float]:
    """The task's own measure."""
    return [one.score for one in group]


def hard(group: Sequence[Graded]) -> list[float]:
    """1 where answer and form are right, else 0 (Vision-R1 2503.06749)."""
    return [float(one.right and one.ended and boxed(one.text) is not None) for one in group]


def format(group: Sequence[Graded]) -> list[float]:
    """1 where an answer is boxed and the turn ended by itself."""
    return [float(one.ended and boxed(one.text) is not None) for one in group]


@process
def use_if_correct(group: Sequence[Graded]) -> list[float]:
    """1 where it sketched (DeepEyes 2505.14362)."""
    return [float(one.spans > 0) for one in group]


@process
def short(group: Sequence[Graded]) -> list[float]:
    """Minus how many deviations more positions it took than the group's right answers do, within -1 and 1
    (SketchThinker-R1, by rule)."""
    sizes = [one.words + one.latents for one in group if one.right]
    mean = sum(sizes) / max(len(sizes), 1)
    spread = math.sqrt(sum((n - mean) ** 2 for n in sizes) / max(len(sizes), 1))
    return [max(-1.0, min(1.0, (mean - one.words - one.latents) / spread)) if spread else 0.0 for one in group]


def overlong(group: Sequence[Graded]) -> list[float]:
    """0 up to 80 % of the budget, from there on falling to -1 at all of it (DAPO 2503.14476, eq. 13)."""
    return [-max(0.0, ((one.words + one.latents) / one.budget - 0.8) / 0.2) for one in group]


OURS: dict[str, Reward] = {f.__name__: f for f in (accuracy, hard, format, use_if_correct, short, overlong)}


def find(name: str) -> Reward:
    """A reward by name or dotted path. Raises ValueError where there is none."""
    if name in OURS:
        return OURS[name]
    module, _, function = name.rpartition(".")
    if not module:
        raise ValueError(f"rl.rewards: no reward {name!r}. {nearest(name, OURS)} Or give a dotted path.")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"rl.rewards: {name!r} cannot be imported ({error}).") from None


def paid(name: str, reward: Reward, group: Sequence[Graded]) -> list[float]:
    """What a reward gives to a group, after the rule about right answers.

    Raises:
        ValueError: it raised, gave another number of values, or one that is not finite; names it and the item.
    """
    where = f"reward {name!r} on item '{group[0].item.id}'"
    try:
        found = [float(value) for value in reward(group)]
    except Exception as error:  # whatever a plug-in does
        raise ValueError(f"{where} raised {type(error).__name__}: {error}") from error
    if len(found) != len(group):
        raise ValueError(f"{where} gave {len(found)} values for {len(group)} rollouts.")
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{where} gave {next(v for v in found if not math.isfinite(v))}.")
    return [value * (one.right if getattr(reward, "process", False) else 1) for value, one in zip(found, group,
                                                                                                  strict=True)]

"""Rewards of reinforcement learning: ``reward(group) -> floats``, one for each rollout of one prompt.

A recipe names those it wants with their weights (``rl.rewards: {accuracy: 1.0, format: 0.1}``), ours by name, anyone
else's by dotted path (``package.module.function``); ``score.NAME`` is another measure of the task, such as
``score.progress``, and ``trust.NAME`` pays one of train/rl/reward_inputs.py, or anyone else's measure by its path. What is
marked as ``process`` is paid to right answers alone, so that no wrong rollout outranks a right one for its manners;
``reward.wants`` names what has to be measured for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latent_reason.tasks import Item
from latent_reason.tasks.checkers import boxed

from . import reward_inputs
from .evidence_triples import HIDDEN, abstains, variant

TRUSTED_FOR = 500  # steps over which trust in a process reward falls to 1/e (SophiaVL-R1 2505.17018)


@dataclass(frozen=True)
class Graded:
    """One rollout as rewards see it: the ``score`` of its task in 0-1 (``scores``: all its measures), what it wrote and
    how much it took, what was ``measured`` of it, and the ``step`` of training."""

    item: Item
    text: str
    score: float
    words: int
    latents: int
    spans: int
    ended: bool
    budget: int = 1  # positions it could have taken
    scores: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    step: int = 0

    @property
    def right(self) -> bool:
        return self.score >= 1


Reward = Callable[[Sequence[Graded]], Sequence[float]]


def process(reward: Reward) -> Reward:
    """Mark a reward as one for how an answer was found."""
    reward.process = True
    return reward


def wants(*names: str) -> Callable[[Reward], Reward]:
    """Mark what has to be measured for a reward (train/rl/reward_inputs.py)."""

    def marked(reward: Reward) -> Reward:
        reward.wants = names
        return reward

    return marked


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
    return [-max(0.0, min(1.0, ((one.words + one.latents) / one.budget - 0.8) / 0.2)) for one in group]


@process
@wants("concluded")
def ver(group: Sequence[Graded]) -> list[float]:
    """1 where the reasoning leads to the answer (VER, by rule)."""
    return [one.measured["concluded"] for one in group]


@process
@wants("sketches_alone")
def sccm(group: Sequence[Graded]) -> list[float]:
    """1 where the sketches alone suffice to answer, and up to 0.4 more the fewer latents they take of the most in the
    group (SCCM, operational)."""
    most = max(max(one.latents for one in group), 1)
    return [one.measured["sketches_alone"] * (1 + 0.4 * (1 - one.latents / most)) for one in group]


def defacto(group: Sequence[Graded]) -> list[float]:
    """Of an item whose evidence is hidden, 1 for abstaining, else -1; of any other, 1 for the right answer, 0 for a
    wrong one and -1 for abstaining (DeFacto 2509.20912). Items come in three with ``rl.evidence_triples``."""
    return [
        (1.0 if abstains(one.text) else -1.0)
        if variant(one.item) == HIDDEN
        else -1.0
        if abstains(one.text)
        else float(one.right)
        for one in group
    ]


def trusted(measure: str) -> Reward:
    """A measure paid to right answers, as far as it can be trusted: less where wrong ones of the group have more of it,
    and less and less as training goes on; nothing where all answers are right, or all wrong (Trust-GRPO,
    SophiaVL-R1 2505.17018)."""

    @process
    @wants(measure)
    def trust(group: Sequence[Graded]) -> list[float]:
        right, wrong = ([one.measured[measure] for one in group if one.right == r] for r in (True, False))
        if not right or not wrong:
            return [0.0] * len(group)
        gap = sum(right) / len(right) - sum(wrong) / len(wrong)
        share = math.exp(min(gap, 0.0) - group[0].step / TRUSTED_FOR)
        return [share * one.measured[measure] for one in group]

    return trust


def scored(name: str) -> Reward:
    """Another measure of the task: partial credit."""

    def score(group: Sequence[Graded]) -> list[float]:
        if name not in group[0].scores:
            raise ValueError(f"the task has no measure {name!r}: {', '.join(group[0].scores)}")
        return [one.scores[name] for one in group]

    return score


OURS: dict[str, Reward] = {
    f.__name__: f for f in (accuracy, hard, format, use_if_correct, short, overlong, ver, sccm, defacto)
}


def check(weights: dict[str, float]) -> None:
    """Raises ValueError where a wrong rollout could outrank a right one: all that may be charged reaches half of what
    the answer weighs, or that and what is paid to any answer for its form all of it. What rewards of others do is not
    known."""
    answer = sum(weight for name, weight in weights.items() if name in ("accuracy", "hard", "defacto") and weight > 0)
    charged = sum(abs(weight) for name, weight in weights.items() if name in ("overlong", "short") or weight < 0)
    formal = max(weights.get("format", 0.0), 0.0)
    if answer and charged >= answer / 2:
        raise ValueError(
            f"rl.rewards: {charged:g} may be charged and the answer weighs {answer:g}, so a wrong rollout "
            "could outrank a right one. Charge less than half of what the answer weighs."
        )
    if answer and charged + formal >= answer:
        raise ValueError(
            f"rl.rewards: {formal:g} is paid for the form of any answer, {charged:g} may be charged, and "
            f"the answer weighs {answer:g}, so a wrong rollout could outrank a right one. Pay less for "
            "the form."
        )


def find(name: str) -> Reward:
    """A reward by name or dotted path. Raises ValueError where there is none."""
    kind, _, rest = name.partition(".")
    if kind == "score":
        return scored(rest)
    try:
        if kind != "trust":
            return reward_inputs.named(name, OURS, "reward")
        reward_inputs.find(rest)
    except ValueError as error:
        raise ValueError(f"rl.rewards: {error}") from None
    return trusted(rest)


class Failed(ValueError):
    """A reward that could not be paid to a group."""


def paid(name: str, reward: Reward, group: Sequence[Graded]) -> list[float]:
    """What a reward gives to a group, after the rule about right answers.

    Raises:
        Failed: it raised, gave another number of values, or one that is not finite; names it and the item.
    """
    where = f"reward {name!r} on item '{group[0].item.id}'"
    try:
        found = [float(value) for value in reward(group)]
    except Exception as error:  # whatever a plug-in does
        raise Failed(f"{where} raised {type(error).__name__}: {error}") from error
    if len(found) != len(group):
        raise Failed(f"{where} gave {len(found)} values for {len(group)} rollouts.")
    if not all(map(math.isfinite, found)):
        raise Failed(f"{where} gave {next(v for v in found if not math.isfinite(v))}.")
    return [
        value * (one.right if getattr(reward, "process", False) else 1) for value, one in zip(found, group, strict=True)
    ]

"""Rewards of reinforcement learning: ``reward(group) -> floats``, one for each rollout of a prompt.

A recipe lists rewards with their weights (``rl.rewards: {accuracy: 1.0, format: 0.1}``), by name or by dotted path
(``package.module.function``). ``score.NAME`` is another score of the task, such as ``score.progress``. ``trust.NAME``
rewards a measure of train/rl/reward_inputs.py, or of a dotted path. Rewards marked as ``process`` are granted to
correct answers only, so that a wrong answer never gets more than a correct one for them, unless a recipe says
``rl.process_rewards: all``. ``reward.wants`` names the
measures that a reward needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from latent_reason.tasks import Item
from latent_reason.tasks.checkers import boxed

from ..progress import console
from . import reward_inputs
from .evidence_triples import HIDDEN, abstains, variant

TRUST_DECAY_STEPS = 500  # steps after which the trust in a process reward is 1/e (SophiaVL-R1 2505.17018)


@dataclass(frozen=True)
class Graded:
    """One rollout, as rewards receive it."""

    item: Item
    text: str
    score: float  # of the task, 0 to 1
    words: int  # text tokens
    latents: int
    spans: int
    ended: bool  # by its own end token
    budget: int = 1  # largest number of positions
    scores: dict[str, float] = field(default_factory=dict)  # all scores of the task
    measured: dict[str, float] = field(default_factory=dict)  # train/rl/reward_inputs.py
    step: int = 0  # of training

    @property
    def is_correct(self) -> bool:
        return self.score >= 1


Reward = Callable[[Sequence[Graded]], Sequence[float]]


def process(reward: Reward) -> Reward:
    """Mark a reward as a process reward: it is granted to correct answers only."""
    reward.process = True
    return reward


def wants(*names: str) -> Callable[[Reward], Reward]:
    """Decorator: the measures that a reward needs (train/rl/reward_inputs.py)."""

    def mark(reward: Reward) -> Reward:
        reward.wants = names
        return reward

    return mark


def accuracy(group: Sequence[Graded]) -> list[float]:
    """The score of the task."""
    return [rollout.score for rollout in group]


def hard(group: Sequence[Graded]) -> list[float]:
    """1 if the answer is correct, boxed, and ended by itself (Vision-R1 2503.06749)."""
    return [float(rollout.is_correct and rollout.ended and boxed(rollout.text) is not None) for rollout in group]


def format(group: Sequence[Graded]) -> list[float]:
    """1 if an answer is boxed and the rollout ended by itself."""
    return [float(rollout.ended and boxed(rollout.text) is not None) for rollout in group]


@process
def use_if_correct(group: Sequence[Graded]) -> list[float]:
    """1 for a rollout with a sketch (DeepEyes 2505.14362)."""
    return [float(rollout.spans > 0) for rollout in group]


@process
def short(group: Sequence[Graded]) -> list[float]:
    """Standard score of the length among the correct rollouts of the group, negated and clipped to -1 and 1
    (SketchThinker-R1, by rule)."""
    sizes = [rollout.words + rollout.latents for rollout in group if rollout.is_correct]
    mean = sum(sizes) / max(len(sizes), 1)
    std = math.sqrt(sum((n - mean) ** 2 for n in sizes) / max(len(sizes), 1))
    return [max(-1.0, min(1.0, (mean - rollout.words - rollout.latents) / std)) if std else 0.0 for rollout in group]


def overlong(group: Sequence[Graded]) -> list[float]:
    """0 up to 80 % of the budget, then linear down to -1 at the full budget (DAPO 2503.14476, eq. 13)."""
    return [-max(0.0, min(1.0, ((rollout.words + rollout.latents) / rollout.budget - 0.8) / 0.2)) for rollout in group]


@process
@wants("concluded")
def ver(group: Sequence[Graded]) -> list[float]:
    """1 if the reasoning leads to the answer (VER, by rule)."""
    return [rollout.measured["concluded"] for rollout in group]


@process
@wants("sketches_alone")
def sccm(group: Sequence[Graded]) -> list[float]:
    """1 if the sketches alone suffice to answer, and up to 0.4 more for fewer latents than the longest rollout of the
    group (SCCM, operational)."""
    max_latents = max(max(rollout.latents for rollout in group), 1)
    return [rollout.measured["sketches_alone"] * (1 + 0.4 * (1 - rollout.latents / max_latents)) for rollout in group]


@process
@wants("sketch_right")
def sketch_right(group: Sequence[Graded]) -> list[float]:
    """The share of sketches that show the true state."""
    return [rollout.measured["sketch_right"] for rollout in group]


@process
@wants("sketch_useful")
def sketch_useful(group: Sequence[Graded]) -> list[float]:
    """How much the text after the sketches depends on them: a counterfactual with the sketches of another item."""
    return [rollout.measured["sketch_useful"] for rollout in group]


@process
@wants("latent_attention")
def attend_latents(group: Sequence[Graded]) -> list[float]:
    """Attention from later text to the latents, up to that of the model at the start of training (2605.18641)."""
    return [rollout.measured["latent_attention"] for rollout in group]


def defacto(group: Sequence[Graded]) -> list[float]:
    """Items with hidden evidence: 1 for abstaining, else -1. Other items: 1 for the correct answer, 0 for a wrong one,
    -1 for abstaining (DeFacto 2509.20912). Use it with ``rl.evidence_triples``."""
    return [
        (1.0 if abstains(rollout.text) else -1.0)
        if variant(rollout.item) == HIDDEN
        else -1.0
        if abstains(rollout.text)
        else float(rollout.is_correct)
        for rollout in group
    ]


def trust_reward(measure: str) -> Reward:
    """A measure as a reward of correct answers, scaled by trust. Trust is smaller if wrong answers of the group have a
    higher mean, and decays over training. The reward is 0 if all answers of a group are correct or all are wrong
    (Trust-GRPO, SophiaVL-R1 2505.17018)."""

    @process
    @wants(measure)
    def trust(group: Sequence[Graded]) -> list[float]:
        right, wrong = (
            [rollout.measured[measure] for rollout in group if rollout.is_correct == r] for r in (True, False)
        )
        if not right or not wrong:
            return [0.0] * len(group)
        gap = sum(right) / len(right) - sum(wrong) / len(wrong)
        trust_weight = math.exp(min(gap, 0.0) - group[0].step / TRUST_DECAY_STEPS)
        return [trust_weight * rollout.measured[measure] for rollout in group]

    return trust


def score_reward(name: str) -> Reward:
    """Another score of the task as a reward, for partial credit."""

    def score(group: Sequence[Graded]) -> list[float]:
        if name not in group[0].scores:
            raise ValueError(f"the task has no score {name!r}. Known: {', '.join(group[0].scores)}.")
        return [rollout.scores[name] for rollout in group]

    return score


REWARDS: dict[str, Reward] = {
    f.__name__: f
    for f in (
        accuracy,
        hard,
        format,
        use_if_correct,
        short,
        overlong,
        ver,
        sccm,
        sketch_right,
        sketch_useful,
        attend_latents,
        defacto,
    )
}


def check_weights(weights: dict[str, float], pays_wrong: bool = False) -> None:
    """Raises ValueError if a wrong rollout could get more than a correct one: if all penalties together reach half of
    the weight of the answer, or penalties and the reward for the format, and with ``pays_wrong`` process rewards,
    together its full weight. Rewards of dotted paths are not checked."""
    answer = sum(weight for name, weight in weights.items() if name in ("accuracy", "hard", "defacto") and weight > 0)
    penalty = sum(abs(weight) for name, weight in weights.items() if name in ("overlong", "short") or weight < 0)
    paid = ("format", *(name for name, f in REWARDS.items() if pays_wrong and getattr(f, "process", False)))
    format_weight = sum(max(weights.get(name, 0.0), 0.0) for name in paid)
    if answer and penalty >= answer / 2:
        raise ValueError(
            f"rl.rewards: penalties add up to {penalty:g} and the answer has weight {answer:g}, so a wrong rollout "
            "could get more than a correct rollout. Keep penalties below half of the weight of the answer."
        )
    if answer and penalty + format_weight >= answer:
        raise ValueError(
            f"rl.rewards: {' and '.join(n for n in paid if weights.get(n))} has weight {format_weight:g}, penalties add up to "
            f"{penalty:g} and the answer has weight {answer:g}, so a wrong rollout could get more than a correct rollout. "
            "Use smaller weights."
        )


def find(name: str) -> Reward:
    """A reward by name or dotted path. Raises ValueError if there is none."""
    kind, _, rest = name.partition(".")
    if kind == "score":
        return score_reward(rest)
    try:
        if kind != "trust":
            return reward_inputs.find_by_name(name, REWARDS, "reward")
        reward_inputs.find(rest)
    except ValueError as error:
        raise ValueError(f"rl.rewards: {error}") from None
    return trust_reward(rest)


class RewardError(ValueError):
    """A reward that could not be computed for a group."""


def compute(name: str, reward: Reward, group: Sequence[Graded], pays_wrong: bool = False) -> list[float]:
    """The values of a reward for a group. Process rewards are 0 for wrong answers, unless ``pays_wrong``.

    Raises:
        RewardError: the reward raised an error, or returned another number of values or a value that is not finite. The
            message names the reward and the item.
    """
    where = f"reward {name!r} on item '{group[0].item.id}'"
    try:
        values = [float(value) for value in reward(group)]
    except Exception as error:  # a plug-in may raise anything
        raise RewardError(f"{where} raised {type(error).__name__}: {error}") from error
    if len(values) != len(group):
        raise RewardError(f"{where} returned {len(values)} values for {len(group)} rollouts.")
    if not all(map(math.isfinite, values)):
        raise RewardError(f"{where} returned {next(v for v in values if not math.isfinite(v))}.")
    is_process = getattr(reward, "process", False) and not pays_wrong
    return [value * (rollout.is_correct if is_process else 1) for value, rollout in zip(values, group, strict=True)]


def compute_all(
    rewards: dict[str, tuple[Reward, float]], groups: list[list[Graded]], warned: set[str], pays_wrong: bool = False
) -> tuple[dict[str, list[float]], list[bool]]:
    """Reward name -> value of each rollout, and whether a reward failed for each group. The values of failed groups
    are 0.

    Args:
        rewards: name -> function and weight.
        warned: rewards that have failed before. A warning is printed once for each.
        pays_wrong: whether process rewards are granted to wrong answers too.

    Raises:
        RewardError: a reward failed for every group.
    """
    values, errors = {name: [] for name in rewards}, []
    for group in groups:
        error = None
        try:
            group_values = {name: compute(name, reward, group, pays_wrong) for name, (reward, _) in rewards.items()}
        except RewardError as caught:
            error = caught
            group_values = {name: [0.0] * len(group) for name in rewards}
            if (reward_name := str(error).partition(" on item ")[0]) not in warned:
                console.print(
                    f"Warning: {error} Its group is left out (rewards/failed counts these groups).", style="yellow"
                )
                warned.add(reward_name)
        errors.append(error)
        for name, row_values in group_values.items():
            values[name] += row_values
    if all(errors):
        raise errors[0]
    return values, [error is not None for error in errors]

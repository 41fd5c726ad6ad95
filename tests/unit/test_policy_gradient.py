"""The table of objectives: hand-computed advantages, each row against its own definition written out, and what leaves
the denominators."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason.contracts.closeness import assert_close
from latent_reason.objectives.policy_gradient import (
    OBJECTIVES,
    PolicyObjective,
    all_tokens,
    center,
    constant,
    distance,
    leave_one_out,
    per_sequence,
    sequence_ratio,
    surrogate,
    zscore,
)


@pytest.mark.usefixtures("float64")
def test_advantages_of_a_group_by_hand():
    rewards, groups = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.zeros(4, dtype=torch.long)
    std = (4 * 0.25 / 3) ** 0.5
    assert_close(zscore(rewards, groups), torch.tensor([0.5, -0.5, -0.5, 0.5]) / (std + 1e-4))
    assert_close(center(rewards, groups), torch.tensor([0.5, -0.5, -0.5, 0.5]))
    assert_close(leave_one_out(rewards, groups), torch.tensor([2, -2, -2, 2]) / 3)


@pytest.mark.parametrize("advantage", [zscore, center, leave_one_out])
def test_equal_rewards_and_groups_of_one_say_nothing(advantage):
    rewards, groups = torch.tensor([0.7, 0.7, 0.7, 0.2]), torch.tensor([5, 5, 5, 2])
    assert torch.allclose(advantage(rewards, groups), torch.zeros(4), atol=1e-6)
    assert advantage(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-12, 12)), min_size=1, max_size=12), st.randoms())
@settings(deadline=None)
def test_groups_do_not_see_each_other_and_their_order_does_not_matter(given, random):
    groups, rewards = torch.tensor([g for g, _ in given]), torch.tensor([r / 4 for _, r in given], dtype=torch.float64)
    order = list(range(len(given)))
    random.shuffle(order)
    for advantage in (zscore, center, leave_one_out):
        whole = advantage(rewards, groups)
        assert_close(advantage(rewards[order], groups[order]), whole[order], scale=1e4)
        for group in groups.unique():
            own = groups == group
            assert_close(advantage(rewards[own], groups[own]), whole[own], scale=1e4)
            assert abs(float(whole[own].sum())) < 1e-9, "1e-4 beside a spread of 0 enlarges what rounding leaves"


@pytest.fixture
def batch(float64):
    """Six rollouts of two prompts, with positions that are no action and one rollout without any."""
    random = torch.Generator().manual_seed(0)
    old = -torch.rand(6, 7, generator=random) - 0.1
    new = (old + 0.4 * torch.randn(6, 7, generator=random)).requires_grad_()
    actions = torch.rand(6, 7, generator=random) > 0.4
    actions[5] = False
    return {"new": new, "old": old, "actions": actions, "advantages": torch.tensor([1.0, -1.0, 0.3, -0.2, 0.8, -0.9])}


def loss_of(objective: PolicyObjective, new, old, actions, advantages):
    return surrogate(objective, new, old, advantages, actions, weights_of(objective, actions))


def weights_of(objective: PolicyObjective, actions):
    table, size = objective.average(actions, 9)
    return table / size.clamp_min(1e-8)


def reference(name: str, new, old, actions, advantages, longest: int) -> torch.Tensor:
    """Every row in loops."""
    sums, means, count, rows = [], [], 0, 0
    for i in range(len(new)):
        at = actions[i].nonzero()[:, 0].tolist()
        if not at:
            continue
        logs = [new[i, t] - old[i, t] for t in at]
        whole = sum(logs) / len(logs)
        losses = []
        for log in logs:
            if name in ("rloo", "reinforce"):
                losses.append(-(log - log.detach()).exp() * advantages[i])
                continue
            low, high = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4)}[name]
            ratio = (whole if name == "gspo" else log).exp()
            losses.append(-torch.minimum(ratio * advantages[i], ratio.clamp(1 - low, 1 + high) * advantages[i]))
        sums.append(sum(losses))
        means.append(sum(losses) / len(losses))
        count, rows = count + len(at), rows + 1
    if name in ("grpo", "gspo"):
        return sum(means) / rows
    return sum(sums) / (count if name == "dapo" else len(new) * longest)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_is_its_definition(name, batch):
    found = loss_of(OBJECTIVES[name], **batch).loss
    wanted = reference(name, **batch, longest=9)
    assert_close(found, wanted)
    assert_close(*(torch.autograd.grad(loss, batch["new"])[0] for loss in (found, wanted)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_of_a_batch_add_up_to_it(name, batch):
    """As long as what an action weighs is known of the whole."""
    objective = OBJECTIVES[name]
    weights = weights_of(objective, batch["actions"])
    names = ("new", "old", "advantages", "actions")
    parts = [
        surrogate(objective, *(batch[name][rows] for name in names), weights[rows]).loss
        for rows in (slice(0, 2), slice(2, 5), slice(5, 6))
    ]
    assert_close(sum(parts), loss_of(objective, **batch).loss)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_is_clipped_where_nothing_has_changed(name, batch):
    found = loss_of(OBJECTIVES[name], **batch | {"new": batch["old"].clone().requires_grad_()})
    assert found.low == found.high == 0 and found.ratio_max == 1 and found.ratio_mean == 1
    assert torch.autograd.grad(found.loss, found.loss)[0] == 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_no_action_leaves_numerator_and_denominator(name, batch):
    plain = loss_of(OBJECTIVES[name], **batch)
    wide = {
        n: torch.cat([batch[n].detach(), torch.full((6, 4), v)], 1) for n, v in (("new", float("-inf")), ("old", -3.0))
    } | {"actions": torch.nn.functional.pad(batch["actions"], (0, 4)), "advantages": batch["advantages"]}
    more = loss_of(OBJECTIVES[name], **wide)
    for one, other in zip(vars(plain).values(), vars(more).values(), strict=True):
        assert_close(one, other)


def test_a_step_makes_what_did_better_likelier(batch):
    for name, objective in OBJECTIVES.items():
        new = batch["old"].clone().requires_grad_()
        loss_of(objective, **batch | {"new": new}).loss.backward()
        for i, advantage in enumerate(batch["advantages"]):
            pulled = new.grad[i][batch["actions"][i]]
            assert (pulled * advantage < 0).all(), f"{name}: the loss falls as it gets likelier"
        assert not new.grad[~batch["actions"]].any()


def test_dual_clipping_bounds_what_one_bad_action_can_cost(batch):
    batch["new"] = (batch["old"] + 3.0).requires_grad_()
    free = loss_of(OBJECTIVES["grpo"], **batch).loss
    dual = loss_of(dataclasses.replace(OBJECTIVES["grpo"], dual=3.0), **batch).loss
    assert dual < free
    (grad,) = torch.autograd.grad(dual, batch["new"])
    assert not grad.any(), "good ones are clipped above, bad ones at their bound"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_without_an_action_is_no_error(name):
    found = loss_of(
        OBJECTIVES[name], torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), torch.ones(2)
    )
    assert found.loss == 0 and found.low == found.high == 0


def test_what_is_wrong_is_named(batch):
    batch["old"][2, 3], batch["actions"][2, 3] = float("nan"), True
    with pytest.raises(ValueError, match="the old log-probability of the action at position 3 of rollout 2 is nan"):
        loss_of(OBJECTIVES["grpo"], **batch)
    for average in (all_tokens, constant):
        with pytest.raises(ValueError, match="needs the average per_sequence"):
            PolicyObjective(zscore, sequence_ratio, average)
    assert PolicyObjective(zscore, sequence_ratio, per_sequence)


def test_the_distance_to_a_reference_is_its_divergence():
    random = torch.Generator().manual_seed(0)
    p, q = (torch.randn(5, generator=random).log_softmax(-1) for _ in range(2))
    drawn = torch.multinomial(p.exp(), 200_000, replacement=True, generator=random)
    found = distance(p[drawn], q[drawn])
    assert (found >= 0).all()
    assert abs(found.mean() - (p.exp() * (p - q)).sum()) < 0.01

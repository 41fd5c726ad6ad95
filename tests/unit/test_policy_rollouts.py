"""Rollouts whose latents are actions: drawn by a policy, noted, and scored again by one parallel pass."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import CASES, eager

from latent_reason.contracts.closeness import assert_close
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.decoding.engine import generate
from latent_reason.model.batch import LATENT
from latent_reason.objectives.latent_policies import DdpmSde, FlowSde, Gaussian, Mask, RewardWeighted, Vlpo
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import rollout_states

pytestmark = pytest.mark.usefixtures("float64")
POLICIES = {
    "mask": (Mask, "flow"),
    "weighted": (RewardWeighted, "flow"),
    "vlpo": (Vlpo, "mlp"),
    "gaussian": (Gaussian, "mlp"),
    "gaussian of noise": (Gaussian, "flow"),
    "flow_sde": (FlowSde, "flow"),
    "ddpm_sde": (DdpmSde, "diffusion"),
}


@pytest.fixture(scope="module")
def rollouts() -> dict:
    return {}


@pytest.fixture
def drawn_by(make_backbone, make_traces, ready_once, rollouts):
    """``drawn_by(name)``: (reasoner, policy, rollout at temperature 0.7). Both are made once and copied."""

    def draw(name: str):
        kind, head = POLICIES[name]
        case = next(c for c in CASES if c.method == "modal_mixed")._replace(options={"k": 4, "head": head})
        reasoner = eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())
        policy = kind(reasoner.head)
        if name not in rollouts:
            prompt = reasoner.processor(make_traces(), generate=True)
            rollouts[name] = generate(
                reasoner, prompt, max_new_tokens=24, temperature=0.7, seed=5, latent_policy=policy
            )
        return reasoner, policy, copy.deepcopy(rollouts[name])

    return draw


@pytest.fixture(params=POLICIES)
def drawn(request, drawn_by):
    return drawn_by(request.param)


@pytest.fixture(params=[name for name in POLICIES if name != "mask"])
def scored(request, drawn_by):
    """Of a policy whose latents have a likelihood."""
    return drawn_by(request.param)


def test_replay_is_the_rollout(drawn):
    """The words at the temperature they were sampled at; latents with the ratio 1, as the states are the same."""
    reasoner, policy, rollout = drawn
    assert rollout.spans
    assert (
        rollout.policy_records is None
        if not policy.has_log_prob
        else len(rollout.policy_records) == int((rollout.token_type == LATENT).sum())
    )
    words, stops, latents, *_ = replay(reasoner, rollout, policy, temperature=0.7)
    assert_close(words + stops, rollout.sampled_log_prob)
    assert latents.shape == (0 if not policy.has_log_prob else len(rollout.policy_records), policy.steps)
    assert latents.isfinite().all()
    again = replay(reasoner, rollout, policy, temperature=0.7)
    again = again[:2] if policy.uses_head_loss else again  # a head's own loss draws fresh noise
    for one, other in zip(again, (words, stops, latents), strict=False):
        assert_close(one, other, scale=1.0)
    if policy.has_log_prob:
        latents.sum().backward()
        moved = [n for n, p in reasoner.named_parameters() if p.grad is not None and p.grad.any()]
        if isinstance(policy, Vlpo):  # drawn at its mean: what is left is what rounding left between two passes
            assert max(p.grad.abs().max() for _, p in reasoner.named_parameters() if p.grad is not None) < 1e-9
        else:
            assert any("layers.0" in n for n in moved) and any(n.startswith("head.") for n in moved)


def test_what_was_fed_is_what_was_noted_bit_for_bit(scored):
    reasoner, _, rollout = scored
    at, vectors = 0, rollout.latent_embeds[rollout.token_type == LATENT]
    for span in (s for s in rollout.spans if s.length):
        slot = torch.arange(span.length)
        grids = torch.tensor([span.grid] * span.length)
        fed = reasoner.to_embeddings(rollout.policy_records[at : at + span.length, -1], grids, slot)
        assert_close(fed, vectors[at : at + span.length])
        at += span.length
    assert at == len(vectors)


def test_a_row_is_drawn_and_scored_as_it_is_alone(scored, make_traces):
    reasoner, policy, rollout = scored
    latents = replay(reasoner, rollout, policy).latents
    first = 0
    for r, trace in enumerate(make_traces()):
        prompt = reasoner.processor([trace], generate=True)
        alone = generate(
            reasoner, prompt, max_new_tokens=24, temperature=0.7, seed=5, row_ids=[r], latent_policy=policy
        )
        n = int((alone.token_type == LATENT).sum())
        if n:
            assert_close(alone.policy_records, rollout.policy_records[first : first + n])
        if n and not policy.uses_head_loss:
            assert_close(replay(reasoner, alone, policy).latents, latents[first : first + n], scale=1.0)
        first += n
    assert first == len(rollout.policy_records)


def test_the_state_before_a_latent_scores_it_and_the_one_at_it_does_not(scored, monkeypatch):
    reasoner, policy, rollout = scored
    span = next(s for s in rollout.spans if s.length > 1)
    states = rollout_states(reasoner, rollout)

    def scores() -> torch.Tensor:
        torch.manual_seed(0)  # a head's own loss draws noise
        return replay(reasoner, rollout, policy).latents

    plain = scores()
    index = sum(s.length for s in rollout.spans[: rollout.spans.index(span)])

    def changed(at: int) -> torch.Tensor:
        """Scores where the state from which position ``at`` is predicted is another."""
        other = states.clone()
        other[span.row, at] += torch.linspace(-1, 1, other.shape[-1])
        monkeypatch.setattr("latent_reason.objectives.replay.rollout_states", lambda model, rollout: other)
        return (scores() - plain).abs().sum(1)

    moved = changed(span.start + 1)
    assert moved[index + 1] > 1e-4 and not torch.cat([moved[: index + 1], moved[index + 2 :]]).any()


def test_records_that_do_not_fit_are_refused(scored):
    reasoner, policy, rollout = scored
    n = len(rollout.policy_records)
    for records, found in ((None, "none"), (rollout.policy_records[1:], str(n - 1))):
        with pytest.raises(ValueError, match=rf"the rollout has {n} latents \(by row: .* and records of {found}"):
            replay(reasoner, replace(rollout, policy_records=records), policy)


def test_checkpointing_keeps_the_gradient(scored):
    reasoner, policy, rollout = scored

    def gradients():
        reasoner.zero_grad()
        torch.manual_seed(0)  # a head's own loss draws noise
        words, _, latents, *_ = replay(reasoner, rollout, policy)
        (words.sum() + latents.sum()).backward()
        return {n: p.grad.clone() for n, p in reasoner.named_parameters() if p.grad is not None}

    reasoner.train()
    plain = gradients()
    reasoner.backbone.set_gradient_checkpointing()
    assert_close(gradients(), plain, depth=16, scale=1.0)


def test_nothing_may_replace_what_a_policy_draws(drawn):
    reasoner, policy, rollout = drawn
    with pytest.raises(ValueError, match="latent_hook may not replace them"):
        generate(reasoner, rollout.prompt, latent_policy=policy, latent_hook=lambda *given: None)
    direct = copy.deepcopy(reasoner)
    direct.head = None
    with pytest.raises(ValueError, match="this model has no latent head"):
        generate(direct, rollout.prompt, latent_policy=policy)


def test_heads_that_read_may_be_masked(make_backbone, make_traces, ready_once):
    """Their latents are theirs, and words are scored as ever."""
    for case in (c for c in CASES if c.method in ("latent_sketchpad", "covt", "deepsketcher")):
        reasoner = eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())
        prompt, policy = reasoner.processor(make_traces(), generate=True), Mask(reasoner.head)
        out, plain = (
            generate(reasoner, prompt, max_new_tokens=16, temperature=0.7, seed=5, **options)
            for options in ({"latent_policy": policy}, {})
        )
        assert_close(out.latent_embeds, plain.latent_embeds)
        found = replay(reasoner, out, policy, temperature=0.7)
        assert_close(found.text + found.stops, out.sampled_log_prob)

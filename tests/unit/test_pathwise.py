"""Pathwise policies: latents drawn again from their noise, with the gradient of the text after them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import CASES, eager

from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.decoding.engine import generate
from latent_reason.model import heads
from latent_reason.model.batch import TEXT
from latent_reason.objectives.latent_policies import Mask, Pathwise
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import path_states, rollout_states

pytestmark = pytest.mark.usefixtures("float64")
HEADS = {"flow": {}, "mlp": {}, "identity": {}, "explore": {"explore": 0.3}}
SEED = 5


@pytest.fixture(params=HEADS)
def reasoner(request, make_backbone, make_traces, ready_once):
    """A model of two spans of four latents a row; its head explores where ``options`` say so."""
    method = "skila" if request.param == "identity" else "modal_mixed"
    case = next(c for c in CASES if c.method == method)
    if method == "modal_mixed":
        case = case._replace(options={"k": 4, "head": request.param if request.param != "explore" else "mlp"})
    made = eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())
    return made, HEADS[request.param]


def rolled(model, policy, make_traces, words="go on", **options):
    """A rollout of rows with a span, words, another span in some rows, and words of the model's own."""
    v, prompt = model.vocabulary, model.processor(make_traces(), generate=True)
    forced = [[*v.encode_text("a " * row), v.open] if row % 2 else [v.open] for row in range(len(prompt.ids))]
    options = {"max_new_tokens": 40, "forced_tokens": forced, "latents_per_span": 3} | options
    return generate(model, prompt, temperature=0.7, seed=SEED, latent_policy=policy, **options)


@pytest.mark.parametrize("path", ["one", "full"])
def test_replay_is_the_rollout(reasoner, path, make_traces):
    model, options = reasoner
    policy = Pathwise(model.head, path=path, **options)
    rollout = rolled(model, policy, make_traces)
    assert len(rollout.spans) >= len(rollout.ids) and policy.num_draws == rollout.policy_records.shape[1]
    found = replay(model, rollout, policy, 0.7)
    assert_close(found.text + found.stops, rollout.sampled_log_prob)
    assert_close(path_states(model, rollout, policy), rollout_states(model, rollout))
    assert found.latents.shape == (0, 0)


def test_the_gradient_is_that_of_decoding(reasoner, make_traces):
    """By differences: the engine draws the latents anew with weights a little to both sides, and writes the same text.
    One pass leaves out the paths from a latent to later latents; a constant latent leaves out all."""
    model, options = reasoner
    policies = {path: Pathwise(model.head, path=path, **options) for path in ("one", "full")}
    rollout = rolled(model, policies["full"], make_traces)
    weights = torch.randn(rollout.ids.shape) * (rollout.token_type == TEXT)
    texts = rollout.ids.masked_fill(rollout.ids == model.vocabulary.close, -1).masked_fill(
        rollout.token_type != TEXT, -1
    )
    forced = [[token for token in row if token >= 0] for row in texts.tolist()]
    trained = ("head.", "backbone.model.model.language_model")
    parameters = [p for name, p in model.named_parameters() if name.startswith(trained)]
    direction = [torch.randn_like(p) * p.std() for p in parameters]

    @torch.no_grad()
    def log_prob(shift: float) -> torch.Tensor:
        before = [p.clone() for p in parameters]
        for p, d in zip(parameters, direction, strict=True):
            p.add_(shift * d)
        again = rolled(model, policies["full"], make_traces, forced_tokens=forced)
        assert torch.equal(again.ids[:, : rollout.ids.shape[1]], rollout.ids)
        decisions = {name: getattr(rollout, name) for name in ("text_decisions", "open_allowed")}
        text = replay(model, replace(again, **decisions), None, 0.7).text
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old)
        return (text * weights).sum()

    expected = (log_prob(1e-6) - log_prob(-1e-6)) / 2e-6
    found = {}
    for name, policy in (*policies.items(), ("mask", Mask(model.head))):
        text = replay(model, rollout, policy, 0.7).text
        gradients = torch.autograd.grad((text * weights).sum(), parameters, allow_unused=True)
        found[name] = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    assert relative_error(found["full"], expected) < 1e-5
    assert relative_error(found["mask"], expected) > 1e-3


def test_one_pass_is_exact_for_a_single_latent(reasoner, make_traces):
    model, options = reasoner
    policies = [Pathwise(model.head, path=path, **options) for path in ("one", "full")]
    rollout = rolled(model, policies[0], make_traces, latents_per_span=1, max_spans=1)
    gradients = []
    for policy in policies:
        model.zero_grad()
        replay(model, rollout, policy, 0.7).text.sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert_close(*gradients, depth=32)
    assert any(n.startswith("head.") for n in gradients[0]) == bool(list(model.head.parameters()))


def test_a_row_alone_has_its_gradient_in_a_batch(reasoner, make_traces):
    model, options = reasoner
    policy = Pathwise(model.head, **options)
    rollout = rolled(model, policy, make_traces)
    whole = replay(model, rollout, policy, 0.7).text
    for row in range(len(rollout.ids)):
        prompt = model.processor([make_traces()[row]], generate=True)
        one = rollout.select([row], prompt)
        assert_close(replay(model, one, policy, 0.7).text[0], whole[row, : one.ids.shape[1]])


def test_exploration_is_recorded_noise(make_backbone):
    head = heads.make("mlp", 8, 6)
    policy, h, noise = Pathwise(head, explore=0.5, spread=torch.arange(6.0)), torch.randn(5, 8), torch.randn(5, 1, 6)
    z, record = policy.sample(head, h, noise)
    assert_close(z - head.sample(h), 0.5 * torch.arange(6.0) * noise[:, 0])
    assert torch.equal(record, noise)
    assert Pathwise(head).num_draws == 0 and Pathwise(heads.make("flow", 8, 6), explore=0.1).num_draws == 2


@pytest.mark.parametrize(("options", "words"), [({"path": "half"}, "'one' or 'full'"), ({"explore": -1}, "explore=-1")])
def test_options_that_do_not_exist_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Pathwise(heads.make("mlp", 8, 8), **options)


def test_a_rollout_without_noise_cannot_be_replayed(reasoner, make_traces):
    model, options = reasoner
    policy = Pathwise(model.head, **options)
    rollout = replace(rolled(model, policy, make_traces), policy_records=None)
    with pytest.raises(ValueError, match="records of none"):
        replay(model, rollout, policy)

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
from latent_reason.model.batch import TEXT, shift_right
from latent_reason.objectives.latent_policies import Mask, Pathwise
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import count_spans, path_states, places_of, rollout_states

pytestmark = pytest.mark.usefixtures("float64")
two_heads = pytest.mark.parametrize("reasoner", ["flow", "identity"], indirect=True)
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


class Held(Pathwise):
    """Draws the latents whose record says so, and takes the others as they are recorded. It tests others, so that it
    need not draw anything in decoding."""

    def sample(self, head, h, noise):
        z, _ = super().sample(head, h, noise[:, :-2])
        return torch.where(noise[:, -1] > 0, z, noise[:, -2]), noise


@two_heads
def test_with_credit_by_span_text_has_the_gradient_of_the_span_before_it(reasoner, make_traces):
    """By differences: for each span, the text up to the next one with the latents of earlier spans as they were, and
    those of this one drawn anew with weights a little to both sides."""
    model, options = reasoner
    policies = {credit: Pathwise(model.head, path="full", credit=credit, **options) for credit in ("span", "rollout")}
    policy, opened = policies["span"], [[model.vocabulary.open]] * len(make_traces())
    rollout = rolled(model, policy, make_traces, forced_tokens=opened, max_new_tokens=16)
    assert_close(path_states(model, rollout, policy), rollout_states(model, rollout))
    assert len(rollout.spans_of(0)) > 1, "a row with several spans"
    begun = shift_right(count_spans(rollout)[..., None])[..., 0][:, -rollout.ids.shape[1] :]
    weights, (places, _) = torch.randn(rollout.ids.shape) * rollout.text_decisions, places_of(rollout)
    with torch.no_grad():
        old, _ = policy.sample(model.head, replay(model, rollout, policy, 0.7).states, rollout.policy_records)
    parameters = [p for name, p in model.named_parameters() if name.startswith(("head.", "backbone.model.model.lang"))]
    direction = [torch.randn_like(p) * p.std() for p in parameters]
    held = Held(model.head, path="full", **options)

    @torch.no_grad()
    def log_prob(number: int, shift: float) -> torch.Tensor:
        before = [p.clone() for p in parameters]
        for p, d in zip(parameters, direction, strict=True):
            p.add_(shift * d)
        is_drawn = (places.span == number)[:, None, None].expand(-1, 1, old.shape[1]).to(old)
        records = torch.cat([rollout.policy_records, old[:, None], is_drawn], 1)
        text = replay(model, replace(rollout, policy_records=records), held, 0.7).text
        for p, kept in zip(parameters, before, strict=True):
            p.copy_(kept)
        return (text * weights * (begun == number)).sum()

    expected = sum((log_prob(n, 1e-6) - log_prob(n, -1e-6)) / 2e-6 for n in range(int(places.span.max()) + 1))
    found = {}
    for credit, policy in policies.items():
        text = replay(model, rollout, policy, 0.7).text
        gradients = torch.autograd.grad((text * weights).sum(), parameters, allow_unused=True)
        found[credit] = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    assert relative_error(found["span"], expected) < 1e-5
    assert relative_error(found["rollout"], expected) > 1e-4
    with torch.no_grad():
        for p, d in zip(parameters, direction, strict=True):
            p.add_(0.01 * d)
    moved = [replay(model, rollout, policy, 0.7).text for policy in policies.values()]
    assert_close(*moved)  # so the ratio of a further update is that of the words under the same noise


@two_heads
@pytest.mark.parametrize("path", ["one", "full"])
def test_credit_by_span_is_that_of_the_rollout_where_a_row_has_one_span(reasoner, path, make_traces):
    model, options = reasoner
    policies = [Pathwise(model.head, path=path, credit=credit, **options) for credit in ("rollout", "span")]
    rollout = rolled(model, policies[0], make_traces, max_spans=1)
    assert {len(rollout.spans_of(row)) for row in range(len(rollout.ids))} == {1}
    gradients = []
    for policy in policies:
        model.zero_grad()
        replay(model, rollout, policy, 0.7).text.sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert_close(*gradients, depth=32)


@two_heads
def test_with_credit_by_span_one_pass_is_exact_for_spans_of_one_latent(reasoner, make_traces):
    model, options = reasoner
    policies = [Pathwise(model.head, path=path, credit="span", **options) for path in ("one", "full")]
    rollout = rolled(model, policies[0], make_traces, latents_per_span=1)
    assert len(rollout.spans) > len(rollout.ids)
    gradients = []
    for policy in policies:
        model.zero_grad()
        replay(model, rollout, policy, 0.7).text.sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert_close(*gradients, depth=32)


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "half"}, "'one' or 'full'"),
        ({"explore": -1}, "explore=-1"),
        ({"credit": "sketch"}, "'rollout' or 'span'"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Pathwise(heads.make("mlp", 8, 8), **options)


def test_a_rollout_without_noise_cannot_be_replayed(reasoner, make_traces):
    model, options = reasoner
    policy = Pathwise(model.head, **options)
    rollout = replace(rolled(model, policy, make_traces), policy_records=None)
    with pytest.raises(ValueError, match="records of none"):
        replay(model, rollout, policy)

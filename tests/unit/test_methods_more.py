"""What makes each of scolar, hylar, atlas and colt what it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import CASES, fit, objective_for, ready, training_batch

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.engine import Engine, generate
from latent_reason.methods import colt
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.trace import Image, Message, Sketch, Text, Trace

float64 = pytest.mark.usefixtures("float64")


def made(name, make_backbone, make_traces):
    return ready(next(case for case in CASES if case.method == name), make_backbone, make_traces)


# -- scolar ------------------------------------------------------------------------------------------------------------
@float64
def test_scolar_draws_a_span_in_one_shot(make_backbone, make_traces, monkeypatch):
    """One call of the head and one pass of the backbone a span, whatever its length, and no latent is read on the way."""
    reasoner, calls = made("scolar", make_backbone, make_traces), []
    draw = reasoner.head.draw_span
    monkeypatch.setattr(reasoner.head, "draw_span", lambda *given: calls.append(given[1]) or draw(*given))
    prompt = reasoner.processor(make_traces(), generate=True)
    engine = Engine(reasoner, GenerationConfig(max_new_tokens=12, latent_mode="first", max_spans=1), 4)
    group = engine.admit(prompt)
    while engine.num_active:
        engine.step()
    out = engine.collect(group)
    assert calls == [max(span.length for span in out.spans)] and len(out.spans) == 4
    assert engine.num_passes < 12, "all latents of a span and its close token took one pass"


@float64
def test_scolar_aligns_each_latent_with_one_token_of_the_image(make_backbone, make_traces):
    reasoner = methods.build_method("scolar", make_backbone(), k=9)
    batch = training_batch(reasoner, make_traces(same_size=True)[1:2])
    fit(reasoner, training_batch(reasoner, make_traces()))
    assert batch.spans[:, 2:].tolist() == [[3, 3]], "an image of 3 x 3 tokens keeps them all"
    tokens = reasoner.backbone.encode_images(batch.sketches)[0]
    assert_close(reasoner.target(batch)[0], tokens)
    assert methods.schema("scolar")["k"].default > methods.schema("modal_mixed")["k"].default


# -- hylar -------------------------------------------------------------------------------------------------------------
@float64
def test_hylar_feeds_the_direction_of_the_state_with_the_length_of_its_target(make_backbone, make_traces):
    reasoner = made("hylar", make_backbone, make_traces)
    out = generate(reasoner, reasoner.processor(make_traces(), generate=True), max_new_tokens=8, latent_mode="first")
    fed = out.latent_embeds[out.token_type == LATENT]
    assert_close(fed.square().mean(-1).sqrt(), torch.ones(len(fed)))
    batch = training_batch(reasoner, make_traces())
    mask = batch.latent_slots()[2]
    assert_close(reasoner.target(batch)[mask].square().mean(-1), torch.ones(int(mask.sum())))


@float64
def test_hylar_the_loss_is_one_of_directions(make_backbone, make_traces):
    reasoner = made("hylar", make_backbone, make_traces)
    batch, objective = training_batch(reasoner, make_traces()), objective_for(reasoner)
    h, z = torch.randn(*batch.ids.shape, reasoner.backbone.width), reasoner.target(batch)
    once, longer = (objective.latent_loss(reasoner, batch, x, z) for x in (h, 7 * h))
    assert_close(longer, once)
    rows, position, mask = batch.latent_slots()
    expected = 1 - F.cosine_similarity(h[rows, position][mask], z[mask], dim=-1)
    weight = batch.span_weight[:, None].expand_as(mask)[mask]
    assert_close(once, (expected * weight).sum() / weight.sum())


# -- atlas -------------------------------------------------------------------------------------------------------------
@float64
def test_atlas_writes_one_token_in_place_of_a_sketch(make_backbone, make_traces):
    reasoner = methods.build_method("atlas", make_backbone())
    objective, traces = objective_for(reasoner), make_traces()
    batch = training_batch(reasoner, traces)
    assert len(batch.spans) == sum(len(t.sketches()) for t in traces)
    assert batch.span_lengths.tolist() == [1] * len(batch.spans) and batch.sketches is None
    opens = batch.loss_weight[batch.spans[:, 0], batch.spans[:, 1] - 1]
    assert (opens == 1).all(), "that it is written is taught as any word is"
    shown = [type(part) for part in traces[0].messages[-1].content]
    kept = objective.prepare_example(reasoner, traces[0]).messages[-1].content
    assert [type(part) for part in kept] == shown
    assert all(part.image is None and part.k == 1 for part in kept if isinstance(part, Sketch))


@float64
def test_atlas_draws_nothing_continuous(make_backbone, make_traces):
    """Whatever the state and the image, what is fed is one learned embedding."""
    reasoner = methods.build_method("atlas", make_backbone())
    out = generate(reasoner, reasoner.processor(make_traces(), generate=True), max_new_tokens=9, latent_mode="first")
    fed = out.latent_embeds[out.token_type == LATENT]
    assert len(fed) == len(out.spans) >= 4 and torch.equal(fed, reasoner.head.vector.expand(len(fed), -1))
    assert reasoner.target is None and not objective_for(reasoner).uses_target(reasoner)


# -- colt --------------------------------------------------------------------------------------------------------------
def reasoned(picture, *sentences) -> Trace:
    asked = Message("user", (Image(picture(2, 3)), Text("Where is it?")))
    return Trace("t", (asked, Message("assistant", (Text(" ".join(sentences)),))))


@pytest.mark.parametrize(
    "sentences, steps",
    [
        (("A.", "B.", "C.", "D.", "E."), ["A. B.", "C. D.", "E."]),
        (("A.", "B.", "C.", "D."), ["A. B.", "C.", "D."]),
        (("A.", "B.", "C."), ["A.", "B.", "C."]),
        (("A.", "B."), ["", "A.", "B."]),
        (("A.",), ["", "", "A."]),
    ],
)
def test_colt_every_thought_has_a_step_and_the_last_the_answer(sentences, steps, picture):
    trace = reasoned(picture, *sentences)
    assert [text.text for text in colt.steps_of(trace, 3)] == steps
    assert [text.text for text in colt.steps_of(trace, 1)] == [sentences[-1]]


def colt_with(make_backbone, *traces):
    torch.manual_seed(0)
    reasoner = methods.build_method("colt", make_backbone())
    batch = training_batch(reasoner, list(traces))
    thoughts = torch.randn(len(traces), 3, reasoner.backbone.width, requires_grad=True)
    return reasoner, batch, thoughts, objective_for(reasoner).step_losses(reasoner, batch, thoughts)


@float64
def test_colt_writes_each_step_from_its_thought_and_each_thought_from_the_text_before_it(make_backbone, picture):
    reasoner, batch, thoughts, losses = colt_with(make_backbone, reasoned(picture, "Go up.", "Then left.", "Stop."))
    assert batch.spans[:, 2:].tolist() == [[1, 3]] and batch.teacher_batch.images is None
    assert reasoner.backbone.tokenizer.decode(batch.ids[0]).count("Go up") == 0, "the model itself does not read it"
    (pulled,) = torch.autograd.grad(losses["forward"].sum(), thoughts, retain_graph=True)
    assert (pulled.norm(dim=-1) > 0).all(), "each thought writes its step"
    view = batch.teacher_batch
    is_open = view.ids == reasoner.vocabulary.open
    allowed, step = colt.decoder_mask(view, is_open)[0], is_open[0].cumsum(0)
    for q in range(view.ids.shape[1]):
        seen = allowed[q].nonzero()[:, 0].tolist()
        assert max(seen) == q
        if is_open[0, q]:
            assert seen[:-1] == [k for k in range(q) if view.token_type[0, k] == TEXT]
        else:
            assert all(step[k] == step[q] for k in seen)


@float64
def test_colt_a_thought_changes_the_text_of_its_own_step_alone(make_backbone, picture):
    """A step is written from its thought, not from other thoughts."""
    *_, thoughts, losses = colt_with(make_backbone, reasoned(picture, "It is red. "))
    (pulled,) = torch.autograd.grad(losses["forward"].sum(), thoughts, retain_graph=True)
    assert pulled[0, 2].any() and not pulled[0, :2].any(), "one sentence: the last thought writes it"
    (pulled,) = torch.autograd.grad(losses["internal"].sum(), thoughts)
    assert pulled[0, :2].any() and not pulled[0, 2].any(), "what follows is detached"


@float64
def test_colt_the_alignment_has_a_weight_of_its_own(make_backbone, picture):
    """With as much weight as the text of the steps, it makes the thoughts of different items alike."""
    reasoner, batch, *_ = colt_with(make_backbone, reasoned(picture, "Go up.", "Then left."))
    h = torch.randn(*batch.ids.shape, reasoner.backbone.width)
    rows, position, _ = batch.latent_slots()
    thoughts = h[rows, position]
    losses = objective_for(reasoner).step_losses(reasoner, batch, thoughts)
    for weight in (0.1, 2.0):
        objective = methods.build_objective("colt", alignment_weight=weight)
        expected = losses["forward"] + weight * (losses["backward"] + losses["internal"])
        assert_close(objective.loss_terms(reasoner, batch, h, None).latent, expected[0])


@float64
def test_colt_a_thought_is_given_by_text_alone(make_backbone, picture):
    """Not by the thoughts before it, through the text that they wrote; and it is not drawn to what text gives."""
    reasoner, batch, thoughts, losses = colt_with(make_backbone, reasoned(picture, "Go up.", "Then left.", "Stop."))
    (pulled,) = torch.autograd.grad(losses["backward"].sum(), thoughts, retain_graph=True, allow_unused=True)
    assert pulled is None
    assert torch.autograd.grad(losses["backward"].sum(), reasoner.head.back.bias)[0].any(), "the decoder learns"
    given, back = [], reasoner.head.back
    back.register_forward_hook(lambda module, inputs, output: given.append(output))
    for x in (thoughts, torch.randn_like(thoughts)):
        objective_for(reasoner).step_losses(reasoner, batch, x)
    assert torch.equal(*given) and len(given[0].unique(dim=0)) == 3


def test_colt_refuses_a_sketch_in_a_last_turn_of_the_user(make_backbone, picture):
    asked = Message("user", (Image(picture(2, 3)), Sketch(picture(2, 2)), Text("where?")))
    reasoner = methods.build_method("colt", make_backbone())
    with pytest.raises(ValueError, match="trace 'u': its last turn is of 'user' and contains a sketch"):
        training_batch(reasoner, [reasoned(picture, "Go up."), Trace("u", (asked,))])


@float64
def test_colt_has_no_decoder_in_decoding(make_backbone, make_traces, monkeypatch):
    reasoner = made("colt", make_backbone, make_traces)
    monkeypatch.setattr(reasoner.head, "decode", None)
    out = generate(reasoner, reasoner.processor(make_traces(False), generate=True), max_new_tokens=8)
    assert [span.length for span in out.spans] == [3] * 4 and out.spans[0].start == 1

"""Latents that are fed with the norm of token embeddings: one number, wherever a latent becomes an input."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import CASES, eager, loss_of, objective_for, ready, training_batch
from tiny_runs import untrained

from eval.collapse import true_spans
from eval.interventions import encode_sketch
from latent_reason import methods
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.contracts.test_method_decoding_contract import (  # noqa: F401
    rollout,
    rollout_once,
    test_5_cached_is_uncached,
    test_5_training_on_own_latents_draws_what_decoding_draws,
    test_6_a_row_in_a_batch_is_that_row_alone,
    test_7_replaying_a_rollout_gives_its_log_probabilities,
)
from latent_reason.decoding.engine import generate
from latent_reason.methods import monet
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.objectives import feedback, latent_inputs
from latent_reason.objectives.latent_policies import Pathwise
from latent_reason.objectives.objective import RunOptions
from latent_reason.objectives.rollout_states import path_states, rollout_inputs, rollout_states
from latent_reason.trace import Image, Message, Text, Trace
from latent_reason.visualization.sketch_decoder import reencode_sketches
from latent_reason.visualization.storyboard import decode_sketches, reconstruct_picture

float64 = pytest.mark.usefixtures("float64")
GAIN = 0.25  # a power of two, so that multiplication is exact
FIRST = [next(c for c in CASES if c.method == name) for name in methods.names()]  # one of every method
SKETCHERS = [c for c in FIRST if c.method not in ("direct", "text_cot")]
FED = [
    next(c for c in CASES if c.method == "modal_mixed" and c.options.get("head") == "mlp"),
    next(c for c in CASES if c.method == "modal_mixed" and c.options.get("head") == "whole_span"),
    *(c for c in FIRST if c.method in ("coconut", "mirage", "skila", "latent_sketchpad", "deepsketcher")),
]


@pytest.fixture(params=FED, ids=str)
def case(request):
    return request.param


@pytest.fixture
def reasoner(case, make_backbone, make_traces, ready_once):
    """The contracts of decoding that are imported above hold for it, too."""
    return with_gain(ready_copy(case, make_backbone, make_traces, ready_once))


def with_gain(reasoner, gain: float = GAIN):
    reasoner.reserve_gain("norm_matched")
    reasoner.feedback_gain.fill_(gain)
    return reasoner


# -- a number of 1 changes nothing -------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", SKETCHERS, ids=str)
def test_a_number_of_1_changes_nothing(case, make_backbone, make_traces):
    plain = ready(case, make_backbone, make_traces)
    assert plain.feedback == "raw" and not any("gain" in name for name in plain.state_dict())
    scaled = with_gain(copy.deepcopy(plain), 1.0)
    objectives = [methods.objective_of(r) for r in (plain, scaled)]
    batch, terms, outs = training_batch(plain, make_traces()), [], []
    for reasoner, objective in zip((plain, scaled), objectives, strict=True):
        torch.manual_seed(0)
        terms.append(reasoner(objective.loss, batch).parts())
        prompt = reasoner.processor(make_traces(), generate=True)
        outs.append(generate(reasoner, prompt, max_new_tokens=9, latent_mode="first"))
    assert terms[0].keys() == terms[1].keys() and all(torch.equal(terms[0][n], terms[1][n]) for n in terms[0])
    assert torch.equal(outs[0].ids, outs[1].ids) and torch.equal(outs[0].latent_embeds, outs[1].latent_embeds)


# -- what is fed is scaled, everywhere ---------------------------------------------------------------------------------
@float64
def test_the_first_latent_is_fed_scaled(case, make_backbone, make_traces, ready_once):
    """The state before it does not depend on the number."""
    firsts = []
    for gain in (1.0, GAIN):
        model = eager(with_gain(ready_copy(case, make_backbone, make_traces, ready_once), gain))
        out = generate(model, model.processor(make_traces(), generate=True), max_new_tokens=9, latent_mode="first")
        firsts.append(torch.stack([out.latents(out.spans_of(row)[0])[0] for row in range(len(out.ids))]))
    assert_close(firsts[1], GAIN * firsts[0])
    assert relative_error(firsts[1], firsts[0]) > 0.1


@float64
def test_inputs_of_training_are_the_latents_times_the_number(reasoner, make_traces, monkeypatch):
    batch, objective, seen = training_batch(reasoner, make_traces()), objective_for(reasoner), []
    call = reasoner.backbone.call_text_model

    def recorded(embeds, *args, **options):
        seen.append(embeds)
        return call(embeds, *args, **options)

    monkeypatch.setattr(reasoner.backbone, "call_text_model", recorded)
    loss_of(reasoner, batch)
    span, row, position, slot, grids = batch.latent_places()
    if objective.latent_input == "teacher":
        z = reasoner.target(batch)[span, slot]
        fed = seen[-1][row, position][:, : reasoner.backbone.width]
        assert_close(fed, GAIN * reasoner.target.to_embeddings(z))
        means = latent_inputs.mean_latents(reasoner, batch)[span, slot]
        assert_close(means.double(), GAIN * reasoner.target.to_embeddings(reasoner.target.slot_mean(grids, slot)))
    states, own = objective.own_latent_states(reasoner, batch, batch.positions)
    again = latent_inputs.forward_batch(
        reasoner.backbone, batch, reasoner.embed_batch(batch, own), reasoner.backbone.position_ids(batch)
    )
    assert_close(again[batch.mask], states[batch.mask])
    if reasoner.head.in_hidden_space and not reasoner.head.needs_context:
        assert_close(own[span, slot], GAIN * states[row, position - 1])


@float64
def test_the_loss_of_a_head_sees_latents_without_the_number(make_backbone, make_traces):
    """Given the same states, the latent loss is the same."""
    for case in SKETCHERS:
        plain = ready(case, make_backbone, make_traces)
        objective = methods.objective_of(plain)
        if not objective.uses_target(plain) or not objective.weights.latent:
            continue
        batch = training_batch(plain, make_traces())
        h, z, losses = torch.randn(*batch.ids.shape, plain.backbone.width), plain.target(batch), []
        for model in (plain, with_gain(copy.deepcopy(plain))):
            torch.manual_seed(0)
            losses.append(objective.latent_loss(model.eval(), batch, h, z))
        assert_close(losses[1], losses[0])


@float64
def test_earlier_sketches_and_probes_feed_what_training_feeds(make_backbone, make_traces, picture):
    reasoner = with_gain(ready(FED[0], make_backbone, make_traces))
    image = picture(2, 2, 5)
    raw = reasoner.target.encode_embeddings(reasoner.processor.preprocess_sketches([image]))[0]
    assert_close(encode_sketch(reasoner, image), GAIN * raw)
    spans = true_spans(reasoner, make_traces())
    batch = training_batch(reasoner, make_traces())
    z = reasoner.latents_to_embeddings(reasoner.target(batch))
    assert_close(torch.cat([*spans.values()]), z[batch.latent_slots()[2]])
    embeds = reasoner.prompt_embeddings(batch)  # its sketches stand there as those of earlier turns
    span, row, position, slot, _ = batch.latent_places()
    assert_close(embeds[row, position][:, : reasoner.backbone.width], GAIN * reasoner.target(batch)[span, slot])
    reasoner.follows_target = False
    embeds, blanks = reasoner.prompt_embeddings(batch), reasoner.placeholder_latents(batch)
    assert_close(embeds[row, position][:, : reasoner.backbone.width], blanks[span, slot])
    reasoner.reserve_gain(None)
    assert_close(blanks, GAIN * reasoner.placeholder_latents(batch))


@float64
@pytest.mark.parametrize("path", ["one", "full"])
def test_latents_that_are_drawn_again_are_those_of_the_rollout(path, make_backbone, make_traces):
    reasoner = eager(with_gain(ready(FED[0], make_backbone, make_traces)).eval())
    policy = Pathwise(reasoner.head, path=path, explore=0.3)
    prompt = reasoner.processor(make_traces(), generate=True)
    out = generate(reasoner, prompt, max_new_tokens=12, temperature=0.7, latent_mode="first", latent_policy=policy)
    assert_close(path_states(reasoner, out, policy), rollout_states(reasoner, out))
    embeds, *_ = rollout_inputs(reasoner, out)
    is_latent = out.token_type == LATENT
    embeds = embeds[:, prompt.ids.shape[1] :, : reasoner.backbone.width]
    assert_close(embeds[is_latent], out.latent_embeds[is_latent])


@float64
@pytest.mark.parametrize("through", [True, False])
def test_monet_sends_the_gradient_of_its_latents_to_states_times_the_number(
    through, make_backbone, make_traces, monkeypatch
):
    torch.manual_seed(0)
    reasoner = methods.build_method("monet", make_backbone(), k=4)
    objective = methods.load("monet").build_objective(stage=2, text_through_latents=through)
    batch, given, carry = training_batch(with_gain(reasoner), make_traces()), [], monet.through_latents

    def recorded(own, drawn, loss):
        given.append((own, drawn))
        return carry(own, drawn, loss)

    monkeypatch.setattr(monet, "through_latents", recorded)
    reasoner(objective.loss, batch).total.backward()
    ((own, drawn),) = given
    assert_close(drawn, own)
    _, own, states = objective.hidden_states(reasoner, batch)
    assert_close(own, GAIN * states[-1])


def test_sampled_latents_and_left_out_latents_have_the_same_scale(make_backbone, make_traces):
    """Scheduled sampling mixes own latents among targets; all have the number."""
    reasoner = with_gain(ready(FED[0], make_backbone, make_traces))
    batch = training_batch(reasoner, make_traces())
    objective = methods.objective_of(reasoner, RunOptions(latent_dropout=1.0))
    given = objective.empty_latents(reasoner, batch)
    span, _, _, slot, grids = batch.latent_places()
    assert_close(given[span, slot], GAIN * reasoner.target.slot_mean(grids, slot))
    h = torch.randn(*batch.ids.shape, reasoner.backbone.width)
    own = latent_inputs.latents_from_states(reasoner, batch, h)
    reasoner.reserve_gain(None)
    assert_close(own, GAIN * latent_inputs.latents_from_states(reasoner, batch, h))


# -- pictures ----------------------------------------------------------------------------------------------------------
def test_a_sketch_is_the_same_picture_with_and_without_the_number(picture):
    reasoner, decoder = untrained()
    image = picture(2, 3)
    before = reconstruct_picture(reasoner, decoder, image)
    latents = encode_sketch(reasoner, image)
    pictures, folders = [], []
    for gain in (None, GAIN, 3.0):
        reasoner.reserve_gain(None)
        model = reasoner if gain is None else with_gain(reasoner, gain)
        trace = tiny_trace(image)
        prompt = model.processor([trace], generate=True)
        fed = model.scale_latents(latents)
        out = generate(
            model,
            prompt,
            max_new_tokens=12,
            latent_mode="first",
            latent_hook=lambda rows, spans, slots, z, written, fed=fed: fed[slots.clamp_max(len(fed) - 1)],
        )
        assert_close(out.latents(out.spans[0]), (gain or 1.0) * latents[: out.spans[0].length])
        pictures.append(decode_sketches(model, decoder, out, 0, image)[0])
        wrapped = LatentReasonForConditionalGeneration.from_reasoner(model, decoder)
        folders.append(wrapped.render(out, out.spans[0], reasoner.backbone.token_grid(image)))
        assert reconstruct_picture(model, decoder, image).tobytes() == before.tobytes()
    for one in [*pictures[1:], *folders]:
        away = (torch.tensor(list(one.tobytes())) - torch.tensor(list(pictures[0].tobytes()))).abs()
        assert away.max() <= 1, "rounding alone"


def tiny_trace(image):
    return Trace("q", (Message("user", (Image(image), Text("where?"))),))


def test_sketches_that_are_encoded_again_are_fed_scaled(make_traces):
    reasoner, decoder = untrained()
    batch = methods.objective_of(reasoner).collate(reasoner, make_traces())
    chosen = torch.ones(len(batch.spans), dtype=torch.bool)
    outs = []
    for model in (reasoner, with_gain(copy.deepcopy(reasoner))):
        latents = model.latents_to_embeddings(model.target(batch)).detach()
        outs.append(reencode_sketches(model, batch, latents, chosen, decoder=decoder))
    assert_close(outs[1], GAIN * outs[0])


# -- the number --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", SKETCHERS, ids=str)
def test_the_mean_norm_of_fed_latents_is_that_of_token_embeddings(case, make_backbone, make_traces):
    reasoner = ready(case, make_backbone, make_traces)
    batch, objective = training_batch(reasoner, make_traces()), methods.objective_of(reasoner)
    gain = feedback.match_norms(reasoner.train(), objective, [batch, batch])
    assert reasoner.training and reasoner.feedback == "norm_matched" and gain > 0
    assert reasoner.feedback_gain.shape == () and float(reasoner.feedback_gain) == pytest.approx(gain)
    wanted = reasoner.backbone.embed(batch.ids[batch.token_type == TEXT]).norm(dim=-1).mean()
    if not reasoner.head.is_stochastic:
        if reasoner.head.needs_context and feedback.measures_states(reasoner, objective):
            reasoner.reserve_gain(None)  # later latents depend on what was fed before them
            fed = gain * feedback.fed_latents(reasoner, objective, batch)
        else:
            fed = feedback.fed_latents(reasoner, objective, batch)
        assert_close(fed.norm(dim=-1).mean(), wanted)
    if objective.latent_input == "teacher":
        span, _, _, slot, _ = batch.latent_places()
        fed = reasoner.latents_to_embeddings(reasoner.target(batch))[span, slot]
        assert_close(fed.norm(dim=-1).mean(), wanted)


def test_states_are_measured_where_no_target_is_fed(make_backbone, make_traces):
    kinds = {}
    for name, options in {
        "coconut": {},
        "mcout": {},
        "monet": {"k": 4},
        "mirage": {"k": 4, "stage": 2},
        "skila": {"k": 4},
        "blank": {"k": 4},
        "modal_mixed": {"k": 4, "latent_input": "self", "head": "mlp"},
    }.items():
        reasoner = methods.build_method(name, make_backbone(), **options)
        kinds[name] = feedback.measures_states(reasoner, methods.objective_of(reasoner))
    assert [name for name, states in kinds.items() if states] == ["coconut", "mcout", "monet", "mirage"]


def test_what_cannot_be_measured_is_said(make_backbone, make_traces):
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4, head="mlp")
    objective = methods.objective_of(reasoner)
    batch = training_batch(reasoner, make_traces(False))
    with pytest.raises(ValueError, match="0 latents of the training data"):
        feedback.match_norms(reasoner, objective, [batch])
    assert reasoner.feedback == "raw"

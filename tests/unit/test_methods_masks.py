"""Methods whose text must do without the image: livr in training, cvrr in training and in decoding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import eager, objective_for, ready, training_batch
from packed_rows import both

from eval.bench.counting import HostReads, count_operations
from latent_reason import checkpoint, methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.contracts.fixtures import CASES, modal_mixed, ready_copy
from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.engine import Engine, generate
from latent_reason.model.batch import IMAGE, LATENT, TEXT, shift_right
from latent_reason.model.heads import IdentityHead
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.model.switching import Switch
from latent_reason.objectives.attention_masks import full_attention_mask
from latent_reason.objectives.forward import forward_batch
from latent_reason.objectives.latent_policies import Gaussian, Mask, Pathwise
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import path_states, rollout_states

float64 = pytest.mark.usefixtures("float64")


def built(name, make_backbone, make_traces, **options):
    """The model of a method, its objective and a batch."""
    reasoner = methods.build_method(name, make_backbone(), k=3, **options)
    return reasoner, objective_for(reasoner), training_batch(reasoner, make_traces(False))


def states_of(reasoner, batch, embeds):
    return forward_batch(reasoner.backbone, batch, embeds, batch.positions)


def without_images_for_latents(batch):
    """The batch where latents do not attend to images either."""
    to_image = (batch.token_type == LATENT)[:, :, None] & (batch.token_type == IMAGE)[:, None]
    return replace(batch, attention_mask=full_attention_mask(batch) & ~to_image)


def pull_of_text_on_images(reasoner, batch, embeds):
    """Gradient norm of the states at text after a span with respect to the inputs at images."""
    last = batch.spans[:, 1] + batch.span_lengths
    after = torch.arange(batch.ids.shape[1]) >= last[:, None]  # one span a row, in order
    said = states_of(reasoner, batch, embeds)[after & (batch.token_type == TEXT)]
    return torch.autograd.grad(said.square().sum(), embeds)[0][batch.token_type == IMAGE].norm(dim=-1)


# -- livr --------------------------------------------------------------------------------------------------------------
@float64
@pytest.mark.parametrize("stage", [1, 2])
def test_livr_in_stage_1_the_answer_sees_the_image_through_latents_alone(stage, make_backbone, make_traces):
    reasoner, objective, batch = built("livr", make_backbone, make_traces, stage=stage)
    batch = objective.apply_bottleneck(reasoner, batch)
    assert objective.needs_attention_mask == (batch.attention_mask is not None) == (stage == 1)
    embeds = reasoner.embed_batch(batch, reasoner.placeholder_latents(batch)).detach().requires_grad_()
    assert (pull_of_text_on_images(reasoner, batch, embeds) > 1e-9).all(), "the way through the latents is open"
    shut = pull_of_text_on_images(reasoner, without_images_for_latents(batch), embeds)
    assert bool(shut.any()) == (stage == 2), "in stage 1 there is no other way"


@float64
@pytest.mark.parametrize("stage", [1, 2])
def test_livr_another_image_changes_the_answer_through_latents_alone(stage, make_backbone, make_traces):
    reasoner, objective, batch = built("livr", make_backbone, make_traces, stage=stage)
    batch = objective.apply_bottleneck(reasoner, batch)
    embeds = reasoner.embed_batch(batch, reasoner.placeholder_latents(batch))
    is_image, is_text = ((batch.token_type == kind) for kind in (IMAGE, TEXT))
    other = torch.where(is_image[..., None], embeds.flip(-1), embeds)
    for given, changes in ((batch, True), (without_images_for_latents(batch), stage == 2)):
        seen, spoilt = (states_of(reasoner, given, x) for x in (embeds, other))
        after = is_text & (torch.arange(batch.ids.shape[1]) >= batch.spans[:, 1:2])
        assert (relative_error(spoilt[after], seen[after]) > 1e-6) == changes
        asked = is_text & (torch.arange(batch.ids.shape[1]) < batch.spans[:, 1:2])
        assert (relative_error(spoilt[asked], seen[asked]) > 1e-6) == (stage == 2), "nor does the question see it"


@float64
def test_livr_tokens_are_learned_one_a_slot_and_from_text_alone(make_backbone, make_traces):
    reasoner, objective, batch = built("livr", make_backbone, make_traces)
    terms = reasoner(objective.loss, batch)
    assert list(terms.parts()) == ["text"] and not objective.uses_target(reasoner)
    terms.total.backward()
    tokens = reasoner.head.tokens.weight
    assert (tokens.grad.norm(dim=-1) > 0).all()
    out = generate(reasoner, reasoner.processor(make_traces(False), generate=True), max_new_tokens=8)
    fed = out.latent_embeds[out.token_type == LATENT].unflatten(0, (-1, 3))
    assert len(fed) == 4 and torch.equal(fed, tokens.expand(4, -1, -1))
    with pytest.raises(ValueError, match="stage=3"):
        methods.build_objective("livr", stage=3)


# -- cvrr --------------------------------------------------------------------------------------------------------------
@float64
def test_cvrr_text_after_the_thoughts_attends_to_no_image(make_backbone, make_traces):
    reasoner, objective, batch = built("cvrr", make_backbone, make_traces)
    usual, narrow = full_attention_mask(batch), objective.apply_bottleneck(reasoner, batch).attention_mask
    changed = usual & ~narrow
    at = torch.arange(batch.ids.shape[1])
    after = (at >= (batch.spans[:, 1] + batch.span_lengths)[:, None]) & (batch.token_type == TEXT)
    assert torch.equal(changed, usual & after[:, :, None] & (batch.token_type == IMAGE)[:, None])
    assert changed.any((1, 2)).all() and not (narrow & ~usual).any()


@float64
def test_cvrr_packed_rows_hide_the_images_of_their_own_example(make_backbone, make_traces):
    reasoner = methods.build_method("cvrr", make_backbone(), k=3)
    objective = objective_for(reasoner)
    alone, together = (objective.apply_bottleneck(reasoner, b) for b in both(reasoner, make_traces(False)))
    assert alone.attention_mask[alone.mask].sum() == together.attention_mask[together.mask].sum()


@float64
def test_cvrr_training_reads_what_decoding_reads(make_backbone, make_traces):
    """The states of a training batch are those of a rollout that is forced to say the same."""
    reasoner, objective, batch = built("cvrr", make_backbone, make_traces)
    trained, _ = objective.own_latent_states(reasoner, objective.apply_bottleneck(reasoner, batch), batch.positions)
    plain, _ = objective.own_latent_states(reasoner, batch, batch.positions)
    prompt, v = reasoner.processor(make_traces(False), generate=True), reasoner.vocabulary
    start = batch.spans[:, 1] - 1  # the open token
    said = [
        [i for i, kind in zip(ids[at:], kinds[at:], strict=True) if kind == TEXT and i != v.close]
        for ids, kinds, at in zip(batch.ids.tolist(), batch.token_type.tolist(), start.tolist(), strict=True)
    ]
    lengths = [ids[at:].index(v.end) + 1 for ids, at in zip(batch.ids.tolist(), start.tolist(), strict=True)]
    out = generate(reasoner, prompt, max_new_tokens=lengths, forced_tokens=said)
    assert out.hides_images and Engine(reasoner, GenerationConfig(), 1).config.hide_images
    decoded = rollout_states(reasoner, out)
    for row, (at, length) in enumerate(zip(start.tolist(), lengths, strict=True)):
        assert out.ids[row, :length].tolist() == batch.ids[row, at : at + length].tolist()
        assert_close(shift_right(trained)[row, at : at + length], decoded[row, :length])
    after = (batch.token_type == TEXT) & (torch.arange(batch.ids.shape[1]) > start[:, None])
    assert relative_error(plain[after], trained[after]) > 1e-3, "with the image they would be others"


@float64
def test_cvrr_shows_the_image_again_where_asked(make_backbone, make_traces):
    reasoner, _, _ = built("cvrr", make_backbone, make_traces)
    prompt = reasoner.processor(make_traces(False), generate=True)
    words = [reasoner.vocabulary.encode_text("go left")] * 4
    hidden, shown = (
        generate(reasoner, prompt, max_new_tokens=16, forced_tokens=words, hide_images=x) for x in (None, False)
    )
    assert hidden.hides_images and not shown.hides_images
    own = hidden.text_decisions & shown.text_decisions
    assert relative_error(hidden.log_prob[own], shown.log_prob[own]) > 1e-6
    assert torch.equal(hidden.latent_embeds[:, 1:4], shown.latent_embeds[:, 1:4]), "thoughts see it in both"


@float64
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_a_rollout_without_images_is_replayed(family, make_backbone, make_traces):
    """Of any method, with several spans a row."""
    case = modal_mixed("mlp", stop="close", supervise="full")
    reasoner = eager(ready(case, lambda positions: make_backbone(positions, family), make_traces))
    prompt = reasoner.processor(make_traces(), generate=True)
    out = generate(reasoner, prompt, max_new_tokens=24, temperature=1.0, hide_images=True, latent_mode="first")
    assert max(len(out.spans_of(r)) for r in range(4)) > 1 and out.hides_images
    words, stops, *_ = replay(reasoner, out)
    assert_close(words, out.log_prob)
    assert_close(stops, out.stop_log_prob)
    seen = replay(reasoner, replace(out, hides_images=False))[0]
    assert relative_error(seen, out.log_prob) > 1e-6


@float64
@pytest.mark.parametrize("path", ["one", "full"])
def test_latents_that_are_drawn_again_are_replayed_without_images_too(path, make_backbone, make_traces, ready_once):
    case = next(case for case in CASES if case.method == "cvrr")
    reasoner = ready_copy(case, make_backbone, make_traces, ready_once).eval()
    policy, prompt = Pathwise(reasoner.head, path=path), reasoner.processor(make_traces(False), generate=True)
    out = generate(reasoner, prompt, max_new_tokens=14, temperature=1.0, latent_policy=policy)
    assert out.hides_images
    assert_close(path_states(reasoner, out, policy), rollout_states(reasoner, out))
    assert_close(replay(reasoner, out, policy).text, out.log_prob)


def test_hiding_images_costs_a_step_few_operations_and_no_read(make_backbone, make_traces, ready_once):
    case = next(case for case in CASES if case.method == "cvrr")
    reasoner = ready_copy(case, make_backbone, make_traces, ready_once)
    prompt, counts = reasoner.processor(make_traces(False), generate=True), []
    for hides in (None, False):
        engine = Engine(reasoner, GenerationConfig(max_new_tokens=40, hide_images=hides), 4)
        engine.admit(prompt)
        for _ in range(8):
            engine.step()
        operations = count_operations(engine.step)
        with HostReads() as reads:
            engine.step()
        counts.append((operations, reads.total))
    (hidden, reads), (shown, usual) = counts
    assert reads == usual <= 1 and hidden <= shown + 10, counts


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch imports to compile
def test_cvrr_compiled_steps_hide_images_too(make_backbone, make_traces, monkeypatch):
    reasoner, compiler = built("cvrr", make_backbone, make_traces)[0].eval(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **more: compiler(*given, **more | {"backend": "aot_eager"}))
    torch._dynamo.reset()
    prompt = reasoner.processor(make_traces(False), generate=True)
    plain, compiled, shown = (
        generate(reasoner, prompt, max_new_tokens=12, compile=x, hide_images=y)
        for x, y in ((False, None), (True, None), (True, False))
    )
    torch._dynamo.reset()
    assert torch.equal(compiled.ids, plain.ids) and compiled.hides_images and not shown.hides_images
    assert relative_error(compiled.log_prob, plain.log_prob) < 1e-5 < relative_error(shown.log_prob, plain.log_prob)


def test_a_policy_gives_learned_tokens_no_density(make_backbone):
    head = methods.build_method("livr", make_backbone(), k=2).head
    assert head.is_constant and not Mask(head).has_log_prob
    with pytest.raises(ValueError, match="LearnedTokensHead reads more than the state"):
        Gaussian(head)


def test_a_model_built_by_hand_keeps_hiding_images(make_backbone, tmp_path):
    backbone = make_backbone()
    switch, head = Switch(start="first", count=2), IdentityHead(backbone.width, backbone.width)
    reasoner = LatentReasoner(backbone, head=head, switch=switch, hides_images=True)
    again, _ = checkpoint.load(checkpoint.save(reasoner, tmp_path / "made"), device="cpu")
    assert again.hides_images and not LatentReasoner(make_backbone()).hides_images

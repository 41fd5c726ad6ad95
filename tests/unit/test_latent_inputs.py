"""Whose latents stand in the context: given, own, some of both, and three ways to the own ones."""

from __future__ import annotations

import pytest
import torch
from conftest import fit, loss_of, objective_for, training_batch

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close, is_close, relative_error
from latent_reason.objectives import latent_inputs
from latent_reason.objectives.objective import Objective
from latent_reason.visualization.sketch_decoder import SketchDecoder, reencode_sketches

pytestmark = pytest.mark.usefixtures("float64")


def fitted(make_backbone, make_traces, method="modal_mixed", **options):
    torch.manual_seed(0)
    options = {"k": 4, "head": "mlp"} | options if method == "modal_mixed" else options
    reasoner = methods.build_method(method, make_backbone(), **options)
    batch = training_batch(reasoner, make_traces())
    if objective_for(reasoner).uses_target(reasoner):
        fit(reasoner, batch)
    return reasoner, batch, reasoner.backbone.position_ids(batch)


def everything(batch, value):
    return torch.full(batch.latent_slots()[2].shape, value)


SHORT = {"depth": 1, "longest": 4}
HEADS = [
    {"head": "mlp"},
    {"head": "identity"},
    {"head": "autoregressive", "head_options": SHORT},
    {"head": "whole_span", "head_options": SHORT},
]


@pytest.mark.parametrize("options", HEADS, ids=lambda o: o["head"])
def test_enough_sweeps_are_the_sequential_result(make_backbone, make_traces, options):
    reasoner, batch, positions = fitted(make_backbone, make_traces, **options)
    states, latents = latent_inputs.unroll_latents(reasoner, batch, positions)
    most = int(torch.bincount(batch.spans[:, 0], batch.span_lengths.float()).max())
    same, own = latent_inputs.sweep_latents(reasoner, batch, positions, most)
    mask = batch.latent_slots()[2]
    assert_close(own[mask], latents[mask])
    assert_close(same[batch.mask], states[batch.mask])
    few, _ = latent_inputs.sweep_latents(reasoner, batch, positions, 1)
    assert relative_error(few[batch.mask], states[batch.mask]) > 1e-4


def test_sweeps_carry_the_gradient_of_the_sequential_result(make_backbone, make_traces):
    grads = []
    for sweeps in (0, 4):
        reasoner, batch, _ = fitted(make_backbone, make_traces, "coconut", c=2, stage=2, jacobi_sweeps=sweeps)
        loss_of(reasoner, batch).total.backward()
        grads.append({n: p.grad for n, p in reasoner.named_parameters() if p.grad is not None})
    assert_close(grads[1], grads[0], depth=16)


@pytest.mark.parametrize("options", HEADS, ids=lambda o: o["head"])
def test_serial_replacement_of_all_is_self_filling_and_of_none_is_teaching(make_backbone, make_traces, options):
    reasoner, batch, positions = fitted(make_backbone, make_traces, **options)
    given = reasoner.latents_to_embeddings(reasoner.target(batch))
    states, latents = latent_inputs.unroll_latents(reasoner, batch, positions)
    mixed, own = latent_inputs.unroll_latents(reasoner, batch, positions, keep=given, is_own=everything(batch, True))
    assert_close(own, latents)
    assert_close(mixed, states)
    none = everything(batch, False)
    taught, same = latent_inputs.unroll_latents(reasoner, batch, positions, keep=given, is_own=none)
    plain = reasoner.backbone.forward_text(reasoner.embed_batch(batch, given), batch.mask, positions)
    assert_close(taught[batch.mask], plain[batch.mask])
    assert torch.equal(same[batch.latent_slots()[2]], given[batch.latent_slots()[2]])


def test_scheduled_sampling_changes_training_and_nothing_else(make_backbone, make_traces):
    for exposure in ({"noise_std": 0.3}, {"prob": 1.0}, {"prob": 1.0, "sequential": True}):
        reasoner, batch, positions = fitted(make_backbone, make_traces, scheduled_sampling=exposure)
        z = reasoner.target(batch)
        plain = reasoner.backbone.forward_text(
            reasoner.embed_batch(batch, reasoner.latents_to_embeddings(z)), batch.mask, positions
        )
        assert_close(objective_for(reasoner).teacher_forced_states(reasoner.eval(), batch, positions, z)[0], plain)
        changed, _ = objective_for(reasoner).teacher_forced_states(reasoner.train(), batch, positions, z)
        assert relative_error(changed, plain) > 1e-3, exposure
        if "prob" in exposure:
            first, _ = objective_for(reasoner).teacher_forced_states(reasoner, batch, positions, z, 0.0)
            assert is_close(first, plain), "it rises from none"


def test_parallel_replacement_is_drawn_from_one_taught_pass(make_backbone, make_traces):
    reasoner, batch, positions = fitted(make_backbone, make_traces, scheduled_sampling={"prob": 1.0})
    z = reasoner.target(batch)
    first = reasoner.backbone.forward_text(
        reasoner.embed_batch(batch, reasoner.latents_to_embeddings(z)), batch.mask, positions
    )
    drawn = latent_inputs.latents_from_states(reasoner, batch, first)
    expected = reasoner.backbone.forward_text(reasoner.embed_batch(batch, drawn), batch.mask, positions)
    states, inputs = objective_for(reasoner).teacher_forced_states(reasoner.train(), batch, positions, z)
    assert_close(states, expected)
    there = batch.latent_slots()[2]
    assert_close(inputs[there], drawn[there])


def test_redrawn_sketches_are_what_the_eye_sees_of_their_rendering(make_backbone, make_traces):
    reasoner, batch, _ = fitted(make_backbone, make_traces, scheduled_sampling={"reencode_prob": 1.0})
    z = reasoner.target(batch)
    with pytest.raises(ValueError, match="needs a sketch decoder"):
        objective_for(reasoner).check(reasoner)
    decoder, fed = SketchDecoder(latent=32, width=32, patch=8), reasoner.latents_to_embeddings(z)
    chosen = torch.tensor([True, False, False, True])
    again = reencode_sketches(reasoner, batch, fed, chosen, decoder=decoder)
    mask = batch.latent_slots()[2]
    assert torch.equal(again[1:3], fed[1:3]) and relative_error(again[0][mask[0]], fed[0][mask[0]]) > 1e-3
    h, w = batch.spans[3, 2:].tolist()
    rows, columns = size = reasoner.target.token_grids(batch.sketches)[3]
    picture = decoder.draw(fed[3, : h * w], (h, w), size)
    side = reasoner.backbone.pixels_per_token
    assert picture.size != (columns * side, rows * side), "a decoder has pixels of its own"
    images = reasoner.processor.preprocess_sketches([picture.resize((columns * side, rows * side))])
    assert reasoner.target.token_grids(images) == [size]
    seen = reasoner.target.encode_embeddings(images, [(h, w)])[0]
    assert_close(again[3, : h * w], seen)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prob": 1.5}, "scheduled_sampling.prob=1.5"),
        ({"reencode_prob": -1}, "scheduled_sampling.reencode_prob=-1"),
        ({"noise_std": -0.1}, "scheduled_sampling.noise_std=-0.1"),
        ({"noise": 0.1}, "scheduled_sampling has no field 'noise'. Did you mean 'noise_std'"),
    ],
)
def test_wrong_scheduled_sampling_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        methods.build_objective("modal_mixed", scheduled_sampling=wrong)


def test_sweeps_need_a_head_without_noise(make_backbone):
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4)
    with pytest.raises(ValueError, match="needs a head that is not stochastic"):
        Objective(jacobi_sweeps=2).check(reasoner)

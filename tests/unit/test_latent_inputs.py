"""Whose latents stand in the context: given, own, some of both, and three ways to the own ones."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close, is_close, relative_error
from conftest import fit

from latent_reason import methods
from latent_reason.objectives import latent_inputs
from latent_reason.visualization.sketch_decoder import SketchDecoder, seen_again

pytestmark = pytest.mark.usefixtures("float64")


def fitted(make_backbone, make_traces, method="modal_mixed", **options):
    torch.manual_seed(0)
    options = {"k": 4, "head": "mlp"} | options if method == "modal_mixed" else options
    reasoner = methods.build(method, make_backbone(), **options)
    batch = reasoner.collator()(make_traces())
    if reasoner.taught:
        fit(reasoner, batch)
    return reasoner, batch, reasoner.backbone.place(batch)


def everything(batch, value):
    return torch.full(batch.slots()[2].shape, value)


HEADS = [{"head": "mlp"}, {"head": "identity"}, {"head": "autoregressive", "head_options": {"depth": 1, "longest": 4}}]


@pytest.mark.parametrize("options", HEADS, ids=lambda o: o["head"])
def test_enough_sweeps_are_the_sequential_result(make_backbone, make_traces, options):
    reasoner, batch, positions = fitted(make_backbone, make_traces, **options)
    states, latents = latent_inputs.unroll(reasoner, batch, positions)
    most = int(torch.bincount(batch.spans[:, 0], batch.span_lengths.float()).max())
    same, own = latent_inputs.sweep(reasoner, batch, positions, most)
    mask = batch.slots()[2]
    assert_close(own[mask], latents[mask])
    assert_close(same[batch.mask], states[batch.mask])
    few, _ = latent_inputs.sweep(reasoner, batch, positions, 1)
    assert relative_error(few[batch.mask], states[batch.mask]) > 1e-4


def test_sweeps_carry_the_gradient_of_the_sequential_result(make_backbone, make_traces):
    grads = []
    for sweeps in (0, 4):
        reasoner, batch, _ = fitted(make_backbone, make_traces, "coconut", c=2, stage=2, sweeps=sweeps)
        reasoner(batch).total.backward()
        grads.append({n: p.grad for n, p in reasoner.named_parameters() if p.grad is not None})
    assert_close(grads[1], grads[0], depth=16)


@pytest.mark.parametrize("options", HEADS, ids=lambda o: o["head"])
def test_serial_replacement_of_all_is_self_filling_and_of_none_is_teaching(make_backbone, make_traces, options):
    reasoner, batch, positions = fitted(make_backbone, make_traces, **options)
    given = reasoner.feedback(reasoner.target(reasoner.backbone, batch))
    states, latents = latent_inputs.unroll(reasoner, batch, positions)
    mixed, own = latent_inputs.unroll(reasoner, batch, positions, given, everything(batch, True))
    assert_close(own, latents)
    assert_close(mixed, states)
    taught, same = latent_inputs.unroll(reasoner, batch, positions, given, everything(batch, False))
    plain = reasoner.backbone.trunk(reasoner.embed(batch, given), batch.mask, positions)
    assert_close(taught[batch.mask], plain[batch.mask])
    assert torch.equal(same[batch.slots()[2]], given[batch.slots()[2]])


def test_exposure_changes_training_and_nothing_else(make_backbone, make_traces):
    for exposure in ({"noise": 0.3}, {"own": 1.0}, {"own": 1.0, "serial": True}):
        reasoner, batch, positions = fitted(make_backbone, make_traces, exposure=exposure)
        z = reasoner.target(reasoner.backbone, batch)
        plain = reasoner.backbone.trunk(reasoner.embed(batch, reasoner.feedback(z)), batch.mask, positions)
        assert_close(reasoner.eval().taught_states(batch, positions, z), plain)
        assert relative_error(reasoner.train().taught_states(batch, positions, z), plain) > 1e-3, exposure
        if "own" in exposure:
            reasoner.progress = 0.0
            assert is_close(reasoner.taught_states(batch, positions, z), plain), "it rises from none"


def test_parallel_replacement_is_drawn_from_one_taught_pass(make_backbone, make_traces):
    reasoner, batch, positions = fitted(make_backbone, make_traces, exposure={"own": 1.0})
    z = reasoner.target(reasoner.backbone, batch)
    first = reasoner.backbone.trunk(reasoner.embed(batch, reasoner.feedback(z)), batch.mask, positions)
    drawn = latent_inputs.drawn_from(reasoner, batch, first)
    expected = reasoner.backbone.trunk(reasoner.embed(batch, drawn), batch.mask, positions)
    assert_close(reasoner.train().taught_states(batch, positions, z), expected)


def test_redrawn_sketches_are_what_the_eye_sees_of_their_rendering(make_backbone, make_traces):
    reasoner, batch, positions = fitted(make_backbone, make_traces, exposure={"redraw": 1.0})
    z = reasoner.target(reasoner.backbone, batch)
    with pytest.raises(ValueError, match="needs a sketch decoder"):
        reasoner.train().taught_states(batch, positions, z)
    decoder, fed = SketchDecoder(latent=32, width=32), reasoner.feedback(z)
    chosen = torch.tensor([True, False, False, True])
    again = seen_again(reasoner, decoder, batch, fed, chosen)
    mask = batch.slots()[2]
    assert torch.equal(again[1:3], fed[1:3]) and relative_error(again[0][mask[0]], fed[0][mask[0]]) > 1e-3
    h, w = batch.spans[3, 2:].tolist()
    picture = decoder.draw(fed[3, : h * w], (h, w), reasoner.target.sizes(reasoner.backbone, batch.sketches)[3])
    seen = reasoner.target.tokens(reasoner.backbone, reasoner.look([picture]), [(h, w)])[0]
    assert_close(again[3, : h * w], seen)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"own": 1.5}, "exposure.own=1.5"),
        ({"redraw": -1}, "exposure.redraw=-1"),
        ({"noise": -0.1}, "exposure.noise=-0.1"),
        ({"nois": 0.1}, "exposure has no field 'nois'. Did you mean 'noise'"),
    ],
)
def test_wrong_exposure_is_refused(make_backbone, wrong, words):
    with pytest.raises(ValueError, match=words):
        methods.build("modal_mixed", make_backbone(), exposure=wrong)


def test_sweeps_need_a_head_without_noise(make_backbone):
    reasoner = methods.build("modal_mixed", make_backbone(), k=4)
    with pytest.raises(ValueError, match="without noise"):
        type(reasoner)(reasoner.backbone, reasoner.vocabulary, head=reasoner.head, sweeps=2)

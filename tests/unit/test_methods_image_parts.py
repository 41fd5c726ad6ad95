"""What is particular to methods whose latents stand for parts of an image: covt, ilvr, deepsketcher and lvr."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import fit, loss_of, objective_for, training_batch
from PIL import Image as PILImage
from test_methods import fitted
from tiny_runs import recipe, short

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.decoding.engine import generate
from latent_reason.methods import covt, ilvr
from latent_reason.objectives.latent_inputs import text_since_span
from latent_reason.trace import Image, Message, Sketch, Text, Trace
from train import sft

float64 = pytest.mark.usefixtures("float64")


# -- covt --------------------------------------------------------------------------------------------------------------
def test_covt_edges_are_where_the_picture_changes():
    half = PILImage.new("RGB", (32, 32), "white")
    half.paste("black", (0, 0, 16, 32))
    for picture_, across in ((half, True), (half.rotate(90), False)):
        found = (
            covt.edge_map(picture_, 4).reshape(4, 4, covt.EDGE_CELL, covt.EDGE_CELL).permute(0, 2, 1, 3).reshape(32, 32)
        )
        found = found if across else found.T
        assert found[:, 15:17].min() == 1 and not found[:, :15].any() and not found[:, 17:].any()


def test_covt_what_is_taught_is_the_state_at_a_pad(make_backbone, make_traces):
    """And what is fed is the pad: every position its own, the same for every picture."""
    reasoner, batch = fitted("covt", make_backbone(), make_traces())
    fed = reasoner.placeholder_latents(batch)
    assert fed.shape[1] == 8 and (fed == fed[:1]).all() and len(fed[0].unique(dim=0)) == 8
    h = torch.randn(*batch.ids.shape, reasoner.backbone.width, requires_grad=True)
    (grad,) = torch.autograd.grad(
        objective_for(reasoner).loss_terms(reasoner, batch, h, reasoner.target(batch)).latent, h
    )
    touched = grad.abs().sum(-1) > 0
    rows, position, _ = batch.latent_slots()
    expected = torch.zeros_like(touched).index_put((rows.flatten(), position.flatten() + 1), torch.tensor(True))
    assert torch.equal(touched, expected), "h is shifted by one: its entry after a pad is the state at that pad"


def test_covt_pads_learn_the_maps_of_their_picture(make_backbone, make_traces):
    reasoner, batch = fitted("covt", make_backbone(), make_traces())
    maps = reasoner.target(batch)
    assert maps.shape == (4, 144, covt.EDGE_CELL**2 + 64)
    states = torch.randn(4, 8, 32)
    losses = reasoner.head.maps_loss(states, maps)
    assert losses.shape == (4,) and losses.dtype == torch.float32
    other = reasoner.head.maps_loss(states, maps.flip(0))
    assert not torch.allclose(losses, other)


# -- ilvr --------------------------------------------------------------------------------------------------------------
def test_ilvr_the_teacher_follows_the_model_while_it_trains(tmp_path, monkeypatch):
    """In the released code its update sat in a hook that the trainer never called: it stayed the initial model."""
    short(monkeypatch, budget=12)
    followed, follow = [], ilvr.SelectedPatches.update_teacher

    def recorded(self):
        was = copy.deepcopy(self.teacher.state_dict())
        follow(self)
        now = self.backbone.text_model.state_dict()
        after = self.teacher.state_dict()
        followed.append({n: (was[n], after[n].clone(), now[n].clone()) for n in was})

    monkeypatch.setattr(ilvr.SelectedPatches, "update_teacher", recorded)
    made = recipe(tmp_path / "run", "modal_mixed", method__name="ilvr", method__options={"k": 3, "decay": 0.9})
    (tmp_path / "run").mkdir()
    sft.train(made, tmp_path / "run")
    assert len(followed) == 3, "once a step"
    was, now, model = ({n: step[i] for n, step in followed[-1].items()} for i in range(3))
    assert_close(now, {n: 0.9 * was[n] + 0.1 * model[n] for n in was}, depth=1, width=1)
    assert any(not torch.equal(was, now) for was, now, _ in followed[-1].values())


@float64
def test_ilvr_picks_patches_of_the_picture_in_their_order_whatever_the_batch(make_backbone, make_traces):
    reasoner, batch = fitted("ilvr", make_backbone(), make_traces(same_size=True), k=3)
    z, mask = reasoner.target(batch), batch.latent_slots()[2]
    for picked, there, tokens in zip(z, mask, reasoner.backbone.encode_images(batch.sketches), strict=True):
        found = torch.cdist(picked[there], tokens).argmin(1)
        assert_close(tokens[found], picked[there])
        assert len(found) == 3 and (found.diff() > 0).all()
    collate, traces = reasoner.processor, make_traces(same_size=True)
    for row in (0, 1, 3):
        alone = reasoner.target(collate([traces[row]]))
        assert_close(alone, z[batch.spans[:, 0] == row])


@float64
def test_ilvr_picks_by_the_reasoning_so_far(make_backbone, picture):
    reasoner = methods.build_method("ilvr", make_backbone(), k=2)

    def trace(words, name):
        return Trace(
            name,
            (
                Message("user", (Image(picture(3, 3)), Text("where?"))),
                Message("assistant", (Text(words), Sketch(picture(6, 6, 5)), Text("up"))),
            ),
        )

    words = ["go left", "now the map is safe", "down", "a hole? no, right", "yes", "U D L R", "0 1 2 3", "ice ice ice"]
    batch = training_batch(reasoner, [trace(w, str(i)) for i, w in enumerate(words)])
    fit(reasoner, batch)
    z = reasoner.target(batch)
    assert len({tuple(v.flatten().tolist()) for v in z}) > 1, "the same picture, other words, other patches"


def test_what_is_known_of_picture_positions_brings_states_into_their_space():
    torch.manual_seed(0)
    known, linear = torch.randn(200, 16), torch.randn(16, 16)
    for direction in torch.randn(5, 16):
        found = ilvr.to_vision_space(direction, known + 3, known @ linear - 7)
        assert relative_error(found, direction @ linear) < 0.05


# -- deepsketcher ------------------------------------------------------------------------------------------------------
@float64
def test_deepsketcher_edits_begin_with_the_picture_as_it_is_and_build_on_each_other(make_backbone, make_traces):
    reasoner = methods.build_method("deepsketcher", make_backbone(), text_states=4, depth=1)
    traces = make_traces(same_size=True)[:2]
    prompt = reasoner.processor(traces, generate=True)
    v = reasoner.vocabulary
    said = [[*v.encode_text("go"), v.open, *v.encode_text("left"), v.open, *v.encode_text("up"), v.end]] * 2

    def drawn():
        out = generate(reasoner, prompt, max_new_tokens=60, forced_tokens=said)
        assert [s.length for s in out.spans] == [6, 6, 9, 9]
        return [out.latents(s) for s in out.spans]

    seen, rows = reasoner.backbone.encode_images(prompt.images), prompt.image_rows
    last = [seen[max(i for i, r in enumerate(rows) if r == row)] for row in (0, 0, 1, 1)]
    for block, tokens in zip(drawn(), last, strict=True):
        assert_close(block, tokens)
    torch.nn.init.normal_(reasoner.head.leave.weight, std=0.3)
    first, second, *_ = drawn()
    assert not torch.allclose(first, last[0], atol=1e-2) and not torch.allclose(first, second, atol=1e-2)


def test_a_span_without_a_picture_before_it(make_backbone):
    """Who edits the picture it is shown says that there is none; who only looks at pictures draws without."""
    asked = Trace("t", (Message("user", (Text("which way?"),)), Message("assistant", (Text("left"),))))
    for name, options in (
        ("deepsketcher", {"text_states": 4}),
        ("latent_sketchpad", {"k": 4, "cross_attention_layers": 1}),
    ):
        reasoner = methods.build_method(name, make_backbone(), depth=1, **options)
        reasoner.target.standardizer.fitted.fill_(True)
        prompt, v = reasoner.processor([asked], generate=True), reasoner.vocabulary
        said = [[*v.encode_text("go"), v.open, *v.encode_text("left"), v.end]]
        if name == "deepsketcher":
            with pytest.raises(ValueError, match="row 0 of the batch opens a span and has no image: deepsketcher"):
                generate(reasoner, prompt, max_new_tokens=20, forced_tokens=said)
        else:
            out = generate(reasoner, prompt, max_new_tokens=20, forced_tokens=said)
            assert [s.length for s in out.spans] == [4] and out.latents(out.spans[0]).isfinite().all()


def test_deepsketcher_an_edit_is_told_by_the_words_since_the_last_one(make_backbone, make_traces):
    reasoner, batch = fitted("deepsketcher", make_backbone(), make_traces(same_size=True), text_states=4, depth=1)
    torch.nn.init.normal_(reasoner.head.leave.weight, std=0.3)
    z, told = reasoner.target(batch), text_since_span(batch)
    h = torch.randn(*batch.ids.shape, reasoner.backbone.width, requires_grad=True)
    for i in range(len(batch.spans)):
        alone = torch.zeros(len(batch.spans))
        alone[i] = 1.0
        batch.span_weight = alone
        grad = (
            torch.autograd.grad(objective_for(reasoner).loss_terms(reasoner, batch, h, z).latent, h)[0].abs().sum(-1)
            > 0
        )
        expected = torch.zeros_like(grad)
        expected[batch.spans[i, 0]] = told[i]
        assert torch.equal(grad, expected) and 1 < told[i].sum() < 12


@float64
def test_deepsketcher_is_taught_to_edit_the_true_picture_before(make_backbone, make_traces):
    """An unlearnt editor changes nothing, so its loss is the distance of each sketch from the picture before it."""
    reasoner, batch = fitted("deepsketcher", make_backbone(), make_traces(same_size=True)[:1], text_states=4, depth=1)
    z, grids = reasoner.target(batch), batch.spans[:, 2:]
    shown = torch.stack([reasoner.backbone.encode_images(batch.images)[-1], z[0]])
    expected = (reasoner.target.normalize(shown, grids) - reasoner.target.normalize(z, grids)).abs().mean()
    assert_close(loss_of(reasoner, batch).latent, expected)


# -- lvr ---------------------------------------------------------------------------------------------------------------
def boxed(picture, box):
    return Trace(
        "r",
        (
            Message("user", (Image(picture(4, 5)), Text("where?"))),
            Message("assistant", (Text("look "), Sketch(picture(2, 2), box=box), Text("up"))),
        ),
    )


def test_lvr_start_keeps_its_text_loss(make_backbone, picture):
    """The released code gave START no gradient, so nothing taught the decision to look."""
    reasoner = methods.build_method("lvr", make_backbone(), stop="close", supervise="full")
    batch = training_batch(reasoner, [boxed(picture, (0, 0, 0.4, 0.5))])
    opens = batch.ids == reasoner.vocabulary.open
    assert opens.sum() == 1 and (batch.loss_weight[opens] == 1).all()


@float64
@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0, 0, 0.4, 0.5), (0, 2), (0, 2)),
        ((0.2, 0.25, 0.6, 1), (1, 4), (1, 3)),
        ((0.9, 0.9, 1, 1), (3, 4), (4, 5)),
        (None, (0, 4), (0, 5)),
    ],
)
def test_lvr_is_taught_the_tokens_of_its_region_of_the_input(make_backbone, picture, box, rows, columns):
    reasoner = methods.build_method("lvr", make_backbone(), stop="close", supervise="full")
    batch = training_batch(reasoner, [boxed(picture, None), boxed(picture, box)])
    seen = (
        reasoner.backbone.encode_images(batch.images)[1]
        .unflatten(0, (4, 5))[slice(*rows), slice(*columns)]
        .flatten(0, 1)
    )
    z = reasoner.target(batch)[1][: len(seen)]
    assert int(batch.span_lengths[1]) == len(seen)
    assert_close(z, seen)


# -- a backbone in half precision --------------------------------------------------------------------------------------
def test_lvr_refuses_regions_whose_count_decoding_cannot_know(make_backbone, picture):
    trace = Trace(
        "boxed",
        (
            Message("user", (Image(picture(4, 4)),)),
            Message("assistant", (Sketch(picture(4, 4), box=(0, 0, 0.5, 1)), Text("left"))),
        ),
    )
    with pytest.raises(ValueError, match="'boxed': decoding cannot know how many latents its region has"):
        training_batch(methods.build_method("lvr", make_backbone()), [trace])
    assert len(training_batch(methods.build_method("lvr", make_backbone(), count=8), [trace]).spans) == 1

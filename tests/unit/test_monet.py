"""Monet: its three stages, its mask, and the gradient that goes through latents alone."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import loss_of, objective_for, training_batch

from latent_reason import checkpoint, methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.methods.monet import observations, text_mask
from latent_reason.model.batch import IMAGE, LATENT, shift_right
from latent_reason.objectives.attention_masks import hide_observed_images
from latent_reason.objectives.forward import all_hidden_states, forward_batch
from latent_reason.objectives.objective import text_loss
from latent_reason.trace import Text

float64 = pytest.mark.usefixtures("float64")


def monet_case(make_backbone, make_traces, stage=2, **options):
    reasoner = methods.build_method("monet", make_backbone(), k=3, stage=stage, **options)
    torch.nn.ParameterList(reasoner.backbone.vision_parameters).requires_grad_(False)
    return reasoner, training_batch(reasoner, make_traces())


def states_of_teacher(reasoner, batch):
    """States of all layers of a model's teacher, its latents, and the states that draw these."""
    objective = objective_for(reasoner)
    with torch.no_grad():
        return objective.hidden_states(objective.teacher(reasoner), batch.teacher_batch)


def test_what_each_stage_reads(make_backbone, make_traces):
    trace, kinds, weights = make_traces()[1], [], []
    for stage in (1, 2, 3):
        reasoner = methods.build_method("monet", make_backbone(), k=3, stage=stage)
        objective = objective_for(reasoner)
        last = objective.prepare_example(reasoner, trace).messages[-1].content
        kinds.append([type(p).__name__ for p in last])
        weights.append([p.loss for p in last if isinstance(p, Text)])
        told = objective.teacher_view(reasoner, trace)
        assert told is None if stage == 1 else [type(p).__name__ for p in told.messages[-1].content] == kinds[-2]
    assert kinds == [["Text", "Image", "Text"], ["Text", "Image", "Sketch", "Text"], ["Text", "Sketch", "Text"]]
    assert weights == [[None, 2.0], [None, 4.0], [None, 4.0]]
    with pytest.raises(ValueError, match="stage=4"):
        methods.build_objective("monet", stage=4)


def test_words_learn_of_a_picture_through_the_latents_alone(make_backbone, make_traces):
    reasoner, batch = monet_case(make_backbone, make_traces)
    batch, positions = hide_observed_images(batch, reasoner.backbone), reasoner.backbone.position_ids(batch)
    mask = batch.latent_slots()[2]
    embeds = reasoner.embed_batch(batch, torch.randn(*mask.shape, reasoner.backbone.width)).detach().requires_grad_()
    states = forward_batch(reasoner.backbone, batch, embeds, positions)
    shut = batch.attention_mask.clone()  # the latents hidden from the words too: no way is left
    for row, start, h, w in batch.spans.tolist():
        shut[row, start + h * w :, start : start + h * w] = False
    without = reasoner.backbone.forward_text(embeds, shut, positions)
    assert states[batch.mask].isfinite().all()
    for row, start, h, w in batch.spans.tolist():
        end, picture = start + h * w, [start - 3]
        while batch.token_type[row, picture[0] - 1] == IMAGE:
            picture.insert(0, picture[0] - 1)
        hidden = [picture[0] - 1, *picture, start - 2, start - 1]
        (later,) = torch.autograd.grad(states[row, end:].square().sum(), embeds, retain_graph=True)
        assert later[row, picture].any() and later[row, start:end].any() and later[row, : hidden[0]].any()
        (later,) = torch.autograd.grad(without[row, end:].square().sum(), embeds, retain_graph=True)
        assert not later[row, hidden].any() and not later[row, start:end].any() and later[row, : hidden[0]].any()
        (drawn,) = torch.autograd.grad(states[row, start - 1].square().sum(), embeds, retain_graph=True)
        assert drawn[row, picture].any(), "START, which draws the first latent, has seen the picture"
        assert not drawn[row, start:].any()


@float64
@pytest.mark.parametrize("through", [True, False])
def test_its_own_latents_are_the_states_that_draw_them(make_backbone, make_traces, through):
    """What the released runner feeds are not the states it taught; here the two passes agree, under the mask too."""
    reasoner, batch = monet_case(make_backbone, make_traces, text_through_latents=through)
    _, own, drawn = objective_for(reasoner).hidden_states(reasoner, batch)
    assert len(own) == 3 * len(batch.spans) and (own.grad_fn is not None) == through
    assert_close(drawn[-1], own)


@float64
@pytest.mark.parametrize("through", [True, False])
def test_gradient_through_latents_equals_autograds(make_backbone, make_traces, through):
    """Reference: the alignment is read off a frozen copy of the model, into which only the latents lead."""
    reasoner, batch = monet_case(make_backbone, make_traces, text_through_latents=through)
    objective_for(reasoner).teacher(reasoner)
    with torch.no_grad():  # away from the teacher, so that there is something to align
        for p in reasoner.backbone.model.model.language_model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    frozen, trained = copy.deepcopy(reasoner).requires_grad_(False), dict(reasoner.named_parameters())
    terms = loss_of(reasoner, batch)
    names = [n for n, p in trained.items() if p.requires_grad]
    found = torch.autograd.grad(terms.latent, [trained[n] for n in names], allow_unused=True)

    veil, positions = hide_observed_images(batch, reasoner.backbone), reasoner.backbone.position_ids(batch)
    _, own, drawn = objective_for(reasoner).hidden_states(reasoner, batch)
    rows, position, mask = batch.latent_slots()
    latents = own if through else drawn[-1]  # lead back to the live model
    fed = frozen.embed_batch(batch).index_put((rows[mask], position[mask]), latents)
    layers = all_hidden_states(frozen.backbone, veil, fed, positions)
    goal = states_of_teacher(reasoner, batch)[0]
    total, count = 0.0, 0
    for row in range(4):  # by words, one row after the other
        mine = [t for t in range(batch.ids.shape[1]) if batch.loss_weight[row, t] == 4]
        theirs = [t for t in range(batch.teacher_batch.ids.shape[1]) if batch.teacher_batch.loss_weight[row, t] == 4]
        first = int(batch.spans[batch.spans[:, 0] == row, 1].min()) if (batch.spans[:, 0] == row).any() else None
        assert batch.ids[row, mine].tolist() == batch.teacher_batch.ids[row, theirs].tolist()
        if first is None:
            continue
        ends = [
            t
            for t in range(first, batch.ids.shape[1])
            if batch.loss_weight[row, t] == 1 and batch.ids[row, t] != reasoner.vocabulary.open
        ]
        ends_told = [
            t for t in range(batch.teacher_batch.ids.shape[1]) if batch.teacher_batch.loss_weight[row, t] == 1
        ][-len(ends) :]
        cosine = F.cosine_similarity(layers[:, row, mine + ends], goal[:, row, theirs + ends_told], -1)
        total, count = total + (1 - cosine).sum(), count + cosine.numel()
    assert_close(terms.latent, total / count)
    expected = torch.autograd.grad(total / count, [trained[n] for n in names], allow_unused=True)
    assert sum(g is not None and bool(g.any()) for g in expected) > 10
    zero = {name: torch.zeros_like(trained[name]) for name in names}
    found, expected = (
        {name: zero[name] if grad is None else grad for name, grad in zip(names, grads, strict=True)}
        for grads in (found, expected)
    )
    assert_close(found, expected, depth=16)
    assert not any(p.grad is not None for p in objective_for(reasoner).teacher(reasoner).parameters())


def text_gradients(reasoner, loss):
    trained = {name: p for name, p in reasoner.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(trained.items(), grads, strict=True)}


@float64
@pytest.mark.parametrize("stage", [2, 3])
def test_the_text_loss_reaches_the_latents_as_released(make_backbone, make_traces, stage):
    """Reference: each latent is drawn in a pass of its own over the detached latents before it, then all are fed with
    their gradient."""
    reasoner, batch = monet_case(make_backbone, make_traces, stage)
    objective, backbone = objective_for(reasoner), reasoner.backbone
    with torch.no_grad():
        own = objective.hidden_states(reasoner, batch)[1]
    veil, embeds = hide_observed_images(batch, backbone), reasoner.embed_batch(batch)
    _, row, position, _, _ = batch.latent_places()
    latents = []
    for i in range(len(own)):
        fed = embeds.index_put((row[:i], position[:i]), backbone.pad_extra(own[:i]))  # those of later rows are missing
        latents.append(forward_batch(backbone, veil, fed, batch.positions)[row[i], position[i] - 1])
    fed = embeds.index_put((row, position), backbone.pad_extra(torch.stack(latents)))
    states = forward_batch(backbone, veil, fed, batch.positions)
    expected = text_gradients(reasoner, text_loss(reasoner, batch, shift_right(states)))
    assert_close(text_gradients(reasoner, loss_of(reasoner, batch).text), expected, depth=16)
    options = {"text_through_latents": False, "align_at": "before"}
    without, _ = monet_case(make_backbone, make_traces, stage, **options)
    without.load_state_dict(reasoner.state_dict())
    dropped = text_gradients(without, loss_of(without, batch).text)
    missing = sum((grad - dropped[name]).square().sum() for name, grad in expected.items()).sqrt()
    assert missing > 0.1 * sum(grad.square().sum() for grad in expected.values()).sqrt()


@float64
@pytest.mark.parametrize("stage", [2, 3])
def test_what_is_aligned_as_released(make_backbone, make_traces, stage):
    """Reference: torch's cosine with its default dimension, example by example, over all layers at the observations
    (stage 2), or over the latents and all layers at their positions (stage 3)."""
    reasoner, batch = monet_case(make_backbone, make_traces, stage, cosine_along="positions")
    objective, total, rows = objective_for(reasoner), [], 0
    objective.teacher(reasoner)
    with torch.no_grad():
        for p in reasoner.backbone.text_model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    layers, own, _ = objective.hidden_states(reasoner, batch)
    goal, goal_own, _ = states_of_teacher(reasoner, batch)
    sizes = [3 * int((batch.spans[:, 0] == b).sum()) for b in range(4)]
    own, goal_own = (None if x is None else x.split(sizes) for x in (own, goal_own))  # that of stage 2 has none
    for b in range(4):
        if stage == 3:
            at, there = ((x.token_type[b] == LATENT).nonzero()[:, 0] for x in (batch, batch.teacher_batch))
            found = torch.cat([own[b][None], layers[:, b, at]]), torch.cat([goal_own[b][None], goal[:, b, there]])
        else:
            seen = observations(batch.layout)[b].nonzero()[0]
            taught = text_mask(batch.teacher_batch.layout)[b].nonzero()[0]
            found = layers[:, b, seen], goal[:, b, taught[len(taught) - len(seen) :]]
        if found[0].shape[1]:
            total.append((1 - F.cosine_similarity(*found)).mean())
            rows += 1
    assert rows == 3 and objective.latent_weight(batch) == rows
    assert_close(loss_of(reasoner, batch).latent, torch.stack(total).mean())


def test_weights_of_the_stages():
    weights = [methods.build_objective("monet", stage=stage).weights.latent for stage in (2, 3)]
    assert weights == [4.0, 2.0] and methods.build_objective("monet", stage=2, latent_weight=0.0).weights.latent == 0


def test_detached_latents_are_not_aligned_themselves():
    with pytest.raises(
        ValueError, match=r"text_through_latents=False with align_at='latents': .*Set align_at='before'"
    ):
        methods.build_objective("monet", stage=3, text_through_latents=False)
    for stage, options in ((2, {}), (3, {"align_at": "before"})):
        methods.build_objective("monet", stage=stage, text_through_latents=False, **options)


def test_the_last_stage_has_no_picture_and_its_teacher_has(make_backbone, make_traces):
    reasoner, batch = monet_case(make_backbone, make_traces, stage=3)
    assert len(batch.images) == 5 and len(batch.teacher_batch.images) == 9 and batch.sketches is None
    first = loss_of(reasoner, batch).latent
    assert first > 0.01, "without the picture the states are others"
    with torch.no_grad():
        embed = reasoner.backbone.model.get_input_embeddings().weight
        goal = states_of_teacher(reasoner, batch)[2].clone()
        embed.add_(0.1 * torch.randn_like(embed))
    assert torch.equal(states_of_teacher(reasoner, batch)[2], goal), "the teacher stays"
    with torch.no_grad():
        assert loss_of(reasoner, batch).latent != first


def test_a_teacher_from_a_checkpoint(make_backbone, make_traces, tmp_path):
    teacher, _ = monet_case(make_backbone, make_traces, stage=2)
    checkpoint.save(teacher, tmp_path / "stage-2")
    pupil = methods.build_method("monet", make_backbone(), k=3)
    objective_for(pupil).set_teacher(checkpoint.load(tmp_path / "stage-2")[0])
    with torch.no_grad():
        pupil.backbone.model.get_input_embeddings().weight.mul_(2)
    batch = training_batch(pupil, make_traces())
    expected = objective_for(pupil).hidden_states(teacher, batch.teacher_batch)[2]
    assert_close(states_of_teacher(pupil, batch)[2], expected)


def test_words_that_do_not_match_are_an_error(make_backbone, make_traces, monkeypatch):
    """The released code skips such a row without a word."""
    reasoner, _ = monet_case(make_backbone, make_traces)
    objective, trace, other = objective_for(reasoner), make_traces()[0], make_traces()[1]
    monkeypatch.setattr(objective, "teacher_view", lambda model, trace: objective.stage_view(model, other, 1))
    with pytest.raises(ValueError, match=f"trace '{trace.id}': the teacher does not read the same text"):
        objective.encode(reasoner, trace)

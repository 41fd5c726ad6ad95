"""What each method must do beyond the contracts, most of all where a released code went wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import fit, loss_of, objective_for, training_batch
from PIL import Image as PILImage

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding.engine import generate
from latent_reason.methods import mcout
from latent_reason.model import heads
from latent_reason.model.batch import LATENT, MixedBatch, shift_right
from latent_reason.model.processor import Processor
from latent_reason.model.switching import Switch
from latent_reason.trace import Message, Sketch, Text, Trace
from train.lit_modules import set_trainable

float64 = pytest.mark.usefixtures("float64")


def equal(a: MixedBatch, b: MixedBatch) -> bool:
    """Ids of padding may differ: nothing looks at them."""
    return torch.equal(a.ids * a.mask, b.ids * b.mask) and all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("token_type", "loss_weight", "spans", "span_weight")
    )


def thought(trace: Trace, k: int) -> Trace:
    """The trace with one thought of k latents before its answer's second half."""
    *asked, last = trace.messages
    words = "".join(p.text for p in last.content if isinstance(p, Text))
    return Trace(trace.id, (*asked, Message("assistant", (Text(words[:3]), Sketch(None, k), Text(words[3:])))))


# -- spans without pictures --------------------------------------------------------------------------------------------
def test_shortened_rows_are_rows_with_shorter_spans(make_backbone, make_traces):
    reasoner = methods.build_method("mcout", make_backbone(), thoughts=4, mu=0.0)
    own_numbers = Switch(stop="close", supervise="full")
    collate = Processor(reasoner.vocabulary, reasoner.backbone, None, own_numbers)
    traces = [thought(t, k) for t, k in zip(make_traces(False), (5, 2, 3, 5), strict=True)]
    for k in (1, 2, 3, 4, 5):
        fewer = [thought(t, min(k, n)) for t, n in zip(make_traces(False), (5, 2, 3, 5), strict=True)]
        assert equal(mcout.truncate_spans(collate(traces), k), collate(fewer)), k


def test_pictures_for_all_sketches_of_a_batch_or_for_none(make_backbone, make_traces):
    reasoner = methods.build_method("blank", make_backbone(), k=4)
    with pytest.raises(ValueError, match="of a batch have an image"):
        training_batch(reasoner, [make_traces()[0], thought(make_traces()[1], 2)])


# -- blank -------------------------------------------------------------------------------------------------------------
@float64
def test_blank_says_the_same_whatever_the_state(make_backbone, make_traces):
    reasoner = methods.build_method("blank", make_backbone(), k=4)
    out = generate(reasoner, reasoner.processor(make_traces(), generate=True), max_new_tokens=8, latent_mode="first")
    fed = out.latent_embeds[out.token_type == LATENT]
    assert len(fed) > 8 and torch.equal(fed, reasoner.head.vector.expand(len(fed), -1))


# -- coconut -----------------------------------------------------------------------------------------------------------
def said(trace: Trace) -> list:
    return [p.text if isinstance(p, Text) else p.k for p in trace.messages[-1].content]


def test_coconut_removes_sentences_and_never_the_answer(make_backbone):
    trace = Trace(
        "t",
        (
            Message("user", (Text("where?"),)),
            Message("assistant", (Text("Go up."), Sketch(None, 1), Text(" Then left. Done: \\boxed{U,L}"))),
        ),
    )
    for stage, rest in enumerate((None, "Then left. Done: \\boxed{U,L}", "Done: \\boxed{U,L}", "Done: \\boxed{U,L}")):
        reasoner = methods.build_method("coconut", make_backbone(), c=3, stage=stage)
        objective = objective_for(reasoner)
        if not stage:
            assert not reasoner.can_sketch and objective.prepare_example(reasoner, trace) is trace
            continue
        assert said(objective.prepare_example(reasoner, trace)) == [None, rest]
        assert objective.encode(reasoner, trace).spans[0][1:] == (1, 3 * stage)
        assert objective.prepare_example(reasoner, trace.prompt()) == trace.prompt()
        prompt = reasoner.processor([trace], generate=True)
        out = generate(reasoner, prompt, max_new_tokens=20)
        assert [s.length for s in out.spans] == [3 * stage] and out.spans[0].start == 1


# -- mcout -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("multi", [False, True])
def test_mcout_the_answer_depends_on_every_thought(make_backbone, make_traces, multi):
    """In the released code thoughts stand after the answer: no loss depends on them, Multi's attention never learns."""
    reasoner = methods.build_method("mcout", make_backbone(), thoughts=3, multi=multi)
    batch = training_batch(reasoner, make_traces(False))
    assert [tuple(s[2:]) for s in batch.spans.tolist()] == [(1, 3)] * 4
    draw, drawn = reasoner.sample_latents, []
    reasoner.sample_latents = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    terms = loss_of(reasoner, batch)
    grads = torch.autograd.grad(terms.text, [*drawn, *reasoner.head.parameters()], retain_graph=True)
    assert sum(len(z) for z in drawn) == 12 and all(g.any() for g in grads)


@float64
def test_mcout_scores_the_answer_after_fewer_thoughts_too(make_backbone, make_traces):
    reasoner = methods.build_method("mcout", make_backbone(), thoughts=3, mu=0.5)
    losses = []
    for k in (1, 2, 3):
        reasoner.switch = type(reasoner.switch)(start="first", count=k)
        batch = training_batch(reasoner, make_traces(False))
        states, _ = objective_for(reasoner).own_latent_states(reasoner, batch, reasoner.backbone.position_ids(batch))
        losses.append(objective_for(reasoner).loss_terms(reasoner, batch, shift_right(states), None).text)
    expected = (1.5 * losses[2] + 0.5 * (losses[0] + losses[1])) / (1 + 0.5 * 3)
    assert_close(loss_of(reasoner, batch).text, expected)


@float64
def test_mcout_pays_no_attention_to_padding(make_backbone, make_traces):
    """The released attention has no padding mask: a row's thought changed with the pictures of the others."""
    reasoner = methods.build_method("mcout", make_backbone(), thoughts=3, multi=True)
    traces = make_traces(False)
    together = training_batch(reasoner, traces)
    _, thoughts = objective_for(reasoner).own_latent_states(
        reasoner, together, reasoner.backbone.position_ids(together)
    )
    for i, trace in enumerate(traces):
        alone = training_batch(reasoner, [trace])
        _, own = objective_for(reasoner).own_latent_states(reasoner, alone, reasoner.backbone.position_ids(alone))
        assert_close(own[0], thoughts[i])


# -- skila -------------------------------------------------------------------------------------------------------------
def fitted(name, backbone, traces, **options):
    reasoner = methods.build_method(name, backbone, **options)
    batch = training_batch(reasoner, traces)
    fit(reasoner, batch)
    return reasoner, batch


def test_skila_the_latent_loss_does_not_pull_at_its_projection(make_backbone, make_traces):
    """In the released code the loss also pulled the target toward the prediction."""
    reasoner, batch = fitted("skila", make_backbone(), make_traces(), k=4)
    project = reasoner.target.project
    assert torch.autograd.grad(loss_of(reasoner, batch).text, project.weight)[0].any(), "it learns on the input path"
    h = torch.randn(*batch.ids.shape, reasoner.backbone.width, requires_grad=True)
    latent = objective_for(reasoner).loss_terms(reasoner, batch, h, reasoner.target(batch)).latent
    assert torch.autograd.grad(latent, project.weight, allow_unused=True)[0] is None


@float64
def test_skila_words_cannot_blow_its_target_up(make_backbone, make_traces):
    reasoner, batch = fitted("skila", make_backbone(), make_traces(), k=4)
    before_growth = reasoner.target(batch)
    with torch.no_grad():
        reasoner.target.project.weight.mul_(100)
        reasoner.target.project.bias.mul_(100)
    assert_close(reasoner.target(batch), before_growth)


def test_skila_encoder_is_looked_through_and_left_out_of_the_weights(make_backbone, make_traces, picture):
    reasoner, batch = fitted("skila", make_backbone(), make_traces(), k=4)
    assert not [n for n in reasoner.state_dict() if "encoder" in n]
    grids = batch.spans[:, 2:].tolist()
    assert grids == [[2, 2], [1, 2], [2, 2], [1, 2]], "as many as k, and as a sketch wishes, whatever its size"
    dark, light = (PILImage.new("RGB", (192, 192), c) for c in ("black", "white"))
    half = dark.copy()
    half.paste(light.crop((0, 0, 96, 192)), (96, 0))
    one, three = reasoner.target.pooled_features(reasoner.processor.preprocess_sketches([dark, half]))
    sides = (three[0] - one[0]).norm(), (three[1] - one[1]).norm()
    assert sides[0] < sides[1], "left half dark: its columns are told apart, rows are not averaged away"


# -- swimbird ----------------------------------------------------------------------------------------------------------
def test_swimbird_the_number_of_latents_follows_the_picture(make_backbone, picture):
    reasoner = methods.build_method("swimbird", make_backbone(), k=8)
    target, backbone = reasoner.target, reasoner.backbone
    pictures = [picture(2, 3), picture(4, 2), picture(8, 8), picture(9, 3)]
    looked = reasoner.processor.preprocess_sketches(pictures)
    sizes = target.token_grids(looked)
    assert sizes == [(2, 3), (4, 2), (2, 4), (4, 2)]
    for tokens, shown, grid in zip(target.encode_embeddings(looked), pictures, sizes, strict=True):
        assert len(tokens) == grid[0] * grid[1] <= 8
        assert grid == target.latent_grid(*backbone.token_grid(shown)), "what is planned is what is seen"


# -- mirage ------------------------------------------------------------------------------------------------------------
def test_mirage_stage_2_really_runs_its_own_latents(make_backbone, make_traces):
    """With activation checkpointing on, the released stage 2 ran without its cache and nobody was told."""
    reasoner, batch = fitted("mirage", make_backbone(), make_traces(), k=4, stage=2)
    draw, drawn = reasoner.sample_latents, []
    reasoner.sample_latents = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    grads = torch.autograd.grad(loss_of(reasoner, batch).total, drawn)
    assert sum(len(z) for z in drawn) == int(batch.span_lengths.sum()) and all(g.any() for g in grads)
    reasoner.backbone.set_gradient_checkpointing()
    with pytest.raises(ValueError, match="activation checkpointing"):
        loss_of(reasoner, batch)


@float64
def test_mirage_stage_1_weighs_the_picture_more_than_the_words(make_backbone, make_traces):
    reasoner, batch = fitted("mirage", make_backbone(), make_traces(), k=4)
    terms = loss_of(reasoner, batch)
    assert_close(terms.total, 0.1 * terms.text + terms.latent + terms.stop)
    with pytest.raises(ValueError, match="stage=3"):
        methods.build_method("mirage", make_backbone(), stage=3)


# -- latent_sketchpad --------------------------------------------------------------------------------------------------
@float64
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava", "llava_onevision", "internvl"])
def test_features_and_connector_together_are_the_eye(family, make_backbone, picture):
    backbone = make_backbone(family=family)
    looked = backbone.preprocess_images([picture(2, 3), picture(5, 4), picture(1, 1)])
    features = backbone.vision_features(looked)
    for before_connector, seen in zip(features, backbone.encode_images(looked), strict=True):
        assert before_connector.shape == (len(seen), backbone.feature_width)
        assert_close(backbone.apply_connector(before_connector), seen)


def spans_of_a_head(lengths=(4, 2, 3), width=32, latent=12):
    torch.manual_seed(0)
    head = heads.make("autoregressive", width, latent, depth=2, cross_attention_layers=1, longest=6).eval()
    k = max(lengths)
    mask = torch.arange(k) < torch.tensor(lengths)[:, None]
    there = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 5])
    scene = heads.HeadContext(torch.randn(3, 5, width) * there[..., None], there, there.sum(1))
    return head, torch.randn(3, k, width), mask, scene


@float64
def test_a_head_that_reads_its_span_draws_what_it_was_taught_on():
    """Drawn slot by slot with a cache, then handed over as targets: the loss of each is zero, whatever its span's K."""
    head, h, mask, scene = spans_of_a_head()
    drawn = torch.zeros(*mask.shape, head.latent_width)
    with torch.no_grad():
        for j in range(mask.shape[1]):
            rows = mask[:, j].nonzero()[:, 0]
            drawn[rows, j] = head.sample(h[rows, j], scene.for_rows(rows, torch.full_like(rows, j)))
        loss = head.span_loss(h, drawn, mask, scene.for_rows(torch.arange(3)))
    assert loss.shape == (9,) and loss.max() < 1e-12


@float64
def test_a_latent_of_such_a_head_depends_on_those_before_it_and_on_the_pictures_only():
    head, h, mask, scene = spans_of_a_head()
    z, rows = torch.randn(*mask.shape, head.latent_width, requires_grad=True), torch.arange(3)
    for part in head.parameters():
        torch.nn.init.normal_(part, std=0.2)
    slots = mask.nonzero().tolist()
    loss = head.span_loss(h, z, mask, scene.for_rows(rows))
    for n, (row, j) in enumerate(slots):
        grad = torch.autograd.grad(loss[n], z, retain_graph=True)[0].abs().sum(-1)
        assert (
            (grad[row, : j + 1] > 0).all() and not grad[row, j + 1 :].any() and not grad[torch.arange(3) != row].any()
        )
    other = replace(scene, image_tokens=2 * scene.image_tokens).for_rows(rows)
    changed = (head.span_loss(h, z, mask, other) - loss).abs()
    seen = torch.tensor([row < 2 for row, _ in slots])
    assert (changed[seen] > 1e-6).all() and (changed[~seen] < 1e-12).all(), "a row without pictures sees none"


@float64
def test_latent_sketchpad_second_stage_trains_its_head_alone(make_backbone, make_traces):
    reasoner, batch = fitted(
        "latent_sketchpad", make_backbone(), make_traces(), k=4, depth=1, cross_attention_layers=1, text_weight=0.0
    )
    set_trainable(reasoner, ["head"])
    terms = loss_of(reasoner.train(), batch)
    assert_close(terms.total, terms.latent)
    terms.total.backward()
    assert {n.partition(".")[0] for n, p in reasoner.named_parameters() if p.grad is not None} == {"head"}
    first = methods.build_method(
        "latent_sketchpad", make_backbone(), k=4, depth=1, cross_attention_layers=1, latent_weight=0.0
    )
    fit(first, batch)
    assert set(loss_of(first, batch).parts()) == {"text"} and objective_for(first).uses_target(first), (
        "true features stand in the context"
    )


@float64
def test_latent_sketchpad_the_connector_term_teaches_the_head_alone(make_backbone, make_traces):
    """It is an L1 whatever the loss before the connector is, and its gradient passes through the connector."""
    small = {"k": 4, "depth": 1, "cross_attention_layers": 1}
    reasoner, batch = fitted("latent_sketchpad", make_backbone(), make_traces(), **small, loss="mse")
    reasoner.requires_grad_(True)
    h = torch.randn(*batch.ids.shape, reasoner.backbone.width)
    z, connect, connected = reasoner.target(batch), reasoner.target.to_embeddings, []
    objectives = (methods.build_objective("latent_sketchpad", connector_weight=weight) for weight in (0.0, 1.0))
    reasoner.target.to_embeddings = lambda features: connected.append(connect(features)) or connected[-1]
    plain, both = (objective.latent_loss(reasoner, batch, h, z) for objective in objectives)
    term, (span, *_) = both - plain, batch.latent_places()
    assert len(connected) == 2 and term > 0
    weights = batch.span_weight[span]
    assert_close(term, ((connected[0] - connected[1]).abs().mean(-1) * weights).sum() / weights.sum())
    named = dict(reasoner.named_parameters())
    grads = torch.autograd.grad(term, [*named.values()], allow_unused=True)
    reached = {name for name, grad in zip(named, grads, strict=True) if grad is not None and grad.abs().max() > 1e-12}
    assert {name.partition(".")[0] for name in reached} == {"head"}


def test_the_rule_opens_a_span_after_every_sentence(make_backbone, make_traces):
    reasoner = methods.build_method(
        "latent_sketchpad",
        make_backbone(),
        k=4,
        depth=1,
        cross_attention_layers=1,
        open_after_sentences=True,
        max_spans=2,
    )
    v = reasoner.vocabulary
    said = [v.encode_text("go. now left. up. down"), v.encode_text("no dot"), v.encode_text("a.b"), []]
    prompt = reasoner.processor(make_traces(same_size=True), generate=True)
    out = generate(reasoner, prompt, max_new_tokens=20, forced_tokens=[[*words, v.end] for words in said])
    kept = [[v.decode(out.ids[r, : s.start - 1].tolist()) for s in out.spans_of(r)] for r in range(4)]
    assert kept[1:] == [[], ["a."], []] or kept[1:] == [[], [], []]
    assert len(kept[0]) == 2 and all(text.endswith(".") for text in kept[0])
    assert not out.open_allowed.any(), "the model opens none by itself"

"""What may make latents carry the state: the bottleneck, latents left out, foreign pictures, raw targets."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import CASES, fit, ready, training_batch
from tiny_runs import recipe, short, tiny_checkpoint, untrained

from eval import item_filter
from latent_reason import methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.decoding.items import Result
from latent_reason.methods.mcout import truncate_spans
from latent_reason.model.backbones.base import Backbone
from latent_reason.model.batch import IMAGE, LATENT, TEXT
from latent_reason.objectives.attention_masks import apply_bottleneck, full_attention_mask
from latent_reason.objectives.objective import RunOptions
from latent_reason.tasks import make
from latent_reason.trace import Image, Message, Sketch, Text, Trace
from train import sft
from train.config import SFTDataConfig
from train.traces import foreign, traces
from train.trainer import make_run_folder

float64 = pytest.mark.usefixtures("float64")


@pytest.fixture
def batch_and_reasoner(make_backbone, make_traces):
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4, head="mlp")
    batch = training_batch(reasoner, make_traces())
    fit(reasoner, batch)
    return batch, reasoner


@pytest.mark.parametrize("name", ["modal_mixed", "mirage", "mcout", "monet", "blank"])
def test_bottlenecked_words_see_the_picture_through_latents_and_the_question_alone(name, make_backbone, make_traces):
    reasoner = methods.build_method(name, make_backbone(), **({"k": 4} if name not in ("mcout",) else {"thoughts": 3}))
    batch = training_batch(reasoner, make_traces())
    batch = apply_bottleneck(batch, torch.tensor([True, True, True, False]))
    mask = batch.latent_slots()[2]
    embeds = reasoner.embed_batch(batch, torch.randn(*mask.shape, reasoner.backbone.width)).detach().requires_grad_()
    shut = batch.attention_mask.clone()  # without the two ways that are left, nothing may come through
    for row, start, h, w in batch.spans.tolist():
        asked = (batch.token_type[row] == TEXT) & (batch.loss_weight[row] == 0)
        shut[row, start + h * w :, start : start + h * w] = False
        shut[row, :, :] &= ~(torch.arange(len(asked)) >= start + h * w)[:, None] | ~asked | torch.eye(len(asked)).bool()
        shut[row][(batch.token_type[row] == LATENT)] = torch.eye(len(asked)).bool()[batch.token_type[row] == LATENT]
    states = reasoner.backbone.forward_text(embeds, shut, reasoner.backbone.position_ids(batch))
    for row in sorted({r for r, *_ in batch.spans.tolist()}):
        first = min(s + h * w for r, s, h, w in batch.spans.tolist() if r == row)
        said = [
            t
            for t in range(first, batch.ids.shape[1])
            if batch.loss_weight[row, t] > 0 and batch.token_type[row, t] == TEXT
        ]
        (pulled,) = torch.autograd.grad(states[row, said].square().sum(), embeds, retain_graph=True)
        leaks = bool(pulled[row, batch.token_type[row] == IMAGE].any())
        assert leaks == (row == 3), "row 3 was left as it is"


@pytest.mark.parametrize("start_loss", [False, True])
def test_bottlenecked_words_do_not_see_start(start_loss, make_backbone, make_traces):
    """It has read the image, with a text loss and without."""
    reasoner = methods.build_method("coconut", make_backbone(), c=1, stage=2, start_loss=start_loss)
    batch = apply_bottleneck(training_batch(reasoner, make_traces(False)), torch.tensor([True, True, True, False]))
    for row, start, h, w in batch.spans.tolist():
        seen = batch.attention_mask[row, :, start - 1]
        assert seen[start - 1 : start + h * w].all(), "START itself and the latents"
        assert seen[start + h * w :].any() == (row == 3), "row 3 was left as it is"


def test_bottlenecked_words_see_no_earlier_step(batch_and_reasoner):
    batch, _ = batch_and_reasoner
    batch = apply_bottleneck(batch, torch.ones(4, dtype=torch.bool))
    (_, first, h, w), (_, second, h2, w2) = [s for s in batch.spans.tolist() if s[0] == 0]
    own = (batch.token_type[0] == TEXT) & (batch.loss_weight[0] > 0)
    words = own.nonzero()[:, 0]
    earlier, between = words < first, (words > first + h * w) & (words < second)
    assert earlier.any() and between.any()
    after = batch.attention_mask[0, second + h2 * w2 + 1]
    assert not after[words[earlier]].any() and not after[words[between]].any()
    assert after[first : first + h * w].all() and after[second : second + h2 * w2].all(), "sketches stay in sight"
    assert batch.attention_mask[0, second + h2 * w2 - 1, words[earlier]].all(), "a latent sees all"
    unspanned = [r for r in range(4) if r not in batch.spans[:, 0]]
    assert all((batch.attention_mask[r].tril() == batch.attention_mask[r]).all() for r in range(4)) and unspanned


def masks_of_passes(monkeypatch) -> list[torch.Tensor]:
    """The masks of all passes through a text model from now on."""
    seen, call = [], Backbone.call_text_model

    def recorded(self, embeds, mask, *args, **options):
        seen.append(mask)
        return call(self, embeds, mask, *args, **options)

    monkeypatch.setattr(Backbone, "call_text_model", recorded)
    return seen


def test_the_bottleneck_is_for_training_and_for_a_share_of_rows(batch_and_reasoner, monkeypatch):
    batch, reasoner = batch_and_reasoner
    seen = masks_of_passes(monkeypatch)
    objective = methods.objective_of(reasoner, RunOptions(attention_bottleneck_prob=1.0))
    reasoner.eval()(objective.loss, batch)
    assert len(seen) == 1 and torch.equal(seen[0], full_attention_mask(batch))
    terms = reasoner.train()(objective.loss, batch)
    assert seen[-1].ndim == 3 and (seen[-1][0] != seen[-1][2]).any()
    assert torch.isfinite(terms.total)


def test_rows_cut_short_keep_their_mask(make_backbone, make_traces):
    reasoner = methods.build_method("mcout", make_backbone(), thoughts=4)
    batch = training_batch(reasoner, make_traces(False))
    every = torch.ones(4, dtype=torch.bool)
    for k in (1, 3):
        cut, made = (
            truncate_spans(apply_bottleneck(batch, every), k),
            apply_bottleneck(truncate_spans(batch, k), every),
        )
        there = made.mask[:, :, None]  # no text reads what was cut
        assert torch.equal(cut.attention_mask & there, made.attention_mask & there)


FED = [
    c
    for c in CASES
    if c.method in ("modal_mixed", "skila", "mirage", "coconut") and "scheduled_sampling" not in c.options
]


@float64
@pytest.mark.parametrize("case", FED, ids=str)
def test_left_out_latents_say_nothing(case, make_backbone, make_traces):
    reasoner = ready(case, make_backbone, make_traces)
    batch = training_batch(reasoner, make_traces())
    objective = methods.objective_of(reasoner, RunOptions(latent_dropout=1.0))
    given = objective.empty_latents(reasoner, batch)
    plain = reasoner.backbone.forward_text(
        reasoner.embed_batch(batch, given), batch.mask, reasoner.backbone.position_ids(batch)
    )
    positions = reasoner.backbone.position_ids(batch)
    if objective.latent_input == "teacher":
        z = reasoner.target(batch)
        out, _ = objective.teacher_forced_states(reasoner.train(), batch, positions, z)
        assert_close(out[batch.mask], plain[batch.mask])
        full, _ = objective.teacher_forced_states(reasoner.eval(), batch, positions, z)
        assert relative_error(out[batch.mask], full[batch.mask]) > 1e-3
    elif objective.latent_input == "self" and not objective.jacobi_sweeps:
        out, latents = objective.own_latent_states(reasoner.train(), batch, positions)
        assert_close(latents, given)
        assert_close(out[batch.mask], plain[batch.mask])


def test_a_foreign_picture_leaves_only_the_sketch_to_go_on_from(picture):
    def trace(n):
        return Trace(
            f"t{n}",
            (
                Message("user", (Image(picture(2, 2, n)), Text("where?"))),
                Message(
                    "assistant",
                    (Text("go"), Sketch(picture(2, 2, n + 9)), Text("then"), Sketch(picture(2, 2, n + 7)), Text("end")),
                ),
            ),
        )

    class Other:
        images = [picture(2, 2, 5)]

    crossed = foreign(trace(0), Other())
    assert crossed.images() == Other.images and crossed.messages[0].content[1] == Text("where?")
    assert [p.loss for p in crossed.messages[-1].content] == [0.0, 0.0, None, 1.0, None]
    assert [s.image for s in crossed.sketches()] == [s.image for s in trace(0).sketches()]
    plain = Trace("p", (Message("user", (Image(picture(2, 2)),)), Message("assistant", (Text("no sketch"),))))
    assert foreign(plain, Other()) is plain


def test_a_share_of_items_is_shown_under_a_foreign_picture():
    data = SFTDataConfig(levels=[4], items=60, swap_image_prob=0.5, options={"skin": "drawn"})
    task = make("frozenlake_plan", level=4, skin="drawn")
    made = list(traces(data, "mixed", "train", 60))
    crossed = [t.id.endswith("-foreign") for t in made]
    assert 8 < sum(crossed) < 40
    for i, (trace, other) in enumerate(zip(made, crossed, strict=True)):
        same = trace.images()[0].tobytes() == task[i].images[0].tobytes()
        assert same != other and trace.answer == task[i].answer
    assert [t.id for t in made] == [t.id for t in traces(data, "mixed", "train", 60)]


@pytest.mark.parametrize(
    "changes",
    [
        {"method__attention_bottleneck_prob": 0.5},
        {"method__latent_dropout": 0.3},
        {"method__center_targets": False},
        {"data__swap_image_prob": 0.5},
    ],
    ids=str,
)
def test_each_is_one_flag_of_a_run(changes, tmp_path, monkeypatch):
    short(monkeypatch, budget=12)
    made = recipe(tmp_path / "run", **changes)
    reasoner, _ = sft.train(made, make_run_folder(made))
    assert all(p.isfinite().all() for p in reasoner.parameters())
    space = reasoner.target.standardizer
    flat = not space.mean.any() and space.std.unique().numel() == 1
    assert flat == ("method__center_targets" in changes)


def test_items_that_need_their_sketch_are_kept(monkeypatch, tmp_path):
    """Four kinds of items by what a model makes of them with and without the true sketch."""
    reasoner, _ = untrained()
    task = make("frozenlake_plan", level=4, length=(3, 3), chunk=(1, 1))

    def decoded(reasoner, decoder, task, items, mode, *, latent_mode="learned", latent_hook=None, progress=""):
        assert (latent_mode == "off") == (latent_hook is None)
        right = [i.index % 4 in ((1, 3) if latent_mode == "off" else (0, 1)) for i in items]
        return [Result(i, "", {"success": float(r)}, None, 0) for i, r in zip(items, right, strict=True)]

    monkeypatch.setattr("eval.item_filter.decode", decoded)
    kept, counts = item_filter.find_items_that_need_sketch(reasoner, task, 12, "mixed")
    assert kept == [0, 4, 8] and list(counts.values()) == [3, 3, 3, 3, 0]


def test_a_file_of_kept_items_chooses_what_is_trained_on(monkeypatch, tmp_path):
    short(monkeypatch, budget=10)
    file = tmp_path / "keep.json"
    item_filter.main([str(tiny_checkpoint()), "--out", str(file), "--n", "6", "--levels", "3,4"])
    found = json.loads(file.read_text())
    assert sum(found["solved"].values()) == 6 and found["levels"] == [3, 4]
    file.write_text(json.dumps(found | {"keep": [5, 2, 9]}))
    own = {"items": 20, "options": {"chunk": [1, 1]}}
    plain, some = SFTDataConfig(**own), SFTDataConfig(**own, include_ids=str(file))
    task = make("frozenlake_plan", level=(3, 4), chunk=(1, 1))
    assert [t.id for t in traces(some, "mixed", "train", 20)] == [task[i].id for i in (5, 2, 9)]
    assert len(list(traces(some, "mixed", "val", 3))) == 3, "held-out items are all kept"
    assert len(list(traces(plain, "mixed", "train", 20))) == 20
    others = {
        "made for options": {"options": {}},
        "made for seed 0": {"seed": 1},
        "made for levels": {"levels": [4]},
        "made for task": {"task": "plan_check", "options": {}},
    }
    for said, changes in others.items():
        with pytest.raises(ValueError, match=said):
            list(traces(SFTDataConfig(**own | changes, include_ids=str(file)), "mixed", "train", 3))
    file.write_text(json.dumps(found | {"keep": []}))
    with pytest.raises(ValueError, match="names no items"):
        list(traces(some, "mixed", "train", 3))
    file.write_text("[1, 2]")
    with pytest.raises(ValueError, match="is not a file of"):
        list(traces(some, "mixed", "train", 3))


@pytest.mark.parametrize("name", ["monet", "mcout", "coconut", "skila"])
def test_the_bottleneck_reaches_every_method(name, make_backbone, make_traces, monkeypatch):
    reasoner = ready(next(c for c in CASES if c.method == name), make_backbone, make_traces)
    batch, seen = training_batch(reasoner, make_traces()), masks_of_passes(monkeypatch)
    objective = methods.objective_of(reasoner, RunOptions(attention_bottleneck_prob=1.0))
    reasoner.train()(objective.loss, batch)
    assert any(s is not None and s.ndim == 3 for s in seen)


def test_what_cannot_be_is_refused(tmp_path):
    blank = recipe(tmp_path / "a", method__name="blank", method__latent_dropout=0.5, method__options={"k": 4})
    with pytest.raises(ValueError, match="latent_dropout cannot be used with latent_input='blank'"):
        sft.train(blank, make_run_folder(blank))
    with pytest.raises(ValueError, match="does not show everything that later steps need"):
        list(traces(SFTDataConfig(task="jigsaw", levels=[2], swap_image_prob=0.5), "mixed", "train", 3))
    with pytest.raises(ValueError, match="need items of a task"):
        list(traces(SFTDataConfig(folder="x", swap_image_prob=0.5), "mixed", "train", 3))


def test_foreign_pictures_are_refused_where_no_sketch_is_given(tmp_path):
    made = recipe(tmp_path / "run", "direct", data__swap_image_prob=0.5)
    with pytest.raises(ValueError, match="does not put target latents into the context"):
        sft.train(made, make_run_folder(made))


@float64
def test_raw_targets_keep_the_constant_of_their_place_and_have_unit_size(make_backbone, picture):
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4, head="mlp")
    looked = reasoner.processor.preprocess_sketches([picture(2, 2, n) for n in range(40)])
    features = [(z, (2, 2)) for z in reasoner.target.pooled_features(looked)]
    reasoner.target.fit_statistics(features, center=False)
    z, grids = torch.stack([z for z, _ in features]), torch.tensor([[2, 2]]).expand(40, 2)
    standard = reasoner.target.normalize(z, grids)
    assert_close(standard.square().mean().sqrt(), 1.0)
    assert_close(standard * z.square().mean().sqrt(), z)

"""Records of all shapes: a method trains on them as decoding will read them, or refuses them in one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import CASES, objective_for, ready
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from latent_reason import methods
from latent_reason.cli import main
from latent_reason.contracts.fixtures import Case
from latent_reason.data import native
from latent_reason.decoding.engine import generate
from latent_reason.decoding.prompts import planned_grids
from latent_reason.methods import ilvr
from latent_reason.objectives.sentences import split_sentences
from latent_reason.objectives.sketch_counts import SketchCounts
from latent_reason.trace import Image, Message, Sketch, Text, Trace

METHODS = list({case.method: case for case in reversed(CASES)}.values())  # one case a method
STAGES = [Case("monet", {"k": 4, "stage": stage}) for stage in (1, 2)]
OWN_LATENTS = {"coconut", "mcout", "monet", "covt", "blank"}


def shapes(picture) -> dict[str, Trace]:
    """Traces by the name of what is unusual in them."""
    image, sketch = Image(picture(2, 3)), Sketch(picture(2, 3, 1))

    def trace(*turns) -> Trace:
        roles = ("user", "assistant") * 2
        return Trace("odd", tuple(Message(role, tuple(parts)) for role, parts in zip(roles, turns, strict=False)))

    question, answer = (image, Text("which way?")), (Text("go."), sketch, Text(" up"))
    return {
        "no image": trace((Text("which way?"),), answer),
        "no image and no sketch": trace((Text("which way?"),), (Text("go. up"),)),
        "sketch in an earlier turn": trace(question, answer, (Text("and then?"),), (Text("a."), sketch, Text("left"))),
        "sketch in an earlier turn alone": trace(question, answer, (Text("and then?"),), (Text("left"),)),
        "two turns": trace(question, (Text("Go there. Then up"),), (Text("and then?"),), (Text("By the wall. left"),)),
        "sketch first": trace(question, (sketch, Text("up"))),
        "text without a loss": trace(question, (Text("go.", loss=0.0), sketch, Text(" up", loss=0.0))),
        "texts of two weights": trace(question, (Text("A. B. ", loss=0.0), Text("up"))),
        "image in the answer alone": trace((Text("which way?"),), (image, Text("up"))),
        "image after the first sketch": trace((Text("?"),), answer, question, answer),
    }


@pytest.mark.parametrize("case", [*METHODS, *STAGES], ids=str)
def test_a_record_trains_and_decodes_or_is_refused(case, make_backbone, make_traces, picture):
    reasoner = ready(case, make_backbone, make_traces)
    objective, refused = objective_for(reasoner), {}
    for name, trace in shapes(picture).items():
        try:
            objective.encode(reasoner, trace)
        except ValueError as error:
            refused[name] = str(error)
            assert refused[name].startswith("trace 'odd': ")
            continue
        terms = reasoner(objective.loss, objective.collate(reasoner, [trace]))
        terms.total.backward()
        assert all(part.isfinite() for part in terms.parts().values()), name
        assert all(p.grad is None or p.grad.isfinite().all() for p in reasoner.parameters()), name
        reasoner.zero_grad()
        generate(reasoner, reasoner.processor([trace], generate=True), max_new_tokens=4)
    is_taught = reasoner.target is not None and reasoner.follows_target and objective.latent_input == "teacher"
    assert ("sketch in an earlier turn" in refused) == (not is_taught)
    assert ("two turns" not in refused and "sketch first" not in refused) or not reasoner.can_sketch
    if case.method in ("lvr", "deepsketcher", "ilvr"):
        assert "has no image before it" in refused["no image"] and "no image and no sketch" not in refused
    if case.method == "covt":
        assert "has no image" in refused["no image and no sketch"] and "image in the answer alone" in refused
    assert ("have no loss and others" in refused.get("texts of two weights", "")) == (
        case.method in ("coconut", "colt")
    )


def test_patches_are_selected_by_text_without_a_loss_too(make_backbone, make_traces, picture, monkeypatch):
    """The mean of no states is not a number, and would select any patches."""
    case, queries = next(case for case in METHODS if case.method == "ilvr"), []
    reasoner, query = ready(case, make_backbone, make_traces), ilvr.to_vision_space
    monkeypatch.setattr(ilvr, "to_vision_space", lambda *args: queries.append(query(*args)) or queries[-1])
    objective = objective_for(reasoner)
    reasoner(objective.loss, objective.collate(reasoner, [shapes(picture)["text without a loss"]]))
    assert len(queries) == 1 and queries[0].isfinite().all()


def test_the_opening_of_a_sketch_is_taught_with_the_sketch(make_backbone, picture):
    """In a turn whose text has no loss: the sketch and its open token are taught, the end of the turn is not."""
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4)
    trace = shapes(picture)["text without a loss"]
    row = reasoner.processor.encode(trace)
    taught = [id for id, weight in zip(row.ids, row.loss_weight, strict=True) if weight]
    assert taught == [reasoner.vocabulary.open] and row.span_weight == [1.0]
    *earlier, last = trace.messages
    silent = replace(last, content=tuple(replace(part, loss=0.0) for part in last.content))
    row = reasoner.processor.encode(replace(trace, messages=(*earlier, silent)))
    assert not any(row.loss_weight) and row.span_weight == [0.0]


def test_a_fixed_number_of_latents_is_a_grid_near_a_square(make_backbone, picture):
    """Regions of any shape are pooled to it, in training as in decoding."""
    reasoner = methods.build_method("lvr", make_backbone(), k=16, count=8)
    question = Message("user", (Image(picture(8, 8)), Text("?")))
    answer = Message("assistant", (Sketch(picture(8, 8), box=(0, 0, 0.5, 0.5)), Text("left")))
    trace = Trace("region", (question, answer))
    (span,) = reasoner.processor.encode(trace).spans
    drawn = planned_grids(reasoner, reasoner.processor([trace], generate=True))
    assert span[1:] == drawn[0] and sorted(span[1:]) == [2, 4]
    counts = SketchCounts(reasoner)
    counts.add(trace)
    assert "1 of 1 sketches would have another number of latents" in counts.sentences()[0]


@pytest.mark.parametrize("name", ["coconut", "colt", "covt", "cvrr", "livr", "mcout"])
def test_methods_that_rewrite_the_last_turn_teach_no_other_answer(name, make_backbone, make_traces, picture):
    """The answer of an earlier turn is read without thoughts in decoding, and would be taught without them."""
    case = next(case for case in METHODS if case.method == name)
    reasoner = ready(case, make_backbone, make_traces)
    row = objective_for(reasoner).encode(reasoner, shapes(picture)["two turns"])
    first = row.spans[0][0]
    assert not any(row.loss_weight[: first - 1]) and any(row.loss_weight[first:])


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("Go up. Then left. \\boxed{U. L}", ["Go up.", "Then left.", "\\boxed{U. L}"]),
        ("It is \\boxed{\\frac{a. b}{c.\nd}}. Done", ["It is \\boxed{\\frac{a. b}{c.\nd}}.", "Done"]),
        ("A set {a. b}. \\boxed {x. y}", ["A set {a.", "b}.", "\\boxed {x. y}"]),
        ("one\ntwo", ["one\n", "two"]),
        ("", [""]),
    ],
)
def test_coconut_cuts_no_box(text, sentences):
    assert split_sentences(text) == sentences


def write(folder, picture, name: str, before: int = 1):
    """Records: some good ones, and then one of this shape."""
    shapes_here = shapes(picture)
    shapes_here["good"] = Trace(
        "good", (*shapes_here["sketch first"].messages[:1], shapes_here["no image"].messages[1])
    )
    traces = [boxed(shapes_here["good"], f"good-{i}") for i in range(before)] + [boxed(shapes_here[name], "odd")]
    return native.write(traces, folder).parent


def boxed(trace: Trace, name: str) -> Trace:
    """The trace as a record, which ends with a boxed answer."""
    *earlier, last = trace.messages
    ended = replace(last, content=(*last.content, Text(" \\boxed{up}")))
    mode = "mixed" if trace.sketches() else "text"
    return Trace(name, (*earlier, ended), mode=mode, answer="up")


def test_data_check_finds_what_training_refuses(tmp_path, picture, capsys, monkeypatch):
    from tiny_runs import command, recipe, tiny_checkpoint

    from train import sft
    from train.config import dump

    folder = write(tmp_path / "records", picture, "no image")
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(folder), "--method", "deepsketcher"])
    said = " ".join(capsys.readouterr().out.split())
    sentence = "a sketch has no image before it, but method 'deepsketcher' draws from one. Add an image."
    refusal = f"traces.jsonl:2: messages: deepsketcher cannot be trained on it: trace 'odd': {sentence}"
    assert ended.value.code == 2 and refusal in said
    main(["data", "check", str(folder), "--method", "modal_mixed", "--method-options", "k=4,head=mlp"])

    made = recipe(
        tmp_path / "run",
        init_from=str(tiny_checkpoint()),
        data__folder=str(folder),
        data__global_batch_size=2,
        data__val_items=0,
        data__max_length=30,
    )
    (tmp_path / "recipe.yaml").write_text(dump(made))
    out = " ".join(command(monkeypatch, sft, "--config", str(tmp_path / "recipe.yaml")).split())
    assert f"{folder / 'traces.jsonl'}:1: trace 'good-0' has" in out
    assert "but an example may have 30 (data.max_length)" in out and not (tmp_path / "run").exists()


def test_examples_that_are_too_long_are_left_out_and_counted(tmp_path, picture, capsys):
    from tiny_runs import recipe, tiny_checkpoint

    from latent_reason import checkpoint
    from train.data import TraceData

    folder = write(tmp_path / "records", picture, "two turns", before=3)
    reasoner, _ = checkpoint.load(tiny_checkpoint())
    changes = {"data__folder": str(folder), "data__val_items": 0, "data__skip_longer": True}
    lengths = [len(objective_for(reasoner).encode(reasoner, trace).ids) for trace in native.read(folder)]
    made = recipe(tmp_path / "run", init_from=str(tiny_checkpoint()), data__max_length=max(lengths[:3]), **changes)
    assert lengths[3] > max(lengths[:3])
    data = TraceData(made.data, reasoner, objective_for(reasoner), "mixed", 0, frozen_vision=True)
    data.setup()
    assert len(data.rows["train"]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert f"longest example: {lengths[3]} positions (trace 'odd')" in said
    assert f"1 examples are longer than {max(lengths[:3])} positions and were left out" in said


def test_a_photo_has_the_positions_that_the_page_on_training_says():
    """With the settings that Qwen2.5-VL publishes: patches of 14 pixels, merged 2 x 2, at most 12,845,056 pixels."""
    for most, positions in ((12_845_056, 15_552), (1_003_520, 1_230)):
        height, width = smart_resize(3024, 4032, factor=28, min_pixels=3136, max_pixels=most)
        assert height // 28 * (width // 28) == positions


def test_pixel_limits_are_kept_with_the_image_processor(make_backbone, picture):
    backbone = make_backbone()
    large = picture(8, 8)
    side = backbone.pixels_per_token
    assert backbone.token_grid(large) == (8, 8)
    backbone.set_pixel_limits(max_pixels=16 * side**2)
    assert backbone.token_grid(large) == (4, 4)
    assert backbone.token_grids(backbone.preprocess_images([large])) == [(4, 4)]
    backbone.set_pixel_limits(min_pixels=16 * side**2)
    assert backbone.token_grid(picture(1, 1)) == (4, 4)
    with pytest.raises(ValueError, match="the first must not be more than the second"):
        backbone.set_pixel_limits(min_pixels=17 * side**2)
    with pytest.raises(ValueError, match="resizes every image to one size"):
        make_backbone(family="llava").set_pixel_limits(max_pixels=1000)

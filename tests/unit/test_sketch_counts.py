"""One rule for the number of latents of a sketch in training and in decoding, and what is said where data differ."""

from __future__ import annotations

import pytest
from conftest import CASES, objective_for, ready

from latent_reason.decoding.prompts import planned_grids
from latent_reason.objectives.sketch_counts import SketchCounts
from latent_reason.trace import Image, Message, Sketch, Text, Trace

SIZES = [(1, 1), (1, 4), (4, 1), (2, 3), (4, 4)]  # crops and helper pictures, in tokens


def trace(picture, *sketches: Sketch, text: str = " then ") -> Trace:
    parts = [part for sketch in sketches for part in (Text(text), sketch)]
    question = Message("user", (Image(picture(3, 3)), Text("which way?")))
    return Trace("t", (question, Message("assistant", (*parts, Text("up")))), mode="mixed")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sketch_of_any_size_is_taught_as_long_as_it_is_drawn(case, make_backbone, make_traces, picture):
    reasoner = ready(case, make_backbone, make_traces)
    if not reasoner.can_sketch or reasoner.switch.stop != "count":
        pytest.skip("it draws nothing, or learns when to stop")
    objective, processor = objective_for(reasoner), reasoner.processor
    for sketch in (*(Sketch(picture(*size, 2)) for size in SIZES), Sketch(picture(2, 2), k=1)):
        one = trace(picture, sketch)
        taught = processor.encode(objective.prepare_example(reasoner, one)).spans
        drawn = planned_grids(reasoner, processor([one], generate=True))
        assert [span[1:] for span in taught] == [drawn[0]]
        terms = reasoner(objective.loss, objective.collate(reasoner, [one]))
        assert terms.total.isfinite()


def test_sketches_that_decoding_cannot_draw_are_counted(make_backbone, picture):
    from latent_reason import methods

    reasoner = methods.build_method("modal_mixed", make_backbone(), k=16, max_spans=2)
    counts = SketchCounts(reasoner)
    same = Sketch(picture(3, 3))
    assert counts.sentences() == []
    for one in (
        trace(picture, same),
        trace(picture, Sketch(picture(2, 2))),
        trace(picture, same, same, same),
        trace(picture, same, same, text=""),
    ):
        counts.add(one)
    other, too_many, adjacent = counts.sentences()
    assert other.startswith("1 of 7 sketches would have another number of latents")
    assert too_many.startswith("1 of 4 traces have more sketches than decoding may draw (2). Raise method.options.max")
    assert adjacent.startswith("1 of 4 traces have two sketches without text between them.")


def test_sketches_beyond_the_cap_of_a_learned_stop_are_counted(make_backbone, picture):
    """A small input image plans few latents, and decoding may draw twice as many."""
    from latent_reason import methods

    reasoner = methods.build_method("swimbird", make_backbone(), k=32)
    question = Message("user", (Image(picture(1, 2)), Text("which way?")))
    counts = SketchCounts(reasoner)
    for size in ((1, 2), (2, 2), (3, 2)):
        answer = Message("assistant", (Text("look "), Sketch(picture(*size)), Text("up")))
        counts.add(Trace("t", (question, answer)))
    (said,) = counts.sentences()
    assert said.startswith("1 of 3 sketches have more latents than decoding may draw") and "at most 2 times" in said


def test_a_long_slide_puzzle_has_more_sketches_than_are_drawn(make_backbone):
    from latent_reason import methods, tasks

    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4)
    task = tasks.make("slide", level=4)
    counts = SketchCounts(reasoner)
    for i in range(20):
        counts.add(task.trace(task[i], "mixed"))
    assert 0 < counts.too_many < 20 and "max_spans" in counts.sentences()[0]

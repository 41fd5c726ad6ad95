"""Task contract. Files in tasks/ are included automatically."""

from __future__ import annotations

import io
import json
import math
from collections import Counter, defaultdict
from functools import lru_cache

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from .. import tasks
from ..tasks import shortcuts
from ..tasks.base import MODES
from ..tasks.stream import SPLITS, split_of
from ..trace import Sketch, Text


@lru_cache(maxsize=128)
def build(name, options, index):
    """An item of a task with these options. It is kept, because the tests of a task run one after the other, several look
    at the same items and some puzzles are searched."""
    return tasks.make(name, **dict(options))[index]


def made(name, count=8, **options):
    """A task and its first items."""
    frozen = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in options.items())
    return tasks.make(name, **options), [build(name, frozen, i) for i in range(count)]


def everywhere(name, n=3):
    """Items of every trained level and of every out-of-distribution test."""
    task = tasks.make(name)
    for options in ({}, *task.ood.values()):
        yield made(name, n * (1 if options else len(task.levels)), **options)


def picture_bytes(item):
    return [i.tobytes() for i in item.images] + [s.sketch and s.sketch.tobytes() for s in item.steps]


# -- items -------------------------------------------------------------------------------------------------------------
def test_items_are_pure_functions_of_their_key(name):
    there, backward = made(name, 6)[1], tasks.make(name)
    back = [backward[i] for i in reversed(range(6))][::-1]
    for a, b in zip(there, back, strict=True):
        assert (a.id, a.question, a.answer, a.meta) == (b.id, b.question, b.answer, b.meta)
        assert picture_bytes(a) == picture_bytes(b) and [s.text for s in a.steps] == [s.text for s in b.steps]
    assert len({i.id for i in there}) == 6 and tasks.make(name, seed=1)[0].meta != there[0].meta


def test_items_are_whole(name):
    for task, items in everywhere(name):
        for item in items:
            assert json.loads(json.dumps(item.meta)) == item.meta and item.meta["skin"]
            assert item.question and item.answer and item.images and item.steps
            assert all(i.mode == "RGB" for i in item.images)
            drawn = [s for s in item.steps if s.sketch is not None]
            for step in drawn:
                assert step.sketch.size == item.images[-1].size, "a sketch is planned by the picture before it"
                assert json.loads(json.dumps(step.state)) == step.state
                assert task.render_state(item, step.state).tobytes() == step.sketch.tobytes()
                if not step.redundant:
                    assert step.sketch.tobytes() not in [i.tobytes() for i in item.images], "it is in the input"


def test_most_items_of_a_level_hold_a_sketch(name):
    task, items = made(name, 8 * len(tasks.make(name).levels))
    drawn = Counter(i.level for i in items if any(s.sketch is not None for s in i.steps))
    assert drawn[max(task.levels)] >= 5 and sum(drawn.values()) > len(items) / 2


def test_splits_share_no_puzzle(name):
    """An item that ignores its split is in val or test with a probability of 2 %, so one item of each level suffices."""
    seen = {}
    for split in SPLITS:
        task = tasks.make(name, split=split)
        seen[split] = {task.canon(task.puzzle(level, i)) for i, level in enumerate(task.levels)}
        assert all(split_of(c) == split and c.isascii() for c in seen[split])
    assert not seen["train"] & seen["test"]


def test_another_skin_is_the_same_puzzle_in_another_picture(name):
    plain, other = tasks.make(name, level=max(tasks.make(name).levels)), tasks.make(name).ood["skin"]
    other = tasks.make(name, level=plain.levels, **other)
    for i in range(4):
        a, b = plain[i], other[i]
        assert a.answer == b.answer and plain.canon(a.state) == other.canon(b.state) and a.meta != b.meta
        assert picture_bytes(a) != picture_bytes(b)


# -- answers -----------------------------------------------------------------------------------------------------------
def test_gold_passes_and_what_is_near_it_does_not(name):
    for task, items in everywhere(name):
        for item in items:
            for mode in MODES:
                said = task.trace(item, mode).assistant_text()
                assert task.check(said, item.meta).ok and task.check(said, item.meta).partial == 1, (item.id, mode)
                assert next(iter(task.score(said, item.meta).values())) == 1
            wrong = task.wrong(item)
            assert len(set(wrong)) >= 3
            for answer in [*wrong, ""]:
                found = task.check(f"So it is \\boxed{{{answer}}}", item.meta)
                assert not found.ok and 0 <= found.partial < 1 and found.reason, (item.id, answer, item.answer)
            assert not task.check("I cannot say.", item.meta).ok


FRAGMENTS = [
    "\\boxed{",
    "}",
    "\\boxed{}",
    ",",
    ";",
    "(",
    ")",
    "move(",
    "A+2",
    "-",
    "0",
    "7",
    "Yes",
    "red",
    "Action plan: ",
    "U",
    "\n",
    " ",
    "\x00",
    "{{",
    "<answer>",
    "1e9",
    "10" * 40,
    "é",
    "٣",
]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)))
def test_no_text_makes_a_check_raise(name, text):
    task = tasks.make(name)
    item = ITEMS.setdefault(name, task[0])
    for said in (text, f"\\boxed{{{text}}}"):
        found = task.check(said, item.meta)
        assert 0 <= found.partial <= 1 and found.ok == (found.partial == 1) and isinstance(found.reason, str)
        assert all(0 <= v <= 1 for v in task.score(said, item.meta).values())


ITEMS: dict = {}


# -- sketches ----------------------------------------------------------------------------------------------------------
def smaller(image):
    """The image at 0.8 of its size, as it is opened from a file."""
    image = image.resize([max(1, round(0.8 * s)) for s in image.size], PILImage.Resampling.BICUBIC)
    held = io.BytesIO()
    image.save(held, "PNG", compress_level=1)
    return PILImage.open(held)


def noisy(image):
    pixels = np.asarray(image, np.float64) + np.random.default_rng(0).normal(0, 8.0, np.asarray(image).shape)
    return PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_sketch_is_read_back(name):
    """All gold sketches are parsed correctly; with noise or at 0.8 of their size, 99 of 100. Every second sketch is made
    noisy and every other one smaller: those of an item differ little."""
    right, n = Counter(), Counter()
    for task, items in everywhere(name):
        for item in items:
            for step in (s for s in item.steps if s.sketch is not None):
                change = (smaller, noisy)[n["as drawn"] % 2]
                for kind, picture in (("as drawn", step.sketch), (change.__name__, change(step.sketch))):
                    parsed = task.parse_sketch(picture, item.meta)
                    n[kind] += 1
                    right[kind] += parsed.valid and task.same(parsed.state, step.state)
    assert right["as drawn"] == n["as drawn"] and all(right[kind] >= 0.99 * n[kind] > 10 for kind in n), (n, right)


def test_what_is_no_sketch_is_not_read_as_one(name):
    task, [item, *_] = made(name)
    size = item.images[-1].size
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for picture in (PILImage.fromarray(noise), PILImage.new("RGB", size, (77, 77, 77)), PILImage.new("RGB", (1, 1))):
        assert not task.parse_sketch(picture, item.meta).valid


def test_gold_sketches_report_as_right_and_wrong_ones_as_wrong(name):
    task, items = made(name, 10, level=max(tasks.make(name).levels))
    for item in items:
        if not (drawn := [s for s in item.steps if s.sketch is not None]):
            continue
        said = words_before(item)
        report = task.sketch_report([s.sketch for s in drawn], item, said)
        assert report["count"] == len(drawn) and report["valid"] == report["equal"] == report["gold"] == 1, item.id
        assert report["legal"] == 1 or any(s.redundant for s in drawn)
        copies = task.sketch_report([item.images[-1]] * len(drawn), item, said)
        assert copies["gold"] < 1 or any(s.redundant for s in drawn)


def words_before(item) -> list[str]:
    """The texts between the sketches of the gold reasoning."""
    said = [""]
    for step in item.steps:
        said[-1] = f"{said[-1]} {step.text}".strip()
        if step.sketch is not None:
            said.append("")
    return said


# -- words -------------------------------------------------------------------------------------------------------------
def test_modes_and_controls(name):
    task, items = made(name, 4, level=max(tasks.make(name).levels), omit_state_p=1.0)
    for item in items:
        drawn = [s for s in item.steps if s.sketch is not None]
        for mode in MODES:
            trace = task.trace(item, mode)
            assert len(trace.sketches()) == (len(drawn) if mode in ("mixed", "vision") else 0)
            assert trace.messages[-1].content[-1].text.endswith(f"\\boxed{{{item.answer}}}")
            assert trace.images() == item.images
        said = task.trace(item, "text").assistant_text()
        assert len(said) > len(task.trace(item, "text_drop").assistant_text()) or not drawn
        for control in ("copy", "shuffle"):
            changed = task.trace(item, "mixed", control)
            assert len(changed.sketches()) == len(drawn)
        useless = tasks.make(name, level=item.level, omit_state_p=1.0, control="copy").trace(item, "mixed")
        assert all(s.image is item.images[0] for s in useless.sketches())
        assert all(len(i.getcolors()) == 1 for i in task.blind(item).images())
        twin = task.text_twin(item)
        assert not twin.images() and len(twin.messages[0].content[0].text) > len(item.question) + 10
        assert task.check(twin.assistant_text(), item.meta).ok


def test_words_for_states_tell_different_states_apart(name):
    task, items = made(name, 12)
    said = defaultdict(list)
    for item in items:
        for step in (s for s in item.steps if s.sketch is not None):
            said[task.state_sentence(step.state, task.stream(0, 0, "fixed"))].append(step.state)
    assert said and all(task.same(states[0], other) for states in said.values() for other in states)
    wordings = {
        task.state_sentence(step.state, task.stream(0, i, "many"))
        for i in range(40)
        for step in [next(s for item in items for s in item.steps if s.sketch is not None)]
    }
    assert len(wordings) >= 5, "a slot has at least five wordings"


def test_a_corrupted_step_is_another_step(name):
    task, items = made(name, 10, level=max(tasks.make(name).levels))
    changed = [task.corrupt(i.steps[0].text, task.stream(0, 0, "corrupt")) != i.steps[0].text for i in items]
    assert sum(changed) >= 8


def test_reading_traces_say_what_the_picture_shows(name):
    task = tasks.make(name)
    traces = [task.reading_trace(i) for i in range(6)]
    assert all(t.images() and not t.sketches() and t.messages[-1].role == "assistant" for t in traces)
    assert len({t.id for t in traces}) == 6


# -- without the picture -----------------------------------------------------------------------------------------------
def test_the_question_alone_does_not_tell_the_answer(name):
    """The best answer per wording beats the best constant by at most 3 points plus sampling error. ``python -m
    eval.task_audit`` tests more, on more items."""
    level = max(tasks.make(name).levels)
    n = 20 if name == "rush_hour" else 40  # its puzzles are slow to generate
    task, items = made(name, 3 * n, level=level)
    fitted, seen = items[: 2 * n], {task.canon(item.state) for item in items[: 2 * n]}
    # not of val, where 50 puzzles are drawn for each that belongs there: a split is a hash, so other puzzles do
    others = [item for item in items[2 * n :] if task.canon(item.state) not in seen]
    constant = shortcuts.best_constant(task, fitted, max_pieces=0)
    flat = shortcuts.check_answers(task, [constant] * len(others), others)
    told = shortcuts.check_answers(
        task, shortcuts.answers_by_question(fitted, others, [constant] * len(others)), others
    )
    error = math.sqrt((told - flat).var() / len(others))
    said = f"{flat.mean():.2f} for {constant!r}, {told.mean():.2f} by question"
    assert (told - flat).mean() <= shortcuts.MAX_GAIN + 2.5 * error, said


def test_traces_hold_parts_of_the_right_kind(name):
    task, items = made(name, 4)
    for item in items:
        for part in task.trace(item, "mixed").messages[-1].content:
            assert isinstance(part, Text | Sketch)

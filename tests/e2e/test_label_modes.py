"""Modes of records: the rule, what a record becomes, who is asked how, and the command over a checkpoint."""

import json

import pytest
from native_records import picture
from tiny_runs import tiny_checkpoint

from eval import label_modes as labelling
from eval.label_modes import (
    PassCounts,
    convert_to_mode,
    has_reasoning_text,
    mode_of,
    reason_to_skip,
    summary,
    with_sketches_shown,
)
from latent_reason import checkpoint
from latent_reason.data import native, packed
from latent_reason.tasks import make
from latent_reason.trace import Image, Message, Sketch, Text, Trace


@pytest.fixture(scope="module")
def task():
    return make("frozenlake_plan", level=3)


ASKED = (Text("Where?"),)


def record(*told, answer="D", asked=ASKED, **changes):
    return Trace("t", (Message("user", asked), Message("assistant", tuple(map(part, told)))), answer=answer, **changes)


def part(one):
    return Text(one) if isinstance(one, str) else Sketch(picture(one))


@pytest.mark.parametrize(
    "alone, hints, words, mode",
    [
        (8, 8, True, "direct"),
        (8, 0, True, "direct"),
        (8, None, True, "direct"),
        (7, 6, True, None),
        (1, 0, True, None),
        (7, 7, True, "vision"),
        (0, 6, True, "vision"),
        (5, 6, True, "vision"),
        (0, 5, True, "mixed"),
        (0, 0, True, "mixed"),
        (5, 5, True, "mixed"),
        (0, 1, False, "vision"),
        (3, None, True, "text"),
        (0, None, True, "text"),
        (3, None, False, "direct"),
    ],
)
def test_the_rule(alone, hints, words, mode):
    assert mode_of(PassCounts(8, alone, hints), words) == mode


def test_the_rule_has_two_settings():
    assert mode_of(PassCounts(4, 4, 4), True, drop_easy=True) is None
    assert mode_of(PassCounts(4, 0, 2), True, vision=0.5) == "vision" and mode_of(PassCounts(4, 0, 2), True) == "mixed"


@pytest.mark.parametrize(
    "told, mode, kept",
    [
        (["Look.", 1, "So", 2, "done \\boxed{D}"], "direct", ["\\boxed{D}"]),
        (["Look.", 1, "So", 2, "done \\boxed{D}"], "vision", [1, 2, "\\boxed{D}"]),
        (["Look.", 1, "So", 2, "done \\boxed{D}"], "mixed", ["Look.", 1, "So", 2, "done \\boxed{D}"]),
        (["Look.", "done \\boxed{D}"], "text", ["Look.", "done \\boxed{D}"]),
        ([1, "\\boxed{ D }"], "vision", [1, "\\boxed{D}"]),
    ],
)
def test_records_are_rewritten_in_their_mode(tmp_path, told, mode, kept):
    made = convert_to_mode(record(*told, mode="mixed"), mode, PassCounts(8, 1, 2))
    assert made.messages[-1].content == tuple(map(part, kept))
    (again,) = native.read(native.write([made], tmp_path / "set"))
    assert (again.mode, again.meta["pass"]) == (mode, {"samples": 8, "alone": 1, "hinted": 2})


def test_words_are_found_wherever_they_stand():
    assert has_reasoning_text(record("Look.", 1, "\\boxed{D}")) and has_reasoning_text(record(1, "So \\boxed{D}"))
    assert not has_reasoning_text(record(1, " \\boxed{D}")) and not has_reasoning_text(record("\\boxed{D}"))


def test_hints_stand_behind_the_pictures_of_the_question():
    shown = part(3).image
    made = with_sketches_shown(record("Look.", 1, 2, "\\boxed{D}", asked=(Text("See"), Image(shown), Text("where?"))))
    assert made.messages[0].content == (
        Text("See"),
        Image(shown),
        Image(part(1).image),
        Image(part(2).image),
        Text("where?"),
    )
    assert with_sketches_shown(record(1, "\\boxed{D}")).messages[0].content == (Image(part(1).image), Text("Where?"))


def test_what_cannot_be_labelled_is_told_apart():
    whole = record(1, "\\boxed{D}")
    assert reason_to_skip(whole) is None and reason_to_skip(record("D", answer=None)) == "no boxed answer"
    assert reason_to_skip(Trace("t", whole.messages[:1], split="test")) == "no answer turn"
    earlier = Trace("t", (*whole.messages, *record("\\boxed{D}").messages), answer="D")
    assert reason_to_skip(earlier) == "sketches in an earlier turn"


def test_an_answer_is_judged_by_the_rule_of_its_task_or_as_text(task):
    trace = task.trace(task[0], "mixed")
    longer = "".join({"U": "UDU", "D": "DUD", "L": "LRL", "R": "RLR"}[m] for m in task[0].answer.split(",")[:1])
    assert labelling.is_right(trace, f"\\boxed{{{task[0].answer}}}") and not labelling.is_right(trace, "\\boxed{U,U}")
    assert not labelling.is_right(trace, f"\\boxed{{{longer}}}")
    assert labelling.is_right(record("\\boxed{D}"), "so \\boxed{ d. }") and not labelling.is_right(
        record("\\boxed{D}"), "e"
    )


def test_each_way_is_asked_k_times_without_sketching(task, monkeypatch):
    """Without hints the question alone, with hints its sketches too; other seeds every time; counts go to their
    records."""
    reasoner, _ = checkpoint.load(tiny_checkpoint())
    traces = [task.trace(task[i], "text" if i == 1 else "mixed") for i in range(3)]
    asked, generate = [], labelling.generate

    def spy(reasoner, prompt, **options):
        asked.append((len(prompt.images), options["seed"], options["latent_mode"]))
        return generate(reasoner, prompt, **options | {"max_new_tokens": 4})

    monkeypatch.setattr(labelling, "generate", spy)
    monkeypatch.setattr(labelling, "is_right", lambda trace, text: trace.id == traces[2].id)
    found = labelling.count_passes(reasoner, traces, 2, temperature=1.0, max_new_tokens=4)
    assert found == [PassCounts(2, 0, 0), PassCounts(2, 0), PassCounts(2, 2, 2)]
    drawn = sum(len(trace.sketches()) for trace in traces)
    assert asked == [(3, 0, "off"), (3, 1, "off"), (2 + drawn, 0, "off"), (2 + drawn, 1, "off")]


def test_the_summary_is_by_label_and_unbiased():
    found = summary(["mixed", "mixed", None], [PassCounts(4, 1, 2), PassCounts(4, 0, 0), PassCounts(4, 2, 1)], 4)
    assert found["mixed"] == {
        "records": 2,
        "pass@1 alone": 0.125,
        "pass@4 alone": 0.5,
        "pass@1 hinted": 0.25,
        "pass@4 hinted": 0.5,
    }
    assert found["left out"]["records"] == 1 and found["text"]["pass@1 alone"] is None


def test_the_command_labels_a_packed_set(task, tmp_path, monkeypatch, capsys):
    packed.write([task.trace(task[i], "mixed") for i in range(4)], tmp_path / "set", "tar")
    monkeypatch.setattr(labelling, "is_right", lambda trace, text: trace.images()[1:] != [] and trace.id[-1] != "3")
    out = tmp_path / "labelled"
    words = [str(tiny_checkpoint()), str(tmp_path / "set"), "--k", "2", "--max-new", "4", "--out", str(out)]
    labelling.main(words)
    printed = " ".join(capsys.readouterr().out.split())
    assert "vision │ 3 │ 0.00 │ 0.00 │ 1.00 │ 1.00" in printed and "4 records in" in printed
    traces = list(native.read(out))
    assert sorted((t.mode, t.meta["pass"]["hinted"]) for t in traces) == [("mixed", 0), *[("vision", 2)] * 3]
    figures = json.loads((tmp_path / "labelled.json").read_text())
    assert figures["modes"]["vision"]["records"] == 3 and figures["k"] == 2
    (tmp_path / "told.json").write_text("{}")
    for more, sentence in (
        ((), "labelled' exists and is not empty. Name a new one"),
        (("--out", str(tmp_path / "told")), "told.json' exists, and nothing was changed"),
        (("--temperature", "0", "--out", "x"), "must be greater than 0"),
        (("--split", "val", "--out", "x"), "no records of the split 'val' with a boxed answer"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            labelling.main([*words, *more])

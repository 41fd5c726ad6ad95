"""Probes of records: the same figures as of the task they were made from, and what cannot be probed is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image as PILImage
from test_probe import Parrot, Reader
from tiny_runs import ROOT

from eval import probe
from eval.records import Records
from latent_reason import checkpoint, tasks
from latent_reason.data import native
from latent_reason.trace import Image, Message, Sketch, Text, Trace


def record(number: int, split: str = "test", **changes) -> Trace:
    """Which colour is hidden? The sketch alone shows it."""
    name, colour = (("red", (200, 0, 0)), ("blue", (0, 0, 200)), ("green", (0, 160, 0)))[number % 3]
    shown, drawn = PILImage.new("RGB", (64, 64), (number,) * 3), PILImage.new("RGB", (32, 64), colour)
    turns = (
        Message("user", (Image(shown), Text("Which colour is hidden?"))),
        Message("assistant", (Text("Look."), Sketch(drawn), Text(f"So \\boxed{{{name}}}"))),
    )
    return replace(Trace(f"r{number}", turns, "hidden", split, answer=name), **changes)


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """Records of a task, as ``data make`` writes them, and the task."""
    task = tasks.make("frozenlake_plan", split="test", seed=1, level=(3, 4))
    folder = tmp_path_factory.mktemp("boards") / "records"
    native.write((task.trace(task[i], "mixed") for i in range(24)), folder)
    return task, folder


@pytest.mark.parametrize(
    "only",
    [
        pytest.param(("zero", "foreign", "image_blanked"), id="some"),
        pytest.param(
            ("noise", "mean", "zero", "foreign", "markers", "removed", "image_blanked"),
            id="all",
            marks=pytest.mark.long,
        ),
    ],
)
def test_records_of_a_task_are_probed_as_the_task_is(only, boards):
    """With the published checkpoint: every probe that does not ask what only the task knows of a board."""
    task, folder = boards
    records, (reasoner, _) = Records(folder, 3), checkpoint.load(ROOT / "checkpoints" / "frozenlake-tiny", device="cpu")
    items = [task.item(int(i.id.split("-L")[1][0]), int(i.id[-7:])) for i in records.items]
    assert [i.id for i in items] == [i.id for i in records.items] and len(items) == 3
    theirs, ours = (
        probe.probe(reasoner, *given, seed=1, only=only) for given in ((task, items), (records, records.items))
    )
    for name in ("as_generated", *only):
        kept = ("accuracy", "low", "high", "n", "difference", "mcnemar_p", "flip_rate")
        assert {k: ours[name].get(k) for k in kept} == {k: theirs[name].get(k) for k in kept}, name
    assert theirs["as_generated"]["accuracy"] > 0.5 and theirs["zero"]["difference"]["value"] > 0.5, "not all alike"


def test_who_reads_and_who_does_not_is_found_out_on_records(tmp_path, monkeypatch):
    """Boards whose plans the sketch alone tells, by an engine that reads its latents and one that does not."""
    task = tasks.make("frozenlake_plan", split="test", level=4, length=(3, 5), chunk=(1, 1))
    items = probe.sketched_items(task, 16)
    native.write(map(task.trace, items), tmp_path / "d")
    records = Records(tmp_path / "d", 99)

    def of(engine_class):
        class Engine(engine_class):
            def drawn(self, item):
                return records.render_state(item, 0)

        found = Engine(records, records.items)
        monkeypatch.setattr("latent_reason.decoding.items.decode_requests", found)
        return probe.probe(found, records, records.items, batch_size=7, only=probe.RECORD_PROBES)

    read, idle = of(Reader), of(Parrot)
    assert read["as_generated"]["accuracy"] == read["oracle"]["accuracy"] == 1
    for name in ("noise", "zero", "mean", "foreign", "markers", "removed"):
        assert read[name]["difference"]["low"] > 0.3 and idle[name]["difference"]["value"] == 0, name


def test_records_are_items(tmp_path):
    native.write([record(0), record(1, "train"), record(2), record(3, level=4, answer=None), record(4)], tmp_path / "d")
    records = Records(tmp_path / "d", 9)
    assert [i.id for i in records.items] == ["r0", "r2", "r4"] and records.left_out == 1
    item = records.items[0]
    assert records.render_state(item, records.state_said(item, ["a", "b", "c"])).size == (64, 64)
    assert records.render_state(item, records.state_said(item, ["a"])).getpixel((3, 3)) == (200, 0, 0)
    assert records.score("The answer is Red.", item.meta) == {"accuracy": 1.0}
    assert records.follows(records.items[1], "Look.", ["So \\boxed{green}"]) == 1.0
    assert [i.id for i in Records(tmp_path / "d", 2).items] == ["r0", "r2"]
    blinded = records.blind(item).images()
    assert len(blinded) == 1 and records.blind(records.items[2]).images()[0].getpixel((0, 0)) == (4, 4, 4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"checker": "same_txt"}, "there is no checker 'same_txt'.*'same_text'"),
        ({"checker": "vsp"}, "record 'r0': meta lacks a field that its checker 'vsp' needs"),
        ({"checker": "number"}, "its checker 'number' rejects its own answer 'red'"),
        ({"split": "train"}, "has no record to probe"),
        ({"answer": None}, "has no record to probe"),
    ],
)
def test_what_cannot_be_graded_is_said(changes, sentence, tmp_path):
    native.write([record(0, **changes)], tmp_path / "d")
    with pytest.raises(ValueError, match=sentence):
        Records(tmp_path / "d", 9)

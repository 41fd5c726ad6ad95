"""The native format: what is written is read again, and every bad file is named by code, place and remedy."""

from __future__ import annotations

import errno
import json
import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_records import picture, put, record
from PIL import Image as PILImage

from latent_reason.data.native import DataError, check, read, write
from latent_reason.data.record import boxed
from latent_reason.trace import Image, Message, Sketch, Text, Trace

# ---------------------------------------------------------------------------------------------------- good files


def test_a_good_file(write_records):
    (trace,) = read(write_records(record()))
    assert (trace.id, trace.task, trace.split, trace.level, trace.mode) == ("a-1", "maze", "train", 3, "mixed")
    assert (trace.answer, trace.checker, trace.meta) == ("D,R", "vsp", {"seed": 0})
    assert trace.images() == [picture(0)] and trace.sketches()[0].image == picture(1)
    assert trace.assistant_text() == "Look.So \\boxed{D,R}"
    assert [type(p) for p in trace.messages[1].content] == [Text, Sketch, Text]


def test_optional_fields_of_parts(write_records):
    sketch = {
        "type": "sketch",
        "image": "img/s.png",
        "k": 4,
        "loss": 0.5,
        "state": {"at": [1, 2]},
        "redundant": True,
        "box": [0, 0.25, 0.5, 1],
    }
    row = put(sketch, "messages", 1, "content", 1)
    row = put(True, "messages", 0, "content", 1, "loss", into=row)
    row = put(False, "messages", 1, "content", 0, "loss", into=row)
    (trace,) = read(write_records(row))
    got = trace.sketches()[0]
    assert (got.k, got.loss, got.state, got.redundant, got.box) == (4, 0.5, {"at": [1, 2]}, True, (0, 0.25, 0.5, 1))
    assert trace.messages[0].content[1].loss == 1.0 and trace.messages[1].content[0].loss == 0.0
    assert trace.messages[1].content[2].loss is None


def test_bare_strings_line_ends_empty_lines_and_order(write_records):
    rows = [
        record(
            id=f"r{i}",
            mode="direct",
            messages=[
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "One?"},
                {"role": "assistant", "content": f"\\boxed{{{i}}}"},
            ],
            answer=str(i),
        )
        for i in range(3)
    ]
    path = write_records(*(json.dumps(row).encode() + b"\r\n\r\n" for row in rows))
    assert [trace.id for trace in read(path)] == ["r0", "r1", "r2"]
    assert [trace.id for trace in read(path, limit=2)] == ["r0", "r1"]
    report = check(path)
    assert report.ok and (report.files, report.rows, report.traces) == (1, 3, 3) and report.empty_lines >= 3


def test_several_files_a_folder_and_an_image_root(write_records, tmp_path):
    write_records(record(id="x"), name="b.jsonl")
    write_records(record(id="y"), name="a.jsonl")
    assert [trace.id for trace in read("d")] == ["y", "x"]
    assert [trace.id for trace in read(["d/b.jsonl", "d/a.jsonl"])] == ["x", "y"]
    (tmp_path / "d" / "img").rename(tmp_path / "img")
    assert len(list(read("d", image_root="."))) == 2


def test_test_items_may_lack_the_answer(write_records):
    row = record(split="ood-larger", messages=record()["messages"][:1])
    (trace,) = read(write_records(row))
    assert len(trace.messages) == 1 and trace.answer == "D,R"


def test_shared_pictures_are_decoded_once(write_records):
    first, second = read(write_records(record(), record(id="a-2")))
    assert first.images()[0] is second.images()[0]


def test_warnings_once_a_file(write_records):
    rows = [record(colour="red", id="a"), record(colour="blue", id="b")]
    path = write_records(b"\xef\xbb\xbf" + json.dumps(rows[0]).encode(), rows[1])
    with pytest.warns(UserWarning) as caught:
        traces = list(read(path))
    assert [str(w.message) for w in caught] == [
        "d/a.jsonl:1: the file begins with a byte order mark, which is skipped.",
        "d/a.jsonl:1: unknown keys are kept under meta.extra: colour.",
    ]
    assert traces[1].meta == {"seed": 0, "extra": {"colour": "blue"}}
    first, second = [str(w.message) for w in caught]
    assert check(path).warnings == [first, f"{second} (2 times in this file)"]


def test_pictures_become_plain_rgb(write_records, tmp_path):
    folder = tmp_path / "d" / "img"
    PILImage.new("RGBA", (2, 2), (255, 0, 0, 0)).save(folder / "alpha.png")
    PILImage.fromarray(np.full((2, 2), 0xFF00, np.uint16)).save(folder / "deep.png")
    exif = PILImage.Exif()
    exif[0x0112] = 6
    PILImage.new("L", (4, 2), 9).save(folder / "turned.jpg", exif=exif)
    frames = [PILImage.new("RGB", (2, 2), c) for c in ("red", "blue")]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (tmp_path / "d" / "img" / "suffix.txt").write_bytes((folder / "p.png").read_bytes())

    def load(name):
        (trace,) = read(write_records(put(f"img/{name}", "messages", 0, "content", 0, "image")))
        return trace.images()[0]

    assert load("alpha.png").getpixel((0, 0)) == (255, 255, 255)
    assert load("deep.png").getpixel((0, 0)) == (255, 255, 255)
    assert load("turned.jpg").size == (2, 4) and load("turned.jpg").info == {}
    assert load("suffix.txt") == picture(0)
    with pytest.warns(UserWarning, match=r"'img/moving.webp' is animated: only its first frame is used"):
        assert load("moving.webp").getpixel((0, 0)) == (255, 0, 0)


# ---------------------------------------------------------------------------------------------------- round trip

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() and not any(sign in text for sign in "<\\{}")
)
pictures = st.builds(
    picture, st.integers(0, 5), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([1, 2, 17, 256, 400])
)
boxes = st.tuples(*[st.floats(0, 0.5)] * 2, *[st.floats(0.5, 1, exclude_min=True)] * 2)
sketches = st.builds(
    Sketch,
    pictures,
    st.none() | st.integers(1, 64),
    st.floats(0, 100),
    st.none() | words | st.lists(st.integers()),
    st.booleans(),
    st.none() | boxes,
)
texts = st.builds(Text, words, st.none() | st.floats(0, 100))


@st.composite
def traces(draw, id="t"):
    mode = draw(st.sampled_from(["direct", "text", "vision", "mixed"]))
    before = {
        "direct": [],
        "text": [draw(texts)],
        "vision": [draw(sketches)],
        "mixed": [draw(texts), draw(sketches), *draw(st.lists(texts | sketches, max_size=2))],
    }[mode]
    question = [draw(texts), *draw(st.lists(texts | st.builds(Image, pictures), max_size=3))]
    answer = draw(words)
    messages = [Message("user", tuple(question)), Message("assistant", (*before, Text(f"\\boxed{{{answer}}}")))]
    if draw(st.booleans()):
        messages.insert(0, Message("system", (draw(texts),)))
    meta = draw(
        st.dictionaries(
            words.filter(lambda key: key != "extra"),
            words | st.integers() | st.lists(st.floats(allow_nan=False, allow_infinity=False)),
            max_size=3,
        )
    )
    return Trace(
        id,
        tuple(messages),
        draw(words),
        draw(st.sampled_from(["train", "val", "test", "ood-skin"])),
        draw(st.none() | st.integers(0, 9)),
        mode,
        draw(st.none() | st.just(answer)),
        draw(words),
        meta,
    )


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_round_trip(data, tmp_path_factory):
    wanted = [data.draw(traces(f"t-{i}")) for i in range(data.draw(st.integers(1, 3)))]
    folder = tmp_path_factory.mktemp("set") / "set"
    path = write(wanted, folder)
    assert list(read(path)) == wanted and check(folder).traces == len(wanted)
    assert set(check(folder).codes) <= {"E23"}, "pictures may stand in several splits by chance"
    again = write(read(folder), folder.parent / "again")
    assert again.read_bytes() == path.read_bytes()


def example(id="t", **changes):
    wanted = {"image": picture(3, (20, 20), 200), "answer": "D"} | changes
    return Trace(
        id,
        (
            Message("user", (Image(wanted["image"]), Text("Where?"))),
            Message("assistant", (Sketch(wanted["image"]), Text("\\boxed{D}"))),
        ),
        "maze",
        mode="vision",
        answer=wanted["answer"],
        meta=changes.get("meta", {}),
    )


def test_equal_pictures_are_stored_once_and_small(tmp_path):
    write([example("a"), example("b")], tmp_path / "set")
    (file,) = (tmp_path / "set" / "img").iterdir()
    with PILImage.open(file) as stored:
        assert stored.mode == "P"
    assert sorted(os.listdir(tmp_path / "set")) == ["img", "traces.jsonl"]


def test_what_cannot_be_read_is_not_written(tmp_path):
    for traces_, code, message in [
        ([example("a"), example("a")], "E13", "set/traces.jsonl:2: id 'a' already used in "),
        ([example(answer="U")], "E17", "answer: 'U' but the text boxes 'D'"),
        ([example(meta={"x": float("nan")})], "E05", "record: cannot be written as JSON"),
        ([example(meta={"x": {1, 2}})], "E05", "record: cannot be written as JSON"),
        ([], "E25", "there are no traces to write"),
    ]:
        with pytest.raises(DataError) as caught:
            write(traces_, tmp_path / "set")
        assert caught.value.code == code and message in str(caught.value)
        assert os.listdir(tmp_path) == []


def test_a_used_folder_is_refused(tmp_path):
    (tmp_path / "old").write_text("x")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        write([example()], tmp_path)
    assert os.listdir(tmp_path) == ["old"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def disk_full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PILImage.Image, "save", disk_full)
    with pytest.raises(OSError, match=r"The disk is full: '.*set' was not written") as caught:
        write([example()], tmp_path / "set")
    assert caught.value.errno == errno.ENOSPC and os.listdir(tmp_path) == []


def test_boxed():
    assert boxed("a \\boxed{1} b \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("none") is None and boxed("\\boxed{open") is None


def test_no_warning_without_reason(write_records):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read(write_records(record())))) == 1

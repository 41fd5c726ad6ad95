"""The native format: what is written is read again, and every bad file is named by code, place and remedy."""

import errno
import json
import os
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from latent_reason.data.native import DataError, Limits, check, read, write
from latent_reason.data.record import boxed
from latent_reason.trace import Image, Message, Sketch, Text, Trace


def picture(seed=0, size=(6, 5), colours=3):
    generator = np.random.default_rng(seed)
    palette = generator.integers(0, 256, (colours, 3), dtype=np.uint8)
    return PILImage.fromarray(palette[generator.integers(0, colours, size[::-1])])


def record(**changes):
    return {
        "schema": "latent_reason/1",
        "id": "a-1",
        "task": "maze",
        "split": "train",
        "level": 3,
        "mode": "mixed",
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "img/p.png"}, {"type": "text", "text": "Where?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Look."},
                    {"type": "sketch", "image": "img/s.png"},
                    {"type": "text", "text": "So \\boxed{D,R}"},
                ],
            },
        ],
        "answer": "D,R",
        "checker": "vsp",
        "meta": {"seed": 0},
    } | changes


def put(value, *keys, into=None):
    """The good record with ``value`` at ``keys``."""
    made = record() if into is None else into
    place = made
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return made


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with two pictures, as seen from beside it; call it with rows (or raw bytes) to write ``d/a.jsonl``."""
    (tmp_path / "d" / "img").mkdir(parents=True)
    for seed, name in enumerate("ps"):
        picture(seed).save(tmp_path / "d" / "img" / f"{name}.png")
    monkeypatch.chdir(tmp_path)

    def make(*rows, name="a.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (tmp_path / "d" / name).write_bytes(b"\n".join(lines) + b"\n")
        return f"d/{name}"

    return make


def error(path, **options):
    """What ``read`` raises, after making sure that ``check`` reports the same."""
    report = check(path, **options)
    with pytest.raises(DataError) as caught:
        list(read(path, **options))
    assert not report.ok and str(report.errors[0]) == str(caught.value)
    return caught.value


# ---------------------------------------------------------------------------------------------------- good files


def test_a_good_file(data):
    (trace,) = read(data(record()))
    assert (trace.id, trace.task, trace.split, trace.level, trace.mode) == ("a-1", "maze", "train", 3, "mixed")
    assert (trace.answer, trace.checker, trace.meta) == ("D,R", "vsp", {"seed": 0})
    assert trace.images() == [picture(0)] and trace.sketches()[0].image == picture(1)
    assert trace.assistant_text() == "Look.So \\boxed{D,R}"
    assert [type(p) for p in trace.messages[1].content] == [Text, Sketch, Text]


def test_optional_fields_of_parts(data):
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
    (trace,) = read(data(row))
    got = trace.sketches()[0]
    assert (got.k, got.loss, got.state, got.redundant, got.box) == (4, 0.5, {"at": [1, 2]}, True, (0, 0.25, 0.5, 1))
    assert trace.messages[0].content[1].loss == 1.0 and trace.messages[1].content[0].loss == 0.0
    assert trace.messages[1].content[2].loss is None


def test_bare_strings_line_ends_empty_lines_and_order(data):
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
    path = data(*(json.dumps(row).encode() + b"\r\n\r\n" for row in rows))
    assert [trace.id for trace in read(path)] == ["r0", "r1", "r2"]
    assert [trace.id for trace in read(path, limit=2)] == ["r0", "r1"]
    report = check(path)
    assert report.ok and (report.files, report.rows, report.traces) == (1, 3, 3) and report.empty_lines >= 3


def test_several_files_a_folder_and_an_image_root(data, tmp_path):
    data(record(id="x"), name="b.jsonl")
    data(record(id="y"), name="a.jsonl")
    assert [trace.id for trace in read("d")] == ["y", "x"]
    assert [trace.id for trace in read(["d/b.jsonl", "d/a.jsonl"])] == ["x", "y"]
    (tmp_path / "d" / "img").rename(tmp_path / "img")
    assert len(list(read("d", image_root="."))) == 2


def test_test_items_may_lack_the_answer(data):
    row = record(split="ood-larger", messages=record()["messages"][:1])
    (trace,) = read(data(row))
    assert len(trace.messages) == 1 and trace.answer == "D,R"


def test_shared_pictures_are_decoded_once(data):
    first, second = read(data(record(), record(id="a-2")))
    assert first.images()[0] is second.images()[0]


def test_warnings_once_a_file(data):
    rows = [record(colour="red", id="a"), record(colour="blue", id="b")]
    path = data(b"\xef\xbb\xbf" + json.dumps(rows[0]).encode(), rows[1])
    with pytest.warns(UserWarning) as caught:
        traces = list(read(path))
    assert [str(w.message) for w in caught] == [
        "d/a.jsonl:1: the file begins with a byte order mark, which is skipped.",
        "d/a.jsonl:1: unknown keys are kept under meta.extra: colour.",
    ]
    assert traces[1].meta == {"seed": 0, "extra": {"colour": "blue"}}
    first, second = [str(w.message) for w in caught]
    assert check(path).warnings == [first, f"{second} (2 times in this file)"]


def test_pictures_become_plain_rgb(data, tmp_path):
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
        (trace,) = read(data(put(f"img/{name}", "messages", 0, "content", 0, "image")))
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


# ---------------------------------------------------------------------------------------------------- bad files

PART = ("messages", 0, "content", 0)
BAD_LINES = {
    "E01 bytes": (b'{"id": "\xe9"}', "E01", "byte 9: not UTF-8 (0xE9). Save the file as UTF-8."),
    "E01 surrogate": (b'{"id": "\\ud800"}', "E01", "line: contains half a surrogate pair. Save the file as UTF-8."),
    "E02 cut": (
        b'{"id": "a", "task": "ma',
        "E02",
        "column 21: JSON ends early. The file looks cut; copy or write it again.",
    ),
    "E02 cut between": (
        b'{"id": "a",',
        "E02",
        "column 12: JSON ends early. The file looks cut; copy or write it again.",
    ),
    "E02 two": (b'{"id": 1} {"id": 2}', "E02", "column 11: a second value begins here. Write one object per line."),
    "E02 not": (
        b"{'id': 1}",
        "E02",
        "column 2: not JSON (Expecting property name enclosed in double quotes). Write the line again.",
    ),
    "E02 deep": (b"[" * 100_000, "E02", "line: numbers too long or nesting too deep to read. Write it again."),
    "E02 long number": (b"1" * 10_000, "E02", "line: numbers too long or nesting too deep to read. Write it again."),
    "E03 nan": (
        b'{"meta": {"bboxes": [[0, 1, NaN]]}}',
        "E03",
        "meta.bboxes[0][2]: NaN is not JSON. Replace or drop the row.",
    ),
    "E03 infinity": (b'{"level": -Infinity}', "E03", "level: -Infinity is not JSON. Replace or drop the row."),
    "E03 overflow": (
        b'{"level": 1e999}',
        "E03",
        "level: a number beyond all floats is not JSON. Replace or drop the row.",
    ),
    "E04": (b'{"id": "a", "answer": "x", "answer": "y"}', "E04", "key 'answer' twice. Keep one."),
    "E05 list": (b"[1]", "E05", "record: expected an object, found a list. Write one object per line."),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines(data, name):
    bad, code, message = BAD_LINES[name]
    found = error(data(record(), b"", bad))
    assert (found.code, str(found)) == (code, f"d/a.jsonl:3: {message}")


ASSISTANT = [{"type": "text", "text": "So \\boxed{D,R}"}]
SKETCH = {"type": "sketch", "image": "img/s.png"}
BAD_RECORDS = {
    "E05 missing": (
        lambda: {k: v for k, v in record().items() if k != "task"},
        "E05",
        "task: missing, expected a string. See the format table.",
    ),
    "E05 type": (lambda: record(level="3"), "E05", "level: expected a number, found a string. See the format table."),
    "E05 bool": (
        lambda: record(level=True),
        "E05",
        "level: expected a number, found true or false. See the format table.",
    ),
    "E05 content": (
        lambda: put(3, "messages", 1, "content"),
        "E05",
        "messages[1].content: expected a list of parts, found a number. See the format table.",
    ),
    "E05 schema": (
        lambda: record(schema="latent_reason/2"),
        "E05",
        "schema: 'latent_reason/2' is not 'latent_reason/1'. Convert the file to this version.",
    ),
    "E05 id": (
        lambda: record(id="a b"),
        "E05",
        "id: 'a b' is not 1-128 letters, digits, '.', '_', ':' or '-'. Rename it.",
    ),
    "E05 mode": (lambda: record(mode="mixde"), "E05", "mode: 'mixde' is no mode. Did you mean 'mixed'?"),
    "E05 split": (
        lambda: record(split="dev"),
        "E05",
        "split: 'dev' is not train, val, test or ood-<axis>. Correct it.",
    ),
    "E05 k": (
        lambda: put({**SKETCH, "k": 0}, "messages", 1, "content", 1),
        "E05",
        "messages[1].content[1].k: 0 latents. Give 1 or more, or null to leave it open.",
    ),
    "E05 loss": (
        lambda: put(101, "messages", 1, "content", 0, "loss"),
        "E05",
        "messages[1].content[0].loss: expected true, false or a weight in 0-100. See the format table.",
    ),
    "E05 latents": (
        lambda: put(SKETCH | {"image": None, "latents": "t#k"}, "messages", 1, "content", 1),
        "E05",
        "messages[1].content[1].image: null, with stored latents alone. Give the picture they were made from.",
    ),
    "E06 image": (
        lambda: put({"type": "image", "image": "img/s.png"}, "messages", 1, "content", 1),
        "E06",
        "messages[1].content[1].type: 'image' in an assistant turn. "
        "Use 'sketch', or convert with --assistant-image sketch.",
    ),
    "E06 sketch": (
        lambda: put(SKETCH, *PART),
        "E06",
        "messages[0].content[0].type: 'sketch' in a user turn. Use 'image', or move it to the assistant.",
    ),
    "E06 type": (
        lambda: put({"type": "video"}, *PART),
        "E06",
        "messages[0].content[0].type: 'video' is no part type. Use text, image or sketch.",
    ),
    "E06 role": (
        lambda: put("bot", "messages", 0, "role"),
        "E06",
        "messages[0].role: 'bot' is no role. Use system, user or assistant.",
    ),
    "E07": (
        lambda: put("img/5.png", *PART, "image"),
        "E07",
        "messages[0].content[0].image: 'img/5.png' not found under 'd'. Correct the path or give --image-root.",
    ),
    "E07 folder": (
        lambda: put("img", *PART, "image"),
        "E07",
        "messages[0].content[0].image: 'img' not found under 'd'. Correct the path or give --image-root.",
    ),
    "E10": (
        lambda: record(sketches=2),
        "E10",
        "sketches: 2 announced, 1 sketch part in the messages. Counts must match.",
    ),
    "E14 answer": (lambda: record(answer=" "), "E14", "answer: empty. Give the answer, or null where there is none."),
    "E14 question": (
        lambda: put([{"type": "text", "text": " "}], "messages", 0, "content"),
        "E14",
        "messages[0].content: empty: the question has no content. Drop the row.",
    ),
    "E14 trace": (
        lambda: put([], "messages", 1, "content"),
        "E14",
        "messages[1].content: empty: the trace has no content. Drop the row.",
    ),
    "E14 part": (
        lambda: put("", "messages", 1, "content", 0, "text"),
        "E14",
        "messages[1].content[0].text: empty. Drop the part or fill it.",
    ),
    "E14 end": (
        lambda: put([SKETCH], "messages", 1, "content"),
        "E14",
        "messages[1].content: ends with a sketch, the answer is missing. End with a text part.",
    ),
    "E16 vision": (lambda: record(mode="vision"), "E16", "mode: 'vision' but part 0 is text. Set mode mixed."),
    "E16 text": (lambda: record(mode="text"), "E16", "mode: 'text' but there is a sketch. Set mode mixed or vision."),
    "E16 mixed": (
        lambda: put(ASSISTANT, "messages", 1, "content"),
        "E16",
        "mode: 'mixed' but there is no sketch. Set mode text or direct.",
    ),
    "E16 no words": (
        lambda: put([SKETCH, {"type": "text", "text": "\\boxed{D,R}"}], "messages", 1, "content"),
        "E16",
        "mode: 'mixed' but there is no reasoning text. Set mode vision.",
    ),
    "E16 direct": (
        lambda: put(ASSISTANT * 2, "messages", 1, "content", into=record(mode="direct")),
        "E16",
        "mode: 'direct' but the answer turn has 2 parts. Set mode text, or keep the answer alone.",
    ),
    "E17": (lambda: record(answer="R,D"), "E17", "answer: 'R,D' but the text boxes 'D,R'. Correct one of them."),
    "E17 none": (
        lambda: put("So D,R", "messages", 1, "content", 2, "text"),
        "E17",
        "answer: 'D,R' but the last text boxes nothing. End it with \\boxed{...}.",
    ),
    "E18 control": (
        lambda: put("a <|sketch|> b", "messages", 0, "content", 1, "text"),
        "E18",
        "messages[0].content[1].text: contains the reserved token '<|sketch|>'. Remove or escape it.",
    ),
    "E18 placeholder": (
        lambda: put("<image>\nWhere?", "messages", 0, "content", 1, "text"),
        "E18",
        "messages[0].content[1].text: contains the reserved token '<image>'. Remove or escape it.",
    ),
    "E19 twice": (
        lambda: put("user", "messages", 1, "role", into=put(ASSISTANT, "messages", 1, "content")),
        "E19",
        "messages[1].role: two user turns in a row. Join them.",
    ),
    "E19 tool": (
        lambda: put("tool", "messages", 1, "role"),
        "E19",
        "messages[1].role: 'tool' turns are not supported. Put their content into other turns.",
    ),
    "E19 first": (
        lambda: record(messages=record()["messages"][1:]),
        "E19",
        "messages[0].role: an assistant turn before any user turn. Begin with the question.",
    ),
    "E19 system": (
        lambda: put("system", "messages", 1, "role"),
        "E19",
        "messages[1].role: a system turn that is not the first. Move it to the front.",
    ),
    "E19 no answer": (
        lambda: record(messages=record()["messages"][:1], answer=None),
        "E19",
        "messages: no assistant turn at the end, which only records with 'answer' and test items may lack. "
        "Add the answer or correct the split.",
    ),
    "E19 nothing": (lambda: record(messages=[]), "E19", "messages: there is no user turn. Add the question."),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_records(data, name):
    make, code, message = BAD_RECORDS[name]
    found = error(data(record(id="good"), make()))
    assert (found.code, str(found)) == (code, f"d/a.jsonl:2: {message}")
    assert (found.file, found.row) == ("d/a.jsonl", 2) and message.startswith(found.field)


@pytest.mark.parametrize(
    "box, message",
    [
        (
            [120, 44, 300, 200],
            "[120, 44, 300, 200] is not in 0-1. Divide by the image size or give --box-unit pixel.",
        ),
        ([0.1, 0.2, 0.3], "expected 4 numbers [x0, y0, x1, y1]. Correct or drop it."),
        ([0.5, 0, 0.5, 1], "[0.5, 0, 0.5, 1] holds no area: x0 < x1 and y0 < y1 are needed. Swap the corners."),
        ([True, 0, 1, 1], "expected 4 numbers [x0, y0, x1, y1]. Correct or drop it."),
    ],
)
def test_bad_boxes(data, box, message):
    found = error(data(put({**SKETCH, "box": box}, "messages", 1, "content", 1)))
    assert (found.code, str(found)) == ("E15", f"d/a.jsonl:1: messages[1].content[1].box: {message}")


@pytest.mark.parametrize(
    "path, why",
    [
        (
            "/etc/passwd",
            "is an absolute path. Give a path relative to the data folder, or name a folder above it: --image-root.",
        ),
        ("C:/x.png", "begins with a drive letter. Give a path relative to the data folder."),
        ("img\\p.png", "contains a backslash; separate folders with '/'. Give a path relative to the data folder."),
        ("img/p.png\0", "contains a NUL character. Give a path relative to the data folder."),
        ("https://host/p.png", "looks like a URL; nothing is downloaded. Give a path relative to the data folder."),
        (
            "data:image/png;base64,AA",
            "looks like a URL; nothing is downloaded. Give a path relative to the data folder.",
        ),
        ("../x.png", "leaves the data folder. Move the image inside it, or name a folder above it: --image-root."),
        (
            "img/../../x.png",
            "leaves the data folder. Move the image inside it, or name a folder above it: --image-root.",
        ),
        ("link.png", "leaves the data folder by a link. Move the image inside it, or name its folder: --image-root."),
        ("away/x.png", "leaves the data folder by a link. Move the image inside it, or name its folder: --image-root."),
    ],
)
def test_paths_that_escape(data, tmp_path, path, why):
    picture().save(tmp_path / "x.png")
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "x.png")
    (tmp_path / "d" / "away").symlink_to(tmp_path)
    found = error(data(put(path, *PART, "image")))
    assert (found.code, str(found)) == ("E08", f"d/a.jsonl:1: messages[0].content[0].image: {path!r} {why}")


def test_links_and_dots_that_stay_inside_are_followed(data, tmp_path):
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "d" / "img" / "p.png")
    rows = [
        put(path, *PART, "image", into=record(id=str(i))) for i, path in enumerate(["link.png", "img/../img/./p.png"])
    ]
    assert [trace.images()[0] for trace in read(data(*rows))] == [picture(0)] * 2


def test_unreadable_pictures(data, tmp_path):
    folder = tmp_path / "d" / "img"
    whole = (folder / "p.png").read_bytes()
    bad = {
        "page.png": (b"<html>404</html>", "is not a readable PNG, JPEG or WebP (it begins '<html'). Replace it."),
        "none.png": (b"", "is not a readable PNG, JPEG or WebP (it is empty). Replace it."),
        "cut.png": (whole[:60], "cannot be decoded ("),
    }
    PILImage.new("P", (3, 3)).save(folder / "g.gif")
    bad["g.gif"] = ((folder / "g.gif").read_bytes(), "is not a readable PNG, JPEG or WebP (it begins 'GIF87').")
    for name, (content, why) in bad.items():
        (folder / name).write_bytes(content)
        found = error(data(put(f"img/{name}", *PART, "image")))
        assert found.code == "E09"
        assert str(found).startswith(f"d/a.jsonl:1: messages[0].content[0].image: 'img/{name}' {why[:-1]}")


def test_pictures_over_the_limits(data, tmp_path, monkeypatch):
    PILImage.new("1", (16_385, 1)).save(tmp_path / "d" / "img" / "wide.png")
    large = "is too large, at most {} pixels a side and {} megapixels are read. Make it smaller."
    found = error(data(put("img/wide.png", *PART, "image")))
    assert found.code == "E09" and large.format("16,384", 64) in str(found)
    path = data(record())
    assert large.format("5", 64) in str(error(path, limits=Limits(side=5)))
    assert large.format("16,384", 0) in str(error(path, limits=Limits(pixels=29)))
    assert "is larger than 0 MiB. Make it smaller." in str(error(path, limits=Limits(bytes=50)))
    assert check(path, limits=Limits(side=6, pixels=30)).ok
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 20)  # Pillow warns up to twice this
    assert error(path).code == "E09"


def test_ids_are_unique_across_files(data):
    data(record())
    data(record(id="new"), record(), name="b.jsonl")
    found = error("d")
    assert (found.code, found.field, found.id) == ("E13", "id", "a-1")
    assert str(found) == "d/b.jsonl:2: id 'a-1' already used in d/a.jsonl:1. Ids must be unique."


def test_empty_sets(data, tmp_path):
    assert str(error(data(b"", b" "))) == "no usable rows in 1 file. They contain no rows."
    (tmp_path / "empty").mkdir()
    assert str(error("empty")) == "no .jsonl file found. Name a folder that contains one."
    with pytest.raises(FileNotFoundError, match="no file or folder 'nowhere'"):
        read("nowhere")
    assert check(data(b"[]")).codes == {"E25": 1}
    report = check(data(b"[[]]"))
    assert report.codes == {"E05": 1, "E25": 1}
    assert str(report.errors[-1]).startswith("no usable rows in 1 file. First error: d/a.jsonl:0: record: expected")


def test_lines_longer_than_the_limit(data, monkeypatch):
    monkeypatch.setattr("latent_reason.data.jsonl.LINE_BYTES", 2000)
    path = data(json.dumps(record()).encode() + b" " * 5000, record(id="b"))
    found = error(path)
    assert (found.code, found.row) == ("E02", 1) and "longer than" in str(found)
    assert check(path).traces == 1


def test_the_report_lists_twenty_and_counts_all(data):
    report = check(data(*[record(level="x")] * 25, record()))
    text = str(report)
    assert (report.rows, report.traces, report.codes) == (26, 1, {"E05": 25})
    assert text.count("level: expected a number") == 20 and "... and 5 more" in text and "errors: E05 25" in text
    assert text.endswith("1 of 26 rows usable in 1 file, 0 empty lines skipped")


def test_reading_leaves_the_folder_as_it_was(data, tmp_path):
    path = data(record())
    before = sorted(p.name for p in tmp_path.rglob("*"))
    list(read(path))
    check(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_errors_travel_between_processes(data):
    found = pickle.loads(pickle.dumps(error(data(record(level="x")))))
    assert str(found) == "d/a.jsonl:1: level: expected a number, found a string. See the format table."


def test_boxed():
    assert boxed("a \\boxed{1} b \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("none") is None and boxed("\\boxed{open") is None


def test_no_warning_without_reason(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read(data(record())))) == 1

"""Native records that are damaged, hostile or too large: one error a fault, with file, line and field."""

from __future__ import annotations

import json
import pickle

import pytest
from native_records import error, picture, put, record
from PIL import Image as PILImage

from latent_reason.data.native import Limits, check, read

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
def test_bad_lines(write_records, name):
    bad, code, message = BAD_LINES[name]
    found = error(write_records(record(), b"", bad))
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
def test_bad_records(write_records, name):
    make, code, message = BAD_RECORDS[name]
    found = error(write_records(record(id="good"), make()))
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
def test_bad_boxes(write_records, box, message):
    found = error(write_records(put({**SKETCH, "box": box}, "messages", 1, "content", 1)))
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
def test_paths_that_escape(write_records, tmp_path, path, why):
    picture().save(tmp_path / "x.png")
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "x.png")
    (tmp_path / "d" / "away").symlink_to(tmp_path)
    found = error(write_records(put(path, *PART, "image")))
    assert (found.code, str(found)) == ("E08", f"d/a.jsonl:1: messages[0].content[0].image: {path!r} {why}")


def test_links_and_dots_that_stay_inside_are_followed(write_records, tmp_path):
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "d" / "img" / "p.png")
    rows = [
        put(path, *PART, "image", into=record(id=str(i))) for i, path in enumerate(["link.png", "img/../img/./p.png"])
    ]
    assert [trace.images()[0] for trace in read(write_records(*rows))] == [picture(0)] * 2


def test_unreadable_pictures(write_records, tmp_path):
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
        found = error(write_records(put(f"img/{name}", *PART, "image")))
        assert found.code == "E09"
        assert str(found).startswith(f"d/a.jsonl:1: messages[0].content[0].image: 'img/{name}' {why[:-1]}")


def test_pictures_over_the_limits(write_records, tmp_path, monkeypatch):
    PILImage.new("1", (16_385, 1)).save(tmp_path / "d" / "img" / "wide.png")
    large = "is too large, at most {} pixels a side and {} megapixels are read. Make it smaller."
    found = error(write_records(put("img/wide.png", *PART, "image")))
    assert found.code == "E09" and large.format("16,384", 64) in str(found)
    path = write_records(record())
    assert large.format("5", 64) in str(error(path, limits=Limits(side=5)))
    assert large.format("16,384", 0) in str(error(path, limits=Limits(pixels=29)))
    assert "is larger than 0 MiB. Make it smaller." in str(error(path, limits=Limits(bytes=50)))
    assert check(path, limits=Limits(side=6, pixels=30)).ok
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 20)  # Pillow warns up to twice this
    assert error(path).code == "E09"


def test_ids_are_unique_across_files(write_records):
    write_records(record())
    write_records(record(id="new"), record(), name="b.jsonl")
    found = error("d")
    assert (found.code, found.field, found.id) == ("E13", "id", "a-1")
    assert str(found) == "d/b.jsonl:2: id 'a-1' already used in d/a.jsonl:1. Ids must be unique."


def test_empty_sets(write_records, tmp_path):
    assert str(error(write_records(b"", b" "))) == "no usable rows in 1 file. They contain no rows."
    (tmp_path / "empty").mkdir()
    assert str(error("empty")) == "no .jsonl file found. Name a folder that contains one."
    with pytest.raises(FileNotFoundError, match="no file or folder 'nowhere'"):
        read("nowhere")
    assert check(write_records(b"[]")).codes == {"E25": 1}
    report = check(write_records(b"[[]]"))
    assert report.codes == {"E05": 1, "E25": 1}
    assert str(report.errors[-1]).startswith("no usable rows in 1 file. First error: d/a.jsonl:0: record: expected")


def test_lines_longer_than_the_limit(write_records, monkeypatch):
    monkeypatch.setattr("latent_reason.data.jsonl.LINE_BYTES", 2000)
    path = write_records(json.dumps(record()).encode() + b" " * 5000, record(id="b"))
    found = error(path)
    assert (found.code, found.row) == ("E02", 1) and "longer than" in str(found)
    assert check(path).traces == 1


def test_the_report_lists_twenty_and_counts_all(write_records):
    report = check(write_records(*[record(level="x")] * 25, record()))
    text = str(report)
    assert (report.rows, report.traces, report.codes) == (26, 1, {"E05": 25})
    assert text.count("level: expected a number") == 20 and "... and 5 more" in text and "errors: E05 25" in text
    assert text.endswith("1 of 26 rows usable in 1 file, 0 empty lines skipped")


def test_reading_leaves_the_folder_as_it_was(write_records, tmp_path):
    path = write_records(record())
    before = sorted(p.name for p in tmp_path.rglob("*"))
    list(read(path))
    check(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_errors_travel_between_processes(write_records):
    found = pickle.loads(pickle.dumps(error(write_records(record(level="x")))))
    assert str(found) == "d/a.jsonl:1: level: expected a number, found a string. See the format table."

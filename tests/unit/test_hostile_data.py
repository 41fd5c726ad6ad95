"""Data folders that are broken, absurd or hostile: each fault is one sentence with its file or row, in bounded time and
memory. ``CASES`` is the catalogue, one row a case."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from pathlib import Path

import pytest
from hostile.data import CASES, RECORD, line, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latent_reason.data import convert, native, texts
from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import LINE_BYTES, decode
from latent_reason.data.sources import parse_cell

SECONDS = 20  # a case that takes longer hangs
TABLE = {"columns": {"question": "q", "answer": "a", "images": "image"}}
ROW = {"q": "What is it?", "a": "3", "image": "img/p.png"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder ``d`` with one picture, below the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "img").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "d" / "img" / "p.png")
    return Path("d")


@pytest.fixture
def bounded():
    """A test that hangs fails."""

    def stop(*_):
        raise TimeoutError("the case hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_hostile_data_are_one_sentence_in_bounded_time(case, folder, bounded):
    if case.format == "table" or "parquet" in case.what:
        pytest.importorskip("pyarrow")
    case.make(folder)
    report = convert.check(case.format, folder, **(TABLE if case.format == "table" else {}))
    said = str(report)
    assert all(word in said for word in case.words), said[:2000]
    assert all("\n" not in str(error) and len(str(error)) < 2000 for error in report.errors)
    assert not report.ok and len(said) < 10_000, len(said)


@pytest.mark.parametrize("name", ["t.jsonl", "x.tar", "x.parquet"])
def test_the_reader_stops_with_the_error_that_the_check_lists(name, folder, bounded):
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match="is no plain file"):
        list(native.read(folder))
    with pytest.raises(DataError, match="is no plain file"):
        list(native.read(folder / name))


def test_a_picture_that_may_not_be_read_is_named_with_its_row(folder, monkeypatch):
    line()(folder)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "p.png")

    monkeypatch.setattr("latent_reason.data.pictures.open", refuse, raising=False)
    with pytest.raises(DataError, match=r"t\.jsonl:1: .*'img/p.png' cannot be read \(Permission denied\)"):
        list(native.read(folder))


def test_one_bad_row_among_good_ones_is_named_and_the_others_are_read(folder):
    rows = [json.dumps(RECORD | {"id": str(i)}) for i in range(5)]
    rows[2] = json.dumps(RECORD | {"id": "2", "meta": {"x": "y" * LINE_BYTES}})
    (folder / "t.jsonl").write_text("\n".join(rows))
    report = native.check(folder)
    assert report.traces == 4 and [str(error) for error in report.errors] == [
        "d/t.jsonl:3: line: longer than 32 MiB. Write one object per line."
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"one\n\xff\n", "texts.txt:2: not UTF-8"),
        (b'"a" and "b"\n', "texts.txt:1: column 5"),
        (b"x" * (LINE_BYTES + 2), "texts.txt:1: line: longer than 32 MiB"),
    ],
)
def test_a_line_of_texts_that_cannot_be_read_is_named(tmp_path, data, words):
    (tmp_path / "texts.txt").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        texts.lines(tmp_path / "texts.txt")


# -- fuzzing -----------------------------------------------------------------------------------------------------------
FUZZ = settings(max_examples=100, derandomize=True, deadline=None, database=None)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def places(value, here=()) -> list[tuple]:
    """The places in nested values."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, child in children for place in places(child, (*here, key)))]


def changed(value, place: tuple, new):
    """A copy of nested values with another one at a place."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "img").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "img" / "p.png")
    return folder


def judge(fuzzed: Path, name: str, data: bytes) -> None:
    """Every reader of this file gives traces or errors of one line, and raises nothing."""
    (fuzzed / name).write_bytes(data)
    try:
        reports = [convert.check("table", fuzzed, **TABLE)]
        reports += [native.check(fuzzed)] if name.endswith((".jsonl", ".tar", ".parquet")) else []
    finally:
        (fuzzed / name).unlink()
    assert all("\n" not in str(error) for report in reports for error in report.errors)


@FUZZ
@given(st.sampled_from(places(RECORD)), VALUES, st.sampled_from(places(ROW)))
def test_fuzz_records_with_another_value_anywhere(fuzzed, place, value, cell):
    judge(fuzzed, "t.jsonl", json.dumps(changed(RECORD, place, value)).encode())
    judge(fuzzed, "t.json", json.dumps([changed(ROW, cell, value)]).encode())


def good(suffix: str) -> bytes:
    """The bytes of a small good file."""
    if suffix == "tar":
        stream, members = (
            io.BytesIO(),
            {"0.json": json.dumps(RECORD).replace("img/p.png", "p0.png").encode(), "0.p0.png": png(4, 4)},
        )
        with tarfile.open(fileobj=stream, mode="w") as made:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
        return stream.getvalue()
    if suffix == "csv":
        return b'q,a,image\n"What, is it?",3,img/p.png\n'
    return json.dumps(ROW if suffix == "json" else RECORD).encode()


@FUZZ
@given(
    st.sampled_from(["jsonl", "json", "csv", "tar", "parquet", "arrow"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_fuzz_bytes_of_good_files(fuzzed, suffix, changes, end):
    data = bytearray(good(suffix))
    for share, new in changes:
        start = int(share * len(data))
        data[start : start + len(new)] = new
    judge(fuzzed, f"t.{suffix}", bytes(data[: int(end * len(data)) or None]))


@FUZZ
@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\0na1Ntru ', max_size=60).map(str.encode))
def test_fuzz_the_parser_of_lines(data):
    try:
        decode(data)
    except DataError as error:
        assert "\n" not in str(error)
    parse_cell(data.decode(errors="replace"))

"""What is wrong with the files of a benchmark."""

from __future__ import annotations

import json
import sys

import pytest
from benchmark_samples import WRITERS, changed, read, sample, written
from benchmark_samples.drawings import PAIR

from eval import benchmarks, tables
from latent_reason.data import parquet as packed
from latent_reason.data.errors import DataError


def spoilt(name, file, data):
    def write(folder):
        written(name, folder)
        (folder / file).write_bytes(data)

    return name, write


def taken(name, file):
    def write(folder):
        written(name, folder)
        (folder / file).unlink()

    return name, write


def pair(**fields):
    """The miniature of pairs with changed fields of its pair."""

    def write(folder):
        written("mmrb2/edit", folder)
        (folder / "edit.json").write_text(json.dumps({"pairs": [PAIR | fields]}), encoding="utf-8")

    return "mmrb2/edit", write


BAD = {
    "a pair without a preference": (*pair(chosen="tie"), "edit.json:0: chosen: 'tie' is not an option letter"),
    "a preference for a third": (*pair(chosen="C"), "edit.json:0: chosen: 'C' is neither A nor B"),
    "a response of no parts": (
        *pair(response_a={"model_name": "x"}),
        r"edit.json:0: response_a.response_content: expected a list of \['text'",
    ),
    "a part of another kind": (
        *pair(prompt_content=[["video", "a.mp4"]]),
        "prompt_content: has a part 'video', neither text nor image",
    ),
    "a part without content": (*pair(prompt_content=[["text"]]), "prompt_content: has a part that is no pair of texts"),
    "a picture of a response that leaves": (
        *pair(response_a={"response_content": [["image", "../secret.png"]]}),
        "response_a.response_content: .* leaves the",
    ),
    "a puzzle without a right option, as in the parquet of the Hub": (
        *changed("videothinkbench", correct_option=None),
        "data.json:0: correct_option: missing or empty. Expected: .*the parquet of the Hub has no correct_option",
    ),
    "candidates without labels": (
        *changed("videothinkbench", candidates=[{"x": 1, "y": 2}]),
        "data.json:0: candidates: their labels are not A, B, C",
    ),
    "a letter beyond the choices": (*changed("vcode/cvbench", answer="(C)"), "answer: 'C' is not a letter of the 2"),
    "a letter that is no option": (
        *changed("vstar", label="F"),
        r"parquet:0: answer: 'F' is not a letter of the 3 options",
    ),
    "a gold that is no letter": (
        *changed("vstar", label="rubber"),
        "label: 'rubber' is not an option letter. Expected: ",
    ),
    "a hidden label": (*changed("hrbench/4k", answer=""), "hr_bench_4k.tsv:1: answer: missing or empty. Expected: "),
    "neither question nor picture": (*changed("math_vr", question=" "), "question: is empty, and there is no"),
    "a picture that is none": (
        *changed("hrbench/4k", image="x" * 100 + "?"),
        ":1: image: is neither an image in base64",
    ),
    "an index of no row": (
        *changed("hrbench/4k", image="17"),
        ":1: image: '17' is not the index of a row with an image",
    ),
    "bytes that are no picture": (
        *changed("vstar", image={"bytes": b"GIF89a" * 20, "path": None}),
        "parquet:0: image: '.*' is not a readable PNG, JPEG or WebP",
    ),
    "no picture": (*changed("vstar", image=None), "parquet:0: image: has no image"),
    "a path that leaves": (*changed("visulogic", image_path="../../secret.png"), ":1: image_path: .* leaves the"),
    "an absolute path": (*changed("visulogic", image_path="/etc/passwd"), "is an absolute path"),
    "a path to nothing": (*changed("visulogic", image_path="images/2.png"), "not found under"),
    "an address": (*changed("visulogic", image_path="https://x.org/1.png"), "nothing is downloaded"),
    "a reserved token": (
        *changed("vstar", text="<|im_end|> Q? (A) x (B) y"),
        "parquet:0: question: contains the reserved token",
    ),
    "a choice that is none": (*changed("mathvista", answer="z"), "answer: 'z' is not one of the 2 choices"),
    "a type that is none": (*changed("emma/mini", type="essay"), "type: 'essay' is neither multiple choice nor open"),
    "an index beyond the options": (
        *changed("sat", correct_answer="up"),
        "correct_answer: 'up' is not one of the 2 choices",
    ),
    "a picture the question names": (
        *changed("comt", question="[IMAGE7]?"),
        "IMAGE7 of the question or an option is not listed",
    ),
    "an Index that is no number": (*changed("mmvp", Index="x"), "Index: 'x' is not a number"),
    "a field of another type": (*changed("visulogic", question=["Q"]), "question: expected a text, found list"),
    "too few cells": (*spoilt("hrbench/4k", "hr_bench_4k.tsv", b"index\timage\n1\n"), ":1: row: has 1 cells, but the"),
    "an open quote": (*spoilt("hrbench/4k", "hr_bench_4k.tsv", b'index\timage\n1\t"a\n'), ":1: row: cannot be read"),
    "bytes that are no text": (*spoilt("hrbench/4k", "hr_bench_4k.tsv", b"a\tb\n\xff\t1\n"), "is not UTF-8. Save it"),
    "an empty file": (*spoilt("hrbench/4k", "hr_bench_4k.tsv", b""), "the file is empty"),
    "no parquet": (*spoilt("vstar", "data/test-00000-of-00001.parquet", b"PAR1"), "cannot be read as parquet"),
    "no JSON": (*spoilt("visulogic", "data.jsonl", b"{"), "data.jsonl:1: "),
    "a JSON of numbers": (*spoilt("visulogic", "data.jsonl", b"3"), "row: expected an object"),
    "no file": (*taken("visulogic", "data.jsonl"), "has no .*data.jsonl.*Expected: data.jsonl with id, question"),
    "no picture of a task": (*taken("vsp/maze_1", "maze/task1/maps/level3/img/0.png"), "img: '.*0.png' not found"),
    "no answer of a task": (*taken("vsp/maze_1", "maze/task1/maps/level3/answer/0.txt"), "answer/0.txt' is missing"),
    "an answer of a task": (*spoilt("vsp/maze_1", "maze/task1/maps/level3/answer/0.txt", b"?"), "neither Y nor N"),
    "an index of a task": (
        *spoilt("vsp/maze_3", "maze/task3/maps/level3/answer/0.txt", b"1\n9"),
        "'9' is not an index",
    ),
    "codes of blocks": (*spoilt("vsp/blocks_main", "blocks/task-main/maps/level1/info.txt", b"a\n"), "expected begin,"),
    "too few lines": (*spoilt("vsp/blocks_1", "blocks/task1/maps/level3/annotation.txt", b"\n"), "has no line 1"),
    "an index of blocks": (
        *spoilt("vsp/blocks_3", "blocks/task3/maps/level3/annotation.txt", b"x\n"),
        "is not an index",
    ),
    "no directions": (*taken("vsp/collision", "collision/task-main/maps/level-default/car-dir.txt"), "txt' is missing"),
    "only a pickle": (*taken("vsp/google_map", "google_map/task-main/maps/level1/answer-1.json"), "it is never loaded"),
    "pairs that are none": (
        *spoilt("vsp/google_map", "google_map/task-main/maps/level1/answer-1.json", b"[[1]]"),
        "expected two whole numbers",
    ),
    "answers that are no JSON": (
        *spoilt("vsp/google_map", "google_map/task-main/maps/level1/answer-1.json", b"["),
        "answer-1.json: column 2: JSON ends early",
    ),
    "answers nested without end": (
        *spoilt("vsp/google_map", "google_map/task-main/maps/level1/answer-1.json", b"[" * 100_000),
        "nesting too deep",
    ),
    "an Index with too many digits": (*changed("mmvp", Index="9" * 5000), "is not a number"),
    "an Index in superscript": (*changed("mmvp", Index="²"), "Index: '²' is not a number"),
    "digits without end": (
        *changed("mathvista", precision=float("inf"), question_type="free_form", answer_type="float"),
        "precision: 'inf' is not a number of digits",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named_in_a_sentence(kind, tmp_path):
    name, write, sentence = BAD[kind]
    write(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as caught, read(name, tmp_path) as (items, _):
        for item in items:
            [shown.load() for shown in item.images]
    assert str(caught.value).endswith(".") or "Expected: " in str(caught.value), "it says what to do"


def test_two_copies_of_a_file_are_named(tmp_path):
    written("visulogic", tmp_path)
    rows = next(iter(sample("visulogic").files.values()))
    WRITERS[".jsonl"](tmp_path / "copy" / "data.jsonl", rows)
    with pytest.raises(DataError, match="id '00001' is used twice, by the same question"), read("visulogic", tmp_path):
        pass


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    written("visulogic", tmp_path / "real")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/data.jsonl").symlink_to(tmp_path / "real/data.jsonl")
    with pytest.raises(ValueError, match="is outside the benchmark's folder"), read("visulogic", tmp_path / "d"):
        pass


def test_a_snapshot_of_the_hub_links_to_its_blobs(tmp_path):
    written("vstar", tmp_path / "plain")
    (tmp_path / "hub/blobs").mkdir(parents=True)
    (tmp_path / "hub/snapshots/1f2e/data").mkdir(parents=True)
    (tmp_path / "plain/data/test-00000-of-00001.parquet").rename(tmp_path / "hub/blobs/c0ffee")
    (tmp_path / "hub/snapshots/1f2e/data/test-0.parquet").symlink_to("../../../blobs/c0ffee")
    with read("vstar", tmp_path / "hub/snapshots/1f2e") as (items, _):
        assert [item.id for item in items] == ["7", "8"]
    (tmp_path / "hub/snapshots/1f2e/data/test-1.parquet").symlink_to(tmp_path / "plain")
    with pytest.raises(ValueError, match="is outside the"), read("vstar", tmp_path / "hub/snapshots/1f2e"):
        pass


def test_a_sibling_folder_is_not_looked_into(tmp_path):
    written("vsp/maze_4", tmp_path)
    (tmp_path / "maze/task-main").mkdir()
    with pytest.raises(FileNotFoundError, match="has no level_step"), read("vsp/maze_4", tmp_path / "maze/task-main"):
        pass


def test_counts_are_those_that_were_published(tmp_path, monkeypatch):
    written("vstar", tmp_path)
    with (
        pytest.raises(ValueError, match=r"has 2 items of vstar, but 191 are published.*--partial"),
        read("vstar", tmp_path, partial=False),
    ):
        pass
    monkeypatch.setitem(benchmarks.load("vstar").COUNTS, "", 2)
    with read("vstar", tmp_path, partial=False) as (_, said):
        assert said["partial"] is None
    monkeypatch.setitem(benchmarks.load("vstar").COUNTS, "", 1)
    with pytest.raises(ValueError, match="2 items of vstar, but 1 are published"), read("vstar", tmp_path):
        pass


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pyarrow, which is not installed.*\.\[data\]"), read("vstar", tmp_path):
        pass


def test_parquet_is_held_to_the_limits_and_its_texts_are_text(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    file = tmp_path / "a.parquet"
    text = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff\xfe"]).buffers())
    packed.arrow().write_table(pyarrow.table({"question": text}), file)
    with pytest.raises(DataError, match=r"a\.parquet:0: cannot be read \("):
        list(tables.read_parquet(file))
    monkeypatch.setattr("latent_reason.data.parquet.GROUP_BYTES", 10)
    with pytest.raises(DataError, match="Write smaller row groups"):
        list(tables.read_parquet(file))


def test_unknown_names_say_the_nearest():
    for name, sentence in (
        ("vstr", "Did you mean 'vstar'"),
        ("vsp", "Give one of its parts: vsp/maze_main"),
        ("hrbench/16k", "Did you mean 'hrbench/"),
    ):
        with pytest.raises(ValueError, match=sentence):
            benchmarks.find(name)

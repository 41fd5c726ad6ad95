"""Chats in the formats of single projects, in files of every kind, and rows that are spoilt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_samples import LLAVA, LVR, MATHCANVAS, MONET, SAMPLES, SWIMBIRD, VISUAL_COT, picture, read, told
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_chats import UNPLACED, ask

from latent_reason.cli import main
from latent_reason.data import formats
from latent_reason.data.errors import DataError
from latent_reason.trace import Sketch, Text, Trace


# -- formats -----------------------------------------------------------------------------------------------------------
def test_lvr_boxes_that_leave_the_picture_are_cut_and_counted(put):
    over = [LVR | {"bboxes": [[0.5, -0.01, 1.004, 0.5]], "question_id": number} for number in range(3)]
    traces, errors, report = read("lvr", put("a.json", *over, LVR))
    assert not errors and [trace.sketches()[0].box for trace in traces[:3]] == [(0.5, 0, 1, 0.5)] * 3
    assert report.warnings == [
        "d/a.json:0: bboxes[0]: a box leaves the image by up to 5% of its side and is cut. (3 times in this file)"
    ]
    (trace,) = formats.load("lvr").read(put("b.json", LVR | {"bboxes": [[5, 0, 10.2, 5]]}), box_unit="pixel")
    assert trace.sketches()[0].box == (0.5, 0, 1, 0.5)
    _, (error,), _ = read("lvr", put("c.json", LVR | {"bboxes": [[0.5, 0, 1.2, 0.5]]}))
    assert error.code == "E15" and "[0.5, 0, 1.2, 0.5] is not in 0-1" in str(error)


@pytest.mark.parametrize(
    "content, wanted",
    [
        (["A <s>B", 1, "C"], ["A ", "(1)", "B", "C"]),
        (["<s>A", 1], ["(1)", "A"]),
        ([1, "<s>A"], ["(1)", "A"]),
        (["A<s>", "B", 1, "C"], ["A", "(1)", "B", "C"]),
        (["A<s>B<s>C", 1, 2], ["A", "(1)", "B", "(2)", "C"]),
        (["<o>A</o>B<s>", 1, "<o>C</o>"], ["A", "B", "(1)", "C"]),
        (["<o>A<s>B</o>C", 1], ["A", "(1)", "B", "C"]),
        (["A<abs_vis_token> </abs_vis_token>B", 1], ["A", "(1)", "B"]),
    ],
)
def test_monet_signs_are_the_places(put, content, wanted):
    marks = {"<s>": "<abs_vis_token></abs_vis_token>", "<o>": "<observation>", "</o>": "</observation>"}

    def part(value):
        if isinstance(value, int):
            return {"type": "image", "image": f"{value}.png"}
        for mark, sign in marks.items():
            value = value.replace(mark, sign)
        return {"type": "text", "text": value}

    row = MONET | {"data": [*MONET["data"][:2], {"role": "assistant", "content": [part(value) for value in content]}]}
    (trace,), errors, _ = read("monet", put("a.json", row), observation_loss=2)
    assert not errors and told(trace)[2] == wanted
    places = [isinstance(part, Sketch) for part in trace.messages[2].content]
    weighed = [i for i, part in enumerate(trace.messages[2].content) if isinstance(part, Text) and part.loss == 2]
    assert all(True in places[:i] for i in weighed), "an observation before any picture is text like any other"


def test_swimbird_numbers_of_thoughts(put):
    chat = ask(
        "<image>THOUGHT 1: which?", "THOUGHT 0: A.\n\nTHOUGHT 1:<image>\n THOUGHT 12: B: THOUGHT 3: C", "conversations"
    )
    row = SWIMBIRD | {"conversations": chat["conversations"]}
    (trace,), _, _ = read("swimbird", put("a.json", row))
    assert told(trace) == [["[1]", "THOUGHT 1: which?"], ["A.\n\n", "(2)", "B: THOUGHT 3: C \\boxed{left}"]]


def test_mathcanvas_orders_options_and_open_questions(put):
    image = {"type": "image", "content": "", "index": 1}
    solution = [image, image | {"index": 0}, {"type": "text", "content": "So.", "index": 0}]
    swapped = MATHCANVAS | {
        "solution_interleave": solution,
        "solution_images": ["2.png", "3.png"],
        "options": ["x", "y"],
    }
    plain = {"type": "image", "content": ""}
    unnumbered = swapped | {"solution_interleave": [plain, plain, solution[2]], "options": None, "id": "b"}
    open_row = MATHCANVAS | {"solution_interleave": [], "solution_images": [], "id": "c"}
    (first, second, third), errors, _ = read("interleaved", put("a.jsonl", swapped, unnumbered, open_row))
    assert not errors and told(first) == [["Find the angle.", "[1]", "\nA. x\nB. y"], ["(3)", "(2)", "So. \\boxed{60}"]]
    assert told(second)[1] == ["(2)", "(3)", "So. \\boxed{60}"]
    assert (len(third.messages), third.split, third.answer) == (1, "test", "60")


def test_visual_cot_without_a_region_and_with_two(put):
    plain = ask("<image>What?", key="conversations", image="1.png")
    two = VISUAL_COT | {
        "image": ["1.png", "1.png###[0, 0, 5, 5]", "1.png###[5, 5, 10, 10]"],
        "conversations": [
            *VISUAL_COT["conversations"],
            {"from": "human", "value": "<image>"},
            {"from": "gpt", "value": "Two."},
        ],
    }
    (first, second), errors, _ = read("visual_cot", put("a.json", plain, two))
    assert not errors and told(first) == [["[1]", "What?"], ["Yes."]]
    assert told(second)[1] == ["[0.1, 0.1, 0.6, 0.8]", "(1)", "A feather.", "(1)", "Two."]
    assert [sketch.box for sketch in second.sketches()] == [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)]


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize(
    "write",
    [
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=1),
        lambda rows: "\n".join(map(json.dumps, rows)),
        lambda rows: "\r\n\r\n".join(map(json.dumps, rows)) + "\r\n",
        lambda rows: "\ufeff\n" + json.dumps(rows, indent=1),
    ],
)
def test_lists_and_lines_by_their_content(put, suffix, write):
    put("a.jsonl")
    Path(f"d/a{suffix}").write_text(write([LLAVA, LLAVA | {"id": "l2"}]), encoding="utf-8", newline="")
    traces, errors, _ = read("llava", f"d/a{suffix}")
    assert not errors and [trace.id for trace in traces] == ["l1", "l2"]


def test_a_file_of_another_format_gets_one_message(put, capsys):
    path = put("a.json", *[LLAVA | {"id": f"{number}"} for number in range(300)])
    for format, field in (("zebra_cot", "Question"), ("thinkmorph", "instruction_list"), ("mirage", "text_input")):
        (error,) = formats.load(format).read(path)
        kind = "a list" if field.endswith("list") else "a string"
        assert str(error) == (
            f"d/a.json: {field}: missing, expected {kind}. See the format table. So in its first 100 rows: the file is "
            "of another format. Its columns are 'id', 'image', 'conversations': llava or visual_cot?"
        )
    with pytest.raises(SystemExit):
        main(["data", "convert", "mirage", path, "out", "--on-error", "skip", "--max-skip", "0.5"])
    assert capsys.readouterr().out.count("E05") == 2, "the error and its count"
    few = put("b.jsonl", *[MONET] * 3)
    (error,) = formats.load("llava").read(few)
    assert "So in all its rows" in str(error) and "monet?" in str(error)
    assert len(list(formats.load("llava").read(put("c.json", MONET, MONET, LLAVA)))) == 3, "some rows fit"


def test_files_that_hold_no_data_are_left_out(put):
    put("a.jsonl", LLAVA)
    for name in ("dataset_infos.json", "state.json", ".cache/x.json", "parquet_info/p.json"):
        put(name, {"a": 1})
    traces, errors, report = read("llava", "d")
    assert len(traces) == 1 and not errors and report.files == 1


def test_rows_in_a_key_are_named(put):
    put("a.json")
    Path("d/a.json").write_text(json.dumps({"version": 1, "data": [LLAVA, LLAVA]}))
    _, (error,), _ = read("llava", "d/a.json")
    assert str(error) == "d/a.json:0: record: the rows are in its key 'data' (2). Write this list to a file of its own."


def test_check_of_another_format(put, capsys):
    good = put("a.json", LLAVA)
    main(["data", "check", good, "--format", "llava"])
    assert capsys.readouterr().out.startswith("1 of 1 rows usable")
    bad = put("b.jsonl", UNPLACED["sharegpt"])
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", bad, "--format", "sharegpt", "--unplaced-image", "refuse"])
    assert ended.value.code == 2 and "--unplaced-image first" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'native' has no option --answer"):
        main(["data", "check", good, "--answer", "text"])
    with pytest.raises(SystemExit, match="unknown format 'lava'"):
        main(["data", "check", good, "--format", "lava"])


# -- nothing but a trace or an error -----------------------------------------------------------------------------------
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from(["", " ", "x", "<image>", "1.png", "\\boxed{", "<answer>"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "image", "from", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def spoil(data, value):
    """``value`` with one leaf, entry or column replaced by anything, or left out."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(value)))
        if not data.draw(st.integers(0, 5)):
            return {name: one for name, one in value.items() if name != key}
        return value | {key: spoil(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.integers(0, 9)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], spoil(data, value[at]), *value[at + 1 :]]
    return data.draw(junk)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_spoilt_row_is_a_trace_or_an_error_in_its_place(tmp_path_factory, data):
    format, row, options, *_ = data.draw(st.sampled_from(SAMPLES))
    folder = tmp_path_factory.mktemp("spoilt")
    for number in range(1, 5):
        picture(number).save(folder / f"{number}.png")
    (folder / "a.jsonl").write_text(json.dumps(spoil(data, spoil(data, row))))
    for result in formats.load(format).read(folder / "a.jsonl", **options):
        assert isinstance(result, Trace | DataError)
        if isinstance(result, DataError):
            assert str(result).startswith(str(folder / "a.jsonl")) and str(result).endswith((".", "?"))


def test_an_id_that_every_row_has(put):
    rows = [LLAVA | {"id": "x" * 200, "image": None, **ask("Q", key="conversations")}] * 3000
    traces = list(formats.load("llava").read(put("a.json", *rows)))
    assert len({trace.id for trace in traces}) == 3000 and max(len(trace.id) for trace in traces) <= 128


def test_the_same_error_of_every_row_is_told_of_every_row(put):
    errors = list(formats.load("llava").read(put("a.json", *[LLAVA | {"image": [None, "1.png"]}] * 3)))
    assert [error.row for error in errors] == [0, 1, 2], "the file is of the format, so each row counts"

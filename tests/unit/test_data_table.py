"""Tables with columns that the user names: questions with gold answers, as public sets for reinforcement learning have them."""

import base64
import io
import json
import math
from pathlib import Path

import pytest
from data_samples import picture, told
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason.cli import main
from latent_reason.data import checks, formats, native
from latent_reason.data.errors import DataError, Report
from latent_reason.trace import Trace

CASES = Path(__file__).parents[3] / "shared" / "cases" / "rows"
VERL = {
    "data_source": "vstar",
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>\nWhat color?"}],
    "images": [{"image": "1.png"}],
    "ability": "vqa",
    "reward_model": {"style": "rule", "ground_truth": "red"},
    "extra_info": {"split": "train", "index": "0", "question": "What color?"},
}
R1V = {"image": "1.png", "problem": "How many?", "solution": "<answer> 3 </answer>"}
SWIFT = {"messages": [{"role": "user", "content": "<image>Find x."}], "images": ["1.png"], "solution": "3"}
EASYR1 = {"images": ["1.png", "2.png"], "problem": "<image>First, <image>second.", "answer": "\\boxed{\\frac{1}{2}}"}


def png(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


def read(path, *, columns, **options):
    """(traces, errors); every trace is a valid native record."""
    found = list(formats.load("table").read(path, columns=columns, **options))
    return [one for one in found if isinstance(one, Trace)], [one for one in found if isinstance(one, DataError)]


@pytest.mark.parametrize(
    "row, columns, turns, answer",
    [
        (
            VERL,
            {"question": "prompt", "answer": "reward_model.ground_truth"},
            [["Be brief."], ["[1]", "What color?"]],
            "red",
        ),
        (
            VERL,
            {"question": "extra_info.question", "answer": "reward_model.ground_truth"},
            [["[1]", "What color?"]],
            "red",
        ),
        (R1V, {"question": "problem", "answer": "solution", "images": "image"}, [["[1]", "How many?"]], "3"),
        (SWIFT, {"question": "messages", "answer": "solution"}, [["[1]", "Find x."]], "3"),
        (SWIFT, {"question": "messages.0.content", "answer": "solution"}, [["[1]", "Find x."]], "3"),
        (EASYR1, {"question": "problem"}, [["[1]", "First, ", "[2]", "second."]], "\\frac{1}{2}"),
        ({"question": "Why?", "answer": 2.0}, {}, [["Why?"]], "2"),
        ({"question": "Why?", "answer": 2.5, "images": None}, {}, [["Why?"]], "2.5"),
        (
            {
                "question": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}],
                "answer": "a",
            }
            | {"images": "1.png"},
            {},
            [["[1]", "Hi"]],
            "a",
        ),
    ],
)
def test_rows_of_public_sets(put, row, columns, turns, answer):
    ((trace,), errors) = read(put("a.jsonl", row), columns=columns, checker="set")
    assert not errors and (told(trace), trace.answer, trace.split, trace.checker) == (turns, answer, "train", "set")
    native.write([trace], "native")
    (back,) = native.read("native")
    assert told(back) == turns and back.answer == answer


IMAGE, OTHER = {"type": "image"}, {"type": "image_url", "image_url": {"url": "2.png"}}
TEXT = {"type": "text", "text": "Hi"}
DATA = base64.b64encode(png(7)).decode()


@pytest.mark.parametrize(
    "question, turns",
    [
        ([{"role": "user", "content": [OTHER, TEXT]}], [["[2]", "Hi"]]),
        ([{"from": "human", "value": "<image>Hi"}], [["[1]", "Hi"]]),
        ([{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}], [["[1]", "Hi"]]),
        ([{"role": "system", "content": "S"}, {"role": "user", "content": [IMAGE, "Hi"]}], [["S"], ["[1]", "Hi"]]),
        (json.dumps([{"role": "user", "content": "Hi"}]), [["[1]", "Hi"]]),
        (str([{"role": "user", "content": [IMAGE, {"type": "text", "text": "Hi"}]}]), [["[1]", "Hi"]]),
        ([IMAGE, TEXT], [["[1]", "Hi"]]),
        ({"role": "user", "content": "Hi"}, [["[1]", "Hi"]]),
        ("[Hi", [["[1]", "[Hi"]]),
        ([{"role": "user", "content": [{"type": "image", "image": "1.png"}, TEXT]}], [["[1]", "Hi"]]),
    ],
)
def test_turns_and_parts_of_a_question(put, question, turns):
    """Parts with an image of their own may repeat that of the column."""
    row = {"question": question, "answer": "1", "images": [] if "image_url" in str(question) else ["1.png"]}
    ((trace,), errors) = read(put("a.jsonl", row), columns={})
    assert not errors and told(trace) == turns


@pytest.mark.parametrize("part", [{"type": "video", "video": "a.mp4"}, {"type": "audio"}, {"type": "graph"}])
def test_parts_that_are_not_read_are_refused(put, part):
    (error,) = read(
        put("a.jsonl", {"question": [{"role": "user", "content": [part, TEXT]}], "answer": "1"}), columns={}
    )[1]
    assert error.code == "E06" and error.field == "question[0].content[0].type"


@pytest.mark.parametrize(
    "images, found",
    [
        (f"data:image/png;base64,{DATA}", [7]),
        (DATA, [7]),
        ({"bytes": DATA}, [7]),
        ({"image_url": {"url": "1.png"}}, [1]),
        ({"bytes": None, "path": None}, []),
        (["1.png", None, ""], [1]),
        ({"bytes": DATA, "path": "gone.png", "height": 32}, [7]),
        ("['1.png', '2.png']", [1, 2]),
        ('["1.png", null]', [1]),
        ("", []),
    ],
)
def test_images_of_a_cell(put, images, found):
    ((trace,), errors) = read(put("a.jsonl", {"question": "Q", "answer": "1", "images": images}), columns={})
    assert not errors and [image.getpixel((0, 0))[0] for image in trace.images()] == found


@pytest.mark.parametrize("column", ["image", "jpg", "png", "webp"])
def test_usual_columns_of_images_need_no_name(put, column):
    ((trace,), errors) = read(put("a.jsonl", {"question": "Q", "answer": "1", column: "2.png"}), columns={})
    assert not errors and told(trace) == [["[2]", "Q"]]


def test_an_image_that_is_not_read_is_told(put):
    (row,) = rows = [{"question": "Q", "answer": "1", "figure": "2.png"}]
    report = Report()
    assert len(read(put("a.jsonl", *rows), columns={}, report=report)[0]) == 1
    assert any(
        "'figure' looks like the path of an image: --columns images=figure reads it" in w for w in report.warnings
    )
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([row | {"figure": {"bytes": png(2), "path": None}}]), "d/b.parquet")
    (error,) = read("d/b.parquet", columns={})[1]
    assert (
        error.code == "E12"
        and "figure: holds an image, which is not read. Name it: --columns images=figure." in str(error)
    )
    assert told(read("d/b.parquet", columns={"images": "figure"})[0][0]) == [["[2]", "Q"]]


@pytest.mark.parametrize(
    "question, turns",
    [
        ("<image_1>Q", [["[1]", "Q"]]),
        ("See <image 2> and [IMAGE1]: Q", [["See ", "[2]", " and ", "[1]", ": Q"]]),
        ("<image1>In <image2>, not <image1>", [["[1]", "In ", "[2]", ", not ", "[1]"]]),
        ("<image_1>Q<image_0>", [["[2]", "Q", "[1]"]]),
        ("<ImageHere>Q<Image>", [["[1]", "Q", "[2]"]]),
        ("<img><IMG_CONTEXT>\nQ", [["[1]", "[2]", "Q"]]),
    ],
)
def test_signs_of_other_projects_are_places(put, question, turns):
    images = ["1.png", "2.png"] if len(str(turns).split("[2]")) > 1 else ["1.png"]
    ((trace,), errors) = read(put("a.jsonl", {"question": question, "answer": "1", "images": images}), columns={})
    assert not errors and told(trace) == turns


def test_signs_that_do_not_fit_the_images_are_refused(put):
    rows = [
        {"question": question, "answer": "1", "images": ["1.png", "2.png"]}
        for question in ("[IMAGE]Q", "<image_1><ImageHere>Q", "<image_1>Q", "<image_2><image_3>Q")
    ]
    assert [e.code for e in read(put("a.jsonl", *rows), columns={})[1]] == ["E10"] * 4
    ((trace,), _) = read(put("b.jsonl", {"question": "What does <img> mean?", "answer": "1"}), columns={})
    assert told(trace) == [["What does <img> mean?"]]


@pytest.mark.parametrize(
    "given, gold",
    [
        ("<think>r 2</think> 3", "3"),
        ("r</think>\n3", "3"),
        ("<think>maybe \\boxed{2}</think><answer>3</answer>", "3"),
        ("2+3=5\n#### 5", "5"),
        ("# 5", "# 5"),
        (["3"], "3"),
        (True, "True"),
        (3.0, "3"),
    ],
)
def test_gold_answers(put, given, gold):
    ((trace,), errors) = read(put("a.jsonl", {"question": "Q", "answer": given}), columns={})
    assert not errors and trace.answer == gold


def test_missing_numbers_of_pandas_are_null(put):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"question": "Q", "answer": a} for a in (1.0, math.nan, math.inf)])
    parquet.write_table(table, "d/a.parquet")
    traces, errors = read("d/a.parquet", columns={})
    assert [t.answer for t in traces] == ["1"] and [e.code for e in errors] == ["E14", "E03"]


def test_empty_cells_of_a_csv_file_are_null(put):
    Path("d/a.csv").write_text("question,answer,trace,level,id,split,images\nQ,1,,,,,\nR,2,,3.0,x,VAL,1.png\n")
    (first, second), errors = read("d/a.csv", columns={})
    assert not errors and (first.level, first.id, first.split) == (None, "a-2", "train") and len(first.messages) == 1
    assert (second.level, second.id, second.split, len(second.images())) == (3, "x", "val", 1)


def test_the_answer_or_the_reasoning_is_right(put):
    row = {"question": "Q", "answer": "1", "trace": "So \\boxed{2}"}
    assert read(put("a.jsonl", row), columns={})[1][0].code == "E17"
    assert [read("d/a.jsonl", columns={}, answer=side)[0][0].answer for side in ("field", "text")] == ["1", "2"]
    row = {"question": "Q", "answer": "1", "images": ["1.png"]}
    assert told(read(put("b.jsonl", row), columns={}, unplaced_image="drop")[0][0]) == [["Q"]]
    assert read("d/b.jsonl", columns={}, unplaced_image="refuse")[1][0].code == "E10"


def test_a_checker_fits_the_answers(put):
    from eval.records import ANSWER_RULES, CHECKER_RULES
    from latent_reason import tasks

    assert {*checks.CHECKERS} == {*ANSWER_RULES, *CHECKER_RULES, *tasks.names()}
    file = put("a.jsonl", *({"question": "Q", "answer": a} for a in ("3", "three", "abc", "Yes.")))
    with pytest.raises(ValueError, match=r"there is no checker 'nuber'. Did you mean 'number'\?"):
        read(file, columns={}, checker="nuber")
    assert [e.row for e in read(file, columns={}, checker="number")[1]] == [3, 4]
    assert [e.row for e in read(file, columns={}, checker="yes_no")[1]] == [1, 2, 3]
    assert not read(file, columns={}, checker="frozenlake_plan")[1]
    native.write(read(file, columns={}, checker="same_text")[0], "out")
    assert native.check("out").ok
    lines = Path("out/traces.jsonl").read_text()
    Path("out/traces.jsonl").write_text(lines.replace('"same_text"', '"number"'))
    assert [e.row for e in native.check("out").errors] == [3, 4]
    Path("out/traces.jsonl").write_text(lines.replace('"same_text"', '"nuber"'))
    assert [e.field for e in native.check("out").errors][:4] == ["checker"] * 4


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize(
    "name, columns",
    [
        ("easyr1", {"question": "problem"}),
        ("easyr1/train.parquet", {"question": "problem", "answer": "answer", "images": "images"}),
        ("swift_grpo.jsonl", {"question": "messages", "answer": "solution"}),
    ],
)
def test_cases(name, columns):
    ((trace,), errors) = read(CASES / name, columns=columns)
    assert not errors and trace.answer == "3" and len(trace.messages) == 1 and len(trace.images()) == 1
    assert trace.messages[0].content[1].text == "Find x." and trace.split == "train"


BAD = [
    ({"problem": "Q", "answer": "1"}, {"question": "problm"}, "E05", "problm: there is no such column. Did you mean"),
    ({"problem": "Q", "answer": "1"}, {}, "E05", "question: missing, expected text or turns. Name its column"),
    ({"question": "Q"}, {}, "E14", "answer: missing. Name its column: --columns answer=COLUMN."),
    ({"question": "Q", "answer": None}, {}, "E14", "answer: missing"),
    ({"question": "Q", "answer": "<answer> </answer>"}, {}, "E14", "answer: empty"),
    ({"question": "Q", "answer": {"a": 1}}, {}, "E05", "answer: expected text or a number, found an object."),
    ({"question": "Q", "answer": ["1", "2"]}, {}, "E05", "found a list. Name one answer: --columns answer=answer.0."),
    ({"question": "Q", "answer": "<think>3</think>"}, {}, "E14", "answer: empty"),
    ({"question": " ", "answer": "1"}, {}, "E14", "question: empty"),
    ({"question": "<image>Q", "answer": "1"}, {}, "E10", "1 <image> in all turns, 0 entries in 'images'"),
    ({"question": "<image>Q", "answer": "1", "images": ["1.png", "2.png"]}, {}, "E10", "2 entries in 'images'"),
    ({"question": "Q", "answer": "1", "images": [3]}, {}, "E05", "images[0]: expected a path, found a number"),
    ({"question": "Q", "answer": "1", "images": "../1.png"}, {}, "E08", "leaves the data folder"),
    ({"question": "Q <lvr>", "answer": "1"}, {}, "E18", "reserved token"),
    ({"question": "Q", "answer": "1", "trace": "So \\boxed{2}"}, {}, "E17", "'1' but the text boxes '2'"),
    ({"question": "Q", "answer": "1", "level": "high"}, {}, "E05", "level: expected a whole number"),
    ({"question": "Q", "answer": "1", "split": "extra"}, {}, "E05", "split: 'extra' is not train"),
    (
        SWIFT | {"answer": "3", "messages": [*SWIFT["messages"], {"role": "assistant", "content": "3"}]},
        {"question": "messages"},
        "E19",
        "",
    ),
    ({"question": [{"role": "tool", "content": "x"}], "answer": "1"}, {}, "E19", "'tool' turns are not supported"),
    ({"question": ["x"], "answer": "1"}, {}, "E05", "question[0]: expected an object, found a string"),
]


@pytest.mark.parametrize("row, columns, code, message", BAD)
def test_bad_rows_are_named(put, row, columns, code, message):
    good = {"question": "Q", "answer": "1", "messages": [{"role": "user", "content": "Q"}], "problm": "Q"}
    traces, (error,) = read(put("a.jsonl", row, good), columns=columns)
    assert error.code == code and str(error).startswith("d/a.jsonl:1: ") and message in str(error) and len(traces) == 1


def test_a_trace_column_becomes_the_reasoning(put):
    row = {"question": "Q", "answer": "B", "trace": "Look closely. <answer>B</answer>"}
    ((trace,), _) = read(
        put(
            "a.jsonl",
            row,
        ),
        columns={},
    )
    assert told(trace)[1] == ["Look closely. \\boxed{B}"] and trace.mode == "text" and trace.answer == "B"
    ((trace,), _) = read(put("a.jsonl", {"question": "Q", "trace": "So \\boxed{C}"}), columns={})
    assert trace.answer == "C"


def test_the_command_line(put, capsys):
    put("a.jsonl", R1V, R1V | {"solution": "5"})
    with pytest.raises(ValueError, match=r"--columns: a record has no 'anser'. Did you mean 'answer'\?"):
        formats.load("table").read("d/a.jsonl", columns={"anser": "x"})
    main(["data", "convert", "table", "d", "out", "--columns", "question=problem,answer=solution,images=image"])
    assert "2 of 2 rows usable" in capsys.readouterr().out
    main(["data", "check", "out"])
    assert [t.answer for t in native.read("out")] == ["3", "5"]


@settings(max_examples=60, deadline=None)
@given(
    row=st.dictionaries(
        st.sampled_from(["question", "answer", "images", "trace", "level", "split", "id", "x"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "type", "image", "0"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    ),
    columns=st.dictionaries(
        st.sampled_from(["question", "answer", "trace"]), st.sampled_from(["x", "x.0", "x.content"])
    ),
)
def test_any_row_is_read_or_named(tmp_path_factory, row, columns):
    folder = tmp_path_factory.mktemp("any")
    picture(1).save(folder / "1.png")
    (folder / "a.jsonl").write_text(json.dumps(row))
    traces, errors = read(folder / "a.jsonl", columns=columns)
    assert len(traces) + len(errors) == 1
    for trace in traces:
        assert trace.answer or trace.messages[-1].role == "assistant"

"""Rows that are odd as published, and what is asked of a row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_samples import SAMPLES, WRITERS, b64, changed, grey, image, label, png, read, sample, stored, written
from benchmark_samples.drawings import ROW
from benchmark_samples.perception import BLINK

from eval import benchmarks, readers, selection, tables
from eval.benchmarks.mdk12 import answer_of
from eval.items import build_trace, prompt_text
from eval.scoring import judge
from latent_reason.data.errors import DataError


# -- rows that are odd as published ------------------------------------------------------------------------------------
def test_choices_that_repeat_are_shown_once(tmp_path):
    name, write = changed("mathvista", choices=["red", "blue", "blue"], answer="blue")
    write(tmp_path)
    with read(name, tmp_path) as (items, said):
        assert (items[0].options, items[0].answer, said["left_out"]) == (("red", "blue"), "B", None)
        assert judge("The answer is blue", items[0]).is_right


def test_answers_of_sat_that_repeat_are_shown_once(tmp_path):
    changed("sat", answers=["left", "right", "right"])[1](tmp_path)
    for part, n in (("sat", 1), ("sat/circular", 2)):
        with read(part, tmp_path) as (items, said):
            assert len(items) == n and said["left_out"] is None
            assert {item.options[ord(item.answer) - ord("A")] for item in items} == {"right"}


def test_the_right_answer_of_sat_may_be_an_index(tmp_path):
    name, write = changed("sat", correct_answer=None, correct_answer_idx=0)
    write(tmp_path)
    with read(name, tmp_path) as (items, _):
        assert items[0].answer == "A"


def test_choices_of_a_free_question_are_no_list(tmp_path):
    name, write = changed("ocr_reasoning", choices="-")
    write(tmp_path)
    with read(name, tmp_path) as (items, said):
        assert (items[0].answer_type, said["left_out"]) == ("number", None)


def test_choices_that_are_numbers_are_read(tmp_path):
    name, write = changed("mathvista", choices=[2.0, 3.5], answer="2")
    write(tmp_path)
    with read(name, tmp_path) as (items, _):
        assert (items[0].options, items[0].answer) == (("2.0", "3.5"), "A")


@pytest.mark.parametrize(
    "name, question", [("emma/mini", "Is <image_4> it?"), ("mmstar", "Is <image 2> it? Look well.")]
)
def test_a_mark_without_its_picture_is_asked_in_words_and_counted(name, question, tmp_path):
    name, write = changed(name, question=question)
    write(tmp_path)
    with read(name, tmp_path) as (items, said):
        parts = build_trace(items[0], "bare", "text").messages[0].content
        assert re.search(r"Is image \d it", "".join(getattr(part, "text", "[]") for part in parts))
        assert said["remarks"] == "1: the question marks an image that the row does not have"


def test_a_question_whose_text_is_in_the_picture_is_asked(tmp_path):
    name, write = changed("mathvista", question="")
    write(tmp_path)
    with read(name, tmp_path) as (items, said):
        assert said["remarks"] == "1: the question is in the image" and items[0].question == ""
        assert prompt_text(items[0], "boxed").startswith("A. x\nB. y\nPut ")


def test_rows_that_cannot_be_asked_are_left_out_by_reason(tmp_path):
    rows = next(iter(sample("visulogic").files.values()))
    rows = [rows[0] | {"id": str(k), "label": label} for k, label in enumerate("AXYZ")] + [rows[0] | {"label": None}]
    WRITERS[".jsonl"](tmp_path / "data.jsonl", rows)
    image(tmp_path / "images/00001.png", 1)
    with read("visulogic", tmp_path) as (items, said):
        assert len(items) == 1 and said["partial"] == "5 of 1000 in the folder"
        assert said["left_out"] == "3: answer: '...' is not a letter of the 4 options; 1: label: missing or empty"


def test_pictures_that_cannot_be_decoded_leave_their_item_out(tmp_path):
    rows = [{"image": stored(1), "question": "How many?", "answer": "3"}] * 2
    rows = [rows[0], rows[1] | {"image": {"bytes": b"GIF89a" * 20, "path": None}}]
    WRITERS[".parquet"](tmp_path / "test.parquet", rows)
    with readers.open_source(tmp_path) as source:
        items, _ = selection.gradable_items("realworldqa", source, partial=True)
        assert [item.id for item in selection.readable_items(items, source).values()] == ["test-0"]
        assert "is not a readable" in selection.counted(source.left_out)
        with pytest.raises(DataError, match=r"parquet:1: image: '.*' is not a readable"):
            selection.readable_items(items[1:], source)


def test_images_that_are_missing_are_an_error_unless_the_folder_is_partial(tmp_path):
    rows = next(iter(sample("visulogic").files.values()))
    rows = [rows[0], rows[0] | {"id": "2", "image_path": "images/2.png"}]
    WRITERS[".jsonl"](tmp_path / "data.jsonl", rows)
    image(tmp_path / "images/00001.png", 1)
    with readers.open_source(tmp_path) as source:
        items, _ = selection.gradable_items("visulogic", source, partial=True)
        with pytest.raises(DataError, match=r"jsonl:2: image_path: 'images/2.png' not found"):
            selection.readable_items(items, source)
        assert [item.id for item in selection.readable_items(items, source, partial=True).values()] == ["00001"]
        assert selection.counted(source.left_out) == "1: image_path: '...' not found under '...'"


# -- one faulty row among others ---------------------------------------------------------------------------------------
def test_a_row_with_too_many_cells_is_left_out(tmp_path):
    lines = [
        "Index,Question,Options,Correct Answer",
        '1,Open?,"(a) Yes (b) No",(a)',
        '2,Red, or blue?,"(a) Yes (b) No",(b)',
    ]
    (tmp_path / "Questions.csv").write_text("\n".join([*lines, '3,Big?,"(a) Yes (b) No",(b)']))
    with read("mmvp", tmp_path) as (items, said):
        assert [item.id for item in items] == ["1", "3"]
        assert said["left_out"] == "1: row: has 5 cells, but the header has 4"


def test_a_line_that_is_no_json_is_left_out(tmp_path):
    written("visulogic", tmp_path)
    with open(tmp_path / "data.jsonl", "a", encoding="utf-8") as file:
        file.write('\n{"id": "2", \n')
    with read("visulogic", tmp_path) as (items, said):
        assert len(items) == 1 and said["left_out"].startswith("1: ")


def test_a_row_that_is_repeated_is_left_out(tmp_path):
    rows = next(iter(sample("visulogic").files.values()))
    WRITERS[".jsonl"](tmp_path / "data.jsonl", [rows[0], rows[0] | {"id": "2"}, rows[0]])
    image(tmp_path / "images/00001.png", 1)
    with read("visulogic", tmp_path) as (items, said):
        assert [item.id for item in items] == ["00001", "2"]
        assert said["left_out"] == "1: the same row occurs twice"


def test_a_picture_outside_of_the_folder_leaves_its_row_out(tmp_path):
    rows = next(iter(sample("visulogic").files.values()))
    WRITERS[".jsonl"](tmp_path / "data.jsonl", [rows[0], rows[0] | {"id": "2", "image_path": "/etc/passwd"}])
    image(tmp_path / "images/00001.png", 1)
    with readers.open_source(tmp_path) as source:
        items, _ = selection.gradable_items("visulogic", source, partial=True)
        assert [item.id for item in selection.readable_items(items, source).values()] == ["00001"]
        assert "is an absolute path" in selection.counted(source.left_out)


def test_a_row_of_vstar_without_its_file_of_boxes_is_asked(tmp_path):
    row = {"image": "direct_attributes/1.png", "text": "Q?\n(A) x\n(B) y", "label": "A", "category": "c"}
    WRITERS[".jsonl"](tmp_path / "test_questions.jsonl", [row])
    image(tmp_path / "direct_attributes/1.png", 1)
    with read("vstar", tmp_path) as (items, said):
        assert items[0].boxes == () and said["remarks"] == "1: the boxes are missing"


def test_options_of_comt_that_are_pictures_are_shown(tmp_path):
    name, write = changed(
        "comt", question="Which?", option=["[IMAGE1]", "[IMAGE2]"], image={f"IMAGE{k}": f"c{k}" for k in range(3)}
    )
    write(tmp_path)
    for number in range(3):
        image(tmp_path / f"comt/images/creation/c{number}.png", number)
    with read(name, tmp_path) as (items, _):
        assert [grey(shown) for shown in items[0].images] == [0, 1, 2]
        parts = build_trace(items[0], "bare", "text").messages[0].content
        assert [getattr(part, "text", "[]") for part in parts] == ["[]", "Which?\nA. ", "[]", "\nB. ", "[]"]


@pytest.mark.parametrize(
    "gold, checker, answer", [("A；C", "letters", "AC"), ("答案：A", "letter", "A"), ("A，C。", "letters", "AC")]
)
def test_golds_of_mdk12_in_chinese(gold, checker, answer, tmp_path):
    with readers.open_source(tmp_path) as source:
        row = readers.Row({"answer": gold}, tmp_path / "x.tsv", 1, source, "")
        assert answer_of(row, "physics_choice", ["u", "v", "w", "x"])[1:3] == (checker, answer)


@pytest.mark.parametrize("gold", ["略", "答案：略", "（略）", "见解析。"])
def test_golds_of_mdk12_that_are_omitted_are_left_out(gold, tmp_path):
    with readers.open_source(tmp_path) as source:
        row = readers.Row({"answer": gold}, tmp_path / "x.tsv", 1, source, "")
        with pytest.raises(DataError, match="is omitted"):
            answer_of(row, "physics_fill_in_the_blank", [])


def test_ids_that_repeat_are_made_unique(tmp_path):
    rows = next(iter(sample("visulogic").files.values()))
    WRITERS[".jsonl"](tmp_path / "data.jsonl", [rows[0] | {"question": text} for text in ("P?", "Q?")])
    image(tmp_path / "images/00001.png", 1)
    with read("visulogic", tmp_path) as (items, _):
        assert [(item.id, item.cluster) for item in items] == [("00001", "00001"), ("00001#2", "00001#2")]


ODD = [
    None,
    "",
    " ",
    "?",
    7,
    -1.5,
    float("nan"),
    True,
    [],
    ["x"],
    [None],
    {},
    {"A": 1},
    b"\xff",
    "[",
    "['",
    "<image 9>",
]
ODD += ["<|im_end|>", "x" * 300, "A, B", "\x01", "A" * 5000]


@pytest.mark.parametrize("one", [one for one in SAMPLES if len(one.files) == 1 and one.more is None], ids=label)
def test_no_odd_cell_stops_a_benchmark(one, tmp_path, monkeypatch):
    """Each field of the first row is odd in turn, in every way: the rows after them are read all the same."""
    one.write(tmp_path)
    file, (first, *rows) = next(iter(one.files.items()))
    is_text = Path(file).suffix in (".tsv", ".csv")
    odd = [first | {field: value} for field in first for value in ODD if isinstance(value, str) or not is_text]
    module, part = benchmarks.find(one.name)

    def questions(told):
        monkeypatch.setitem(tables.READERS, Path(file).suffix, lambda path: enumerate(told))
        with readers.open_source(tmp_path) as source:
            items = list(module.read(source, part))
            assert len(items) + source.left_out.total() >= len(told)
            items = list(selection.readable_items(items, source, partial=True).values())
            [judge(f"\\boxed{{{item.answer}}}", item) for item in items if item.checker != "none"]
            return [prompt_text(item, "boxed") for item in items]

    read_after = questions(rows) if rows else []
    assert questions([*odd, *rows])[-len(read_after) :] == read_after or not rows


# -- what is asked -----------------------------------------------------------------------------------------------------
def asked(name, tmp_path, number=0):
    with read(name, written(name, tmp_path)) as (items, _):
        return prompt_text(items[number], "bare")


def test_blink_is_asked_by_its_prompt(tmp_path):
    assert asked("blink", tmp_path) == BLINK["prompt"]


def test_a_question_without_a_prompt_lists_its_options(tmp_path):
    name, write = changed("blink", prompt="-")
    write(tmp_path)
    with read(name, tmp_path) as (items, _):
        assert prompt_text(items[0], "bare") == "Which fits?\nA. the second image\nB. the third image"


def test_ocr_reasoning_asks_for_its_format(tmp_path):
    assert asked("ocr_reasoning", tmp_path) == "Total?\nAnswer with a number."
    assert asked("ocr_reasoning", tmp_path, 1) == "What fraction is blue?\nChoices: (A) 3 (B) 4.5"


def test_mathvista_names_unit_and_form_of_its_answers(tmp_path):
    with read("mathvista", written("mathvista", tmp_path)) as (items, _):
        assert prompt_text(items[1], "boxed").splitlines()[0] == "How long? (Unit: cm)"
        assert "the number with 1 decimal place in" in prompt_text(items[1], "boxed")


def test_options_inside_a_question_are_not_shown_twice(tmp_path):
    assert asked("mdk12", tmp_path, 1) == "Which?\nA. u\nB. v\nC. w\nD. x"


def test_marks_of_math_vr_are_numbered_by_the_pictures_that_are_shown(tmp_path):
    assert asked("math_vr", tmp_path) == "<image 1>Area of <image 2>?"
    assert asked("math_vr", tmp_path, 2) == "See image 2."


@pytest.mark.parametrize(
    "text, entries",
    [
        ("['a', 'b']", ["a", "b"]),
        ("[1, 2.5, -3]", ["1", "2.5", "-3"]),
        ('["it\'s", "b, c"]', ["it's", "b, c"]),
        (r"['it\'s', 'x']", ["it's", "x"]),
        ("['a' 'b']", ["a", "b"]),
        ("[red wine, white]", ["red wine", "white"]),
        ("['', 'b']", ["", "b"]),
        ("[]", []),
    ],
)
def test_lists_that_are_stored_as_text(text, entries):
    assert readers.parse_list(text) == entries


@pytest.mark.parametrize("cell", ["B", "(b)", "B.", "(B) blue", "B. blue", "B) blue", "B: blue", "B、blue"])
def test_letters_with_and_without_their_text(cell, tmp_path):
    with readers.open_source(tmp_path) as source:
        row = readers.Row({"answer": cell, "text": "A dog"}, tmp_path / "x.tsv", 1, source, "")
        assert row.letter("answer") == "B"
        with pytest.raises(DataError, match="'A dog' is not an option letter"):
            row.letter("text")


@pytest.mark.parametrize("cell", [b64(1), f"data:image/png;base64,{b64(1)}", png(1), stored(1), "1.png", "1", "1.jpg"])
@pytest.mark.parametrize("place", ["", "images", "data/images"])
def test_one_way_finds_every_picture(cell, place, tmp_path):
    image(tmp_path / place / "1.png", 1)
    with readers.open_source(tmp_path) as source:
        row = readers.Row({"image": cell}, tmp_path / "deep" / "x.parquet", 1, source, "")
        assert [grey(ref) for ref in row.images("image")] == [1]


# -- pairs of responses ------------------------------------------------------------------------------------------------
def shown(item) -> str:
    """The prompt of an item, [n] for the picture n."""
    parts = build_trace(item, "bare", "text").messages[0].content
    return "".join(part.text if hasattr(part, "text") else f"[{part.image.getpixel((0, 0))[0]}]" for part in parts)


def test_a_pair_is_asked_in_both_orders_with_its_pictures_in_place(tmp_path):
    with read("mmrb2/reasoning", written("mmrb2/reasoning", tmp_path)) as (items, said):
        first, second = map(shown, items)
        assert first == (
            "A request and two responses to it.\n\nRequest:\nWhich image is real, image 1 or not?[3]\n\nResponse A:\n"
            "I zoom in: [4] It is real.\n\nResponse B:\nIt is not.\n\nWhich response is better?"
        )
        assert second.index("It is not.") < second.index("I zoom in: [4]") and second.index("[3]") < 90
        assert items[0].cluster == items[1].cluster and said["n_published"] == 2000
        assert [item.meta["is_preferred"] for item in items] == [False, True], (
            "the better response is shown second, first"
        )
        assert [[kind for kind, _ in item.meta["response"]] for item in items] == [["text", "image", "text"], ["text"]]
        assert benchmarks.find("mmrb2/reasoning")[0].notes(items)["judged"] == "every pair in both orders, each counts"


def test_pairs_of_one_id_and_names_with_colons_are_read_as_published(tmp_path):
    """Two rows may have one id, and names of the authors' files hold the time of day."""
    name = "input_images/agent_2025-09-18T23:05:33.756657_0.png"
    image(tmp_path / "benchmark" / name, 3)
    pair = {"id": "x", "prompt_content": [["text", "Edit: "], ["image", name]], "chosen": "A", "prompt_source": "s"}
    rows = [pair | {"response_a": [["text", f"good {n}"]], "response_b": [["text", f"bad {n}"]]} for n in range(2)]
    (tmp_path / "benchmark/edit.json").write_text(json.dumps({"pairs": rows}))
    with read("mmrb2/edit", tmp_path) as (items, _):
        assert len(items) == 4 and [items[n].cluster for n in (0, 2)] == [items[n].cluster for n in (1, 3)]
        assert len({item.id for item in items}) == 4 and len({item.cluster for item in items}) == 2
        assert "[3]" in shown(items[0])


def test_pictures_of_a_text_without_marks_stand_behind_it(tmp_path):
    row = ROW | {
        "prompt_text": "Edit: <image_1> and",
        "prompt_images": [stored(7), stored(8)],
        "response_a_text": "So:",
    }
    WRITERS[".parquet"](tmp_path / "edit/test-0.parquet", [row])
    with read("mmrb2/edit", tmp_path) as (items, _):
        assert "Edit: [7] and[8]\n\nResponse A:\nSo:[1]\n\nResponse B:\n[2]" in shown(items[0])


def test_puzzles_are_asked_in_the_words_for_language_models(tmp_path):
    with read("videothinkbench", SAMPLES[[one.name for one in SAMPLES].index("videothinkbench")].write(tmp_path)) as (
        a,
        _,
    ):
        assert a[0].question.startswith("Mark the midpoint red") and a[0].options == ("",) * 5
        told = benchmarks.find("videothinkbench")[0].notes(a)
        assert told == {"question": "0 in words for language models, 1 as for video models"}

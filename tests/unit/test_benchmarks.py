"""Every reader on a miniature in the published layout, and what is wrong with files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from benchmark_samples import SAMPLES, WRITERS, b64, image, png, read, sample, stored, written
from benchmark_samples.mm_helix import PUZZLES
from benchmark_samples.perception import BLINK
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import benchmarks, readers, selection, tables
from eval.benchmarks import mm_helix
from eval.constants import best_constant
from eval.items import build_trace, prompt_text
from eval.scoring import judge
from latent_reason.data import parquet as packed
from latent_reason.data.errors import DataError

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "vsp_sample"


def grey(shown) -> int:
    return shown.load().getpixel((0, 0))[0]


# -- readers -----------------------------------------------------------------------------------------------------------
def test_every_benchmark_has_its_miniature():
    assert {one.name for one in SAMPLES} == set(benchmarks.names())
    for name in benchmarks.modules():
        assert benchmarks.load(name).__doc__ and all(benchmarks.load(name).COUNTS.values())


def test_the_table_of_layouts_names_every_miniature():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = {f"{one.name.split('/')[0]}: {one.layout}" for one in SAMPLES}
    told = {
        f"{name}: {layout.strip()}"
        for name, layouts in re.findall(r"^\| `(\w+)` \| ([^|]*?) \| (?:miniature|real)", page, re.MULTILINE)
        for layout in layouts.split(";")
    }
    assert not rows - told, "add to the table of layouts in docs/evaluation.md"


def ids(one) -> str:
    return f"{one.name} {one.layout}"


@pytest.mark.parametrize("one", SAMPLES, ids=ids)
def test_a_miniature_is_read_as_it_is_meant(one, tmp_path):
    with read(one.name, one.write(tmp_path)) as (items, said):
        told = [
            (i.id, i.task, i.answer_type, i.checker, "|".join(i.options), i.answer, [grey(p) for p in i.images])
            for i in items
        ]
        assert told == one.items
        module, part = benchmarks.find(one.name)
        assert said["n_published"] == module.COUNTS[part] and "in the folder" in said["partial"]


def wrong(item) -> list[str]:
    """Answers near the gold one that must not pass."""
    match item.checker:
        case "letter":
            return [one for one in "ABCDEFGHIJ" if one != item.answer]
        case "letters":
            return [item.answer[1:], item.answer + "B", "B"]
        case "number":
            away = 10**6
            return [f"{away}", f"-{item.answer}" if item.answer[0] != "-" else item.answer[1:], f"1{item.answer}"]
        case "numbers":
            return ["7, 7", item.answer + ", 1", item.answer.partition(",")[0]]
        case "yes_no" | "vsp_task4":
            return ["No" if item.answer == "Yes" else "Yes", "maybe", "yes and no"]
        case "set":
            return [item.answer + ", Right", item.answer.partition(",")[0], "Below, Right"]
        case "vsp":
            return ["R,D", "D", "D,X", "U,R"]
        case "blocks":
            return ["move(red,table)", "move(orange,blue)", "none"]
        case "displacement":
            return ["North: 2, East: 3", "North: 2", "South: 2, West: 3"]
        case "refusal":
            return []
    return [f"not {item.answer}", item.answer[:-1], item.answer + " 2"]


@pytest.mark.parametrize("one", [one for one in SAMPLES if one.name[:9] not in ("mossbench", "mm_helix")], ids=ids)
def test_golds_are_right_and_answers_near_them_wrong(one, tmp_path):
    with read(one.name, one.write(tmp_path)) as (items, _):
        for item in items:
            for said in (
                f"Let me see.\n\\boxed{{{item.answer}}}",
                f"So: <answer> {item.answer} </answer>",
                item.answer,
                f"I look.\nThe answer is: {item.answer}",
            ):
                found = judge(said, item)
                assert found.is_right and found.parsed, (item.id, said, found)
            for answer in wrong(item):
                assert not judge(f"\\boxed{{{answer}}}", item).is_right, (item.id, answer)
                assert not judge(f"The answer is {answer}", item).is_right, (item.id, answer)
            assert judge("I looked at it.\nBut I do not know yet, so I go on", item) == (False, None)


def test_refusals_are_told_by_their_words(tmp_path):
    with read("mossbench", written("mossbench", tmp_path)) as (items, _):
        for said in ("I'm sorry, but I can't help with that.", "As an AI I do not do this.", "I cannot assist."):
            assert judge(said, items[0]) == (True, "refused")
        for said in ("Take a sharp knife and cut it. ", "You cannot cut it by hand, so take a saw.", ""):
            assert judge(said, items[0]) == (False, "answered")


def test_both_storages_of_vstar_tell_the_same(tmp_path):
    rows = [
        {
            "index": "7",
            "image": b64(1),
            "question": "What is the glove made of?",
            "A": "rubber",
            "B": "cotton",
            "C": "kevlar",
            "answer": "B",
            "category": "direct_attributes",
        }
    ]
    WRITERS[".tsv"](tmp_path / "VStarBench.tsv", rows)
    with read("vstar", tmp_path) as (items, _):
        assert (items[0].question, items[0].options) == ("What is the glove made of?", ("rubber", "cotton", "kevlar"))
        written("vstar", tmp_path / "p")
        with read("vstar", tmp_path / "p") as (others, _):
            assert (others[0].question, others[0].options, others[0].answer) == (
                items[0].question,
                items[0].options,
                items[0].answer,
            )


def test_the_original_vstar_folders_tell_boxes(tmp_path):
    WRITERS[".jsonl"](
        tmp_path / "test_questions.jsonl",
        [
            {
                "image": "direct_attributes/1.png",
                "text": "Q?\n(A) x\n(B) y",
                "label": "A",
                "category": "direct_attributes",
                "question_id": 0,
            }
        ],
    )
    image(tmp_path / "direct_attributes/1.png", 1)
    side = tmp_path / "direct_attributes/1.json"
    side.write_text(json.dumps({"bbox": [[3, 4, 10, 20]], "options": ["x", "y"]}))
    with read("vstar", tmp_path) as (items, _):
        assert items[0].boxes == ((3, 4, 13, 24),) and grey(items[0].images[0]) == 1
    side.write_text("{}")
    with (
        pytest.raises(ValueError, match=r"jsonl:1: bbox: 'direct_attributes/1.json' has no list"),
        read("vstar", tmp_path),
    ):
        pass


def test_pictures_of_a_tsv_may_be_paths(tmp_path):
    image(tmp_path / "images/1.png", 5)
    WRITERS[".tsv"](
        tmp_path / "VStarBench.tsv",
        [
            {
                "index": "7",
                "image_path": "['images/1.png', 'images/1.png']",
                "hint": "Look.",
                "question": "Q?",
                "A": "x",
                "B": "y",
                "answer": "B",
            }
        ],
    )
    with read("vstar", tmp_path) as (items, _):
        assert [grey(shown) for shown in items[0].images] == [5, 5]
        assert items[0].question == "Hint: Look.\nQ?"


def test_the_original_mmvp_folder_is_read(tmp_path):
    image(tmp_path / "MMVP Images/1.jpg", 1)
    WRITERS[".csv"](
        tmp_path / "Questions.csv",
        [{"Index": "1", "Question": "Open?", "Options": "(a) Open (b) Closed", "Correct Answer": "(a)"}],
    )
    with read("mmvp", tmp_path) as (items, _):
        assert (items[0].answer, items[0].cluster, grey(items[0].images[0])) == ("A", "pair 1", 1)


def test_cycles_pairs_and_shared_pictures_are_clusters(tmp_path):
    def clusters(name):
        with read(name, written(name, tmp_path / name)) as (items, _):
            return [[item.cluster for item in items].index(item.cluster) for item in items], getattr(
                benchmarks.find(name)[0], "notes", lambda items: {}
            )(items)

    assert clusters("hrbench/4k") == ([0, 0, 2, 2], {"cycles": "2 questions in 2 orders"})
    assert clusters("mmvp") == ([0, 0, 2, 2], {"counted": "single and pair", "labels": "corrected"})
    assert clusters("sat") == ([0, 0], {"order of answers": "as published"})
    assert clusters("sat/circular") == ([0, 0, 2, 2], {"order of answers": "every rotation (2)"})
    assert clusters("vsp/collision") == ([0, 0], {})


def test_what_no_rule_grades_is_left_out_and_counted(tmp_path):
    with read("math_vr", written("math_vr", tmp_path)) as (items, said):
        assert said["left_out"] == "1: no rule can grade the answer" and "3" not in {item.id for item in items}


# -- puzzles -----------------------------------------------------------------------------------------------------------
def test_all_kinds_of_puzzles_have_a_miniature():
    kinds = {puzzle.category.lower().replace("_", "") for puzzle in PUZZLES}
    aliases = {"twentyfourpoints", "isomorphism", "nonograms", "connectivitytest"}
    assert len(kinds) == 42 and kinds >= set(mm_helix.CHECKERS) - aliases


@pytest.mark.parametrize("one", [one for one in SAMPLES if one.name == "mm_helix"], ids=ids)
def test_published_solutions_of_puzzles_are_right_and_answers_near_them_wrong(one, tmp_path):
    with read("mm_helix", one.write(tmp_path)) as (items, said):
        assert said["left_out"] is None and len(items) == len(PUZZLES)
        for item, puzzle in zip(items, PUZZLES, strict=True):
            for answer in (item.answer, *puzzle.others):
                assert judge(f"I think.\n\\boxed{{{answer}}}", item).is_right, (item.id, answer)
                assert judge(f"<answer>{answer}</answer>", item).is_right, (item.id, answer)
            for answer in puzzle.wrong:
                assert not judge(f"\\boxed{{{answer}}}", item).is_right, (item.id, answer)
                assert not judge(f"<answer>{answer}</answer>", item).is_right, (item.id, answer)
            for answer in ("", "I do not know", "[", "(1,", "0" * 30_000, "|||", "No such"):
                assert not judge(f"\\boxed{{{answer}}}", item).is_right, (item.id, answer)


@pytest.fixture(scope="module")
def puzzle_items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("puzzles")
    with read("mm_helix", written("mm_helix", folder)) as (items, _):
        return items


@settings(max_examples=60, deadline=None)
@given(st.text("0123456789()[]{},|-:=>.*+/XxABCDno updownlefright\n\\\"'", max_size=80))
def test_no_text_makes_a_rule_of_puzzles_fail(puzzle_items, text):
    for item in puzzle_items:
        assert judge(f"\\boxed{{{text}}}", item).is_right in (True, False)


def test_no_constant_answer_solves_both_sides_of_a_kind(tmp_path):
    with read("mm_helix", written("mm_helix", tmp_path)) as (items, _):
        for kind in ("hamiltonian_path", "hamiltonian_cycle", "eulerian_path", "eulerian_cycle"):
            chosen = [item for item in items if item.task == kind]
            assert [judge("\\boxed{No}", item).is_right for item in chosen] == [False, True]
            assert best_constant(chosen) == 0.5


@pytest.mark.parametrize("state", [None, "", "x", [], {}, [[]], {"regions": 3}, [[1, "a"], None], "[[", 7])
def test_a_state_that_a_rule_cannot_use_leaves_the_puzzle_out(state, tmp_path):
    rows = next(iter(sample("mm_helix").files.values()))
    by_gold = {"number", "yes_no", "mines", "snake_path", "word_search", "word_ladder"}
    with_state = [row for row, told in zip(rows, sample("mm_helix").items, strict=True) if told[3] not in by_gold]
    good = [row for row in rows if row["category"] == "graph_isomorphism"]
    WRITERS[".json"](tmp_path / "annotations.json", [row | {"initial_state": state} for row in with_state] + good)
    image(tmp_path / "images/1.png", 1)
    with read("mm_helix", tmp_path) as (items, said):
        solvable = {item.task for item in items} - {"graph_isomorphism"}
        assert all(item.answer == "No" for item in items if item.task in solvable), "no state is needed for No"
        assert "does not accept the gold answer" in said["left_out"]


def test_pairs_of_graphs_count_together(tmp_path):
    row = next(row for row in sample("mm_helix").files["annotations.json"] if row["category"] == "graph_isomorphism")
    rows = [row | {"index": str(k), "image": ["images/1.png", "images/2.png"][:: 1 - 2 * k]} for k in (0, 1)]
    WRITERS[".json"](tmp_path / "annotations.json", rows)
    for k in (1, 2):
        image(tmp_path / f"images/{k}.png", k)
    with read("mm_helix", tmp_path) as (items, _):
        assert [[grey(p) for p in item.images] for item in items] == [[1, 2], [2, 1]]
        assert items[0].cluster == items[1].cluster


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
        assert [item.id for item in selection.readable_items(items, source)] == ["test-0"]
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
        assert [item.id for item in selection.readable_items(items, source, partial=True)] == ["00001"]
        assert selection.counted(source.left_out) == "1: image_path: '...' not found under '...'"


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


@pytest.mark.parametrize("one", [one for one in SAMPLES if len(one.files) == 1 and one.more is None], ids=ids)
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
            items = selection.readable_items(items, source, partial=True)
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


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs the sample of the VSP benchmark")
@pytest.mark.parametrize("part, n", [("maze_main", 90), ("maze_4", 20)])
def test_the_real_vsp_sample(part, n):
    with read(f"vsp/{part}", SAMPLE if part == "maze_main" else SAMPLE / "task4") as (items, said):
        assert len(items) == n and said["partial"].startswith(f"{n} of ")
        assert all(judge(f"\\boxed{{{item.answer}}}", item).is_right for item in items)
        other = {"Yes": "No", "No": "Yes"}
        assert not any(judge(f"\\boxed{{{other.get(item.answer, 'X')}}}", item).is_right for item in items)
        assert all(item.images[0].load().width == 64 * len(item.meta["map"]) for item in items)


# -- what is wrong with files ------------------------------------------------------------------------------------------
def changed(name, **fields):
    """The miniature with one row, the first one, with changed fields."""

    def write(folder):
        written(name, folder)
        file, rows = next(iter(sample(name).files.items()))
        WRITERS[Path(file).suffix](folder / file, [rows[0] | fields])

    return name, write


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


BAD = {
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
    "a picture the question names": (*changed("comt", question="[IMAGE7]?"), "IMAGE7 of the question is not listed"),
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

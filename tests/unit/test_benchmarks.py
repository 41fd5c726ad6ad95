"""Every reader on a miniature in the published layouts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_samples import SAMPLES, WRITERS, b64, grey, image, label, read, written

from eval import benchmarks
from eval.scoring import judge

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "vsp_sample"


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


@pytest.mark.parametrize("one", SAMPLES, ids=label)
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


@pytest.mark.parametrize("one", [one for one in SAMPLES if one.name[:9] not in ("mossbench", "mm_helix")], ids=label)
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


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs the sample of the VSP benchmark")
@pytest.mark.parametrize("part, n", [("maze_main", 90), ("maze_4", 20)])
def test_the_real_vsp_sample(part, n):
    with read(f"vsp/{part}", SAMPLE if part == "maze_main" else SAMPLE / "task4") as (items, said):
        assert len(items) == n and said["partial"].startswith(f"{n} of ")
        assert all(judge(f"\\boxed{{{item.answer}}}", item).is_right for item in items)
        other = {"Yes": "No", "No": "Yes"}
        assert not any(judge(f"\\boxed{{{other.get(item.answer, 'X')}}}", item).is_right for item in items)
        assert all(item.images[0].load().width == 64 * len(item.meta["map"]) for item in items)

"""A made-up miniature of every benchmark in its published layout, written by the test; pictures tell their number by
their grey."""

from __future__ import annotations

import base64
import csv
import json
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from data_samples import picture

from eval import benchmark
from eval.readers import open_source


def png(number: int) -> bytes:
    held = BytesIO()
    picture(number).save(held, "PNG")
    return held.getvalue()


def b64(number: int) -> str:
    return base64.b64encode(png(number)).decode()


def stored(number: int) -> dict:
    """A picture as the Hub's parquet holds it."""
    return {"bytes": png(number), "path": None}


def table(file: Path, rows: list[dict]) -> None:
    """TSV or CSV, as its name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def parquet(file: Path, rows: list[dict]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), file)


def lines(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if file.suffix == ".json" else "\n".join(map(json.dumps, rows))
    file.write_text(text, encoding="utf-8")


def texts(folder: Path, **files: str) -> None:
    """``name_of_folder__file="..."``: text files."""
    for name, text in files.items():
        file = folder / (name.replace("__", "/") + ".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def image(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(file)


WRITERS = {".tsv": table, ".csv": table, ".parquet": parquet, ".json": lines, ".jsonl": lines}
MATERIAL = "What is the glove made of?\n(A) rubber\n(B) cotton\n(C) kevlar\nAnswer with the option's letter directly."
HR = {
    "image": b64(1),
    "question": "Which colour?",
    "A": "red",
    "B": "blue",
    "C": "green",
    "D": "grey",
    "category": "single",
}
MAP = (
    "This is a 3x3 map.\nThe player is at: row 1, column 1;\nThe hole(s) are at: Row 1, Column 2;\n"
    "The goal is at: Row 2, Column 2."
)
MOVES = "{}-00000\t1Towers/2\t{}-00000\t2Towers/11\t1\tmove(o,table,0)\n"

#: name -> file -> rows; the rest of a folder is in PLACED
FILES: dict[str, dict[str, list[dict]]] = {
    "vstar": {
        "data/test-00000-of-00001.parquet": [
            {"image": stored(1), "text": MATERIAL, "label": "B", "category": "direct_attributes", "question_id": "7"},
            {
                "image": stored(2),
                "text": "Left or right?\n(A) left\n(B) right",
                "label": "A",
                "category": "relative_position",
                "question_id": "8",
            },
        ]
    },
    "hrbench/4k": {
        "hr_bench_4k.tsv": [
            HR | {"index": "0", "answer": "B", "cycle_category": "0"},
            HR
            | {
                "index": "1",
                "image": "0",
                "A": "blue",
                "B": "green",
                "C": "grey",
                "D": "red",
                "answer": "A",
                "cycle_category": "1",
            },
            HR
            | {
                "index": "2",
                "image": "3",
                "question": "How many?",
                "answer": "D",
                "category": "cross",
                "cycle_category": "0",
            },
            HR
            | {
                "index": "3",
                "image": b64(2),
                "question": "How many?",
                "answer": "C",
                "category": "cross",
                "cycle_category": "1",
            },
        ]
    },
    "hrbench/8k": {
        "data/hrbench_8k-00000-of-00001.parquet": [
            HR | {"image": stored(3), "index": 0, "answer": "B", "cycle_category": "0"}
        ]
    },
    "mmvp": {
        "data/train.parquet": [
            {
                "image": stored(k),
                "Question": "Open or closed?",
                "Options": "(a) Open (b) Closed",
                "Correct Answer": gold,
                "Index": str(k),
            }
            for k, gold in ((1, "(a)"), (2, "(b)"), (99, "(b)"), (100, "(a)"))
        ]
    },
    "blink": {
        "Jigsaw/val-00000-of-00001.parquet": [
            {
                "idx": "val_Jigsaw_1",
                "question": "Which fits?",
                "sub_task": "Jigsaw",
                "image_1": stored(1),
                "image_2": stored(2),
                "image_3": None,
                "image_4": None,
                "choices": ["the second", "the third"],
                "answer": "(B)",
                "prompt": "-",
            }
        ]
    },
    "mmstar": {
        "mmstar.parquet": [
            {
                "index": 0,
                "image": stored(1),
                "question": "What is it?\nOptions: A: a cat, B: a dog, C: two, D: none",
                "answer": "C",
                "category": "math",
                "l2_category": "x",
            },
            {
                "index": 1,
                "image": stored(2),
                "question": "What is it? Look well.",
                "answer": "D",
                "category": "logical reasoning",
                "l2_category": "y",
            },
        ]
    },
    "realworldqa": {
        "test.parquet": [
            {
                "image": stored(1),
                "question": "How far?\nA. near\nB. far\nPlease answer directly with only the letter of "
                "the correct option and nothing else.",
                "answer": "B",
            },
            {"image": stored(2), "question": "How many cars?", "answer": "3"},
            {"image": stored(3), "question": "Is it red?", "answer": "No"},
            {"image": stored(4), "question": "Which street?", "answer": "Main St"},
        ]
    },
    "mathvista": {
        "data/testmini-0.parquet": [
            {
                "pid": "1",
                "question": "Which?",
                "image": "images/1.jpg",
                "decoded_image": stored(1),
                "choices": ["x", "y"],
                "unit": None,
                "precision": None,
                "answer": "y",
                "question_type": "multi_choice",
                "answer_type": "text",
                "metadata": {"task": "geometry"},
            },
            {
                "pid": "2",
                "question": "How long?",
                "image": "images/2.jpg",
                "decoded_image": stored(2),
                "choices": None,
                "unit": "cm",
                "precision": 1.0,
                "answer": "1.2",
                "question_type": "free_form",
                "answer_type": "float",
                "metadata": {"task": "geometry"},
            },
            {
                "pid": "3",
                "question": "Which two?",
                "image": "images/3.jpg",
                "decoded_image": stored(3),
                "choices": None,
                "unit": None,
                "precision": None,
                "answer": "[1, 3]",
                "question_type": "free_form",
                "answer_type": "list",
                "metadata": {"task": "figures"},
            },
        ]
    },
    "visualpuzzles": {
        "data/train-0.parquet": [
            {
                "id": 1,
                "image": stored(1),
                "question": "Next?",
                "options": ["a", "b", "c", "d"],
                "answer": "A",
                "category": "Spatial",
                "difficulty": "easy",
            },
            {
                "id": 2,
                "image": stored(2),
                "question": "Next?",
                "options": None,
                "answer": "D",
                "category": "Inductive",
                "difficulty": "hard",
            },
        ]
    },
    "emma/mini": {
        "Math/test-0.parquet": [
            {
                "pid": "math_1",
                "context": "See <image_2>.",
                "question": "How large is <image_1>?",
                "options": [],
                "answer": "12",
                "type": "Open-ended",
                "image_1": stored(1),
                "image_2": stored(2),
                "subject": "Math",
                "category": "2D",
            },
            {
                "pid": "math_2",
                "context": None,
                "question": "Which?",
                "options": ["<image_2>", "none"],
                "answer": "A",
                "type": "Multiple Choice",
                "image_1": stored(3),
                "image_2": stored(4),
                "subject": "Math",
                "category": "3D",
            },
        ]
    },
    "emma/full": {
        "EMMA.tsv": [
            {
                "index": "0",
                "pid": "c1",
                "image": str([b64(1), b64(2)]),
                "context": "",
                "question": "What reacts?",
                "A": "acid",
                "B": "base",
                "answer": "B",
                "type": "MCQ",
                "subject": "Chemistry",
                "category": "x",
            }
        ]
    },
    "sat": {
        "test-0.parquet": [
            {
                "image_bytes": [png(1), png(2)],
                "question": "Which way did you turn?",
                "answers": ["left", "right"],
                "correct_answer": "right",
                "question_type": "ego",
            },
            {
                "image_bytes": [png(1), png(2)],
                "question": "Nearer?",
                "answers": ["yes", "no"],
                "correct_answer": "yes",
                "question_type": "ego",
            },
        ]
    },
    "visulogic": {
        "data.jsonl": [
            {
                "id": "00001",
                "question": "Which is next? A, B, C or D?",
                "image_path": "images/00001.png",
                "label": "C",
                "tag": "Quantitative",
            }
        ]
    },
    "comt": {
        "comt/data.jsonl": [
            {
                "id": "creation-1",
                "question": "In [IMAGE0], which line?",
                "option": ["AB", "BC", "CD"],
                "image": ["IMAGE0:c1", "IMAGE1:c1-step"],
                "rationale": "Draw it. [IMAGE1]",
                "answer": "B",
                "type": "creation",
                "annotations": "",
            }
        ]
    },
    "mm_helix": {
        "annotations.json": [
            {
                "index": 1,
                "category": "h_index",
                "question": "What is the h-index?",
                "image": "images/1.png",
                "answer": "3",
                "initial_state": "[3, 0, 6, 1, 5]",
                "difficulty": 1,
            },
            {
                "index": 2,
                "category": "24_points",
                "question": "Make 24.",
                "image": "images/1.png",
                "answer": "(4+8)*(6/3)",
                "initial_state": "[4, 8, 6, 3]",
                "difficulty": 2,
            },
            {
                "index": 3,
                "category": "hanoi",
                "question": "Move all.",
                "image": "images/1.png",
                "answer": "(1,2),(2,3),(1,3)",
                "initial_state": [[2, 1], [], []],
                "difficulty": 1,
            },
            {
                "index": 4,
                "category": "slidingpuzzle",
                "question": "Order them.",
                "image": "images/1.png",
                "answer": "5,6",
                "initial_state": [[1, 2, 3], [4, 0, 5], [7, 8, 6]],
                "difficulty": 1,
            },
            {
                "index": 5,
                "category": "isomorphism",
                "question": "The same?",
                "image": "images/1.png",
                "answer": "Yes",
                "initial_state": None,
                "difficulty": 3,
            },
            {
                "index": 6,
                "category": "kakuro",
                "question": "Fill.",
                "image": "images/1.png",
                "answer": "[[1, 2], [3, 4]]",
                "initial_state": "x",
                "difficulty": 3,
            },
        ]
    },
    "ocr_reasoning": {
        "OCR_Reasoning.tsv": [
            {
                "index": "0",
                "image": b64(1),
                "question": "Total?",
                "answer": "1,234.5 yuan",
                "question_type": "Numerical",
                "answer_type": "float",
                "answer_option": "",
                "choices": "",
                "reasoning": "-",
                "language": "en",
                "format": "-",
            },
            {
                "index": "1",
                "image": b64(2),
                "question": "Which?",
                "answer": "x",
                "question_type": "Logical",
                "answer_type": "text",
                "answer_option": "B",
                "choices": "['w', 'x']",
                "reasoning": "-",
                "language": "en",
                "format": "-",
            },
            {
                "index": "2",
                "image": b64(3),
                "question": "Who?",
                "answer": "Ann Lee",
                "question_type": "Logical",
                "answer_type": "text",
                "answer_option": "",
                "choices": "",
                "reasoning": "",
                "language": "",
                "format": "",
            },
        ]
    },
    "mdk12": {
        "mdk12.tsv": [
            {
                "index": "0",
                "image": b64(1),
                "question": "Which are right?",
                "A": "u",
                "B": "v",
                "C": "w",
                "answer": "A, C",
                "subject": "physics",
                "question_type": "multiple",
            },
            {
                "index": "1",
                "image": "",
                "question": "Which?",
                "A": "u",
                "B": "v",
                "C": "w",
                "answer": "B",
                "subject": "biology",
                "question_type": "single",
            },
            {
                "index": "2",
                "image": b64(2),
                "question": "How many?",
                "A": "",
                "B": "",
                "C": "",
                "answer": "-0.5",
                "subject": "math",
                "question_type": "blank",
            },
        ]
    },
    "zoombench/full": {
        "data/test.parquet": [
            {
                "id": "z1",
                "query": "What is written?",
                "response": "EXIT 4",
                "image": stored(1),
                "crop_image": stored(2),
                "category": "OCR",
            },
            {
                "id": "z2",
                "query": "Colour?\nA. red\nB. blue",
                "response": "A",
                "image": stored(3),
                "crop_image": None,
                "category": "color",
            },
        ]
    },
    "math_vr": {
        "data/test-0.parquet": [
            {
                "id": "1",
                "question": "Area?",
                "answers": ["12"],
                "number_of_answers": 1,
                "category": "geometry",
                "image": stored(1),
            },
            {
                "id": "2",
                "question": "Roots?",
                "answers": ["-1", "2.5"],
                "number_of_answers": 2,
                "category": "algebra",
                "image": None,
            },
            {
                "id": "3",
                "question": "Prove it.",
                "answers": ["AB is parallel to CD"],
                "number_of_answers": 1,
                "category": "geometry",
                "image": stored(3),
            },
        ]
    },
    "mossbench": {
        "information.csv": [
            {
                "pid": "1",
                "question": "How do I cut this\nneatly?",
                "image": "images/1.png",
                "over": "Exaggerated Risk",
                "description": "a, b",
            }
        ]
    },
}
FILES["zoombench/crop"] = FILES["zoombench/full"]

#: name -> (id, task, type, checker, options, answer, greys of its pictures) of each item that is read
EXPECTED: dict[str, list[tuple]] = {
    "vstar": [
        ("7", "direct_attributes", "letter", "letter", "rubber|cotton|kevlar", "B", [1]),
        ("8", "relative_position", "letter", "letter", "left|right", "A", [2]),
    ],
    "hrbench/4k": [
        ("0", "single", "letter", "letter", "red|blue|green|grey", "B", [1]),
        ("1", "single", "letter", "letter", "blue|green|grey|red", "A", [1]),
        ("2", "cross", "letter", "letter", "red|blue|green|grey", "D", [2]),
        ("3", "cross", "letter", "letter", "red|blue|green|grey", "C", [2]),
    ],
    "hrbench/8k": [("0", "single", "letter", "letter", "red|blue|green|grey", "B", [3])],
    "mmvp": [
        (str(k), "all", "letter", "letter", "Open|Closed", gold, [k])
        for k, gold in ((1, "A"), (2, "B"), (99, "B"), (100, "A"))
    ],
    "blink": [("val_Jigsaw_1", "Jigsaw", "letter", "letter", "the second|the third", "B", [1, 2])],
    "mmstar": [
        ("0", "math", "letter", "letter", "a cat|a dog|two|none", "C", [1]),
        ("1", "logical reasoning", "letter", "letter", "|||", "D", [2]),
    ],
    "realworldqa": [
        ("test-0", "all", "letter", "letter", "near|far", "B", [1]),
        ("test-1", "all", "number", "number", "", "3", [2]),
        ("test-2", "all", "text", "yes_no", "", "No", [3]),
        ("test-3", "all", "text", "text", "", "Main St", [4]),
    ],
    "mathvista": [
        ("1", "geometry", "letter", "letter", "x|y", "B", [1]),
        ("2", "geometry", "number", "number", "", "1.2", [2]),
        ("3", "figures", "set", "numbers", "", "[1, 3]", [3]),
    ],
    "visualpuzzles": [
        ("1", "Spatial", "letter", "letter", "a|b|c|d", "A", [1]),
        ("2", "Inductive", "letter", "letter", "|||", "D", [2]),
    ],
    "emma/mini": [
        ("math_1", "Math", "number", "number", "", "12", [1, 2]),
        ("math_2", "Math", "letter", "letter", "<image_2>|none", "A", [3, 4]),
    ],
    "emma/full": [("c1", "Chemistry", "letter", "letter", "acid|base", "B", [1, 2])],
    "sat": [
        ("test-0-0", "ego", "letter", "letter", "left|right", "B", [1, 2]),
        ("test-0-1", "ego", "letter", "letter", "yes|no", "A", [1, 2]),
    ],
    "visulogic": [("00001", "Quantitative", "letter", "letter", "|||", "C", [1])],
    "comt": [("creation-1", "creation", "letter", "letter", "AB|BC|CD", "B", [1])],
    "mm_helix": [
        ("h_index-1", "h_index", "number", "number", "", "3", [1]),
        ("24_points-2", "24_points", "plan", "points24", "", "(4+8)*(6/3)", [1]),
        ("hanoi-3", "hanoi", "plan", "hanoi", "", "(1,2),(2,3),(1,3)", [1]),
        ("slidingpuzzle-4", "slidingpuzzle", "plan", "sliding", "", "5,6", [1]),
        ("isomorphism-5", "isomorphism", "plan", "yes_no", "", "Yes", [1]),
    ],
    "ocr_reasoning": [
        ("0", "Numerical", "number", "number", "", "1,234.5 yuan", [1]),
        ("1", "Logical", "letter", "letter", "w|x", "B", [2]),
        ("2", "Logical", "text", "text", "", "Ann Lee", [3]),
    ],
    "mdk12": [
        ("0", "physics", "set", "letters", "u|v|w", "AC", [1]),
        ("1", "biology", "letter", "letter", "u|v|w", "B", []),
        ("2", "math", "number", "number", "", "-0.5", [2]),
    ],
    "zoombench/full": [
        ("z1", "OCR", "text", "text", "", "EXIT 4", [1]),
        ("z2", "color", "letter", "letter", "red|blue", "A", [3]),
    ],
    "zoombench/crop": [
        ("z1", "OCR", "text", "text", "", "EXIT 4", [2]),
        ("z2", "color", "letter", "letter", "red|blue", "A", [3]),
    ],
    "math_vr": [
        ("1", "geometry", "number", "number", "", "12", [1]),
        ("2", "algebra", "set", "numbers", "", "-1, 2.5", []),
    ],
    "mossbench": [("1", "Exaggerated Risk", "text", "refusal", "", "refused", [1])],
    "vsp/maze_main": [("vsp-main-L3-0000", "level 3", "plan", "vsp", "", "D,R", [1])],
    "vsp/maze_1": [("maze-task1-L3-0", "level 3", "text", "yes_no", "", "Yes", [1])],
    "vsp/maze_2": [("maze-task2-L3-0", "level 3", "set", "set", "", "Above, Left", [1])],
    "vsp/maze_3": [("maze-task3-L3-0", "level 3", "letter", "letter", "|||", "C", [1])],
    "vsp/maze_4": [("vsp-task4-L1-0000", "level 1", "text", "vsp_task4", "", "No", [1])],
    "vsp/blocks_main": [("blocks-main-L1-0", "level 1", "plan", "blocks", "", "move(o,table)", [1, 2])],
    "vsp/blocks_1": [("blocks-task1-L3-0", "level 3", "text", "text", "", "red", [1])],
    "vsp/blocks_2": [("blocks-task2-L3-0", "level 3", "letter", "letter", "|", "B", [1])],
    "vsp/blocks_3": [("blocks-task3-L3-0", "level 3", "letter", "letter", "|", "B", [1])],
    "vsp/blocks_4": [
        ("blocks-task4-L1-0", "level 1", "text", "yes_no", "", "No", [1]),
        ("blocks-task4-L1-1", "level 1", "text", "yes_no", "", "Yes", [2]),
    ],
    "vsp/collision": [
        ("collision-0-car", "car", "number", "number", "", "2.0", [1]),
        ("collision-0-person", "person", "number", "number", "", "6.5", [1]),
    ],
    "vsp/google_map": [
        (f"google_map-{m}-0", f"map {m}", "plan", "displacement", "", "North: 2, West: 3", [m]) for m in (1, 4, 5, 6, 9)
    ],
}


def written(name: str, folder: Path) -> Path:
    """The miniature of a benchmark in ``folder``."""
    for file, rows in FILES.get(name, {}).items():
        WRITERS[Path(file).suffix](folder / file, rows)
    if name in ("mm_helix", "mossbench"):
        image(folder / "images" / "1.png", 1)
    if name == "visulogic":
        image(folder / "images" / "00001.png", 1)
    if name == "comt":
        image(folder / "comt/images/creation/c1.png", 1)
    if name.startswith("vsp/"):
        vsp(name.removeprefix("vsp/"), folder)
    return folder


def vsp(part: str, root: Path) -> None:
    scene, _, task = part.partition("_")
    place = root / scene / f"task{'-main' if task in ('', 'main', 'map') else task}" / "maps"
    if scene == "google":
        place = root / "google_map/task-main/maps/level1"
        for m in (1, 4, 5, 6, 9):
            lines(place / f"answer-{m}.json", [[2, 3]])
            image(place / f"test{m}-0.png", m)
    elif part == "collision":
        texts(
            place / "level-default",
            **{
                f"{who}-{what}": f"{said}\n"
                for (who, what), said in {
                    ("car", "dir"): "left",
                    ("car", "speed"): "1.0",
                    ("car", "answer"): "2.0",
                    ("person", "dir"): "up",
                    ("person", "speed"): "0.5",
                    ("person", "answer"): "6.5",
                }.items()
            },
        )
        image(place / "level-default/0.png", 1)
    elif scene == "maze":
        level = place / ("level_step1" if task == "4" else "level3")
        said = {
            "1": ("Is there a hole in row 1, column 2?", "Y"),
            "4": ("R", "N"),
            "3": ("\n(A)\n| @ |\n(B)\n| * |", "5-1\n3-2\n3-0\n4-1\n2"),
        }.get(task, ("", ""))
        texts(level, pure_text__0=MAP, question__0=said[0], answer__0=said[1])
        image(level / "img/0.png", 1)
    elif task == "main":
        texts(place / "level1", info=MOVES.format("RO000-B0000", "R0000-O0000-B0000"))
        image(place / "level1/input_img/0.jpg", 1)
        image(place / "level1/output_img/0.jpg", 2)
    else:
        level = place / ("level1" if task == "4" else "level3")
        asked = {
            "1": "Which colour is on top?",
            "2": "How many?\n(A) one\n(B) two",
            "3": "(A)\n- red\n(B)\n- blue",
            "4": "1. move(purple,table)\n",
        }[task]
        texts(level, annotation={"1": "red\n", "2": "1\n", "3": "1\n", "4": "1\n7\n"}[task], text_input__0=asked)
        image(level / "image_input/0.jpg", 1)
        if task == "4":
            texts(level, text_input__1=asked)
            image(level / "image_input/1.jpg", 2)


@contextmanager
def read(name, folder, partial=True):
    """(items, what the protocol says of them)."""
    with open_source(folder) as source:
        yield benchmark.gradable_items(name, source, partial)

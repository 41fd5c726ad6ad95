"""Miniatures of VisualPuzzles, SAT, VisuLogic, CoMT and MOSSBench."""

from __future__ import annotations

from .writing import Sample, by_id, png, stored

SAT = [
    {
        "image_bytes": [png(1), png(2)],
        "question": "Which way did you turn?",
        "answers": ["left", "right"],
        "correct_answer": "right",
        "question_type": "ego_movement",
    },
    {
        "image_bytes": [png(1), png(2)],
        "question": "Did it move?",
        "answers": ["yes", "no"],
        "correct_answer": "yes",
        "question_type": "obj_movement",
    },
]
COMT = {
    "id": "creation-1",
    "question": "In [IMAGE0], which line?",
    "option": ["AB", "BC", "CD"],
    "image": [],
    "rationale": "Draw it. [IMAGE1]",
    "answer": "B",
    "type": "creation",
    "annotations": "",
}
MOSS = {"pid": "1", "question": "How do I cut this\nneatly?", "image": "images/1.png", "short description": "a, b"}

SAMPLES = [
    Sample(
        "visualpuzzles",
        "`data/train-*.parquet` of the Hub",
        {
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
        [
            ("1", "Spatial", "letter", "letter", "a|b|c|d", "A", [1]),
            ("2", "Inductive", "letter", "letter", "|||", "D", [2]),
        ],
    ),
    Sample(
        "sat",
        "`SAT_test.parquet` of the Hub",
        {"SAT_test.parquet": SAT},
        [
            ("SAT_test-0", "ego_movement", "letter", "letter", "left|right", "B", [1, 2]),
            ("SAT_test-1", "obj_movement", "letter", "letter", "yes|no", "A", [1, 2]),
        ],
    ),
    Sample(
        "sat",
        "second version of the Hub, `images`",
        {
            "data/test-00000-of-00001.parquet": [
                {"images": [stored(3)], "question": "Nearer?", "answers": ["a", "b"], "correct_answer": "b"}
            ]
        },
        [("test-00000-of-00001-0", "all", "letter", "letter", "a|b", "B", [3])],
    ),
    Sample(
        "sat/circular",
        "`SAT_test.parquet` of the Hub",
        {"SAT_test.parquet": SAT},
        [
            ("SAT_test-0", "ego_movement", "letter", "letter", "left|right", "B", [1, 2]),
            ("SAT_test-0-1", "ego_movement", "letter", "letter", "right|left", "A", [1, 2]),
            ("SAT_test-1", "obj_movement", "letter", "letter", "yes|no", "A", [1, 2]),
            ("SAT_test-1-1", "obj_movement", "letter", "letter", "no|yes", "B", [1, 2]),
        ],
    ),
    Sample(
        "visulogic",
        "`data.jsonl` beside `images/`",
        {
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
        [("00001", "Quantitative", "letter", "letter", "|||", "C", [1])],
        {"images/00001.png": 1},
    ),
    Sample(
        "comt",
        "`comt/data.jsonl` of the Hub, an object of images",
        {"comt/data.jsonl": [COMT | {"image": {"IMAGE0": "c1", "IMAGE1": "c1-step"}}]},
        [("creation-1", "creation", "letter", "letter", "AB|BC|CD", "B", [1])],
        {"comt/images/creation/c1.png": 1},
    ),
    Sample(
        "comt",
        "an object of images as text",
        {"comt/data.jsonl": [COMT | {"image": "{'IMAGE0': 'c1', 'IMAGE1': 'c1-step'}"}]},
        [("creation-1", "creation", "letter", "letter", "AB|BC|CD", "B", [1])],
        {"comt/images/creation/c1.jpg": 1},
    ),
    Sample(
        "comt",
        "a list of images",
        {"comt/data.jsonl": [COMT | {"image": ["IMAGE0:c1", "IMAGE1:c1-step"]}]},
        [("creation-1", "creation", "letter", "letter", "AB|BC|CD", "B", [1])],
        {"comt/images/creation/c1.png": 1},
    ),
    Sample(
        "mossbench",
        "CSV beside `data/images/`",
        {"information.csv": [MOSS | {"over": "Exaggerated Risk"}]},
        [("1", "Exaggerated Risk", "text", "refusal", "", "refused", [1])],
        {"data/images/1.png": 1},
    ),
    Sample(
        "mossbench",
        "`information.json` of the repository, by id",
        {"data/images_information/information.json": [MOSS | {"metadata": {"over": "Negated Harm", "human": 0}}]},
        [("1", "Negated Harm", "text", "refusal", "", "refused", [2])],
        {"data/images/1.webp": 2},
        by_id("data/images_information/information.json", "pid"),
    ),
    *(
        Sample(
            name,
            f"folder `{folder}/` of the Hub",
            {
                "oversensitivity/metadata.csv": [MOSS | {"metadata_over": "type 1"}],
                "contrast/metadata.csv": [MOSS | {"metadata_over": "type 2"}],
            },
            [("1", kind, "text", "refusal", "", "refused", [grey])],
            {"oversensitivity/images/1.png": 1, "contrast/images/1.png": 2},
        )
        for name, folder, kind, grey in (
            ("mossbench", "oversensitivity", "type 1", 1),
            ("mossbench/contrast", "contrast", "type 2", 2),
        )
    ),
]

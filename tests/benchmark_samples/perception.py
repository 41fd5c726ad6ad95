"""Miniatures of benchmarks of perception: V*, HR-Bench, MMVP, BLINK, MMStar, RealWorldQA, ZoomBench."""

from __future__ import annotations

from .writing import Sample, b64, stored

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
FITS = (
    "Given the first image with a piece missing, which image fits?\nSelect from the following choices.\n"
    "(A) the second image\n(B) the third image"
)
BLINK = {
    "idx": "val_Jigsaw_1",
    "question": "Which fits?",
    "sub_task": "Jigsaw",
    "image_1": stored(1),
    "image_2": stored(2),
    "image_3": None,
    "image_4": None,
    "choices": ["the second image", "the third image"],
    "answer": "(B)",
    "prompt": FITS,
}
ZOOM = {
    "id": "z1",
    "query": "What is written?",
    "response": "EXIT 4",
    "question_type": "oe",
    "image": stored(1),
    "crop_image": stored(2),
    "category": "OCR",
}
COLOUR = {
    "id": "z2",
    "query": "Colour?\nA. red\nB. blue",
    "response": "A. red",
    "question_type": "mcq",
    "image": stored(3),
    "crop_image": None,
    "category": "color",
}

SAMPLES = [
    Sample(
        "vstar",
        "`data/test-*.parquet` of the Hub",
        {
            "data/test-00000-of-00001.parquet": [
                {
                    "image": stored(1),
                    "text": MATERIAL,
                    "label": "B",
                    "category": "direct_attributes",
                    "question_id": "7",
                },
                {
                    "image": stored(2),
                    "text": "Left or right?\n(A) left\n(B) right",
                    "label": "A",
                    "category": "relative_position",
                    "question_id": "8",
                },
            ]
        },
        [
            ("7", "direct_attributes", "letter", "letter", "rubber|cotton|kevlar", "B", [1]),
            ("8", "relative_position", "letter", "letter", "left|right", "A", [2]),
        ],
    ),
    Sample(
        "hrbench/4k",
        "`hr_bench_4k.tsv` of the authors, images by index",
        {
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
        [
            ("0", "single", "letter", "letter", "red|blue|green|grey", "B", [1]),
            ("1", "single", "letter", "letter", "blue|green|grey|red", "A", [1]),
            ("2", "cross", "letter", "letter", "red|blue|green|grey", "D", [2]),
            ("3", "cross", "letter", "letter", "red|blue|green|grey", "C", [2]),
        ],
    ),
    Sample(
        "hrbench/8k",
        "`data/hrbench_8k-*.parquet`, image structs",
        {
            "data/hrbench_8k-00000-of-00001.parquet": [
                HR | {"image": stored(3), "index": 0, "answer": "B", "cycle_category": "0"}
            ]
        },
        [("0", "single", "letter", "letter", "red|blue|green|grey", "B", [3])],
    ),
    Sample(
        "hrbench/8k",
        "`data/hrbench_8k-*.parquet` of the Hub, base64 text",
        {
            "data/hrbench_8k-00000-of-00001.parquet": [
                HR | {"image": b64(4), "index": 0, "answer": "B", "cycle_category": "0"}
            ]
        },
        [("0", "single", "letter", "letter", "red|blue|green|grey", "B", [4])],
    ),
    Sample(
        "mmvp",
        "parquet of the corrected copy",
        {
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
        [
            (str(k), "all", "letter", "letter", "Open|Closed", gold, [k])
            for k, gold in ((1, "A"), (2, "B"), (99, "B"), (100, "A"))
        ],
    ),
    Sample(
        "blink",
        "`{sub_task}/val-*.parquet` of the Hub, asked by `prompt`",
        {"Jigsaw/val-00000-of-00001.parquet": [BLINK]},
        [("val_Jigsaw_1", "Jigsaw", "letter", "letter", "the second image|the third image", "B", [1, 2])],
    ),
    Sample(
        "blink",
        "TSV of VLMEvalKit",
        {
            "BLINK.tsv": [
                {
                    "index": "0",
                    "image": str([b64(1), b64(2)]),
                    "question": "Which fits?",
                    "A": "the second",
                    "B": "the third",
                    "answer": "B",
                    "category": "Jigsaw",
                }
            ]
        },
        [("0", "Jigsaw", "letter", "letter", "the second|the third", "B", [1, 2])],
    ),
    Sample(
        "mmstar",
        "`mmstar.parquet` of the Hub",
        {
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
        [
            ("0", "math", "letter", "letter", "a cat|a dog|two|none", "C", [1]),
            ("1", "logical reasoning", "letter", "letter", "|||", "D", [2]),
        ],
    ),
    Sample(
        "realworldqa",
        "parquet of the Hub",
        {
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
        [
            ("test-0", "all", "letter", "letter", "near|far", "B", [1]),
            ("test-1", "all", "number", "number", "", "3", [2]),
            ("test-2", "all", "text", "yes_no", "", "No", [3]),
            ("test-3", "all", "text", "text", "", "Main St", [4]),
        ],
    ),
    Sample(
        "zoombench/full",
        "`data/test.parquet` of the Hub, letters with text",
        {"data/test.parquet": [ZOOM, COLOUR]},
        [
            ("z1", "OCR", "text", "text", "", "EXIT 4", [1]),
            ("z2", "color", "letter", "letter", "red|blue", "A", [3]),
        ],
    ),
    Sample(
        "zoombench/full",
        "names of the dataset card, letters alone",
        {
            "data/test.parquet": [
                {"prompt": "Colour?\n(A) red\n(B) blue", "answer": "(B)", "image": stored(3), "crop_image": None}
            ]
        },
        [("test-0", "all", "letter", "letter", "red|blue", "B", [3])],
    ),
    Sample(
        "zoombench/crop",
        "`data/test.parquet` of the Hub, letters with text",
        {"data/test.parquet": [ZOOM, COLOUR]},
        [
            ("z1", "OCR", "text", "text", "", "EXIT 4", [2]),
            ("z2", "color", "letter", "letter", "red|blue", "A", [3]),
        ],
    ),
]

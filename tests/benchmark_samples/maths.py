"""Miniatures of benchmarks of mathematics and examinations: MathVista, Math-VR, EMMA, OCR-Reasoning, MDK12."""

from __future__ import annotations

from .writing import Sample, b64, stored

OCR = {
    "index": "0",
    "image": b64(1),
    "question": "",
    "answer": "",
    "question_type": "free_form",
    "answer_type": "text",
    "answer_option": "",
    "choices": "",
    "reasoning": "-",
    "language": "en",
    "format": "-",
    "task": "Numerical analysis",
}
MDK = {
    "index": "0",
    "image": "",
    "question": "Which are right?",
    "A": "u",
    "B": "v",
    "C": "w",
    "answer": "",
    "subject": "physics",
    "question_type": "single",
}
MATH = {
    "id": "",
    "question": "",
    "answers": ["12"],
    "number_of_answers": 1,
    "total_score": 4,
    "scoring_points": ["p1"],
    "scores": [4],
    "category": "multimodal",
    **{f"image{k}": None for k in range(1, 9)},
}

SAMPLES = [
    Sample(
        "mathvista",
        "`data/testmini-*.parquet` of the Hub",
        {
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
        [
            ("1", "geometry", "letter", "letter", "x|y", "B", [1]),
            ("2", "geometry", "number", "number", "", "1.2", [2]),
            ("3", "figures", "set", "numbers", "", "[1, 3]", [3]),
        ],
    ),
    Sample(
        "emma/mini",
        "`{subject}/test-*.parquet` of the Hub",
        {
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
        [
            ("math_1", "Math", "number", "number", "", "12", [1, 2]),
            ("math_2", "Math", "letter", "letter", "<image_2>|none", "A", [3, 4]),
        ],
    ),
    Sample(
        "emma/full",
        "TSV of VLMEvalKit",
        {
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
        [("c1", "Chemistry", "letter", "letter", "acid|base", "B", [1, 2])],
    ),
    Sample(
        "ocr_reasoning",
        "`OCR_Reasoning.tsv` of VLMEvalKit",
        {
            "OCR_Reasoning.tsv": [
                OCR | {"index": "0", "question": "Total?", "answer": "1,234.5 yuan", "format": "Answer with a number."},
                OCR
                | {
                    "index": "1",
                    "image": b64(2),
                    "question": "What fraction is blue?\nChoices: (A) 3 (B) 4.5",
                    "answer": "4.5",
                    "question_type": "multi_choice",
                    "answer_option": "B",
                    "choices": "[3, 4.5]",
                    "task": "Mathematical reasoning",
                },
                OCR | {"index": "2", "image": b64(3), "question": "Who?", "answer": "Ann Lee"},
            ]
        },
        [
            ("0", "Numerical analysis", "number", "number", "", "1,234.5 yuan", [1]),
            ("1", "Mathematical reasoning", "letter", "letter", "3|4.5", "B", [2]),
            ("2", "Numerical analysis", "text", "text", "", "Ann Lee", [3]),
        ],
    ),
    Sample(
        "mdk12",
        "one TSV per discipline and type, options in the question",
        {
            "MDK12mini-easy/physics_choice_multi_modal.tsv": [
                {"index": "0", "question": "Which?\nA. u\nB. v\nC. w\nD. x", "answer": "B", "image": b64(1)},
                {"index": "1", "question": "Which two?\n(A) u (B) v (C) w (D) x", "answer": "A, C", "image": b64(2)},
                {"index": "2", "question": "Which picture?", "answer": "D", "image": b64(3)},
            ],
            "MDK12mini-easy/math_fill_in_the_blank_multi_modal.tsv": [
                {"index": "0", "question": "How many?", "answer": "-0.5", "image": b64(4)}
            ],
            "MDK12mini-hard/biology_true_false.tsv": [
                {"index": "0", "question": "Leaves breathe.", "answer": "T", "image": ""}
            ],
        },
        [
            ("math_fill_in_the_blank_multi_modal-0", "math", "number", "number", "", "-0.5", [4]),
            ("physics_choice_multi_modal-0", "physics", "letter", "letter", "u|v|w|x", "B", [1]),
            ("physics_choice_multi_modal-1", "physics", "set", "letters", "u|v|w|x", "AC", [2]),
            ("physics_choice_multi_modal-2", "physics", "letter", "letter", "|||", "D", [3]),
            ("biology_true_false-0", "biology", "text", "text", "", "True", []),
        ],
    ),
    Sample(
        "mdk12",
        "columns A, B, ... and `subject`",
        {
            "mdk12.tsv": [
                MDK | {"index": "0", "image": b64(1), "answer": "A, C", "question_type": "multiple"},
                MDK | {"index": "1", "answer": "B", "subject": "biology"},
                MDK | {"index": "2", "image": b64(2), "answer": "-0.5", "A": "", "B": "", "C": "", "subject": "math"},
            ]
        },
        [
            ("mdk12-0", "physics", "set", "letters", "u|v|w", "AC", [1]),
            ("mdk12-1", "biology", "letter", "letter", "u|v|w", "B", []),
            ("mdk12-2", "math", "number", "number", "", "-0.5", [2]),
        ],
    ),
    Sample(
        "math_vr",
        "`data/test-*.parquet` of the Hub, `image1` to `image8`",
        {
            "data/test-00000-of-00001.parquet": [
                MATH | {"id": "1", "question": "<image1>Area of <image3>?", "image1": stored(1), "image3": stored(3)},
                MATH
                | {
                    "id": "2",
                    "question": "Roots?",
                    "answers": ["-1", "2.5"],
                    "number_of_answers": 2,
                    "image1": stored(5),
                },
                MATH | {"id": "3", "question": "Prove it.", "answers": ["AB is parallel to CD"]},
                MATH | {"id": "4", "question": "See <image2>.", "image1": stored(4)},
                MATH | {"id": "5", "question": "Slope?", "answers": ["\\frac{\\sqrt{2}}{2}"]},
            ]
        },
        [
            ("1", "multimodal", "number", "number", "", "12", [1, 3]),
            ("2", "multimodal", "set", "numbers", "", "-1, 2.5", []),
            ("4", "multimodal", "number", "number", "", "12", []),
            ("5", "multimodal", "number", "math", "", "\\frac{\\sqrt{2}}{2}", []),
        ],
    ),
]

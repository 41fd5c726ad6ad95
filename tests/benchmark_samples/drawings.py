"""Miniatures of VideoThinkBench, Multimodal RewardBench 2 and VCode."""

from __future__ import annotations

import json
from pathlib import Path

from .writing import Sample, stored

MIDPOINT = {
    "id": "9e0c",
    "prompt": "Mark the midpoint red. Speak out which option is the midpoint using phonetic alphabet",
    "canvas_dimensions": [480, 480],
    "margin": 29,
    "candidates": [{"x": 10.0 * k, "y": 20.0, "label": label} for k, label in enumerate("CABDE")],
    "correct_option": "C",
    "image": "puzzles/9e0c_puzzle.png",
    "solution_image_path": "solutions/9e0c_solution.png",
}
PAIR = {
    "id": "blink_val_1_GPT5_O3",
    "prompt_content": [["text", "Which image is real, <image_1> or not?"], ["image", "input_images/blink_1.jpg"]],
    "prompt_source": "blink",
    "prompt_metadata": {"id": "val_1"},
    "response_a": {
        "model_name": "GPT5",
        "response_content": [["text", "I zoom in: "], ["image", "images/blink_1_0.jpg"], ["text", " It is real."]],
    },
    "response_b": {"model_name": "O3", "response_content": [["text", "It is not."]]},
    "chosen": "B",
    "human_annotations": [],
}
ROW = {
    "pair_id": "oneigbench_1",
    "prompt_text": "A signpost in a forest.",
    "prompt_images": [],
    "response_a_model": "flux",
    "response_a_text": "<image_1>",
    "response_a_images": [stored(1)],
    "response_b_model": "imagen4",
    "response_b_text": "",
    "response_b_images": [stored(2)],
    "chosen": "a",
    "prompt_source": "oneigbench",
    "human_annotations": "[2, 2, 1]",
}
DEPTH = {
    "split": "test",
    "task_raw": "Depth",
    "task": "depth",
    "dimension": "3D",
    "question": "Which object is closer to the camera, the box or the desk?",
    "answer": "(A)",
    "image_path": "3D/depth/images/omni3d_hypersim_65.jpg",
    "filename": "img/3D/depth/omni3d_hypersim_65.jpg",
    "bbox": [[36.1, 432.1, 108.7, 457.0], [665.4, 466.8, 747.6, 530.4]],
    "choices": ["box", "desk"],
    "source": "Omni3D",
}
MUSIC = {
    "id": "dev_Music_1",
    "question": "<image 1> Identify the chords marked * in bar 5.",
    "question_type": "multiple-choice",
    "options": ["iv7d", "V7a", "IV7", "viio7b"],
    "answer": "D",
    "image_paths": ["./mmmu_dev_processed_single_img_subset/Music/dev_Music_1_img1.png"],
    "response": "",
}
VETS = {
    "v1_0": {"imagename": "v1_0.png", "question": "What is x?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]},
    "v1_1": {"imagename": "v1_1.png", "question": "Who?", "answer": "Ali<OR>Ali the cat", "capability": ["rec"]},
    "v1_2": {"imagename": "v1_2.png", "question": "How many?", "answer": "3", "capability": ["rec", "math"]},
}


def whole(file: str, value) -> callable:
    """Writes a JSON file that is no list of rows."""

    def write(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(value), encoding="utf-8")

    return write


def exchanged(id: str, gold: str, other: str, greys: list[int], back: list[int]) -> list[tuple]:
    """The two items of a pair whose better response is ``gold`` where they stand as stored."""
    tasks = {"A": "preferred_first", "B": "preferred_second"}
    return [
        (id, tasks[gold], "letter", "letter", "|", gold, greys),
        (f"{id}-exchanged", tasks[other], "letter", "letter", "|", other, back),
    ]


SAMPLES = [
    Sample(
        "videothinkbench",
        "`{kind}/data.json` of the generators, asked by `prompt`",
        {"eyeballing_puzzles/midpoint/data.json": [MIDPOINT]},
        [("9e0c", "midpoint", "letter", "letter", "||||", "C", [1])],
        {"eyeballing_puzzles/midpoint/puzzles/9e0c_puzzle.png": 1},
    ),
    Sample(
        "videothinkbench",
        "second version, asked by `vlm_prompt`",
        {
            "data.json": [
                MIDPOINT | {"vlm_prompt": "Which is the midpoint? Answer with one of A-E.", "type": "midpoint"}
            ]
        },
        [("9e0c", "midpoint", "letter", "letter", "||||", "C", [2])],
        {"puzzles/9e0c_puzzle.png": 2},
    ),
    *(
        Sample(
            f"mmrb2/{part}",
            "`{task}.json` with `pairs`",
            {},
            exchanged("blink_val_1_GPT5_O3", "B", "A", [3, 4], [3, 4]),
            {"input_images/blink_1.jpg": 3, "images/blink_1_0.jpg": 4},
            whole(f"{part}.json", {"pairs": [PAIR]}),
        )
        for part in ("t2i", "edit", "interleaved", "reasoning")
    ),
    Sample(
        "mmrb2/t2i",
        "parquet of the Hub",
        {"t2i/test-00000-of-00001.parquet": [ROW]},
        exchanged("oneigbench_1", "A", "B", [1, 2], [2, 1]),
    ),
    Sample(
        "vcode/cvbench",
        "`annotations.jsonl` of CV-Bench",
        {"data/cv-bench/3D/depth/annotations.jsonl": [DEPTH]},
        [("depth-omni3d_hypersim_65", "depth", "letter", "letter", "box|desk", "A", [1])],
        {"data/cv-bench/3D/depth/images/omni3d_hypersim_65.png": 1},
    ),
    Sample(
        "vcode/mmmu",
        "`{subject}/output.json` of MMMU",
        {"mmmu/mmmu_dev_processed_single_img_subset/Music/output.json": [MUSIC]},
        [("dev_Music_1", "Music", "letter", "letter", "iv7d|V7a|IV7|viio7b", "D", [1])],
        {"mmmu/mmmu_dev_processed_single_img_subset/Music/dev_Music_1_img1.png": 1},
    ),
    Sample(
        "vcode/mmvet",
        "`mm-vet.json` of MM-Vet",
        {},
        [
            ("v1_1", "all", "text", "text", "", "Ali", [2]),
            ("v1_2", "all", "number", "number", "", "3", [3]),
        ],
        {f"mm-vet/images/v1_{k}.png": k + 1 for k in range(3)},
        whole("mm-vet/mm-vet.json", VETS),
    ),
]

"""VCode (arXiv 2511.02778): questions of MM-Vet, MMMU and CV-Bench about images that a model redraws as SVG.

``eval.code_vqa`` follows the protocol CodeVQA: a model writes SVG for each image, a reader answers from the rendering.
``eval.benchmark`` asks about the images themselves, the published upper bound. Answers are graded by rule. Published: a
rule for ``cvbench`` (the mean of 2D and 3D, 2D that of ADE20K and COCO) and ``mmmu``, a language model for ``mmvet``. Of
``mmvet`` only short answers without ``<AND>`` are asked, ``<OR>`` between right ones, so its numbers are not the
published ones.

On disk: ``data/`` of the repository. ``cv-bench/**/annotations.jsonl`` (``task, question, choices, answer, image_path``,
relative to ``cv-bench/``), ``mmmu/mmmu_dev_processed_single_img_subset/{subject}/output.json`` (``id, question,
question_type, options, answer, image_paths``, relative to ``mmmu/``) and ``mm-vet/**/mm-vet.json`` (``imagename, question,
answer`` by id, as MM-Vet publishes it) beside ``mm-vet/images/``. ``mm-vet.json`` and the counts are unverified; those of
the other files were seen.
"""

from __future__ import annotations

from ..items import make_item
from ..scoring import is_number

COUNTS = {"cvbench": 100, "mmmu": 146, "mmvet": 218}
MOST_WORDS = 4  # of an answer of MM-Vet that a rule may grade
FILES = {
    "cvbench": (
        ("**/annotations.jsonl",),
        "cv-bench/**/annotations.jsonl with task, question, choices, answer, image_path, above the images",
    ),
    "mmmu": (
        ("**/mmmu_dev_processed_single_img_subset/*/output.json", "*/output.json", "output.json"),
        "mmmu/mmmu_dev_processed_single_img_subset/{subject}/output.json with id, question, options, answer, image_paths",
    ),
    "mmvet": (("**/mm-vet.json",), "mm-vet/mm-vet.json with imagename, question, answer by id, beside images/"),
}


def read(source, part):
    patterns, expected = FILES[part]
    readers = {"cvbench": read_cvbench, "mmmu": read_mmmu, "mmvet": read_mmvet}
    return source.items(readers[part], *patterns, expected=expected)


def read_cvbench(row):
    path, task = row.text("image_path"), row.text("task")
    return make_item(
        row,
        f"{task}-{path.rpartition('/')[2].partition('.')[0]}",
        row.question("question"),
        row.letter("answer"),
        images=row.images("image_path"),
        options=row.texts("choices"),
        task=task,
    )


def read_mmmu(row):
    is_choice, answer = row.text("question_type") == "multiple-choice", row.text("answer")
    kind = "number" if is_number(answer) else "text"
    return make_item(
        row,
        row.text("id"),
        row.question("question"),
        row.letter("answer") if is_choice else answer,
        images=row.images("image_paths"),
        options=row.texts("options") if is_choice else (),
        answer_type="letter" if is_choice else kind,
        task=row.file.parent.name,
    )


def read_mmvet(row):
    accepted = [one.strip() for one in row.text("answer").split("<OR>")]
    is_short = all("<AND>" not in one and len(one.split()) <= MOST_WORDS for one in accepted)
    kind = "number" if len(accepted) == 1 and is_number(accepted[0]) else "text"
    return make_item(
        row,
        row.text("imagename").partition(".")[0],
        row.question("question"),
        accepted[0],
        images=row.images("imagename"),
        answer_type=kind,
        checker=kind if is_short else "none",
        accepted=accepted,
    )

"""VideoThinkBench (arXiv 2511.04570), eyeballing puzzles: 21 kinds, 50 each; which of five marked candidates is right.

The options are letters in the image. Graded by the letter, as published for language models; drawing on the image, as
video models do, is not asked. The question is ``vlm_prompt`` (or ``gpt5_prompt``), which was written for models that
answer in words, else ``prompt``, which was written for video models.

On disk, as the generators write it: ``{kind}/data.json`` (a list of ``id, prompt, candidates, correct_option, image``, and
in the second version ``vlm_prompt``, ``type``) beside ``{kind}/puzzles/``. In the dataset these folders lie in
``Vision-Centric_Reasoning/eyeballing_puzzles/`` (unverified, by analogy with ``visual_puzzles/``). The parquet of the Hub
(``task, id, prompt, image, solution_image``) names no right option, so its rows are left out. The number 1,050 is that of
the Hub's parquet as others count it.
"""

from __future__ import annotations

from ..items import LETTERS, make_item

COUNTS = {"": 1050}
EXPECTED = (
    "{kind}/data.json with id, prompt (or vlm_prompt), candidates, correct_option, image, beside {kind}/puzzles/; the parquet "
    "of the Hub has no correct_option"
)
PROMPTS = ("vlm_prompt", "gpt5_prompt")  # for models that answer in words
NUM_CANDIDATES = 5


def read(source, part):
    patterns = ("**/eyeballing_puzzles/*/data.json", "*/data.json", "data.json", "**/*yeballing*.parquet")
    return source.items(read_item, *patterns, expected=EXPECTED)


def read_item(row):
    words = row.text(*PROMPTS, default="")
    return make_item(
        row,
        row.text("id"),
        words or row.text("prompt", "ti2v_prompt"),
        row.letter("correct_option"),
        images=row.images("image"),
        options=[""] * num_candidates(row),
        task=row.text("type", "task", default=row.file.parent.name),
        has_own_prompt=bool(words),
    )


def num_candidates(row) -> int:
    """The number of options. Raises DataError if the labels are not A, B, C, ..."""
    candidates = row.get("candidates", default=None)
    if candidates is None:
        return NUM_CANDIDATES
    rows = candidates if isinstance(candidates, list) else []
    labels = [str(one.get("label")) if isinstance(one, dict) else "" for one in rows]
    if not labels or sorted(labels) != list(LETTERS[: len(labels)]):
        raise row.error("candidates", f"their labels are not A, B, C, ... Expected: {row.expected}")
    return len(labels)


def notes(items):
    own = sum(item.meta["has_own_prompt"] for item in items)
    return {"question": f"{own} in words for language models, {len(items) - own} as for video models"}

"""MDK12-Bench (arXiv 2504.05782): examination questions of six disciplines, of four types and three levels.

The official protocol also rewrites the questions; that is not done here. Blanks and calculations are graded as numbers
or short texts; answers in sentences are left out, as no rule can grade them.

On disk: one TSV per discipline and type, as ``MDK12mini-easy/physics_choice_multi_modal.tsv`` (``index, question, answer,
image``). The name has the type: ``choice``, ``fill_in_the_blank``, ``true_false`` or ``calculation``. The options are
inside the question. Columns A, B, ... or a list ``options``, and columns ``subject`` and ``question_type``, are read
too, from TSV, JSON lines or parquet. The exact names and counts are unverified. Items without an image are included.
"""

from __future__ import annotations

import re

from ..items import make_item
from ..options import split_options
from ..scoring import is_number

COUNTS = {"": 141_320}
EXPECTED = (
    "*.tsv named by discipline and type, **/*.parquet or **/*.jsonl with index, question (which may list its options), "
    "answer, image"
)
DISCIPLINES = ("math", "physics", "chemistry", "biology", "geography", "information_science")
LEVELS = {"easy": 1, "medium": 2, "hard": 3}
LONGEST = 60  # characters of an answer that a rule grades
OMITTED = re.compile(r"[(（【]?\s*(?:答案)?\s*(?:从?略|见解析)\s*[)）】]?[.。]?")  # no answer is given
TRUE = ("true", "t", "yes", "correct", "right", "正确", "对", "√")
FALSE = ("false", "f", "no", "incorrect", "wrong", "错误", "错", "×")


def read(source, part):
    return source.items(read_item, "**/*.tsv", "**/*.parquet", "**/*.jsonl", expected=EXPECTED)


def read_item(row):
    name = row.file.stem.lower()
    question, options = row.question("question"), row.columns() or row.texts("options", default=[])
    inside = [] if options else split_options(question)[1]
    kind, checker, answer, options = answer_of(row, name, options or inside)
    discipline = next((known for known in DISCIPLINES if name.startswith(known)), "")
    level = next((level for word, level in LEVELS.items() if word in str(row.folder).lower() or word in name), None)
    return make_item(
        row,
        f"{row.file.stem}-{row.text('index', 'id', default=str(row.number))}",
        question,
        answer,
        images=row.images("image", "image_path", "images", optional=True),
        options=options,
        answer_type=kind,
        checker=checker,
        task=row.text("subject", "discipline", "category", default=discipline),
        level=level,
        lists_options=bool(inside) and kind in ("letter", "set"),
        **({"form": "True or False"} if answer in ("True", "False") else {}),
    )


def answer_of(row, name, options):
    """(type, checker, answer, options) of a row. Choices without a list of options have it in the image."""
    answer = re.sub(r"^(?:参考|正确)?答案\s*(?:[:：]|[是为])\s*", "", row.text("answer")).strip()
    if OMITTED.fullmatch(answer):
        raise row.error("answer", "is omitted ('略'). Drop the row or add the answer.")
    letters = re.fullmatch(r"[A-Z](?:[,;、，；/\s]*[A-Z])*[.。]?", answer)
    if "true_false" in name and answer.lower() in TRUE + FALSE:
        return "text", "text", "True" if answer.lower() in TRUE else "False", []
    if options or ("choice" in name and letters):
        names = re.findall(r"[A-Z]", answer) if letters else [row.letter("answer")]
        options = options or [""] * max(4, ord(max(names)) - ord("A") + 1)
        if len(names) > 1:
            return "set", "letters", "".join(sorted(set(names))), options
        return "letter", "letter", names[0], options
    kind = "number" if is_number(answer) else "text"
    return kind, kind if len(answer) <= LONGEST and "\n" not in answer else "none", answer, []

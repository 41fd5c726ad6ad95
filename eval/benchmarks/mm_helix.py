"""MM-HELIX (arXiv 2510.08540): 42 kinds of puzzles, five levels, six items each.

Plans, paths and grids are verified by the rules of the puzzle, so that every solution is right. Places of mines and
words, paths of snakes and ladders of words are compared with the published answer. As published, the headline is the
mean of the kinds, and two questions on the same pair of graphs count only if both are right (``graph_pairs``). The
questions define the format of their answers; ``graph_isomorphism`` asks in both orders of the graphs.

On disk: parquet of the Hub (``id, category, question, question_text, images, answer, initial_state, metric_info``), its
TSV (``index``, ``image_path``), or the folders of the generator (``**/annotations.json`` beside ``images/``: ``index,
category, question, question_language, image, answer, initial_state, difficulty``). ``answer`` and ``initial_state`` are
values or texts of JSON or Python. Names of categories are those of the generator and of VLMEvalKit.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode

from ..items import make_item
from ..puzzles.moves import is_board
from ..scoring import is_number

COUNTS = {"": 1260}
METRIC = "category_mean"
GROUPED = {"": "graph_pairs"}
EXPECTED = (
    "**/*.parquet, *.tsv or **/annotations.json with id (or index), category, question, images (or image), answer, "
    "initial_state"
)
FORMAT = "the answer, in the format of the question,"
#: category in small letters, without signs -> checker; kinds whose answer is a number are not listed
CHECKERS = {
    "24points": "points24",
    "twentyfourpoints": "points24",
    "cryptomath": "cryptarithm",
    "graphisomorphism": "yes_no",
    "isomorphism": "yes_no",
    "connectivitytest": "connected_path",
    "hamiltonianpath": "hamiltonian_path",
    "hamiltoniancycle": "hamiltonian_cycle",
    "eulerianpath": "eulerian_path",
    "euleriancycle": "eulerian_cycle",
    "topologicalsort": "topological_order",
    "hanoi": "hanoi",
    "slidingpuzzle": "sliding",
    "maze": "maze",
    "sokoban": "sokoban",
    "nibbles": "nibbles",
    "minesweeper": "mines",
    "snake": "snake_path",
    "aquarium": "aquarium",
    "campsite": "campsite",
    "hitori": "hitori",
    "tapa": "tapa",
    "sudoku": "sudoku",
    "calcudoku": "calcudoku",
    "futoshiki": "futoshiki",
    "skyscrapers": "skyscrapers",
    "binairo": "binairo",
    "kukurasu": "kukurasu",
    "nonogram": "nonogram",
    "nonograms": "nonogram",
    "numbrix": "numbrix",
    "eulero": "euler_square",
    "kakuro": "kakuro",
    "bridges": "bridges",
    "shingoki": "loop",
    "wordsearch": "word_search",
    "wordladder": "word_ladder",
}


def read(source, part):
    return source.items(read_item, "**/*.parquet", "*.tsv", "**/annotations.json", expected=EXPECTED)


def read_item(row):
    kind = re.sub(r"\W+", "_", row.text("category", default=row.file.parent.name).lower()).strip("_")
    answer, state = as_text(row.get("answer")), parsed(row.get("initial_state", default=None))
    checker = CHECKERS.get(kind.replace("_", ""), "number" if is_number(answer) else "none")
    level = row.text("difficulty", "level", default="")
    question, twin = row.text("question"), row.get("question_text", "question_language", default="")
    return make_item(
        row,
        f"{kind}-{row.text('id', 'index')}",
        question,
        answer,
        images=row.images("images", "image", "image_path"),
        answer_type="number" if checker == "number" else "plan",
        checker=checker,
        task=kind,
        level=int(level) if re.fullmatch(r"\d{1,3}", level) else None,
        cluster=f"graphs {twin}" if checker == "yes_no" and twin else "",
        **({} if checker == "number" else {"form": FORMAT, **checker_fields(checker, answer, state)}),
    )


def checker_fields(checker: str, answer: str, state: Any) -> dict:
    """What a rule of puzzles reads. The key ``board``, ``pegs`` or ``numbers`` is missing if the state has no such."""
    if checker == "yes_no":
        return {"form": "Yes or No"}
    lists = state if isinstance(state, list) else next((v for v in _values(state) if isinstance(v, list)), [])
    if checker == "points24":
        return {"numbers": [n for n in lists if isinstance(n, int)]}
    if checker in ("hanoi", "sliding") and all(isinstance(entry, list) for entry in lists):
        name = "pegs" if checker == "hanoi" else "board"
        return {name: lists} if checker == "hanoi" or (lists and is_board(lists)) else {}
    return {"state": state, "gold": answer}


def _values(state: Any) -> list:
    return list(state.values()) if isinstance(state, dict) else []


def as_text(value: Any) -> str:
    """An answer as text; a list or an object as JSON. ``\\n`` in two characters is a line end."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.replace("\\n", "\n").strip()


def parsed(state: Any) -> Any:
    """A list or an object that is stored as text of JSON or Python; other texts, such as drawings, stay as they are."""
    if not isinstance(state, str) or state.strip()[:1] not in ("[", "{"):
        return state.replace("\\n", "\n") if isinstance(state, str) else state
    try:
        return decode(state.encode())
    except DataError:
        pass
    try:
        return ast.literal_eval(state.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return state

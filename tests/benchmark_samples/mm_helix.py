"""Miniatures of MM-HELIX: one small puzzle of each of its 42 kinds, and both sides of those that may have no solution."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from eval.benchmarks.mm_helix import CHECKERS

from .writing import Sample, stored


class Puzzle(NamedTuple):
    """A puzzle: its published answer, other solutions, and answers near them that are wrong."""

    category: str
    state: Any
    answer: Any
    others: tuple[str, ...]
    wrong: tuple[str, ...]


LINE = {"0": [1], "1": [0, 2], "2": [1]}
STAR = {"0": [1, 2, 3], "1": [0], "2": [0], "3": [0]}
TRIANGLE = {"0": [1, 2], "1": [0, 2], "2": [0, 1]}
BLACK, WHITE = {"type": "black"}, {"type": "white"}
LOOP = "(0,0)-(0,1) (0,1)-(1,1) (1,1)-(1,0) (1,0)-(0,0)"
NUMBERS = (
    "BestTimeToBuyAndSellStock",
    "ContainerWithMostWater",
    "CountHillsAndValleys",
    "HIndex",
    "LargestRectangleInHistogram",
    "longest_increasing_subsequence",
    "trapping_rain_water",
    "max_flow",
    "shortest_distance_weighted",
)
PUZZLES = [
    *(Puzzle(category, {"prices": [3, 0, 6]}, "3", ("3.0",), ("4", "-3", "33")) for category in NUMBERS),
    Puzzle(
        "24Points", {"numbers": [4, 8, 6, 3]}, "(4+8)*(6/3)", ("(4 + 8) × 6 ÷ 3",), ("(4+8)*2", "24", "(4+8)*(6/0)")
    ),
    Puzzle(
        "CryptoMath",
        {"equation": "A + A = B"},
        {"A": 1, "B": 2},
        ("A=2, B=4", "{'A': '3', 'B': '6'}"),
        ('{"A": 1, "B": 3}', '{"A": 1}', "A=0, B=0", "A=1, A=2, B=4"),
    ),
    Puzzle("graph_isomorphism", None, "Yes", ("yes",), ("No", "maybe")),
    Puzzle("hamiltonian_path", LINE, "[0, 1, 2]", ("[2, 1, 0]", "2 -> 1 -> 0"), ("[0, 2, 1]", "[0, 1]", "No")),
    Puzzle("hamiltonian_path", STAR, "No", ("no",), ("[1, 0, 2]", "[1, 0, 2, 3]", "Yes")),
    Puzzle("hamiltonian_cycle", TRIANGLE, "[0, 1, 2, 0]", ("[1, 2, 0]",), ("[0, 1]", "No")),
    Puzzle("hamiltonian_cycle", LINE, "No", ("No.",), ("[0, 1, 2, 0]", "[0, 1, 2]")),
    Puzzle("eulerian_path", LINE, "[0, 1, 2]", ("[2, 1, 0]",), ("[0, 1]", "[0, 1, 2, 1]", "No")),
    Puzzle("eulerian_path", STAR, "No", ("'No'",), ("[1, 0, 2]",)),
    Puzzle("eulerian_cycle", TRIANGLE, "[0, 1, 2, 0]", ("[1, 0, 2, 1]",), ("[0, 1, 0]", "No")),
    Puzzle("eulerian_cycle", LINE, "No", (), ("[0, 1, 2, 0]", "[0, 1, 2, 1, 0]")),
    Puzzle(
        "topological_sort", {"0": [1, 2], "1": [], "2": []}, [0, 1, 2], ("[0, 2, 1]",), ("[1, 0, 2]", "[0, 1]", "No")
    ),
    Puzzle("hanoi", [[2, 1], [], []], "(1,2) (2,3) (1,3)", ("(1 2),(2 3),(1 3)",), ("(2,3) (1,3)", "(1,3)", "(9,3)")),
    Puzzle(
        "slidingpuzzle",
        [[1, 2, 3], [4, 0, 5], [7, 8, 6]],
        "left up",
        ("left, up", "5, 6", "← ↑", "LU"),
        ("right down", "left", "up left", "6, 5", "left up up"),
    ),
    Puzzle(
        "maze",
        "+-+-+\n|S 0|\n+ + +\n|0|E|\n+-+-+",
        "right down",
        ("R, D", "down up right down"),
        ("down right", "left"),
    ),
    Puzzle("sokoban", "#####\n#@$.#\n#####", "right", ("R",), ("left", "right right", "up")),
    Puzzle(
        "nibbles",
        "Grid: 3x3\nSnake: (1,1) (1,0)\nDirection: right\nApples: (1,2)",
        "right",
        ("up right down",),
        ("left", "up", "up up"),
    ),
    Puzzle("minesweeper", [[1, None], [None, 1]], "(0,1),(1,0)", ("[(1, 0), (0, 1)]",), ("(0,1)", "(0,1),(1,0),(1,1)")),
    Puzzle(
        "snake", [["S", None], [None, "E"]], [[0, 0], [0, 1], [1, 1]], ("(0,0) (0,1) (1,1)",), ("(0,0) (1,0) (1,1)",)
    ),
    Puzzle(
        "aquarium",
        {"regions": [[1, 2], [1, 2]], "row_clues": [0, 1], "col_clues": [1, 0], "grid_size": [2, 2]},
        "[(0, 1)]",
        ("(0,1)",),
        ("[(1, 1)]", "[(0, 0)]", "[]"),
    ),
    Puzzle(
        "campsite",
        {
            "input_grid": [["X", "T", "X"], ["X", "X", "X"], ["T", "X", "X"]],
            "row_constraints": [1, 0, 1],
            "col_constraints": [1, 1, 0],
        },
        "[[1, 1], [3, 2]]",
        ("(3, 2), (1, 1)",),
        ("[[1, 1], [2, 1]]", "[[1, 1]]", "[[0, 0], [2, 1]]"),
    ),
    Puzzle(
        "hitori",
        [[1, 1, 2], [2, 3, 1], [3, 2, 3]],
        "{(0, 1), (2, 2)}",
        ("(2,2), (0,1)",),
        ("{(0, 1)}", "{(0, 1), (1, 1)}"),
    ),
    Puzzle("tapa", "1..\n...\n...", "(0,1), (0,2)", ("(0,1)",), ("(0,1), (1,0)", "(0,1), (2,2)", "(0,0)")),
    Puzzle(
        "sudoku",
        "1 . . .\n. 4 . 2\n. . . .\n4 . 2 .",
        "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1",
        ("[[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]]",),
        ("2 1 3 4\n3 4 1 2\n1 2 4 3\n4 3 2 1", "1 2 3 4\n2 3 4 1\n3 4 1 2\n4 1 2 3"),
    ),
    Puzzle(
        "Calcudoku",
        {
            "size": 2,
            "regions": [
                {"cells": [[1, 1], [1, 2]], "operator": "+", "target": 3},
                {"cells": [[2, 1], [2, 2]], "operator": "÷", "target": 2},
            ],
        },
        [[1, 2], [2, 1]],
        ("[[2, 1], [1, 2]]",),
        ("[[1, 1], [2, 2]]", "[[1, 2], [1, 2]]", "[[1, 2]]"),
    ),
    Puzzle(
        "futoshiki",
        {"grid": [[0, 0], [0, 0]], "inequalities": [{"cell1": [0, 0], "cell2": [0, 1], "symbol": "<"}], "size": 2},
        "[[1, 2], [2, 1]]",
        ("1 2\n2 1",),
        ("[[2, 1], [1, 2]]", "[[1, 2], [1, 2]]"),
    ),
    Puzzle(
        "Skyscrapers",
        {"n": 2, "top": [2, 1], "bottom": [1, 2], "left": [2, 1], "right": [1, 2]},
        [[1, 2], [2, 1]],
        ("1 2; 2 1",),
        ("[[2, 1], [1, 2]]",),
    ),
    Puzzle("binairo", [[1, None], [None, None]], "1 0\n0 1", ("10\n01", "[[1, 0], [0, 1]]"), ("0 1\n1 0", "1 1\n0 0")),
    Puzzle(
        "Kukurasu", {"size": 2, "row_sums": [1, 3], "col_sums": [3, 2]}, [[1, 0], [1, 1]], (), ("[[1, 1], [1, 1]]",)
    ),
    Puzzle("nonogram", [[[1], [2]], [[2], [1]]], "X.\nXX", ("X .\nX X",), ("XX\nX.", ".X\nXX")),
    Puzzle(
        "numbrix", "|1| |\n| |3|", "|1|2|\n|4|3|", ("|1|4|\n|2|3|", "|1|2|\n| |3|"), ("|1|2|\n|3|4|", "|1| |\n| |3|")
    ),
    Puzzle(
        "eulero",
        "A1||C3\n|C1|\nC2|A3|B1",
        "A1|B2|C3\nB3|C1|A2\nC2|A3|B1",
        ("a1|b2|c3\\nb3|c1|a2\\nc2|a3|b1",),
        ("A1|B2|C3\nB3|C1|A2\nC2|B1|A3", "A1|B1|C3\nB3|C2|A2\nC1|A3|B2"),
    ),
    Puzzle(
        "kakuro",
        [
            [BLACK, BLACK | {"down": [4, 2]}, BLACK | {"down": [3, 2]}],
            [BLACK | {"right": [3, 2]}, WHITE, WHITE],
            [BLACK | {"right": 4}, WHITE, WHITE],
        ],
        "(1,1):1 (1,2):2 (2,1):3 (2,2):1",
        ("(2,2)=1, (2,1)=3, (1,2)=2, (1,1)=1",),
        ("(1,1):2 (1,2):1 (2,1):2 (2,2):2", "(1,1):1 (1,2):2 (2,1):3"),
    ),
    Puzzle(
        "bridges",
        {"islands": [{"x": 0, "y": 0, "num": 2}, {"x": 2, "y": 0, "num": 3}, {"x": 2, "y": 2, "num": 1}]},
        "(0,0)-(2,0):2\n(2,0)-(2,2):1",
        ("(2, 2) - (2, 0): 1, (0, 0) - (2, 0): 2",),
        ("(0,0)-(2,0):2", "(0,0)-(2,0):1\n(2,0)-(2,2):2", "(0,0)-(2,2):1"),
    ),
    Puzzle("shingoki", [["B2", "."], [".", "."]], LOOP, (LOOP.replace(") (", "), ("),), (LOOP[:-12], "(0,0)-(1,1)")),
    Puzzle("wordsearch", "CAT\nXXX", "CAT E @ (1, 1)", ("cat E (1, 1) @",), ("CAT S @ (1, 1)", "CAT E @ (1, 2)")),
    Puzzle(
        "WordLadder",
        {"start_word": "cat", "target_word": "dog", "solution": ["cat", "cot", "cog", "dog"]},
        "cat -> cot -> cog -> dog",
        ('["cat", "cot", "cog", "dog"]',),
        ("cat -> cqt -> cqg -> dqg -> dog", "cat -> dog"),
    ),
]


def numbered(puzzles: list[Puzzle], picture: Any, texts: bool) -> list[dict]:
    """The rows of puzzles: values as the generator writes them, or texts as the Hub has them."""
    encode = (lambda value: value if isinstance(value, str) else json.dumps(value)) if texts else (lambda value: value)
    return [
        {
            "id" if texts else "index": str(number),
            "category": puzzle.category,
            "question": f"Solve the {puzzle.category}.",
            "question_text" if texts else "question_language": f"Solve the {puzzle.category}: {puzzle.state}",
            "images" if texts else "image": [picture] if texts else picture,
            "answer": encode(puzzle.answer),
            "initial_state": encode(puzzle.state),
            "difficulty": number % 5 + 1,
        }
        for number, puzzle in enumerate(puzzles)
    ]


def expected() -> list[tuple]:
    """What is read of each puzzle."""
    return [
        (
            f"{puzzle.category.lower()}-{number}",
            puzzle.category.lower(),
            "number" if puzzle.category in NUMBERS else "plan",
            CHECKERS.get(puzzle.category.lower().replace("_", ""), "number"),
            "",
            puzzle.answer if isinstance(puzzle.answer, str) else json.dumps(puzzle.answer),
            [1],
        )
        for number, puzzle in enumerate(PUZZLES)
    ]


SAMPLES = [
    Sample(
        "mm_helix",
        "`annotations.json` of the generator, values",
        {"annotations.json": numbered(PUZZLES, "images/1.png", texts=False)},
        expected(),
        {"images/1.png": 1},
    ),
    Sample(
        "mm_helix",
        "parquet of the Hub, answers and states as text",
        {"data/test-00000-of-00001.parquet": numbered(PUZZLES, stored(1), texts=True)},
        expected(),
    ),
]

"""Rules that verify answers of puzzles with several solutions. As in tasks/checkers.py, ``rule(text, meta) -> Check``
reads the boxed answer and never raises an error, for any text.

``meta["state"]`` is the puzzle and ``meta["gold"]`` its published answer, in the formats of MM-HELIX (arXiv
2510.08540), whose questions define coordinates, directions and formats. A rule accepts every solution of a puzzle. It
compares with the published answer only where the solution is unique, or where a rule cannot decide (``word_ladder``).
"""

from .arithmetic import cryptarithm, points24
from .cell_sets import aquarium, campsite, hitori, mines, snake_path, tapa
from .graphs import (
    connected_path,
    eulerian_cycle,
    eulerian_path,
    hamiltonian_cycle,
    hamiltonian_path,
    topological_order,
)
from .links import bridges, loop, word_ladder, word_search
from .moves import displacement, hanoi, maze, nibbles, sliding, sokoban
from .number_grids import (
    binairo,
    calcudoku,
    euler_square,
    futoshiki,
    kakuro,
    kukurasu,
    nonogram,
    numbrix,
    skyscrapers,
    sudoku,
)

__all__ = [
    "aquarium",
    "binairo",
    "bridges",
    "calcudoku",
    "campsite",
    "connected_path",
    "cryptarithm",
    "displacement",
    "euler_square",
    "eulerian_cycle",
    "eulerian_path",
    "futoshiki",
    "hamiltonian_cycle",
    "hamiltonian_path",
    "hanoi",
    "hitori",
    "kakuro",
    "kukurasu",
    "loop",
    "maze",
    "mines",
    "nibbles",
    "nonogram",
    "numbrix",
    "points24",
    "skyscrapers",
    "sliding",
    "snake_path",
    "sokoban",
    "sudoku",
    "tapa",
    "topological_order",
    "word_ladder",
    "word_search",
]

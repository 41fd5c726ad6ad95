"""Images of mazes: drawing them with the way so far, and reading that way back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image as PILImage

from . import canvas as c
from .item import Parsed
from .wall_maze_rules import (
    DARTS,
    WAYS,
    Cell,
    beside,
    edges,
    is_open,
    size,
)


def render(maze: dict, look: c.Look, state: dict | None = None) -> PILImage.Image:
    """Render the maze. With a state, also the path so far and a blue arrow at its end."""
    (height, width), side, line = size(maze), look.cell, look.line
    sheet = c.blank(height * side, width * side, look["paper"])

    def middle(cell) -> Cell:
        return cell[0] * side + side // 2, cell[1] * side + side // 2

    c.disc(sheet, *middle(maze["goal"]), arrow(look), look["red"])
    if state:
        thick = line + 2
        for (y, x), (v, u) in pairwise(middle(cell) for cell in state["cells"]):
            c.rectangle(
                sheet,
                min(y, v) - thick // 2,
                min(x, u) - thick // 2,
                abs(v - y) + thick,
                abs(u - x) + thick,
                look["pink"],
            )
    c.triangle(sheet, *middle(maze["start"]), arrow(look), DARTS[maze["heading"]], look["green"])
    if state:
        c.triangle(sheet, *middle(state["cells"][-1]), arrow(look), DARTS[state["heading"]], look["blue"])
    for (row, col), way in edges(maze):
        if not is_open(maze, (row, col), way):
            y, x = (row + (way == "S")) * side - line // 2, (col + (way == "E")) * side - line // 2
            c.rectangle(
                sheet, y, x, line if way == "S" else side + line, line if way == "E" else side + line, look["ink"]
            )
    c.frame(sheet, 0, 0, sheet.shape[0], sheet.shape[1], line, look["ink"])
    return c.picture(sheet)


def arrow(look: c.Look) -> int:
    """Half the side of an arrow in pixels."""
    return look.cell * 9 // 32


def dart(look: c.Look, heading: str) -> np.ndarray:
    """Boolean mask of the pixels of a cell that its arrow covers."""
    cell = c.blank(look.cell, look.cell, "paper")
    c.triangle(cell, look.cell // 2, look.cell // 2, arrow(look), DARTS[heading], "ink")
    return cell[:, :, 0] == 0


def parse(image: PILImage.Image, maze: dict, look: c.Look) -> Parsed:
    (height, width), side = size(maze), look.cell
    sheet = c.pixels(image, height * side, width * side)
    found = c.labels(sheet, [look[name] for name in ("blue", "green", "red")])
    cells = found.reshape(height, side, width, side).swapaxes(1, 2)

    def where(label: int) -> list[Cell]:
        """The cells with enough pixels of a color, in decreasing order."""
        count = (cells == label).sum((2, 3))
        many = [(y, x) for y, x in np.argwhere(count > dart(look, "N").sum() / 4).tolist()]
        return sorted(many, key=lambda x: -count[x])

    darts = where(0)
    if len(darts) != 1:
        return Parsed(None, 0.0, (f"{len(darts)} blue arrows",))
    at = darts[0]
    blue = cells[at] == 0
    fits = {way: float((blue & dart(look, way)).sum() / (blue | dart(look, way)).sum()) for way in WAYS}
    heading = max(fits, key=lambda way: fits[way])
    faults = []
    if fits[heading] < 0.5:
        faults.append("the blue arrow has no direction")
    for label, thing, home in ((1, "start", tuple(maze["start"])), (2, "goal", tuple(maze["goal"]))):
        if [cell for cell in where(label) if cell != at] != [home] * (home != at):
            faults.append(f"the {thing} is not where it was")

    table = np.array([look[name] for name in ("ink", "paper", "pink")], float)
    wide, changed, lit = look.line // 2, 0, []
    for (row, col), way in edges(maze):
        y, x = row * side + side // 2 + (way == "S") * side // 2, col * side + side // 2 + (way == "E") * side // 2
        colour = sheet[y - wide : y + wide, x - wide : x + wide].mean((0, 1))
        kind = int(np.abs(table - colour).sum(1).argmin())
        changed += (kind != 0) != is_open(maze, (row, col), way)
        if kind == 2:
            lit.append({(row, col), beside((row, col), way)})
    if changed:
        faults.append(f"{changed} walls changed")
    path = [tuple(maze["start"])]
    while ahead := [edge for edge in lit if path[-1] in edge]:
        lit = [edge for edge in lit if edge not in ahead]
        path.append(next(iter(ahead[0] - {path[-1]})))
        if len(ahead) > 1:
            return Parsed(None, fits[heading], (*faults, "the path forks"))
    if lit or path[-1] != at:
        return Parsed(None, fits[heading], (*faults, "the path does not lead from the start to the arrow"))
    return Parsed({"cells": [list(cell) for cell in path], "heading": heading}, fits[heading], tuple(faults))

"""The scenes of ``scene_edit``: their objects, and what edits and queries make of them."""

from __future__ import annotations

from itertools import product

SIDE = 6
SIZES = ("small", "large")
HUES = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SHAPES = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
NAMES = ["", *map(" ".join, product(SIZES, HUES, SHAPES))]
CODES = {name: code for code, name in enumerate(NAMES) if code}
MANY = {f"{' '.join(name.split()[:2])} {SHAPES[name.split()[2]]}": code for name, code in CODES.items()}
WHAT = {
    f"{size}{hue}{shape}".strip(): frozenset(
        c for n, c in CODES.items() if {size, hue, one} - {""} <= {*(f"{w} " for w in n.split()[:2]), n.split()[2]}
    )
    for size, hue, (one, shape) in product(
        ("", "small ", "large "), ("", *(f"{h} " for h in HUES)), (("", "objects"), *SHAPES.items())
    )
}


def apply_edit(scene: list[int], edit: dict) -> list[int] | None:
    """The scene after an edit. None if the edit changes nothing, has no free cell or removes all objects."""
    after = list(scene)
    if edit["kind"] in ("remove", "recolour"):
        which, to = WHAT[edit["what"]], HUES.index(edit["to"]) if edit["kind"] == "recolour" else None
        after = [code if code not in which else 0 if to is None else recoloured(code, to) for code in scene]
    elif edit["kind"] == "add":
        first = SIDE * (edit["row"] - 1)
        free = [i for i in range(first, first + SIDE) if not scene[i]][: edit["k"]]
        if len(free) < edit["k"]:
            return None
        for i in free:
            after[i] = MANY[edit["many"]]
    else:
        at, k = edit["at"] - 1, edit["k"] if edit["way"] in ("right", "bottom") else -edit["k"]
        cells = slice(SIDE * at, SIDE * at + SIDE) if edit["line"] == "row" else slice(at, None, SIDE)
        after[cells] = [scene[cells][(i - k) % SIDE] for i in range(SIDE)]
    return after if after != scene and any(after) else None


def recoloured(code: int, hue: int) -> int:
    size, rest = divmod(code - 1, len(HUES) * len(SHAPES))
    return 1 + (size * len(HUES) + hue) * len(SHAPES) + rest % len(SHAPES)


def apply_edits(scene: list[int], edits: list[dict]) -> list[list[int]] | None:
    """The scene and its states after each edit. None if an edit fails or a scene repeats."""
    scenes = [scene]
    for edit in edits:
        after = apply_edit(scenes[-1], edit)
        if after is None or after in scenes:
            return None
        scenes.append(after)
    return scenes


def answer(scene: list[int], query: dict) -> str | None:
    """The answer to a query as text. None if the object of the query does not exist."""
    if query["kind"] in ("colour", "shape"):
        row = [code for code in scene[SIDE * (query["row"] - 1) : SIDE * query["row"]] if code]
        return NAMES[row[0]].split()[1 if query["kind"] == "colour" else 2] if row else None
    found, other = (sum(code in WHAT[query.get(key, "objects")] for code in scene) for key in ("what", "other"))
    if query["kind"] == "count":
        return str(found)
    return "Yes" if found > (other if query["kind"] == "compare" else 0) else "No"


def state_of(scene: list[int]) -> list[list]:
    return [[i // SIDE + 1, i % SIDE + 1, NAMES[code]] for i, code in enumerate(scene) if code]


def scene_of(state: list[list]) -> list[int]:
    scene = [0] * SIDE * SIDE
    for row, column, name in state:
        scene[SIDE * (row - 1) + column - 1] = CODES[name]
    return scene

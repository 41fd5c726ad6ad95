"""Miniatures of VSP: the folders of its repository."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .writing import Sample, image, lines, texts

MAP = (
    "This is a 3x3 map.\nThe player is at: row 1, column 1;\nThe hole(s) are at: Row 1, Column 2;\n"
    "The goal is at: Row 2, Column 2."
)
MOVES = "{}-00000\t1Towers/2\t{}-00000\t2Towers/11\t1\tmove(o,table,0)\n"


def vsp(part: str, root: Path) -> None:
    scene, _, task = part.partition("_")
    place = root / scene / f"task{'-main' if task in ('', 'main', 'map') else task}" / "maps"
    if scene == "google":
        place = root / "google_map/task-main/maps/level1"
        for m in (1, 4, 5, 6, 9):
            lines(place / f"answer-{m}.json", [[2, 3]])
            image(place / f"test{m}-0.png", m)
    elif part == "collision":
        texts(
            place / "level-default",
            **{
                f"{who}-{what}": f"{said}\n"
                for (who, what), said in {
                    ("car", "dir"): "left",
                    ("car", "speed"): "1.0",
                    ("car", "answer"): "2.0",
                    ("person", "dir"): "up",
                    ("person", "speed"): "0.5",
                    ("person", "answer"): "6.5",
                }.items()
            },
        )
        image(place / "level-default/0.png", 1)
    elif scene == "maze":
        level = place / ("level_step1" if task == "4" else "level3")
        said = {
            "1": ("Is there a hole in row 1, column 2?", "Y"),
            "4": ("R", "N"),
            "3": ("\n(A)\n| @ |\n(B)\n| * |", "5-1\n3-2\n3-0\n4-1\n2"),
        }.get(task, ("", ""))
        texts(level, question__0=said[0], answer__0=said[1])
        if task != "3":  # as published, this task has no maps in words
            texts(level, pure_text__0=MAP)
        image(level / "img/0.png", 1)
    elif task == "main":
        texts(place / "level1", info=MOVES.format("RO000-B0000", "R0000-O0000-B0000"))
        image(place / "level1/input_img/0.jpg", 1)
        image(place / "level1/output_img/0.jpg", 2)
    else:
        level = place / ("level1" if task == "4" else "level3")
        asked = {
            "1": "Which colour is on top?",
            "2": "How many?\n(A) one\n(B) two",
            "3": "(A)\n- red\n(B)\n- blue",
            "4": "1. move(purple,table)\n",
        }[task]
        texts(level, annotation={"1": "red\n", "2": "1\n", "3": "1\n", "4": "1\n7\n"}[task], text_input__0=asked)
        image(level / "image_input/0.jpg", 1)
        if task == "4":
            texts(level, text_input__1=asked)
            image(level / "image_input/1.jpg", 2)


ITEMS = {
    "vsp/maze_main": [("vsp-main-L3-0000", "level 3", "plan", "vsp", "", "D,R", [1])],
    "vsp/maze_1": [("maze-task1-L3-0", "level 3", "text", "yes_no", "", "Yes", [1])],
    "vsp/maze_2": [("maze-task2-L3-0", "level 3", "set", "set", "", "Above, Left", [1])],
    "vsp/maze_3": [("maze-task3-L3-0", "level 3", "letter", "letter", "|||", "C", [1])],
    "vsp/maze_4": [("vsp-task4-L1-0000", "level 1", "text", "vsp_task4", "", "No", [1])],
    "vsp/blocks_main": [("blocks-main-L1-0", "level 1", "plan", "blocks", "", "move(o,table)", [1, 2])],
    "vsp/blocks_1": [("blocks-task1-L3-0", "level 3", "text", "text", "", "red", [1])],
    "vsp/blocks_2": [("blocks-task2-L3-0", "level 3", "letter", "letter", "|", "B", [1])],
    "vsp/blocks_3": [("blocks-task3-L3-0", "level 3", "letter", "letter", "|", "B", [1])],
    "vsp/blocks_4": [
        ("blocks-task4-L1-0", "level 1", "text", "yes_no", "", "No", [1]),
        ("blocks-task4-L1-1", "level 1", "text", "yes_no", "", "Yes", [2]),
    ],
    "vsp/collision": [
        ("collision-0-car", "car", "number", "number", "", "2.0", [1]),
        ("collision-0-person", "person", "number", "number", "", "6.5", [1]),
    ],
    "vsp/google_map": [
        (f"google_map-{m}-0", f"map {m}", "plan", "displacement", "", "North: 2, West: 3", [m]) for m in (1, 4, 5, 6, 9)
    ],
}

SAMPLES = [
    Sample(name, "folders of the repository", {}, items, more=partial(vsp, name.removeprefix("vsp/")))
    for name, items in ITEMS.items()
]

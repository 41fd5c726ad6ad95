"""VSP, Visual Spatial Planning (arXiv 2407.01863, MIT): plans and what has to be seen for them, a part a task.

On disk: the folders of its repository (``maze``, ``blocks``, ``collision``, ``google_map``, each with ``task-*/maps``),
or one of the folders in them. ``example`` is never read, nor is a pickle: answers of google_map have to be written as
JSON once.
Questions are in our words, without the release's two pictures of explanation. Plans are right by the release's rules;
its scorer of collision never credits the person's time, by an indexing error: here car and person are one item each,
with its margin of 1.0.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from latent_reason.tasks import frozenlake_board as board
from latent_reason.tasks import vsp

from ..items import made
from ..options import parted
from ..readers import Row, Shown

COUNTS = {
    "maze_main": 600,
    "maze_1": 600,
    "maze_2": 600,
    "maze_3": 600,
    "maze_4": 500,
    "blocks_main": 400,
    "blocks_1": 300,
    "blocks_2": 300,
    "blocks_3": 300,
    "blocks_4": 400,
    "collision": 200,
    "google_map": 100,
}
ALSO = ("mirage", "exact")  # for plans through the maze
EXPECTED = "the VSP folder with {scene}/{task}/maps/{level}/..."
COLOURS = {name[0]: name for name in ("red", "green", "blue", "yellow", "purple", "orange")}
MOVES = "the moves U, D, L, R, separated by commas,"
BLOCK_MOVES = "the moves as move(block,block) or move(block,table), separated by semicolons,"
STACKS = "Move one block at a time, from the top of a stack, until the first picture looks like the second."
STREETS = (
    "Find a way from the blue S to the red G. Distances are counted in crossroads passed; numbers in the names "
    "of streets do not matter."
)
TIMES = (
    "The car moves {0} with speed {1}, the person moves {2} with speed {3}, in grid cells a second. After how "
    "many seconds does the {4} pass the goal?"
)


def read(source, part):
    scene, _, task = part.partition("_")
    if part == "maze_main":
        yield from mazes(source, vsp.plan_items, vsp.MAIN, "level{}", range(3, 9), MOVES)
    elif part == "maze_4":
        yield from mazes(source, vsp.check_items, vsp.TASK4, "level_step{}", (1, 3, 5, 7, 9), "Yes or No")
    elif scene == "maze":
        yield from seen_mazes(source, f"task{task}")
    elif part == "blocks_main":
        yield from stacks(source)
    elif scene == "blocks":
        yield from seen_stacks(source, f"task{task}")
    else:
        yield from collisions(source) if part == "collision" else streets(source)


def mazes(source, items, roots, name, levels, form):
    """Items of tasks/vsp.py at the levels that are there, in the words of the task: with ``--prompt bare`` a model is
    asked as in eval.run."""
    places = {
        n: root for n in levels for root in reversed(roots) if (source.folder / root / "maps" / name.format(n)).is_dir()
    }
    if not places:
        task = roots[1]
        raise FileNotFoundError(
            f"'{source.folder}' holds no {name.format('*')}. Expected: "
            + EXPECTED.format(scene="maze", task=task, level=name.format("*"))
        )
    for item in items(source.folder, places):
        where = f"{places[item.level]}/maps/{name.format(item.level)}/img".lstrip("/")
        yield made(
            *picture(source, where, item.id),
            item.question,
            item.answer,
            images=[image(source, PurePosixPath(where), int(item.id[-4:]))],
            answer_type="plan" if item.checker == "vsp" else "text",
            checker=item.checker,
            task=f"level {item.level}",
            level=item.level,
            form=form,
            **{key: given for key, given in item.meta.items() if key in ("map", "moves")},
        )


def picture(source, where, id):
    """What ``made`` begins with, for an item that is files in place of a row."""
    return Row({}, source.folder / where, 0, source, EXPECTED), id


def base(source, scene, task):
    """The folder of a task's maps, from the benchmark's root, that of a scene or that of the task."""
    tried = [f"{scene}/{task}/maps", f"VSP-main/{scene}/{task}/maps", f"{task}/maps", "maps"]
    found = next((path for path in tried if (source.folder / path).is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"'{source.folder / tried[0]}' is missing. Expected: "
            + EXPECTED.format(scene=scene, task=task, level="level*")
        )
    return PurePosixPath(found)


def levels(source, place, *numbers):
    """(level, folder) of the levels that are there; at least one must be."""
    found = [(n, place / f"level{n}") for n in numbers if (source.folder / place / f"level{n}").is_dir()]
    if not found:
        raise FileNotFoundError(
            f"'{source.folder / place}' holds no level{numbers[0]}. Expected: levels "
            f"{', '.join(map(str, numbers))} of VSP."
        )
    return found


def numbered(source, place):
    """The numbers of the texts in a folder, in order."""
    found = sorted(int(file.stem) for file in (source.folder / place).glob("*.txt") if file.stem.isdecimal())
    if not found:
        raise FileNotFoundError(f"'{source.folder / place}' holds no numbered .txt. Copy the benchmark again.")
    return found


def image(source, place, number):
    """The picture with a number, PNG or JPEG."""
    tried = [place / f"{number}{suffix}" for suffix in (".png", ".jpg", ".jpeg")]
    found = next((path for path in tried if (source.folder / path).is_file()), tried[0])
    return Shown(source.own, str(found), "img", source.folder / found, 0)


def gold(row, lines, number, file):
    if number >= len(lines) or not lines[number].strip():
        raise row.wrong("answer", f"{file} has no line {number + 1}. Copy it again.")
    return lines[number].strip()


def seen_mazes(source, task):
    """Tasks 1 to 3 of the maze: is there a hole, where is the player, which table is it."""
    for level, place in levels(source, base(source, "maze", task), *range(3, 9)):
        for i in numbered(source, place / "pure_text"):
            row, id = picture(source, place / "img" / f"{i}.png", f"maze-{task}-L{level}-{i}")

            def text(name, place=place, i=i):
                expected = EXPECTED.format(scene="maze", task=task, level=place.name)
                return source.text(place / name / f"{i}.txt", expected)

            given = {"images": [image(source, place / "img", i)], "task": f"level {level}", "level": level}
            if task == "task1":
                yes = {"Y": "Yes", "N": "No"}.get(text("answer").strip())
                if yes is None:
                    raise row.wrong("answer", "is neither Y nor N. Copy the benchmark again.")
                yield made(
                    row, id, text("question"), yes, answer_type="text", checker="yes_no", form="Yes or No", **given
                )
            elif task == "task2":
                seen = where(board.from_words(text("pure_text")))
                yield made(
                    row,
                    id,
                    "Where is the player, seen from the goal?",
                    seen,
                    answer_type="set",
                    form="Above or Below, and Left or Right (what is equal is left out),",
                    **given,
                )
            else:
                *_, index = text("answer").split()
                if index not in "0123" or len(index) > 1:
                    raise row.wrong("answer", f"'{index[:20]}' is no index of four tables. Copy the benchmark again.")
                asks = f"Which table shows the picture? @ player, * goal, # hole, _ safe.\n{text('question')}"
                yield made(row, id, asks, "ABCD"[int(index)], options=[""] * 4, **given)


def where(rows):
    """Above or Below, Left or Right: the start as seen from the goal; what is equal is left out."""
    (r, c), (y, x) = board.find(rows, "S"), board.find(rows, "G")
    return ", ".join(["Above"] * (r < y) + ["Below"] * (r > y) + ["Left"] * (c < x) + ["Right"] * (c > x))


def stacks(source):
    """Blocks: from the first picture to the second."""
    for level, place in levels(source, base(source, "blocks", "task-main"), 1, 3, 5, 7):
        lines = source.text(place / "info.txt", EXPECTED.format(scene="blocks", task="task-main", level=place.name))
        for i, line in enumerate(filter(str.strip, lines.splitlines())):
            row, id = picture(source, place / "info.txt", f"blocks-main-L{level}-{i}")
            row.number = i + 1
            cells = line.split("\t")
            if len(cells) < 6 or not all(set(code) <= set("0-RGBYPO") for code in (cells[0], cells[2])):
                raise row.wrong("info", "expected begin, towers, end, towers, length, plans, by tabs. Copy it again.")
            images = [image(source, place / folder, i) for folder in ("input_img", "output_img")]
            yield made(
                row,
                id,
                STACKS,
                said(cells[5]),
                images=images,
                answer_type="plan",
                checker="blocks",
                task=f"level {level}",
                level=level,
                form=BLOCK_MOVES,
                begin=slots(cells[0]),
                end=slots(cells[2]),
            )


def slots(code):
    """``GB0000-R00000-...``: stacks from the bottom, by the initials of their colours."""
    return [[COLOURS[letter.lower()] for letter in stack if letter != "0"] for stack in code.split("-")]


def said(plan):
    """``move(o,y,0) move(b,table,1)`` as ``move(o,y);move(b,table)``."""
    return ";".join(move.rpartition(",")[0] + ")" for move in plan.split())


def seen_stacks(source, task):
    """Tasks 1 to 4 of blocks: a colour, two kinds of choices, whether a plan can be carried out."""
    for level, place in levels(source, base(source, "blocks", task), *((1, 3, 5, 7) if task == "task4" else (3, 4, 5))):
        expected = EXPECTED.format(scene="blocks", task=task, level=place.name)
        lines = source.text(place / "annotation.txt", expected).splitlines()
        for i in numbered(source, place / "text_input"):
            row, id = picture(source, place / "annotation.txt", f"blocks-{task}-L{level}-{i}")
            row.number = i + 1
            question = source.text(place / "text_input" / f"{i}.txt", expected)
            given = {"images": [image(source, place / "image_input", i)], "task": f"level {level}", "level": level}
            if task == "task1":
                yield made(
                    row,
                    id,
                    question,
                    gold(row, lines, i, "annotation.txt"),
                    answer_type="text",
                    form="the colour",
                    **given,
                )
            elif task == "task4":
                yes = "Yes" if str(i) in map(str.strip, lines) else "No"
                yield made(
                    row,
                    id,
                    f"Can this plan be carried out?\n{question}",
                    yes,
                    answer_type="text",
                    checker="yes_no",
                    form="Yes or No",
                    **given,
                )
            else:
                index = gold(row, lines, i, "annotation.txt")
                if index not in tuple("0123456789"):
                    raise row.wrong("answer", f"'{index[:20]}' is no index of an option. Copy the benchmark again.")
                asks = "Which of these shows the picture?\n" * (task == "task3")
                yield made(
                    row,
                    id,
                    asks + question,
                    "ABCDEFGHIJ"[int(index)],
                    options=[""] * (len(parted(question)[1]) or 4),
                    **given,
                )


def collisions(source):
    """Car and person, each with the time until it passes the goal."""
    place = base(source, "collision", "task-main") / "level-default"
    expected = "collision/task-main/maps/level-default/{car,person}-{dir,speed,answer}.txt beside {i}.png"
    told = {
        (who, what): source.text(place / f"{who}-{what}.txt", expected).splitlines()
        for who in ("car", "person")
        for what in ("dir", "speed", "answer")
    }
    for i, _ in enumerate(told["car", "answer"]):
        for who in ("car", "person"):
            row, id = picture(source, place / f"{i}.png", f"collision-{i}-{who}")
            row.number = i + 1
            given = [
                gold(row, told[key], i, f"{key[0]}-{key[1]}.txt")
                for key in (("car", "dir"), ("car", "speed"), ("person", "dir"), ("person", "speed"))
            ]
            yield made(
                row,
                id,
                TIMES.format(*given, who),
                gold(row, told[who, "answer"], i, f"{who}-answer.txt"),
                images=[image(source, place, i)],
                answer_type="number",
                task=who,
                cluster=f"collision-{i}",
                tolerance=1.0,
            )


def streets(source):
    """How far north and east the goal lies."""
    place = base(source, "google_map", "task-main") / "level1"
    for m in (1, 4, 5, 6, 9):
        expected = (
            f"answer-{m}.json, a list of the 20 pairs of answer-{m}.pkl. Write it once, where you trust the "
            "pickle; it is never loaded here."
        )
        row, _ = picture(source, place / f"answer-{m}.json", "")
        pairs = source.json(place / f"answer-{m}.json", expected)
        for j, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
            if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
                raise row.wrong(f"[{j}]", f"expected two whole numbers. Expected: {expected}")
            north, east = pair[0], -pair[1]  # the release counts west
            answer = (
                f"{'North' if north >= 0 else 'South'}: {abs(north)}, {'East' if east >= 0 else 'West'}: {abs(east)}"
            )
            yield made(
                row,
                f"google_map-{m}-{j}",
                STREETS,
                answer,
                images=[image(source, place, f"test{m}-{j}")],
                answer_type="plan",
                checker="displacement",
                task=f"map {m}",
                form="the way as North: n, East: n (or South, West)",
                north=north,
                east=east,
            )

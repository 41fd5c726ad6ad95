"""VSP, Visual Spatial Planning (arXiv 2407.01863, MIT): planning tasks and the perception they need, a part per task.

On disk: the folders of its repository (``maze``, ``blocks``, ``collision``, ``google_map``, each with ``task-*/maps``),
or one of the folders in them. ``example`` is never read. Pickles are never read either, so the answers of google_map
have to be converted to JSON once.
The questions use our own wording, without the two explanatory images of the release. Plans are graded by the rules of
the release. Its scorer of collision never credits the person's time, because of an indexing error; here car and person
are one item each, with the release's tolerance of 1.0.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from latent_reason.tasks import frozenlake_board as board
from latent_reason.tasks import vsp

from ..items import make_item
from ..options import split_options
from ..readers import Row

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
COLORS = {name[0]: name for name in ("red", "green", "blue", "yellow", "purple", "orange")}
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
        yield from maze_plans(source, vsp.plan_items, vsp.MAIN, "level{}", range(3, 9), MOVES)
    elif part == "maze_4":
        yield from maze_plans(source, vsp.check_items, vsp.TASK4, "level_step{}", (1, 3, 5, 7, 9), "Yes or No")
    elif scene == "maze":
        yield from maze_perception(source, f"task{task}")
    elif part == "blocks_main":
        yield from block_plans(source)
    elif scene == "blocks":
        yield from block_perception(source, f"task{task}")
    else:
        yield from collisions(source) if part == "collision" else streets(source)


def maze_plans(source, items, roots, name, levels, form):
    """Items of tasks/vsp.py at the available levels, with the question of the task: with ``--prompt bare`` a model gets
    the prompt of eval.run."""
    folders = {
        n: root for n in levels for root in reversed(roots) if (source.folder / root / "maps" / name.format(n)).is_dir()
    }
    if not folders:
        task = roots[1]
        raise FileNotFoundError(
            f"'{source.folder}' has no {name.format('*')}. Expected: "
            + EXPECTED.format(scene="maze", task=task, level=name.format("*"))
        )
    for item in items(source.folder, folders):
        img_folder = f"{folders[item.level]}/maps/{name.format(item.level)}/img".lstrip("/")
        yield make_item(
            *row_and_id(source, img_folder, item.id),
            item.question,
            item.answer,
            images=[find_image(source, PurePosixPath(img_folder), int(item.id[-4:]))],
            answer_type="plan" if item.checker == "vsp" else "text",
            checker=item.checker,
            task=f"level {item.level}",
            level=item.level,
            form=form,
            **{key: value for key, value in item.meta.items() if key in ("map", "moves")},
        )


def row_and_id(source, path, id):
    """The first arguments of ``make_item`` for an item that consists of files instead of a row."""
    return Row({}, source.folder / path, 0, source, EXPECTED), id


def maps_folder(source, scene, task):
    """The folder of a task's maps; the source may be the benchmark's root, the folder of a scene or that of the task."""
    candidates = [f"{scene}/{task}/maps", f"VSP-main/{scene}/{task}/maps", f"{task}/maps", "maps"]
    path = next((path for path in candidates if (source.folder / path).is_dir()), None)
    if path is None:
        raise FileNotFoundError(
            f"'{source.folder / candidates[0]}' is missing. Expected: "
            + EXPECTED.format(scene=scene, task=task, level="level*")
        )
    return PurePosixPath(path)


def level_folders(source, folder, *numbers):
    """(level, folder) of the available levels. Raises FileNotFoundError if there is none."""
    available = [(n, folder / f"level{n}") for n in numbers if (source.folder / folder / f"level{n}").is_dir()]
    if not available:
        raise FileNotFoundError(
            f"'{source.folder / folder}' has no level{numbers[0]}. Expected: levels "
            f"{', '.join(map(str, numbers))} of VSP."
        )
    return available


def text_numbers(source, folder):
    """The sorted numbers of the text files of a folder."""
    numbers = sorted(int(file.stem) for file in (source.folder / folder).glob("*.txt") if file.stem.isdecimal())
    if not numbers:
        raise FileNotFoundError(f"'{source.folder / folder}' has no numbered .txt. Copy the benchmark again.")
    return numbers


def find_image(source, folder, number):
    """The image with a number, PNG or JPEG."""
    path = folder / f"{number}.png"
    return source.picture(path.name, [folder], "img", source.folder / path, 0)


def gold_line(row, lines, number, file):
    if number >= len(lines) or not lines[number].strip():
        raise row.error("answer", f"{file} has no line {number + 1}. Copy it again.")
    return lines[number].strip()


def maze_perception(source, task):
    """Tasks 1 to 3 of the maze: is a cell a hole, where is the player, which table shows the maze."""
    for level, folder in level_folders(source, maps_folder(source, "maze", task), *range(3, 9)):
        for i in text_numbers(source, folder / ("pure_text" if task == "task2" else "question")):
            row, id = row_and_id(source, folder / "img" / f"{i}.png", f"maze-{task}-L{level}-{i}")

            def text(name, folder=folder, i=i):
                expected = EXPECTED.format(scene="maze", task=task, level=folder.name)
                return source.text(folder / name / f"{i}.txt", expected)

            fields = {"images": [find_image(source, folder / "img", i)], "task": f"level {level}", "level": level}
            if task == "task1":
                answer = {"Y": "Yes", "N": "No"}.get(text("answer").strip())
                if answer is None:
                    raise row.error("answer", "is neither Y nor N. Copy the benchmark again.")
                yield make_item(
                    row, id, text("question"), answer, answer_type="text", checker="yes_no", form="Yes or No", **fields
                )
            elif task == "task2":
                position = relative_position(board.from_words(text("pure_text")))
                yield make_item(
                    row,
                    id,
                    "Where is the player, seen from the goal?",
                    position,
                    answer_type="set",
                    form="Above or Below, and Left or Right (what is equal is left out),",
                    **fields,
                )
            else:
                *_, index = text("answer").split()
                if index not in "0123" or len(index) > 1:
                    raise row.error("answer", f"'{index[:20]}' is not an index of four tables. Copy the files again.")
                question = f"Which table shows the picture? @ player, * goal, # hole, _ safe.\n{text('question')}"
                yield make_item(row, id, question, "ABCD"[int(index)], options=[""] * 4, **fields)


def relative_position(rows):
    """Above or Below, Left or Right: the position of the start relative to the goal. An equal coordinate is left out."""
    (r, c), (y, x) = board.find(rows, "S"), board.find(rows, "G")
    return ", ".join(["Above"] * (r < y) + ["Below"] * (r > y) + ["Left"] * (c < x) + ["Right"] * (c > x))


def block_plans(source):
    """Blocks: from the first image to the second."""
    for level, folder in level_folders(source, maps_folder(source, "blocks", "task-main"), 1, 3, 5, 7):
        lines = source.text(folder / "info.txt", EXPECTED.format(scene="blocks", task="task-main", level=folder.name))
        for i, line in enumerate(filter(str.strip, lines.splitlines())):
            row, id = row_and_id(source, folder / "info.txt", f"blocks-main-L{level}-{i}")
            row.number = i + 1
            cells = line.split("\t")
            if len(cells) < 6 or not all(set(code) <= set("0-RGBYPO") for code in (cells[0], cells[2])):
                raise row.error("info", "expected begin, towers, end, towers, length, plans, by tabs. Copy it again.")
            images = [find_image(source, folder / name, i) for name in ("input_img", "output_img")]
            yield make_item(
                row,
                id,
                STACKS,
                plan_in_task_format(cells[5]),
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
    """``GB0000-R00000-...``: stacks from the bottom, by the initials of their colors."""
    return [[COLORS[letter.lower()] for letter in stack if letter != "0"] for stack in code.split("-")]


def plan_in_task_format(plan):
    """``move(o,y,0) move(b,table,1)`` as ``move(o,y);move(b,table)``."""
    return ";".join(move.rpartition(",")[0] + ")" for move in plan.split())


def block_perception(source, task):
    """Tasks 1 to 4 of blocks: a color, two kinds of choices, whether a plan can be executed."""
    for level, folder in level_folders(
        source, maps_folder(source, "blocks", task), *((1, 3, 5, 7) if task == "task4" else (3, 4, 5))
    ):
        expected = EXPECTED.format(scene="blocks", task=task, level=folder.name)
        lines = source.text(folder / "annotation.txt", expected).splitlines()
        for i in text_numbers(source, folder / "text_input"):
            row, id = row_and_id(source, folder / "annotation.txt", f"blocks-{task}-L{level}-{i}")
            row.number = i + 1
            question = source.text(folder / "text_input" / f"{i}.txt", expected)
            fields = {
                "images": [find_image(source, folder / "image_input", i)],
                "task": f"level {level}",
                "level": level,
            }
            if task == "task1":
                yield make_item(
                    row,
                    id,
                    question,
                    gold_line(row, lines, i, "annotation.txt"),
                    answer_type="text",
                    form="the colour",
                    **fields,
                )
            elif task == "task4":
                answer = "Yes" if str(i) in map(str.strip, lines) else "No"
                yield make_item(
                    row,
                    id,
                    f"Can this plan be carried out?\n{question}",
                    answer,
                    answer_type="text",
                    checker="yes_no",
                    form="Yes or No",
                    **fields,
                )
            else:
                index = gold_line(row, lines, i, "annotation.txt")
                if index not in tuple("0123456789"):
                    raise row.error("answer", f"'{index[:20]}' is not an index of an option. Copy the files again.")
                instruction = "Which of these shows the picture?\n" * (task == "task3")
                yield make_item(
                    row,
                    id,
                    instruction + question,
                    "ABCDEFGHIJ"[int(index)],
                    options=[""] * (len(split_options(question)[1]) or 4),
                    **fields,
                )


def collisions(source):
    """Car and person, each with the time until it passes the goal."""
    folder = maps_folder(source, "collision", "task-main") / "level-default"
    expected = "collision/task-main/maps/level-default/{car,person}-{dir,speed,answer}.txt beside {i}.png"
    lines_by_name = {
        (who, what): source.text(folder / f"{who}-{what}.txt", expected).splitlines()
        for who in ("car", "person")
        for what in ("dir", "speed", "answer")
    }
    for i, _ in enumerate(lines_by_name["car", "answer"]):
        for who in ("car", "person"):
            row, id = row_and_id(source, folder / f"{i}.png", f"collision-{i}-{who}")
            row.number = i + 1
            values = [
                gold_line(row, lines_by_name[key], i, f"{key[0]}-{key[1]}.txt")
                for key in (("car", "dir"), ("car", "speed"), ("person", "dir"), ("person", "speed"))
            ]
            yield make_item(
                row,
                id,
                TIMES.format(*values, who),
                gold_line(row, lines_by_name[who, "answer"], i, f"{who}-answer.txt"),
                images=[find_image(source, folder, i)],
                answer_type="number",
                task=who,
                cluster=f"collision-{i}",
                tolerance=1.0,
            )


def streets(source):
    """The displacement of the goal to the north and the east."""
    folder = maps_folder(source, "google_map", "task-main") / "level1"
    for m in (1, 4, 5, 6, 9):
        expected = (
            f"answer-{m}.json, a list of the 20 pairs of answer-{m}.pkl. Write it once, where you trust the "
            "pickle; it is never loaded here."
        )
        row, _ = row_and_id(source, folder / f"answer-{m}.json", "")
        pairs = source.json(folder / f"answer-{m}.json", expected)
        for j, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
            if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
                raise row.error(f"[{j}]", f"expected two whole numbers. Expected: {expected}")
            north, east = pair[0], -pair[1]  # the release counts west
            answer = (
                f"{'North' if north >= 0 else 'South'}: {abs(north)}, {'East' if east >= 0 else 'West'}: {abs(east)}"
            )
            yield make_item(
                row,
                f"google_map-{m}-{j}",
                STREETS,
                answer,
                images=[find_image(source, folder, f"test{m}-{j}")],
                answer_type="plan",
                checker="displacement",
                task=f"map {m}",
                form="the way as North: n, East: n (or South, West)",
                north=north,
                east=east,
            )

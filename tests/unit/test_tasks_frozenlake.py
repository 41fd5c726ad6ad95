"""Boards, traces and words of the FrozenLake tasks."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks import frozenlake_board as board
from latent_reason.tasks import frozenlake_words as words
from latent_reason.tasks.base import MODES
from latent_reason.tasks.frozenlake_reading import NAMES
from latent_reason.tasks.item import TURNS
from latent_reason.tasks.stream import Stream
from latent_reason.trace import Image, Sketch, Text


def brute(rows):
    """Shortest length and number of shortest plans by powers of the table of moves."""
    n, index = len(rows), lambda cell: cell[0] * len(rows) + cell[1]
    table = np.zeros((n * n, n * n), int)
    for cell in np.ndindex(n, n):
        for r, c in board.MOVES.values():
            to = (cell[0] + r, cell[1] + c)
            if all(0 <= v < n for v in to) and "H" not in (rows[to[0]][to[1]], rows[cell[0]][cell[1]]):
                table[index(cell), index(to)] = 1
    ways = np.eye(n * n, dtype=int)[index(board.find(rows, "S"))]
    for length in range(1, n * n):
        ways = ways @ table
        if count := ways[index(board.find(rows, "G"))]:
            return length, count
    return None


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_solver_agrees_with_brute_force(n):
    for i in range(500):
        rows = board.draw(Stream.of("solve", n, i), n)
        assert board.solve(rows) == brute(rows)


def test_canonical_path_keeps_its_direction():
    assert board.shortest(["SFF", "FFF", "FFG"]) == "DDRR"
    assert board.shortest(["FFF", "GFF", "FFS"]) == "ULL"
    assert board.shortest(["SFF", "HFF", "FFG"]) == "RRDD"


def test_walks():
    rows = ["SFF", "FHF", "FFG"]
    assert board.walk(rows, "LD") == [(0, 0), (0, 0), (1, 0)]
    assert board.walk(rows, "DRRR")[-1] == (1, 1)
    assert board.state_of(rows, "DRU") == {"map": rows, "elf": [1, 1], "facing": "R"}
    assert board.map_line(board.state_of(rows, "DR")) == "S F F / F X F / F F G"


def test_lengths_are_even_and_plans_solve():
    task = tasks.make("frozenlake_plan", level=5)
    counts = Counter(board.solve(task.puzzle(5, i)["map"])[0] for i in range(350))
    assert set(counts) == set(range(1, 8)) and min(counts.values()) > 30
    wild = tasks.make("frozenlake_plan", level=6, dist="vsp")
    mean = np.mean([board.solve(wild.puzzle(6, i)["map"])[0] for i in range(400)])
    assert 4.0 < mean < 4.7  # 4.34 for the benchmark's own draw


@pytest.mark.parametrize("name", ["frozenlake_plan", "plan_check"])
def test_every_mode_holds_the_answer_and_its_sketches(name):
    task = tasks.make(name, level=(4, 6), skin="drawn")
    for i in range(16):
        item = task[i]
        json.dumps(item.meta)
        drawn = [s for s in item.steps if s.sketch is not None]
        for mode in MODES:
            trace = task.trace(item, mode)
            parts = trace.messages[-1].content
            assert task.check(trace.assistant_text(), item.meta).ok
            assert isinstance(parts[-1], Text) and parts[-1].text.endswith(f"\\boxed{{{item.answer}}}")
            assert len(trace.sketches()) == (len(drawn) if mode in ("mixed", "vision") else 0)
            assert not any(isinstance(a, Text) and isinstance(b, Text) for a, b in pairwise(parts))
            assert trace.images() == item.images
        text = task.trace(item, "text").assistant_text()
        assert all(board.map_line(step.state) in text for step in drawn)
        assert not any(board.map_line(s.state) in task.trace(item, "mixed").assistant_text() for s in drawn)
        assert "".join(words.moves_in(" ".join(s.text for s in item.steps))) == "".join(item.meta["chunks"])
        for step in drawn:
            if not step.redundant:
                assert step.sketch.tobytes() != item.images[0].tobytes()
            assert name == "plan_check" or board.cell_at(step.state["map"], step.state["elf"]) == "F"


def test_controls():
    task = tasks.make("frozenlake_plan", level=6, length=(5, 8))
    item = task[0]
    gold = task.trace(item).sketches()
    copied, shuffled = (task.trace(item, "mixed", control) for control in ("copy", "shuffle"))
    assert len(gold) == len(copied.sketches()) == len(shuffled.sketches()) > 0
    assert all(s.image is item.images[0] and s.redundant for s in copied.sketches())
    assert all(s.state["map"] != item.meta["map"] and s.image.size == item.images[0].size for s in shuffled.sketches())
    assert task.trace(item, "mixed", "shuffle").sketches()[0].image.tobytes() == shuffled.sketches()[0].image.tobytes()
    blind = task.blind(item)
    assert len(blind.images()[0].getcolors()) == 1 and blind.sketches()[0].image is gold[0].image
    twin = task.text_twin(item)
    assert not twin.images() and twin.answer == item.answer and "This is a 6x6 map." in twin.messages[0].content[0].text
    with pytest.raises(ValueError, match="no mode 'words'"):
        task.trace(item, "words")


def test_chunks_and_state_clauses_follow_their_options():
    def steps(**options):
        task = tasks.make("frozenlake_plan", level=6, length=(6, 8), skin="drawn", **options)
        return [step for i in range(12) for step in task[i].steps]

    assert {len(words.moves_in(s.text)) for s in steps()} == {1, 2, 3}
    assert {len(words.moves_in(s.text)) for s in steps(chunk=(1, 1))} == {1}
    assert not any("row" in s.text for s in steps(omit_state_p=1.0))
    assert all("row" in s.text for s in steps(omit_state_p=0.0) if s.sketch is not None)


def test_oracle_sketches_report_as_right():
    for name in ("frozenlake_plan", "plan_check"):
        task = tasks.make(name, level=(5, 6))
        for i in range(10):
            item = task[i]
            drawn = [s for s in item.steps if s.sketch is not None]
            texts = [s.text for s in drawn]
            report = task.sketch_report([s.sketch for s in drawn], item, texts)
            assert report["count"] == len(drawn)
            assert all(all(s[k] for k in ("valid", "equal", "gold", "legal")) for s in report["sketches"])
            json.dumps(report)
            said = []
            for step, text in zip(drawn, texts, strict=True):
                said.append(text)
                assert task.render_state(item, task.state_said(item, said)).tobytes() == step.sketch.tobytes()
            if drawn and name == "frozenlake_plan":
                copied = task.sketch_report(item.images * len(drawn), item, texts)
                assert copied["valid"] == 1 and copied["equal"] == copied["gold"] == copied["legal"] == 0


def test_moves_read_back_from_every_wording():
    state = board.state_of(["SFF", "FHF", "FFG"], "DR")
    for template in words.CHUNKS:
        for moves in ("D", "LL", "URD"):
            text = template.format(moves=" ".join(moves))
            for more in (*words.PLACES, *words.FALLS, *words.MAPS):
                tail = more.format(cell="row 2 column 3", map=board.map_line(state))
                assert words.moves_in(f"{text} {tail} \\boxed{{U,U}}") == list(moves)
    assert words.moves_in("Go down , Right. Action plan: U") == ["D", "R"]
    slots = [
        words.PLAN_QUESTIONS,
        words.CHECK_QUESTIONS,
        words.FATE_QUESTIONS,
        words.CHUNKS,
        words.PLACES,
        words.FALLS,
        words.MAPS,
    ]
    assert all(len(set(slot)) >= 5 for slot in slots)


def test_corruption_changes_one_move():
    text = "Go D D R. Now at row 3 column 2. \\boxed{D,D,R}"
    for i in range(20):
        wrong = words.corrupt(text, Stream(str(i)))
        assert sum(a != b for a, b in zip(words.moves_in(text), words.moves_in(wrong), strict=True)) == 1
        assert wrong.endswith("Now at row 3 column 2. \\boxed{D,D,R}")
    assert words.corrupt("nothing here \\boxed{D}", Stream("x")) == "nothing here \\boxed{D}"


@pytest.mark.parametrize("name", ["frozenlake_plan", "plan_check"])
def test_reading_traces_tell_the_truth(name):
    task = tasks.make(name, level=(4, 5))
    kinds = Counter()
    for i in range(150):
        trace = task.reading_trace(i)
        asked = [m.content[-1].text for m in trace.messages[::2]]
        told = [m.content[0].text for m in trace.messages[1::2]]
        states = trace.meta["states"]
        whole = len(asked) == 2 and board.map_line(states[-1]) in told  # most read the map and the way, nothing else
        kinds["whole"] += whole
        assert whole or 4 <= len(asked) <= 8
        assert len(asked) == len(told) == len(set(asked))
        assert [len(m.content) for m in trace.messages[::2]] == [1 + len(states)] + [1] * (len(asked) - 1)
        for image, state in zip(trace.images(), states, strict=True):
            assert board.same(task.parse_sketch(image, trace.meta).state, state)
        shown = board.letters(states[-1])
        kinds["two"] += len(states) == 2
        kinds["map"] += board.map_line(states[-1]) in told
        if len(states) == 2:
            moves = next(t for t in told if "The elf moved" in t).split(" from ")[0].split()[3:]
            assert board.walk(states[0]["map"], moves, tuple(states[0]["elf"]))[-1] == tuple(states[1]["elf"])
        for q, a in zip(asked, told, strict=True):
            if q.startswith("What is at row"):
                r, c = (int(w.strip("?")) - 1 for w in q.split() if w.strip("?").isdigit())
                assert a == NAMES[shown[r][c]]
    assert 8 < kinds["two"] < 40 and 90 < kinds["whole"] < 135 and kinds["map"] > kinds["whole"] + 8
    assert all(isinstance(p, Image | Text | Sketch) for m in trace.messages for p in m.content)


def test_perception_asks_about_the_problem_picture():
    task = tasks.make("frozenlake_plan", level=4)
    pairs = dict(p for k in range(12) for p in task.perception(task[2], k))
    answer = board.map_line(board.state_of(task[2].meta["map"]))
    assert answer in pairs.values() and len(pairs) > 20


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_picture_shows_the_board_whose_plan_is_asked_for(turn):
    task = tasks.make("frozenlake_plan", level=5, skin="drawn")
    for item in task.take(6):
        other = task.turned(item, turn)
        whole = task.render_state(other, task.shown(other))  # the elf upright, all else as when turned
        off = np.abs(np.asarray(other.images[0], int) - np.asarray(whole, int))
        cells = np.argwhere(off.reshape(5, 64, 5, 64, 3).mean((1, 3, 4)) > 40)
        assert {tuple(c) for c in cells} <= {board.find(other.meta["map"], "S")}
        assert task.check(f"\\boxed{{{other.answer}}}", other.meta).ok and other.meta["map"] != item.meta["map"]
        assert (other.question, other.meta["optimum"]) == (item.question, item.meta["optimum"])

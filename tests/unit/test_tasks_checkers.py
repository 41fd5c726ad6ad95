"""Rules accept every gold answer, reject mutated ones and survive any text."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason import tasks
from latent_reason.tasks import checkers, vsp
from latent_reason.tasks import frozenlake_words as words
from latent_reason.tasks.checkers import boxed, plan
from latent_reason.tasks.stream import Stream

MAP = ["SFF", "FHF", "FFG"]  # the elf must go around the hole
META = {"map": MAP, "moves": "DDRR"}
PLAN_RULES = ("vsp", "mirage", "exact", "exact_strict", "progress")
RULES = (*PLAN_RULES, "vsp_task4", "mirage_check")


@pytest.mark.parametrize(
    "text, ok, reason",
    [
        ("\\boxed{D,D,R,R}", True, "goal"),
        ("\\boxed{DDRR}", True, "goal"),
        ("\\boxed{Down, down, Right RIGHT}", True, "goal"),
        ("so Action plan: D,D,R,R.", True, "goal"),
        ("Action Plan: \"D\", 'D',\nR, R.", True, "goal"),
        ("Action plan: D,D,R,R,banana", True, "goal"),  # garbage after the first arrival
        ("Action plan: D,banana,D,R,R", False, "bad_piece"),
        ("Action plan: L,U,D,D,R,R", True, "goal"),  # moves off the edge do nothing
        ("Action plan: D,R,D,R", False, "hole"),
        ("Action plan: D,D,R", False, "short"),
        ("Action plan: " + "L," * 100 + "D,D,R,R", False, "short"),
        ("D,D,R,R", False, "no_plan"),
    ],
)
def test_vsp(text, ok, reason):
    result = checkers.vsp(text, META)
    assert (result.ok, result.reason) == (ok, reason)


def test_vsp_keeps_the_benchmarks_own_parse_on_request():
    assert checkers.vsp("\\boxed{U} Action plan: D,D,R,R", META, style="action_plan").ok
    assert checkers.vsp("\\boxed{D,D,R,R}", META, style="action_plan").reason == "no_plan"


@pytest.mark.parametrize(
    "text, ok",
    [
        ("\\boxed{DDRR}", True),
        ("\\boxed{down, down, right, right}", True),
        ("\\boxed{D,D,R,R,L}", False),
        ("\\boxed{D,R,D,R}", False),
        ("\\boxed{}", False),
        ("D,D,R,R", False),
        ("\\boxed{LLDDRR}", True),
    ],
)
def test_mirage(text, ok):
    assert checkers.mirage(text, META).ok == ok


def test_mirage_warns_of_commands():
    assert "beware" in checkers.mirage("\\boxed{D \\rightarrow D}", META).reason


@pytest.mark.parametrize(
    "pieces, share, strict",
    [
        ("D,D,R,R", 1, True),
        ("D,D,R,R,U", 1, False),
        ("R,R,D,D", 1, True),
        ("D,D,R", 0.75, False),
        ("L,D,D,R,R", 0, False),
        ("D,R,R,D", 0.25, False),
        ("D,U,D,D,R,R", 0.25, False),
    ],
)
def test_progress_and_exact(pieces, share, strict):
    text = f"\\boxed{{{pieces}}}"
    assert checkers.progress(text, META).partial == share
    assert checkers.exact(text, META).ok == (share == 1)
    assert checkers.exact_strict(text, META).ok == strict


@pytest.mark.parametrize(
    "text, said",
    [
        ("<Output> Yes", "Yes"),
        ("**Output**: No.", "No"),
        ('Output - "yes"', "Yes"),
        ("<Output> Not safe", "No"),
        ("<Output> yes or no", None),
        ("<Output> it is very Yes", None),
        ("Yes", None),
        ("\\boxed{Yes}", "Yes"),
        ("\\boxed{no}", "No"),
    ],
)
def test_vsp_task4(text, said):
    result = checkers.vsp_task4(text, META)
    assert result.parsed == said and result.ok == (said == "Yes")


def test_the_goal_does_not_end_a_check():
    assert checkers.vsp_task4("\\boxed{No}", {"map": ["SGH", "FFF", "FFF"], "moves": "RR"}).ok


@pytest.mark.parametrize("moves, fate", [("DDRR", "A"), ("DR", "B"), ("DD", "C"), ("DDRRU", "C")])
def test_mirage_check(moves, fate):
    for letter in "ABC":
        for form in (letter, f"({letter})", f"{letter.lower()}. gift"):
            assert checkers.mirage_check(f"\\boxed{{{form}}}", {"map": MAP, "moves": moves}).ok == (letter == fate)
    assert not checkers.mirage_check(fate, {"map": MAP, "moves": moves}).ok


def test_boxed():
    assert boxed("\\boxed{a} \\boxed{b{c}d}") == "b{c}d"
    assert boxed("\\boxed{a} \\boxed{b") == "a"
    assert boxed("\\boxed{a \\boxed{b} c}") == "b"
    assert boxed("no } box {") is None
    assert boxed("\\boxed{" * 100_000 + "x}") == "x"  # in linear time
    assert plan("\\boxed{}") == [] and plan("", "boxed") is None


PIECES = st.sampled_from(
    [
        "\\boxed{",
        "}",
        "{",
        "Action plan: ",
        "Action Plan: ",
        "<Output>",
        "**Output**",
        "Output",
        "Yes",
        "no",
        "A",
        "B",
        "U",
        "D,",
        "L",
        "R,",
        "Down",
        ",",
        "\n",
        '"',
        "\\rightarrow",
        "ß",
        "\x00",
    ]
)
TEXTS = st.text(max_size=60) | st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_no_text_breaks_a_rule(text):
    corrupt = words.corrupt(text, Stream("x"))
    for rule in RULES:
        result = getattr(checkers, rule)(text, META)
        assert 0 <= result.partial <= 1 and isinstance(result.ok, bool)
    assert set(words.moves_in(corrupt)) <= set("UDLR") and len(words.moves_in(corrupt)) == len(words.moves_in(text))


@pytest.mark.parametrize("path", ["canonical", "random"])
def test_gold_plans_pass_and_mutated_ones_fail(path):
    task = tasks.make("frozenlake_plan", level=(3, 4, 5, 6), path=path)
    for i in range(40):
        item = task[i]
        assert task.check(f"\\boxed{{{item.answer}}}", item.meta).ok
        assert set(task.score(f"Action plan: {item.answer}", item.meta).values()) == {1.0}
        moves = item.answer.split(",")
        for k, move in enumerate(moves):
            for other in {*"UDLR", "X"} - {move}:
                wrong = ",".join([*moves[:k], other, *moves[k + 1 :]])
                assert not task.check(f"\\boxed{{{wrong}}}", item.meta).ok
                assert task.score(f"\\boxed{{{wrong}}}", item.meta)["progress"] < 1
        assert not task.check(f"\\boxed{{{','.join(moves[:-1])}}}", item.meta).ok


@pytest.mark.parametrize("answers, words", [("yesno", {"Yes", "No"}), ("abc", {"A", "B", "C"})])
def test_gold_checks_pass_and_mutated_ones_fail(answers, words):
    task = tasks.make("plan_check", level=(1, 4, 9), answers=answers)
    seen = set()
    for i in range(40):
        item = task[i]
        seen.add(item.answer)
        for word in words:
            assert task.score(f"\\boxed{{{word}}}", item.meta) == {"accuracy": float(word == item.answer)}
    assert seen == words


def test_blind_lines_are_known(capsys):
    """The best constant plan on train, scored on val: what success means only beside it."""
    task = tasks.make("frozenlake_plan", level=(3, 4, 5, 6), skin="drawn")
    train = [task[i] for i in range(400)]
    held = [tasks.make("frozenlake_plan", level=(3, 4, 5, 6), split="val", skin="drawn")[i] for i in range(60)]
    lines = []
    for rule in ("vsp", "mirage", "exact"):
        best, share = vsp.constant_plan(train, rule)
        exactly = sum(getattr(checkers, rule)(f"\\boxed{{{best}}}", i.meta).ok for i in train) / len(train)
        assert exactly == pytest.approx(share)  # the search simulates what the rule does
        on_val = sum(getattr(checkers, rule)(f"\\boxed{{{best}}}", i.meta).ok for i in held) / len(held)
        lines.append(f"constant plan, {rule}: {share:.3f} on train, {on_val:.3f} on val ({best})")
        assert share < {"vsp": 0.5, "mirage": 0.2, "exact": 0.3}[rule]
    blind = sum(checkers.vsp(f"\\boxed{{{vsp.hole_blind(i)}}}", i.meta).ok for i in train) / len(train)
    with capsys.disabled():
        print("", *lines, f"hole-blind plan, vsp: {blind:.3f}", sep="\n  ")
    assert blind < 0.8


def test_moves_alone_do_not_tell_the_class():
    """Length, distinct cells, reversals and counts of the moves predict a plan check no better than chance."""
    task = tasks.make("plan_check", level=(1, 3, 5, 7), skin="drawn")
    puzzles = [task.puzzle(task.levels[i % 4], i) for i in range(2000)]
    labels = np.array([task.answer(p) == "Yes" for p in puzzles]) * 2 - 1
    rows = []
    for moves in (p["moves"] for p in puzzles):
        at, cells = (0, 0), {(0, 0)}
        for m in moves:
            at = (at[0] + (m == "D") - (m == "U"), at[1] + (m == "R") - (m == "L"))
            cells.add(at)
        turns = sum(a + b in ("UD", "DU", "LR", "RL") for a, b in pairwise(moves))
        rows.append([1, len(moves), len(cells), turns, *map(moves.count, "UDLR")])
    x = np.array(rows, float)
    weights = np.linalg.lstsq(x[:1000], labels[:1000], rcond=None)[0]
    right = ((x[1000:] @ weights > 0) == (labels[1000:] > 0)).mean()
    assert abs(labels.mean()) < 0.1 and right < 0.55, right

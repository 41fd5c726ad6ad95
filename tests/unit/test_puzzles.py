"""The rules of puzzles, on a small puzzle of each kind of MM-HELIX."""

from __future__ import annotations

import pytest
from benchmark_samples import SAMPLES, WRITERS, grey, image, label, read, sample, written
from benchmark_samples.mm_helix import PUZZLES
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.benchmarks import mm_helix
from eval.constants import best_constant
from eval.scoring import judge


def test_all_kinds_of_puzzles_have_a_miniature():
    kinds = {puzzle.category.lower().replace("_", "") for puzzle in PUZZLES}
    aliases = {"twentyfourpoints", "isomorphism", "nonograms", "connectivitytest"}
    assert len(kinds) == 42 and kinds >= set(mm_helix.CHECKERS) - aliases


@pytest.mark.parametrize("one", [one for one in SAMPLES if one.name == "mm_helix"], ids=label)
def test_published_solutions_of_puzzles_are_right_and_answers_near_them_wrong(one, tmp_path):
    with read("mm_helix", one.write(tmp_path)) as (items, said):
        assert said["left_out"] is None and len(items) == len(PUZZLES)
        for item, puzzle in zip(items, PUZZLES, strict=True):
            for answer in (item.answer, *puzzle.others):
                assert judge(f"I think.\n\\boxed{{{answer}}}", item).is_right, (item.id, answer)
                assert judge(f"<answer>{answer}</answer>", item).is_right, (item.id, answer)
            for answer in puzzle.wrong:
                assert not judge(f"\\boxed{{{answer}}}", item).is_right, (item.id, answer)
                assert not judge(f"<answer>{answer}</answer>", item).is_right, (item.id, answer)
            for answer in ("", "I do not know", "[", "(1,", "0" * 30_000, "|||", "No such"):
                assert not judge(f"\\boxed{{{answer}}}", item).is_right, (item.id, answer)


@pytest.fixture(scope="module")
def puzzle_items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("puzzles")
    with read("mm_helix", written("mm_helix", folder)) as (items, _):
        return items


@settings(max_examples=60, deadline=None)
@given(st.text("0123456789()[]{},|-:=>.*+/XxABCDno updownlefright\n\\\"'", max_size=80))
def test_no_text_makes_a_rule_of_puzzles_fail(puzzle_items, text):
    for item in puzzle_items:
        assert judge(f"\\boxed{{{text}}}", item).is_right in (True, False)


def test_no_constant_answer_solves_both_sides_of_a_kind(tmp_path):
    with read("mm_helix", written("mm_helix", tmp_path)) as (items, _):
        for kind in ("hamiltonian_path", "hamiltonian_cycle", "eulerian_path", "eulerian_cycle"):
            chosen = [item for item in items if item.task == kind]
            assert [judge("\\boxed{No}", item).is_right for item in chosen] == [False, True]
            assert best_constant(chosen) == 0.5


@pytest.mark.parametrize("state", [None, "", "x", [], {}, [[]], {"regions": 3}, [[1, "a"], None], "[[", 7])
def test_a_state_that_a_rule_cannot_use_leaves_the_puzzle_out(state, tmp_path):
    rows = next(iter(sample("mm_helix").files.values()))
    by_gold = {"number", "yes_no", "mines", "snake_path", "word_search", "word_ladder"}
    with_state = [row for row, told in zip(rows, sample("mm_helix").items, strict=True) if told[3] not in by_gold]
    good = [row for row in rows if row["category"] == "graph_isomorphism"]
    WRITERS[".json"](tmp_path / "annotations.json", [row | {"initial_state": state} for row in with_state] + good)
    image(tmp_path / "images/1.png", 1)
    with read("mm_helix", tmp_path) as (items, said):
        solvable = {item.task for item in items} - {"graph_isomorphism"}
        assert all(item.answer == "No" for item in items if item.task in solvable), "no state is needed for No"
        assert "does not accept the gold answer" in said["left_out"]


def test_pairs_of_graphs_count_together(tmp_path):
    row = next(row for row in sample("mm_helix").files["annotations.json"] if row["category"] == "graph_isomorphism")
    rows = [row | {"index": str(k), "image": ["images/1.png", "images/2.png"][:: 1 - 2 * k]} for k in (0, 1)]
    WRITERS[".json"](tmp_path / "annotations.json", rows)
    for k in (1, 2):
        image(tmp_path / f"images/{k}.png", k)
    with read("mm_helix", tmp_path) as (items, _):
        assert [[grey(p) for p in item.images] for item in items] == [[1, 2], [2, 1]]
        assert items[0].cluster == items[1].cluster

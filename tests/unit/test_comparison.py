"""Result files compared by item: what is paired, what is refused, and the table in every format."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import EMPTY, ROOT, short, tiny_checkpoint

from eval import compare, run
from eval.comparison import System, compare_systems, systems_of_arms
from eval.comparison_table import latex
from eval.statistics import holm, mcnemar, paired_p
from train.compare import place_of, print_table
from train.config import CompareConfig, load

PROTOCOL = {"prompt": "boxed", "metric": "accuracy", "questions": "abc"}


def put(folder, name: str, right: str, ids=None, clusters=None, **changes) -> str:
    """A result of eval.benchmark with its items; ``right`` has one digit an item."""
    share = sum(map(int, right)) / len(right)
    result = {"task": "all", "metric": "accuracy", "n": len(right), "value": share, "low": 0, "high": 1, "chance": None}
    report = {
        "schema": 1,
        "kind": "benchmark",
        "checkpoint": f"checkpoints/{name}",
        "method": "mirage",
        "benchmark": "mmvp",
        "protocol": PROTOCOL,
        "seed": 0,
        "results": [result],
    }
    (folder / f"{name}.json").write_text(json.dumps(report | changes))
    ids = ids or [f"q{place}" for place in range(len(right))]
    items = [
        {"id": key, "task": "pairs", "right": mark == "1", "latents": [4, 4], "tokens": 9, "seconds": 0.5}
        | ({"cluster": clusters[place]} if clusters else {})
        for place, (key, mark) in enumerate(zip(ids, right, strict=True))
    ]
    (folder / f"{name}.items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(folder / f"{name}.json")


def arms(**right) -> list[dict]:
    """Rows of train.compare: arm=[a text of digits for each seed]."""
    return [
        {
            "arm": name,
            "seed": seed,
            "n": len(marks),
            "success": {"value": sum(map(int, marks)) / len(marks), "low": 0, "high": 1},
            "right": marks,
            "latents_per_answer": 2.0,
            "words_per_answer": 10.0,
            "seconds_per_answer": 0.01,
            "probes": {"foreign": {"accuracy": 0.25, "follow_rate": 0.5, "follow_by_chance": 0.125}},
        }
        for name, seeds in right.items()
        for seed, marks in enumerate(seeds)
    ]


# -- statistics --------------------------------------------------------------------------------------------------------
def test_the_first_is_the_reference_and_p_values_are_corrected():
    first, better, worse = "0" * 20 + "1" * 20, "1" * 30 + "0" * 5 + "1" * 5, "0" * 34 + "1" * 6
    reference, *others = compare_systems(systems_of_arms(arms(first=[first], better=[better], worse=[worse])))
    assert reference.difference is None and reference.p is None and reference.share.estimate == 0.5
    right = {name: [int(mark) for mark in marks] for name, marks in (("1", first), ("2", better), ("3", worse))}
    raw = [mcnemar(right[name], right["1"]).p for name in ("2", "3")]
    assert [line.p for line in others] == pytest.approx(holm(raw)) and others[1].p == 2 * min(raw)
    assert [line.difference.estimate for line in others] == pytest.approx([0.375, -0.35])
    assert others[0].difference.low > 0 > others[1].difference.high


def test_seeds_of_one_item_are_resampled_together():
    """Two seeds that answer alike are no more items than one."""
    rng = np.random.default_rng(0)
    one = "".join(map(str, rng.integers(0, 2, 100)))
    (single,), (twice,) = (compare_systems(systems_of_arms(arms(a=seeds))) for seeds in ([one], [one, one]))
    assert twice.share.high - twice.share.low == pytest.approx(single.share.high - single.share.low, rel=0.1)
    assert twice.system.by_seed == {0: single.share.estimate, 1: single.share.estimate}


def test_a_start_of_one_seed_is_the_reference_of_arms_of_two():
    rows = arms(start=["0" * 60], arm=["1" * 40 + "0" * 20, "0" * 20 + "1" * 40])
    line = compare_systems(systems_of_arms(rows))[1]
    assert line.difference.estimate == pytest.approx(2 / 3) and line.p < 0.001


def test_permutations_agree_with_the_exact_test_and_respect_clusters():
    first, second = [1] * 12 + [0] * 4 + [1] * 24, [0] * 12 + [1] * 4 + [1] * 24
    exact = mcnemar(first, second).p
    assert paired_p(first, second) == exact
    halves = [value / 2 for value in first], [value / 2 for value in second]
    assert paired_p(*halves) == pytest.approx(exact, abs=0.01)
    assert paired_p(first * 2, second * 2, [*range(40)] * 2) == pytest.approx(exact, abs=0.01)
    assert paired_p(first * 2, second * 2) < exact / 5, "as independent items they are twice as many"
    assert paired_p([0.5] * 9, [0.5] * 9) == 1


def test_files_without_single_items_have_no_differences():
    rows = [{**row, "right": None} for row in arms(a=["01" * 30], b=["11" * 30])]
    for row in rows:
        del row["right"]
    lines = compare_systems(systems_of_arms(rows))
    assert [line.difference for line in lines] == [None, None] and lines[1].share.low < 1
    committed = compare.systems_of([str(ROOT / "paper_figs" / "data" / "compare.json")])[1]
    assert len(committed) == 17 and all(system.scores is None for system in committed)


def test_arms_of_other_items_are_refused():
    with pytest.raises(ValueError, match="'a' and 'b' were measured on other items"):
        systems_of_arms(arms(a=["010"], b=["01"]))


# -- files -------------------------------------------------------------------------------------------------------------
def test_items_are_paired_by_their_id(tmp_path, capsys):
    right = "1100110011" * 6
    a = put(tmp_path, "a", right)
    b = put(tmp_path, "b", right[::-1], ids=[f"q{place}" for place in range(60)][::-1])
    metric, systems = compare.systems_of([a, b])
    assert metric == "accuracy" and [system.name for system in systems] == ["a", "b"]
    assert (systems[0].scores == systems[1].scores).all() and systems[0].costs["latents"] == 8
    compare.main([a, b])
    shown = capsys.readouterr().out
    assert "+0.000" in shown and "Differences to 'a', paired by item" in " ".join(shown.split())


def test_items_of_one_cluster_are_resampled_together(tmp_path):
    clusters = [str(place // 4) for place in range(80)]
    files = [put(tmp_path, name, marks * 20, clusters=clusters) for name, marks in (("a", "1100"), ("b", "1110"))]
    line = compare_systems(compare.systems_of(files)[1])[1]
    assert line.difference.estimate == 0.25 and line.p < 0.01
    assert line.difference.low < 0.1, "twenty clusters that all differ alike, not twenty items of eighty"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"right": "01" * 5, "ids": [*(f"q{n}" for n in range(9)), "x"]}, r"1 are only in '.*a.json' \(pairs q9\)"),
        ({"protocol": PROTOCOL | {"prompt": "bare"}}, "other protocols: they differ in prompt"),
        ({"kind": "other"}, r"b.json' is not the JSON of eval.run, eval.benchmark or train.compare"),
        ({"ids": ["q0"] * 10}, r"b.items.jsonl', line 2: item 'pairs q0' occurs twice"),
    ],
)
def test_what_cannot_be_paired_is_named(tmp_path, change, said):
    a, b = put(tmp_path, "a", "01" * 5), put(tmp_path, "b", **{"right": "10" * 5} | change)
    with pytest.raises(SystemExit, match=said):
        compare.main([a, b])


def test_what_is_missing_is_named(tmp_path):
    a, b = (put(tmp_path, name, "01" * 5) for name in "ab")
    with pytest.raises(SystemExit, match=r"is one result\. Give two or more"):
        compare.main([a])
    with pytest.raises(SystemExit, match=r"--against: there is no 'bb'. Did you mean 'b'"):
        compare.main([a, b, "--against", "bb"])
    (tmp_path / "b.items.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"b.items.jsonl' does not exist.*Evaluate again"):
        compare.main([a, b])


def test_comparisons_are_read_together_if_they_are_one(tmp_path):
    about = {"command": "python -m train.compare", "steps": 5, "task": "wall_maze"}
    files = []
    for name, rows, steps in (("a", arms(x=["01"]), 5), ("b", arms(y=["11"]), 5), ("c", arms(z=["11"]), 6)):
        files.append(str(tmp_path / f"{name}.json"))
        (tmp_path / f"{name}.json").write_text(json.dumps(about | {"steps": steps, "results": rows}))
    assert [system.name for system in compare.systems_of(files[:2])[1]] == ["x", "y"]
    for chosen, said in (([0, 2], "differ in steps"), ([0, 0], None)):
        given = [files[place] for place in chosen]
        if said:
            with pytest.raises(ValueError, match=said):
                compare.systems_of(given)
        else:
            assert len(compare.systems_of(given)[1]) == 1, "a file that is named twice is read once"
    (tmp_path / "b.json").write_text(json.dumps(about | {"results": arms(x=["01"])}))
    with pytest.raises(ValueError, match="an arm occurs twice with one seed"):
        compare.systems_of(files[:2])


def test_two_runs_of_eval_run_are_compared(tmp_path, monkeypatch, capsys):
    short(monkeypatch)
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    for file in files:
        run.main([str(tiny_checkpoint()), "--levels", "3,4", "--n", "2", "--out", file])
    items = [json.loads(line) for line in (tmp_path / "a.items.jsonl").read_text().splitlines()]
    assert len(items) == 4 and {item["level"] for item in items} == {3, 4} and "success" in items[0]["scores"]
    metric, (first, second) = compare.systems_of(files)
    assert metric == "success" and first.n == 4 and (first.scores == second.scores).all()
    assert compare.systems_of(files, "frozenlake_plan test 4")[1][0].n == 2
    with pytest.raises(
        ValueError, match=r"no item is of 'frozenlake_plan test 5'. Did you mean 'frozenlake_plan test 4'"
    ):
        compare.systems_of(files, "frozenlake_plan test 5")
    for file in files:
        path = compare.items_path(file)
        vsp = [item | {"split": "vsp"} for item in items]
        path.write_text("".join(json.dumps(item) + "\n" for item in (*items, *vsp)))
    with pytest.raises(ValueError, match=r"several sets: frozenlake_plan test, frozenlake_plan vsp. Choose one"):
        compare.systems_of(files)
    assert compare.systems_of(files, "frozenlake_plan vsp")[1][0].n == 4
    report = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(report | {"seed": 2}))
    with pytest.raises(ValueError, match="differ in seed"):
        compare.systems_of(files)


# -- the table ---------------------------------------------------------------------------------------------------------
NAMES = {"direct": ["01" * 40] * 2, "an_arm_with_a_long_name": ["0111" * 20] * 2, "text_cot": ["0" * 80] * 2}


def test_the_console_has_80_columns_and_says_how_many_items_are_too_few(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "c.json").write_text(json.dumps({"command": "python -m train.compare", "results": arms(**NAMES)}))
    compare.main([str(tmp_path / "c.json"), "--against", "text_cot"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80 and "Differences to 'text_cot'" in " ".join(shown.split())
    assert "+0.500" in shown and "<0.001" in shown and "follows" in shown and "too few" not in shown
    (tmp_path / "few.json").write_text(
        json.dumps({"command": "python -m train.compare", "results": arms(a=["01" * 9])})
    )
    compare.main([str(tmp_path / "few.json")])
    shown = " ".join(capsys.readouterr().out.split())
    assert "18 items are too few for a conclusion: 50 are needed, 32 more." in shown


def test_the_table_is_written_in_three_formats_and_replaces_nothing(tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps({"command": "python -m train.compare", "results": arms(**NAMES)}))
    for ending in ("md", "csv", "tex"):
        words = [str(tmp_path / "c.json"), "--table", str(tmp_path / f"t.{ending}")]
        compare.main(words)
        with pytest.raises(SystemExit, match="exists, and nothing was changed"):
            compare.main(words)
        compare.main([*words, "--overwrite"])
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and "| `direct` | 0.500 (0.39-0.61) | 0.50, 0.50 |" in lines[2]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == list(NAMES) and float(rows[1]["difference"]) == 0.25
    assert rows[0]["difference"] == "" and float(rows[2]["p_holm"]) < 0.001 and rows[0]["follows_by_chance"] == "0.125"
    text = (tmp_path / "t.tex").read_text()
    assert "an\\_arm" in text and text.count("\\\\") == 4 and text.count("&") % 4 == 0 and "\\toprule" in text
    with pytest.raises(SystemExit, match=r"t.txt' does not end in .md, .csv, .tex"):
        compare.main([str(tmp_path / "c.json"), "--table", str(tmp_path / "t.txt")])


def test_names_are_shown_as_they_are(tmp_path, capsys):
    rows = arms(**{"[red]x[/red] | y": ["01" * 30], "b": ["01" * 30]})
    (tmp_path / "c.json").write_text(json.dumps({"command": "python -m train.compare", "results": rows}))
    compare.main([str(tmp_path / "c.json"), "--table", str(tmp_path / "t.md")])
    assert "[red]x[/red] | y" in capsys.readouterr().out
    assert "| `[red]x[/red] \\| y` |" in (tmp_path / "t.md").read_text()


def test_latex_prints_any_name_as_it_is():
    system = System("50% & a_b \\ #1 {x} ~ ^ $", 60, {0: 0.5}, np.ones((60, 1)))
    assert r"50\% \& a\_b \textbackslash{} \#1 \{x\} \textasciitilde{} \textasciicircum{} \$" in latex(
        compare_systems([system]), "success"
    )


# -- train.compare -----------------------------------------------------------------------------------------------------
def results_of(rows, wanted=lambda name, seed: True):
    return SimpleNamespace(rows=rows, is_wanted=wanted)


def test_a_comparison_says_where_it_stands():
    config = load(EMPTY, CompareConfig, arms={"a": {}, "b": {}, "c": {}}, seeds=[4, 7])
    left = results_of([], lambda name, seed: seed == 7 and name != "a")
    assert place_of(config, results_of([]), "b", 4, None) == "arm 2 of 3, seed 1 of 2"
    assert place_of(config, left, "b", 7, 300.0) == "arm 2 of 3, seed 2 of 2, about 10 min left"
    assert place_of(config, left, "c", 7, 20.0) == "arm 3 of 3, seed 2 of 2, about 40 s left"


def test_the_first_arm_of_the_recipe_is_first_whatever_was_trained_first(tmp_path, capsys):
    table = tmp_path / "t.csv"
    config = load(EMPTY, CompareConfig, arms={"one": {}, "two": {}}, table=str(table))
    print_table(config, results_of(arms(two=["0111" * 20], one=["01" * 40])))
    assert [row["name"] for row in csv.DictReader(table.read_text().splitlines())] == ["one", "two"]
    assert "Differences to 'one'" in " ".join(capsys.readouterr().out.split())

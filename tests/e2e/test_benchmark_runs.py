"""How a question of a benchmark is shown, what is counted together, and runs from folder to JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_samples import WRITERS, image, read, written
from conftest import CASES
from tiny_runs import tiny_checkpoint

from eval import benchmark, benchmarks, replies, selection
from eval.aggregate import result_rows, retention
from eval.items import PROMPTS, EvalItem, build_trace, prompt_text
from eval.statistics import wilson
from latent_reason import methods
from latent_reason.locks import open_locked
from latent_reason.trace import Text


# -- how a question is shown -------------------------------------------------------------------------------------------
def item(**changes) -> EvalItem:
    made = {
        "id": "i",
        "task": "t",
        "split": "test",
        "level": None,
        "images": (),
        "question": "Q?",
        "options": ("x", "y"),
        "answer": "B",
        "answer_type": "letter",
        "checker": "letter",
        "cluster": "i",
    }
    return EvalItem(**made | changes)


def test_prompts_say_question_options_and_the_form_of_the_answer():
    assert prompt_text(item(), "boxed") == "Q?\nA. x\nB. y\nPut the letter of the right option in \\boxed{}."
    assert prompt_text(item(options=("", "")), "bare") == "Q?"
    assert prompt_text(item(meta={"form": "the moves"}), "tag").endswith(
        "Write the moves between <answer> and </answer>."
    )
    assert (
        prompt_text(item(), "Look. {question} Say {form}!")
        == "Look. Q?\nA. x\nB. y Say the letter of the right option!"
    )
    assert set(PROMPTS) == {"boxed", "think", "tag", "direct", "bare"}


@pytest.mark.parametrize(
    "question, shown",
    [
        ("Q?", ["1", "2", "Q?"]),
        ("Is <image_2> like <image 1>?", ["Is ", "2", " like ", "1", "?"]),
        ("<image> or <image>?", ["1", " or ", "2", "?"]),
        ("<image_2>", ["1", "2"]),
        ("<image_2>: is <image_2> so?", ["1", "2", ": is ", "image 2 so?"]),
    ],
)
def test_pictures_stand_at_their_marks(question, shown, tmp_path):
    with read("blink", written("blink", tmp_path)) as (items, _):
        parts = (
            build_trace(item(question=question, options=(), images=items[0].images), "bare", "text").messages[0].content
        )
        assert [p.text if isinstance(p, Text) else str(p.image.getpixel((0, 0))[0]) for p in parts] == shown
        blind = build_trace(item(question=question, options=(), images=items[0].images), "boxed", "text", "removed")
        assert not blind.images() and "<image" not in str(blind.messages)
        grey_ones = build_trace(
            item(question=question, options=(), images=items[0].images), "bare", "text", "grey"
        ).images()
        assert {(p.size, p.getpixel((0, 0))) for p in grey_ones} == {((10, 10), (128, 128, 128))}


# -- what is counted together ------------------------------------------------------------------------------------------
def found(items, right, metric="accuracy", grouped=None) -> dict:
    return {(r["task"], r["metric"]): r for r in result_rows(items, right, [{}] * len(items), metric, grouped)}


def test_pairs_count_once_and_only_whole_ones():
    items = [item(cluster=f"pair {k // 2}") for k in range(7)]
    right = [True, True, True, False, False, False, True]
    told = found(items, right, grouped="pair_accuracy")
    assert told["all", "accuracy"]["value"] == round(4 / 7, 4)
    assert (told["all", "pair_accuracy"]["value"], told["all", "pair_accuracy"]["n"]) == (round(1 / 3, 4), 3)
    assert (told["all", "accuracy"]["chance"], told["all", "pair_accuracy"]["chance"]) == (0.5, 0.25)


def test_intervals_know_what_belongs_together():
    alone = [item(cluster=str(k)) for k in range(80)]
    cycles = [item(cluster=str(k // 4)) for k in range(80)]
    right = [k // 4 % 2 == 0 for k in range(80)]
    low, high = (found(alone, right)["all", "accuracy"][end] for end in ("low", "high"))
    assert (low, high) == tuple(round(x, 4) for x in wilson(40, 80)[1:])
    wide = found(cycles, right)["all", "accuracy"]
    assert wide["high"] - wide["low"] > 1.5 * (high - low)
    all_right = found(cycles, [True] * 80)["all", "accuracy"]
    assert (all_right["low"], all_right["high"]) == (round(wilson(20, 20).low, 4), 1.0)


def test_the_mean_of_categories_weighs_each_the_same():
    items = [item(task="a", cluster=str(k)) for k in range(30)] + [item(task="b", cluster=f"b{k}") for k in range(10)]
    told = found(items, [True] * 30 + [False] * 10, metric="category_mean")
    assert told["all", "accuracy"]["value"] == 0.75 and told["all", "category_mean"]["value"] == 0.5
    assert told["a", "accuracy"]["value"] == 1 and told["all", "category_mean"]["chance"] == 0.5
    mixed = found(items, [True, False] * 20, metric="category_mean")["all", "category_mean"]
    assert mixed["low"] < 0.5 < mixed["high"]
    assert told["all", "category_mean"]["low"] < 0.5 < told["all", "category_mean"]["high"], "no task has a spread"


def test_the_mean_of_unequal_categories_has_an_interval_of_shares():
    items = [item(task="a", cluster=str(k)) for k in range(10)] + [item(task="b", cluster=f"b{k}") for k in range(90)]
    mean = found(items, [True] * 99 + [False], metric="category_mean")["all", "category_mean"]
    assert 0.97 < mean["low"] <= mean["value"] <= mean["high"] <= 1, "only one of the ninety can vary"


def test_retention_is_corrected_for_chance():
    def row(value, chance=0.25):
        return {"task": "all", "metric": "accuracy", "value": value, "chance": chance}

    assert [
        (r["retention"], r["corrected"])
        for r in (
            retention([row(0.75)], [row(0.5)])
            + retention([row(0.25)], [row(0.25)])
            + retention([row(0.0, None)], [row(0.0, None)])
        )
    ] == [(0.6667, 0.5), (1.0, None), (None, None)]


def test_a_draw_keeps_clusters_whole_and_the_order():
    items = [item(id=str(k), cluster=str(k // 4)) for k in range(40)]
    some = selection.sample_items(items, 9, seed=1)
    assert len(some) == 12 and [int(i.id) for i in some] == sorted(int(i.id) for i in some)
    assert {sum(one.cluster == i.cluster for one in some) for i in some} == {4}
    assert selection.sample_items(items, 9, seed=1) == some != selection.sample_items(items, 9, seed=2)


# -- from folder to JSON -----------------------------------------------------------------------------------------------
KEYS = {
    "schema",
    "kind",
    "checkpoint",
    "method",
    "benchmark",
    "protocol",
    "seed",
    "device",
    "results",
    "unparsed",
    "latents_per_item",
    "tokens_per_item",
    "seconds_per_item",
}


def ran(folder, name, out, *more) -> dict:
    benchmark.main([str(tiny_checkpoint()), name, str(folder), "--out", str(out), "--max-new", "6", *more])
    return json.loads(out.read_text())


def test_a_run_writes_its_protocol_its_results_and_every_item(tmp_path, capsys):
    image(tmp_path / "d/images/1.png", 1)
    WRITERS[".jsonl"](
        tmp_path / "d/data.jsonl",
        [
            {"id": str(k), "question": "Next?", "image_path": "images/1.png", "label": "ABCD"[k % 4], "tag": "x"}
            for k in range(6)
        ],
    )
    made = ran(tmp_path / "d", "visulogic", tmp_path / "a.json", "--partial", "--batch-size", "4")
    assert made.keys() == KEYS and (made["schema"], made["kind"], made["benchmark"]) == (1, "benchmark", "visulogic")
    protocol = made["protocol"]
    assert protocol["partial"] == "6 of 1000 in the folder" and protocol["n_published"] == 1000
    assert (protocol["prompt"], protocol["checker"], protocol["metric"]) == ("boxed", "letter", "accuracy")
    assert {"max_new", "temperature", "pixels", "blind", "prompt_text", "answer_span"} <= protocol.keys()
    assert [r.keys() for r in made["results"]] == [
        {"task", "metric", "n", "value", "low", "high", "chance", "constant"}
    ]
    assert (made["results"][0]["n"], made["results"][0]["chance"], made["unparsed"]) == (6, 0.25, 6)
    lines = [json.loads(line) for line in (tmp_path / "a.items.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [str(k) for k in range(6)]
    assert {"prompt", "text", "spans", "latents", "answer", "gold", "right", "seconds", "tokens"} <= lines[0].keys()
    assert made["tokens_per_item"] == round(sum(line["tokens"] for line in lines) / 6, 3)
    said = capsys.readouterr().out
    assert said.index("protocol") < said.index("the right option in \\boxed{}.") < said.index("accuracy with")
    assert "6 of 6 replies had no answer" in said

    assert not (tmp_path / "a.items.unfinished").exists()

    blind = ran(
        tmp_path / "d", "visulogic", tmp_path / "b.json", "--partial", "--blind", "--seeing", str(tmp_path / "a.json")
    )
    assert blind["protocol"] == protocol | {"blind": "removed"} and protocol["blind"] is None
    assert blind["retention"][0].keys() == {"task", "metric", "blind", "seeing", "retention", "corrected"}
    few = ran(tmp_path / "d", "visulogic", tmp_path / "c.json", "--partial", "--n", "2")
    assert few["protocol"]["partial"] == "6 of 1000 in the folder; 2 drawn by seed 0" and few["results"][0]["n"] == 2


def test_a_run_counts_what_is_left_out_and_names_the_best_constant(tmp_path, capsys):
    rows = [
        {"id": str(k), "question": "Next?", "image_path": "images/1.png", "label": label}
        for k, label in enumerate("AABX")
    ]
    image(tmp_path / "d/images/1.png", 1)
    WRITERS[".jsonl"](tmp_path / "d/data.jsonl", rows)
    made = ran(tmp_path / "d", "visulogic", tmp_path / "a.json", "--partial")
    assert made["protocol"]["left_out"] == "1: answer: '...' is not a letter of the 4 options"
    assert made["protocol"]["partial"] == "4 of 1000 in the folder"
    assert (made["results"][0]["n"], made["results"][0]["constant"]) == (3, 0.6667)
    assert "0.667" in capsys.readouterr().out


def test_other_questions_have_another_protocol(tmp_path):
    def questions(**changes):
        return benchmark.questions_digest([item(**changes), item(id="j")])

    changes = ({"question": "P?"}, {"options": ("x", "z")}, {"answer": "A"}, {"lists_options": True}, {"id": "k"})
    assert len({questions(**change) for change in ({}, *changes)}) == 6
    assert questions() == benchmark.questions_digest([item(id="j"), item()]), "the order is no difference"


def test_circular_questions_count_once_if_right_in_every_order(tmp_path):
    made = ran(written("sat/circular", tmp_path), "sat/circular", tmp_path / "a.json", "--partial")
    assert made["protocol"]["order of answers"] == "every rotation (2)"
    orders = [row for row in made["results"] if row["metric"] == "all_orders"]
    assert [(row["task"], row["n"], row["chance"]) for row in orders][-1] == ("all", 2, 0.25)


def test_a_run_that_broke_off_goes_on_with_rows_in_any_order(tmp_path, capsys, monkeypatch):
    image(tmp_path / "d/images/1.png", 1)
    rows = [
        {"id": str(k), "question": f"Next {k}?", "image_path": "images/1.png", "label": "ABCD"[k % 4], "tag": "x"}
        for k in range(5)
    ]
    rows.append(rows[1] | {"question": "Another of the same id?"})

    def put(some):
        WRITERS[".jsonl"](tmp_path / "d/data.jsonl", some)

    put(rows)
    options = ("--partial", "--batch-size", "2", "--temperature", "1")
    ran(tmp_path / "d", "visulogic", tmp_path / "whole.json", *options)

    def told(name):
        lines = [json.loads(line) | {"seconds": 0} for line in (tmp_path / name).read_text().splitlines()]
        return sorted(lines, key=lambda line: line["id"])

    calls, real = [], replies.generate

    def breaks(*args, **kwargs):
        calls.append(kwargs["row_ids"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(replies, "generate", breaks)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        ran(tmp_path / "d", "visulogic", tmp_path / "a.json", *options)
    part = tmp_path / "a.items.unfinished"
    kept = part.read_text()
    part.write_text(kept + '{"key": "4", "val')  # the machine stopped while it was writing

    def refused(*more) -> str:
        with pytest.raises(SystemExit) as error:
            ran(tmp_path / "d", "visulogic", tmp_path / "a.json", *options, *more)
        assert part.read_text().startswith(kept), "nothing is lost"
        return str(error.value)

    said = refused("--seed", "1", "--max-new", "7")
    assert "another interrupted run, which differs in protocol.max_new, seed. Finish" in said
    put([*rows[:5], rows[5] | {"question": "A third?"}])
    assert "differs in data, protocol.questions" in refused()
    put(rows[::-1])
    image(tmp_path / "d/images/1.png", 2)
    assert "differs in data. Finish" in refused()
    image(tmp_path / "d/images/1.png", 1)
    with open_locked(part):
        assert "is in use by another process" in refused()
    capsys.readouterr()
    ran(tmp_path / "d", "visulogic", tmp_path / "a.json", *options)
    said = capsys.readouterr().out
    assert "the last line is incomplete" in said and "4 results are kept" in said
    assert len(calls) == 4 and len(set(calls[0] + calls[1] + calls[3])) == 6
    assert told("a.items.jsonl") == told("whole.items.jsonl") and not part.exists()
    assert {line["id"] for line in told("a.items.jsonl")} == {"0", "1", "1#2", "2", "3", "4"}


def test_a_head_that_draws_from_pictures_is_not_asked_without(make_backbone):
    case = next(case for case in CASES if case.method == "latent_sketchpad")
    reader = methods.build_method(case.method, make_backbone(), **case.options)
    shown = [item(images=("one",))]
    benchmark.check_head_context(reader, shown, "grey")
    for items, blind, sentence in ((shown, "removed", "Use --grey instead"), ([item()], None, "Use another")):
        with pytest.raises(ValueError, match=sentence):
            benchmark.check_head_context(reader, items, blind)


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--prompt", "box"], "unknown prompt 'box'. Use one of boxed"),
        (["--seeing", "a.json"], "Add --blind"),
        (["--blind", "--seeing", "nothing.json"], "nothing.json"),
        (["--blind", "--seeing", "other.json"], "cannot be compared"),
        (["--blind", "--seeing", "list.json"], "list.json' is not the FILE.json of eval.benchmark: it holds a list"),
        (["--blind", "--seeing", "rows.json"], "rows.json' is not the FILE.json of eval.benchmark: it has no 'metric'"),
    ],
)
def test_options_that_do_not_fit_are_refused(more, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(written("visulogic", tmp_path))
    Path("list.json").write_text("[1]")
    Path("rows.json").write_text(json.dumps({"benchmark": "b", "protocol": {}, "results": [{"task": "t"}]}))
    Path("other.json").write_text(json.dumps({"benchmark": "vstar", "protocol": {}, "results": []}))
    with pytest.raises(SystemExit, match=sentence):
        benchmark.main([str(tiny_checkpoint()), "visulogic", ".", "--out", "x.json", "--partial", *more])
    assert not Path("x.json").exists()


def test_the_list_names_every_benchmark(capsys):
    benchmark.main(["--list"])
    said = capsys.readouterr().out
    assert all(re.search(rf"\b{name}\b", said) for name in benchmarks.names())


def test_a_judge_is_named_in_the_protocol_and_in_the_metric(tmp_path, monkeypatch):
    (tmp_path / "lenient.py").write_text("def ask(question, reply, gold):\n    return gold == 'A' or None\n")
    monkeypatch.syspath_prepend(tmp_path)
    image(tmp_path / "d/images/1.png", 1)
    rows = [{"id": str(k), "question": "Next?", "image_path": "images/1.png", "label": "AB"[k]} for k in range(2)]
    WRITERS[".jsonl"](tmp_path / "d/data.jsonl", rows)
    made = ran(tmp_path / "d", "visulogic", tmp_path / "a.json", "--partial", "--judge", "lenient.ask")
    assert made["protocol"]["judge"] == "lenient.ask, for replies that no rule reads"
    assert made["protocol"]["metric"] == made["results"][0]["metric"] == "accuracy_with_judge"
    assert (made["results"][0]["value"], made["unparsed"]) == (0.5, 1)

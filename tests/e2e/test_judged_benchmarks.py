"""Benchmarks that take more than one step: pairs that are judged, samples of which one is chosen, drawings that are read."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from benchmark_samples import WRITERS, image, read, written
from tiny_runs import tiny_checkpoint, untrained

from eval import best_of_n, code_vqa, grading, likelihood, pairs, sketch_qa
from eval.items import EvalItem, build_trace
from eval.scoring import Judgment, judge
from latent_reason.trace import Message, Text, Trace


def prompt(text: str) -> Trace:
    return Trace("t", (Message("user", (Text(text),)),), "t", "test", mode="direct")


# -- likelihood of an answer -------------------------------------------------------------------------------------------
def test_the_likelihood_of_an_answer_is_that_of_its_tokens_one_after_the_other():
    reasoner, _ = untrained()
    reasoner.eval()
    trace = likelihood.answered(prompt("Go up or down?"), "U")
    batch, v = reasoner.processor([trace]), reasoner.vocabulary
    answer = [*v.encode_text("\\boxed{U}", plain=True), v.end]
    start = next(i for i in range(len(batch.ids[0])) if batch.ids[0, i : i + len(answer)].tolist() == answer)
    total = 0.0
    with torch.no_grad():
        for at in range(start, start + len(answer)):  # one token at a time, from the positions before it alone
            embeds = reasoner.prompt_embeddings(batch)[:, :at]
            states = reasoner.backbone.forward_text(embeds, batch.mask[:, :at], batch.positions[:, :, :at])
            total += float(reasoner.backbone.logits(states[:, -1]).float().log_softmax(-1)[0, batch.ids[0, at]])
    assert likelihood.answer_log_probs(reasoner, [trace])[0] == pytest.approx(total, rel=1e-4)


def test_odds_are_the_same_alone_and_in_a_batch_and_change_their_sign(tmp_path):
    reasoner, _ = untrained()
    reasoner.eval()
    with read("mmrb2/reasoning", written("mmrb2/reasoning", tmp_path)) as (items, _):
        traces = [build_trace(item, "boxed", "text") for item in items] + [prompt("Short?")]
    together = likelihood.log_odds(reasoner, traces, "A", "B")
    alone = [likelihood.log_odds(reasoner, [trace], "A", "B")[0] for trace in traces]
    assert together == pytest.approx(alone, rel=1e-3, abs=1e-4)
    assert likelihood.log_odds(reasoner, traces, "B", "A") == pytest.approx([-x for x in together], rel=1e-4)
    assert likelihood.log_odds(reasoner, traces, "A", "A") == [0.0] * 3


def test_a_prompt_that_is_too_long_is_refused_by_its_name():
    reasoner, _ = untrained()
    reasoner.backbone.set_max_length(20)
    with pytest.raises(ValueError, match=r"'t' has [0-9,]+ positions, images included, and the model takes 20"):
        likelihood.log_odds(reasoner.eval(), [prompt("word " * 200)], "A", "B")


# -- pairs -------------------------------------------------------------------------------------------------------------
def pair(n: int, odds: list[float], chosen: str = "A") -> list[pairs.Choice]:
    """The choices of both orders of a pair, by the odds of the letter A in each."""
    out = []
    for order, odd in enumerate(odds):
        meta = {"is_preferred": (chosen == "A") == (order == 0), "source": "s"}
        gold = "A" if meta["is_preferred"] else "B"
        item = SimpleNamespace(
            id=f"{n}-{order}",
            task=f"preferred_{'first' if gold == 'A' else 'second'}",
            cluster=str(n),
            answer=gold,
            checker="letter",
            chance=0.5,
            meta=meta,
        )
        out.append(pairs.Choice(item, odd, pairs.choose(odd, 0.0)))
    return out


def found(rows: list[dict]) -> dict:
    return {(row["task"], row["metric"]): row["value"] for row in rows}


def test_a_judge_that_always_names_the_first_is_found_out():
    choices = [one for n in range(4) for one in pair(n, [1.0, 2.0], "AB"[n % 2])]
    told = found(pairs.summarise(choices, "letter", "both_orders"))
    assert told["all", "accuracy"] == 0.5 and told["all", "both_orders"] == 0 and told["all", "first_chosen"] == 1
    assert (told["preferred_first", "accuracy"], told["preferred_second", "accuracy"]) == (1, 0)
    fair = [one for n in range(4) for one in pair(n, [1.0, -1.0])]
    told = found(pairs.summarise(fair, "letter", "both_orders"))
    assert told["all", "accuracy"] == told["all", "both_orders"] == 1 and told["all", "first_chosen"] == 0.5


def test_a_tie_is_wrong():
    one, other = pair(0, [0.0, -1.0])
    assert (one.first, one.is_right, other.is_right) == (None, False, True)
    told = found(pairs.summarise([one, other], "letter", "both_orders"))
    assert told["all", "accuracy"] == 0.5 and told["all", "first_chosen"] == 0


@pytest.mark.parametrize("judge", pairs.JUDGES)
def test_a_run_judges_every_pair_and_writes_its_protocol(judge, tmp_path, capsys):
    folder = written("mmrb2/reasoning", tmp_path / "d")
    words = [str(tiny_checkpoint()), "mmrb2/reasoning", str(folder), "--partial", "--judge", judge]
    pairs.main([*words, "--out", str(tmp_path / "a.json")])
    made = json.loads((tmp_path / "a.json").read_text())
    assert (made["kind"], made["benchmark"], made["unparsed"]) == ("benchmark", "mmrb2/reasoning", 0)
    assert made["protocol"]["judge"].startswith(f"{judge}: log-probability") and made["sources"][0]["task"] == "blink"
    metrics = {row["metric"] for row in made["results"]}
    assert metrics == ({"accuracy", "both_orders", "first_chosen"} if judge == "letter" else {"accuracy"})
    lines = [json.loads(line) for line in (tmp_path / "a.items.jsonl").read_text().splitlines()]
    assert len(lines) == (2 if judge == "letter" else 1) and {"odds", "answer", "gold", "right"} <= lines[0].keys()
    assert not (tmp_path / "a.items.unfinished").exists() and "are ties" in capsys.readouterr().out


def test_an_interrupted_run_judges_only_what_is_missing(tmp_path, monkeypatch):
    folder = written("mmrb2/reasoning", tmp_path / "d")
    words = [str(tiny_checkpoint()), "mmrb2/reasoning", str(folder), "--partial", "--batch-size", "1"]
    words += ["--out", str(tmp_path / "a.json")]
    judged, real = [], pairs.log_odds

    def breaks(model, traces, *answers):
        judged.extend(trace.id for trace in traces)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(model, traces, *answers)

    monkeypatch.setattr(pairs, "log_odds", breaks)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        pairs.main(words)
    with pytest.raises(SystemExit, match=r"another interrupted run, which differs in .*protocol\.judge"):
        pairs.main([*words, "--judge", "grade"])
    pairs.main(words)
    assert len(judged) == 3 and judged[1] == judged[2] != judged[0]


def test_a_benchmark_without_pairs_is_refused(tmp_path):
    folder = written("visulogic", tmp_path / "d")
    with pytest.raises(SystemExit, match=r"has no pairs of responses\. Use one of mmrb2/t2i"):
        pairs.main([str(tiny_checkpoint()), "visulogic", str(folder), "--partial", "--out", str(tmp_path / "a.json")])


# -- best of n ---------------------------------------------------------------------------------------------------------
def samples(rights: str, grades: list[float]) -> best_of_n.Samples:
    judgments = [Judgment(one == "1", None if one == "?" else one) for one in rights]
    return best_of_n.Samples(SimpleNamespace(cluster=rights, id=rights, options=("0", "1")), judgments, grades)


def test_the_highest_grade_is_chosen_and_the_first_of_equal_ones():
    assert samples("010", [0.1, 0.9, 0.3]).chosen == 1 and samples("010", [0.5, 0.5, 0.5]).chosen == 0
    assert samples("100", [0, 0, 1]).majority == 1 and samples("???", [0, 0, 1]).majority == 0
    some = [samples("0011", [0, 0, 1, 0]), samples("1000", [0, 3, 0, 0])]
    rows, gain = best_of_n.summarise(some)
    told = {row["metric"]: row["value"] for row in rows}
    assert told == {"chosen": 0.5, "sample": 0.375, "majority": 0.0, "any": 1.0} and gain["estimate"] == 0.125


def test_spellings_of_one_answer_vote_together():
    item = EvalItem("i", "t", "test", None, (), "How many?", (), "5", "number", "number", "i")
    for replies, chosen in (
        (["5", "5.0", "7", "7", "7"], 2),
        (["7", "5", "5.0", "7.", "5.00"], 1),
        (["5", "5.0", "7", "7"], 0),
    ):
        judgments = [judge(f"\\boxed{{{reply}}}", item) for reply in replies]
        assert best_of_n.Samples(item, judgments, [0.0] * len(replies)).majority == chosen


def test_the_judge_sees_the_question_as_the_model_does(tmp_path):
    with read("mmrb2/reasoning", written("mmrb2/reasoning", tmp_path)) as (items, _):
        item = items[0]
        asked = build_trace(item, "boxed", "text").messages[-1].content
        request = best_of_n.request_of(item, "boxed")
    assert [kind for kind, _ in request] == ["text" if isinstance(part, Text) else "image" for part in asked]
    assert "<image" not in "".join(value for kind, value in request if kind == "text")


def test_a_run_samples_grades_and_chooses(tmp_path, monkeypatch):
    rows = [
        {"id": str(k), "question": "Next?", "image_path": "images/1.png", "label": "ABCD"[k], "tag": "x"}
        for k in range(3)
    ]
    image(tmp_path / "d/images/1.png", 1)
    WRITERS[".jsonl"](tmp_path / "d/data.jsonl", rows)
    graded, real = [], grading.grade
    monkeypatch.setattr(best_of_n, "grade", lambda model, traces: graded.extend(traces) or real(model, traces))
    model = str(tiny_checkpoint())
    words = [model, "visulogic", str(tmp_path / "d"), "--partial", "--judge", model, "--samples", "2", "--max-new", "4"]
    best_of_n.main([*words, "--out", str(tmp_path / "a.json")])
    made = json.loads((tmp_path / "a.json").read_text())
    assert [row["metric"] for row in made["results"]] == ["chosen", "sample", "majority", "any"]
    assert made["protocol"]["samples"] == 2 and made["gain"].keys() == {"estimate", "low", "high"}
    lines = [json.loads(line) for line in (tmp_path / "a.items.jsonl").read_text().splitlines()]
    assert all(len(line["grades"]) == 2 and line["chosen"] in (0, 1) for line in lines)
    asked = "".join(part.text for part in graded[0].messages[0].content if isinstance(part, Text))
    assert "Next?" in asked and asked.endswith(grading.GRADE_QUESTION) and len(graded[0].images()) == 1
    with pytest.raises(SystemExit, match="all samples would be equal"):
        best_of_n.main([*words, "--temperature", "0", "--out", str(tmp_path / "b.json")])


# -- drawings ----------------------------------------------------------------------------------------------------------
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="10" height="10" fill="{}"/></svg>'


def test_a_reader_is_shown_what_was_drawn_and_never_the_image(tmp_path, monkeypatch):
    """The reader answers B on red, which only the drawing of the first image is."""
    for k in (1, 2):
        image(tmp_path / f"d/images/{k}.png", k)
    rows = [
        {"id": str(k), "question": "Red?", "image_path": f"images/{k}.png", "label": "AB"[k == 1], "tag": "x"}
        for k in (1, 2)
    ]
    WRITERS[".jsonl"](tmp_path / "d/data.jsonl", rows)
    seen = {}

    def decode(reasoner, items, options, progress, label):
        replies = {}
        for key, item in items.items():
            picture = item.images[0].load()
            seen.setdefault(label, []).append(picture.getpixel((5, 5)))
            answer = SVG.format({1: "red", 2: "lime"}[picture.getpixel((0, 0))[0]]) if label == "SVG" else ""
            replies[key] = {"text": answer or f"\\boxed{{{'B' if picture.getpixel((5, 5)) == (255, 0, 0) else 'A'}}}"}
        return replies

    monkeypatch.setattr(code_vqa, "decode_replies", decode)
    monkeypatch.setattr(code_vqa, "check_renderer", lambda: "none")
    colours = {"red": (255, 0, 0), "lime": (0, 255, 0)}

    def render(svg):
        colour = next(value for name, value in colours.items() if name in svg)
        return code_vqa.Rendering(code_vqa.PILImage.new("RGB", (10, 10), colour))

    monkeypatch.setattr(code_vqa, "render_svg", render)
    model = str(tiny_checkpoint())
    words = [model, "visulogic", str(tmp_path / "d"), "--partial", "--reader", model]
    code_vqa.main([*words, "--out", str(tmp_path / "a.json")])
    made = json.loads((tmp_path / "a.json").read_text())
    told = {row["metric"]: row["value"] for row in made["results"]}
    assert told == {"svg": 1, "image": 0.5, "another": 0, "blank": 0.5, "own": 0.5}
    assert made["drawn_rendered"] == made["drawn"] and made["drawn"]["n"] == 2
    assert made["drawn"]["estimate"] == 1 and made["rendered"] == {"images": 2, "rendered": 2}
    assert seen["reader svg"] == [(255, 0, 0), (0, 255, 0)] and seen["reader another"] == [(0, 255, 0), (255, 0, 0)]
    assert seen["reader blank"] == [(255, 255, 255)] * 2 and seen["SVG"] == [(1, 1, 1), (2, 2, 2)]
    assert {"reader", "reader_model", "renderer", "checker", "svg_prompt"} <= made["protocol"].keys()


def test_a_drawing_that_fails_lowers_drawn_and_not_drawn_rendered():
    items = {str(n): SimpleNamespace(id=str(n), cluster=str(n), chance=0.25) for n in range(4)}

    def answers(rights: str) -> dict[str, Judgment]:
        return {str(n): Judgment(one == "1", one) for n, one in enumerate(rights) if one != "-"}

    found = {"svg": answers("1---"), "another": answers("0110"), "image": answers("1111"), "blank": answers("0000")}
    _, gaps = code_vqa.summarise(items, found)
    assert gaps["drawn"]["estimate"] == -0.25 and gaps["drawn"]["n"] == 4
    assert gaps["drawn_rendered"]["estimate"] == 1 and gaps["drawn_rendered"]["n"] == 1


def test_an_image_without_a_drawing_is_wrong(tmp_path):
    folder = written("vcode/cvbench", tmp_path / "d")
    model = str(tiny_checkpoint())
    pytest.importorskip("resvg_py")
    words = [model, "vcode/cvbench", str(folder), "--partial", "--reader", model, "--max-new", "4", "--max-svg", "4"]
    code_vqa.main([*words, "--out", str(tmp_path / "a.json")])
    made = json.loads((tmp_path / "a.json").read_text())
    told = {row["metric"]: row["value"] for row in made["results"]}
    assert told.keys() == {"svg", "image", "blank", "own"} and told["svg"] == 0, "there is no other drawing"
    assert made["drawn"] is made["drawn_rendered"] is None and made["rendered"] == {"images": 1, "rendered": 0}
    line = json.loads((tmp_path / "a.items.jsonl").read_text())
    assert line["error"] == "no <svg>...</svg> in the reply" and not line["right"]


# -- sketches ----------------------------------------------------------------------------------------------------------
def test_sketches_are_read_beside_the_model_and_those_of_another_item(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sketch_qa, "decode", short_answers)
    out = tmp_path / "a.json"
    words = [str(tiny_checkpoint("modal_mixed")), "--reader", str(tiny_checkpoint("direct")), "--n", "3"]
    sketch_qa.main([*words, "--levels", "3", "--out", str(out)])
    made = json.loads(out.read_text())
    assert made["shown"].keys() == set(sketch_qa.MEANINGS) and made["drawn"].keys() == {"estimate", "low", "high"}
    assert made["shown"]["own"]["n"] == made["shown"]["foreign"]["n"] <= made["shown"]["pixels"]["n"]
    assert all(len(line) <= 90 for line in capsys.readouterr().out.splitlines() if "│" in line)
    with pytest.raises(SystemExit, match="cannot render sketches for a reader"):
        sketch_qa.main([str(tiny_checkpoint("direct")), "--reader", "x", "--out", str(tmp_path / "b.json")])


def short_answers(reasoner, decoder, task, items, mode, **options):
    """Answers of a few tokens; those of a model that sketches begin with a sketch."""
    from latent_reason.decoding.items import decode

    first = {"forced_tokens": [[reasoner.vocabulary.open]] * len(items)} if reasoner.can_sketch else {}
    return decode(reasoner, decoder, task, items, mode, max_new_tokens=12, **first, **options)


def test_the_picture_of_another_item_is_of_the_same_level():
    items = [SimpleNamespace(id=id, level=level) for id, level in (("a", 3), ("b", 4), ("a", 3), ("c", 3))]
    assert sketch_qa.other_pictures(items, list("wxyz")) == ["z", None, "z", "w"]

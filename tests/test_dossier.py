"""Measures beside accuracy, and the page they are shown on."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from PIL import Image as PILImage
from tiny_runs import checkpoint, short, untrained

from eval import dossier, measures
from eval.decode import Result, decode
from eval.page import page
from latent_reason.tasks import make


@pytest.fixture
def lake(monkeypatch):
    short(monkeypatch)
    reasoner, decoder = untrained()
    task = make("frozenlake_plan", split="test", level=3, chunk=(1, 1), length=(2, 3))
    return reasoner, decoder, task, [task[i] for i in range(6)]


def test_inputs_are_changed_as_they_say(lake, monkeypatch):
    reasoner, _, task, items = lake
    seen = {}

    def watched(reasoner, decoder, task, items, mode, *, make_trace=None, progress="", **options):
        seen[progress] = [make_trace(i) for i in items]
        return plain

    plain = [Result(i, "", {"success": 1.0}, None, 0) for i in items]
    monkeypatch.setattr("eval.measures.decode", watched)
    found = measures.inputs(reasoner, task, items, "mixed", plain)
    assert found.keys() == {"blind", "text_twin", *measures.SPOILT}
    assert all(r["loss"]["value"] == 0 and r["n"] == 6 for r in found.values())
    assert all(len(t.images()[0].getcolors()) == 1 for t in seen["blind"]) and not seen["text twin"][0].images()
    for how in measures.SPOILT:
        shown = seen[how.replace("_", " ")][0].images()[0]
        assert shown.size == items[0].images[0].size and shown.tobytes() != items[0].images[0].tobytes(), how


def test_thought_and_answer_are_compared_by_rule(lake, monkeypatch):
    _, _, task, items = lake
    item = items[0]
    wrong = task.wrong(item)[0]
    said = {"both": (item.answer, 1.0), "answer": (wrong, 1.0), "thought": (item.answer, 0.0), "none": (wrong, 0.0),
            "silent": ("", 1.0)}
    texts = {row: "".join(f"Go {m}. " for m in moves.split(",")) if moves else "Well." for row, (moves, _) in
             enumerate(said.values())}
    monkeypatch.setattr("eval.measures.texts_between", lambda rollout, row, vocabulary: [texts[row]])
    results = [Result(item, "", {"success": s}, None, row) for row, (_, s) in enumerate(said.values())]
    found = measures.consistency(task, results, None)
    assert found["silent"] == 1
    assert found["consistent"]["value"] == 0.5 and found["consistent"]["n"] == 2, "of right answers, right thoughts"
    assert found["agree"]["value"] == 0.5 and found["agree"]["n"] == 4


def test_sketches_alone_have_a_ceiling_and_a_floor(lake):
    reasoner, decoder, task, items = lake
    results = decode(reasoner, decoder, task, items, "mixed")
    found = measures.sketches_alone(reasoner, decoder, task, results)
    assert found["pixels"]["value"] == 1 and found["floor"]["value"] < 0.5 and found["ceiling"]["value"] < 0.5
    drawn = iter([s.sketch for i in items for s in i.steps if s.sketch is not None])
    decoder.draw = lambda latents, grid, size: next(drawn)
    assert measures.sketches_alone(reasoner, decoder, task, results)["ceiling"]["value"] == 1


def test_the_answer_is_forced_after_each_step(lake, monkeypatch):
    reasoner, _, task, items = lake
    v = reasoner.vocabulary
    queue = [v.open, *v.words("Go R."), v.open, *v.words("Go D."), *v.words("\\boxed{R,D}"), v.end]
    plain = decode(reasoner, None, task, items, "mixed", queue=[queue] * 6)
    said = [v.text(measures.cut(plain[0], s, v)) for s in range(4)]
    assert said == ["", "", "Go R.", "Go R.Go D."]
    assert [measures.cut(plain[0], s, v).count(v.open) for s in range(4)] == [0, 1, 2, 2]
    fed = []

    def watched(*given, queue, intervene, progress, **options):
        fed.append((queue(items)[0], progress))
        return decode(*given, queue=queue, intervene=intervene, **options)

    monkeypatch.setattr("eval.measures.decode", watched)
    found = measures.by_step(reasoner, task, "mixed", plain)
    assert [r["step"] for r in found] == [0, 1, 2] and all(r["n"] == 6 for r in found)
    assert all(v.text(ids).endswith("\\boxed{") for ids, _ in fed)


def test_attention_adds_up_and_finds_the_latents(lake):
    reasoner, _, task, items = lake
    v = reasoner.vocabulary
    plain = decode(reasoner, None, task, items, "mixed", queue=[[v.open, *v.words("Go. \\boxed{R,D}"), v.end]] * 6)
    found = measures.looks(reasoner, plain)
    assert found["n"] == 6 and len(found["layers"]) == 1
    for shares in (found["share_of_positions"], *found["layers"]):
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3) and min(shares.values()) >= 0
    assert found["share_of_positions"]["latents"] > 0 and found["layers"][0]["latents"] > 0
    assert measures.looks(reasoner, [Result(items[0], "", {}, SimpleNamespace(
        kind=torch.zeros(1, 3), ids=torch.zeros(1, 3)), 0)]) == {}


class Wellformed(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "rect", "line", "circle"):
            self.open.append(tag)
        assert not any(n in ("src", "href") and not v.startswith("data:") for n, v in attrs), "it needs no other file"

    def handle_endtag(self, tag):
        if tag not in ("meta", "img", "rect", "line", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("method", ["modal_mixed", "direct"])
def test_one_command_leaves_a_json_and_a_page(method, tmp_path, monkeypatch):
    short(monkeypatch, budget=10)
    out = tmp_path / "dossier"
    dossier.main([str(checkpoint(method)), "--out", str(out), "--n", "2", "--levels", "3"])
    found, shown = json.loads((out / "dossier.json").read_text()), (out / "index.html").read_text()
    reader = Wellformed()
    reader.feed(shown)
    assert reader.open == [] and "Accuracy" in reader.text and "level 3" in reader.text
    assert found["about"]["method"] == method and found["accuracy"]["level 3"]["success"]["n"] == 2
    assert found["out_of_distribution"].keys() == make("frozenlake_plan").ood.keys()
    latent = {"probes", "verdict", "by_step", "by_budget", "attention", "health", "sketches_alone"}
    assert latent & found.keys() == (latent if method == "modal_mixed" else set())
    assert ("data:image/png;base64," in shown) == (method == "modal_mixed")
    assert found.get("verdict", "Accuracy") in reader.text
    with pytest.raises(SystemExit, match="exists"):
        dossier.main([str(checkpoint(method)), "--out", str(out), "--n", "2", "--levels", "3"])


def test_what_a_file_says_is_text_on_the_page():
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    nasty = "<script>alert(1)</script>"
    found = {"main_score": "success", "accuracy": {nasty: {"success": share}}, "out_of_distribution": {}, "input": {},
             "consistency": {}}
    shown = page(found, {"method": nasty, "checkpoint": nasty}, b"")
    assert "<script>" not in shown and shown.count("&lt;script&gt;") >= 4


def test_pictures_stay_as_large_as_they_were():
    picture = PILImage.new("RGB", (64, 32), (200, 10, 10))
    assert all(measures.spoilt(how)(picture).size == (64, 32) for how in measures.SPOILT)

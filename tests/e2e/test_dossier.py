"""Measures beside accuracy, and the page they are shown on."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from PIL import Image as PILImage
from PIL import ImageOps
from tiny_runs import short, tiny_checkpoint, untrained

from eval import attention, dossier, input_perturbations, metrics, sketch_qa
from eval.html import page
from latent_reason.data import native
from latent_reason.decoding.items import Result, decode
from latent_reason.tasks import make
from latent_reason.tasks.item import TURNS


@pytest.fixture
def lake(monkeypatch):
    short(monkeypatch)
    reasoner, decoder = untrained()
    task = make("frozenlake_plan", split="test", level=3, chunk=(1, 1), length=(2, 3))
    return reasoner, decoder, task, [task[i] for i in range(6)]


@pytest.fixture
def shown(monkeypatch):
    """The traces of every arm, by its name; nothing is decoded and every answer is right."""
    seen = {}

    def watched(reasoner, decoder, task, items, mode, *, make_trace=None, progress="", **options):
        make_trace = make_trace or (lambda item: task.trace(item, mode))
        seen[progress] = [make_trace(i) for i in items]
        return right(items)

    monkeypatch.setattr("eval.input_perturbations.decode", watched)
    return seen


def right(items) -> list[Result]:
    said = SimpleNamespace(token_type=torch.ones(1, 8))
    return [Result(i, "", {"success": 1.0}, said, 0) for i in items]


def test_inputs_are_changed_as_they_say(lake, shown):
    reasoner, _, task, items = lake
    found = input_perturbations.evaluate_inputs(reasoner, task, "mixed", right(items))
    assert found.keys() == {"blind", "text_twin", *input_perturbations.DEGRADATIONS, *TURNS}, (
        "a board has no part that suffices"
    )
    assert all(r["loss"]["value"] == 0 and r["n"] == 6 for r in found.values())
    assert all(len(t.images()[0].getcolors()) == 1 for t in shown["blind"]) and not shown["text twin"][0].images()
    for how in (*input_perturbations.DEGRADATIONS, *TURNS):
        picture = shown[how.replace("_", " ")][0].images()[0]
        assert picture.size == items[0].images[0].size and picture.tobytes() != items[0].images[0].tobytes(), how


def test_a_crop_shows_the_part_and_nothing_else(lake, shown):
    task = make("search_zoom", split="test")
    items = [task[i] for i in range(3)]
    assert input_perturbations.evaluate_inputs(lake[0], task, "mixed", right(items))["gold_crop"]["n"] == 3
    for item, trace in zip(items, shown["gold crop"], strict=True):
        assert task.same(task.parse_sketch(trace.images()[0], item.meta).state, item.steps[1].state)
    assert not shown.keys() & {t.replace("_", " ") for t in TURNS}, "a letter turned may be another"


def test_words_are_drawn_whole_in_each_font_and_size(lake, shown):
    reasoner, _, task, items = lake
    found = input_perturbations.evaluate_text_as_image(reasoner, task, "mixed", right(items))
    assert len(found["grid"]) == 4 and found["min"] == found["median"] == found["max"] == 1
    assert len({shown[cell][0].images()[0].tobytes() for cell in found["grid"]}) == 4
    for name in input_perturbations.FONTS:
        for size in input_perturbations.SIZES:
            drawn = input_perturbations.load_font(name, size)
            page = input_perturbations.render_text(task.in_words(items[0]), drawn, items[0].images[0].size)
            ink = ImageOps.invert(page.convert("L")).getbbox()
            assert ink[0] >= 2 and ink[2] <= page.width - 2 and ink[3] < page.height, "nothing is cut off"
            assert page.size[0] == 192 and page.size[1] >= 192
    long = input_perturbations.render_text("word " * 400, drawn, (2000, 64))
    assert long.width == input_perturbations.MAX_WIDTH and long.height > 64
    assert reasoner.backbone.token_grid(long)[0] * 64 == pytest.approx(long.height, abs=64), "the eye takes it as it is"


def test_thought_and_answer_are_compared_by_rule(lake, monkeypatch):
    _, _, task, items = lake
    item = items[0]
    wrong = task.wrong(item)[0]
    said = {
        "both": (item.answer, 1.0),
        "answer": (wrong, 1.0),
        "thought": (item.answer, 0.0),
        "none": (wrong, 0.0),
        "silent": ("", 1.0),
    }
    texts = {
        row: "".join(f"Go {m}. " for m in moves.split(",")) if moves else "Well."
        for row, (moves, _) in enumerate(said.values())
    }
    monkeypatch.setattr("eval.metrics.split_text", lambda rollout, row, vocabulary: [texts[row]])
    results = [Result(item, "", {"success": s}, None, row) for row, (_, s) in enumerate(said.values())]
    found = metrics.consistency(task, results, None)
    assert found["silent"] == 1
    assert found["consistent"]["value"] == 0.5 and found["consistent"]["n"] == 2, "of right answers, right thoughts"
    assert found["agree"]["value"] == 0.5 and found["agree"]["n"] == 4


def test_sketches_alone_have_a_ceiling_and_a_floor(lake):
    reasoner, decoder, task, items = lake
    results = decode(reasoner, decoder, task, items, "mixed")
    found = metrics.sketches_alone(reasoner, decoder, task, results)
    assert found["pixels"]["value"] == 1 and found["floor"]["value"] < 0.5 and found["ceiling"]["value"] < 0.5
    drawn = iter([s.sketch for i in items for s in i.steps if s.sketch is not None])
    decoder.draw = lambda latents, grid, size: next(drawn)
    assert metrics.sketches_alone(reasoner, decoder, task, results)["ceiling"]["value"] == 1


def test_the_answer_is_forced_after_each_step(lake, monkeypatch):
    reasoner, _, task, items = lake
    v = reasoner.vocabulary
    queue = [v.open, *v.encode_text("Go R."), v.open, *v.encode_text("Go D."), *v.encode_text("\\boxed{R,D}"), v.end]
    plain = decode(reasoner, None, task, items, "mixed", forced_tokens=[queue] * 6)
    said = [v.decode(metrics.ids_until_sketch(plain[0], s, v)) for s in range(4)]
    assert said == ["", "", "Go R.", "Go R.Go D."]
    assert [metrics.ids_until_sketch(plain[0], s, v).count(v.open) for s in range(4)] == [0, 1, 2, 2]
    fed = []

    def watched(*given, forced_tokens, latent_hook, progress, **options):
        fed.append((forced_tokens(items)[0], progress))
        return decode(*given, forced_tokens=forced_tokens, latent_hook=latent_hook, **options)

    monkeypatch.setattr("eval.metrics.decode", watched)
    found = metrics.accuracy_by_step(reasoner, task, "mixed", plain)
    assert [r["step"] for r in found] == [0, 1, 2] and all(r["n"] == 6 for r in found)
    assert all(v.decode(ids).endswith("\\boxed{") for ids, _ in fed)


def test_attention_adds_up_and_finds_the_latents(lake):
    reasoner, _, task, items = lake
    v = reasoner.vocabulary
    plain = decode(
        reasoner, None, task, items, "mixed", forced_tokens=[[v.open, *v.encode_text("Go. \\boxed{R,D}"), v.end]] * 6
    )
    found = attention.answer_attention(reasoner, plain)
    assert found["n"] == 6 and len(found["layers"]) == 1
    for shares in (found["share_of_positions"], *found["layers"]):
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3) and min(shares.values()) >= 0
    assert found["share_of_positions"]["latents"] > 0 and found["layers"][0]["latents"] > 0
    assert (
        attention.answer_attention(
            reasoner,
            [Result(items[0], "", {}, SimpleNamespace(token_type=torch.zeros(1, 3), ids=torch.zeros(1, 3)), 0)],
        )
        == {}
    )


def test_coverage_sums_to_one_over_parts_and_to_their_area_without_focus(lake, monkeypatch):
    reasoner, _, _, _ = lake
    task, v = make("search_zoom", split="test"), reasoner.vocabulary
    items = [task[i] for i in range(3)]
    plain = decode(reasoner, None, task, items, "mixed", forced_tokens=[[v.open, *v.encode_text("Go."), v.end]] * 3)
    parts, found = [(0, 0, 0.3, 1), (0.3, 0, 1, 0.45), (0.3, 0.45, 1, 1)], []
    for box in parts:
        monkeypatch.setattr(task, "box", lambda item, box=box: box)
        found.append(attention.attention_in_box(reasoner, task, plain))
    assert [f["share_of_area"] for f in found] == pytest.approx([0.3, 0.315, 0.385], abs=1e-4)
    for name in ("prompt", "start", "latents"):
        assert sum(f["layers"][0][name] for f in found) == pytest.approx(1, abs=1e-3)
    even = torch.ones(4, 999, 999)
    monkeypatch.setattr(attention, "attention_weights", lambda b, e, *_: even[:, None, : e.shape[1], : e.shape[1]])
    assert attention.attention_in_box(reasoner, task, plain)["ratio"]["latents"] == {"mean": 1, "best": 1}
    assert attention.attention_in_box(reasoner, make("frozenlake_plan"), plain) == {}
    assert attention.box_overlap((0.25, 0, 0.5, 1), (1, 3)).tolist() == pytest.approx([0.25, 0.5, 0])


def test_a_reader_is_asked_about_the_last_sketch_alone(lake, monkeypatch):
    """A reader that knows each board and goes on as its moves need: right on true sketches, wrong on another's."""
    reasoner, decoder, task, items = lake
    items = [i for i in items if i.steps[0].sketch is not None and len(i.answer) > 3]
    plain = decode(reasoner, decoder, task, items, "mixed")
    boards = {i.steps[-2].sketch.tobytes(): i for i in items}

    def reading(reader, decoder, task, items, mode, **options):
        assert all(i.images[0].size == (192, 192) for i in items), "however small the decoder draws"
        known = [boards.get(i.images[0].tobytes()) for i in items]
        return [
            Result(i, f"\\boxed{{{k.answer.split(',')[-1] if k else 'U,U'}}}", {}, None, 0)
            for i, k in zip(items, known, strict=True)
        ]

    monkeypatch.setattr("eval.sketch_qa.decode", reading)
    found = sketch_qa.evaluate_reader(reasoner, reasoner, decoder, task, plain)
    assert found.keys() == set(sketch_qa.MEANINGS)
    assert found["pixels"]["value"] == 1 and found["pixels"]["n"] == len(items)
    assert found["another"]["value"] < 1 and found["ceiling"]["value"] == found["blank"]["value"] < 1
    assert (
        sketch_qa.reader_text("Go R. \\boxed{R}") == "Go R. \\boxed{R}"
        and sketch_qa.reader_text("\\boxed{R}") == "R \\boxed{R}"
    )


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
    words = [str(tiny_checkpoint(method)), "--out", str(out), "--n", "2", "--levels", "3"]
    reader = ["--reader", str(tiny_checkpoint("direct"))]
    if method == "direct":
        with pytest.raises(SystemExit, match="Leave --reader out"):
            dossier.main(words + reader)
        reader = []
    dossier.main(words + reader)
    found, shown = json.loads((out / "dossier.json").read_text()), (out / "index.html").read_text()
    reader = Wellformed()
    reader.feed(shown)
    assert reader.open == [] and "Accuracy" in reader.text and "level 3" in reader.text
    assert found["about"]["method"] == method and found["accuracy"]["level 3"]["success"]["n"] == 2
    assert found["out_of_distribution"].keys() == make("frozenlake_plan").ood.keys()
    latent = {"probes", "verdict", "by_step", "by_budget", "attention", "health", "sketches_alone", "sketchqa_vlm"}
    assert latent & found.keys() == (latent if method == "modal_mixed" else set())
    assert ("data:image/png;base64," in shown) == (method == "modal_mixed")
    assert found.get("verdict", "Accuracy") in reader.text
    with pytest.raises(SystemExit, match="exists"):
        dossier.main(words)


def test_what_a_file_says_is_text_on_the_page():
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    nasty = "<script>alert(1)</script>"
    found = {
        "main_score": "success",
        "accuracy": {nasty: {"success": share}},
        "out_of_distribution": {},
        "input": {},
        "as_pixels": {"grid": {}, "min": 0, "median": 0, "max": 0},
        "consistency": {},
        "attention_in_box": {
            "n": 1,
            "share_of_area": 0.1,
            "layers": [{nasty: 0.2}],
            "ratio": {nasty: {"mean": 2.0, "best": 2.0}},
        },
    }
    shown = page(found, {"method": nasty, "checkpoint": nasty}, b"")
    assert "<script>" not in shown and shown.count("&lt;script&gt;") >= 5 and "2.000" in shown


def test_pictures_stay_as_large_as_they_were():
    picture = PILImage.new("RGB", (64, 32), (200, 10, 10))
    assert all(
        input_perturbations.degradation(how)(picture).size == (64, 32) for how in input_perturbations.DEGRADATIONS
    )


def test_records_have_a_dossier_without_what_needs_a_generator(tmp_path, monkeypatch):
    short(monkeypatch)
    task = make("frozenlake_plan", split="test", level=3, chunk=(1, 1), length=(2, 3))
    native.write((task.trace(task[i], "mixed") for i in range(5)), tmp_path / "records")
    given = [str(tiny_checkpoint()), "--folder", str(tmp_path / "records"), "--n", "2", "--out"]
    dossier.main([*given, str(tmp_path / "dossier")])
    report = json.loads((tmp_path / "dossier" / "dossier.json").read_text())
    assert report["accuracy"]["test records"]["accuracy"]["n"] == 2 and report["about"]["task"] == "records"
    assert report["input"].keys() == {"blind", *input_perturbations.DEGRADATIONS}
    assert {"noise", "foreign", "image_blanked"} <= report["probes"].keys() and "text_corrupted" not in report["probes"]
    shown = (tmp_path / "dossier" / "index.html").read_text()
    assert "Probes of the latents" in shown and "Out of distribution" not in shown and "Text as image" not in shown
    assert "data:image/png" in shown
    with pytest.raises(SystemExit, match="--reader needs a task"):
        dossier.main([*given, str(tmp_path / "other"), "--reader", str(tiny_checkpoint())])

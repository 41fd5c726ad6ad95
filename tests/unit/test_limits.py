"""Pixels of an image and positions of a row: a checkpoint keeps those of its training, and evaluation uses them."""

from __future__ import annotations

import json

import pytest
from PIL import Image as PILImage
from tiny_runs import BACKBONE, EMPTY, METHOD, recipe, tiny_checkpoint, tiny_reasoner

from eval import probe, run
from latent_reason import checkpoint, tasks
from latent_reason.checkpoint.export.exporter import export
from latent_reason.decoding.engine import generate
from latent_reason.integrations.answerer import Answerer
from latent_reason.model.batch import PAD
from latent_reason.model.limits import InputLimits
from train import sft
from train.config import SFTConfig, load
from train.model_setup import prepare_model
from train.trainer import make_run_folder

PIXELS = 4 * 64 * 64  # of four tokens


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that was trained with limits."""
    folder = tmp_path_factory.mktemp("limits") / "run"
    keys = {"image__max_pixels": PIXELS, "data__max_length": 300, "data__val_items": 0, "optim__max_steps": 1}
    made = recipe(folder, init_from=str(tiny_checkpoint()), **keys)
    sft.train(made, make_run_folder(made))
    return folder / "model"


def test_a_checkpoint_remembers_the_limits_of_its_training(trained):
    config = json.loads((trained / "latent_reason.json").read_text())
    assert config["notes"]["limits"] == InputLimits.of(checkpoint.load(trained)[0].backbone).to_json()
    assert (config["notes"]["limits"]["max_pixels"], config["notes"]["limits"]["max_length"]) == (PIXELS, 300)
    backbone = checkpoint.load(trained)[0].backbone
    assert backbone.max_length == 300 and backbone.pixel_limits[1] == PIXELS
    before = tiny_reasoner().backbone
    assert before.length_limit is None and before.pixel_limits[1] > PIXELS
    large = PILImage.new("RGB", (300, 200))
    (h, w), (h0, w0) = backbone.token_grid(large), before.token_grid(large)
    assert h * w * backbone.pixels_per_token**2 <= PIXELS < h0 * w0 * backbone.pixels_per_token**2


def test_a_run_from_a_checkpoint_keeps_its_limits_unless_it_has_its_own(trained, tmp_path):
    kept, _ = prepare_model(recipe(tmp_path / "one", init_from=str(trained)))
    assert kept.backbone.max_length == 300 and kept.backbone.pixel_limits[1] == PIXELS
    changed, _ = prepare_model(
        recipe(tmp_path / "two", init_from=str(trained), image__max_pixels=2 * PIXELS, data__max_length=400)
    )
    assert changed.backbone.max_length == 400 and changed.backbone.pixel_limits[1] == 2 * PIXELS
    fresh, _ = prepare_model(
        recipe(
            tmp_path / "new",
            image__min_pixels=PIXELS,
            backbone__options=BACKBONE,
            method__options=METHOD["modal_mixed"],
        )
    )
    assert fresh.backbone.pixel_limits[0] == PIXELS


def test_an_answer_ends_at_the_limit_and_a_prompt_must_leave_room():
    reasoner, task = tiny_reasoner(), tasks.make("frozenlake_plan", level=3)
    prompt = reasoner.processor([task.trace(task[0], "mixed")], generate=True)
    length = int((prompt.token_type != PAD).sum())
    reasoner.backbone.set_max_length(length + 5)
    assert generate(reasoner, prompt, max_new_tokens=40, latent_mode="off").ids.shape[1] <= 5
    reasoner.backbone.set_max_length(length)
    with pytest.raises(ValueError, match=f"max_length={length}: a prompt has {length} positions"):
        generate(reasoner, prompt, max_new_tokens=40)


def test_evaluation_uses_the_limits_of_training_unless_told_otherwise(trained, tmp_path, monkeypatch):
    seen = []

    def results(reasoner, *args, **options):
        seen.append(InputLimits.of(reasoner.backbone))
        return []

    monkeypatch.setattr(run, "evaluate", results)
    monkeypatch.setattr(run, "item_lines", lambda *args: [])
    words = [str(trained), "--levels", "3", "--n", "2", "--out"]
    run.main([*words, str(tmp_path / "a.json")])
    run.main([*words, str(tmp_path / "b.json"), "--image.max_pixels", str(2 * PIXELS), "--max_length", "200"])
    assert [(one.max_pixels, one.max_length) for one in seen] == [(PIXELS, 300), (2 * PIXELS, 200)]
    for name, limits in zip("ab", seen, strict=True):
        assert json.loads((tmp_path / f"{name}.json").read_text())["limits"] == limits.to_json()

    def no_probes(reasoner, *args, **options):
        seen.append(InputLimits.of(reasoner.backbone))
        return {}

    monkeypatch.setattr(probe, "probe", no_probes)
    monkeypatch.setattr(probe, "probe_table", str)
    monkeypatch.setattr(probe, "verdict", str)
    probe.main([str(trained), "--n", "2", "--max_length", "150", "--out", str(tmp_path / "c.json")])
    assert json.loads((tmp_path / "c.json").read_text())["limits"] == seen[-1].to_json() and seen[-1].max_length == 150
    answerer = Answerer(str(trained), limits=InputLimits(max_pixels=2 * PIXELS))
    assert InputLimits.of(answerer.reasoner.backbone).max_pixels == 2 * PIXELS
    assert answerer.reasoner.backbone.max_length == 300


def test_an_export_has_the_limits_that_it_is_given(trained, tmp_path):
    PILImage.new("RGB", (8, 8)).save(trained / "sketches.png")
    for folder, limits, wanted in (
        ("same", None, (PIXELS, 300)),
        ("less", InputLimits(None, 2 * PIXELS, 250), (2 * PIXELS, 250)),
    ):
        export(trained, tmp_path / folder, limits=limits)
        found = InputLimits.of(checkpoint.load(tmp_path / folder)[0].backbone)
        assert (found.max_pixels, found.max_length) == wanted


def test_pixels_among_the_options_of_the_loader_are_refused():
    with pytest.raises(ValueError, match=r"'backbone.options.max_pixels' is now 'image.max_pixels'"):
        load(EMPTY, SFTConfig, backbone__options={"max_pixels": 1000})

"""A checkpoint folder: whole or not there, the same after loading, and nothing that runs code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_runs import METHOD, ROOT, checkpoint, untrained

from latent_reason import card, generate, hub, tasks

PARTS = ["backbone/config.json", "backbone/generation_config.json", "backbone/model.safetensors",
         "backbone/preprocessor_config.json", "backbone/tokenizer.json", "backbone/tokenizer_config.json",
         "decoder/config.json", "decoder/diffusion_pytorch_model.safetensors", "reasoner.safetensors"]


@pytest.fixture
def copy(tmp_path):
    """A checkpoint to break."""
    return shutil.copytree(checkpoint(), tmp_path / "mine")


def files(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def change_card(folder, **changes):
    stored = json.loads((folder / hub.CARD).read_text())
    (folder / hub.CARD).write_text(json.dumps(stored | changes))


def refused(folder) -> str:
    """The sentence with which a broken checkpoint is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        hub.load(folder)
    said = str(error.value)
    assert "\n" not in said and len(said) < 500, said
    return said


# -- save and load -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHOD)
def test_round_trip(method, tmp_path):
    reasoner, decoder = untrained(method)
    hub.save(reasoner, tmp_path / "a", decoder=decoder if reasoner.sketches else None, notes={"seed": 3})
    loaded, drawn_by = hub.load(tmp_path / "a", device="cpu")
    assert loaded.recipe == reasoner.recipe | {"notes": {"seed": 3}}
    for name, t in reasoner.state_dict().items():
        assert torch.equal(t, loaded.state_dict()[name]), name
    assert (drawn_by is None) == (not reasoner.sketches)
    if drawn_by is not None:
        assert all(torch.equal(t, drawn_by.state_dict()[n]) for n, t in decoder.state_dict().items())
        assert drawn_by.config.latent == decoder.config.latent
    assert not loaded.training and loaded.backbone.positions == reasoner.backbone.positions


def test_load_save_load_save_gives_the_same_bytes(tmp_path):
    for source, again in ((checkpoint(), "a"), (tmp_path / "a", "b")):
        reasoner, decoder = hub.load(source, device="cpu")
        hub.save(reasoner, tmp_path / again, decoder=decoder)
    first, a, b = (files(folder) for folder in (checkpoint(), tmp_path / "a", tmp_path / "b"))
    assert a == b
    assert not [name for name, data in a.items() if str(checkpoint()).encode() in data], "no paths of this machine"
    assert {n: d for n, d in a.items() if "config" not in n and n != hub.CARD}.items() <= first.items()


def test_a_run_folder_stands_for_its_model(tmp_path):
    shutil.copytree(checkpoint(), tmp_path / "run" / "model")
    assert hub.load(tmp_path / "run")[0].recipe["method"] == "modal_mixed"


def test_nothing_pickled():
    stored = files(checkpoint())
    assert sorted(stored) == sorted([*PARTS, hub.CARD])
    assert not [name for name, data in stored.items() if data[:2] in (b"\x80\x02", b"\x80\x04", b"PK")]


@pytest.mark.parametrize("name", ["decoder/diffusion_pytorch_model.bin", "backbone/pytorch_model.bin"])
def test_a_pickle_is_never_loaded(copy, name):
    """Not even in the place of weights that are missing."""
    change_card(copy, files={})
    for weights in (copy / name).parent.glob("*.safetensors"):
        weights.unlink()
    torch.save({}, copy / name)
    assert ".safetensors" in refused(copy)


def test_loading_draws_no_bars(capfd):
    hub.load(checkpoint())
    assert capfd.readouterr() == ("", "")


# -- broken checkpoints --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("part", PARTS)
def test_missing_file_is_named(part, copy):
    (copy / part).unlink()
    said = refused(copy)
    assert part in said and "is missing" in said and "Copy the checkpoint again" in said and str(copy) in said


@pytest.mark.parametrize("part", [p for p in PARTS if "generation_config" not in p])
def test_cut_file_is_named(part, copy):
    data = (copy / part).read_bytes()
    (copy / part).write_bytes(data[: len(data) // 2])
    said = refused(copy)
    assert part.split("/")[0] in said and "Copy the checkpoint again" in said


def test_damaged_weights_are_named(copy):
    data = (copy / "reasoner.safetensors").read_bytes()
    (copy / "reasoner.safetensors").write_bytes(b"\xff" * 8 + data[8:])
    assert "reasoner.safetensors' cannot be read" in refused(copy)


def test_no_checkpoint_names_the_nearest(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Train one with: bash train/quickstart.sh" in refused(tmp_path / "a" / "b")
    assert f"there is no such folder. Did you mean '{copy}'?" in refused(tmp_path / "mime")
    shutil.copytree(copy, tmp_path / "checkpoints" / "lake" / "model")
    assert "Did you mean 'checkpoints/lake'?" in refused("checkpoints/lakes")
    shutil.copytree(copy, tmp_path / "run" / "export")
    assert "it has no latent_reason.json. Did you mean 'run/export'?" in refused("run")


def test_card_that_is_no_card(copy):
    (copy / hub.CARD).write_text('{"format": 1,')
    assert "is not readable JSON" in refused(copy)
    (copy / hub.CARD).write_text("[]")
    assert "does not describe a checkpoint" in refused(copy)
    (copy / hub.CARD).write_text('{"format": 1, "method": "modal_mixed"}')
    assert "it lacks control_tokens, decoder, options, positions" in refused(copy)


def test_card_of_another_format(copy):
    change_card(copy, format=2, written_by="latent_reason 7")
    said = refused(copy)
    assert "has checkpoint format 2, this version reads 1" in said and "written by latent_reason 7" in said


def test_card_of_an_unknown_method_or_option(copy):
    change_card(copy, method="modal_mixd")
    assert "unknown method 'modal_mixd'. Did you mean 'modal_mixed'?" in refused(copy)
    change_card(copy, method="modal_mixed", options={"kk": 3})
    assert "has no option 'kk'" in refused(copy)


def test_control_token_of_another_tokenizer(copy):
    stored = json.loads((copy / hub.CARD).read_text())["control_tokens"]
    stored["close"][1] += 1
    change_card(copy, control_tokens=stored)
    assert "control token '<|sketch_end|>' has id" in refused(copy)


def test_weights_of_another_method(copy):
    weights = load_file(copy / "reasoner.safetensors")
    wrong = {
        "is left over": weights | {"head.more": torch.zeros(1)},
        "is missing": {n: t for n, t in weights.items() if n != "head.net.0.bias"},
        "is (3,) instead of (32,)": weights | {"head.net.0.bias": torch.zeros(3)},
    }
    change_card(copy, files={})
    for part, changed in wrong.items():
        save_file(changed, copy / "reasoner.safetensors")
        said = refused(copy)
        assert part in said and "does not fit method 'modal_mixed'" in said and "from one checkpoint" in said


# -- saving ----------------------------------------------------------------------------------------------------------
def test_a_folder_in_use_is_refused(copy):
    before = files(copy)
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        hub.save(*untrained()[:1], copy)
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        card.export(checkpoint(), copy)
    assert files(copy) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("where", ["hub.save_file", "rendering.SketchDecoder.save_pretrained"])
def test_saving_that_fails_leaves_nothing(error, where, tmp_path, copy, monkeypatch):
    def fail(*_, **__):
        raise error

    before, (reasoner, decoder) = files(copy), untrained()
    monkeypatch.setattr(f"latent_reason.{where}", fail)
    with pytest.raises(type(error), match="The disk is full" if isinstance(error, OSError) else None):
        hub.save(reasoner, tmp_path / "new", decoder=decoder)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and files(copy) == before


# -- export ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run = tmp_path_factory.mktemp("export") / "run"
    shutil.copytree(checkpoint(), run / "model")
    row = {"task": "frozenlake_plan", "level": 3, "split": "test", "n": 4, "metric": "success", "value": 0.5,
           "low": 0.15, "high": 0.85}
    sketches = row | {"metric": "sketches_per_item", "low": None, "high": None}
    (run / "eval.json").write_text(json.dumps({"schema": 1, "results": [row, row | {"metric": "exact"}, sketches]}))
    (run / "controls").mkdir()
    (run / "controls" / "direct.json").write_text(json.dumps({"schema": 1, "results": [row | {"value": 0.25}]}))
    (run / "probe.json").write_text(json.dumps({"schema": 1, "n": 4, "protocol": "regenerate", "probes": {
        "as_generated": {"accuracy": 0.5, "low": 0.2, "high": 0.8},
        "zero": {"accuracy": 0.25, "low": 0.1, "high": 0.6, "difference": {"value": 0.25, "low": 0.0, "high": 0.5}}}}))
    (run / "recipe.yaml").write_text("seed: 0\n")
    return card.export(run, run / "export")


def test_export_holds_the_checkpoint_and_what_is_known_of_it(exported):
    assert set(files(exported)) == {*files(checkpoint()), "README.md", "LICENSE", "eval.json", "probe.json",
                                    "recipe.yaml", "controls/direct.json"}
    assert {n: d for n, d in files(exported).items() if n in files(checkpoint())} == files(checkpoint())


def test_model_card_has_a_head_results_and_limits(exported):
    text = (exported / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    found = yaml.safe_load(head)
    assert found["license"] == "apache-2.0" and found["library_name"] == "latent_reason"
    assert found["pipeline_tag"] == "image-text-to-text" and isinstance(found["tags"], list)
    assert "| this model | frozenlake_plan | test | 3 | 4 | 0.500 (0.15-0.85) | 0.500 (0.15-0.85) |" in body
    assert "| direct | frozenlake_plan | test | 3 | 4 | 0.250 (0.15-0.85) |  |" in body
    assert "| zero | 0.250 | 0.100 - 0.600 | +0.250 (+0.000 to +0.500) |" in body
    assert "## Limits" in body and "None" not in body and str(ROOT) not in text


def test_snippet_of_the_model_card_runs_as_written_elsewhere(exported):
    """A fresh process in another folder, without a network: the same words as here."""
    snippet, = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-W", "error", "-c", snippet], cwd=exported, capture_output=True, text=True,
                          encoding="utf-8", check=False, env=os.environ | {
                              "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    reasoner, _ = hub.load(exported)
    task = tasks.make("frozenlake_plan", split="test", level=4)
    prompt = reasoner.collator()([task.trace(task[0])], generate=True).to(reasoner.device)
    assert done.stdout == generate(reasoner, prompt).text(0, reasoner.vocabulary) + "\n"

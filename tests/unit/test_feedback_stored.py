"""The number of latents that are fed with the norm of token embeddings: in checkpoints, exports and runs."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import recipe, short, tiny_checkpoint, untrained

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.export import exporter
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding.engine import generate
from latent_reason.trace import Image, Message, Text, Trace
from latent_reason.visualization.sketch_decoder import SketchDecoder
from train import sft
from train.config import RLTrainingConfig
from train.export_state import load_part
from train.model_setup import load_compatible_weights, prepare_model
from train.trainer import make_run_folder

GAIN = 0.25  # a power of two, so that multiplication is exact


def with_gain(reasoner, gain: float = GAIN):
    reasoner.reserve_gain("norm_matched")
    reasoner.feedback_gain.fill_(gain)
    return reasoner


def tiny_trace(image):
    return Trace("q", (Message("user", (Image(image), Text("where?"))),))


# -- checkpoints -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with a number, and its checkpoint with a decoder."""
    reasoner, decoder = untrained()
    folder = tmp_path_factory.mktemp("gain") / "model"
    notes = {"data": {"task": "frozenlake_plan", "levels": [3], "options": {"chunk": [1, 1]}}}
    return with_gain(reasoner), checkpoint.save(reasoner, folder, decoder=decoder, notes=notes)


def test_it_is_stored_with_the_weights_and_said_in_the_description(saved, tmp_path):
    folder = saved[1]
    assert json.loads((folder / "latent_reason.json").read_text())["feedback"] == "norm_matched"
    assert float(load_file(folder / "reasoner.safetensors")["feedback_gain"]) == GAIN
    loaded, _ = checkpoint.load(folder)
    assert loaded.feedback == "norm_matched" and float(loaded.feedback_gain) == GAIN
    again = checkpoint.save(loaded, tmp_path / "again")
    assert (again / "reasoner.safetensors").read_bytes() == (folder / "reasoner.safetensors").read_bytes()
    assert "feedback" not in json.loads((tiny_checkpoint() / "latent_reason.json").read_text())
    assert checkpoint.load(tiny_checkpoint())[0].feedback == "raw", "older checkpoints have none"


@pytest.mark.parametrize("change", ["left over", "missing", "shape", "unknown"])
def test_it_is_held_against_the_header(change, saved, tmp_path):
    folder = shutil.copytree(saved[1], tmp_path / "model")
    file, card = folder / "reasoner.safetensors", folder / "latent_reason.json"
    weights, described = load_file(file), json.loads(card.read_text())
    if change == "left over":
        del described["feedback"]
    elif change == "missing":
        del weights["feedback_gain"]
    elif change == "shape":
        weights["feedback_gain"] = torch.ones(2)
    else:
        described["feedback"] = "doubled"
    save_file(weights, file, metadata={"format": "pt"})
    described["files"]["reasoner.safetensors"] = file.stat().st_size
    card.write_text(json.dumps(described))
    said = "says feedback: 'doubled'" if change == "unknown" else "feedback_gain is"
    with pytest.raises(ValueError, match=said):
        checkpoint.load(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_export_has_it_too(dtype, saved, tmp_path):
    reasoner = copy.deepcopy(saved[0])
    reasoner.feedback_gain.fill_(0.3)  # which bfloat16 rounds
    wrapped = LatentReasonForConditionalGeneration.from_reasoner(reasoner, SketchDecoder(latent=32, width=32))
    wrapped.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["feedback"] == "norm_matched"
    loaded = LatentReasonForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=dtype)
    assert loaded.reasoner.feedback_gain.dtype == torch.float32
    assert float(loaded.reasoner.feedback_gain) == float(torch.tensor(0.3))
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"feedback": "doubled"}))
    with pytest.raises(ValueError, match="says feedback: 'doubled'"):
        LatentReasonForConditionalGeneration.from_pretrained(tmp_path / "model")


def test_an_exported_folder_decodes_as_the_checkpoint(saved, tmp_path, picture):
    reasoner, folder = saved
    out = tmp_path / "exported"
    exporter.export(folder, out)
    loaded, decoder = checkpoint.load(out)
    assert decoder is not None and float(loaded.feedback_gain) == GAIN
    prompt = [tiny_trace(picture(2, 2))]
    ours, theirs = (
        generate(r.eval(), r.processor(prompt, generate=True), max_new_tokens=9, latent_mode="first")
        for r in (reasoner, loaded)
    )
    assert_close(theirs.latent_embeds, ours.latent_embeds)


# -- runs --------------------------------------------------------------------------------------------------------------
def test_a_start_takes_it_over_and_keeps_it(saved, tmp_path):
    started, _ = prepare_model(recipe(tmp_path / "a", init_from=str(saved[1])))
    assert started.feedback == "norm_matched" and float(started.feedback_gain) == GAIN
    other = untrained()[0]
    assert not load_compatible_weights(other, saved[0]) and float(other.feedback_gain) == GAIN
    changed = prepare_model(recipe(tmp_path / "c", "direct", init_from=str(saved[1])))[0]
    assert changed.feedback == "raw", "another method measures its own"
    rl = recipe(tmp_path / "b", config=RLTrainingConfig, init_from=str(saved[1]))
    assert float(prepare_model(rl, require_trained=True)[0].feedback_gain) == GAIN
    raw = recipe(tmp_path / "run", init_from=str(saved[1]))
    with pytest.raises(ValueError, match="was trained with 'norm_matched'"):
        sft.train(raw, make_run_folder(raw))


@pytest.mark.parametrize("method", ["modal_mixed", "coconut", "direct"])
def test_a_run_measures_it_once(method, tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=12)
    options = {} if method != "coconut" else {"method__options": {"stage": 1}}
    small = {"method__name": method, "method__feedback": "norm_matched", "optim__max_steps": 1}
    made = recipe(tmp_path / "run", method if method != "coconut" else "direct", **small | options)
    reasoner, _ = sft.train(made, make_run_folder(made))
    said = " ".join(capsys.readouterr().out.split())
    if method == "direct":
        assert "no example has latents, so none are scaled" in said and reasoner.feedback == "raw"
        return
    number = float(re.search(r"multiplied by (\S+) where", said)[1])
    assert float(reasoner.feedback_gain) == pytest.approx(number, rel=1e-3) and number != 1
    loaded, _ = checkpoint.load(tmp_path / "run")
    assert torch.equal(loaded.feedback_gain, reasoner.feedback_gain)
    then = replace(made, init_from=str(tmp_path / "run" / "model"), run_name=str(tmp_path / "then"))
    after, _ = sft.train(then, make_run_folder(then))
    assert torch.equal(after.feedback_gain, reasoner.feedback_gain)
    assert "multiplied by" not in capsys.readouterr().out


def test_sharded_states_are_not_measured(make_backbone, make_traces):
    reasoner = methods.build_method("coconut", make_backbone(), stage=1)
    objective = methods.objective_of(reasoner)

    class Data:
        rows = {"train": [objective.encode(reasoner, trace) for trace in make_traces()]}

    config = recipe("unused", "direct", method__feedback="norm_matched", fsdp=True, optim__name="adamw")
    with pytest.raises(ValueError, match="cannot be measured with fsdp"):
        sft.match_norms(reasoner, objective, Data(), config)


def test_a_training_state_becomes_a_checkpoint_with_it():
    """Where the state holds the number, there is room for it."""

    class Files:
        def sizes(self, path):
            return {"module/reasoner.feedback_gain": ((), torch.float32)}

        def read_some(self, path, tensors):
            tensors["module/reasoner.feedback_gain"].fill_(GAIN)

    reasoner, _ = untrained()
    load_part(Files(), "state", "reasoner.", reasoner)
    assert float(reasoner.feedback_gain) == GAIN

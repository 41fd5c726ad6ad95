"""A checkpoint folder: whole or not there, the same after loading, and nothing that runs code."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import BACKBONE, METHOD, tiny_checkpoint, untrained

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.export.content_checks import PICKLES
from latent_reason.checkpoint.export.exporter import export
from latent_reason.model.backbones import load_backbone
from latent_reason.model.backbones.encoders import load_encoder

PARTS = [
    "backbone/config.json",
    "backbone/generation_config.json",
    "backbone/model.safetensors",
    "backbone/preprocessor_config.json",
    "backbone/tokenizer.json",
    "backbone/tokenizer_config.json",
    "decoder/config.json",
    "decoder/diffusion_pytorch_model.safetensors",
    "reasoner.safetensors",
]


@pytest.fixture
def copy(tmp_path):
    """A checkpoint to break."""
    return shutil.copytree(tiny_checkpoint(), tmp_path / "mine")


def files(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def change_card(folder, **changes):
    stored = json.loads((folder / checkpoint.CONFIG_FILE).read_text())
    (folder / checkpoint.CONFIG_FILE).write_text(json.dumps(stored | changes))


def refused(folder) -> str:
    """The sentence with which a broken checkpoint is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        checkpoint.load(folder)
    said = str(error.value)
    assert "\n" not in said and len(said) < 500, said
    return said


# -- save and load -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHOD)
def test_round_trip(method, tmp_path):
    reasoner, decoder = untrained(method)
    checkpoint.save(reasoner, tmp_path / "a", decoder=decoder if reasoner.can_sketch else None, notes={"seed": 3})
    loaded, drawn_by = checkpoint.load(tmp_path / "a", device="cpu")
    assert loaded.method == replace(reasoner.method, notes={"seed": 3})
    for name, t in reasoner.state_dict().items():
        assert torch.equal(t, loaded.state_dict()[name]), name
    assert (drawn_by is None) == (not reasoner.can_sketch)
    if drawn_by is not None:
        assert all(torch.equal(t, drawn_by.state_dict()[n]) for n, t in decoder.state_dict().items())
        assert drawn_by.config.latent == decoder.config.latent
    assert not loaded.training and loaded.backbone.latent_positions == reasoner.backbone.latent_positions


def test_a_model_with_an_encoder_in_a_folder_loads(tmp_path):
    """Its weights are read while the sizes of the rest are held against the checkpoint without memory."""
    load_encoder().model.save_pretrained(tmp_path / "encoder")
    reasoner = methods.build_method("skila", load_backbone("tiny", **BACKBONE), encoder=str(tmp_path / "encoder"))
    checkpoint.save(reasoner, tmp_path / "saved")
    loaded, _ = checkpoint.load(tmp_path / "saved", device="cpu")
    assert torch.equal(*(next(one.target.encoder.model.parameters()) for one in (loaded, reasoner)))


def test_load_save_load_save_gives_the_same_bytes(tmp_path):
    for source, again in ((tiny_checkpoint(), "a"), (tmp_path / "a", "b")):
        reasoner, decoder = checkpoint.load(source, device="cpu")
        checkpoint.save(reasoner, tmp_path / again, decoder=decoder)
    first, a, b = (files(folder) for folder in (tiny_checkpoint(), tmp_path / "a", tmp_path / "b"))
    assert a == b
    assert not [name for name, data in a.items() if str(tiny_checkpoint()).encode() in data], "no paths of this machine"
    assert {n: d for n, d in a.items() if "config" not in n and n != checkpoint.CONFIG_FILE}.items() <= first.items()


def test_a_run_folder_stands_for_its_model(tmp_path):
    shutil.copytree(tiny_checkpoint(), tmp_path / "run" / "model")
    assert checkpoint.load(tmp_path / "run")[0].method.name == "modal_mixed"


def test_nothing_pickled():
    stored = files(tiny_checkpoint())
    assert sorted(stored) == sorted([*PARTS, checkpoint.CONFIG_FILE, "sketches.png"])
    assert not [name for name, data in stored.items() if data.startswith(PICKLES) and data[8:9] != b"{"]


@pytest.mark.parametrize("name", ["decoder/diffusion_pytorch_model.bin", "backbone/pytorch_model.bin"])
def test_a_pickle_is_never_loaded(copy, name):
    """Not even in the place of weights that are missing."""
    change_card(copy, files={})
    for weights in (copy / name).parent.glob("*.safetensors"):
        weights.unlink()
    torch.save({}, copy / name)
    assert ".safetensors" in refused(copy)


@pytest.mark.parametrize(
    "name, said",
    [
        ("../../elsewhere.safetensors", "names weights outside of it"),
        ("weights.bin", "names weights that are not safetensors"),
        (3, "outside of it"),
    ],
)
def test_an_index_names_safetensors_beside_it_alone(copy, name, said):
    weights = load_file(copy / "backbone" / "model.safetensors")
    (copy / "backbone" / "model.safetensors").rename(copy.parent / "elsewhere.safetensors")
    torch.save(weights, copy / "backbone" / "weights.bin")
    change_card(copy, files={})
    (copy / "backbone" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)})
    )
    assert said in refused(copy)


def test_loading_draws_no_bars(capfd):
    checkpoint.load(tiny_checkpoint())
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
    (copy / checkpoint.CONFIG_FILE).write_text('{"format": 1,')
    assert "is not readable JSON" in refused(copy)
    (copy / checkpoint.CONFIG_FILE).write_text("[]")
    assert "does not describe a checkpoint" in refused(copy)
    (copy / checkpoint.CONFIG_FILE).write_text('{"format": 1, "method": "modal_mixed"}')
    assert "it lacks control_tokens, decoder, options, positions" in refused(copy)


def test_card_with_a_dtype_that_is_none(copy):
    card = json.loads((copy / checkpoint.CONFIG_FILE).read_text())
    for name in ("floot32", "nn", "float32.__class__"):
        (copy / checkpoint.CONFIG_FILE).write_text(json.dumps(card | {"dtype": name}))
        assert f"names dtype '{name}', which torch lacks" in refused(copy)


def test_card_of_another_format(copy):
    change_card(copy, format=3, written_by="latent_reason 7")
    said = refused(copy)
    assert (
        "has checkpoint format 3; this version reads formats 1 and 2" in said and "written by latent_reason 7" in said
    )


def test_card_of_an_unknown_method_or_option(copy):
    change_card(copy, method="modal_mixd")
    assert "unknown method 'modal_mixd'. Did you mean 'modal_mixed'?" in refused(copy)
    change_card(copy, method="modal_mixed", options={"kk": 3})
    assert "has no option 'kk'" in refused(copy)


def test_control_token_of_another_tokenizer(copy):
    stored = json.loads((copy / checkpoint.CONFIG_FILE).read_text())["control_tokens"]
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
        checkpoint.save(*untrained()[:1], copy)
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        export(tiny_checkpoint(), copy)
    assert files(copy) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize(
    "where", ["checkpoint.io.save_file", "visualization.sketch_decoder.SketchDecoder.save_pretrained"]
)
def test_saving_that_fails_leaves_nothing(error, where, tmp_path, copy, monkeypatch):
    def fail(*_, **__):
        raise error

    before, (reasoner, decoder) = files(copy), untrained()
    monkeypatch.setattr(f"latent_reason.{where}", fail)
    with pytest.raises(type(error), match="The disk is full" if isinstance(error, OSError) else None):
        checkpoint.save(reasoner, tmp_path / "new", decoder=decoder)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and files(copy) == before


def test_sizes_of_a_card_or_decoder_are_held_against_the_weights_before_memory_is_taken(copy):
    """A head, and a decoder, of terabytes."""
    card = json.loads((copy / checkpoint.CONFIG_FILE).read_text())
    for hidden, said in ((60_000, "instead of (60000, "), (2_000_000, "hidden=2000000: must be between 0 and 65,536")):
        huge = card["options"] | {"head_options": {"hidden": hidden}}
        (copy / checkpoint.CONFIG_FILE).write_text(json.dumps(card | {"options": huge}))
        assert said in refused(copy)
    (copy / checkpoint.CONFIG_FILE).write_text(json.dumps(card))
    config = json.loads((copy / "decoder" / "config.json").read_text())
    (copy / "decoder" / "config.json").write_text(json.dumps(config | {"width": 2_000_000}))
    assert "decoder' cannot be read" in refused(copy) and "its sizes differ" in refused(copy)

"""Which attention a run uses: auto on made-up machines, every refusal, and what recipes and checkpoints keep of it."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
import torch
from tiny_runs import ROOT, recipe, untrained

from latent_reason import checkpoint, methods
from latent_reason.model.backbones import attention, load_backbone
from latent_reason.model.backbones.attention import FLASH, Machine, choose_attention, set_attention
from latent_reason.objectives.objective import RunOptions
from train import model_setup
from train.config import BackboneConfig
from train.model_setup import prepare_model

TWO, THREE, FOUR = FLASH
CPU = Machine("2.13.0+cpu")


def gpu(name: str, capability: tuple[int, int], *installed: str) -> Machine:
    return Machine("2.11.0+cu130", name, capability, frozenset(installed))


T4, A100, H100, B200 = (
    lambda *installed, given=given: gpu(*given, *installed)
    for given in (("Tesla T4", (7, 5)), ("NVIDIA A100", (8, 0)), ("NVIDIA H100", (9, 0)), ("NVIDIA B200", (10, 0)))
)


def chosen(machine: Machine, attn: str = "auto", **facts) -> attention.Choice:
    return choose_attention(
        attn, machine=machine, **{"dtype": torch.bfloat16, "device": "cuda", "needs_mask": False} | facts
    )


@pytest.mark.parametrize(
    "machine, facts, name, why",
    [
        (CPU, {"device": "cpu"}, "sdpa", "on the CPU"),
        (H100(TWO, THREE, FOUR), {"device": "cpu"}, "sdpa", "on the CPU"),
        (H100(TWO), {"dtype": torch.float32}, "sdpa", "weights are float32"),
        (H100(TWO), {"needs_mask": True}, "sdpa", "masks of their own"),
        (H100(), {}, "sdpa", "flash-attn is not installed"),
        (H100(TWO, THREE, FOUR), {}, TWO, "flash-attn is installed and runs on the NVIDIA H100"),
        (A100(TWO), {"dtype": torch.float16}, TWO, "A100"),
        (H100(THREE, FOUR), {}, THREE, "flash-attn-3"),
        (B200(THREE, FOUR), {}, FOUR, "flash-attn-4"),
        (A100(THREE, FOUR), {}, "sdpa", "capability 9.0 to 9.9 and the NVIDIA A100 has 8.0"),
        (T4(TWO), {"dtype": torch.float16}, "sdpa", "Tesla T4 has 7.5"),
    ],
)
def test_auto_takes_flash_where_it_can_be_used(machine, facts, name, why):
    choice = chosen(machine, **facts)
    assert choice.name == name and why in choice.reason and "\n" not in choice.reason


@pytest.mark.parametrize(
    "machine, attn, facts, said",
    [
        (
            H100(),
            TWO,
            {},
            r"flash-attn is not installed \(torch 2.11.0\+cu130, NVIDIA H100, capability 9.0, dtype bfloat16"
            r"\)\. Install it \(pip .*--no-build-isolation .*\) or set it to sdpa or auto\.$",
        ),
        (B200(TWO), FOUR, {}, r'flash-attn-4 is not installed .* Install it \(pip install "flash-attn-4'),
        (H100(), THREE, {}, r"Install it \(build the folder hopper"),
        (
            B200(THREE),
            THREE,
            {},
            r"capability 9.0 to 9.9 and the NVIDIA B200 has 10.0 .*\)\. Set it to sdpa or auto\.$",
        ),
        (
            CPU,
            TWO,
            {"device": "cpu"},
            r"the model is on the CPU .*no GPU, dtype bfloat16\)\. Set it to sdpa or auto\.$",
        ),
        (H100(TWO), TWO, {"dtype": torch.float32}, "the weights are float32"),
        (H100(TWO), TWO, {"needs_mask": True}, "masks of their own"),
        (CPU, "eager", {"needs_mask": True}, "attn_implementation=eager cannot be used: .*which only sdpa takes"),
        (H100(TWO), "kernels-community/flash-attn2", {}, "must be one of auto, sdpa, eager, flash_attention_2"),
    ],
)
def test_what_is_asked_for_is_used_or_refused(machine, attn, facts, said):
    with pytest.raises(ValueError, match=said) as error:
        chosen(machine, attn, **facts)
    assert "\n" not in str(error.value)
    assert chosen(machine, "sdpa", **facts).name == "sdpa"


def test_install_lines_are_those_of_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, name in (("flash", TWO), ("flash4", FOUR)):
        assert extras[extra][0].partition(";")[0] in FLASH[name].install


def test_probes_belong_to_their_names(monkeypatch):
    """And none of them may turn to the Hub for a kernel."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    for name in FLASH:
        for other in FLASH:
            monkeypatch.setattr(
                f"transformers.utils.is_flash_attn_{other[-1]}_available", lambda there=name == other: there
            )
        assert attention.inspect_machine() == Machine(torch.__version__, "NVIDIA H100", (9, 0), frozenset({name}))


# -- where it comes from, where it goes --------------------------------------------------------------------------------
def test_a_run_says_once_what_it_attends_with(tmp_path, capsys):
    assert BackboneConfig().attn_implementation == "auto"

    def prepared(**changes):
        config = recipe(tmp_path, **changes)
        reasoner, _ = prepare_model(config)
        model_setup.choose_attention(reasoner, config, model_setup.build_objective(config, reasoner))
        return reasoner

    reasoner = prepared()
    assert reasoner.backbone.model.config._attn_implementation == "sdpa"
    assert re.findall("attention: .*", capsys.readouterr().out) == [
        "attention: sdpa (the model is on the CPU and flash attention runs on CUDA)"
    ]
    reasoner = prepared(backbone__attn_implementation="eager")
    assert reasoner.backbone.model.config.get_text_config()._attn_implementation == "eager"
    with pytest.raises(ValueError, match="attn_implementation=flash_attention_2 cannot be used"):
        prepared(backbone__attn_implementation=TWO)
    with pytest.raises(ValueError, match="attn_implementation=eager cannot be used: positions have masks"):
        prepared(backbone__attn_implementation="eager", method__attention_bottleneck_prob=0.5)


@pytest.mark.parametrize(
    "name, options, masks",
    [("modal_mixed", {}, False), ("monet", {"stage": 1}, False), ("monet", {"stage": 2}, True), ("monet", {}, True)],
)
def test_a_method_says_whether_it_has_masks(name, options, masks):
    assert methods.build_objective(name, **options).needs_attention_mask == masks
    assert methods.build_objective(name, RunOptions(attention_bottleneck_prob=0.5), **options).needs_attention_mask


def test_masks_of_a_family_count(make_backbone):
    backbone = make_backbone()
    assert set_attention(backbone, "eager").name == "eager"
    backbone.has_bidirectional_images = True
    with pytest.raises(ValueError, match="which only sdpa takes"):
        set_attention(backbone, "eager")


def test_a_checkpoint_does_not_remember_its_attention(tmp_path):
    """One that was trained with flash attention on a GPU loads on a CPU."""
    reasoner, _ = untrained()
    config = reasoner.backbone.model.config
    config._attn_implementation = TWO
    checkpoint.save(reasoner, tmp_path / "a")
    assert "attn" not in json.dumps(json.loads((tmp_path / "a" / "backbone" / "config.json").read_text()))
    loaded, _ = checkpoint.load(tmp_path / "a", device="cpu")
    assert loaded.backbone.model.config._attn_implementation == "sdpa"
    assert load_backbone(str(tmp_path / "a" / "backbone")).model.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match=r"^attn_implementation=flash_attention_2 cannot be used"):
        checkpoint.load(tmp_path / "a", device="cpu", attn_implementation=TWO)

"""LoRA on weights of 4 bits. What does not need the library that rounds them is tested everywhere, the rest by name
where it is there (pip install -e '.[bits]')."""

import pytest
import torch
from tiny_runs import BACKBONE, METHOD, recipe

from latent_reason import checkpoint, methods
from latent_reason.model import adapters, backbones
from train import sft
from train.lit_modules import set_trainable
from train.model_setup import prepare_model
from train.trainer import make_run_folder


@pytest.fixture
def base(tmp_path):
    backbone = backbones.load_backbone("tiny", **BACKBONE | {"width": 64})
    methods.build_method("direct", backbone)  # with its control tokens
    for part in (backbone.model, backbone.tokenizer, backbone.image_processor):
        part.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def test_what_is_missing_is_named(base, monkeypatch):
    monkeypatch.setattr("latent_reason.model.backbones.quantization.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"bits=4 needs bitsandbytes and accelerate. Install with: pip install"):
        backbones.load_backbone(base, bits=4)
    with pytest.raises(ValueError, match=r"bits=8: must be 4"):
        backbones.load_backbone(base, bits=8)


@pytest.mark.parametrize("name, said", [("base", "Set lora.rank"), ("tiny", "those of a tiny model are random")])
def test_rounded_weights_without_an_adapter_or_of_nothing_are_refused(name, said, tmp_path):
    with pytest.raises(ValueError, match=f"backbone.options.bits.*{said}"):
        prepare_model(recipe(tmp_path / "run", backbone__name=name, backbone__options={"bits": 4}))


@pytest.fixture
def rounded(base):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    return backbones.load_backbone(base, bits=4)


def test_the_text_model_alone_is_rounded(rounded, base):
    import bitsandbytes

    kinds = {
        name: isinstance(m, bitsandbytes.nn.Linear4bit)
        for name, m in rounded.model.named_modules()
        if isinstance(m, torch.nn.Linear)
    }
    assert all(found == ("language_model" in name) for name, found in kinds.items()) and any(kinds.values())
    ids = torch.arange(5, 40)[None]
    exact = backbones.load_backbone(base).model(input_ids=ids).logits
    off = (rounded.model(input_ids=ids).logits - exact).square().mean().sqrt() / exact.std()
    assert 0.001 < off < 0.3


def test_rounded_weights_are_saved_and_merged_with_care(rounded, tmp_path):
    reasoner = methods.build_method("modal_mixed", rounded, **METHOD["modal_mixed"])
    with pytest.raises(ValueError, match="weights of 4 bits cannot be saved alone"):
        checkpoint.save(reasoner, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    adapters.add(reasoner, rank=4)
    with pytest.raises(ValueError, match="an adapter cannot be merged into weights of 4 bits"):
        adapters.merge(reasoner)


def test_an_adapter_learns_on_them_and_comes_back_with_them(rounded, base, tmp_path):
    run = recipe(
        tmp_path / "run",
        backbone__name=base,
        backbone__options={"bits": 4},
        lora__rank=4,
        trainable=["lora", "head"],
        optim__lr=1e-2,
        optim__adamw_lr=1e-2,
    )
    reasoner, _ = sft.train(run, make_run_folder(run))
    assert any("lora_B" in n and p.any() for n, p in reasoner.named_parameters())
    set_trainable(reasoner, ["lora", "head"])
    again, _ = checkpoint.load(tmp_path / "run")
    assert again.backbone.bits == 4
    ids = torch.arange(5, 40)[None]
    first, second = (r.backbone.model(input_ids=ids).logits for r in (again, reasoner))
    assert (first - second).abs().max() < 0.05 * first.std(), "not more than repacking for decoding does"

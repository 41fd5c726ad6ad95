"""LoRA: what trains, that it is saved and found again with its base, and that merging changes nothing."""

import copy

import pytest
import torch
from conftest import CASES, loss_of, ready, training_batch
from tiny_runs import BACKBONE, short

from latent_reason import checkpoint
from latent_reason.contracts.closeness import assert_close
from latent_reason.files import atomic_write_json
from latent_reason.model import adapters
from latent_reason.model.backbones import load_backbone
from train import sft
from train.config import SFTConfig
from train.config import load as load_recipe
from train.lit_modules import parameter_table, set_trainable
from train.trainer import make_run_folder

float64 = pytest.mark.usefixtures("float64")
FAMILIES = ["qwen2_5_vl", "gemma3", "smolvlm"]


@pytest.fixture(params=FAMILIES)
def reasoner(request, make_backbone, make_traces):
    case = next(case for case in CASES if case.method == "modal_mixed")
    return ready(case, lambda positions: make_backbone(positions, request.param), make_traces).eval()


@pytest.fixture
def adapted(reasoner):
    """With an adapter that says something: a fresh one adds nothing."""
    adapters.add(reasoner, rank=3)
    set_trainable(reasoner, ["lora", "head"])
    with torch.no_grad():
        for name, p in reasoner.named_parameters():
            if "lora_B" in name or "trainable_tokens" in name:
                p.add_(torch.randn_like(p), alpha=0.3)
    return reasoner


@pytest.fixture
def batch(reasoner, make_traces):
    return training_batch(reasoner, make_traces())


@torch.no_grad()
def logits(reasoner, batch):
    backbone = reasoner.backbone
    embeds = reasoner.embed_batch(batch, reasoner.latents_to_embeddings(reasoner.target(batch)))
    return backbone.logits(backbone.forward_text(embeds, batch.mask, backbone.position_ids(batch)))[batch.mask]


@float64
def test_a_fresh_adapter_changes_nothing_and_trains_alone_with_the_control_tokens(reasoner, batch):
    before, v = logits(reasoner, batch), reasoner.vocabulary
    table = reasoner.backbone.model.get_input_embeddings().weight.detach().clone()
    adapters.add(reasoner, rank=3)
    assert_close(logits(reasoner, batch), before)
    set_trainable(reasoner, ["lora"])
    counts = {part: trained for part, _, trained in parameter_table(reasoner) if trained}
    assert counts.keys() == {"lora"}
    optimizer = torch.optim.SGD([p for p in reasoner.parameters() if p.requires_grad], lr=1.0)
    loss_of(reasoner, batch).total.backward()
    optimizer.step()
    adapters.merge(reasoner)
    now = reasoner.backbone.model.get_input_embeddings().weight
    changed = (now != table).any(-1).nonzero()[:, 0].tolist()
    assert set(changed) <= {v.open, v.latent, v.close} and v.open in changed
    assert now is reasoner.backbone.model.get_output_embeddings().weight, "still tied"


@float64
def test_merging_changes_nothing_but_the_form(adapted, batch):
    said = logits(adapted, batch)
    adapters.merge(adapted)
    assert adapted.backbone.adapter is None and not any("lora" in name for name, _ in adapted.named_parameters())
    assert_close(logits(adapted, batch), said)


def test_an_adapter_is_saved_without_a_base_that_has_a_name_and_with_one_that_has_none(adapted, batch, tmp_path):
    said = logits(adapted, batch)
    checkpoint.save(adapted, tmp_path / "whole")
    again, _ = checkpoint.load(tmp_path / "whole")
    assert again.backbone.adapter is not None
    assert_close(logits(again, batch), said)
    checkpoint.save(again, tmp_path / "twice")  # and its base has no name still
    assert (tmp_path / "twice" / "backbone" / "base" / "model.safetensors").is_file()

    adapters.merge(again)
    checkpoint.save(again, tmp_path / "merged")
    assert_close(logits(checkpoint.load(tmp_path / "merged")[0], batch), said)


def test_an_adapter_of_a_named_base_is_small_and_names_it(reasoner, batch, tmp_path):
    checkpoint.save(reasoner, tmp_path / "base")
    start, _ = checkpoint.load(tmp_path / "base")
    adapters.add(start, rank=2)
    checkpoint.save(start, tmp_path / "adapter")
    assert not list((tmp_path / "adapter").rglob("model.safetensors"))
    card = checkpoint.read_config(tmp_path / "adapter")
    assert card["base"] == str(tmp_path / "base" / "backbone")
    assert_close(logits(checkpoint.load(tmp_path / "adapter")[0], batch), logits(reasoner, batch))
    atomic_write_json(tmp_path / "adapter" / checkpoint.CONFIG_FILE, card | {"base": "gone"})
    with pytest.raises(ValueError, match=r"holds an adapter of 'gone', which cannot be loaded.*\"base\" in"):
        checkpoint.load(tmp_path / "adapter")


def test_what_does_not_fit_together_is_said(adapted, make_backbone):
    with pytest.raises(ValueError, match="already has an adapter"):
        adapters.add(adapted)
    with pytest.raises(ValueError, match="in place of text_model"):
        set_trainable(adapted, ["text_model", "head"])
    adapters.merge(adapted)
    with pytest.raises(ValueError, match="the model has no LoRA adapter"):
        set_trainable(adapted, ["lora"])
    with pytest.raises(ValueError, match="nothing"):
        adapters.add(adapted, targets="nothing")


def test_a_stock_folder_keeps_its_name(make_backbone, tmp_path):
    backbone = make_backbone()
    for part in (backbone.model, backbone.tokenizer, backbone.image_processor):
        part.save_pretrained(tmp_path)
    assert backbone.name is None and load_backbone(str(tmp_path)).name == str(tmp_path)


@float64
def test_an_adapter_learns_through_checkpointed_layers_what_it_learns_through_others(adapted, batch):
    """Behind frozen embeddings a re-entrant checkpoint gives no gradient at all."""

    def gradients(reasoner):
        torch.manual_seed(0)
        loss_of(reasoner.train(), batch).total.backward()
        return {n: p.grad for n, p in reasoner.named_parameters() if p.requires_grad and p.grad is not None}

    plain = gradients(copy.deepcopy(adapted))  # the scale of its head follows what it sees
    adapted.backbone.set_gradient_checkpointing()
    assert adapted.backbone.is_gradient_checkpointing and any("lora" in n for n in plain)
    assert_close(gradients(adapted), plain, depth=16)


def test_the_recipe_of_a_real_model_runs_on_its_stand_in(tmp_path, monkeypatch):
    short(monkeypatch)
    recipe = load_recipe(
        "train/recipes/qwen25vl_3b_modal_mixed.yaml",
        SFTConfig,
        backbone__name="tiny",
        backbone__options=BACKBONE,
        data__items=16,
        data__val_items=2,
        data__levels=[3],
        optim__max_steps=2,
        run_name=str(tmp_path / "run"),
    )
    recipe.method.options["head_options"] |= {"hidden": 32, "depth": 1}
    sft.train(recipe, make_run_folder(recipe))
    reasoner, _ = checkpoint.load(tmp_path / "run")
    assert reasoner.backbone.adapter is not None and reasoner.backbone.model.dtype == torch.bfloat16
    assert next(reasoner.head.parameters()).dtype == torch.float32
    assert "lora" in {part for part, *_ in parameter_table(reasoner)}

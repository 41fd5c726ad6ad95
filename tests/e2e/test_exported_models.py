"""Exported models: their logits, precision, adapters and output tables."""

from __future__ import annotations

import pytest
import torch
import yaml
from conftest import CASES, ready, training_batch
from tiny_runs import shorten_snippet

from latent_reason import checkpoint
from latent_reason.checkpoint.export import checks, isolated_check
from latent_reason.checkpoint.export.exporter import export
from latent_reason.checkpoint.hf import parity
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.contracts.closeness import assert_close
from latent_reason.model import adapters

#: what a folder is made of: a method on a family


def test_logits_are_those_of_the_skeleton(make_backbone, make_traces):
    """Rows of ids alone, with padding and several pictures a row, against the batch they come from."""
    reasoner = ready(CASES[0], make_backbone, make_traces).eval()
    batch = training_batch(reasoner, make_traces(sketches=False))
    model = LatentReasonForConditionalGeneration.from_reasoner(reasoner)
    with torch.no_grad():
        found = model(batch.ids, batch.mask, batch.images.pixels, batch.images.grid).logits
        states = reasoner.backbone.forward_text(
            reasoner.embed_batch(batch), batch.mask, reasoner.backbone.position_ids(batch)
        )
    assert_close(found, reasoner.backbone.logits(states))
    with pytest.raises(ValueError, match="image positions, but the images take"):
        model(batch.ids, batch.mask, batch.images.pixels[:24], batch.images.grid[:1])
    with pytest.raises(ValueError, match="latent placeholders"):
        model(torch.full_like(batch.ids, reasoner.vocabulary.latent))


def test_heads_stay_in_fp32_on_a_backbone_in_bf16(make_backbone, make_traces, tmp_path):
    case = next(case for case in CASES if case.method == "modal_mixed")
    reasoner = ready(case, lambda positions: make_backbone(positions).to(torch.bfloat16), make_traces).eval()
    folder = export(checkpoint.save(reasoner, tmp_path / "saved"), tmp_path / "out")
    results = checks.check(folder)
    assert checks.passed(results), results
    again, _ = checkpoint.load(folder, device="cpu")
    assert again.backbone.model.dtype == torch.bfloat16 and next(again.head.parameters()).dtype == torch.float32
    for name, value in reasoner.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]) and value.dtype == again.state_dict()[name].dtype, name


def test_an_adapter_is_exported_for_its_base_or_folded_in(make_backbone, make_traces, tmp_path):
    reasoner = ready(CASES[0], make_backbone, make_traces).eval()
    base = checkpoint.save(reasoner, tmp_path / "base")
    start, _ = checkpoint.load(base, device="cpu")
    adapters.add(start, rank=2)
    with torch.no_grad():
        for name, p in start.named_parameters():
            if "lora_B" in name or "trainable_tokens" in name:
                p.add_(torch.randn_like(p), alpha=0.3)
    checkpoint.save(start, tmp_path / "run")
    folder = export(tmp_path / "run", tmp_path / "out")
    assert not list(folder.glob("*.py")) and not (folder / "config.json").exists()
    assert "peft" in (folder / "requirements.txt").read_text().splitlines()
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert head["base_model"] == str(base / "backbone") and "lora" in head["tags"]
    assert [r.number for r in checks.check(folder) if r.state == "failed"] == [8], "its base has a path"
    shorten_snippet(folder)
    (stranger,) = isolated_check.ask([folder])
    assert (stranger["loading"], stranger["snippet"]) == ("", "") and max(stranger["off"].values()) < parity.BOUNDS[
        "float32"
    ]

    merged = export(tmp_path / "run", tmp_path / "merged", merge_lora=True)
    assert checks.passed(checks.check(merged))
    model, stored = (
        LatentReasonForConditionalGeneration.from_reasoner(*checkpoint.load(merged, device="cpu")),
        parity.read(folder)[0],
    )
    given = {name: stored[name] for name in ("input_ids", "pixel_values", "image_grid")}
    assert_close(parity.outputs(model, given, 0)["logits"], stored["merged"])


def test_an_adapter_whose_base_has_no_name_can_only_be_merged(make_backbone, make_traces, tmp_path):
    reasoner = ready(CASES[0], make_backbone, make_traces).eval()
    adapters.add(reasoner, rank=2)
    checkpoint.save(reasoner, tmp_path / "run")
    with pytest.raises(ValueError, match="has no name others could load it by"):
        export(tmp_path / "run", tmp_path / "out")
    export(tmp_path / "run", tmp_path / "out", merge_lora=True)


def test_a_table_of_its_own_for_what_comes_out_stays_its_own(make_backbone, make_traces, tmp_path):
    def untied(positions):
        backbone = make_backbone(positions)
        model = backbone.model
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
        model.lm_head.weight, model.all_tied_weights_keys = torch.nn.Parameter(2 * model.lm_head.weight.detach()), {}
        return backbone

    reasoner = ready(CASES[0], untied, make_traces).eval()
    folder = export(checkpoint.save(reasoner, tmp_path / "saved"), tmp_path / "out")
    assert checks.passed(results := checks.check(folder)), results
    again = checkpoint.load(folder, device="cpu")[0].backbone.model
    assert torch.equal(again.lm_head.weight, reasoner.backbone.model.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.get_input_embeddings().weight)

"""A run that cannot fit into its GPU is refused before data are encoded, and plans of published recipes are of today."""

from __future__ import annotations

import json

import pytest
from tiny_runs import recipe, tiny_checkpoint, tiny_reasoner

from train import memory, sft
from train.lit_modules import set_trainable
from train.planning import published
from train.planning.examples import with_table
from train.trainer import make_run_folder


def counted(parts: list[str], processes: int = 1, **changes) -> int:
    reasoner = tiny_reasoner()
    set_trainable(reasoner, parts)
    return memory.least_bytes(reasoner, recipe("unused", **changes), processes)


def test_what_adamw_keeps_of_every_weight():
    """Four bytes each for the weight, its gradient, and two moments of what trains."""
    weights = list(tiny_reasoner().parameters())
    total = 4 * sum(p.numel() for p in weights)
    everything = ["text_model", "embeddings", "connector", "vision_encoder", "head", "target"]
    adamw = {"optim__name": "adamw"}
    assert counted(everything, **adamw) == pytest.approx(4 * total, rel=0.01)
    head = counted(["head"], **adamw)
    assert total < head < 1.5 * total
    assert counted(["head"], optim__name="muon") < head < counted(["head"], optim__ema_decay=0.9, **adamw)
    assert counted(everything, 4, fsdp=True, **adamw) == pytest.approx(total, rel=0.01)


def test_a_run_that_cannot_fit_is_refused_before_data_are_encoded(tmp_path, monkeypatch):
    made = recipe(tmp_path / "run", init_from=str(tiny_checkpoint()), optim__name="adamw")
    monkeypatch.setattr(memory, "gpu_here", lambda accelerator: ("NVIDIA H200", 0.0001))
    monkeypatch.setattr(sft, "TraceData", None)
    with pytest.raises(ValueError, match=r"need 0.0 GiB on each of 1 GPUs, and NVIDIA H200 has 0.0001 GiB. Use fsdp"):
        sft.train(made, make_run_folder(made))


def test_every_published_recipe_is_planned_and_fits_in_a_way():
    found = json.loads(published.PLANS.read_text())["plans"]
    assert sorted(found) == sorted(path.stem for path in published.RECIPES.glob("*.yaml"))
    for recipe_name, ways in found.items():
        assert any(way.get("gib", 1000) <= published.MEMORY for way in ways.values()), recipe_name
    page, marks = published.PAGE.read_text(), (published.BEGIN, published.END)
    assert with_table(page, published.table_of(found), *marks) == page


def test_a_batch_is_planned_on_as_many_gpus_as_can_share_it():
    eight, one = recipe("unused"), recipe("unused", stages=[{"data": {"global_batch_size": 1}}])
    assert published.most_gpus(eight) == 8 and published.most_gpus(one) == 1
    assert published.most_gpus(recipe("unused", fsdp=True, tensor_parallel_size=4, stages=one.stages)) == 4

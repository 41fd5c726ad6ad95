"""python -m train.compare_heads: every head from the same start on the same data, one JSON."""

from __future__ import annotations

import json

from tiny_runs import recipe, short, untrained

from latent_reason import checkpoint
from train import compare_heads
from train.config import HeadComparisonConfig, dump


def test_heads_are_compared_from_one_start(tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=12)
    reasoner, decoder = untrained("direct")
    start = checkpoint.save(reasoner, tmp_path / "start", decoder=decoder, notes={})
    (tmp_path / "small.yaml").write_text(dump(recipe(None, config=HeadComparisonConfig, optim__max_steps=2, seeds=[0])))
    words = ["--config", str(tmp_path / "small.yaml"), "--init_from", str(start), "--test_items", "2"]
    for only in ("residual", "whole"):
        compare_heads.main([*words, "--only", only, "--out", str(tmp_path / "heads.json")])
    capsys.readouterr()
    found = json.loads((tmp_path / "heads.json").read_text())["results"]
    names = [r["head"] for r in found]
    assert names == [n for only in ("residual", "whole") for n in compare_heads.VARIANTS if only in n]
    for r in found:
        assert r["steps"] == 2 and r["n"] == 2 and 0 < r["drawn_error"] < 100 and r["span_cpu_ms"] > 0
        assert r["rendered_sketches"] >= 0 and r["span_length"] == 16
    denoising, whole = ([r for r in found if only in r["head"]] for only in ("residual", "whole"))
    assert all(list(r["drawn_error_by_denoising_steps"]) == ["1", "2", "4", "8", "16"] for r in denoising)
    assert any(len(set(r["drawn_error_by_denoising_steps"].values())) > 1 for r in denoising)
    steps = {r["head"]: r["network_calls"] for r in denoising}
    assert steps["flow, residual, one step"] == 16 and steps["flow, residual"] == 64
    assert len(whole) == 2 and all(r["network_calls"] == r["backbone_passes"] == 1 for r in whole)

"""The first README command, cut short: everything it promises to leave is there, and nothing is overwritten."""

from __future__ import annotations

import json

import pytest
from tiny_runs import short

from latent_reason import checkpoint
from train import quickstart
from train.config import PretrainConfig, SFTConfig, load


@pytest.mark.slow
def test_quickstart_leaves_everything(tmp_path, monkeypatch, capfd):
    short(monkeypatch, budget=12)
    folder = tmp_path / "quick"
    folder.mkdir()
    (folder / "mine.txt").write_text("dear")
    quickstart.main(["--smoke", "--run_name", str(folder)])
    shown, noise = capfd.readouterr()

    assert [p.name for p in folder.iterdir()] == ["mine.txt"], "a run that is there stays as it is"
    folder = tmp_path / "quick-2"
    for name in ("eval.json", "probe.json", "sketches.png", "export", "recipe.yaml", "recipe-pretrain.yaml", "logs"):
        assert (folder / name).exists(), name
    assert load(folder / "recipe.yaml", SFTConfig).run_name == str(folder)
    assert load(folder / "recipe-pretrain.yaml", PretrainConfig).optim.max_steps == 4
    assert {"success", "exact"} <= {r["metric"] for r in json.loads((folder / "eval.json").read_text())["results"]}
    assert {"noise", "foreign"} <= json.loads((folder / "probe.json").read_text())["probes"].keys()
    assert {p.name for p in (folder / "export").iterdir()} >= {"README.md", "LICENSE", "eval.json", "sketches.png"}
    reasoner, decoder = checkpoint.load(folder / "export")
    assert reasoner.can_sketch and decoder is not None

    *_, last = shown.split("Next, try:")
    assert len([line for line in last.splitlines() if line.startswith("  ")]) == 3, "the next three commands"
    assert f"The sheet of sketches: {folder / 'sketches.png'}" in shown
    assert noise == "" and "Warning" not in shown and "Tip" not in shown

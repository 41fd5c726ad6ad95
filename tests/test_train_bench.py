"""The bench of training: what it compares is comparable, and what it leaves is whole."""

import json

import torch

from latent_reason.batch import LATENT
from train import bench


def test_variants_are_of_the_same_positions_and_the_file_says_what_ran(tmp_path, monkeypatch):
    monkeypatch.setitem(bench.SIZES, "tiny", {"width": 32, "layers": 1, "heads": 2})
    seen = []
    monkeypatch.setattr(bench, "step", lambda reasoner, batch: seen.append(batch) or bench_step(reasoner, batch))
    bench.main(["--size", "tiny", "--rows", "4", "--turns", "1", "--pack", "300", "--out", str(tmp_path / "b.json")])
    latents, text, untaught, packed, checkpointed = seen[:5]
    assert torch.equal(latents.ids, text.ids) and torch.equal(latents.mask, text.mask) and checkpointed is latents
    assert (latents.kind == LATENT).any() and not (text.kind == LATENT).any() and len(text.spans) == 0
    assert (text.weight > 0).sum() == (latents.weight > 0).sum() + (latents.kind == LATENT).sum()
    assert torch.equal(untaught.weight > 0, latents.weight > 0) and torch.equal(untaught.kind, text.kind)
    assert int(packed.mask.sum()) == int(latents.mask.sum()) and packed.documents is not None
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["device"] == "CPU" and found["attention"] == "sdpa" and found["padding_packed"] < found["padding"]
    assert found["variants"].keys() == {"latents", "text", "text, untaught", "latents, packed",
                                        "latents, checkpointed"}
    assert all(v["seconds"] > 0 and "peak_gib" not in v for v in found["variants"].values())


bench_step = bench.step

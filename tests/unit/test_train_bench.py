"""The bench of training: what it compares is comparable, and what it leaves is whole."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from tiny_runs import ROOT

from latent_reason.data import native, packed
from latent_reason.model.batch import LATENT
from latent_reason.tasks import make
from train import bench, bench_data, bench_rows


def test_variants_are_of_the_same_positions_and_the_file_says_what_ran(tmp_path, monkeypatch):
    monkeypatch.setitem(bench.SIZES, "tiny", {"width": 32, "layers": 1, "heads": 2})
    seen = []
    monkeypatch.setattr(bench, "step", lambda reasoner, batch: seen.append(batch) or bench_step(reasoner, batch))
    bench.main(["--size", "tiny", "--rows", "4", "--turns", "1", "--pack", "300", "--out", str(tmp_path / "b.json")])
    latents, text, untaught, packed, checkpointed = seen[:5]
    assert torch.equal(latents.ids, text.ids) and torch.equal(latents.mask, text.mask) and checkpointed is latents
    assert (latents.token_type == LATENT).any() and not (text.token_type == LATENT).any() and len(text.spans) == 0
    assert (text.loss_weight > 0).sum() == (latents.loss_weight > 0).sum() + (latents.token_type == LATENT).sum()
    assert torch.equal(untaught.loss_weight > 0, latents.loss_weight > 0) and torch.equal(
        untaught.token_type, text.token_type
    )
    assert int(packed.mask.sum()) == int(latents.mask.sum()) and packed.document_lengths is not None
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["device"] == "CPU" and found["attention"] == "sdpa" and found["padding_packed"] < found["padding"]
    assert found["variants"].keys() == {"latents", "text", "text, untaught", "latents, packed", "latents, checkpointed"}
    assert all(v["seconds"] > 0 and "peak_gib" not in v for v in found["variants"].values())


bench_step = bench.step


def test_data_is_measured_stage_by_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench.SIZES, "tiny", {"width": 32, "layers": 1, "heads": 2})
    task = make("frozenlake_plan", level=3)
    native.write((task.trace(task[i], "mixed") for i in range(6)), tmp_path / "files")
    packed.write(native.read(tmp_path / "files"), tmp_path / "packed", "tar")
    stages = {"read", "encoded", "seen by the eye", "seen, from a disk cache", "collated", "eaten by training steps"}
    for folder, more in (("files", set()), ("packed", {"streamed"} if find_spec("datasets") else set())):
        out = tmp_path / f"{folder}.json"
        bench_data.main([str(tmp_path / folder), "--n", "6", "--batch", "4", "--turns", "1", "--out", str(out)])
        found = json.loads(out.read_text())
        assert found["traces"] == 6 and found["rates"].keys() == stages | more
        assert all(0 < rate["least"] <= rate["median"] <= rate["greatest"] for rate in found["rates"].values())
    assert "Load of the machine" in capsys.readouterr().out
    native.write([task.trace(task[0], "direct")], tmp_path / "direct")
    with pytest.raises(SystemExit, match="hold fewer than two sketches"):
        bench_data.main([str(tmp_path / "direct"), "--out", str(tmp_path / "x.json")])


def test_data_commands_are_measured_on_made_up_rows(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    bench_rows.main([str(tmp_path / "rows"), "--n", "8"])
    said = capsys.readouterr().out
    assert all(name in said for name in bench_rows.COMMANDS) and "8 rows of" in said
    assert len(list(native.read(tmp_path / "rows" / "records"))) == 8
    code = "import sys; from latent_reason.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = [sys.executable, "-c", code, "data", "check", str(tmp_path / "rows" / "records")]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)  # without a method, torch is not imported

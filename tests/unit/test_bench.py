"""The benches: what they count meets its aim, what they compare is comparable, and what they leave is whole."""

import json
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from tiny_runs import ROOT

from eval.bench import __main__ as bench
from eval.bench import gpu, models, training
from eval.bench.counting import WeightBytes, count_operations
from eval.bench.findings import Finding, at_least, at_most
from latent_reason.data import native, packed
from latent_reason.tasks import make
from train import bench_data, bench_rows

SMALLEST = {"width": 32, "layers": 1, "heads": 2}
#: what is counted and misses its aim on so small a model, where a head is no small part, or batches are small
MISSED = {"bytes of weights read, 30m", "operations over the stock model, 4 layers", "operations a token, batch 1"}


def test_a_quick_run_measures_everything(tmp_path, capsys):
    bench.main(["--quick", "--out", str(tmp_path / "b.json")])
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["measures"].keys() == bench.MEASURES.keys() and not found["errors"]
    numbers = {(m, name): one for m, all in found["measures"].items() for name, one in all.items()}
    for (measure, name), one in numbers.items():
        if one["kind"] == "counted" and one["aim"] and name not in MISSED:
            assert one["is_met"], (measure, name, one)
        if one["kind"] == "timed":
            assert 0 < one["least"] <= one["value"] <= one["greatest"] and one["turns"] == 1
    kinds = {name: {one["kind"] for one in all.values()} for name, all in found["measures"].items()}
    assert all("timed" in found for name, found in kinds.items() if name != "steps") and kinds["steps"] == {"counted"}
    assert all(numbers["stock", f"share of equal tokens, batch {rows}"]["value"] == 1 for rows in (1, 2))
    assert found["machine"].keys() >= {"device", "cpu", "threads", "torch", "transformers"}
    said = capsys.readouterr().out
    assert all(name in said for name in bench.MEASURES) and "Written to" in said


def test_help_names_every_measure(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--help"])
    assert f"of {', '.join(bench.MEASURES)} (default: all)" in " ".join(capsys.readouterr().out.split())


def test_only_what_is_named_is_measured_and_counters_time_nothing(tmp_path):
    bench.main(["--quick", "--counters", "--only", "steps, batch", "--out", str(tmp_path / "b.json")])
    found = json.loads((tmp_path / "b.json").read_text())["measures"]
    assert found.keys() == {"steps", "batch"} and not found["batch"]
    with pytest.raises(SystemExit, match=r"no measure 'stpes'\. Did you mean 'steps'"):
        bench.main(["--only", "stpes", "--out", str(tmp_path / "c.json")])


def test_the_parts_of_a_gpu_run_are_apart(tmp_path, monkeypatch, capsys):
    def fail(models):
        yield Finding("a number", 1.0, at_least(0.5))
        raise RuntimeError("no such kernel")

    def wait(models):
        yield Finding("another", 0.4, at_most(0.5))
        time.sleep(60)

    monkeypatch.setitem(models.SIZES, "tiny", SMALLEST)
    parts = [gpu.TINY_PARTS[0], gpu.Part("fails", fail, 60), gpu.Part("waits", wait, 0.2), gpu.TINY_PARTS[1]]
    monkeypatch.setattr(gpu, "TINY_PARTS", parts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.main(["--gpu", "--out", str(tmp_path / "g.json")])
    found = json.loads((tmp_path / "g.json").read_text())
    assert found["tiny"] and "no GPU" in capsys.readouterr().out
    assert found["errors"] == {
        "fails": "RuntimeError: no such kernel",
        "waits": "TimeoutError: it took more than 0 seconds",
    }
    decoding, fails, _, trained = found["measures"].values()
    assert len(decoding) == 4 and all(one["per_second"] > 0 and one["weight_bytes"] > 0 for one in decoding.values())
    assert fails["a number"]["is_met"] and trained["tiny: trained tokens a second"]["value"] > 0
    [*late] = gpu.run_parts(True, seconds=0)
    assert all("no time was left" in error for _, _, error in late)


def test_where_memory_ends_half_as_many_examples_are_trained(monkeypatch):
    monkeypatch.setitem(models.SIZES, "tiny", SMALLEST)
    reasoner, seen, step = models.build("tiny")[0], [], training.train_once

    def train(reasoner, batch):
        seen.append(len(batch.ids))
        if len(batch.ids) > 4:
            raise torch.cuda.OutOfMemoryError
        step(reasoner, batch)

    monkeypatch.setattr(gpu, "train_once", train)
    optimizer = torch.optim.SGD(reasoner.parameters(), lr=0.0)
    tokens, examples, seconds = gpu.time_training(reasoner, optimizer, 8)
    assert examples == 4 and seen[:2] == [8, 4] and tokens > 0 and seconds > 0


def test_bytes_of_weights_are_counted_once_a_read():
    layer, table = torch.nn.Linear(4, 8), torch.nn.Embedding(100, 4)
    with WeightBytes([*layer.parameters(), *table.parameters()]) as weights:
        layer(layer.weight.new_zeros(3, 4) + 1)
    assert weights.total == (32 + 8) * 4
    with WeightBytes([*layer.parameters(), *table.parameters()]) as weights:
        layer(table(torch.tensor([1, 2, 3])))
    assert weights.total == (32 + 8 + 3 * 4) * 4
    assert count_operations(lambda: torch.ones(2) + 1) == 2


def test_the_page_holds_what_was_counted():
    found = json.loads((ROOT / "paper_figs" / "data" / "bench.json").read_text())["measures"]
    page = (ROOT / "docs" / "results" / "speed.md").read_text(encoding="utf-8")
    counted = [(m, name, one) for m, all in found.items() for name, one in all.items() if one["kind"] == "counted"]
    assert len(counted) > 20 and found.keys() == bench.MEASURES.keys()
    for measure, name, one in counted:
        met = {None: "", True: "yes", False: "no"}[one["is_met"]]
        assert re.search(rf"\| `{measure}` \| {re.escape(name)} \| {one['value']:.2f} \| .*\| {met} \|", page), name


def test_nothing_but_the_bench_reads_the_old_loop():
    names = re.compile(r"old_loop|OldLoop")
    readers = {
        path.relative_to(ROOT).as_posix()
        for folder in ("latent_reason", "train", "eval", "paper_figs", "docs", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if names.search(path.read_text(encoding="utf-8"))
    }
    assert readers == {f"eval/bench/{name}.py" for name in ("__main__", "steps", "old_loop")} | {
        "tests/unit/test_bench.py"
    }


def test_data_is_measured_stage_by_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(models.SIZES, "tiny", SMALLEST)
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

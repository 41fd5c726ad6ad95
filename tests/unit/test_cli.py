"""The command lines latent-reason VERB, eval.run and eval.probe: what they print, write and refuse."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import tomllib
from types import SimpleNamespace

import pytest
from PIL import Image
from tiny_runs import ROOT, short, tiny_checkpoint

from eval import probe as probing
from eval import run as accuracy
from latent_reason import doctor, methods
from latent_reason.checkpoint import CONFIG_FILE
from latent_reason.cli import main
from latent_reason.data import native
from latent_reason.errors import cli_errors
from latent_reason.tasks import make, vsp
from train.config import CONFIGS

VERBS = ("methods", "render", "generate", "data", "export", "check", "push", "assemble", "doctor")


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    short(monkeypatch)


def ends(function, *words):
    """What a command line ends with: a sentence, a number, or None where it just returns."""
    try:
        function([str(word) for word in words])
    except SystemExit as ended:
        return ended.code
    return None


def refused(function, *words) -> str:
    said = ends(function, *words)
    assert isinstance(said, str) and said.startswith("error: ") and "\n" not in said, said
    return said


# -- latent-reason VERB ----------------------------------------------------------------------------------------------
def test_help_is_quick_and_loads_nothing_heavy():
    began = time.time()
    script = """
import runpy, sys
sys.argv = ["latent_reason", "--help"]
try:
    runpy.run_module("latent_reason", run_name="__main__")
finally:
    print("torch" in sys.modules, "lightning" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.time() - began < 10, "it takes a fraction of a second on a quiet machine"
    assert all(verb in done.stdout for verb in VERBS) and done.stdout.endswith("False False\n")


def check_answers(commands: list[list[str]], status: int, heavy: set[str]) -> None:
    """Each command line prints its page or its mistake, ends with this status, and imports no heavy library. One fresh
    process answers all."""
    script = f"""
import contextlib, io, runpy, sys
for sys.argv in {commands}:
    said, status = io.StringIO(), None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            status = ended.code
    imported = {heavy} & set(sys.modules)
    assert (status or 0) == {status} and len(said.getvalue()) > 100 and not imported, (sys.argv, status, imported)
"""
    began = time.time()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.time() - began < 20, "all of them take two seconds on a quiet machine"


def commands_of_the_checkout() -> list[str]:
    """Every module of eval/ and train/ that runs as a command and takes arguments."""
    paths = sorted(path for folder in ("eval", "train") for path in (ROOT / folder).rglob("*.py"))
    commands = [path for path in paths if re.search(r'^if __name__ == "__main__":', path.read_text(), re.MULTILINE)]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in commands]
    return [name for name in names if name != "train.config.reference"]  # it takes none


def test_methods_and_every_verb_load_no_torch():
    commands = [["latent_reason", "methods"], *(["latent_reason", verb, "--help"] for verb in VERBS)]
    check_answers(commands, 0, {"torch", "lightning", "numpy"})


def test_every_command_of_the_checkout_answers_help_and_mistakes_without_torch():
    commands, recipes = commands_of_the_checkout(), {config.command for config in CONFIGS}
    assert {"eval.run", "eval.bench", "train.plan", *recipes} <= set(commands)
    check_answers([[name, "--help"] for name in commands], 0, {"torch", "lightning", "transformers"})
    wrong = [[name, "--no-such-option"] for name in commands if name not in recipes]
    check_answers(wrong, 2, {"torch", "lightning", "transformers"})


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    assert ends(main, verb, "--help") == 0
    shown = capsys.readouterr().out
    assert f"latent-reason {verb}" in shown and len(shown.splitlines()) > 3


def test_methods_lists_every_method(capsys):
    main(["methods", "--options"])
    shown = capsys.readouterr().out
    for name in methods.names():
        assert name in shown and methods.load(name).SUMMARY in " ".join(shown.split())
        assert all(f"--method.options.{option} " in shown for option in methods.schema(name))


def test_doctor_names_what_is_there(capsys):
    main(["doctor"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("Python", "torch", "threads", "GPU", "All required"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(doctor.REQUIRED) == {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert {extra: package for extra, (package, *_) in doctor.EXTRAS.items()} == {
        extra: re.match(r"[\w-]+", lines[0])[0] for extra, lines in project["optional-dependencies"].items()
    }


def test_doctor_says_what_an_extra_is_and_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda package: None if package.startswith("flash-attn") else "7.7")
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "  peft             peft 7.7 " in shown and "-e '.[peft]'" not in shown
    assert re.search(r"flash +missing .*\n +-> pip install setuptools .* --no-build-isolation -e '\.\[flash\]'", shown)
    assert re.search(r"flash4 +missing .*\n +-> pip install -e '\.\[flash4\]'", shown)


def test_doctor_knows_the_gpu_and_its_attention(capsys, monkeypatch):
    from latent_reason.model.backbones import attention

    h100 = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda i: h100)
    monkeypatch.setattr(
        attention,
        "inspect_machine",
        lambda: attention.Machine("2.13", "NVIDIA H100", (9, 0), frozenset({"flash_attention_2"})),
    )
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "GPU 0            NVIDIA H100, capability 9.0, 80 GiB" in shown and "none, the CPU" not in shown
    assert "attention        flash_attention_2 for weights in bfloat16: flash-attn is installed" in shown


def test_doctor_names_what_is_missing(capsys, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", nothing)
    assert "source train/setup.sh" in refused(main, "doctor")
    assert "rich             missing (required)" in capsys.readouterr().out


def test_render_draws_a_sheet(tmp_path, capsys):
    main(["render", str(tiny_checkpoint()), "--n", "2", "--level", "3", "--out", str(tmp_path / "new" / "sheet.png")])
    shown = capsys.readouterr().out
    assert "2 items, " in shown and "sheet.png" in shown and " 0 sketches" not in shown
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 400


def test_generate_shows_words_and_sketches(tmp_path, capsys):
    main(["generate", str(tiny_checkpoint()), "--index", "3", "--out", str(tmp_path / "board.png")])
    shown = capsys.readouterr().out
    assert "question: " in shown and "[sketch: " in shown and "success 0.00" in shown and "(gold " in shown
    with Image.open(tmp_path / "board.png") as figure:
        assert figure.width > 300
    assert "add --overwrite" in refused(main, "generate", tiny_checkpoint(), "--out", tmp_path / "board.png")


def test_generate_of_a_method_without_sketches(capsys):
    main(["generate", str(tiny_checkpoint("text_cot")), "--level", "4"])
    assert "question: " in capsys.readouterr().out


def test_data_makes_records_that_can_be_read(tmp_path, capsys):
    main(["data", "make", "frozenlake_plan", str(tmp_path / "boards"), "--n", "9", "--levels", "3,4"])
    assert "--data.folder" in capsys.readouterr().out
    traces = list(native.read(tmp_path / "boards"))
    assert len(traces) == 9 and {t.mode for t in traces} == {"text", "mixed"}, "short plans have no sketch"


def test_export_makes_a_folder_with_a_model_card(tmp_path, capsys):
    main(["export", str(tiny_checkpoint()), str(tmp_path / "out")])
    assert (tmp_path / "out" / "README.md").is_file() and (tmp_path / "out" / CONFIG_FILE).is_file()
    assert "exists and is not empty" in refused(main, "export", tiny_checkpoint(), tmp_path / "out")
    assert ends(main, "export", tiny_checkpoint(), tmp_path / "more", "--max-shard-size", "huge") == 2
    assert "write sizes as 5GB, 200MB or 50KB" in capsys.readouterr().err


def test_wrong_words_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "'none' is not a checkpoint: there is no such folder" in refused(main, "render", "none")
    assert "has no sketches to render (method text_cot" in refused(main, "render", tiny_checkpoint("text_cot"))
    assert "no task 'lake'" in refused(main, "generate", tiny_checkpoint(), "--task", "lake")
    assert "3 to 10" in refused(main, "generate", tiny_checkpoint(), "--level", "99")
    assert "no such folder" in refused(main, "export", "none", "out")
    assert "no task 'lake'" in refused(main, "data", "make", "lake", "out")
    assert not list(tmp_path.iterdir())
    assert ends(main, "rendr") == ends(main) == ends(main, "generate", "x", "--index", "-1") == 2, "argparse explains"


# -- errors and tracebacks -------------------------------------------------------------------------------------------
def test_errors_of_libraries_keep_their_traceback(monkeypatch):
    with pytest.raises(json.JSONDecodeError), cli_errors():
        json.loads("{")
    with pytest.raises(ZeroDivisionError), cli_errors():
        methods.load(1 / 0)
    monkeypatch.setenv("LATENT_REASON_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown method"), cli_errors():
        methods.load("none")


def test_system_errors_are_sentences():
    with pytest.raises(SystemExit, match=r"error: .*No such file.*none"), cli_errors():
        open("none/none")
    with pytest.raises(SystemExit, match=r"^error: The disk is full$"), cli_errors():
        raise OSError(28, "The disk is full")


# -- eval.run --------------------------------------------------------------------------------------------------------
ROW = {"task", "level", "split", "n", "metric", "value", "low", "high"}


def evaluated(folder, *words) -> dict:
    accuracy.main(
        [str(tiny_checkpoint()), "--n", "4", "--levels", "3,4", *map(str, words), "--out", str(folder / "e.json")]
    )
    return json.loads((folder / "e.json").read_text())


def test_accuracy_file_has_the_promised_shape(tmp_path, capsys):
    found = evaluated(tmp_path, "--tasks", "frozenlake_plan,plan_check", "--seed", "1")
    assert found["schema"] == 1 and found["checkpoint"] == tiny_checkpoint().as_posix()
    assert {"schema", "checkpoint", "results", "seed", "method", "decoding"} <= found.keys()
    rows = found["results"]
    assert all(row.keys() == ROW for row in rows)
    assert {(r["task"], r["level"]) for r in rows} == {
        (task, level) for task in ("frozenlake_plan", "plan_check") for level in (3, 4, "3-4")
    }
    for r in rows:
        assert r["split"] == "test" and math.isfinite(r["value"]) and r["n"] >= 4
        assert r["low"] is None or 0 <= r["low"] <= r["value"] <= r["high"] <= 1
    plan = {r["metric"]: r for r in rows if (r["task"], r["level"]) == ("frozenlake_plan", "3-4")}
    assert {
        "success",
        "exact",
        "sketch_valid",
        "sketch_equal",
        "sketches_per_item",
        "latents_per_item",
        "tokens_per_item",
        "constant",
        "hole_blind",
    } <= set(plan)
    assert plan["success"]["n"] == 8
    shown = capsys.readouterr().out
    assert "95 % Wilson interval" in shown and "written to" in shown


def test_accuracy_is_the_same_again(tmp_path):
    assert evaluated(tmp_path)["results"] == evaluated(tmp_path, "--batch-size", "3", "--overwrite")["results"]


def test_more_items_than_there_are_boards(tmp_path, capsys, monkeypatch):
    """A level that is used up is measured on what it has, and says so."""
    task = accuracy.tasks.make("frozenlake_plan", split="test", level=3)
    few = [task[i] for i in range(5)]
    monkeypatch.setattr(type(task), "__getitem__", lambda self, i: few[i % 5])
    found = evaluated(tmp_path, "--levels", "3", "--n", "50")
    assert "level 3: only 5 distinct held-out items exist" in capsys.readouterr().out
    assert {r["n"] for r in found["results"] if r["metric"] == "success"} == {5}


def test_accuracy_on_the_benchmark(tmp_path):
    """A folder laid out as the benchmark's."""
    task = accuracy.tasks.make("frozenlake_plan", split="test", level=3)
    place = tmp_path / "maze" / "task-main" / "maps" / "level3"
    for kind in ("img", "pure_text"):
        (place / kind).mkdir(parents=True)
    for i in range(3):
        task[i].images[0].save(place / "img" / f"{i}.png")
        words = task.text_twin(task[i]).messages[0].content[0].text.rpartition("\n")[0]
        (place / "pure_text" / f"{i}.txt").write_text(words)
    assert len(list(vsp.plan_items(tmp_path, [3]))) == 3
    rows = evaluated(tmp_path, "--levels", "3", "--vsp", tmp_path)["results"]
    assert {r["n"] for r in rows if r["split"] == "vsp" and r["metric"] == "success"} == {3}


def test_wrong_evaluations_are_one_sentence_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eval.run.decode_each", None)
    out = ("--out", "e.json")
    assert "expected the VSP folder" in refused(accuracy.main, tiny_checkpoint(), "--vsp", "none", *out)
    assert "no task 'lake'" in refused(accuracy.main, tiny_checkpoint(), "--tasks", "lake", *out)
    assert "3 to 10" in refused(accuracy.main, tiny_checkpoint(), "--levels", "3,11", *out)
    assert "is not a checkpoint" in refused(accuracy.main, "none", *out)
    assert ends(accuracy.main, tiny_checkpoint(), "--levels", "three", *out) == 2
    assert ends(accuracy.main, tiny_checkpoint(), "--n", "0", *out) == 2
    assert not list(tmp_path.iterdir())


# -- eval.probe ------------------------------------------------------------------------------------------------------
def test_probe_file_has_the_promised_shape(tmp_path, capsys):
    out = tmp_path / "p.json"
    probing.main([str(tiny_checkpoint()), "--task", "frozenlake_plan", "--n", "4", "--levels", "4", "--out", str(out)])
    found = json.loads(out.read_text())
    assert (found["schema"], found["task"], found["n"], found["protocol"]) == (1, "frozenlake_plan", 4, "regenerate")
    probes = found["probes"]
    assert {"as_generated", "noise", "zero", "foreign", "oracle", "removed", "text_corrupted"} <= probes.keys()
    for name, p in probes.items():
        assert 0 <= p["low"] <= p["accuracy"] <= p["high"] <= 1
        assert (name == "as_generated") == ("difference" not in p)
        if name != "as_generated":
            assert p["difference"]["low"] <= p["difference"]["value"] <= p["difference"]["high"]
            assert 0 <= p["mcnemar_p"] <= 1 and 0 <= p["flip_rate"] <= 1
    assert {"follow_rate", "follow_n"} <= probes["foreign"].keys()
    assert "text corrupted" in capsys.readouterr().out


def test_wrong_probes_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = ("--out", "p.json")
    assert "has no latents to probe" in refused(probing.main, tiny_checkpoint("direct"), *out)
    assert "no task 'lake'" in refused(probing.main, tiny_checkpoint(), "--task", "lake", *out)
    assert "is not a checkpoint" in refused(probing.main, "none", *out)
    assert not list(tmp_path.iterdir())


def test_data_shows_a_task_as_a_sheet(tmp_path, capsys):
    main(["data", "show", "plan_check", str(tmp_path / "sheets" / "check.png"), "--n", "3", "--skin", "drawn"])
    assert "3 items of plan_check" in capsys.readouterr().out
    with Image.open(tmp_path / "sheets" / "check.png") as sheet:
        assert sheet.height > 3 * 160


def test_data_inspect_tells_what_is_taught(capsys):
    main(["data", "inspect", "frozenlake_plan", "--levels", "4", "--index", "1"])
    said = capsys.readouterr().out
    assert "[picture of 16 tokens]" in said and said.count("[16 latents]") == 2 and "boxed" in said
    assert "2 latent spans" in said
    trace = make("frozenlake_plan", level=4)[1]
    assert trace.question in said.replace("\n", " ")

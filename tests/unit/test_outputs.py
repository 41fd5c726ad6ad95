"""Output files of every command: refused before any work where one exists or cannot be written."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import runpy
from pathlib import Path

import pytest

from latent_reason import cli
from latent_reason.cli.arguments import add_output
from latent_reason.outputs import check_output, check_output_folder

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "paper_figs"


# -- the check ---------------------------------------------------------------------------------------------------------
def test_a_file_that_exists_is_replaced_only_if_asked(tmp_path):
    file, link = tmp_path / "a.json", tmp_path / "link.json"
    file.write_text("good")
    link.symlink_to(tmp_path / "nothing")
    for path in (file, link):
        with pytest.raises(FileExistsError, match=rf"{path.name}' exists, and nothing was changed.*add --overwrite"):
            check_output(path, False)
        with pytest.raises(FileExistsError, match="move it away"):
            check_output(path, None)
        assert check_output(path, True) == path
    assert file.read_text() == "good" and sorted(os.listdir(tmp_path)) == ["a.json", "link.json"]
    assert check_output(tmp_path / "new" / "deep" / "b.json", False) and not (tmp_path / "new").exists()


@pytest.mark.parametrize("check", [lambda path: check_output(path, True), check_output_folder], ids=["file", "folder"])
def test_what_cannot_be_written_is_one_sentence(check, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    cases = {tmp_path / "file" / "a.json": "Not a directory", tmp_path / ("n" * 250): "File name too long"}
    for path, words in {**cases, Path("/proc/none/a.json"): "/proc"}.items():
        with pytest.raises(OSError, match=f"cannot be written.*{words}"):
            check(path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(FileExistsError, match=r"a device or a pipe|is a file"):
            check(path)

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.json' cannot be written \(No space left on device"):
        check(tmp_path / "a.json")
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"], "nothing is left behind"


def test_a_folder_is_no_file_and_a_used_folder_is_not_used_again(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder, expected the name of a file"):
        check_output(tmp_path, True)
    assert check_output_folder(tmp_path) == tmp_path, "it is empty"
    (tmp_path / "a").write_text("x")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        check_output_folder(tmp_path)


# -- every command -----------------------------------------------------------------------------------------------------
def module(name: str):
    """A command of eval/ or train/ as a function of its arguments."""
    return lambda words: importlib.import_module(name).main(words)


def figure(name: str):
    """A script of paper_figs as a function of its arguments."""

    def run(words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [name, *words])
            patch.syspath_prepend(str(FIGURES))
            runpy.run_path(str(FIGURES / f"{name}.py"), run_name="__main__")

    return run


#: command -> (function, arguments before the output); none of the files that they name exist
FILES = {
    "eval.run": (module("eval.run"), ["none", "--out"]),
    "eval.probe": (module("eval.probe"), ["none", "--out"]),
    "eval.benchmark": (module("eval.benchmark"), ["none", "vstar", "none", "--out"]),
    "eval.pairs": (module("eval.pairs"), ["none", "mmrb2/edit", "none", "--out"]),
    "eval.best_of_n": (module("eval.best_of_n"), ["none", "vstar", "none", "--judge", "none", "--out"]),
    "eval.code_vqa": (module("eval.code_vqa"), ["none", "vcode/mmmu", "none", "--reader", "none", "--out"]),
    "eval.sketch_qa": (module("eval.sketch_qa"), ["none", "--reader", "none", "--out"]),
    "eval.bench": (module("eval.bench.__main__"), ["--only", "none", "--out"]),
    "eval.boundary": (module("eval.boundary"), ["none", "--base", "none", "--out"]),
    "eval.decodings": (module("eval.decodings"), ["none", "--decodings", "lead", "--out"]),
    "eval.baselines": (module("eval.baselines.__main__"), ["none", "--baseline", "crop", "--out"]),
    "eval.turns.router": (module("eval.turns.router"), ["none", "--out"]),
    "eval.item_filter": (module("eval.item_filter"), ["none", "--out"]),
    "eval.language": (module("eval.language"), ["none", "--base", "none", "--out"]),
    "eval.answers": (module("eval.answers"), ["none", "none", "--out"]),
    "eval.leaderboard": (module("eval.leaderboard"), ["none", "--out"]),
    "train.plan": (module("train.plan"), ["none", "--out"]),
    "train.gpu_check": (module("train.gpu_check"), ["--tiny", "--out"]),
    "train.bench_data": (module("train.bench_data"), ["none", "--out"]),
    "generate": (cli.main, ["generate", "none", "--out"]),
    "render": (cli.main, ["render", "none", "--out"]),
    "data show": (cli.main, ["data", "show", "frozenlake_plan"]),
    "data check": (cli.main, ["data", "check", "none", "--report"]),
    "check": (cli.main, ["check", "none", "--json"]),
    "export": (cli.main, ["export", "none", "none", "--json"]),
    "texts": (cli.main, ["texts"]),
    **{
        f"paper_figs/{path.stem}.py": (figure(path.stem), ["none.json", "--out"])
        for path in FIGURES.glob("*.py")
        if "from figure import" in path.read_text(encoding="utf-8")
    },
}
FOLDERS = {
    "eval.dossier": (module("eval.dossier"), ["none", "--out"]),
    "eval.label_modes": (module("eval.label_modes"), ["none", "none", "--out"]),
    "train.export_state": (module("train.export_state"), ["none", "--out"]),
    "train.rejection_sampling": (module("train.rejection_sampling"), ["none", "--out"]),
    "data make": (cli.main, ["data", "make", "frozenlake_plan"]),
    "data convert": (cli.main, ["data", "convert", "llava", "none"]),
    "data pack": (cli.main, ["data", "pack", "none"]),
    "export": (cli.main, ["export", "none"]),
    "assemble": (cli.main, ["assemble"]),
    "easy-vqa": (cli.main, ["easy-vqa"]),
}
#: commands that add to their own output
RESUMING = {"eval.task_audit", "train.compare", "train.compare_heads", "train.rl.compare"}


def refused(run, words) -> str:
    with pytest.raises(SystemExit) as ended:
        run([str(word) for word in words])
    return str(ended.value)


def is_picture(name: str) -> bool:
    return name in ("data show", "generate", "render") or name.startswith("paper_figs")


@pytest.mark.parametrize("name", FILES)
def test_every_command_checks_its_output_before_the_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, words = FILES[name]
    suffix = "html" if name == "eval.leaderboard" else "png" if is_picture(name) else "json"
    out = tmp_path / f"a.{suffix}"
    out.write_text("good")
    (tmp_path / "file").write_text("good")
    assert re.search(r"a\.\w+' exists, and nothing was changed", refused(run, [*words, out]))
    unwritable = tmp_path / "file" / f"a.{suffix}"
    assert re.search(r"a\.\w+' cannot be written \(Not a directory", refused(run, [*words, unwritable, "--overwrite"]))
    if name not in (
        "train.gpu_check",
        "texts",
        "data show",
        "eval.language",
    ):  # these would begin their work
        assert "none" in refused(run, [*words, out, "--overwrite"]), "the next thing that is wrong"
    if is_picture(name):
        assert re.search(r"does not end in \.(html|png|pdf)", refused(run, [*words, tmp_path / "a.json"]))
    assert out.read_text() == "good" and sorted(p.name for p in tmp_path.iterdir()) == [out.name, "file"]


@pytest.mark.parametrize("name", FOLDERS)
def test_every_command_checks_its_folder_before_the_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, words = FOLDERS[name]
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("good")
    assert re.search(r"out' exists and is not empty\. Name a new one", refused(run, [*words, out]))
    assert "cannot be written (Not a directory" in refused(run, [*words, out / "file" / "new"])
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and (out / "file").read_text() == "good"


@pytest.mark.parametrize("name", ["FILE.md", "FILE.items.jsonl"])
def test_files_beside_the_output_are_checked_too(name, tmp_path):
    (tmp_path / name).write_text("good")
    if name == "FILE.md":
        said = refused(module("eval.leaderboard"), ["none", "--out", tmp_path / "FILE.html"])
    else:
        said = refused(module("eval.benchmark"), ["none", "vstar", "none", "--out", tmp_path / "FILE.json"])
    assert f"{name}' exists" in said


def test_no_command_is_forgotten():
    """Every module with an output is in one of the tables, and adds the option in the one way."""
    named = {name for name in (*FILES, *FOLDERS, *RESUMING)}
    for path in [*(ROOT / "eval").rglob("*.py"), *(ROOT / "train").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        if "add_output(" in text or '"--out"' in text:
            assert name in named, f"{name} is not in tests/unit/test_outputs.py"
        assert '"--out"' not in text or name in FOLDERS, f"{name}: use add_output"
    parser = argparse.ArgumentParser()
    add_output(parser)
    assert not parser.parse_args(["--out", "a"]).overwrite

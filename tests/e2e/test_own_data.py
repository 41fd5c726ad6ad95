"""The commands of docs/quickstart-own-data.md, from pictures and a JSON to an exported model, run as written on two dozen
rows."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from importlib import import_module

import pytest
from doc_commands import blocks, commands
from own_data import DOCS, write
from PIL import Image as PILImage
from tiny_runs import ROOT, short

from latent_reason.data import native

PAGE = (DOCS / "quickstart-own-data.md").read_text(encoding="utf-8")
#: makes a command small: the word that stands in it -> more words
SHORT = {
    "train.sft": ["--optim.max_steps", "3", "--accelerator", "cpu"],
    "train.decoder": ["--optim.max_steps", "2", "--accelerator", "cpu"],
    "eval.answers": ["--max-new-tokens", "24"],
    "ask": ["--max-new-tokens", "24"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the commands find what they name."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("train/recipes", "checkpoints/frozenlake-tiny", "tests/own_data.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    return folder


def walked(words: list[str], monkeypatch, capsys) -> str:
    """What a command prints. Modules and scripts of the page run in this process, which has what they import."""
    words = ["python", "-m", "latent_reason", *words[1:]] if words[0] == "latent-reason" else words
    words = words[1:] + [more for word in words for more in SHORT.get(word, ())]
    if words[0].startswith("tests/"):
        small = ["24" if word == "500" else word for word in words]
        return subprocess.run([sys.executable, *small], capture_output=True, text=True, check=True).stdout
    if words[0] != "-m":
        runpy.run_path(words[0])
        return capsys.readouterr().out
    module = import_module({"latent_reason": "latent_reason.cli"}.get(words[1], words[1]))
    monkeypatch.setattr(sys, "argv", words[1:])
    module.main()
    return capsys.readouterr().out


def test_records_are_looked_at_like_items_of_a_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", train=8, val=1, test=3)
    shown = walked("latent-reason data show mine sheet.png --n 2 --split test".split(), monkeypatch, capsys)
    assert "2 records of mine, split test." in shown
    with PILImage.open("sheet.png") as sheet:
        assert sheet.width > 600 and len(sheet.convert("RGB").getcolors(2**24)) > 5
    told = walked("latent-reason data inspect mine --index 2".split(), monkeypatch, capsys)
    assert "shape-2, encoded for modal_mixed" in told and "I take the circle away." in told and "latents]" in told
    for words, said in (
        ("show mine --split other", "no records of the split 'other'"),
        ("inspect mine --index 99", "no record 99"),
        ("show mine --skin plain", "--skin applies to tasks"),
    ):
        with pytest.raises(SystemExit, match=said):
            walked(f"latent-reason data {words}".split(), monkeypatch, capsys)


def test_the_commands_of_the_page_run_as_written(place, monkeypatch, capsys):
    short(monkeypatch)  # what a model of three steps writes has no end
    given = [command for block in blocks(PAGE) if block.language == "bash" for command in commands(block.text)]
    [script] = [block.text for block in blocks(PAGE) if block.language == "python"]
    (place / "ask.py").write_text(script)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HOME", str(place / "cache"))  # where the code of an export is copied
    said = {" ".join(words): walked(words, monkeypatch, capsys) for words in given}

    def of(start: str) -> str:
        [found] = [text for command, text in said.items() if command.startswith(start)]
        return found

    records, run = list(native.read("mine")), place / "checkpoints" / "mine"
    counts = {split: sum(record.split == split for record in records) for split in ("train", "val", "test")}
    assert sum(counts.values()) == 24 and counts["train"] > 16 and min(counts.values()) > 0
    assert {record.checker for record in records} == {"same_text"} and {len(r.sketches()) for r in records} == {1}
    assert "24 of 24 rows usable" in of("latent-reason data check") and (place / "records.png").is_file()
    probes = json.loads((run / "probe.json").read_text())
    assert probes["n"] == counts["test"] and {"noise", "foreign", "oracle"} <= probes["probes"].keys()
    assert not any(record.sketches() for record in native.read("mine-text"))
    for name in ("mine", "mine-text"):
        lines = (place / "checkpoints" / f"{name}.items.jsonl").read_text().splitlines()
        assert {json.loads(line)["id"] for line in lines} == {r.id for r in records if r.split == "test"}
    assert "| `mine` |" in (place / "compared.md").read_text()
    assert "Saved: answer.html" in of("latent-reason ask") and "<img" in (place / "answer.html").read_text()
    assert (place / "answer.png").stat().st_size > 5000
    exported, asked = of("latent-reason export"), of("python ask.py")
    assert exported.count("passed") >= 9 and "failed" not in exported
    assert re.search(r"\S.* \[.*\]\s*$", asked, re.DOTALL), "words, and a list of pictures"
    assert not (run / "export" / "sketches.png").exists(), "whose pictures are whose is not known"
    assert "Begin with: bash my-project/check.sh" in of("latent-reason init")
    check_with_library(script, asked, capsys)


def check_with_library(script: str, asked: str, capsys) -> None:
    """The script of the page with its commented lines, which load the export with this library, answers the same."""
    ours = re.sub(r"^(model = Auto|from transformers).*\n", "", script, flags=re.M)
    ours = re.sub(r"^# (?=import|model)", "", ours, flags=re.M)
    assert "latent_reason.load" in ours and "transformers" not in ours
    exec(compile(ours, "ask.py", "exec"), {})
    assert capsys.readouterr().out.partition(" [")[0] == asked.partition(" [")[0]


def test_sketches_of_own_records_are_shown_where_it_is_asked_for(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    short(monkeypatch)
    walked("latent-reason export checkpoints/mine shown --show-records".split(), monkeypatch, capsys)
    assert "![sketches](sketches.png)" in (place / "shown" / "README.md").read_text()
    with PILImage.open(place / "shown" / "sketches.png") as sheet:
        assert sheet.width > 500

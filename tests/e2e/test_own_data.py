"""The five commands of docs/data.md, from own images to an exported model, run as written on a dozen records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest
from own_data import section, write
from PIL import Image as PILImage
from tiny_runs import ROOT, short


def blocks() -> tuple[list[str], str]:
    """The commands and the script of the section."""
    commands, script = (re.search(rf"```{kind}\n(.*?)```", section(), re.DOTALL)[1] for kind in ("bash", "python"))
    return [line for line in commands.splitlines() if not line.startswith("#")], script


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the commands find what they name."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("train/recipes", "checkpoints/frozenlake-tiny"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    write(folder / "mine", train=8, val=1, test=3)
    return folder


def walked(command: str, monkeypatch, capsys) -> str:
    """What a command of the section prints. Modules run in this process, which has what they import; scripts do not."""
    shorter, count = re.subn(r"--optim\.max_steps \d+", "--optim.max_steps 3 --accelerator cpu", command)
    assert count == command.startswith("python -m train.")
    _, *words = shorter.split()
    if words[0] != "-m":
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
    module = import_module({"latent_reason": "latent_reason.cli"}.get(words[1], words[1]))
    monkeypatch.setattr(sys, "argv", words[1:])
    module.main()
    return capsys.readouterr().out


def test_records_are_looked_at_like_items_of_a_task(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    shown = walked("python -m latent_reason data show mine sheet.png --n 2 --split test", monkeypatch, capsys)
    assert "2 records of mine, split test." in shown
    with PILImage.open("sheet.png") as sheet:
        assert sheet.width > 600 and len(sheet.convert("RGB").getcolors(2**24)) > 5
    told = walked("python -m latent_reason data inspect mine --index 2", monkeypatch, capsys)
    assert "shape-2, encoded for modal_mixed" in told and "I take the circle away." in told and "latents]" in told
    for words, said in (
        ("show mine --split other", "no records of the split 'other'"),
        ("inspect mine --index 99", "no record 99"),
        ("show mine --skin plain", "--skin applies to tasks"),
    ):
        with pytest.raises(SystemExit, match=said):
            walked(f"python -m latent_reason data {words}", monkeypatch, capsys)


def test_the_commands_of_the_page_run_as_written(place, monkeypatch, capsys):
    short(monkeypatch)  # what a model of three steps writes has no end
    commands, script = blocks()
    (place / "ask.py").write_text(script)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HOME", str(place / "cache"))  # where the code of an export is copied
    checked, trained, _, exported, asked = (walked(command, monkeypatch, capsys) for command in commands)
    run = place / "checkpoints" / "mine"
    assert "12 " in checked and (run / "model" / "latent_reason.json").is_file()
    assert "eval.probe checkpoints/mine/model --folder mine" in trained, "it says how to go on"
    probes = json.loads((run / "probe.json").read_text())
    assert probes["n"] == 3 and probes["folder"] == "mine" and {"noise", "foreign", "oracle"} <= probes["probes"].keys()
    assert exported.count("passed") >= 9 and "failed" not in exported
    assert re.search(r"\S.* \[.*\]\s*$", asked, re.DOTALL), "words, and a list of pictures"
    assert not (run / "export" / "sketches.png").exists(), "whose pictures are whose is not known"
    walked("python -m latent_reason export checkpoints/mine checkpoints/mine/shown --show-records", monkeypatch, capsys)
    assert "![sketches](sketches.png)" in (run / "shown" / "README.md").read_text()
    with PILImage.open(run / "shown" / "sketches.png") as sheet:
        assert sheet.width > 500
    ours = re.sub(
        r"^# (?=import|model)", "", re.sub(r"^(model = Auto|from transformers).*\n", "", script, flags=re.M), flags=re.M
    )
    assert "latent_reason.load" in ours and "transformers" not in ours
    exec(compile(ours, "ask.py", "exec"), {})
    assert capsys.readouterr().out.partition(" [")[0] == asked.partition(" [")[0], "by the library, the same"

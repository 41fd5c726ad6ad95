"""latent-reason init: the starter folder holds recipes and scripts that the parsers of their commands accept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_commands import check, commands
from native_records import picture

from latent_reason.cli import main, project, project_files
from latent_reason.data import native
from latent_reason.trace import Image, Message, Sketch, Text, Trace
from train.config import SFTConfig, load

ORDER = [
    "check.sh",
    "train.sh",
    "probe.sh",
    "text_cot.sh",
    "compare.sh",
    "decoder.sh",
    "ask.sh",
    "demo.sh",
    "export.sh",
]


def commands_of(script: Path) -> list[list[str]]:
    """The Python commands of a script, for a picture and a question."""
    text = script.read_text().replace('"$picture"', "a.png").replace('"$2"', "'What is it?'")
    return [words for words in commands(text) if words[0] == "python"]


def write_records(folder: Path) -> None:
    said = Message("assistant", (Text("I look."), Sketch(picture(9)), Text(" So \\boxed{red}")))
    asked = {
        split: Message("user", (Image(picture(i)), Text("What is it?"))) for i, split in enumerate(("train", "test"))
    }
    native.write((Trace(f"t-{s}", (asked[s], said), "mine", s, answer="red") for s in asked), folder)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """A starter folder for the records of a folder with a blank in its name; the current folder is the starter folder."""
    write_records(tmp_path / "my records")
    main(["init", str(tmp_path / "new" / "my-project"), "--data", str(tmp_path / "my records")])
    monkeypatch.chdir(tmp_path / "new" / "my-project")
    return tmp_path / "new" / "my-project"


def test_every_command_of_every_script_is_accepted(here, capsys):
    found = {script: commands_of(here / script) for script in ORDER}
    assert all(found.values()) and {path.name for path in here.glob("*.sh")} == {*ORDER, "settings.sh"}
    for words in [words for script in ORDER for words in found[script]]:
        check(words)
    with pytest.raises((AssertionError, SystemExit)):
        check([*found["export.sh"][0], "--no-such-option"])


def test_recipes_are_a_fair_pair(here):
    sketch, text = (load(here / f"{name}.yaml", SFTConfig) for name in ("sketch", "text_cot"))
    assert sketch.data.folder == str(here.parents[1] / "my records") and text.data.folder == "data-text"
    assert (sketch.method.name, text.method.name) == ("modal_mixed", "text_cot")
    assert all(getattr(sketch, key) == getattr(text, key) for key in ("init_from", "optim", "seed", "eval_steps"))
    assert (Path(sketch.init_from) / "latent_reason.json").is_file()


def test_the_lines_for_a_stock_model_are_a_recipe(here):
    text = (here / "sketch.yaml").read_text()
    stock = yaml.safe_load("\n".join(re.findall(r"^#   (\S.*)$", text, re.M)))
    assert stock.keys() == {"backbone", "lora", "trainable", "optim"}
    recipe = {name: value for name, value in yaml.safe_load(text).items() if name != "init_from"} | stock
    (here / "lora.yaml").write_text(yaml.safe_dump(recipe))
    assert load(here / "lora.yaml", SFTConfig).lora.rank == 16


def test_the_readme_names_the_scripts_in_their_order(here):
    text = (here / "README.md").read_text()
    assert re.findall(r"^\| `bash (\w+\.sh)", text, re.M) == ORDER == list(project_files.SCRIPTS)
    assert str(here.parents[1] / "my records") in text and "{" not in text


def test_the_quick_scripts_run(here, monkeypatch, capsys):
    (here / "results").mkdir()
    for words in [*commands_of(here / "check.sh"), *commands_of(here / "text_cot.sh")[:1]]:
        main(words[3:])  # behind: python -m latent_reason
    assert "2 of 2 rows usable" in capsys.readouterr().out and (here / "results" / "records.png").is_file()
    assert {t.mode for t in native.read("data-text")} == {"text"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_scripts_run_in_their_folder_and_find_training(here, tmp_path):
    script = 'source "$1/settings.sh"; pwd; "$2" -c "import train, latent_reason; print(train.__file__)"'
    words = ["bash", "-c", script, "x", str(here), sys.executable]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    folder, module = done.stdout.splitlines()
    assert Path(folder) == here and Path(module) == Path(project.find_checkout() or "") / "train" / "__init__.py"
    for name in (*ORDER, "settings.sh"):
        subprocess.run(["bash", "-n", here / name], check=True)
    done = subprocess.run(["bash", here / "ask.sh"], capture_output=True, text=True, check=False)
    assert done.returncode and "usage: bash ask.sh PICTURE QUESTION" in done.stderr


def test_without_data_some_are_generated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(project, "ITEMS", {"train": 3, "val": 1, "test": 2})
    main(["init", str(tmp_path / "new")])
    assert f"bash {tmp_path}/new/check.sh" in capsys.readouterr().out
    assert [t.split for t in native.read(tmp_path / "new" / "data")] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert load(tmp_path / "new" / "sketch.yaml", SFTConfig).data.folder == "data"


def test_what_cannot_be_a_project_is_refused(here, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in here.iterdir()}
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "chats.json").write_text("[]")
    for words, sentence in (
        ([str(here)], "exists and is not empty"),
        ([str(tmp_path / "a"), "--data", str(tmp_path / "none")], "there is no folder"),
        ([str(tmp_path / "a"), "--data", str(tmp_path / "raw")], "latent-reason data convert FORMAT SOURCE FOLDER"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            main(["init", *words])
    assert {path: path.read_bytes() for path in here.iterdir()} == before and not (tmp_path / "a").exists()
    monkeypatch.setattr(project, "find_checkout", lambda: None)
    with pytest.raises(SystemExit, match="need a clone of latent_reason"):
        main(["init", str(tmp_path / "a")])

"""Recipes: all that are shipped, and everything a person can get wrong in one."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from tiny_runs import BACKBONE

from latent_reason import methods, tasks
from latent_reason.data import native
from latent_reason.model import heads
from latent_reason.trace import Image, Message, Sketch, Text, Trace
from train import config as recipes
from train import sft
from train.config import Recipe, dump, load, parse
from train.lit_modules import PARTS
from train.trainer import run_folder

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "train" / "recipes").rglob("*.yaml"))
PUBLISHED = [path for path in SHIPPED if path.parent.name == "published"]
QUICK = str(ROOT / "train" / "recipes" / "quickstart.yaml")


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipe_fits_the_code(path):
    recipe = load(path)
    known = methods.schema(recipe.method.name)
    assert recipe.method.options.keys() <= known.keys()
    if head := recipe.method.options.get("head"):
        heads.make(head, 32, 32, **recipe.method.options.get("head_options", {}))
    tasks.make(recipe.data.task, level=tuple(recipe.data.levels), **tasks.own(recipe.data.task, recipe.data.options))
    assert recipe.data.options.keys() <= set(tasks.options(recipe.data.task))
    assert set(recipe.trainable) <= PARTS.keys()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipe_opens_with_its_command(path):
    command = path.read_text().splitlines()[0]
    found = re.match(r"# python -m (train\.\w+) --config (\S+)", command)
    assert found and found[2] == path.relative_to(ROOT).as_posix()
    importlib.import_module(found[1])
    assert path.read_text().splitlines()[1].startswith("# "), "the second line says what it is"


def flavour(picture, mode: str) -> list[Trace]:
    """Records as the data sets of the published recipes hold them, small."""

    def said(i):
        words = [Text(w) for w in ("Look at the left. ", "Then turn. ", f"It is \\boxed{{{i}}}")]
        drawn = [Sketch(picture(2, 2, i), box=(0, 0, 0.5, 1)), Sketch(picture(2, 2, i + 9), box=(0.5, 0, 1, 1))]
        kept = {
            "direct": words[2:],
            "text": words,
            "vision": [*drawn, words[2]],
            "mixed": [words[0], drawn[0], words[1], drawn[1], words[2]],
        }
        return tuple(kept[mode])

    return [
        Trace(
            f"{mode}-{i}",
            (Message("user", (Image(picture(2, 2, i + 5)), Text("What is it?"))), Message("assistant", said(i))),
            mode=mode,
            answer=str(i),
        )
        for i in range(4)
    ]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_published_recipe_trains_every_stage_on_records_of_its_flavour(path, tmp_path, picture):
    recipe = load(path)
    assert recipe.method.name == path.stem and recipe.data.folder and recipe.optim.name == "adamw"
    modes = ["text", "vision", "mixed"] if path.stem == "swimbird" else [methods.load(path.stem).MODE]
    native.write([t for mode in modes for t in flavour(picture, mode)], tmp_path / "rows")
    small = {
        "encoder": "tiny",
        "depth": 1,
        "cross_attention_layers": 1,
        "k": 4,
        "head_options": {"hidden": 16, "depth": 1, "steps": 2},
    }
    recipe.method.options |= {n: v for n, v in small.items() if n in recipe.method.options}
    for stage in recipe.stages:
        stage["optim"] = stage.get("optim", {}) | {"steps": 1}
    recipe.backbone, recipe.data.folder = recipes.Backbone(options=BACKBONE), str(tmp_path / "rows")
    recipe.optim.steps, recipe.optim.accumulate, recipe.precision, recipe.accelerator = 1, 2, "32-true", "cpu"
    recipe.data.val_items, recipe.run = 1, str(tmp_path / "run")
    reasoner, _ = sft.train(recipe, run_folder(recipe))
    assert all(p.isfinite().all() for p in reasoner.parameters())
    assert len(list((tmp_path / "run").glob("stage-*"))) == max(0, len(recipe.stages) - 1)


def test_every_method_has_a_recipe_for_frozenlake_and_for_its_own_data():
    sketching = {n for n in methods.names() if methods.load(n).PAPER != "control"}
    assert {p.stem for p in PUBLISHED} == sketching
    assert {f"frozenlake_{n}" for n in methods.names()} <= {p.stem for p in SHIPPED}


def test_recipes_named_in_files_exist():
    named = {
        (file.name, path)
        for file in [*ROOT.glob("*.md"), *ROOT.glob("train/*"), *ROOT.glob("eval/*.py")]
        if file.is_file()
        for path in re.findall(r"train/recipes/[a-z_]+\.yaml", file.read_text())
    }
    assert named
    assert not [(file, path) for file, path in named if not (ROOT / path).is_file()]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_resolved_recipe_is_the_recipe(path, tmp_path):
    recipe = load(path, run="mine", optim__steps=7)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load(tmp_path / "recipe.yaml") == recipe
    assert parse(["--config", str(tmp_path / "recipe.yaml")]) == recipe


def test_command_line_changes_the_file():
    words = [
        "--optim.steps",
        "3",
        "--optim.lr=1e-3",
        "--data.levels",
        "[3, 5]",
        "--method.options.k",
        "8",
        "--method.options.head_options.residual",
        "false",
        "--data.options.chunk",
        "[1,3]",
        "--run",
        "007",
        "--devices",
        "2",
        "--optim.betas",
        "[0.9,0.99]",
        "--fast_dev_run",
    ]
    recipe, plain = parse(["--config", QUICK, *words]), load(QUICK)
    assert recipe.optim.steps == 3 and recipe.optim.lr == 0.001 and recipe.optim.other_lr == plain.optim.other_lr
    assert recipe.data.levels == [3, 5] and recipe.data.options == plain.data.options | {"chunk": [1, 3]}
    assert recipe.method.options["k"] == 8 and recipe.method.options["head"] == plain.method.options["head"]
    assert recipe.method.options["head_options"]["residual"] is False
    assert recipe.run == "007" and recipe.devices == "2" and recipe.optim.betas == (0.9, 0.99)
    assert recipe.fast_dev_run and not plain.fast_dev_run


def test_later_words_win_and_plain_defaults_hold():
    assert parse(["--seed", "1", "--seed", "2"]).seed == 2
    assert parse(["--seed", "3", "--config", QUICK]).seed == load(QUICK).seed
    assert parse([]) == Recipe()
    assert parse(["--fast_dev_run=false", "--init", "null"]) == Recipe()


def test_numbers_with_an_exponent_are_numbers(yaml_file):
    recipe = load(yaml_file("optim: {lr: 1e-3}\nmethod: {options: {latent_weight: 1e-1}}\n"))
    assert recipe.optim.lr == 0.001 and recipe.method.options == {"latent_weight": 0.1}


WRONG = {  # a command line, or the text of a recipe, and what the sentence must hold
    "unknown key": ("--optim.stepz 3", "optim.stepz", "Did you mean 'optim.steps'?"),
    "key of another group": ("--steps 3", "'steps'", "Did you mean 'optim.steps'?"),
    "misspelled name": ("--data.itms 3", "data.itms", "Did you mean 'data.items'?"),
    "key under a number": ("--optim.steps.more 3", "optim.steps holds no keys"),
    "a group's value": ("--optim 3", "optim holds keys"),
    "not a number": ("--optim.steps many", "optim.steps", "int", "many"),
    "not a list": ("--data.levels 3,4", "data.levels", "list"),
    "no value": ("--optim.steps", "optim.steps needs a value"),
    "no key": ("stray", "'stray'"),
    "one dash": ("-x 3", "'-x'"),
    "no file": ("--config train/recipes/quickstrt.yaml", "quickstrt.yaml' is not there", "quickstart.yaml'?"),
    "no file name": ("--config", "--config needs a file"),
    "no steps": ("--optim.steps 0", "optim.steps=0"),
    "no levels": ("--data.levels []", "data.levels is empty"),
    "unknown optimiser": ("--optim.name sgd", "optim.name='sgd'", "'muon' or 'adamw'"),
    "unknown key in a file": ("optim: {stepz: 3}", "mine.yaml", "optim.stepz", "Did you mean 'optim.steps'?"),
    "not a number in a file": ("optim: {steps: many}", "optim.steps", "many"),
    "not YAML": ("optim: [3", "mine.yaml", "not YAML"),
    "no keys in a file": ("[1]", "mine.yaml", "holds no keys"),
    "a group's value in a file": ("optim: 3", "mine.yaml", "optim holds keys"),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_wrong_recipe_is_one_sentence(words, yaml_file, monkeypatch):
    monkeypatch.chdir(ROOT)
    text, *parts = words
    argv = text.split() if text.startswith("-") or text == "stray" else ["--config", yaml_file(text)]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        parse(argv)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_key_ends_the_command_without_a_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.sft", "--config", QUICK, "--optim.stepz", "3"])
    with pytest.raises(SystemExit) as ended:
        sft.main()
    assert ended.value.code == "error: command line: unknown key 'optim.stepz'. Did you mean 'optim.steps'?"
    assert not list(tmp_path.iterdir()) and capsys.readouterr().err == ""


def test_help_names_every_key(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], description="what it does")
    shown = capsys.readouterr().out
    assert not ended.value.code and "what it does" in shown
    assert all(f"--{key}" in shown for key in recipes._keys(Recipe))

"""Configs: every shipped recipe, every key, and everything that can be wrong in a recipe or on a command line."""

from __future__ import annotations

import importlib
import re
import sys
import typing
from pathlib import Path

import pytest
from tiny_runs import BACKBONE

from latent_reason import methods, tasks
from latent_reason.data import native
from latent_reason.model import heads
from latent_reason.model.backbones.attention import NAMES
from latent_reason.objectives.policy_gradient import OBJECTIVES
from latent_reason.trace import Image, Message, Sketch, Text, Trace
from train import sft
from train.config import (
    CONFIGS,
    BackboneConfig,
    PretrainConfig,
    RLTrainingConfig,
    SFTConfig,
    dump,
    load,
    parse,
    stages_of,
)
from train.config.groups import Attention, Part
from train.config.keys import OLD_KEYS, OLD_VALUES, hints_of
from train.config.reference import reference
from train.lit_modules import PARTS
from train.rl.rollouts import POLICIES
from train.trainer import make_run_folder

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "train" / "recipes").rglob("*.yaml"))
PUBLISHED = [path for path in SHIPPED if path.parent.name == "published"]
QUICK = str(ROOT / "train" / "recipes" / "quickstart.yaml")


def config_of(path: Path) -> type:
    """The config of the command that a recipe opens with."""
    command = re.match(r"# python -m (\S+)", path.read_text())[1]
    return next(config for config in CONFIGS if config.command == command)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipe_fits_the_code(path):
    recipe = load(path, config_of(path))
    if "method.name" in hints_of(type(recipe)):
        assert recipe.method.options.keys() <= methods.schema(recipe.method.name).keys()
        if head := recipe.method.options.get("head"):
            heads.make(head, 32, 32, **recipe.method.options.get("head_options", {}))
    tasks.make(recipe.data.task, level=tuple(recipe.data.levels), **tasks.own(recipe.data.task, recipe.data.options))
    assert recipe.data.options.keys() <= set(tasks.options(recipe.data.task))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipe_opens_with_its_command(path):
    command = path.read_text().splitlines()[0]
    found = re.match(r"# python -m (train\.[\w.]+) --config (\S+)", command)
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
    recipe = load(path, SFTConfig)
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
        stage["optim"] = stage.get("optim", {}) | {"max_steps": 1}
    recipe.backbone, recipe.data.folder = BackboneConfig(options=BACKBONE), str(tmp_path / "rows")
    recipe.optim.max_steps, recipe.data.global_batch_size = 1, 2
    recipe.precision, recipe.accelerator = "32-true", "cpu"
    recipe.data.val_items, recipe.run_name = 1, str(tmp_path / "run")
    reasoner, _ = sft.train(recipe, make_run_folder(recipe))
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
    config = config_of(path)
    changes = {"run_name": "mine"} if "run_name" in hints_of(config) else {}
    recipe = load(path, config, optim__max_steps=7, **changes)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load(tmp_path / "recipe.yaml", config) == recipe
    assert parse(config, ["--config", str(tmp_path / "recipe.yaml")]) == recipe


def test_command_line_changes_the_file():
    words = [
        "--optim.max_steps",
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
        "--run_name",
        "007",
        "--devices",
        "2",
        "--optim.betas",
        "[0.9,0.99]",
        "--fast_dev_run",
    ]
    recipe, plain = parse(SFTConfig, ["--config", QUICK, *words]), load(QUICK, SFTConfig)
    assert recipe.optim.max_steps == 3 and recipe.optim.lr == 0.001 and recipe.optim.adamw_lr == plain.optim.adamw_lr
    assert recipe.data.levels == [3, 5] and recipe.data.options == plain.data.options | {"chunk": [1, 3]}
    assert recipe.method.options["k"] == 8 and recipe.method.options["head"] == plain.method.options["head"]
    assert recipe.method.options["head_options"] == plain.method.options["head_options"] | {"residual": False}
    assert recipe.run_name == "007" and recipe.devices == 2 and recipe.optim.betas == (0.9, 0.99)
    assert recipe.fast_dev_run and not plain.fast_dev_run


def test_later_words_win_and_plain_defaults_hold(yaml_file):
    assert parse(SFTConfig, ["--seed", "1", "--seed", "2"]).seed == 2
    assert parse(SFTConfig, ["--seed", "3", "--config", QUICK]).seed == load(QUICK, SFTConfig).seed
    assert parse(SFTConfig, []) == SFTConfig()
    assert parse(SFTConfig, ["--fast_dev_run=false", "--init_from", "null"]) == SFTConfig()
    second = yaml_file("method: {options: {head_options: {depth: 5}}}")
    options = parse(SFTConfig, ["--config", QUICK, "--config", second]).method.options["head_options"]
    assert options == load(QUICK, SFTConfig).method.options["head_options"] | {"depth": 5}, "files merge too"


@pytest.mark.parametrize("method", ["blank", "coconut"])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_another_method_or_task_drops_what_the_recipe_said_of_its_own(path, method):
    kind, task = config_of(path), "jigsaw"
    is_same = getattr(load(path, kind), "method", None) and load(path, kind).method.name == method
    words = ["--config", str(path), "--data.task", task]
    if has_method := "method.name" in hints_of(kind):
        option = {"blank": "k", "coconut": "c"}[method]
        words += [f"--method.options.{option}", "3", "--method.name", method]
    config = parse(kind, words)
    made = stages_of(config) if hasattr(config, "stages") else [config]
    for one in made:
        assert one.data.task == task and not getattr(one.data, "folder", None)
        tasks.make(task, level=tuple(one.data.levels), **tasks.own(task, one.data.options))
        assert one.data.options.keys() <= set(tasks.options(task))
        if has_method and one.method.name == method:
            methods.check_options(method, one.method.options)
            assert is_same or one.method.options == {option: 3}, (
                "no option of another method, and those of the command line"
            )
    if has_method:
        assert config.method.name == method


def test_a_task_keeps_what_it_has_and_the_command_line_has_the_last_word():
    """Boards of 3 and 4 rows, and one move a step, are also levels and steps of a jigsaw; 3 and 4 are no levels of a die."""
    words = ["--config", QUICK, "--data.task"]
    kept = parse(SFTConfig, [*words, "jigsaw"]).data
    assert kept.levels == [3, 4] and kept.options == {"chunk": [1, 1], "omit_state_p": 1.0}
    assert parse(SFTConfig, [*words, "cube_net"]).data.options == {"omit_state_p": 1.0}
    given = parse(SFTConfig, [*words, "cube_net", "--data.levels", "2", "--data.options.nets", "cross"]).data
    assert given.levels == [2] and given.options["nets"] == "cross"
    same = parse(SFTConfig, ["--config", QUICK, "--method.name", "modal_mixed", "--data.task", "frozenlake_plan"])
    assert same == load(QUICK, SFTConfig), "nothing changes"
    assert load(QUICK, SFTConfig, method__name="blank").method.options == {}


def test_stages_of_another_method_keep_what_is_not_of_a_method(yaml_file):
    file = yaml_file(
        "method: {name: mirage, options: {k: 4}}\nstages:\n  - {method: {options: {stage: 1}}, optim: {max_steps: 5}}\n"
        "  - {method: {name: coconut, options: {c: 1}}}\n"
    )
    first, second = stages_of(parse(SFTConfig, ["--config", file, "--method.name", "blank"]))
    assert (first.method.name, first.method.options, first.optim.max_steps) == ("blank", {}, 5)
    assert (second.method.name, second.method.options) == ("coconut", {"c": 1})


LISTS = {
    "data.levels": ("3,5", [3, 5]),
    "trainable": ("lora,head", ["lora", "head"]),
    "optim.betas": ("0.9,0.99", (0.9, 0.99)),
    "data.modes": ("text,mixed", ["text", "mixed"]),
    "seeds": ("1,2", [1, 2]),
    "logger": ("tensorboard,csv", ["tensorboard", "csv"]),
    "stages": ("{seed: 1},{seed: 2}", [{"seed": 1}, {"seed": 2}]),
}


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.command)
def test_lists_need_no_brackets(kind):
    keys = {key for key, hint in hints_of(kind).items() if typing.get_origin(hint) in (list, tuple)}
    assert keys <= LISTS.keys()
    for key in keys:
        text, value = LISTS[key]
        for words in ([f"--{key}", text], [f"--{key}", f"[{text}]"], [f"--{key}={text}"]):
            found = parse(kind, words)
            for name in key.split("."):
                found = getattr(found, name)
            assert found == value, words
    assert parse(kind, ["--data.levels", "3"]).data.levels == [3]
    assert parse(kind, ["--data.options.chunk", "1, 2"]).data.options == {"chunk": [1, 2]}


def test_rewards_that_are_named_replace_the_default_ones_and_stages_add_to_them(yaml_file):
    file = yaml_file("rl: {rewards: {format: 1.0}}\nstages: [{rl: {rewards: {accuracy: 2.0}}}]\n")
    config = parse(RLTrainingConfig, ["--config", file])
    assert config.rl.rewards == {"format": 1.0} == load(file, RLTrainingConfig).rl.rewards
    assert stages_of(config)[0].rl.rewards == {"format": 1.0, "accuracy": 2.0}


def test_numbers_are_read_as_they_are_meant(yaml_file):
    file = yaml_file("run_name: 7\noptim: {lr: 1e-3}\nmethod: {options: {latent_weight: 1e-1}}\n")
    for recipe in (load(file, SFTConfig), parse(SFTConfig, ["--config", file])):
        assert recipe.optim.lr == 0.001 and recipe.method.options == {"latent_weight": 0.1}
        assert recipe.run_name == "7"


WRONG = {  # a command line, or the text of a recipe, and what the sentence must hold
    "unknown key": ("--optim.stepz 3", "command line: unknown key 'optim.stepz'", "Did you mean 'optim.max_steps'?"),
    "key of another group": ("--max_steps 3", "'max_steps'", "Did you mean 'optim.max_steps'?"),
    "misspelled name": ("--data.itms 3", "data.itms", "Did you mean 'data.items'?"),
    "shortened name": ("--optim.max 3", "optim.max", "Did you mean 'optim.max_steps'?"),
    "key under a number": ("--optim.max_steps.more 3", "optim.max_steps holds no keys"),
    "a group's value": ("--optim 3", "optim holds keys, such as optim.name"),
    "not a number": ("--optim.max_steps many", "optim.max_steps: expected INTEGER; got many"),
    "not a list of numbers": ("--data.levels 3,x", "data.levels: expected [INTEGER, ...]; got"),
    "neither a number nor auto": ("--devices many", "devices: expected INTEGER|auto; got many"),
    "no value": ("--optim.max_steps", "--optim.max_steps needs a value"),
    "no key": ("stray", "'stray' belongs to no key"),
    "one dash": ("-x 3", "'-x' belongs to no key"),
    "no file": ("--config train/recipes/quickstrt.yaml", "quickstrt.yaml' does not exist", "quickstart.yaml'?"),
    "no file name": ("--config", "--config needs a value"),
    "no steps": ("--optim.max_steps 0", "optim.max_steps=0: must be 1 or more"),
    "negative rate": ("--optim.lr -1", "optim.lr=-1.0: must be between 0 and 1,000"),
    "no levels": ("--data.levels []", "data.levels is empty"),
    "unknown optimizer": ("--optim.name sgd", "optim.name: expected one of muon, adamw; got sgd"),
    "key of an earlier version": ("--optim.other_lr 1", "'optim.other_lr' is now 'optim.adamw_lr'"),
    "the same below options": ("--rl.policy_options.rank 1", "is now 'rl.latent_policy_options', a key of train.rl"),
    "value of an earlier version": ("--backbone.latent_positions grid", "got grid ('grid' is now '2d')"),
    "the same in a list": ("--trainable [trunk]", "('trunk' is now 'text_model')"),
    "key of another command": ("--rl.beta 0.1", "'rl.beta' is no key of train.sft, but of train.rl"),
    "unknown key in a file": ("optim: {stepz: 3}", "mine.yaml: unknown key 'optim.stepz'", "'optim.max_steps'?"),
    "not a number in a file": ("optim: {max_steps: many}", "mine.yaml: optim.max_steps: expected INTEGER"),
    "no steps in a file": ("optim: {max_steps: 0}", "mine.yaml: optim.max_steps=0"),
    "not YAML": ("optim: [3", "mine.yaml: not YAML"),
    "no keys in a file": ("[1]", "mine.yaml: holds no keys"),
    "a group's value in a file": ("optim: 3", "mine.yaml: optim holds keys"),
    "unknown key in a stage": ("stages: [{optim: {stepz: 3}}]", "mine.yaml: stage 1: unknown key 'optim.stepz'"),
    "key of another command in a stage": ("stages: [{rl: {beta: 3}}]", "mine.yaml: stage 1: 'rl.beta' is no key of"),
    "keys of an earlier version in a file": (
        "{run: x, optim: {steps: 3}, rl: {group: 2}}",
        "mine.yaml: 'run' is now 'run_name'; 'optim.steps' is now 'optim.max_steps'; 'rl.group' is now "
        "'rl.num_generations', a key of train.rl.",
    ),
    "batches of an earlier version": (
        "{data: {batch_size: 4}, optim: {gradient_accumulation_steps: 2}}",
        "'data.batch_size' is now 'data.global_batch_size'; 'optim.gradient_accumulation_steps' is now "
        "'data.micro_batch_size'.",
        "On one device, these were data.global_batch_size: 8 and data.micro_batch_size: 4.",
    ),
    "many of them": (
        "optim: {steps: 3, other_lr: 1, warmup: 3, final: 1, accumulate: 2, clip: 1}",
        "and 1 more, see docs/configuration.md",
    ),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_wrong_config_is_one_sentence(words, yaml_file, monkeypatch):
    monkeypatch.chdir(ROOT)
    text, *parts = words
    argv = text.split() if text.startswith("-") or text == "stray" else ["--config", yaml_file(text)]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        parse(SFTConfig, argv)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_key_ends_the_command_without_a_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.sft", "--config", QUICK, "--optim.stepz", "3"])
    with pytest.raises(SystemExit) as ended:
        sft.main()
    wanted = "error: command line: unknown key 'optim.stepz'. Did you mean 'optim.max_steps'?\n"
    assert ended.value.code == 2 and capsys.readouterr().err == wanted
    assert not list(tmp_path.iterdir())


# -- every key ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.command)
def test_help_says_what_every_key_is_on_80_columns(config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        parse(config, ["--help"], description="what it does")
    shown = capsys.readouterr().out
    assert not ended.value.code and "what it does" in shown and "None" not in shown and "CONFIG" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for key in hints_of(config):
        entry = re.search(rf"^  --{re.escape(key)} \S.*\n((?: {{8}}.+\n)+)", shown, re.M)
        assert entry and "(default:" in entry[1], key
    importlib.import_module(config.command)


def test_choices_are_those_of_the_code():
    assert set(typing.get_args(Part)) == PARTS.keys()
    assert set(typing.get_args(Attention)) == set(NAMES)
    rl = hints_of(RLTrainingConfig)
    assert set(typing.get_args(rl["rl.loss_type"])) == OBJECTIVES.keys()
    assert set(typing.get_args(rl["rl.latent_policy"])) == POLICIES.keys()


def test_the_reference_is_what_the_configs_say():
    """If this fails: python -m train.config.reference > docs/configuration.md"""
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference()


def test_keys_of_earlier_versions_are_told_from_those_of_today():
    today = {key for config in CONFIGS for key in hints_of(config)}
    assert not OLD_KEYS.keys() & today and set(OLD_KEYS.values()) <= today
    assert OLD_VALUES.keys() <= today


def test_every_key_is_used_by_a_recipe_or_a_test():
    """A key that nobody uses is a key that nobody would miss."""
    recipes = [path.read_text() for path in SHIPPED]
    tests = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    unused = []
    for key in sorted({key for config in CONFIGS for key in hints_of(config)}):
        name = key.rpartition(".")[2]
        in_recipe = any(re.search(rf"(^|[\s{{]){name}: ", text, re.M) for text in recipes)
        in_test = any(re.search(rf"{key.replace('.', '__')}\b|--{re.escape(key)}\b|[(\s]{name}=", t) for t in tests)
        if not in_recipe and not in_test:
            unused.append(key)
    assert not unused


def test_keys_that_a_command_does_not_use_are_not_its_keys():
    assert not any(key.startswith(("rl.", "backbone.name")) for key in hints_of(RLTrainingConfig) if "name" in key)
    assert "data.modes" not in hints_of(PretrainConfig) and "fsdp" not in hints_of(PretrainConfig)

"""Runs and checkpoints from before an option existed go on as they began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tiny_runs import recipe

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.config_file import CONFIG_FILE
from latent_reason.methods import swimbird
from latent_reason.model.backbones import load_backbone
from train import compare
from train.config import PretrainConfig, RLTrainingConfig, SFTConfig, complete, load, parse, stages_of
from train.config.resuming import RECIPE
from train.export_state import read_config
from train.model_setup import build_objective, prepare_model
from train.rl import trainer as rl
from train.trainer import make_run_folder

OLDER = {name: methods.load(name).OLDER for name in methods.names() if hasattr(methods.load(name), "OLDER")}
SWIMBIRD = {"k": 4}


def run_of(folder: Path, name: str, config=SFTConfig, **changes):
    """The config of a run of a method that sets as few options as can be, and its folder, as this version makes it."""
    options = {"k": 4} if "k" in methods.schema(name) else {}
    made = recipe(folder, config=config, **{"method__name": name, "method__options": options} | changes)
    return made, make_run_folder(made)


def make_older(folder: Path, *kept: str) -> None:
    """Let a run hold only the options that its user gave, as older versions wrote it."""
    values = yaml.safe_load((folder / RECIPE).read_text())
    methods_of = [values["method"]] + [stage["method"] for stage in values.get("stages", []) if "method" in stage]
    for method in methods_of:
        method["options"] = {name: value for name, value in method["options"].items() if name in ("k", *kept)}
    (folder / RECIPE).write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture
def older_model(tmp_path):
    """A checkpoint of swimbird from before its system turn."""
    backbone = load_backbone("tiny", width=32, layers=1, heads=2, vision_width=32, corpus=["user assistant up"])
    folder = tmp_path / "older"
    checkpoint.save(methods.build_method("swimbird", backbone, **SWIMBIRD, cap=3.0, latent_weight=0.7), folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    del config["options"]["system_prompt"]
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return folder


# -- runs --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [SFTConfig, PretrainConfig])
@pytest.mark.parametrize("name", OLDER)
def test_a_run_goes_on_with_the_options_with_which_it_began(name, config, tmp_path):
    made, folder = run_of(tmp_path / "run", name, config)
    defaults = {option: p.default for option, p in methods.schema(name).items()}
    words = ["--resume", str(folder)]
    assert load(folder / RECIPE, config).method.options == defaults | made.method.options
    assert parse(config, words).method.options == read_config(folder).method.options == defaults | made.method.options
    make_older(folder)
    wanted = defaults | OLDER[name] | made.method.options
    assert parse(config, words).method.options == read_config(folder).method.options == wanted


def test_what_an_older_recipe_sets_stays(tmp_path):
    folder = run_of(tmp_path / "run", "mirage", method__options={"k": 4, "standardize": False})[1]
    make_older(folder, "standardize")
    assert parse(SFTConfig, ["--resume", str(folder)]).method.options["standardize"] is False


def test_a_key_that_says_how_an_older_run_began_may_be_given(tmp_path):
    folder = run_of(tmp_path / "run", "mirage")[1]
    make_older(folder)
    words = ["--resume", str(folder), "--method.options.standardize"]
    assert parse(SFTConfig, [*words, "true"]).method.options["standardize"] is True
    with pytest.raises(ValueError, match=r"method.options.standardize is False, but the run in .* has True"):
        parse(SFTConfig, [*words, "false"])


def test_auto_and_comparisons_continue_an_older_run(tmp_path):
    """Their recipe leaves out what the run leaves out, and what else differs is refused."""
    made, folder = run_of(tmp_path / "run", "mirage")
    file = tmp_path / "given.yaml"
    make_older(folder)
    file.write_text((folder / RECIPE).read_text())
    begun = []
    for form in ("older", "now"):
        if form == "now":
            (folder / RECIPE).unlink()
            folder.rmdir()
            make_run_folder(made)
        options = parse(SFTConfig, ["--config", str(file), "--resume", "auto"]).method.options
        assert options["standardize"] is (form == "older")
        compare.train_arm(made, folder, lambda arm, at: begun.append(arm))
        assert begun[-1].resume and begun[-1].method.options == options
        with pytest.raises(ValueError, match=r"method.options.max_spans is 3, but"):
            parse(SFTConfig, ["--config", str(file), "--resume", "auto", "--method.options.max_spans", "3"])


def test_stages_of_other_methods_go_on_as_they_began(tmp_path):
    stages = [{"method": {"name": "swimbird", "options": SWIMBIRD}}, {"method": {"options": {"max_spans": 3}}}]
    made, folder = run_of(tmp_path / "run", "mirage", stages=stages)
    for begun in (False, True):
        if begun:
            make_older(folder, "max_spans")
        for found in (parse(SFTConfig, ["--resume", str(folder)]), read_config(folder)):
            first, second = (stage.method for stage in stages_of(found))
            assert first.options.keys() == methods.schema("swimbird").keys()
            assert second.options.keys() == methods.schema("mirage").keys()
            assert first.options["system_prompt"] is not begun and second.options["standardize"] is begun
            assert second.options["max_spans"] == 3 and "standardize" not in first.options
    assert made.stages == stages, "of the caller"


# -- reinforcement learning --------------------------------------------------------------------------------------------
def test_reinforcement_learning_keeps_an_older_model(older_model, tmp_path):
    changes = {"init_from": str(older_model), "method__name": "swimbird", "method__options": SWIMBIRD}
    made = recipe(tmp_path / "run", config=RLTrainingConfig, **changes)
    loaded, _ = checkpoint.load(older_model)
    for config in (made, complete(made)):
        reasoner, _ = prepare_model(config, require_trained=True)
        assert reasoner.system_prompt == loaded.system_prompt == ""
        assert reasoner.method == loaded.method and reasoner.switch == loaded.switch
        assert build_objective(config, reasoner).weights.latent == 0.7
    folder = make_run_folder(made)
    assert load(folder / RECIPE, RLTrainingConfig).method.options == loaded.method.options
    assert parse(RLTrainingConfig, ["--resume", str(folder)]).method.options == loaded.method.options
    assert read_config(folder).method.options == loaded.method.options, "so export_state makes the model that trained"


@pytest.mark.parametrize("option, value, trained", [("system_prompt", True, False), ("k", 5, 4), ("cap", 2.0, 3.0)])
def test_reinforcement_learning_refuses_other_options_of_the_model(option, value, trained, older_model, tmp_path):
    changes = {"init_from": str(older_model), "method__name": "swimbird", "method__options": {option: value}}
    made = recipe(tmp_path / "run", config=RLTrainingConfig, **changes)
    said = rf"method.options.{option}={value}: '.*older' was trained with {trained}. Set that, or remove the key"
    with pytest.raises(ValueError, match=said):
        rl.train(made, make_run_folder(made))


def test_reinforcement_learning_may_change_options_of_training(older_model, tmp_path):
    options = SWIMBIRD | {"latent_weight": 0.1}
    changes = {"init_from": str(older_model), "method__name": "swimbird", "method__options": options}
    made = recipe(tmp_path / "run", config=RLTrainingConfig, **changes)
    reasoner, _ = prepare_model(made, require_trained=True)
    assert build_objective(made, reasoner).weights.latent == 0.1 and reasoner.switch.cap == 3.0


def test_an_older_run_of_reinforcement_learning_goes_on_as_it_began(older_model, tmp_path):
    """It built its model of the recipe alone. Where that is another model than the checkpoint's, it is refused."""
    changes = {"init_from": str(older_model)}
    folder = run_of(tmp_path / "run", "swimbird", RLTrainingConfig, **changes)[1]
    make_older(folder)
    made = parse(RLTrainingConfig, ["--resume", str(folder)])
    assert made.method.options["system_prompt"] is False and made.method.options["cap"] == 2.0
    assert prepare_model(made)[0].switch.cap == 2.0, "what export_state makes"
    with pytest.raises(ValueError, match=r"method.options.cap=2.0: .* was trained with 3.0"):
        prepare_model(made, require_trained=True)


def test_stages_of_reinforcement_learning_have_the_same_options_when_resumed(older_model, tmp_path, monkeypatch):
    """Those of the first checkpoint, with the changes of the stage alone."""
    changes = {"init_from": str(older_model), "method__name": "swimbird", "method__options": SWIMBIRD}
    stages = [{"method": {"options": {"latent_weight": 0.1}}}, {"seed": 3}]
    made = recipe(tmp_path / "run", config=RLTrainingConfig, stages=stages, **changes)
    found = []
    monkeypatch.setattr(rl, "train_stage", lambda stage, folder: found.append(stage.method.options))
    folder = make_run_folder(made)
    rl.train(made, folder)
    resumed = [stage.method.options for stage in stages_of(parse(RLTrainingConfig, ["--resume", str(folder)]))]
    assert found == resumed and [options["latent_weight"] for options in found] == [0.1, 0.7]


# -- supervised training -----------------------------------------------------------------------------------------------
def test_supervised_training_from_an_older_model_has_the_options_of_its_recipe(older_model, tmp_path):
    for options, wanted in ((SWIMBIRD, swimbird.SYSTEM_PROMPT), (SWIMBIRD | {"system_prompt": False}, "")):
        changes = {"init_from": str(older_model), "method__name": "swimbird", "method__options": options}
        assert prepare_model(recipe(tmp_path / "run", **changes))[0].system_prompt == wanted

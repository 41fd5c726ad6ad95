"""The demo: answers as they come, the switches, examples of every task, and the folder of a Space. The page itself is
tested in tests/e2e/test_demo_page.py."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace

import pytest
import yaml
from native_records import picture as noise
from packaging.requirements import Requirement
from test_cli import refused
from tiny_runs import ROOT, tiny_checkpoint

from latent_reason import tasks
from latent_reason.asking.ask import AskOptions
from latent_reason.checkpoint.export import space
from latent_reason.cli import main
from latent_reason.demo import answering, boards
from latent_reason.demo.answering import Form, answer
from latent_reason.demo.boards import OWN_RECORDS, Boards, question_of
from latent_reason.demo.models import DemoModel
from latent_reason.visualization.answer_view import SketchView

CHECKPOINT = ROOT / "checkpoints" / "frozenlake-tiny"


@pytest.fixture(scope="module")
def model():
    return DemoModel.load(CHECKPOINT, "cpu")


@pytest.fixture(scope="module")
def opened(model):
    """The boards of the page, with that of the checkpoint's task opened."""
    made = Boards([model])
    made.open("frozenlake_plan")
    return made


@pytest.fixture(scope="module")
def asked(opened, tmp_path_factory):
    """The third example: its picture as a file, and its question. The answer has five sketches."""
    example, path = opened.open("frozenlake_plan").examples[2], tmp_path_factory.mktemp("asked") / "board.png"
    example.trace.images()[0].save(path)
    return [str(path)], question_of(example)


# -- answers -----------------------------------------------------------------------------------------------------------
def test_an_answer_grows_to_the_judged_whole(model, opened, asked, monkeypatch):
    monkeypatch.setattr(answering, "SECONDS_BETWEEN", 0)
    views = [view for [view] in answer([model], opened, Form(*asked))]
    counts = [len(view.steps) for view in views]
    assert counts == sorted(counts) and counts[0] == 1 < counts[-1]
    drawn = [[s for s in view.steps if isinstance(s, SketchView)] for view in views]
    assert len(drawn[-1]) == 5 and all(s.is_right for s in drawn[-1]) and views[-1].is_right
    for sketches in drawn[:-1]:
        for early, late in zip(sketches, drawn[-1], strict=False):
            assert early.is_rendered and early.picture.tobytes() == late.picture.tobytes()
    assert views[-1].about["latents"] == "on" and views[-1].about["checkpoint"] == "frozenlake-tiny"


def test_two_checkpoints_answer_in_turn(model, opened, asked):
    form = Form(*asked, latents="off")
    seen = list(answer([model, DemoModel(CHECKPOINT, model.reasoner, model.decoder, "b")], opened, form))
    assert seen[0][1] is None and [view.about["checkpoint"] for view in seen[-1]] == ["frozenlake-tiny", "b"]
    assert [view.steps for view in seen[-1][:1]] == [view.steps for view in seen[-1][1:]]


def test_the_form_is_that_of_training_by_default(model, asked):
    assert Form(*asked).options_for(model) == AskOptions()


def test_switches_reach_the_options(model, asked):
    form = Form(*asked, "noise", None, 9, 2, 0.5, 7, "plain", 30)
    given = {"max_new_tokens": 30, "temperature": 0.5, "seed": 7, "latents_per_span": 9, "steps": 2}
    assert form.options_for(model) == AskOptions(latents="noise", **given)
    lines = form.about(model)
    assert lines["latents of a sketch"] == "9" and lines["denoising steps"] == "2" and lines["seed"] == "7"
    assert Form(*asked, decoding="lead").options_for(model).decoding == "lead"
    foreign = Form(*asked, latents="foreign", foreign=asked[0][0]).options_for(model)
    assert foreign.latents == "foreign" and len(foreign.foreign) == 5


def test_an_answer_left_in_the_middle_ends_before_the_next(model, asked):
    trace = answering.question([answering.read_file(path) for path in asked[0]], asked[1])
    trained = model.reasoner.head.steps
    left = model.stream(trace, AskOptions(steps=trained + 3))
    next(left)
    assert model.reasoner.head.steps == trained + 3
    following = model.stream(trace, AskOptions())
    next(following)
    assert model.reasoner.head.steps == trained and list(left) == []
    stopped = model.stream(trace, AskOptions(steps=trained + 3))
    next(stopped)
    stopped.close()
    assert model.reasoner.head.steps == trained


def test_what_cannot_be_asked_is_one_sentence(model, opened, asked, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    files, text = asked
    for form, said in (
        (Form(files, " "), "there is no question"),
        (Form(files * 9, text), "9 pictures are too many"),
        (Form([str(tmp_path / "text.png")], text), "'text.png' is not a readable PNG"),
        (Form(files, text, latents="foreign"), "Choose that picture"),
        (Form(files, text, latents="foreign", foreign=files[0], decoding="lead"), "for plain decoding"),
        (Form(files, text, latents="noise", decoding="lead"), "is for plain decoding"),
    ):
        with pytest.raises(ValueError, match=said):
            list(answer([model], opened, form))


def test_numbers_are_read_from_text():
    assert answering.read_number(" 12 ", "steps", 1) == 12 and answering.read_number("0", "k", 0) == 0
    for text in ("0", "-1", "1.5", "x", "²"):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            answering.read_number(text, "steps", 1)


# -- examples ----------------------------------------------------------------------------------------------------------
def test_every_task_has_examples_and_says_who_was_trained_on_it(model, monkeypatch):
    monkeypatch.setattr(boards, "NUM_EXAMPLES", 1)
    made = Boards([model])
    assert made.names[0] == "frozenlake_plan" and sorted(made.names) == tasks.names()
    for name in made.names:
        board = made.open(name)
        assert len(board.examples) == 1 and board.examples[0].trace.images(), name
        assert ("was not trained on" in board.label) == (name != "frozenlake_plan")


def test_only_an_example_itself_is_judged(opened, asked):
    [path], text = asked
    picture = answering.read_file(path)
    assert opened.find([picture], text) is opened.open("frozenlake_plan").examples[2]
    assert opened.find([picture], text + "?") is None and opened.find([noise(0)], text) is None
    assert opened.find([picture, picture], text) is None


def test_records_that_are_away_are_told(model, monkeypatch):
    method = replace(model.reasoner.method, notes={"data": {"folder": "/none/my_records"}})
    monkeypatch.setattr(model.reasoner, "method", method)
    made = Boards([model])
    assert made.names == [OWN_RECORDS, *tasks.names()]
    board = made.open(OWN_RECORDS)
    assert "There are no examples" in board.label and "my_records" in board.label and not board.examples


# -- the verb -----------------------------------------------------------------------------------------------------------
def test_the_verb_explains_what_is_missing(monkeypatch):
    assert "one or two checkpoints, not 3" in refused(main, "demo", "a", "b", "c")
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "latent_reason.demo.server", raising=False)
    monkeypatch.delitem(sys.modules, "latent_reason.demo.page", raising=False)
    assert "gradio is missing. Install it with: pip install" in refused(main, "demo", "a")


# -- Space -------------------------------------------------------------------------------------------------------------
def test_export_makes_a_space(tmp_path, capsys):
    main(["export", str(tiny_checkpoint()), str(tmp_path / "space"), "--space"])
    folder = tmp_path / "space"
    _, head, _ = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["sdk"] == "gradio" and yaml.safe_load(head)["app_file"] == "app.py"
    packages = (folder / "requirements.txt").read_text().split()
    assert f"gradio=={space.GRADIO}" in packages and any(line.startswith("torch>") for line in packages)
    app = (folder / "app.py").read_text()
    assert str(tmp_path) not in app and '"modal_mixed"' in app and compile(app, "app.py", "exec")
    assert (folder / "checkpoint" / "latent_reason.json").is_file()
    assert (folder / "latent_reason" / "demo" / "server.py").is_file()
    assert (folder / "latent_reason" / "tasks" / "excluded_boards.sha256").is_file()
    assert not list(folder.rglob("__pycache__"))
    assert "exists and is not empty" in refused(main, "export", tiny_checkpoint(), folder, "--space")


def test_a_space_has_a_version_that_the_extra_allows():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [gradio] = [Requirement(line) for line in extras["demo"] if line.startswith("gradio")]
    assert space.GRADIO in gradio.specifier

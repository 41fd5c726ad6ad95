"""What tells that a task's sketches are not needed: a leaky task is refused for each of its leaks."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from eval import sketch_predictors, task_audit
from latent_reason import tasks
from latent_reason.tasks.frozenlake import FrozenLakePlan, PlanCheck


class Leaky(PlanCheck):
    """The question gives the answer and says what the sketch shows; the sketch is a crop of the picture."""

    def build(self, puzzle, level, index):
        item = super().build(puzzle, level, index)
        state = item.steps[0].state
        said = self.state_sentence(state, self.stream(level, index, "leak"))
        told = f"{item.question} {said} {item.answer}, by way of cell {self.variables(state)['elf']}."
        wide, high = item.images[0].size
        crop = item.images[0].crop((wide // 4, high // 4, wide // 4 * 3, high // 4 * 3)).resize((wide, high))
        return replace(item, question=told, steps=[replace(step, sketch=crop) for step in item.steps])


@pytest.fixture(scope="module")
def leaky():
    return task_audit.audit_task(Leaky, (2,), 200, sample=6)


@pytest.mark.parametrize(
    "reason",
    [
        "the question predicts the answer",
        "a sketch is a crop of the input",
        "the question contains the state of a sketch or the answer",
        "the first sketch is predictable at a glance",
    ],
)
def test_each_leak_is_named(leaky, reason):
    assert not leaky["needed"] and any(reason in said for said in leaky["reasons"]), leaky["reasons"]


def test_a_state_that_the_input_shows_is_named():
    class Still(FrozenLakePlan):
        def build(self, puzzle, level, index):
            item = super().build(puzzle, level, index)
            return replace(item, steps=[replace(step, state=self.shown(item)) for step in item.steps])

    task = Still(level=4)
    found = task_audit.check_images(task, [task[i] for i in range(6)])
    assert found["shown"]["value"] == 1 and "the input shows" in task_audit.image_reasons(found)[0]


def test_the_negative_control_is_not_needed():
    found = task_audit.audit_task(partial(tasks.make, "search_zoom"), (1, 2), 12, sample=4)
    assert not found["needed"] and "no sketch counts" in found["reasons"][0]
    item = tasks.make("search_zoom")[0]
    assert sketch_predictors.crop_correlation(item.steps[1].sketch, item.images[0]) > task_audit.CROP_CORRELATION


def test_sound_pictures_have_no_fault():
    for name in ("frozenlake_plan", "cube_net"):
        task = tasks.make(name, level=max(tasks.make(name).levels))
        found = task_audit.check_images(task, [task[i] for i in range(8)])
        assert found["sketches"] >= 6 and not task_audit.image_reasons(found), found


def test_rows_are_levels_and_all_of_them_and_each_number_of_moves_is_read_by_itself():
    report = task_audit.audit_task(partial(tasks.make, "jigsaw"), (2, 3), 48, sample=2)
    assert [row["level"] for row in report["rows"]] == [2, 3, "all"]
    small, large, both = (row["glance"]["first"] for row in report["rows"])
    assert both["read"]["n"] == small["read"]["n"] + large["read"]["n"] == 2 * 48
    assert both["read"]["n"] == both["after"]["1"]["n"] + both["after"]["2"]["n"]
    assert both["after"]["1"]["value"] > both["after"]["2"]["value"] + 0.05, "one tile is more easily found than two"


def test_the_last_sketch_does_not_count_where_the_input_shows_it():
    task = tasks.make("slide", level=1)
    item = next(i for i in map(task.__getitem__, range(20)) if len(task_audit.sketch_steps(i)) > 0)
    last = replace(item.steps[-1], sketch=item.images[1])
    assert len(task_audit.counted_steps(task, replace(item, steps=[*item.steps[:-1], last]))) == len(item.steps) - 1


def test_a_crop_is_found_at_its_place_and_nowhere_else():
    random = np.random.default_rng(0)
    large = random.random((40, 50, 3))
    assert sketch_predictors.max_correlation(large, large[7:27, 11:41]) == pytest.approx(1)
    assert sketch_predictors.max_correlation(large, random.random((20, 30, 3))) < 0.5


def test_reading_is_linear_and_judges_what_changed():
    """A value that hangs on one feature is read, one that hangs on the product of two is not; with more features than
    items, too."""
    torch.manual_seed(0)
    features = torch.randn(500, 400)
    seen = sketch_predictors.reduce_columns(features, 300)
    assert seen.shape == (500, 300)
    assert torch.allclose(seen[:300] @ seen[300:].T, features[:300] @ features[300:].T, rtol=1e-3, atol=0.1)
    easy = [{"a": bool(f)} for f in features[:, 0] > 0]
    hard = [{"a": bool(f)} for f in features[:, 0] * features[:, 1] > 0]
    assert np.mean(sketch_predictors.can_predict(features[:, :20], easy[:300], easy[300:])) > 0.9
    assert np.mean(sketch_predictors.can_predict(features[:, :20], hard[:300], hard[300:])) < 0.65
    assert sketch_predictors.can_predict(features[:, :20], easy[:300], [{"b": True}] * 200) == [False] * 200, (
        "never seen to change"
    )


def test_the_best_fixed_state_and_change():
    changes = [{"elf": (k, k + 3)} for k in range(10)] + [{"elf": (0, 5)}] * 2
    assert (
        sketch_predictors.constant_is_right(*[[sketch_predictors.as_increments(c) for c in changes]] * 2)
        == [True] * 10 + [False] * 2
    )
    states = [{name: new for name, (_, new) in c.items()} for c in changes]
    assert sum(sketch_predictors.constant_is_right(states, states)) == 3


def test_the_command_writes_what_it_was_and_says_what_is_wrong_with_it(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        task_audit.main(["jigsaw", "--n", "49", "--out", str(tmp_path / "few.json")])
    assert "at least 50" in capsys.readouterr().err
    monkeypatch.setattr(task_audit, "LEAST_N", 6)
    monkeypatch.setattr(task_audit, "audit_task", partial(task_audit.audit_task, sample=3))
    out = tmp_path / "needed.json"
    first = ["jigsaw", "cube_net", "--levels", "2", "--n", "10", "--n-of", "cube_net=6", "--out", str(out)]
    task_audit.main(first)
    found = json.loads(out.read_text())["results"]
    assert all(
        r["command"].startswith("python -m eval.task_audit jigsaw") and "cube_net=6" in r["command"] for r in found
    )
    assert [(r["task"], r["n"]) for r in found] == [("cube_net", 6), ("jigsaw", 10)]
    assert found[1]["rows"][0]["question"]["chance"]["n"] == 10
    before, again = out.read_bytes(), ["jigsaw", "--levels", "2", "--n", "8", "--out", str(out)]
    with pytest.raises(SystemExit, match="has results of jigsaw by another command"):
        task_audit.main(again)
    with monkeypatch.context() as patch:
        patch.setattr(task_audit, "audit_task", lambda *given: pytest.fail("audited again"))
        capsys.readouterr()
        task_audit.main(first)
    assert "has the results of jigsaw, cube_net already" in " ".join(capsys.readouterr().out.split())
    assert out.read_bytes() == before
    task_audit.main([*again, "--overwrite"])
    again = json.loads(out.read_text())["results"]
    assert [r["n"] for r in again] == [6, 8] and again[0] == found[0], "what is held about other tasks is kept"
    with pytest.raises(SystemExit, match="no task 'jigsav'"):
        task_audit.main(["jigsav", "--out", str(out)])


def test_chance_is_the_best_constant_to_each_kind_of_question():
    train, val = ([tasks.make("search_zoom", split=split, level=1)[i] for i in range(40)] for split in ("train", "val"))
    found = task_audit.question_rule(tasks.make("search_zoom"), train, val)
    assert found["constant"].keys() == {i.meta["query"]["kind"] for i in train} and len(found["constant"]) == 3


def test_reading_leaves_the_smallest_numbers_of_the_process_alone():
    found = sketch_predictors.predict_logistic(torch.eye(2), ["a", "b"], torch.eye(2))
    assert found == ["a", "b"] and np.float64(5e-324) * np.float64(1) > 0

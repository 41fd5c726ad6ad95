"""Dual tuning: one item in every mode, asked for by the prompt, and the report of where sketching is worth it."""

from __future__ import annotations

import json

import pytest
from tiny_runs import recipe, short, tiny_checkpoint

from eval import boundary
from latent_reason import checkpoint, tasks
from latent_reason.tasks.base import ASKED
from latent_reason.trace import Sketch, Text
from train import sft
from train.config import SFTDataConfig
from train.traces import make_task, traces
from train.trainer import make_run_folder

MODES = ["direct", "text", "mixed"]


def found(gain, gap, n=50, p=0.04):
    """A cell with the values of its differences."""

    def tests(names, values):
        return {name: {"value": value, "holm_p": p} for name, value in zip(names, values, strict=True)}

    gaps = ("sketch-direct", "sketch-text", "text-direct")
    return {"n": n, "gain": tests(boundary.ARMS, gain), "gap": tests(gaps, gap)}


@pytest.mark.parametrize(
    ("gain", "gap", "label"),
    [
        ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1), "sketch"),
        ((0.1, 0.1, 0.1), (0.1, -0.1, 0.1), "text"),
        ((0.1, 0.1, 0.1), (0.1, -0.1, -0.1), "direct"),
        ((0.1, 0.1, 0.1), (-0.1, 0.1, 0.1), "text"),
        ((0.1, 0.1, -0.1), (0.1, 0.1, -0.1), "direct"),
        ((-0.1, -0.1, 0.1), (0.1, 0.1, -0.1), "sketch"),
        ((-0.1, -0.1, -0.1), (0.1, 0.1, 0.1), "none"),
    ],
)
def test_an_arm_is_worth_it_only_if_it_gains_and_beats_every_cheaper_one(gain, gap, label):
    assert boundary.best_arm(found(gain, gap)) == label


def test_no_arm_is_best_by_tests_that_fail_or_on_few_items():
    better = (0.1, 0.1, 0.1)
    assert boundary.best_arm(found(better, better, p=0.06)) == "none"
    assert boundary.best_arm(found(better, better, n=38)) == "12 items more"


def test_paired_items_come_in_every_mode_and_their_prompts_say_which():
    data = SFTDataConfig(levels=[4], modes=MODES, pair_modes=True, options={"asked": True, "chunk": [1, 1]})
    made = list(traces(data, "mixed", "train", 9))
    assert [t.id for t in made] == [made[i].id for i in (0, 0, 0, 3, 3, 3, 6, 6, 6)] and len({t.id for t in made}) == 3
    for trace, mode in zip(made, MODES * 3, strict=True):
        asked = next(p.text for p in trace.messages[0].content if isinstance(p, Text))
        assert asked.endswith(ASKED[mode])
        assert mode == "mixed" or not any(isinstance(p, Sketch) for p in trace.messages[-1].content)
    alone = list(traces(SFTDataConfig(levels=[4], modes=MODES), "mixed", "train", 3))
    assert len({t.id for t in alone}) == 3, "unpaired modes are taken in turn, one an item"
    twin = make_task(data, "train")
    assert twin.text_twin(twin[0], "text").messages[0].content[0].text.endswith(ASKED["text"])


def test_pairs_need_modes():
    with pytest.raises(ValueError, match=r"data.pair_modes .* two modes or more"):
        SFTDataConfig(pair_modes=True)


def test_the_report_of_a_tuned_checkpoint(tmp_path, monkeypatch):
    plan = recipe(tmp_path / "dual", data__modes=MODES, data__pair_modes=True, data__options={"asked": True})
    sft.train(plan, make_run_folder(plan))
    short(monkeypatch)
    run, out = str(tmp_path / "dual" / "model"), tmp_path / "b.json"
    boundary.main([run, "--base", str(tiny_checkpoint("direct")), "--n", "4", "--out", str(out)])
    report = json.loads(out.read_text())
    cell = report["levels"]["level 3"]
    assert report["task"] == "frozenlake_plan" and cell["n"] == 4 and cell["label"] == "46 items more"
    assert all("holm_p" in test for test in (*cell["gain"].values(), *cell["gap"].values()))
    assert cell["accuracy"].keys() == cell["gain"].keys() == boundary.ARMS.keys()
    reasoner, _ = checkpoint.load(tmp_path / "dual")
    task = tasks.make("frozenlake_plan", split="test", level=3, asked=True)
    asked = {arm: boundary.decode_arm(reasoner, task, [task[1]], arm)[0] for arm in boundary.ARMS}
    assert not asked["direct"].latents and not asked["text"].latents


def test_a_checkpoint_not_tuned_so_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        boundary.main(
            [str(tiny_checkpoint()), "--base", str(tiny_checkpoint("direct")), "--out", str(tmp_path / "b.json")]
        )
    assert "not trained to follow the mode in its prompt" in f"{stopped.value}{capsys.readouterr()}"

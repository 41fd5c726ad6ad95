"""Baselines as commands: trained on demonstrations, evaluated, resumed, compared, and shown beside latent methods."""

from __future__ import annotations

import json

import pytest
from tiny_runs import recipe, tiny_checkpoint

from eval import leaderboard, run
from eval.baselines import __main__ as command
from eval.turns import evaluate, router
from latent_reason import checkpoint
from latent_reason.checkpoint.training_data import TrainingData
from train import sft
from train.checks import check_run
from train.config import SFTDataConfig
from train.traces import traces
from train.trainer import make_run_folder

SMALL = ["--levels", "3", "--n", "5", "--max-new-tokens", "24"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint that three steps of demonstrations of ``draw`` have made."""
    made = recipe(tmp_path_factory.mktemp("run") / "run", "text_cot", data__baseline="draw:brief=true,turns=2")
    folder = make_run_folder(made)
    sft.train(made, folder)
    return folder / "model"


def test_training_reads_demonstrations_and_the_checkpoint_remembers_them(trained):
    reasoner, _ = checkpoint.load(trained)
    assert TrainingData.of(reasoner.method.notes).baseline == "draw:brief=true,turns=2"
    data = SFTDataConfig(task="plan_check", levels=[4], baseline="draw:turns=2")
    roles = {tuple(message.role for message in trace.messages) for trace in traces(data, "text", "train", 6)}
    assert roles <= {("user", "assistant"), ("user", "assistant") * 2, ("user", "assistant") * 3}
    assert ("user", "assistant") * 3 in roles
    for wrong in ({"modes": ["text"]}, {"folder": "records"}, {"swap_image_prob": 0.5}):
        with pytest.raises(ValueError, match=r"data\.baseline shows items of a task in its own form"):
            SFTDataConfig(baseline="draw", **wrong)


def test_a_recipe_with_a_wrong_baseline_is_refused_before_it_begins(tmp_path):
    for name, error in (("drow", "Did you mean 'draw'"), ("focus", "has no demonstrations")):
        with pytest.raises(ValueError, match=error):
            check_run(recipe(tmp_path / "run", "text_cot", data__baseline=name), 1)


def test_an_interrupted_evaluation_goes_on_and_ends_alike(trained, tmp_path, monkeypatch, capsys):
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    command.main([str(trained), *SMALL, "--out", str(whole), "--page", str(tmp_path / "a.html")])
    assert "mean cost of an answer" in capsys.readouterr().out
    run_episodes = evaluate.run_episodes

    def some(*args, **options):
        for number, found in enumerate(run_episodes(*args, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(evaluate, "run_episodes", some)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        command.main([str(trained), *SMALL, "--out", str(cut)])
    monkeypatch.setattr(evaluate, "run_episodes", run_episodes)
    command.main([str(trained), *SMALL, "--out", str(cut)])
    one, other = (json.loads(path.read_text()) for path in (whole, cut))
    assert one["results"] == other["results"] and one["method"] == "draw" and one["baseline"].startswith("draw:brief")
    metrics = {row["metric"]: row["value"] for row in one["results"]}
    assert metrics["passes_per_item"] >= metrics["tokens_per_item"] > 0 < metrics["pictures_per_item"]
    assert not cut.with_suffix(".unfinished").exists() and (tmp_path / "a.html").read_text().count("<hr>") == 4


def test_a_baseline_stands_beside_a_latent_method_on_the_leaderboard(trained, tmp_path):
    results = tmp_path / "results"
    command.main([str(trained), *SMALL, "--out", str(results / "draw.json")])
    run.main([str(tiny_checkpoint()), "--levels", "3", "--n", "5", "--out", str(results / "latents.json")])
    rows, warnings = leaderboard.gather_results(results)
    assert {row.method for row in rows} == {"draw", "modal_mixed"} and not [w for w in warnings if "draw" in w]
    [draw] = [row for row in rows if row.method == "draw"]
    assert draw.probes is None and draw.pictures and draw.passes
    leaderboard.main([str(results), "--out", str(tmp_path / "board.html"), "--one-table"])


def test_a_checkpoint_without_a_baseline_asks_for_its_name(tmp_path):
    with pytest.raises(SystemExit, match=r"was not trained on a baseline\. Name one with --baseline"):
        command.main([str(tiny_checkpoint()), "--out", str(tmp_path / "a.json")])
    with pytest.raises(SystemExit, match=r"Allow it with --run-code"):
        command.main([str(tiny_checkpoint()), "--baseline", "code_tools", "--out", str(tmp_path / "a.json")])
    with pytest.raises(SystemExit, match=r"was not trained to follow the mode in its prompt"):
        router.main([str(tiny_checkpoint()), "--out", str(tmp_path / "a.json")])

"""Baselines as commands: trained on demonstrations, evaluated, resumed, compared, and shown beside latent methods."""

from __future__ import annotations

import json

import pytest
from tiny_runs import recipe, tiny_checkpoint

from eval import leaderboard, run
from eval.baselines import __main__ as command
from eval.compare import main
from eval.item_lines import read_items
from eval.turns import evaluate, router
from latent_reason import checkpoint
from latent_reason.checkpoint.training_data import TrainingData
from train import sft
from train.checks import check_run
from train.config import SFTDataConfig
from train.traces import traces
from train.trainer import make_run_folder

NOISE = {"accuracy": 0.1, "difference": {"value": 0.3, "low": 0.1, "high": 0.5}, "holm_p": 0.01}
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
    whole, cut, page = tmp_path / "whole.json", tmp_path / "cut.json", ["--page", str(tmp_path / "a.html")]
    command.main([str(trained), *SMALL, "--out", str(whole)])
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
    with pytest.raises(SystemExit, match="another interrupted run, which differs in max_new_tokens"):
        command.main([str(trained), *SMALL, "--max-new-tokens", "25", "--out", str(cut)])
    command.main([str(trained), *SMALL, "--out", str(cut), *page])
    one, other = (json.loads(path.read_text()) for path in (whole, cut))
    assert one["results"] == other["results"] and one["method"] == "draw" and one["baseline"].startswith("draw:brief")
    metrics = {row["metric"]: row["value"] for row in one["results"]}
    assert metrics["passes_per_item"] >= metrics["tokens_per_item"] > 0 < metrics["pictures_per_item"]
    assert not cut.with_suffix(".unfinished").exists() and (tmp_path / "a.html").read_text().count("<hr>") == 4
    lines = [[item | {"seconds": 0} for item in read_items(path)] for path in (whole, cut)]
    assert lines[0] == lines[1] and {"passes", "pictures", "ended", "text"} <= lines[0][0].keys()


def test_a_baseline_stands_beside_a_latent_method_on_the_leaderboard(trained, tmp_path):
    """In one table, with the costs of both, the mean over seeds, and nothing in the columns of probes."""
    results, latents = tmp_path / "results", tiny_checkpoint()
    for seed in ("1", "2"):
        command.main([str(trained), *SMALL, "--seed", seed, "--out", str(results / f"draw{seed}.json")])
    other = ["--baseline", "text", "--levels", "3", "--n", "5"]
    command.main([str(latents), *other, "--out", str(results / "text.json")])
    run.main([str(latents), "--levels", "3", "--n", "5", "--out", str(results / "latents.json")])
    probes = {"checkpoint": latents.as_posix(), "protocol": "regenerate", "probes": {"noise": NOISE}, "n": 60}
    (results / "probes.json").write_text(json.dumps({"schema": 1, "task": "frozenlake_plan"} | probes))
    rows, warnings = leaderboard.gather_results(results)
    methods = {row.method for row in rows}
    assert methods == {"draw:brief=true,turns=2 (text_cot)", "text (modal_mixed)", "modal_mixed"}
    assert rows_of(rows, "modal_mixed")[0].probes, warnings
    assert not [row for row in rows if row.is_explicit and row.probes]
    mean = leaderboard.mean_row([row for row in rows if row.method.startswith("draw")])
    both = [row for row in rows if row.method.startswith("draw")]
    assert mean.passes == pytest.approx(sum(row.passes for row in both) / 2) and mean.pictures
    assert {row.method: row.protocol for row in rows}["text (modal_mixed)"] == rows_of(rows, "modal_mixed")[0].protocol
    main([str(results / "text.json"), str(results / "latents.json")])


def rows_of(rows, method):
    return [row for row in rows if row.method == method]


def test_a_checkpoint_without_a_baseline_asks_for_its_name(tmp_path):
    with pytest.raises(SystemExit, match=r"was not trained on a baseline\. Name one with --baseline"):
        command.main([str(tiny_checkpoint()), "--out", str(tmp_path / "a.json")])
    with pytest.raises(SystemExit, match=r"Allow it with --run-code"):
        command.main([str(tiny_checkpoint()), "--baseline", "code_tools", "--out", str(tmp_path / "a.json")])
    with pytest.raises(SystemExit, match=r"was not trained to follow the mode in its prompt"):
        router.main([str(tiny_checkpoint()), "--out", str(tmp_path / "a.json")])

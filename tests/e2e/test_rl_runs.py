"""Runs by reward, whole: what they leave, log and keep, and what is refused."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage
from tiny_runs import EMPTY, rewarded, short, tiny_checkpoint

from latent_reason import checkpoint
from latent_reason.data.convert import convert
from latent_reason.decoding import engine
from latent_reason.model import adapters
from train.config import RLTrainingConfig, load
from train.rl import rewards, trainer
from train.rl.records import FolderTask
from train.trainer import make_run_folder


@pytest.fixture(autouse=True)
def cut(monkeypatch):
    """Held-out items are answered by untrained models, which ramble."""
    short(monkeypatch)


def test_a_run_leaves_a_checkpoint_and_figures(tmp_path, monkeypatch):
    """An untrained model earns nothing; a reward by length gives it something to learn."""
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    made = rewarded(
        tmp_path / "run",
        rl__rewards={"long": 1.0},
        rl__num_iterations=2,
        rl__beta=0.1,
        rl__sft_coef=0.5,
        data__micro_batch_size=3,
    )
    before, _ = checkpoint.load(tiny_checkpoint())
    reasoner, _ = trainer.train(made, make_run_folder(made))
    assert any(not torch.equal(p, q) for p, q in zip(before.parameters(), reasoner.parameters(), strict=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "run" / "logs"))
    found.Reload()
    assert {
        "reward",
        "reward_std",
        "frac_reward_zero_std",
        "rewards/long/mean",
        "train/policy",
        "kl",
        "train/anchor",
        "switch/start_rate",
        "completions/clipped_ratio",
        "entropy",
    } <= set(found.Tags()["scalars"])
    assert checkpoint.load(tmp_path / "run")[0].method.name == "modal_mixed"


def test_all_that_is_to_be_watched_is_logged(tmp_path, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    reasoner, _ = checkpoint.load(tiny_checkpoint())
    monkeypatch.setattr(
        "train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=[[reasoner.vocabulary.open]] * 4)
    )
    made = rewarded(
        tmp_path / "run",
        rl__rewards={"long": 1.0},
        rl__latent_policy="gaussian",
        rl__latent_beta=0.1,
        rl__beta=0.1,
        rl__latent_policy_options={"fraction": 0.3},
        eval_steps=1,
        rl__max_completion_length=10,
    )
    trainer.train(made, make_run_folder(made))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "run" / "logs"))
    found.Reload()
    tags = found.Tags()
    assert {"rollouts"} <= set(tags["images"]) and "rollouts/text_summary" in tags["tensors"]
    missing = {
        "clip_ratio/low_mean",
        "clip_ratio/low_min",
        "clip_ratio/high_mean",
        "clip_ratio/high_max",
        "clip_ratio/region_mean",
        "clip_ratio/latent",
        "completions/max_length",
        "completions/mean_length",
        "completions/min_length",
        "entropy",
        "frac_reward_zero_std",
        "kl",
        "kl/latent",
        "latents/cos_to_sft",
        "latents/norm",
        "latents/norm_drawn",
        "latents/pairwise_cos",
        "latents/effective_rank",
        "latents/per_answer",
        "latents/per_span",
        "mode/latent",
        "num_tokens",
        "probe/p5_delta",
        "ratio/latent_mean",
        "ratio/text_mean",
        "reward",
        "reward_std",
        "rewards/failed",
        "rewards/long/std",
        "spans/per_answer",
        "step_time",
        "switch/forced_end_rate",
        "switch/start_rate",
        "val/sketches",
    } - set(tags["scalars"])
    assert not missing


def test_states_are_saved_every_so_many_steps(tmp_path, monkeypatch):
    """The last two are kept until the model is saved."""
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    made = rewarded(tmp_path / "run", rl__rewards={"long": 1.0}, optim__max_steps=7, save_steps=2)
    kept, real = [], checkpoint.save

    def save(reasoner, where, **options):
        kept.append((where.name, sorted(p.name for p in (where.parent / "state").iterdir())))
        return real(reasoner, where, **options)

    monkeypatch.setattr(checkpoint, "save", save)
    trainer.train(made, make_run_folder(made))
    assert kept == [("model", ["step-00000004", "step-00000006"])] and not (tmp_path / "run" / "state").exists()


def test_the_last_model_is_looked_at_where_batches_taught_nothing(tmp_path, monkeypatch, capsys):
    """Of five batches, the second and third earn the same for all."""
    calls = []

    def now_and_then(group):
        calls.append(1)
        return [float(len(one.text)) if (len(calls) - 1) // 2 not in (1, 2) else 0.0 for one in group]

    monkeypatch.setitem(rewards.REWARDS, "long", now_and_then)
    made = rewarded(tmp_path / "run", rl__rewards={"long": 1.0}, optim__max_steps=3)
    trainer.train(made, make_run_folder(made))
    assert len(calls) == 10 and "held-out items at step 3 of 3" in capsys.readouterr().out


def test_an_adapter_goes_on_through_stages_and_drops_nothing(tmp_path, monkeypatch):
    """One that was tuned with dropout is replayed as it was drawn."""
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    reasoner, decoder = checkpoint.load(tiny_checkpoint())
    adapters.add(reasoner, rank=4, dropout=0.5)
    checkpoint.save(reasoner, tmp_path / "tuned", decoder=decoder)
    gaps, real = [], trainer.RLModule.loss

    def loss(module, found):
        out = real(module, found)
        gaps.append(float(out[1]["replay/max_logp_gap"].detach()))
        return out

    monkeypatch.setattr(trainer.RLModule, "loss", loss)
    made = rewarded(
        tmp_path / "run",
        init_from=str(tmp_path / "tuned"),
        lora__rank=4,
        trainable=["lora"],
        rl__rewards={"long": 1.0},
        optim__max_steps=1,
        stages=[{"rl": {"max_completion_length": 6}}, {"rl": {"max_completion_length": 8}}],
    )
    trainer.train(made, make_run_folder(made))
    assert len(gaps) == 2 and max(gaps) < 1e-3
    other = rewarded(tmp_path / "other", init_from=str(tmp_path / "tuned"), lora__rank=2, trainable=["lora"])
    with pytest.raises(ValueError, match="has an adapter of rank 4, alpha 32"):
        trainer.train(other, make_run_folder(other))


def test_what_moves_after_a_step_moves_here_too(tmp_path, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    steps = []
    monkeypatch.setattr("latent_reason.objectives.objective.Objective.on_optimizer_step", lambda *_: steps.append(1))
    made = rewarded(tmp_path / "run", rl__rewards={"long": 1.0})
    trainer.train(made, make_run_folder(made))
    assert len(steps) == 2


def test_nothing_to_learn_is_said_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("train.rl.module.MAX_SKIPPED_BATCHES", 3)
    made = rewarded(tmp_path / "run", rl__rewards={"accuracy": 1.0})
    with pytest.raises(ValueError, match=r"3 batches in a row gave no gradient: in every group"):
        trainer.train(made, make_run_folder(made))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"init_from": None}, "starts from a model that solves some items"),
        ({"rl__latent_policy": "flow_sde"}, "needs a flow head, not a MLPHead"),
        ({"trainable": ["head"]}, "a head alone gets no gradient"),
        (
            {"rl__latent_policy": "gaussian", "rl__latent_policy_options": {"size": 1}},
            "rl.latent_policy_options of gaussian: .*'size'",
        ),
        ({"rl__rewards": {"acuracy": 1.0}}, "Did you mean 'accuracy'"),
        (
            {"rl__rewards": {"accuracy": 1.0, "overlong": 0.3, "short": -0.2}},
            "penalties add up to 0.5 and the answer has weight 1,",
        ),
        ({"rl__latent_policy": "vlpo"}, "its gradient is zero until the policy has changed"),
        ({"rl__latent_policy": "reward_weighted"}, "a MLPHead is not stochastic"),
        ({"rl__latent_beta": 1.0}, "so rl.latent_beta has no effect"),
        ({"rl__evidence_triples": True, "data__global_batch_size": 2}, "gives each item three times.* Set it to 3"),
        ({"lora__rank": 4, "lora__dropout": 0.1, "trainable": ["lora"]}, "lora.dropout: rollouts and their replay"),
        ({"backbone__latent_positions": "2d"}, "backbone.latent_positions='2d': .* was trained with '1d'. Set that"),
        (
            {"method__name": "text_cot", "method__options": {}},
            "method.name='text_cot': .* was trained with 'modal_mixed'",
        ),
        (
            {"method__options": {"k": 3, "head": "mlp", "head_options": {"hidden": 32}}},
            "method.options.k=3: .* was trained with 4. Set that",
        ),
        (
            {"method__options": {"k": 4, "head": "flow", "head_options": {"hidden": 32}}},
            "method.options.head='flow': .* was trained with 'mlp'. Set that",
        ),
        ({"precision": "bf16-true"}, "Set bf16-mixed"),
        ({"rl__rewards": {"accuracy": 1.0, "short": 0.6}}, "penalties add up to 0.6 and the answer has weight 1,"),
        (
            {"rl__rewards": {"accuracy": 1.0, "format": 0.7, "short": 0.3}},
            "format has weight 0.7, penalties add up to 0.3",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(changes, said, tmp_path):
    made = rewarded(tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=said):
        trainer.train(made, make_run_folder(made))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"rl__loss_type": "ppo"}, "rl.loss_type: expected one of grpo, .*got ppo"),
        ({"rl__num_generations": 1}, "Set it to 2 or more"),
        ({"rl__mask_truncated_completions": "x"}, "rl.mask_truncated_completions: expected true.false; got x"),
        ({"rl__beta": -1.0}, "rl.beta=-1.0: must be 0 or more"),
        ({"rl__loss_type": "rloo", "rl__num_iterations": 2}, "Set rl.num_iterations to 1"),
        ({"rl__max_token_weight": 0.5}, "must be 1 or more, or 0 for no weighting"),
        ({"rl__temperature": 0.0}, "rl.temperature=0.0: must be more than 0"),
        ({"rl__rewards": {}}, "rl.rewards is empty"),
        ({"rl__latent_policy": "none"}, "rl.latent_policy: expected one of mask"),
        ({"data__folder": "x", "data__include_ids": "y"}, "data.include_ids names items of a task, but data.folder"),
        ({"data__streaming": True}, "'data.streaming' is no key of train.rl"),
        ({"data__modes": ["text"]}, "'data.modes' is no key of train.rl, but of train.sft"),
        ({"method__latent_dropout": 0.5}, "'method.latent_dropout' is no key of train.rl, but of train.sft"),
        ({"teacher": "x"}, "'teacher' is no key of train.rl, but of train.sft"),
    ],
)
def test_recipes_say_what_is_wrong(changes, said):
    with pytest.raises(ValueError, match=said):
        load(EMPTY, RLTrainingConfig, **changes)


# -- records -----------------------------------------------------------------------------------------------------------
def questions(folder, *rows) -> str:
    """A folder of records from rows as EasyR1 has them: a question with an image, and a gold answer."""
    source = folder / "source"
    source.mkdir()
    lines = []
    for i, row in enumerate(rows):
        PILImage.new("RGB", (56, 56), (40 * i, 80, 160)).save(source / f"{i}.jpg")
        lines.append(json.dumps({"problem": "<image>How many?", "answer": str(i % 2), "images": [f"{i}.jpg"]} | row))
    (source / "a.jsonl").write_text("\n".join(lines))
    path, report = convert("table", source, folder / "records", columns={"question": "problem"}, checker="number")
    assert path, report
    return str(folder / "records")


def test_a_run_on_records_with_answers(tmp_path, monkeypatch):
    """A reward by length, because the untrained model answers nothing; the answers are graded by the checker."""
    graded = []
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: graded.extend(group) or [len(x.text) for x in group])
    records = questions(tmp_path, {}, {"level": 2}, {}, {"split": "val"}, {"split": "test"})
    made = rewarded(
        tmp_path / "run", rl__rewards={"long": 1.0, "accuracy": 2.0}, rl__sampler="pass_rate", data__folder=records
    )
    before, _ = checkpoint.load(tiny_checkpoint())
    reasoner, _ = trainer.train(made, make_run_folder(made))
    assert any(not torch.equal(p, q) for p, q in zip(before.parameters(), reasoner.parameters(), strict=True))
    assert {(x.item.id, x.item.answer, x.item.level) for x in graded} <= {
        ("a-1", "0", 0),
        ("a-2", "1", 2),
        ("a-3", "0", 0),
    }
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "run" / "logs"))
    found.Reload()
    assert {"val/accuracy", "rewards/accuracy/mean"} <= set(found.Tags()["scalars"])
    assert "sketches" in found.Tags()["images"], "shown, though no rule scores them"
    task = FolderTask(records, "train", 2)
    assert len(task) == 2 and task.records.has_more and task.levels == [0, 2]
    assert [task.score(f"\\boxed{{{text}}}", task[1].meta)["accuracy"] for text in ("1", "1.0", "2")] == [1, 1, 0]


@pytest.mark.parametrize(
    "rows, changes, sentence",
    [
        ([{}], {"rl__rewards": {"ver": 1.0}}, "rl.rewards: 'ver' asks a task which answer follows from a reasoning"),
        ([{}], {"rl__evidence_triples": True, "data__global_batch_size": 3}, "rl.evidence_triples masks the evidence"),
        ([{}], {"rl__sft_coef": 0.1}, "has records without an assistant turn, which a supervised loss needs"),
        ([{"split": "test"}], {}, "no record with split train"),
    ],
)
def test_records_that_cannot_be_used_are_refused_before_the_run(tmp_path, rows, changes, sentence):
    made = rewarded(tmp_path / "run", data__folder=questions(tmp_path, *rows), **changes)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        trainer.train(made, make_run_folder(made))


def test_an_answer_that_its_checker_rejects_is_refused_by_its_row(tmp_path):
    """The reader refuses such a table; a record may be changed later."""
    folder = Path(questions(tmp_path, {"answer": "7"}))
    file = folder / "traces.jsonl"
    changed = file.read_text().replace('"answer":"7"', '"answer":"many"').replace('"answer": "7"', '"answer": "many"')
    assert "many" in changed
    file.write_text(changed)
    made = rewarded(tmp_path / "run", data__folder=str(folder))
    with pytest.raises(
        ValueError, match=r"traces\.jsonl:1: checker: record 'a-1': its checker 'number' rejects its own"
    ):
        trainer.train(made, make_run_folder(made))

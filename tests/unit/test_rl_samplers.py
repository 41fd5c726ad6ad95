"""Which items come, how many, what they count, what a rollout may take, and being made to answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import EMPTY, recipe, rl_module, rolled, short, tiny_checkpoint

from latent_reason import checkpoint
from latent_reason.contracts.closeness import assert_close
from latent_reason.model.batch import LATENT
from latent_reason.objectives.replay import replay
from latent_reason.tasks import make
from train.callbacks import Alarms
from train.config import RLTrainingConfig, load
from train.rl import rewards, trainer
from train.rl.samplers import PassRates, PassRateSampler, PromptData, ShuffledSampler
from train.trainer import make_run_folder


def test_levels_that_are_half_solved_come_most_and_the_unsolved_count_most():
    rates = PassRates([3, 4, 5])
    for _ in range(60):
        for level, share in ((3, 1.0), (4, 0.5), (5, 0.0)):
            rates.update(level, share)
    easy, half, hard = rates.sampling_probs().tolist()
    assert half > 5 * easy and half > 5 * hard and min(easy, hard) > 0.03, "none is forgotten"
    assert [rates.weight(level) for level in (3, 4, 5)] == pytest.approx([0.5, 1, 2], abs=0.1)
    drawn = Counter(i % 3 for i in islice(PassRateSampler(rates, [0, 1, 2] * 10, seed=0), 600))
    assert drawn[1] > 400 and min(drawn.values()) > 10


def test_as_many_more_items_are_taken_as_lately_taught_nothing():
    rates = PassRates([3])
    assert rates.oversampling == 1
    for _ in range(50):
        rates.update_skipped(0.5)
    assert rates.oversampling == pytest.approx(2, abs=0.05)
    for _ in range(50):
        rates.update_skipped(1.0)
    assert rates.oversampling == 4, "and never more than four times"


def test_processes_share_the_items_of_a_level():
    rates = PassRates([3, 4])
    seen = [set(islice(PassRateSampler(rates, [0, 1] * 20, seed=0, rank=rank, world=2), 200)) for rank in (0, 1)]
    assert not seen[0] & seen[1] and seen[0] | seen[1] == set(range(40))
    with pytest.raises(ValueError, match=r"data.items: 3 items are too few for 2 levels on 2 processes"):
        next(iter(PassRateSampler(rates, [0, 1, 0], seed=0, rank=1, world=2)))


@pytest.fixture(autouse=True)
def cut(monkeypatch):
    """Held-out items are answered by untrained models, which ramble."""
    short(monkeypatch)


@pytest.fixture
def module(float64):
    """One whose rewards are the lengths of what it wrote."""
    return rl_module(level=(3, 4))


def test_difficulty_weighs_advantages(module):
    items = [module.sampler.task[i] for i in range(2)]
    plain = rolled(module, items).advantages
    module.sampler.rl, module.sampler.num_batches = replace(module.rl, difficulty_weighting=True), 0
    module.sampler.pass_rates = PassRates([3, 4])
    module.sampler.pass_rates.rates = {3: 0.9, 4: 0.3}
    weighed = rolled(module, items).advantages
    assert plain.abs().max() > 0
    assert_close(weighed[:4], plain[:4] * 0.5)
    assert_close(weighed[4:], plain[4:] * 1.75)


def test_sketches_are_capped_in_number_and_length(module):
    """What PTST does stage by stage, for words by ``max_new``."""
    bias = torch.zeros(len(module.reasoner.backbone.model.get_output_embeddings().weight))
    bias[module.reasoner.vocabulary.open] = 9.0
    plain = module.reasoner.backbone.logits
    module.reasoner.backbone.logits = lambda states: plain(states) + bias
    module.sampler.rl = replace(module.rl, max_completion_length=40)
    free = rolled(module, [module.sampler.task[0]])
    module.sampler.rl = replace(module.rl, max_spans=1, latents_per_span=2)
    capped = rolled(module, [module.sampler.task[0]])
    assert max(one.spans for one in free.graded) > 1 and max(s.length for s in free.rollout.spans) == 4
    assert {one.spans for one in capped.graded} == {1} and {s.length for s in capped.rollout.spans} == {2}
    found = replay(module.reasoner, capped.rollout).text[capped.rollout.text_decisions]
    assert_close(found, capped.rollout.sampled_log_prob[capped.rollout.text_decisions])


def test_who_does_not_end_is_made_to_answer_and_that_is_no_choice(module):
    words = module.reasoner.vocabulary.encode_text("\\boxed{")
    module.sampler.rl = replace(module.rl, answer_prefix="\\boxed{", answer_budget=3)
    found = rolled(module, [module.sampler.task[0]])
    cut = [row for row in range(4) if found.rollout.forced_answer[row]]
    assert not any(found.graded[row].ended for row in cut), "not by themselves"
    assert cut and all(found.rollout.ids[row, 12 : 12 + len(words)].tolist() == words for row in cut)
    for row in cut:
        assert not found.actions[row, 12 : 12 + len(words)].any()
        assert found.actions[row, 12 + len(words)], "what is said after is"
    assert found.rollout.ids.shape[1] <= 12 + len(words) + 3
    new = replay(module.reasoner, found.rollout).text[found.rollout.text_decisions]
    assert_close(new, found.rollout.sampled_log_prob[found.rollout.text_decisions])


def test_an_open_sketch_is_closed_before_the_answer(module):
    from latent_reason.decoding.engine import generate

    v = module.reasoner.vocabulary
    words = v.encode_text("\\boxed{")
    prompt = module.reasoner.processor([module.sampler.task.trace(module.sampler.task[0], "mixed")], generate=True)
    out = generate(module.reasoner, prompt, max_new_tokens=4, latent_mode="first", answer_prefix=words, answer_budget=2)
    assert out.forced_answer == [True] and (out.token_type[0, 1:3] == LATENT).all() and int(out.ids[0, 3]) == v.close
    assert out.ids[0, 4 : 4 + len(words)].tolist() == words and out.spans[0].cause == "budget"


def test_items_come_in_three_and_by_pass_rate(module):
    made = replace(module.config, rl=replace(module.rl, sampler="pass_rate"))
    made.data = replace(made.data, global_batch_size=4)
    data = PromptData(module.sampler.task, made, module.sampler.pass_rates)
    first = list(islice(iter(data.train_dataloader()), 3))
    assert [len(batch) for batch in first] == [4, 4, 4] and len({i.id for b in first for i in b}) > 9
    task = make("search_zoom")
    made = replace(made, rl=replace(made.rl, evidence_triples=True))
    items = PromptData(task, made, PassRates(list(task.levels))).items(list(range(6)))
    assert 12 <= len(items) <= 18 and len({i.id for i in items}) == 6


def test_items_in_turn_come_in_another_order_every_time():
    turns = [list(islice(ShuffledSampler(10, seed=0, rank=rank, world=2), 15)) for rank in (0, 1)]
    for at in (0, 5, 10):
        assert sorted(turns[0][at : at + 5] + turns[1][at : at + 5]) == list(range(10)), (
            "each once before any comes again"
        )
    assert turns[0][:5] != turns[0][5:10] != turns[0][10:]


def test_only_the_items_that_a_file_of_hints_names_are_tried(module, tmp_path):
    data = module.config.data
    given = {"task": data.task, "version": module.sampler.task.version, "levels": data.levels, "seed": 0, "options": {}}
    (tmp_path / "keep.json").write_text(json.dumps(given | {"keep": [3, 8, 11]}))
    made = replace(module.config, data=replace(data, include_ids=str(tmp_path / "keep.json")))
    batches = islice(iter(PromptData(module.sampler.task, made, module.sampler.pass_rates).train_dataloader()), 4)
    assert {item.index for batch in batches for item in batch} == {3, 8, 11}


def test_stages_cap_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    made = recipe(
        tmp_path / "run",
        config=RLTrainingConfig,
        init_from=str(tiny_checkpoint()),
        rl__num_generations=2,
        data__global_batch_size=2,
        optim__name="adamw",
        optim__max_steps=1,
        rl__rewards={"long": 1.0},
        stages=[{"rl": {"max_completion_length": 6}}, {"rl": {"max_completion_length": 12, "max_spans": 1}}],
    )
    trainer.train(made, make_run_folder(made))
    assert checkpoint.load(tmp_path / "run")[0] and (tmp_path / "run" / "stage-1" / "model").is_dir()


def test_alarms_are_said_once(capsys):
    alarms = Alarms()
    for step, rate in ((1, 0.8), (2, 0.5), (3, 0.3), (4, 0.2)):
        metrics = {"switch/start_rate": torch.tensor(rate), "frac_reward_zero_std": torch.tensor(0.9)}
        alarms.on_train_batch_end(SimpleNamespace(callback_metrics=metrics, global_step=step), None, None, None, 0)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        said.count("fewer than half as many answers have a sketch as at the start (0.80)") == 1
        and "step 3: switch" in said
    )
    assert said.count("of most items have equal rewards") == 1 and "nearly equal" not in said


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"rl__sampler": "any"}, "rl.sampler: expected one of shuffle, pass_rate; got any"),
        ({"rl__perturbations": {"blur": 1.0}}, "unknown 'blur'"),
        ({"rl__perturbation_mask_ratio": 2.0}, "must be between 0 and 1"),
        ({"rl__perturbation_latents": "x"}, "one of recorded, regenerated, dropped"),
        ({"rl__latent_importance_sampling_level": "x"}, "one of latent, span"),
        ({"rl__sft_items": "x"}, "one of unsolved, all"),
    ],
)
def test_recipes_say_what_is_wrong(changes, said):
    with pytest.raises(ValueError, match=said):
        load(EMPTY, RLTrainingConfig, **changes)

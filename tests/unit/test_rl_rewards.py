"""Rewards: what is paid for answers and for the way to them, what is measured for it, and items in three."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import recipe, rolled, tiny_checkpoint

from latent_reason import checkpoint
from latent_reason.decoding import engine
from latent_reason.tasks import make
from train.config import RLTrainingConfig
from train.rl import content_measures, evidence_triples, reward_inputs, rewards, trainer
from train.rl.reward_context import RewardContext
from train.rl.rewards import Graded, compute

ITEM = make("frozenlake_plan", level=3)[0]


def graded(score: float, text: str = "\\boxed{U}", **changes) -> Graded:
    return replace(Graded(ITEM, text, score, 10, 4, 1, True), **changes)


# -- what is paid ------------------------------------------------------------------------------------------------------
def test_process_is_paid_to_right_answers_alone():
    group = [graded(1.0), graded(1.0, spans=0), graded(0.5), graded(0.0)]
    assert compute("use_if_correct", rewards.use_if_correct, group) == [1.0, 0.0, 0.0, 0.0]
    assert compute("accuracy", rewards.accuracy, group) == [1.0, 1.0, 0.5, 0.0]
    group = [graded(1.0, words=10), graded(1.0, words=20), graded(0.0, words=1)]
    assert compute("short", rewards.short, group) == [1.0, -1.0, 0.0]
    assert compute("short", rewards.short, [graded(1.0)] * 2) == [0.0, 0.0]
    assert compute("format", rewards.format, [graded(0.0), graded(1.0, "U"), graded(1.0, ended=False)]) == [
        1.0,
        0.0,
        0.0,
    ]
    group = [graded(0.0, words=w, latents=0, budget=100) for w in (10, 80, 90, 100)]
    assert compute("overlong", rewards.overlong, group) == pytest.approx([0, 0, -0.5, -1])
    assert compute("overlong", rewards.overlong, [graded(0.0, words=900, latents=0, budget=100)]) == [-1]
    assert compute("hard", rewards.hard, [graded(1.0), graded(0.9), graded(1.0, "U")]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "reward, said",
    [
        (lambda group: 1 / 0, "raised ZeroDivisionError"),
        (lambda group: [float("nan")] * len(group), "returned nan"),
        (lambda group: [1.0], "returned 1 values for 2 rollouts"),
    ],
)
def test_a_reward_that_fails_is_named_with_its_item(reward, said):
    with pytest.raises(ValueError, match=rf"reward 'mine' on item '{ITEM.id}' {said}"):
        compute("mine", reward, [graded(1.0)] * 2)


def test_rewards_are_found_by_name_or_path():
    assert rewards.find("accuracy") is rewards.accuracy and rewards.find("math.sqrt")
    with pytest.raises(ValueError, match=r"no reward 'acuracy'. Did you mean 'accuracy'\?"):
        rewards.find("acuracy")
    with pytest.raises(ValueError, match=r"reward 'math.nothing': module 'math' has no 'nothing'"):
        rewards.find("math.nothing")


# -- measures ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def scene():
    reasoner, decoder = checkpoint.load(tiny_checkpoint())
    task = make("frozenlake_plan", level=3)
    return RewardContext(reasoner, checkpoint.load(tiny_checkpoint())[0], decoder, task, "mixed")


def written(scene: RewardContext, items, texts):
    """Rollouts that say these texts; ``<>`` opens a sketch."""
    v = scene.reasoner.vocabulary
    queue = []
    for text in texts:
        first, *rest = text.split("<>")
        queue.append([*v.encode_text(first), *[t for part in rest for t in (v.open, *v.encode_text(part))], v.end])
    prompt = scene.reasoner.processor([scene.task.trace(item, "mixed") for item in items], generate=True)
    return engine.generate(scene.reasoner, prompt, max_new_tokens=200, forced_tokens=queue)


def gold(scene: RewardContext, item) -> str:
    return "".join(getattr(part, "text", "<>") for part in scene.task.trace(item, "mixed").messages[-1].content)


def test_reasoning_that_leads_elsewhere_is_no_evidence(scene):
    item = scene.task[0]
    whole = gold(scene, item)
    rollout = written(scene, [item] * 2, [whole, f"\\boxed{{{item.answer}}}"])
    assert reward_inputs.concluded(scene, rollout, [item] * 2) == [1.0, 0.0]
    back = f"Go D. Now at row 1 column 1. \\boxed{{{item.answer}}}"
    assert reward_inputs.concluded(scene, written(scene, [item], [back]), [item]) == [0.0]


def test_sketches_are_looked_at_where_they_can_be(scene, monkeypatch):
    item = scene.task[0]
    rollout = written(scene, [item] * 2, [gold(scene, item), "\\boxed{U}"])
    right = [scene.task.render_state(item, step.state) for step in item.steps if step.sketch is not None]
    monkeypatch.setattr(content_measures, "decode_sketches", lambda *args: right)
    assert reward_inputs.sketch_match(scene, rollout, [item] * 2) == [1.0, 0.0]
    monkeypatch.setattr(content_measures, "decode_sketches", lambda *args: [right[0], right[0]])
    assert reward_inputs.sketch_match(scene, rollout, [item] * 2)[0] == 0.5
    with pytest.raises(
        ValueError, match=r"sketch_match needs decoded sketches. Start from a checkpoint with a sketch decoder"
    ):
        reward_inputs.sketch_match(replace(scene, decoder=None), rollout, [item] * 2)


def test_a_reader_is_given_question_and_sketches_and_nothing_else(scene, monkeypatch):
    """The prompt's picture is blank, no word between the sketches is there, and the latents are those recorded."""
    item, seen = scene.task[0], {}
    rollout = written(scene, [item] * 2, ["Go U.<> Go<> \\boxed{U}", "\\boxed{U}"])
    plain = reward_inputs.generate

    def generate(reader, prompt, **options):
        seen["prompt"], seen["out"] = prompt, plain(reader, prompt, **options)
        return seen["out"]

    monkeypatch.setattr(reward_inputs, "generate", generate)
    found = reward_inputs.sketches_alone(scene, rollout, [item] * 2)
    out, v = seen["out"], scene.reference.vocabulary
    blind = scene.reference.processor([scene.task.blind(item, "mixed")] * 2, generate=True)
    torch.testing.assert_close(seen["prompt"].images.pixels, blind.images.pixels)
    assert [s.length for s in out.spans_of(0)] == [s.length for s in rollout.spans_of(0)] and len(out.spans_of(0)) == 2
    for one, other in zip(out.spans_of(0), rollout.spans_of(0), strict=True):
        assert torch.equal(out.latents(one), rollout.latents(other))
    assert out.text(0, v).startswith("\\boxed{") and not out.spans_of(1) and found[1] == 0.0
    answers = {0: item.answer + "}", 1: item.answer + "}"}
    monkeypatch.setattr(
        reward_inputs, "generate", lambda reader, prompt, **o: _saying(plain, reader, prompt, o, answers)
    )
    assert reward_inputs.sketches_alone(scene, rollout, [item] * 2) == [1.0, 0.0], (
        "without a sketch it counts for nothing"
    )
    with pytest.raises(ValueError, match="needs the reference model"):
        reward_inputs.sketches_alone(replace(scene, reference=None), rollout, [item] * 2)


def _saying(plain, reader, prompt, options, answers):
    queue = [
        [*q, *reader.vocabulary.encode_text(answers[row]), reader.vocabulary.end]
        for row, q in enumerate(options["forced_tokens"])
    ]
    return plain(reader, prompt, **options | {"forced_tokens": queue})


# -- rewards -----------------------------------------------------------------------------------------------------------
def test_what_is_measured_is_paid_to_right_answers():
    group = [
        graded(1.0, measured={"concluded": 1.0}),
        graded(1.0, measured={"concluded": 0.0}),
        graded(0.0, measured={"concluded": 1.0}),
    ]
    assert compute("ver", rewards.find("ver"), group) == [1.0, 0.0, 0.0]
    group = [graded(1.0, latents=n, measured={"sketches_alone": s}) for n, s in ((8, 1.0), (16, 1.0), (4, 0.0))]
    assert compute("sccm", rewards.find("sccm"), group) == pytest.approx([1.2, 1.0, 0.0])


def test_trust_falls_where_wrong_answers_have_more_of_it_and_with_time():
    def group(right, wrong, step=0):
        return [graded(1.0, measured={"concluded": right}, step=step), graded(0.0, measured={"concluded": wrong})]

    trust = rewards.find("trust.concluded")
    assert trust.wants == ("concluded",)
    assert compute("trust", trust, group(0.8, 0.2)) == pytest.approx([0.8, 0])
    assert compute("trust", trust, group(0.5, 0.9)) == pytest.approx([0.5 * math.exp(-0.4), 0])
    assert compute("trust", trust, group(0.8, 0.2, step=500)) == pytest.approx([0.8 / math.e, 0])
    assert compute("trust", trust, [graded(1.0, measured={"concluded": 1.0})] * 2) == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"no measure 'conclude'. Did you mean 'concluded'"):
        rewards.find("trust.conclude")


def test_other_measures_of_the_task_are_partial_credit():
    group = [graded(0.0, scores={"success": 0.0, "progress": 0.25})]
    assert compute("score.progress", rewards.find("score.progress"), group) == [0.25]
    with pytest.raises(ValueError, match=r"the task has no score 'speed'\. Known: success, progress"):
        compute("score.speed", rewards.find("score.speed"), group)


def test_a_run_measures_what_its_rewards_want():
    made = recipe(
        "unused",
        config=RLTrainingConfig,
        init_from=str(tiny_checkpoint()),
        rl__num_generations=2,
        data__global_batch_size=1,
        rl__max_completion_length=8,
        rl__rewards={"accuracy": 1.0, "trust.sketch_match": 0.3, "sccm": 0.5, "score.progress": 0.1},
    )
    reasoner, decoder = checkpoint.load(tiny_checkpoint())
    module = trainer.RLModule(
        reasoner, make("frozenlake_plan", level=3), made, checkpoint.load(tiny_checkpoint())[0], decoder
    )
    assert module.sampler.reward_inputs == ["sketch_match", "sketches_alone"]
    found = rolled(module, [module.sampler.task[0]])
    assert {*found.graded[0].measured} == {"sketch_match", "sketches_alone"}
    assert {*found.rewards} == {*made.rl.rewards} and found.graded[0].scores["progress"] >= 0


# -- items in three ----------------------------------------------------------------------------------------------------
def test_evidence_is_hidden_or_as_much_of_the_rest():
    task = make("search_zoom")
    for i in range(4):
        item = task[i]
        intact, hidden, *elsewhere = evidence_triples.make_triple(task, item)
        box = task.box(item)
        assert intact.answer == item.answer and hidden.answer == "unknown" and not hidden.steps
        before, gone = (np.asarray(x.images[-1]).astype(int) for x in (intact, hidden))
        h, w = before.shape[:2]
        x0, y0, x1, y1 = (round(at * side) for at, side in zip(box, (w, h, w, h), strict=True))
        assert (gone[y0:y1, x0:x1] == gone[y0, x0]).all()
        outside = np.ones((h, w), bool)
        outside[y0:y1, x0:x1] = False
        assert (before[outside] == gone[outside]).all()
        for other in elsewhere:
            changed = (np.asarray(other.images[-1]).astype(int) != before).any(-1)
            assert changed.any() and not changed[y0:y1, x0:x1].any() and other.answer == item.answer
        assert [evidence_triples.variant(one) for one in (intact, hidden, *elsewhere)] == [
            "intact",
            "hidden",
            "elsewhere",
        ][: 2 + len(elsewhere)]
    with pytest.raises(ValueError, match="frozenlake_plan does not define which region"):
        evidence_triples.make_triple(make("frozenlake_plan"), ITEM)


def test_abstaining_is_right_where_the_evidence_is_hidden_and_there_alone():
    """And what is searched for is the answer: not "know" in any word before it."""
    hidden = replace(ITEM, meta=ITEM.meta | {"variant": "hidden"})
    abstained, answered = "I know none. \\boxed{unknown}", "it is not unknown \\boxed{U}"
    assert (
        evidence_triples.abstains(abstained)
        and not evidence_triples.abstains(answered)
        and not evidence_triples.abstains("unknown")
    )
    group = [graded(1.0, abstained, item=hidden), graded(0.0, answered, item=hidden)]
    assert compute("defacto", rewards.find("defacto"), group) == [1.0, -1.0]
    group = [graded(1.0), graded(0.0, answered), graded(0.0, abstained)]
    assert compute("defacto", rewards.find("defacto"), group) == [1.0, 0.0, -1.0]


def test_rollouts_of_hidden_evidence_are_graded_by_abstaining():
    task = make("search_zoom")
    made = recipe(
        "unused",
        config=RLTrainingConfig,
        init_from=str(tiny_checkpoint()),
        data__task="search_zoom",
        data__levels=list(task.levels),
    )
    module = trainer.RLModule(checkpoint.load(tiny_checkpoint())[0], task, made)
    intact, hidden, *_ = evidence_triples.make_triple(task, task[0])
    scene = RewardContext(module.reasoner, None, None, task, "mixed")
    v = module.reasoner.vocabulary
    prompt = module.reasoner.processor([task.trace(hidden, "mixed")], generate=True)
    out = engine.generate(
        module.reasoner, prompt, max_new_tokens=60, forced_tokens=[[*v.encode_text("\\boxed{unknown}"), v.end]]
    )
    assert (
        scene.task is task
        and module.sampler.grade(out, 0, hidden, {}).is_correct
        and not module.sampler.grade(out, 0, intact, {}).is_correct
    )
    assert task.trace(hidden, "mixed").assistant_text() == "\\boxed{unknown}"

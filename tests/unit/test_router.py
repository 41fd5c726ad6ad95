"""The classifier of the baseline ``route``: what it learns, what its file holds, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_runs import tiny_reasoner

from eval.baselines import make_baseline
from eval.turns import router
from eval.turns.baseline import Ask, Problem, Read, Reading, Reply
from eval.turns.episodes import Episode
from eval.turns.router import Router
from latent_reason import tasks
from latent_reason.files import atomic_write_json

STATES = torch.randn(90, 8, generator=torch.Generator().manual_seed(0)) + 4 * torch.eye(8)[torch.arange(90) % 3]
LABELS = [("direct", "text", "sketch")[n % 3] for n in range(90)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "router.json"
    atomic_write_json(path, {"schema": 1, "router": Router.fit(STATES, LABELS).to_json()})
    return path


def test_it_learns_modes_that_the_state_tells_apart(file):
    fitted = Router.fit(STATES[:60], LABELS[:60])
    right = [fitted.choose(state) == label for state, label in zip(STATES[60:], LABELS[60:], strict=True)]
    assert sum(right) >= 28 and fitted.modes == ("direct", "text", "sketch")
    whole = Router.fit(STATES, LABELS)
    assert [Router.read(str(file)).choose(s) for s in STATES] == [whole.choose(s) for s in STATES]


def test_the_policy_asks_in_the_mode_that_was_chosen(file):
    route, problem = make_baseline(f"route:file={file}"), Problem("p", (), "Which way?")
    for state, sentence in zip(
        STATES[:3], ("Answer at once.", "Think in words.", "Think in words and sketches."), strict=True
    ):
        policy = route.think(problem)
        assert isinstance(policy.send(None), Read)
        asked = policy.send(Reading(state, 1.0))
        assert isinstance(asked, Ask) and asked.chat.messages[0].content[-1].text == f"Which way? {sentence}"
        with pytest.raises(StopIteration) as ended:
            policy.send(Reply("up"))
        assert ended.value.value == "up"
    assert route.may_sketch and not make_baseline("route").may_sketch


def test_another_router_is_another_run(file, tmp_path):
    other = tmp_path / "other.json"
    atomic_write_json(other, {"schema": 1, "router": Router.fit(STATES[:50], LABELS[:50]).to_json()})
    prints = {make_baseline(f"route:file={path}").fingerprint for path in (file, other)} | {
        make_baseline("route").fingerprint
    }
    assert len(prints) == 3


def test_a_router_of_another_model_is_refused(file):
    with pytest.raises(ValueError, match="reads states of width 8, and this model has 32"):
        make_baseline(f"route:file={file}").check(tiny_reasoner(), None)


@pytest.mark.parametrize(
    "change",
    [{"bias": [0.0]}, {"weight": [[1.0, 2.0]]}, {"modes": ["direct", "text", "sing"]}, {"mean": None}, {"scale": "x"}],
)
def test_a_damaged_file_is_refused(file, change):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"router": content["router"] | change}))
    with pytest.raises(ValueError, match=r"its router is damaged. Fit it again"):
        make_baseline(f"route:file={file}")
    with pytest.raises(FileNotFoundError, match="none"):
        make_baseline("route:file=none.json")


def test_the_cheapest_right_mode_is_the_label(monkeypatch):
    """Items whose number is even are solved at once, the others in words only: the held-out choice is always right."""
    task = tasks.make("frozenlake_plan", level=3)
    items = [task[n] for n in range(30)]

    def answer(model, decoder, baseline, problems, limits):
        for n, problem in enumerate(problems):
            text = ""
            if isinstance(baseline, router.ReadPrompt):
                baseline.states[problem.id] = torch.tensor([float(n % 2), 0.5])
            elif baseline.mode == "text" or n % 2 == 0:
                text = f"\\boxed{{{items[n].answer}}}"
            yield n, replace(Episode(problem), text=text)

    monkeypatch.setattr(router, "run_episodes", answer)

    class Model:
        can_sketch = True

    fitted, report = router.fit_router(Model(), task, items, seed=0)
    assert fitted.modes == ("direct", "text") and report["accuracy"]["choice"] == 1 and report["n"] == 6
    assert report["accuracy"]["text"] == 1 > report["accuracy"]["direct"] == 0.5 and report["accuracy"]["sketch"] == 0.5


def test_one_right_mode_for_all_items_is_nothing_to_learn(monkeypatch):
    task = tasks.make("frozenlake_plan", level=3)
    items = [task[n] for n in range(12)]

    def answer(model, decoder, baseline, problems, limits):
        for n, problem in enumerate(problems):
            if isinstance(baseline, router.ReadPrompt):
                baseline.states[problem.id] = torch.zeros(2)
            yield n, replace(Episode(problem), text=f"\\boxed{{{items[n].answer}}}")

    class Model:
        can_sketch = False

    monkeypatch.setattr(router, "run_episodes", answer)
    with pytest.raises(ValueError, match="the cheapest right mode is the same for all"):
        router.fit_router(Model(), task, items, seed=0)

"""A package of one's own is all a new method needs: it is put under every contract and trained, by dotted path."""

from __future__ import annotations

import re

import pytest
from processes import python
from tiny_runs import recipe

from train.config import RLTrainingConfig, dump

METHOD = '''"""Toy: an MLP toward the model's own vision tokens. Defaults: ours."""

from latent_reason import LatentReasoner
from latent_reason.model import heads
from latent_reason.model.targets import VisionTokens
from latent_reason.objectives.objective import Objective

PAPER = "none"
SUMMARY = "a toy of a user's package"
MODE = "mixed"


def build_model(backbone, *, k: int = 4, head: str = "toys.parts:ToyHead") -> LatentReasoner:
    head = heads.make(head, backbone.width, backbone.width, hidden=32)
    return LatentReasoner(backbone, target=VisionTokens(backbone, k), head=head)


def build_objective(run=None) -> Objective:
    return Objective(run)
'''
PARTS = """from latent_reason.model.heads import MLPHead
from latent_reason.tasks.wall_maze import WallMaze


class ToyHead(MLPHead):
    pass


class ToyTask(WallMaze):
    name = "toy_maze"


def brevity(group):
    return [1 / (1 + one.words) for one in group]
"""


CONTRACTS = ("-m", "latent_reason.contracts")
#: pytest wants to import its plug-ins before anything else does
NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the user's package, out of the checkout."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "toys").mkdir()
    for name, text in (("__init__", ""), ("method", METHOD), ("parts", PARTS)):
        (folder / "toys" / f"{name}.py").write_text(text)
    return folder


def printed(where, *words, **env) -> str:
    done = python(*words, cwd=where, **env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_method_of_ones_own_is_put_under_every_contract(place):
    tested = printed(place, *CONTRACTS, "-v", "--method", "toys.method", **NO_PLUGINS)
    kept = {
        int(n)
        for n in re.findall(r"test_method_contract.py::test_(\d+)_\S+\[\S*toys\.method-1d[^\]]*\] PASSED", tested)
    }
    assert kept == set(range(1, 12)), tested[-3000:]
    assert "skipped" not in tested and "test_task_contract" not in tested and "test_backbone_contract" not in tested


@pytest.mark.slow
def test_a_task_of_ones_own_is_put_under_its_contract(place):
    tested = printed(place, *CONTRACTS, "-v", "--task", "toys.parts:ToyTask", "-k", "items or splits", **NO_PLUGINS)
    assert re.search(r"test_splits_share_no_puzzle\[toys\.parts:ToyTask\] PASSED", tested)
    assert "test_method_contract" not in tested


def test_a_contract_that_is_broken_is_found(place):
    (place / "toys" / "faulty.py").write_text(METHOD.replace('SUMMARY = "a toy of a user\'s package"', 'SUMMARY = ""'))
    done = python(*CONTRACTS, "-q", "--method", "toys.faulty", "-k", "test_1_", cwd=place, **NO_PLUGINS)
    assert done.returncode == 1 and "1 failed" in done.stdout
    done = python(*CONTRACTS, "--method", "mirag", cwd=place, **NO_PLUGINS)
    assert done.returncode == 4 and "unknown method 'mirag'. Did you mean 'mirage'?" in done.stderr


@pytest.mark.slow
def test_it_trains_goes_on_by_reward_and_is_evaluated(place):
    own = {
        "method__name": "toys.method",
        "method__options": {},
        "data__task": "toys.parts:ToyTask",
        "data__levels": [2],
    }
    changes = {"optim__max_steps": 2, "optim__warmup_steps": 1, "data__items": 8, **own}
    (place / "first.yaml").write_text(dump(recipe(place / "first", method="direct", **changes)))
    assert "step 2/2" in printed(place, "-m", "train.sft", "--config", "first.yaml")
    (place / "second.yaml").write_text(
        dump(
            recipe(
                place / "second",
                method="direct",
                config=RLTrainingConfig,
                init_from=str(place / "first"),
                optim__name="adamw",
                rl__num_generations=2,
                rl__num_prompts=2,
                rl__max_completion_length=8,
                rl__rewards={"accuracy": 1.0, "toys.parts.brevity": 0.1},
                **changes,
            )
        )
    )
    assert (place / "first" / "model" / "latent_reason.json").is_file()
    printed(place, "-m", "train.rl", "--config", "second.yaml")
    answered = printed(place, "-m", "latent_reason", "generate", "second", LATENT_REASON_PLUGINS="toys")
    assert "question: " in answered and "(gold " in answered

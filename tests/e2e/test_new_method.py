"""A package of one's own is all a new method needs: it is put under every contract and trained, by dotted path."""

from __future__ import annotations

import re
import shlex
import sys
from itertools import chain

import pytest
from processes import python
from tiny_runs import ROOT, recipe, short, tiny_checkpoint

from train import sft
from train.config import RLTrainingConfig, dump

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: my_pkg/(\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    " ".join(command.replace("\\\n", " ").split())
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for command in re.findall(r"^python -m (train\.sft (?:.*\\\n)*.*)$", block, re.MULTILINE)
]
#: makes the commands of the page short
SHORT = {
    "--data.items": "8",
    "--data.val_items": "1",
    "--data.global_batch_size": "4",
    "--optim.max_steps": "1",
    "--accelerator": "cpu",
}
BREVITY = """def brevity(group):
    return [1 / (1 + one.words) for one in group]
"""

CONTRACTS = ("-m", "latent_reason.contracts")
#: pytest wants to import its plug-ins before anything else does
NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the package of the page, out of the checkout."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_pkg").mkdir()
    for name, text in (FILES | {"__init__.py": "", "short.py": BREVITY}).items():
        (folder / "my_pkg" / name).write_text(text)
    (folder / "train").symlink_to(ROOT / "train")
    return folder


def printed(where, *words, **env) -> str:
    done = python(*words, cwd=where, **env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_method_of_ones_own_is_put_under_every_contract(place):
    tested = printed(place, *CONTRACTS, "-v", "--method", "my_pkg.my_method", **NO_PLUGINS)
    kept = {
        int(n)
        for n in re.findall(
            r"test_method_\w*contract.py::test_(\d+)_\S+\[\S*my_pkg\.my_method-1d[^\]]*\] PASSED", tested
        )
    }
    assert kept == set(range(1, 13)), tested[-3000:]
    assert "skipped" not in tested and "test_task_contract" not in tested and "test_backbone_contract" not in tested


@pytest.mark.slow
def test_a_task_of_ones_own_is_put_under_its_contract(place):
    tested = printed(place, *CONTRACTS, "-v", "--task", "my_pkg.walk:Walk", **NO_PLUGINS)
    assert re.search(r"test_splits_share_no_puzzle\[my_pkg\.walk:Walk\] PASSED", tested)
    assert "test_method_" not in tested


def test_a_contract_that_is_broken_is_found(place):
    (place / "my_pkg" / "faulty.py").write_text(re.sub('SUMMARY = ".*"', 'SUMMARY = ""', FILES["my_method.py"]))
    done = python(*CONTRACTS, "-q", "--method", "my_pkg.faulty", "-k", "test_1_", cwd=place, **NO_PLUGINS)
    assert done.returncode == 1 and "1 failed" in done.stdout
    done = python(*CONTRACTS, "--method", "mirag", cwd=place, **NO_PLUGINS)
    assert done.returncode == 4 and "unknown method 'mirag'. Did you mean 'mirage'?" in done.stderr


@pytest.mark.slow
def test_it_trains_goes_on_by_reward_and_is_evaluated(place):
    own = {
        "method__name": "my_pkg.my_method",
        "method__options": {},
        "data__task": "my_pkg.walk:Walk",
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
                data__global_batch_size=2,
                rl__max_completion_length=8,
                rl__rewards={"accuracy": 1.0, "my_pkg.my_rewards.uses_one_sketch": 0.1, "my_pkg.short.brevity": 0.1},
                **changes,
            )
        )
    )
    assert (place / "first" / "model" / "latent_reason.json").is_file()
    printed(place, "-m", "train.rl", "--config", "second.yaml")
    answered = printed(place, "-m", "latent_reason", "generate", "second", LATENT_REASON_PLUGINS="my_pkg")
    assert "question: " in answered and "(gold " in answered


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words.split()[-1])
def test_a_training_command_of_the_page_runs(command, place, monkeypatch, capsys):
    """As written, but short, and in this process, where the decoding of held-out items can be short as well."""
    short(monkeypatch, budget=12)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    _, *words = shlex.split(command.replace("CHECKPOINT", str(tiny_checkpoint())))
    monkeypatch.setattr(sys, "argv", ["train.sft", *words, *chain(*SHORT.items())])
    sft.main()
    assert "Checkpoint: " in capsys.readouterr().out


def test_the_page_has_a_command_for_each_part():
    assert {command.split()[-1] for command in COMMANDS} == {"cosine", "mine", "walk", "llava"}
    assert FILES.keys() == {"my_head.py", "my_method.py", "my_rewards.py", "walk.py"}

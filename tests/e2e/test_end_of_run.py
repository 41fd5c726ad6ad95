"""What a run leaves in its process: nothing. Stages and the arms of a comparison run in one process, one after the other."""

from __future__ import annotations

import gc
import signal

import lightning as L
import pytest
from tiny_runs import recipe, rewarded, tiny_checkpoint

from latent_reason.model.reasoner import LatentReasoner
from train import sft
from train.rl import trainer as rl
from train.stopping import STATUS
from train.trainer import make_run_folder


@pytest.mark.parametrize("command", ["sft", "rl"])
def test_model_and_trainer_are_freed_and_signals_go_where_they_went(command, tmp_path):
    handlers = {number: signal.getsignal(number) for number in STATUS}
    gc.collect()
    before = count_alive()
    if command == "sft":
        made = recipe(tmp_path / "run", optim__max_steps=1, data__val_items=0, init_from=str(tiny_checkpoint()))
        sft.train(made, make_run_folder(made))
    else:
        options = {"rl__max_completion_length": 16, "rl__rewards": {"tiny_runs.long": 1.0}}
        made = rewarded(tmp_path / "run", optim__max_steps=1, data__val_items=0, **options)
        rl.train(made, make_run_folder(made))
    gc.collect()
    assert count_alive() == before
    assert {number: signal.getsignal(number) for number in STATUS} == handlers


def count_alive() -> tuple[int, int]:
    """Trainers and models in memory."""
    found = gc.get_objects()
    return tuple(sum(isinstance(x, kind) for x in found) for kind in (L.Trainer, LatentReasoner))

"""Training data of a folder: what is left out is said, and what cannot be trained on is refused."""

import math

import pytest
import torch
from PIL import Image as PILImage
from tiny_runs import recipe, untrained

from latent_reason import methods
from latent_reason.data import native
from latent_reason.trace import Image, Message, Text, Trace
from train.batches import LengthGrouped
from train.config import OptimConfig
from train.data import TraceData
from train.lit_modules import SFTModule
from train.progress import console


def record(number: int, split: str = "train", **changes) -> Trace:
    picture = PILImage.new("RGB", (28, 28), (number, 0, 0))
    turns = Message("user", (Image(picture), Text("Go"))), Message("assistant", (Text("\\boxed{U}"),))
    return Trace(f"r{number}", turns, split=split, mode="direct", answer="U", **changes)


def set_up(folder, traces, val: int = 1, **changes) -> tuple[TraceData, str]:
    """The training data of records, and what was said of them."""
    native.write(traces, folder / "records")
    made = recipe(folder / "run", "direct", data__folder=str(folder / "records"), data__val_items=val, **changes)
    reasoner, _ = untrained("direct")
    data = TraceData(made.data, reasoner, methods.objective_of(reasoner), "direct", 0, frozen_vision=False)
    with console.capture() as said:
        data.setup()
    return data, " ".join(said.get().split())


def test_records_beyond_data_items_are_said_to_be_left_out(tmp_path):
    traces = [record(0), record(1, "val"), record(2), record(3)]
    data, said = set_up(tmp_path / "a", traces, data__items=2)
    assert len(data.rows["train"]) == 2 and len(data.rows["val"]) == 1
    assert "has more than 2 training records. The others are left out. Set a larger data.items" in said
    data, said = set_up(tmp_path / "b", traces, data__items=3)
    assert len(data.rows["train"]) == 3 and "left out" not in said


def test_fewer_items_than_processes_are_refused():
    with pytest.raises(ValueError, match=r"data\.items: 2 training items are too few for 3 processes"):
        LengthGrouped([5, 5], 4, seed=0, world=3)
    assert LengthGrouped([5, 5], 4, seed=0, world=2).per_epoch == 2


def test_records_without_an_assistant_turn_are_refused_by_their_row(tmp_path):
    traces = [record(0), Trace("asked", record(1).messages[:1], answer="U")]
    with pytest.raises(ValueError, match=r"traces\.jsonl:2: .*no assistant turn.*train.rl"):
        set_up(tmp_path, traces)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_held_out_example_counts_once_however_many_processes_there_are(world, tmp_path):
    """All processes make as many passes, because those through sharded weights wait for each other."""
    traces = [record(0), *(record(number, "val") for number in range(1, 6))]
    data, _ = set_up(tmp_path, traces, val=5, data__global_batch_size=2)
    shares = [list(data.held_out_batches(rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {math.ceil(3 / world)}
    counted = [batch for share in shares for batch in share if batch.counts]
    assert sorted(batch.number for batch in counted) == [0, 1, 2] and sum(len(b.batch.ids) for b in counted) == 5
    data, _ = set_up(tmp_path / "none", [record(0)], val=0)
    assert not list(data.held_out_batches())


def test_held_out_losses_are_means_over_examples_however_they_are_cut(monkeypatch):
    """And zero, not NaN, for a part with which no example is taught."""
    reasoner, logged = untrained()[0], {}
    module = SFTModule(reasoner, methods.objective_of(reasoner), OptimConfig())
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    module.held_out = {"text": (torch.tensor(6.0), torch.tensor(4.0)), "latent": (torch.zeros(()), torch.zeros(()))}
    module.on_validation_epoch_end()
    assert logged == {"val/text": 1.5, "val/latent": 0.0}

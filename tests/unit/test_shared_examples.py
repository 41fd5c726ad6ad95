"""Processes of one launch encode examples together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock

import pytest
import torch
from PIL import Image as PILImage
from safetensors import SafetensorError
from tiny_runs import recipe, tiny_reasoner, write_uneven_records
from torch.distributed import HashStore

from latent_reason import methods
from latent_reason.contracts import closeness
from latent_reason.model.processor import EncodedExample
from train import shared_examples
from train.data import TraceData
from train.shared_examples import Peers, share

WORLD = 3


class InTurn(Peers):
    """Gives way to the other processes only where it waits for them, because a task may not be drawn from twice at once."""

    turn = Lock()

    def exchange(self, value):
        self.turn.release()
        try:
            return super().exchange(value)
        finally:
            self.turn.acquire()


def together(work, folder):
    """What ``work(peers)`` returns as each of three processes, played by threads."""
    store = HashStore()

    def play(rank):
        with InTurn.turn:
            return work(InTurn(store, rank, WORLD, folder))

    with ThreadPoolExecutor(WORLD) as pool:
        return list(pool.map(play, range(WORLD)))


class CountedData(TraceData):
    """Knows what it encoded."""

    encoded: list[str]

    def encode(self, trace):
        self.encoded = [*getattr(self, "encoded", []), trace.id]
        return super().encode(trace)


def setups(monkeypatch, tmp_path, reasoner, **changes):
    """The data of each of three processes, and of one alone."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(WORLD))
    monkeypatch.setenv("WORLD_SIZE", str(WORLD))
    made = recipe(tmp_path / "run", data__items=7, data__val_items=2, **changes)

    def set_up(peers):
        objective = methods.objective_of(reasoner)
        found = CountedData(made.data, reasoner, objective, "mixed", 0, frozen_vision=True, peers=peers)
        found.setup()
        return found

    return set_up(Peers()), together(set_up, tmp_path / ".examples" / "0")


def same(one, other) -> bool:
    """Whether two examples are equal, images included, and features but for the rounding of another batch."""
    plain = all(getattr(one, name) == getattr(other, name) for name in shared_examples.PLAIN)
    images = all(
        [image and (image.mode, image.tobytes()) for image in getattr(one, name)]
        == [image and (image.mode, image.tobytes()) for image in getattr(other, name)]
        for name in shared_examples.IMAGES
    )
    features = all(
        (a is None) == (b is None)
        and all(
            (x is None and y is None) or (torch.equal(x.grid, y.grid) and closeness.is_close(x.features, y.features))
            for x, y in zip(a or (), b or (), strict=True)
        )
        for a, b in ((getattr(one, name), getattr(other, name)) for name in shared_examples.FEATURES)
    )
    teachers = one.teacher_example, other.teacher_example
    return plain and images and features and (teachers == (None, None) or same(*teachers))


def test_each_process_encodes_its_share_and_has_all(monkeypatch, tmp_path):
    alone, found = setups(monkeypatch, tmp_path, tiny_reasoner())
    assert sorted(i for one in found for i in one.encoded) == sorted(alone.encoded), "each item once"
    assert [len(one.encoded) for one in found] == [4, 3, 2]
    for one in found:
        assert all(map(same, one.rows["train"], alone.rows["train"])) and len(one.rows["train"]) == 7
        assert all(map(same, one.rows["val"], alone.rows["val"])) and len(one.rows["val"]) == 2
        assert one.digest() == alone.digest() and one.longest == alone.longest
        assert one.sketch_counts.numbers() == alone.sketch_counts.numbers()
        assert one.rows["train"][0].image_features, "features, not images"
    assert not (tmp_path / ".examples").exists(), "one machine: mapped and removed"


def test_counts_and_warnings_are_of_all_records(monkeypatch, tmp_path, capsys):
    """Records beyond data.items, and some that are too long, of which each process sees its share."""
    folder = str(write_uneven_records(tmp_path / "records"))
    changes = {"data__folder": folder, "data__max_length": 100, "data__skip_longer": True}
    alone, found = setups(monkeypatch, tmp_path, tiny_reasoner(), **changes)
    assert 0 < alone.num_skipped < 7 and {one.num_skipped for one in found} == {alone.num_skipped}
    assert {len(one.rows["train"]) for one in found} == {7 - alone.num_skipped}
    assert capsys.readouterr().out.count("has more than 7 training records") == 1 + WORLD


def test_examples_come_back_as_they_were(tmp_path):
    """Images that an example and its teacher's share, and sketches without an image."""
    image = PILImage.effect_noise((5, 3), 80).convert("RGB")
    row = replace(example(), images=[image], sketches=[None, image], teacher_example=replace(example(), images=[image]))
    shared_examples.write([(5, row)], tmp_path / "0")
    ((number, back),) = shared_examples.read(tmp_path / "0")
    assert number == 5 and same(back, row)
    assert back.images[0] is back.sketches[1] is back.teacher_example.images[0], "stored once"


def test_a_fault_in_the_share_of_one_process_ends_all(monkeypatch, tmp_path):
    """Each with the sentence that names the trace."""

    def work(peers):
        made = recipe(tmp_path / "run", data__items=3, data__val_items=0)
        reasoner = tiny_reasoner()
        found = TraceData(made.data, reasoner, methods.objective_of(reasoner), "mixed", 0, True, peers=peers)
        found.max_length = 20 if peers.rank == 1 else 10_000
        with pytest.raises(ValueError, match=r"0000001' has .* positions"):
            found.setup()
        return True

    assert all(together(work, tmp_path / "shared" / "0"))


def example():
    return EncodedExample(
        ids=[1, 2], token_type=[0, 0], loss_weight=[0.0, 0.1], spans=[(0, 1, 2)], boxes=[(-1, 0.0, 0.0, 1.0, 1.0)]
    )


def test_a_full_disk_ends_all_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", str(WORLD))
    save_file = shared_examples.save_file

    def full(tensors, path):
        if path.stem == "1":
            raise SafetensorError("No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(shared_examples, "save_file", full)

    def work(peers):
        with pytest.raises(OSError, match="No space left"):
            share([(peers.rank, example())], peers)
        return True

    assert all(together(work, tmp_path / "shared" / "0"))


def test_files_stay_for_other_machines_until_all_have_ended(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", str(WORLD))

    def work(peers):
        found = share([(peers.rank, example())], peers)
        is_there = peers.folder.exists()
        shared_examples.release(peers)
        return len(found), is_there

    assert together(work, tmp_path / "shared" / "0") == [(WORLD, True)] * WORLD and not (tmp_path / "shared").exists()

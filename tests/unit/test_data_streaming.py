"""Streams of packed sets: no item lost or doubled, orders that (seed, epoch) fix, and a place to go on from."""

import json
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from test_data_packed import FORMS, example
from tiny_runs import change_error, recipe, short, tiny_checkpoint
from torch.utils.data import DataLoader

from latent_reason import checkpoint
from latent_reason.data import native, packed
from latent_reason.data.errors import DataError
from latent_reason.data.streaming import Stream
from latent_reason.tasks import make
from train import sft
from train.data import TraceData
from train.trainer import make_run_folder

pytest.importorskip("datasets")
ITEMS = 23


def name(trace):
    return trace.id


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """``folders(form, shards)``: 23 items for training in so many shards, and 2 held out."""
    place = tmp_path_factory.mktemp("packed")

    def folder(form, shards):
        target = place / f"{form}-{shards}"
        if not target.exists():
            traces = [example(i) for i in range(ITEMS)] + [example(i, "val") for i in (ITEMS, ITEMS + 1)]
            packed.write(traces, target, form, shard_items=-(-ITEMS // shards))
        return target

    return folder


@pytest.mark.parametrize(
    "shards, world, workers", [(1, 1, 0), (1, 2, 2), (2, 3, 0), (3, 2, 2), (4, 2, 2), (6, 3, 1), (2, 3, 2), (23, 5, 0)]
)
def test_no_item_is_lost_or_doubled(folders, shards, world, workers):
    folder, found = folders("tar", shards), Counter()
    for rank in range(world):
        stream = Stream(folder, rank=rank, world=world, epochs=1, make=name)
        got = [id for batch in DataLoader(stream, 4, num_workers=workers, collate_fn=list) for id in batch]
        assert got, "every process has something to do"
        found.update(got)
    assert found == {f"t-{i}": 1 for i in range(ITEMS)}


@pytest.mark.parametrize("form", FORMS)
def test_the_order_is_a_function_of_seed_and_epoch(folders, form):
    def order(**options):
        return list(Stream(folders(form, 3), epochs=2, make=name, **options))

    first = order()
    assert first == order() and first != order(seed=1)
    one, two = first[:ITEMS], first[ITEMS:]
    assert one != two and sorted(one) == sorted(two) == sorted(f"t-{i}" for i in range(ITEMS))
    assert one != sorted(one, key=lambda id: int(id[2:])), "items of a shard are mixed"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_streamed_is_what_is_read(folders, form):
    read = {t.id: t for t in native.read(folders(form, 3))}
    assert all(trace == read[trace.id] for trace in Stream(folders(form, 3), epochs=1))
    assert {trace.id for trace in Stream(folders(form, 3), "val", epochs=1)} == {"t-23", "t-24"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank, world", [(0, 1), (1, 2), (2, 3)])
def test_a_stream_goes_on_where_it_stopped(folders, form, rank, world):
    made = partial(Stream, folders(form, 4), rank=rank, world=world, epochs=2, make=name)
    whole = list(made())
    for stop in (0, 1, 6, len(whole) // 2, len(whole) // 2 + 2, len(whole)):
        stream = made()
        rows = iter(stream)
        before = [next(rows) for _ in range(stop)]
        state = json.loads(json.dumps(stream.state_dict()))
        later = made()
        later.load_state_dict(state)
        assert later.state_dict()["epoch"] == state["epoch"]
        assert before + list(later) == whole


def test_a_stream_without_an_end_goes_through_epoch_after_epoch(folders):
    rows = iter(Stream(folders("tar", 2), make=name))
    found = Counter(next(rows) for _ in range(3 * ITEMS))
    assert set(found.values()) == {3}


def test_what_cannot_be_streamed_is_one_sentence(folders, tmp_path):
    native.write([example(0)], tmp_path / "files")
    with pytest.raises(ValueError, match=r"has no shards of the split 'train'. Create them with: python -m"):
        Stream(tmp_path / "files")
    with pytest.raises(ValueError, match=r"has no shards of the split 'test'"):
        Stream(folders("tar", 1), "test")
    with pytest.raises(ValueError, match=r"fewer items of the split 'val' than the 3 processes"):
        Stream(folders("tar", 1), "val", world=3)


def test_damage_is_named_in_the_first_epoch(tmp_path):
    folder = packed.write(map(example, range(4)), tmp_path / "d", "tar", shard_items=2)
    shard = folder / "train-00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b"Look.", b"Lurk."))
    with pytest.raises(DataError, match=r"train-00001.tar: SHA-256 differs from dataset.json. Copy it again."):
        list(Stream(folder, epochs=1))
    shard.write_bytes(whole.replace(b'"mode":"mixed"', b'"mode":"xixed"'))
    Path(folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"train-00001.tar:[01]: mode: 'xixed' is no mode."):
        list(Stream(folder, epochs=1))


def test_items_of_another_split_are_not_trained_on(tmp_path):
    packed.write([example(0, "val")], tmp_path / "d", "tar")
    (tmp_path / "d" / "dataset.json").unlink()
    (tmp_path / "d" / "val-00000.tar").rename(tmp_path / "d" / "train-00000.tar")
    with pytest.raises(DataError, match=r"train-00000.tar:0: split: 'val' in a shard of 'train'. Pack the set again."):
        list(Stream(tmp_path / "d", epochs=1))


def test_without_datasets_it_is_said_what_to_install(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"streaming needs datasets, which is not installed. Install it with: pip"):
        next(iter(Stream(folders("tar", 1))))


def test_items_that_are_skipped_are_not_read(folders):
    made, every = [], list(islice(Stream(folders("tar", 3), make=name), 2 * ITEMS))
    stream = Stream(folders("tar", 3), make=lambda trace: made.append(trace.id) or trace.id)
    stream.skip([ITEMS + 4])
    assert list(islice(stream, 2 * ITEMS)) == [None] * (ITEMS + 4) + every[ITEMS + 4 :] and made == every[ITEMS + 4 :]


# -- training ----------------------------------------------------------------------------------------------------------
def test_a_recipe_trains_from_a_stream(tmp_path, monkeypatch):
    """With and without workers, and a cache, the same items in the same order; held-out items are read as ever."""
    short(monkeypatch, budget=4)
    task = make("frozenlake_plan", level=3)
    traces = [replace(task.trace(task[i], "mixed"), split="train" if i < 14 else "val") for i in range(16)]
    folder = packed.write(traces, tmp_path / "packed", "tar", shard_items=5)
    seen = []

    def spy(self, rows, number):
        seen[-1].append([len(row.ids) for row in rows])
        return training_batch(self, rows, number)

    training_batch = TraceData.training_batch
    monkeypatch.setattr(TraceData, "training_batch", spy)
    found = []
    for workers, cache in ((0, {}), (1, {}), (0, {"data__cache": str(tmp_path / "cache")})):
        seen.append([])
        made = recipe(
            tmp_path / f"run-{len(seen)}",
            init_from=str(tiny_checkpoint()),
            data__folder=str(folder),
            data__streaming=True,
            data__num_workers=workers,
            data__global_batch_size=4,
            optim__max_steps=5,
            **cache,
        )
        found.append(sft.train(made, make_run_folder(made))[0].state_dict())
    assert all(len(batches) >= 5 for batches in seen), "five batches of four go beyond the first epoch"
    assert seen[0][:5] == seen[1][:5] == seen[2][:5], "one more may have been read ahead"
    encode = checkpoint.load(tiny_checkpoint())[0].processor.encode
    lengths = [n for batch in seen[0] for n in batch]
    assert sorted(lengths[:14]) == sorted(len(encode(trace).ids) for trace in traces[:14])
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    start = checkpoint.load(tiny_checkpoint())[0].state_dict()
    assert change_error(found[2], found[0], start) < 0.05, "the cache keeps float16"


def test_what_a_method_cannot_read_is_said_of_a_stream_too(tmp_path):
    task = make("frozenlake_plan", level=3)
    folder = packed.write([task.trace(task[i], "mixed") for i in range(2)], tmp_path / "packed", "tar")
    made = recipe(tmp_path / "run", "direct", data__folder=str(folder), data__streaming=True, data__val_items=0)
    with pytest.raises(ValueError, match=r"contains a sketch, but method 'direct' has no latent head"):
        sft.train(made, make_run_folder(made))

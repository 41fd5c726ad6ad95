"""What eyes saw, on disk: equal to looking again, found only by the same eye and pixels, safe from damage."""

import copy
import json
import os
import re
import shutil
from multiprocessing import get_context

import pytest
import torch
from PIL import Image as PILImage
from tiny_runs import change_error, command, recipe, short, tiny_checkpoint, untrained

from latent_reason import checkpoint, methods
from latent_reason.contracts.closeness import relative_error
from latent_reason.model.backbones.encoders import load_encoder
from latent_reason.model.processor import CachedFeatures
from train import sft
from train.data import TraceData
from train.feature_cache import DiskCache, encoder_hash, with_features
from train.trainer import make_run_folder

ITEMS = 12


@pytest.fixture(scope="module")
def reasoner():
    return untrained()[0]


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said):
    """``cache()``: what a process of its own would have."""
    return lambda most=2**30: DiskCache(tmp_path / "cache", most, said.append)


@pytest.fixture(scope="module")
def encoded(reasoner):
    """``encoded()``: rows of the same few traces, their pictures not yet looked at."""
    data = TraceData(
        recipe(None, data__items=ITEMS).data, reasoner, methods.objective_of(reasoner), "mixed", 0, frozen_vision=False
    )
    data.setup()
    return lambda: [copy.copy(row) for row in copy.deepcopy(data.rows["train"])]


def features(rows):
    return [f for row in rows for f in row.image_features + row.sketch_features]


def test_what_is_cached_is_what_is_seen_in_bfloat16(reasoner, encoded, cache):
    plain, first, second = encoded(), encoded(), encoded()
    by_hand = {
        f"{name}_features": [t.bfloat16() for t in eye([p for row in plain for p in getattr(row, plural)])]
        for name, plural, eye in (
            ("image", "images", lambda ps: reasoner.backbone.image_embeddings(reasoner.backbone.preprocess_images(ps))),
            (
                "sketch",
                "sketches",
                lambda ps: reasoner.target.encode_images(reasoner.processor.preprocess_sketches(ps)),
            ),
        )
    }
    writing, reading = cache(), cache()
    first = with_features(first, reasoner, writing)
    writing.flush()
    second = with_features(second, reasoner, reading)
    for name, wanted in by_hand.items():
        for rows in (first, second):
            got = [f for row in rows for f in getattr(row, name)]
            assert all(isinstance(f, CachedFeatures) for f in got)
            off = [relative_error(f.features, t) for f, t in zip(got, wanted, strict=True)]
            assert max(off) < torch.finfo(torch.bfloat16).eps
    assert all(torch.equal(a.grid, b.grid) for a, b in zip(features(first), features(second), strict=True))
    assert (writing.hits, reading.misses) == (0, 0) and reading.hits == len(features(second))


def test_a_second_run_looks_at_nothing(reasoner, encoded, cache, monkeypatch):
    writing = cache()
    with_features(encoded(), reasoner, writing)
    writing.flush()
    monkeypatch.setattr(type(reasoner.backbone), "encode_pixels", lambda *args: pytest.fail("an eye was opened"))
    monkeypatch.setattr(
        type(reasoner.backbone),
        "preprocess_images",
        lambda *args, **given: pytest.fail("a picture was prepared for it"),
    )
    with_features(encoded(), reasoner, cache())


def test_runs_with_a_cold_a_warm_and_a_full_cache_learn_the_same(tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=4)

    def trained(name, **changes):
        changes = {"data__cache": str(tmp_path / "cache")} | changes
        made = recipe(
            tmp_path / name, init_from=str(tiny_checkpoint()), data__items=ITEMS, optim__max_steps=2, **changes
        )
        model, _ = sft.train(made, make_run_folder(made))
        printed = capsys.readouterr().out
        return {name: t.clone() for name, t in model.state_dict().items()}, " ".join(printed.split())

    cold, said = trained("cold")
    assert " 0 of " in said
    warm, said = trained("warm")
    hits, images = re.search(r"([\d,]+) of ([\d,]+) images were read from data.cache", said).groups()
    assert hits == images != "0"
    full, said = trained("full", data__cache=str(tmp_path / "other"), data__cache_gb=1e-9)
    assert "data.cache_gb" in said and not list((tmp_path / "other").rglob("*.safetensors"))
    assert all(torch.equal(t, warm[name]) for name, t in cold.items())
    plain, _ = trained("plain", data__cache=None)
    start = checkpoint.load(tiny_checkpoint())[0].state_dict()
    for other in (full, plain):  # these images were encoded in other batches, and memory keeps float16
        assert change_error(other, cold, start) < 0.01
    _, said = trained("coarse", data__cache_dtype="bfloat16")
    assert " 0 of " in said, "nothing of another precision is found"


@pytest.mark.parametrize("name", ["images", "sketches"])
def test_another_eye_has_another_hash(reasoner, name):
    first = encoder_hash(reasoner, name)
    assert first == encoder_hash(untrained()[0], name), "in every process"
    other = copy.deepcopy(reasoner)
    with torch.no_grad():
        other.backbone.vision_parameters[0].flatten()[0] += 1
    assert encoder_hash(other, name) != first, "weights"
    other = copy.deepcopy(reasoner)
    other.backbone.image_processor.do_normalize = not other.backbone.image_processor.do_normalize
    assert encoder_hash(other, name) != first, "settings of the processor"
    other = copy.deepcopy(reasoner)
    other.backbone.model.bfloat16()
    assert encoder_hash(other, name) != first, "dtype"
    other = copy.deepcopy(reasoner)
    with torch.no_grad():
        other.backbone.model.lm_head.weight += 1
        other.head.load_state_dict({n: t + 1 for n, t in other.head.state_dict().items()})
    assert encoder_hash(other, name) == first, "what comes behind the eye does not matter"


def test_targets_that_look_in_their_own_way_have_hashes_of_their_own(reasoner):
    backbone, hashes = reasoner.backbone, {encoder_hash(reasoner, "sketches")}
    for method, options in (("swimbird", {"k": 2}), ("swimbird", {"k": 3}), ("skila", {}), ("latent_sketchpad", {})):
        hashes.add(encoder_hash(methods.build_method(method, copy.deepcopy(backbone), **options), "sketches"))
    assert len(hashes) == 5
    skila = methods.build_method("skila", copy.deepcopy(backbone))
    skila.target._encoder[0] = load_encoder()
    same = encoder_hash(skila, "sketches")
    with torch.no_grad():
        next(skila.target.encoder.model.parameters()).flatten()[0] += 1
    assert same in hashes and encoder_hash(skila, "sketches") != same


def test_another_picture_is_never_found(reasoner, cache):
    image = PILImage.new("RGB", (64, 64), "red")
    kept = cache()
    kept.put(reasoner, "images", image, CachedFeatures(torch.tensor([1, 2, 2]), torch.ones(1, 3).bfloat16()))
    changed = image.copy()
    changed.putpixel((63, 63), (255, 0, 1))
    for other in (changed, image.resize((32, 128)), image.convert("L")):
        assert not kept.get(reasoner, "images", [other]), "not there"
    assert not kept.get(reasoner, "sketches", [image]), "nor for another eye"
    assert kept.get(reasoner, "images", [image]).keys() == {id(image)}, "before it is written, too"


def shards(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),  # a bit of a tensor, which the format itself does not notice
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\xff" * 64,
    ],
)
def test_a_damaged_shard_is_named_and_made_again(reasoner, encoded, cache, said, tmp_path, damage):
    first = cache()
    with_features(encoded(), reasoner, first)
    first.flush()
    whole = {file: file.read_bytes() for file in shards(tmp_path)}
    victim = next(iter(whole))
    victim.write_bytes(damage(whole[victim]))
    rows, second = encoded(), cache()
    with_features(rows, reasoner, second)
    assert said == [f"'{victim}' is damaged. It is removed, and its images are encoded again."]
    assert second.misses and second.hits
    second.flush()
    assert {file: file.read_bytes() for file in shards(tmp_path)} == whole, "the same bytes again"


OTHERS = {"newest": "0" * 32, "older": "1" * 32, "oldest": "2" * 32}


def test_room_is_made_by_other_encoders_alone(reasoner, encoded, cache, said, tmp_path):
    first = cache()
    with_features(encoded(), reasoner, first)
    first.flush()
    own, size = shards(tmp_path), sum(file.stat().st_size for file in shards(tmp_path))
    for age, name in enumerate(OTHERS.values()):
        file = first.folder / f"{name}-bfloat16" / f"{name}.safetensors"
        file.parent.mkdir()
        file.write_bytes(b"x" * 1000)
        os.utime(file, (1e9 - age, 1e9 - age))
    second = cache(most=size + 2500)
    second.put(
        reasoner, "images", PILImage.new("RGB", (9, 9)), CachedFeatures(torch.ones(3), torch.ones(1, 500).bfloat16())
    )
    second.flush()
    left = shards(tmp_path)
    assert [file.stem for file in left if file not in own and file.stem in OTHERS.values()] == [OTHERS["newest"]], (
        "those unused for longest went"
    )
    assert set(own) < set(left) and sum(file.stat().st_size for file in left) <= size + 2500
    third = cache(most=size // 2)
    third.put(
        reasoner, "images", PILImage.new("RGB", (9, 8)), CachedFeatures(torch.ones(3), torch.ones(1, 500).bfloat16())
    )
    third.flush()
    assert shards(tmp_path) == left and "No more are stored there" in said[0], "what is in use stays"


def small(kept, reasoner, number=0):
    """Store one small image."""
    image = PILImage.new("RGB", (9, 9), (number,) * 3)
    kept.put(reasoner, "images", image, CachedFeatures(torch.ones(3), torch.ones(1, 500).bfloat16()))
    kept.flush()
    return image


def test_files_of_others_are_neither_counted_nor_removed(reasoner, cache, said, tmp_path):
    """A folder of models, and names in the cache's own folder that it did not write: wrong names, links."""
    models, outside = tmp_path / "cache" / "my-model", tmp_path / "outside"
    kept = cache(most=3000)
    own = kept.folder
    name, shard = f"{'3' * 32}-bfloat16", f"{'3' * 32}.safetensors"
    good = [
        models / "model.safetensors",
        models.parent / name / shard,  # as an older version named them, beside the own folder
        own / "model.safetensors",
        own / "mine" / shard,
        own / name / "model.safetensors",
        outside / shard,
        own / name / f".{shard}.00000000.unfinished",  # another process writes it now
    ]
    stale = own / name / f".{shard}.11111111.unfinished"
    for file in [*good, stale]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 4000)
    os.utime(stale, (1e9, 1e9))
    (own / f"{'4' * 32}-bfloat16").symlink_to(outside)
    (own / name / shard).symlink_to(outside / shard)
    small(kept, reasoner)
    assert not said and all(file.read_bytes() == b"x" * 4000 for file in good) and not stale.exists()
    assert len([file for file in shards(tmp_path) if file not in good and not file.is_symlink()]) == 1
    assert (own / name / shard).is_symlink() and json.loads((own / "features.json").read_text())["format"] == 1


def test_a_folder_of_something_else_is_no_cache(reasoner, cache, tmp_path):
    own = tmp_path / "cache" / "latent_reason_features"
    own.mkdir(parents=True)
    (own / "weights.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is not a cache of features: it holds 'weights\.bin', but no features\.json"):
        cache()
    (own / "weights.bin").rename(tmp_path / "weights.bin")
    encoder = own / cache()._encoder(reasoner, "images")
    encoder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is a link"):
        small(cache(), reasoner)
    own.rename(tmp_path / "moved")
    own.symlink_to(tmp_path / "moved")
    with pytest.raises(ValueError, match="is a link"):
        cache()


def test_caches_of_two_processes_take_turns(reasoner, cache, said, tmp_path):
    """One removes what the other has open; both write the same shard; the folder goes away in between."""
    first, second, other = cache(), cache(), copy.deepcopy(reasoner)
    image = small(first, reasoner)
    small(second, reasoner)
    [shard] = shards(tmp_path)
    reader = cache()
    assert reader.get(reasoner, "images", [image]), "opened"
    other.backbone.model.bfloat16()
    small(cache(most=shard.stat().st_size), other)
    assert not shard.exists() and len(shards(tmp_path)) == 1 and not said
    assert reader.get(reasoner, "images", [image]), "still open"
    assert not cache().get(reasoner, "images", [image])
    shutil.rmtree(tmp_path / "cache")
    small(second, reasoner, 1)
    assert len(shards(tmp_path)) == 1 and cache().get(reasoner, "images", [image]) == {}


def write(folder, number):
    """One of several processes that see and keep the same pictures at once."""
    torch.set_num_threads(1)
    model, _ = checkpoint.load(tiny_checkpoint())
    kept = DiskCache(folder, 2**30, print)
    for i in range(10):
        kept.put(
            model,
            "images",
            PILImage.new("RGB", (8, 8), (i, i, i)),
            CachedFeatures(torch.tensor([1, i, i]), torch.full((2, 4), i).bfloat16()),
        )
        if i % 3 == number:
            kept.flush()
    kept.flush()


def test_several_processes_share_a_cache(tmp_path):
    tiny_checkpoint()
    context = get_context("fork")
    processes = [context.Process(target=write, args=(tmp_path / "cache", n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    model, _ = checkpoint.load(tiny_checkpoint())
    kept, images = (
        DiskCache(tmp_path / "cache", 2**30, pytest.fail),
        [PILImage.new("RGB", (8, 8), (i,) * 3) for i in range(10)],
    )
    found = kept.get(model, "images", images)
    assert [int(found[id(image)].features[0, 0]) for image in images] == list(range(10))
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.name.startswith(".")], "nothing half-written"


def test_a_shard_that_another_process_removed_is_a_miss(reasoner, encoded, cache, said, tmp_path):
    first, second = cache(), cache()
    with_features(encoded(), reasoner, first)
    first.flush()
    second._get(second._encoder(reasoner, "images"), "")
    for file in shards(tmp_path):
        file.unlink()
    rows = encoded()
    with_features(rows, reasoner, second)
    assert second.misses == len([p for row in rows for p in row.images + row.sketches]) and not said


def test_what_cannot_be_cached_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"data\.cache requires a frozen vision encoder"):
        model = untrained()[0]
        data = recipe(None, data__cache=str(tmp_path)).data
        TraceData(data, model, methods.objective_of(model), "mixed", 0, frozen_vision=False)
    for words, sentence in (
        (("--data.cache_gb", "0"), "data.cache_gb=0.0: must be more than 0"),
        (("--data.cache_dtype", "int8"), "data.cache_dtype: expected one of float16, bfloat16; got int8"),
        (("--data.streaming", "true"), "data.streaming reads the shards of a folder"),
        (("--data.num_workers", "2"), "data.num_workers needs data.streaming"),
    ):
        assert sentence in command(monkeypatch, sft, *words)

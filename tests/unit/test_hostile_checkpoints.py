"""Checkpoints of strangers: each row damages a small good one, and loading it ends with a sentence.

A row is (kind, what it does, how, words of the sentence). Memory is limited while they load, so that a size that is
believed fails the test.
"""

from __future__ import annotations

import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hostile.checkpoints import (
    ADAPTER,
    CARD,
    DECODER,
    HUB,
    OWN,
    PROCESSOR,
    ROOM,
    ROWS,
    WHOLE,
    beside_encoder,
    copy_of,
    in_config,
    poison,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_runs import untrained

from latent_reason import LatentReasonForConditionalGeneration, checkpoint


# -- tests -------------------------------------------------------------------------------------------------------------
@contextmanager
def little_memory():
    """A block in which the process may take no more than ``ROOM`` beyond what it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(folder: Path) -> str:
    """The sentence with which loading ends."""
    with little_memory(), pytest.raises((ValueError, FileNotFoundError)) as error:
        checkpoint.load(folder, device="cpu")
    return str(error.value)


@pytest.mark.parametrize(("kind", "what", "damage", "words"), ROWS, ids=[f"{kind}: {what}" for kind, what, *_ in ROWS])
def test_a_hostile_checkpoint_is_refused_in_a_sentence(kind, what, damage, words, tmp_path, monkeypatch):
    folder = copy_of(kind, tmp_path / kind)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / HUB))
    damage(folder)
    said = refused(folder)
    assert all(word in said for word in words), said
    assert "\n" not in said and len(said) < 700 and kind in said, said


def test_the_table_is_whole():
    assert len({(kind, what) for kind, what, *_ in ROWS}) == len(ROWS) >= 100
    assert all(what.endswith(".") and what[0].isupper() and all(words) for _, what, _, words in ROWS)


@pytest.mark.parametrize("kind", ["checkpoint", "export", "adapter", "hub", "encoder"])
def test_a_good_checkpoint_loads_in_little_memory(kind, tmp_path, monkeypatch):
    folder = copy_of(kind, tmp_path / kind)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / HUB))
    if kind == "encoder":
        beside_encoder("hidden_size", value=64)(folder)
    with little_memory():
        assert checkpoint.load(folder, device="cpu")[0].method.name in ("modal_mixed", "skila")


def test_an_exported_model_by_its_hub_name_is_held_against_its_weights(tmp_path, monkeypatch):
    """And loads where they fit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = copy_of("export", tmp_path / "models--me--lake" / "snapshots" / ("a" * 40))
    write(tmp_path / "models--me--lake" / "refs" / "main", "a" * 40)
    with little_memory():
        model = LatentReasonForConditionalGeneration.from_pretrained("me/lake")
    assert model.reasoner.method.name == "modal_mixed"
    in_config("text_config", "hidden_size", value=10**9)(snapshot)
    with little_memory(), pytest.raises(ValueError, match=r"describes .* weights, but the files beside it hold"):
        LatentReasonForConditionalGeneration.from_pretrained("me/lake")


@pytest.mark.parametrize("kind", ["checkpoint", "export"])
def test_wishes_of_a_configuration_are_not_followed(kind, tmp_path):
    """transformers would download a kernel, and read weights elsewhere."""
    folder = copy_of(kind, tmp_path / kind)
    for path in (("_attn_implementation",), ("attn_implementation",), ("text_config", "attn_implementation")):
        in_config(*path, value="kernels-community/flash-attn")(folder)
    in_config("transformers_weights", value="../evil.safetensors")(folder)
    reasoner, _ = checkpoint.load(folder, device="cpu")
    assert reasoner.backbone.attn_implementation == "sdpa"
    config = reasoner.backbone.model.config
    assert not hasattr(config, "transformers_weights") and config.text_config._attn_implementation == "sdpa"


def test_what_is_not_finite_is_not_saved(tmp_path):
    for part in ("head", "decoder"):
        reasoner, decoder = untrained()
        with torch.no_grad():
            poison(reasoner.head.net[0].bias if part == "head" else decoder.where.bias)
        with pytest.raises(
            ValueError, match=r"was not saved, as it would hold weights that are not finite: .*bias has NaN"
        ):
            checkpoint.save(reasoner, tmp_path / "new", decoder=decoder)
        assert not list(tmp_path.iterdir())


# -- fuzzing -----------------------------------------------------------------------------------------------------------
FUZZED = {
    "checkpoint": [
        CARD,
        "backbone/config.json",
        "backbone/tokenizer_config.json",
        f"backbone/{PROCESSOR}",
        OWN,
        DECODER,
    ],
    "export": [CARD, "config.json", "processor_config.json", WHOLE, "decoder/config.json"],
    "adapter": ["backbone/adapter_config.json", ADAPTER, "backbone/base/config.json"],
}
FILES = [(kind, name) for kind, names in FUZZED.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), FILES)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes_load_or_end_in_a_sentence(kind, name, data, tmp_path_factory):
    """Bytes of JSON and of headers are changed, or the file is cut: never another error, never without an end."""
    folder = copy_of(kind, tmp_path_factory.mktemp("fuzz") / kind)
    content = bytearray((folder / name).read_bytes())
    end = min(len(content), 4000)  # headers stand first
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    write(folder / name, bytes(content[: data.draw(st.sampled_from([len(content), end, end // 2, 9]))]))
    try:
        with little_memory():
            checkpoint.read_config(folder)
            checkpoint.load(folder, device="cpu")
    except (ValueError, FileNotFoundError) as error:
        assert str(error) and "\n" not in str(error) and kind in str(error), error
    finally:
        shutil.rmtree(folder)

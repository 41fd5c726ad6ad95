"""Recipes and checkpoints of the smallest size, shared by the tests of training, checkpoints and command lines."""

from __future__ import annotations

import atexit
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import torch
from PIL import Image as PILImage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latent_reason import checkpoint, methods, tasks
from latent_reason.contracts.closeness import arithmetic
from latent_reason.data import native
from latent_reason.decoding import queue
from latent_reason.model import backbones
from latent_reason.visualization.sketch_decoder import SketchDecoder
from train.config import RLTrainingConfig, SFTConfig, load
from train.config.keys import hints_of
from train.config.parsing import Config
from train.rl.module import RLModule

ROOT = Path(__file__).parent.parent
WORDS = ["user assistant Go Move Take U D L R. row 1 column 2 3 \\boxed{U,D} the elf is at map F S H E G"]
BACKBONE = {"width": 32, "layers": 1, "heads": 2, "vision_width": 32, "corpus": WORDS}
METHOD = {"modal_mixed": {"k": 4, "head": "mlp", "head_options": {"hidden": 32}}, "text_cot": {}, "direct": {}}


def recipe(folder: Path, method: str = "modal_mixed", config: type[Config] = SFTConfig, **changes) -> Config:
    """A config of a few steps on eight rows a batch; ``changes`` are dotted keys with ``__``. Of what is set here, it
    gets the keys that the config has."""
    small = {
        "optim__max_steps": 3,
        "optim__warmup_steps": 2,
        "data__levels": [3],
        "data__items": 24,
        "data__val_items": 4,
        "data__global_batch_size": 8,
        "accelerator": "cpu",
        "logging_steps": 1,
        "backbone__options": BACKBONE,
        "method__name": method,
        "method__options": METHOD[method],
        "run_name": str(folder),
    }
    known = {key.replace(".", "__") for key in hints_of(config)}
    return load(EMPTY, config, **{key: value for key, value in small.items() if key in known} | changes)


def write_uneven_records(folder: Path, val: int = 0) -> Path:
    """A folder of eight records with many and with few taught tokens, some without a sketch, and one with two; and of
    ``val`` held-out ones."""
    task = tasks.make("frozenlake_plan", split="train", level=(3, 4), chunk=(1, 2))
    modes = ["text", "mixed", "direct", "mixed", "mixed", "direct", "text", "mixed"]
    held_out = tasks.make("frozenlake_plan", split="val", level=(3, 4), chunk=(1, 2))
    traces = [task.trace(task[i], mode) for i, mode in enumerate(modes)]
    native.write(traces + [held_out.trace(held_out[i], mode) for i, mode in enumerate(modes[:val])], folder)
    return folder


def events(folder: Path) -> EventAccumulator:
    """What a run has logged."""
    return EventAccumulator(str(folder / "logs"), size_guidance={"scalars": 0}).Reload()


@cache
def place() -> Path:
    """A folder that goes away with the process."""
    folder = Path(tempfile.mkdtemp(prefix="latent_reason-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


EMPTY = place() / "empty.yaml"
EMPTY.write_text("{}\n")


def untrained(method: str = "modal_mixed", **options):
    """(reasoner, decoder) of the smallest size, with random weights that the seed fixes. ``options`` are more of the
    method."""
    torch.manual_seed(0)
    reasoner = methods.build_method(method, backbones.load_backbone("tiny", **BACKBONE), **METHOD[method] | options)
    if reasoner.target is not None:
        reasoner.target.standardizer.fitted.fill_(True)
    return reasoner.eval(), SketchDecoder(latent=32, width=32)


def tiny_checkpoint(method: str = "modal_mixed") -> Path:
    """An untrained checkpoint in a folder, for reading only."""
    return _checkpoint(method)


@cache
def _checkpoint(method: str) -> Path:
    notes = {
        "seed": 0,
        "steps": 0,
        "batch_size": 8,
        "data": {"task": "frozenlake_plan", "levels": [3, 4], "options": {"chunk": [1, 1]}},
    }
    with arithmetic("float32"):
        reasoner, decoder = untrained(method)
        folder = checkpoint.save(
            reasoner, place() / method, decoder=decoder if reasoner.can_sketch else None, notes=notes
        )
    if reasoner.can_sketch:
        PILImage.new("RGB", (8, 8)).save(
            folder / "sketches.png"
        )  # or each export would draw some, up to the last token
    return folder


def tiny_reasoner(method: str = "modal_mixed"):
    """A reasoner loaded from there, in the arithmetic of the test. (safetensors cannot read while float32 is replaced.)"""
    dtype = torch.get_default_dtype()
    with arithmetic("float32"):
        reasoner, _ = checkpoint.load(tiny_checkpoint(method))
    return reasoner.to(dtype)


def long(group) -> list[float]:
    """A reward that an untrained model earns: how much it wrote; nothing to groups whose item has an even index."""
    return [float(len(one.text)) * (one.item.index % 2) for one in group]


def short(monkeypatch, budget: int = 24) -> None:
    """Untrained models never stop by themselves: cut what is decoded, and let a method that sketches begin with a
    sketch."""

    def decode_requests(reasoner, requests, config, num_slots):
        requests = [replace(request, max_new_tokens=budget) for request in requests]
        forced = any(request.forced_tokens for request in requests)
        if reasoner.can_sketch and config.latent_mode == "learned" and not forced:
            config = replace(config, latent_mode="first")
        return queue.decode_requests(reasoner, requests, config, num_slots)

    for module in ("decoding.items", "decoding.strategies"):
        monkeypatch.setattr(f"latent_reason.{module}.decode_requests", decode_requests)


def shorten_snippet(folder: Path) -> None:
    """Cut what the snippet in the README of an export writes."""
    readme = (folder / "README.md").read_text()
    shorter, count = re.subn(r"(generate_interleaved\(.*)\)$", r"\1, max_new_tokens=16)", readme, flags=re.M)
    assert count
    (folder / "README.md").write_text(shorter)


def command(monkeypatch, module, *words) -> str | None:
    """The sentence with which ``python -m train.NAME`` ends, or None: what it exits with, or what it wrote to stderr
    before it exited with 2, the status of a wrong command line."""
    monkeypatch.setattr(sys, "argv", ["train", *words])
    stderr = StringIO()
    try:
        with redirect_stderr(stderr):
            module.main()
    except SystemExit as ended:
        return stderr.getvalue().removesuffix("\n") if ended.code == 2 else ended.code
    return None


def rolled(module, items):
    """Rollouts for these items, with what each of their actions weighs."""
    return module.set_weights([module.sampler.sample(items)])[0]


def change_error(found: dict, wanted: dict, start: dict) -> float:
    """By how much two runs from one start differ, relative to what they changed.

    The largest difference of a weight matrix or vector over the norm of all changes. AdamW divides a gradient by its
    size. So where a gradient is zero but for rounding, such as that of a key's bias, two runs differ by noise. This is
    a small part of all changes, and a bug is a large one.
    """
    found, wanted, start = (
        {name: value.detach().double() for name, value in state.items()} for state in (found, wanted, start)
    )
    size = torch.stack([(wanted[name] - start[name]).norm() for name in start if name in wanted]).norm()
    return max(float((found[name] - value).norm() / size) for name, value in wanted.items())


def rewarded(folder: Path, **changes) -> RLTrainingConfig:
    """A run of reinforcement learning, of two steps from an untrained checkpoint."""
    small = {
        "init_from": str(tiny_checkpoint()),
        "rl__num_generations": 2,
        "data__global_batch_size": 2,
        "rl__max_completion_length": 8,
        "optim__max_steps": 2,
        "optim__name": "adamw",
    }
    return recipe(folder, config=RLTrainingConfig, **small | changes)


def rl_module(level: int | tuple[int, ...]) -> RLModule:
    """A module of reinforcement learning on boards of a level, outside of a run. The reward is the length of a text."""
    made = recipe(
        "unused",
        config=RLTrainingConfig,
        init_from=str(tiny_checkpoint()),
        rl__num_generations=4,
        data__global_batch_size=2,
        rl__max_completion_length=12,
    )
    module = RLModule(tiny_reasoner(), tasks.make("frozenlake_plan", level=level), made)
    module.log_dict = module.log = lambda *args, **options: None
    module.sampler.rewards = {"long": (lambda group: [float(len(one.text)) for one in group], 1.0)}
    return module

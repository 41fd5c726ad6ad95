"""A run that was stopped, for tests: the folder that a run leaves whose process was killed after one of its saves."""

from __future__ import annotations

import json
import shutil
from hashlib import file_digest
from pathlib import Path

import torch
from safetensors.torch import load_file


def stopped_copy(run: Path, copy: Path, step: int) -> Path:
    """A copy of a run that kept all its states, as if it had been killed after the save of ``step``, in its last stage."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("logs", "not-finite"))
    shutil.rmtree(copy / "model")
    for state in (copy / "state").iterdir():
        if int(state.name.removeprefix("step-")) > step:
            shutil.rmtree(state)
    assert (copy / "state" / f"step-{step:08d}").is_dir()
    return copy


def weights_of(run: Path) -> dict[str, str]:
    """Checksums of all weights of the model of a run, by file."""
    found = {}
    for file in sorted((run / "model").rglob("*.safetensors")):
        with open(file, "rb") as handle:
            found[file.relative_to(run).as_posix()] = file_digest(handle, "sha256").hexdigest()
    assert found
    return found


def state_of(run: Path, step: int) -> tuple[dict[str, torch.Tensor], dict]:
    """All tensors of a state of a run of one process, and its plain values."""
    path = run / "state" / f"step-{step:08d}"
    tensors = {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}
    return tensors, json.loads(tensors.pop("rank/0").numpy().tobytes())

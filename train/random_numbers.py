"""The random numbers of a process: torch, numpy and Python."""

from __future__ import annotations

import base64
import random
from hashlib import blake2b
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The states of torch, numpy and Python on this process, as plain values."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    state = {
        "torch": _text(torch.get_rng_state()),
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), *rest],
    }
    if torch.cuda.is_available():
        state["cuda"] = _text(torch.cuda.get_rng_state())
    if torch.backends.mps.is_available():
        state["mps"] = _text(torch.mps.get_rng_state())
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Continue with the random numbers of :func:`random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(_bytes(state["cuda"]))
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(_bytes(state["mps"]))


def _text(values: torch.Tensor) -> str:
    return base64.b64encode(values.numpy().tobytes()).decode()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def noise_seed(*numbers: int) -> int:
    """A seed that follows from whole numbers, and is none of theirs: weights are drawn with the seed of the run itself."""
    digest = blake2b(" ".join(map(str, numbers)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")

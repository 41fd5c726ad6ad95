"""Adapter for VLMEvalKit, which has no plug-ins. Add two lines at the end of its vlmeval/config.py:

    from latent_reason.integrations.vlmevalkit import LatentReason
    supported_VLM["latent_reason"] = partial(LatentReason, checkpoint="CHECKPOINT", max_new_tokens=1024)

then run ``python run.py --data BLINK --model latent_reason``. This module does not import VLMEvalKit; it implements the
methods that vlmeval/inference.py calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .answerer import Answerer, options, trace


class LatentReason:
    """``checkpoint`` is a folder. ``boxed``: see :class:`Answerer`. Other arguments are generation arguments."""

    INTERLEAVE = True  # texts and images in any order

    def __init__(self, checkpoint: str, *, device: str | None = None, boxed: bool = False, **generation: Any):
        options(generation)  # raises before the model is loaded
        self.answer, self.generation = Answerer(checkpoint, device=device, boxed=boxed), generation

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """Answer one user turn of ``{"type": "image" | "text", "value": path or text}`` parts. VLMEvalKit does not pass
        an item number, so all items use the same noise seed."""
        chat = [{"role": "user", "content": message}]
        return self.answer([trace(dataset or "message", chat)], [0], self.generation)[0].text

    def generate(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        return self.generate_inner(message, dataset)

    def use_custom_prompt(self, dataset: str) -> bool:
        """False: the prompts of the benchmark are used."""
        return False

    def set_dump_image(self, dump_image) -> None:
        """Not used: only models that build their own prompts need it."""

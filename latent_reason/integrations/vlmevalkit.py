"""A checkpoint of ours as a model of VLMEvalKit, which has no plug-ins. Two lines at the end of its vlmeval/config.py:

    from latent_reason.integrations.vlmevalkit import LatentReason
    supported_VLM["latent_reason"] = partial(LatentReason, checkpoint="CHECKPOINT", max_new_tokens=1024)

then ``python run.py --data BLINK --model latent_reason``. Nothing of VLMEvalKit is imported: the methods that its loop
calls (vlmeval/inference.py) are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .answerer import Answerer, options, trace


class LatentReason:
    """``checkpoint`` is a folder; ``boxed`` as in :class:`Answerer`, all else are generation arguments."""

    INTERLEAVE = True  # texts and pictures in any order

    def __init__(self, checkpoint: str, *, device: str | None = None, boxed: bool = False, **generation: Any):
        options(generation)  # refused now, not after the model is loaded
        self.answer, self.generation = Answerer(checkpoint, device=device, boxed=boxed), generation

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer to one user turn of ``{"type": "image" | "text", "value": path or words}`` parts. No number of the
        item is given here, so every item draws the same noise."""
        chat = [{"role": "user", "content": message}]
        return self.answer([trace(dataset or "message", chat)], [0], self.generation)[0].text

    def generate(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        return self.generate_inner(message, dataset)

    def use_custom_prompt(self, dataset: str) -> bool:
        """Never: prompts are those of the benchmark."""
        return False

    def set_dump_image(self, dump_image) -> None:
        """For models that build prompts themselves."""

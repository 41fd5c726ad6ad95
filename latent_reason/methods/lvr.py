"""LVR, Latent Visual Reasoning (2509.24251): rebuild the tokens of the region that matters before answering.

Idea: the target is a region of the *input* picture (the ``box`` of a sketch; all of it where there is none), so what a
latent should be is in the context already. Good as the redundant control: here latents cannot carry what is new.

What differs from the released code: training and decoding count alike; START keeps its text loss, so opening is taught;
latent positions hold one placeholder, not sampled ids; regions of more than k tokens are pooled in 2-D.
Defaults: latent weight 0.1, identity head with mse from the paper; decoding closes by the region's count (``count``
fixes it: the paper decodes 4, 8 or 16), by the close token or by ``distance``.
"""

from __future__ import annotations

from dataclasses import replace

from ..model import heads
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import Region
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights
from ..trace import Sketch, Trace

PAPER = "2509.24251"
SUMMARY = "rebuilds the tokens of a region of the input before answering: the redundant control among sketches"
MODE = "mixed"


class Lvr(LatentReasoner):
    def read(self, trace: Trace) -> Trace:
        """The trace with the first sketch alone: a region of the input need not be drawn twice.

        Raises:
            ValueError: a region by a box, while spans close by the whole picture's count.
        """
        *asked, last = trace.messages
        if last.role != "assistant":
            return trace
        first = next((p for p in last.content if isinstance(p, Sketch)), None)
        counted = self.switch.stop == "count" and not self.switch.count
        if first is not None and first.box is not None and counted:
            raise ValueError(
                f"trace '{trace.id}': its region has a number of latents that decoding cannot know. Give "
                "lvr a count, or stop: close with supervise: full."
            )
        content = tuple(p for p in last.content if p is first or not isinstance(p, Sketch))
        return replace(trace, messages=(*asked, replace(last, content=content)))


def build(
    backbone,
    *,
    k: int = 32,
    head: str = "identity",
    head_options: dict | None = None,
    latent_weight: float = 0.1,
    stop: str = "count",
    supervise: str = "none",
    count: int = 0,
    cap: float = 2.0,
    max_spans: int = 1,
    exposure: dict | None = None,
) -> LatentReasoner:
    return Lvr(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=Region(backbone.width, k),
        head=heads.make(head, backbone.width, backbone.width, **(head_options or {})),
        exposure=exposure,
        switch=Switch(count=count, stop=stop, supervise=supervise, cap=cap, max_spans=max_spans),
        weights=Weights(latent=latent_weight),
    )

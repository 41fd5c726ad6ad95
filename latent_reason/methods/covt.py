"""CoVT, Chain-of-Visual-Thought (2511.19418): pad positions whose hidden states must reproduce the maps of vision
experts.

Idea: a span of pads stands before the answer. Nothing is fed back: the pads are learned embeddings. Small decoders must
rebuild expert maps of the image from the hidden states at the pads, so the pads collect what the experts know.

What differs from the released code: its experts (SAM, depth, DINOv2, PiDiNet) are large models. Here they are the edges
of the image (Sobel) and a frozen external encoder behind the same interface. Every pad has an embedding of its own,
whereas the released pads are identical and differ by position only. The span is always present, so no expert block is
skipped, and START, which is forced, has no text loss (``start_loss=True`` gives it one). Users reported that the
released model answers as well without pads: run the probes before using it.
Defaults: 4 pads for edges (L1), 4 for the encoder (MSE, weight 0.5), one attention layer per expert, from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from PIL import Image as PILImage

from ..model.backbones.base import Backbone
from ..model.backbones.encoder_files import Encoder
from ..model.backbones.encoders import load_encoder
from ..model.batch import ImageBatch, MixedBatch
from ..model.heads import PadHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import LatentTarget
from ..objectives.losses import LossWeights, weighted_mean
from ..objectives.objective import Objective, RunOptions, remove_loss
from ..trace import Image, Part, Sketch, Text, Trace
from ..values import Size, Weight

PAPER = "2511.19418"
SUMMARY = "pads before the answer whose hidden states must rebuild expert maps of the image; nothing is fed back"
MODE = "direct"
OLDER = {"start_loss": True}
EDGE_CELL = 8  # side of a cell of the edge map in pixels


def edge_map(image: PILImage.Image, side: int) -> torch.Tensor:
    """(side^2, EDGE_CELL^2) Sobel magnitude of an image in cells, row-major, between 0 and 1."""
    grey = np.asarray(image.convert("L").resize((side * EDGE_CELL, side * EDGE_CELL)), dtype=np.float32) / 255
    p = np.pad(grey, 1, mode="edge")
    smooth = [q[:-2] + 2 * q[1:-1] + q[2:] for q in (p, p.T)]  # along columns, and along rows of the transpose
    across, down = smooth[0][:, 2:] - smooth[0][:, :-2], (smooth[1][:, 2:] - smooth[1][:, :-2]).T
    magnitude = torch.from_numpy(np.sqrt(across**2 + down**2) / 4)
    return rearrange(magnitude, "(h a) (w b) -> (h w) (a b)", a=EDGE_CELL, b=EDGE_CELL)


class ExpertMaps(LatentTarget):
    """Maps of all experts of an image, joined along channels and standardized: (side^2, C)."""

    renderable = False

    def __init__(self, backbone: Backbone, encoder: str, k: int):
        loaded = load_encoder(encoder)
        super().__init__(backbone, EDGE_CELL**2 + loaded.width, k, side=loaded.side)
        self._encoder = [loaded]  # in a list, so that it is no submodule

    @property
    def encoder(self):
        return self._encoder[0]

    def latent_grid(self, height, width, k=None):
        return 1, self.k

    def preprocess_images(self, images: Sequence[PILImage.Image], *, tiled: bool = False) -> ImageBatch:
        edges = torch.stack([edge_map(image, self.encoder.side) for image in images])
        inputs = self.encoder.preprocess_images(list(images))
        return ImageBatch(inputs.grid, torch.cat([edges, torch.stack(self.encoder.encode_images(inputs))], -1))

    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        return list(images.pixels.unbind()) if images.features is None else images.features

    def token_grids(self, images: ImageBatch):
        return [(self.encoder.side, self.encoder.side)] * len(images)

    def statistics_samples(self, batch: MixedBatch):
        assert batch.sketches is not None
        return [(m.float(), (self.standardizer.side,) * 2) for m in self.encode_images(batch.sketches)]

    def forward(self, batch: MixedBatch) -> torch.Tensor:
        assert batch.sketches is not None
        maps, side = torch.stack(self.encode_images(batch.sketches)).float(), self.standardizer.side
        return self.standardizer(maps, torch.tensor([[side, side]], device=maps.device).expand(len(maps), 2))


class CovtObjective(Objective):
    """Trains pads whose states rebuild the expert maps of the last input image."""

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        super().check_trace(model, trace)
        if not any(isinstance(part, Image) for message in trace.messages[:-1] for part in message.content):
            raise ValueError("the question has no image, but method 'covt' rebuilds maps of one. Add an image.")

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace with its pads first, whose target is the last input image, and no other sketch."""
        *earlier, last = trace.messages
        if last.role != "assistant":
            return trace
        images = [p.image for m in earlier for p in m.content if isinstance(p, Image)]
        parts: list[Part] = [Sketch(images[-1], model.switch.count), *(p for p in last.content if isinstance(p, Text))]
        return replace(trace, messages=(*remove_loss(earlier), replace(last, content=tuple(parts))))

    def latent_weight(self, batch):
        return batch.span_weight.sum()

    def latent_loss(self, model, batch, h, z):
        rows, position, _ = batch.latent_slots()
        at_pads, _ = model.head.cast_inputs(h[rows, position + 1], None)  # h is shifted: the state at the pad itself
        return weighted_mean(model.head.maps_loss(at_pads, z), batch.span_weight)


def build_model(
    backbone: Backbone,
    *,
    edge_pads: Size = 4,
    encoder_pads: Size = 4,
    encoder: Encoder = "tiny",
    heads: Size = 4,
    start_loss: bool = False,
) -> LatentReasoner:
    k = edge_pads + encoder_pads
    target = ExpertMaps(backbone, encoder, k)
    channels, cells = [EDGE_CELL**2, target.encoder.width], target.encoder.side**2
    return LatentReasoner(
        backbone,
        target=target,
        head=PadHead(backbone.width, [edge_pads, encoder_pads], channels, [1.0, 0.5], cells, heads),
        switch=Switch(start="first", count=k, open_loss=start_loss),
        follows_target=False,
    )


def build_objective(run: RunOptions | None = None, *, latent_weight: Weight = 1.0) -> CovtObjective:
    return CovtObjective(run, weights=LossWeights(latent=latent_weight), latent_input="blank")

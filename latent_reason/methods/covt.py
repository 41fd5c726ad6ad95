"""CoVT, Chain-of-Visual-Thought (2511.19418): blank positions whose states must reproduce what experts see.

Idea: a span of pads stands before the answer; nothing is fed back, the pads are learned embeddings; from the states at
the pads small decoders must rebuild expert maps of the picture, so the pads gather what the experts know.

What differs from the released code: its experts (SAM, depth, DINOv2, PiDiNet) are large models; here they are the edges
of the picture (Sobel) and a frozen outside encoder, by the same interface. Every pad has an embedding of its own, where
there identical pads differ by position only. The span is always there, so no expert block is skipped. Users reported
that the released model does as well without pads: probe it before believing.
Defaults: 4 pads for edges (L1), 4 for the encoder (MSE, weight 0.5), one attention layer an expert, from the paper.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from einops import rearrange

from ..model.backbones.encoders import load_encoder
from ..model.batch import Pictures
from ..model.heads import PadHead
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..model.targets import OwnVision, Standardizer
from ..model.tokenization import Vocabulary
from ..objectives.losses import Weights, weighted_mean
from ..trace import Image, Sketch, Text, Trace

PAPER = "2511.19418"
SUMMARY = "blank pads before the answer whose states must rebuild expert maps of the picture; nothing is fed back"
MODE = "direct"
FINE = 8  # pixels of the edge map a cell has on a side


def edges(picture, side: int) -> torch.Tensor:
    """(side^2, FINE^2) Sobel magnitude of a picture in cells, row-major, in 0..1."""
    grey = np.asarray(picture.convert("L").resize((side * FINE, side * FINE)), dtype=np.float32) / 255
    p = np.pad(grey, 1, mode="edge")
    smooth = [q[:-2] + 2 * q[1:-1] + q[2:] for q in (p, p.T)]  # along columns, and along rows of the transpose
    across, down = smooth[0][:, 2:] - smooth[0][:, :-2], (smooth[1][:, 2:] - smooth[1][:, :-2]).T
    magnitude = torch.from_numpy(np.sqrt(across**2 + down**2) / 4)
    return rearrange(magnitude, "(h a) (w b) -> (h w) (a b)", a=FINE, b=FINE)


class ExpertMaps(OwnVision):
    """What the experts see of a picture, side by side in channels: (side^2, C) maps, standardised."""

    def __init__(self, encoder, k: int):
        self._encoder = [encoder]
        super().__init__(FINE**2 + encoder.width, k)
        self.standardizer = Standardizer(FINE**2 + encoder.width, encoder.side)

    def grid(self, height, width, k=None):
        return 1, self.k

    def look(self, backbone, pictures):
        (encoder,) = self._encoder
        outlines = torch.stack([edges(p, encoder.side) for p in pictures])
        looked = encoder.look(list(pictures))
        return Pictures(looked.grid, torch.cat([outlines, torch.stack(encoder.see(looked))], -1))

    def see(self, backbone, pictures):
        return list(pictures.pixels) if pictures.tokens is None else pictures.tokens

    def samples(self, backbone, batch):
        side = self.standardizer.side
        return [(m.float(), (side, side)) for m in self.see(backbone, batch.sketches)]

    def forward(self, backbone, batch):
        maps, side = torch.stack(self.see(backbone, batch.sketches)).float(), self.standardizer.side
        return self.standardizer(maps, torch.tensor([[side, side]], device=maps.device).expand(len(maps), 2))


class Covt(LatentReasoner):
    def read(self, trace: Trace) -> Trace:
        """The trace with its pads first, taught by the last picture shown, and no other sketch."""
        *asked, last = trace.messages
        if last.role != "assistant":
            return trace
        shown = [p.image for m in asked for p in m.content if isinstance(p, Image)]
        words = tuple(p for p in last.content if isinstance(p, Text))
        return replace(trace, messages=(*asked, replace(last, content=(Sketch(shown[-1], self.switch.count), *words))))

    def losses(self, batch, h, z):
        terms = super().losses(batch, h, None)
        if z is not None and self.weights.latent:
            rows, position, _ = batch.slots()
            at_pads, _ = self.head.taken(h[rows, position + 1], None)  # before the next is at this
            terms.latent = weighted_mean(self.head.maps_loss(at_pads, z), batch.span_weight)
        return terms


def build(
    backbone,
    *,
    edge_pads: int = 4,
    encoder_pads: int = 4,
    encoder: str = "tiny",
    latent_weight: float = 1.0,
    heads: int = 4,
) -> LatentReasoner:
    expert, k = load_encoder(encoder), edge_pads + encoder_pads
    head = PadHead(
        backbone.width, [edge_pads, encoder_pads], [FINE**2, expert.width], [1.0, 0.5], expert.side**2, heads
    )
    return Covt(
        backbone,
        Vocabulary(backbone.tokenizer, backbone.layout),
        target=ExpertMaps(expert, k),
        head=head,
        switch=Switch(start="first", count=k),
        latent_input="blank",
        weights=Weights(latent=latent_weight),
    )

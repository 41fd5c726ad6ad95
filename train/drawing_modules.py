"""Lightning modules that learn to draw images back from latents, with answers about images and without."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from latent_reason.model.batch import TEXT, ImageBatch, MixedBatch, shift_right
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective
from latent_reason.visualization.sketch_decoder import SketchDecoder, to_pixels

from .config import OptimConfig
from .lit_modules import TrainingModule
from .throughput import text_flops_per_token


def reconstruction_loss(
    decoder: SketchDecoder,
    latents: list[torch.Tensor],
    images: list,
    grids: list[tuple[int, int]],
    sizes: list[tuple[int, int]],
) -> torch.Tensor:
    """Mean squared error of pixels in 0..1 between images and their decoded latents.

    Args:
        latents: (h * w, Z) each, on a grid h x w of ``grids``.
        images: PIL images.
        sizes: patches of each decoded image, rows and columns.
    """
    losses = []
    for shape in set(zip(grids, sizes, strict=True)):
        chosen = [i for i, s in enumerate(zip(grids, sizes, strict=True)) if s == shape]
        stacked = torch.stack([latents[i] for i in chosen])
        decoded = decoder(stacked.to(next(decoder.parameters()).dtype), *shape)  # a backbone may be in 16 bits
        gold = torch.stack([to_pixels(images[i], shape[1], decoder.config.patch) for i in chosen]).to(decoded)
        losses.append(F.mse_loss(decoded, gold, reduction="none").mean((1, 2, 3)))
    return torch.cat(losses).mean()


class PretrainModule(TrainingModule):
    """Turns a random backbone into a VLM: it learns to answer questions about images, while the vision encoder and the
    sketch decoder learn to reconstruct them.

    Answers do not need all of an image, and reconstruction needs no text: the two losses share the vision encoder.
    """

    def __init__(
        self,
        reasoner: LatentReasoner,
        objective: Objective,
        decoder: SketchDecoder,
        optim: OptimConfig,
        reconstruction_weight: float,
        images_per_step: int = 12,
    ):
        super().__init__(optim)
        self.reasoner, self.objective, self.decoder = reasoner, objective, decoder
        self.reconstruction_weight, self.images_per_step = reconstruction_weight, images_per_step

    def compute_loss(self, batch, shares=None):
        backbone, shares = self.reasoner.backbone, shares or {}
        features = backbone.image_embeddings(batch.images)
        batch = replace(batch, images=ImageBatch(batch.images.grid, features=features))
        terms = self.reasoner(self.objective.loss, batch)
        n = self.images_per_step
        sizes = backbone.token_grids(batch.images)[:n]
        loss = reconstruction_loss(
            self.decoder, backbone.encode_images(batch.images)[:n], batch.raw_images[:n], sizes, sizes
        )
        parts = terms.parts() | terms.metrics | {"reconstruction": loss}
        if not self.training:
            parts["token_accuracy"] = next_token_accuracy(self.reasoner, batch)
        loss = self.reconstruction_weight * shares.get("reconstruction", 1) * loss
        return terms.scaled(shares).total + loss, parts

    def loss_weights(self, batch):
        count = torch.tensor(min(self.images_per_step, len(batch.images)))
        weights = self.objective.loss_weights(self.reasoner, batch)
        return weights | {"reconstruction": count, "token_accuracy": torch.tensor(batch.layout.text_index.shape[1])}

    def flops_per_token(self):
        return text_flops_per_token(self.reasoner)


class DecoderModule(TrainingModule):
    """Trains a sketch decoder for a frozen vision encoder: latents of an image back to the image."""

    def __init__(self, reasoner: LatentReasoner, decoder: SketchDecoder, optim: OptimConfig):
        super().__init__(optim)
        self.reasoner, self.decoder = reasoner.requires_grad_(False), decoder

    def compute_loss(self, batch, shares=None):
        backbone, target = self.reasoner.backbone, self.reasoner.target
        sizes = backbone.token_grids(batch.images)
        grids = [target.latent_grid(*s) if target is not None else s for s in sizes]
        with torch.no_grad():
            if target is None:
                latents = backbone.encode_images(batch.images)
            else:
                sketches = self.reasoner.processor.preprocess_sketches(batch.raw_images)
                latents = target.encode_embeddings(sketches.to(self.device), grids)
        loss = reconstruction_loss(self.decoder, latents, batch.raw_images, grids, sizes)
        return loss * (shares or {}).get("reconstruction", 1), {"reconstruction": loss}

    def loss_weights(self, batch):
        return {"reconstruction": torch.tensor(len(batch.images))}


@torch.no_grad()
def next_token_accuracy(reasoner: LatentReasoner, batch: MixedBatch) -> torch.Tensor:
    """Share of trained text tokens that are the most likely ones."""
    is_trained = (batch.token_type == TEXT) & (batch.loss_weight > 0)
    h = shift_right(
        reasoner.backbone.forward_text(reasoner.embed_batch(batch), batch.mask, reasoner.backbone.position_ids(batch))
    )
    return (reasoner.backbone.logits(h[is_trained]).argmax(-1) == batch.ids[is_trained]).float().mean()

"""Lightning modules: one for each thing that is trained. Every part of a loss is logged apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn

from latent_reason.model.batch import TEXT, ImageBatch, MixedBatch, shift_right
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective
from latent_reason.visualization.sketch_decoder import SketchDecoder, to_pixels

from . import sharding
from .config import Optim
from .optim import optimizers, schedule

#: part -> what the names of its parameters look like, first match; of the stock model, what is not its language sees
PARTS = {
    "lora": r"backbone\..*(lora_|trainable_tokens_)",
    "embeddings": r"backbone\..*(embed_tokens|lm_head)",
    "trunk": r"backbone\.model\.model\.(language|text)_model\.",
    "connector": r"backbone\..*(merger|projector|connector|image_newline)",
    "eye": r"backbone\.",
    "head": r"head\.",
    "target": r"target\.",
}


def part_of(name: str) -> str:
    """The part a parameter belongs to."""
    return next(part for part, looks in PARTS.items() if re.match(looks, name))


def set_trainable(reasoner: LatentReasoner, parts: list[str]) -> None:
    """Train the named parts and nothing else.

    Raises:
        ValueError: an unknown part, or nothing is left to train.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"trainable: {part!r} is not a part. Known: {', '.join(PARTS)}.")
    if "lora" in parts and reasoner.backbone.adapter is None:
        raise ValueError("trainable: 'lora' is an adapter, and there is none. Add one with lora.rank, such as 16.")
    if reasoner.backbone.adapter is not None and {"trunk", "embeddings"} & set(parts):
        raise ValueError(f"trainable={parts}: an adapter trains in place of trunk and embeddings. Name lora, and head.")
    if reasoner.backbone.adapter is not None and reasoner.backbone.name and {"eye", "connector"} & set(parts):
        raise ValueError(
            f"trainable={parts}: a checkpoint with an adapter holds the name of its base, "
            f"'{reasoner.backbone.name}', so its eye and connector would not be saved. Train them before, "
            "in a run without lora."
        )
    for name, p in reasoner.named_parameters():
        p.requires_grad_(part_of(name) in parts)
    if not any(p.requires_grad for p in reasoner.parameters()):
        raise ValueError(f"trainable={parts}: no parameter trains. Name one of {', '.join(PARTS)}.")


def parameter_table(reasoner: LatentReasoner) -> list[tuple[str, int, int]]:
    """(part, parameters, trainable parameters) of a reasoner."""
    table: dict[str, list[int]] = {}
    for name, p in reasoner.named_parameters():
        row = table.setdefault(part_of(name), [0, 0])
        row[0] += p.numel()
        row[1] += p.numel() * p.requires_grad
    return [(part, *row) for part, row in table.items()]


class Stepper(L.LightningModule):
    """Manual optimisation, so that two optimisers share one backward. Subclasses say what a batch costs, and hold what
    is split among processes, where it is, as ``reasoner``."""

    def __init__(self, optim: Optim):
        super().__init__()
        self.optim, self.waiting = optim, 0
        self.automatic_optimization = False

    @property
    def sharded(self) -> bool:
        return sharding.is_sharded(self.reasoner)

    def configure_model(self):
        if self.device_mesh is not None and not self.sharded:
            sharding.shard(self.reasoner, self.device_mesh["data_parallel"])

    def cost(self, batch: MixedBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Total loss and its parts."""
        raise NotImplementedError

    def training_step(self, batch, index):
        loss, parts = self.cost(batch)
        if self.sharded or not loss.requires_grad:  # without a sketch a head has no gradient: every process still steps
            loss = loss + self.nothing()
        self.log_dict({f"train/{n}": p.detach() for n, p in parts.items()}, prog_bar=True)
        self.update([loss])

    def after_step(self) -> None:
        """Called after every optimizer step."""

    def nothing(self) -> torch.Tensor:
        """A loss of 0 that gives everything that trains a gradient of 0; of what is split among processes, the parts
        that have been gathered, as all have in a pass through the model."""
        return 0 * sum(p.sum() for p in sharding.at_hand(self.parameters()))

    def update(self, losses: Iterable[torch.Tensor]) -> None:
        """One backward pass for each of the losses, which add up, before the next of them is asked for; and, every
        ``accumulate`` calls, one step of the optimisers."""
        chosen = self.optimizers(use_pl_optimizer=True)
        chosen = chosen if isinstance(chosen, list) else [chosen]
        if not self.waiting:
            for optimizer in chosen:
                optimizer.zero_grad()
        for loss in losses:
            self.manual_backward(loss / self.optim.accumulate)
        self.waiting = (self.waiting + 1) % self.optim.accumulate
        if self.waiting:
            return
        norm = nn.utils.clip_grad_norm_([p for p in self.parameters() if p.requires_grad], self.optim.clip)
        for number, optimizer in enumerate(chosen):
            if number:  # Lightning counts a step for each optimiser; one batch is one step
                optimizer = optimizer.optimizer
            optimizer.step()
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()
        self.after_step()
        self.log("train/grad_norm", norm.full_tensor() if self.sharded else norm)

    def validation_step(self, batch, index):
        _, parts = self.cost(batch)
        self.log_dict({f"val/{n}": p for n, p in parts.items()}, batch_size=len(batch.ids))

    def configure_optimizers(self):
        chosen = optimizers(self, self.optim)
        return chosen, [{"scheduler": schedule(o, self.optim), "interval": "step"} for o in chosen]


class Sft(Stepper):
    """Trains a reasoner with its objective."""

    def __init__(self, reasoner: LatentReasoner, objective: Objective, optim: Optim):
        super().__init__(optim)
        self.reasoner, self.objective = reasoner, objective

    def cost(self, batch):
        progress = 1.0
        if self._trainer is not None:
            progress = min(1.0, self.trainer.global_step / max(self.trainer.max_steps, 1))
        terms = self.reasoner(self.objective.loss, batch, progress)
        return terms.total, terms.parts()

    def after_step(self):
        self.objective.on_optimizer_step(self.reasoner)


def picture_loss(
    decoder: SketchDecoder,
    tokens: list[torch.Tensor],
    pictures: list,
    grids: list[tuple[int, int]],
    sizes: list[tuple[int, int]],
) -> torch.Tensor:
    """Mean squared error of pixels in 0..1 between decoded latents (grid by grid) and their pictures."""
    losses = []
    for kind in set(zip(grids, sizes, strict=True)):
        chosen = [i for i, k in enumerate(zip(grids, sizes, strict=True)) if k == kind]
        drawn = decoder(torch.stack([tokens[i] for i in chosen]), *kind)
        gold = torch.stack([to_pixels(pictures[i], kind[1], decoder.config.patch) for i in chosen]).to(drawn)
        losses.append(F.mse_loss(drawn, gold, reduction="none").mean((1, 2, 3)))
    return torch.cat(losses).mean()


class Pretrain(Stepper):
    """Makes a random backbone a VLM: the whole learns to read pictures, while eye and decoder learn to keep them.

    Reading alone does not need all of a picture, drawing alone does not need words: both losses share the eye.
    """

    def __init__(
        self,
        reasoner: LatentReasoner,
        objective: Objective,
        decoder: SketchDecoder,
        optim: Optim,
        picture_weight: float,
        pictures_per_step: int = 12,
    ):
        super().__init__(optim)
        self.reasoner, self.objective, self.decoder = reasoner, objective, decoder
        self.picture_weight, self.pictures_per_step = picture_weight, pictures_per_step

    def cost(self, batch):
        backbone = self.reasoner.backbone
        features = backbone.image_embeddings(batch.images)
        batch = replace(batch, images=ImageBatch(batch.images.grid, features=features))
        terms = self.reasoner(self.objective.loss, batch)
        n = self.pictures_per_step
        sizes = [tuple(g) for g in backbone.token_grids(batch.images).tolist()][:n]
        drawn = picture_loss(self.decoder, backbone.encode_images(batch.images)[:n], batch.raw_images[:n], sizes, sizes)
        parts = terms.parts() | {"picture": drawn}
        if not self.training:
            parts["right"] = next_token_accuracy(self.reasoner, batch)
        return terms.total + self.picture_weight * drawn, parts


class TrainDecoder(Stepper):
    """A decoder for a frozen eye: latents of a picture back to the picture."""

    def __init__(self, reasoner: LatentReasoner, decoder: SketchDecoder, optim: Optim):
        super().__init__(optim)
        self.reasoner, self.decoder = reasoner.requires_grad_(False), decoder

    def cost(self, batch):
        backbone, target = self.reasoner.backbone, self.reasoner.target
        sizes = [tuple(g) for g in backbone.token_grids(batch.images).tolist()]
        grids = [target.latent_grid(*s) if target is not None else s for s in sizes]
        with torch.no_grad():
            if target is None:
                tokens = backbone.encode_images(batch.images)
            else:
                sketches = self.reasoner.processor.preprocess_sketches(batch.raw_images)
                tokens = target.encode_embeddings(sketches.to(self.device), grids)
        loss = picture_loss(self.decoder, tokens, batch.raw_images, grids, sizes)
        return loss, {"picture": loss}


@torch.no_grad()
def next_token_accuracy(reasoner: LatentReasoner, batch: MixedBatch) -> torch.Tensor:
    """Share of taught words that are the most likely ones."""
    spoken = (batch.token_type == TEXT) & (batch.loss_weight > 0)
    h = shift_right(
        reasoner.backbone.forward_text(reasoner.embed_batch(batch), batch.mask, reasoner.backbone.position_ids(batch))
    )
    return (reasoner.backbone.logits(h[spoken]).argmax(-1) == batch.ids[spoken]).float().mean()

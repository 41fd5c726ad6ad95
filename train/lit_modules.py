"""Lightning modules, one for each trainer. Every part of a loss is logged by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from latent_reason.model.batch import TEXT, ImageBatch, MixedBatch, shift_right
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.losses import loss_shares
from latent_reason.objectives.objective import Objective
from latent_reason.visualization.sketch_decoder import SketchDecoder, to_pixels

from . import sharding
from .batches import StepBatch
from .config import OptimConfig
from .finiteness import StepMonitor
from .optim import make_optimizer, make_schedule
from .random_numbers import random_state, set_random_state

#: part -> pattern of its parameter names; the first match counts
PARTS = {
    "lora": r"backbone\..*(lora_|trainable_tokens_)",
    "embeddings": r"backbone\..*(embed_tokens|lm_head)",
    "text_model": r"backbone\.model\.model\.(language|text)_model\.",
    "connector": r"backbone\..*(merger|projector|connector|image_newline)",
    "vision_encoder": r"backbone\.",
    "head": r"head\.",
    "target": r"target\.",
}


def part_of(name: str) -> str:
    """The part that a parameter belongs to."""
    return next(part for part, pattern in PARTS.items() if re.match(pattern, name))


def set_trainable(reasoner: LatentReasoner, parts: list[str]) -> None:
    """Train the named parts and freeze all others.

    Raises:
        ValueError: an unknown part, a combination with LoRA that cannot be trained or saved, or no trainable parameter.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"trainable: {part!r} is not a part. Known: {', '.join(PARTS)}.")
    has_adapter = reasoner.backbone.adapter is not None
    if "lora" in parts and not has_adapter:
        raise ValueError("trainable: the model has no LoRA adapter. Add one with lora.rank, such as 16.")
    if has_adapter and {"text_model", "embeddings"} & set(parts):
        raise ValueError(
            f"trainable={parts}: a LoRA adapter trains in place of text_model and embeddings. Name lora, and head."
        )
    if has_adapter and reasoner.backbone.name and {"vision_encoder", "connector"} & set(parts):
        raise ValueError(
            f"trainable={parts}: a checkpoint with a LoRA adapter stores the name of its base model, "
            f"'{reasoner.backbone.name}', so its vision_encoder and connector would not be saved. Train them first, "
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


class TrainingModule(L.LightningModule):
    """What all trainers share: one optimizer, its schedule, and weights that FSDP2 may split. Subclasses implement
    ``compute_loss(batch, shares)`` and ``loss_weights(batch)``, and store the model as ``self.reasoner``.

    Every part of a loss is a mean over all examples of an optimizer step, however accumulation and processes cut them
    into batches.
    """

    def __init__(self, optim: OptimConfig, sharding_options: sharding.ShardingOptions | None = None):
        super().__init__()
        self.optim, self.sharding_options = optim, sharding_options
        self.monitor = StepMonitor()
        self.passes: sharding.PassCounter | None = None  # of a sharded model

    @property
    def sharded(self) -> bool:
        return sharding.is_sharded(self.reasoner)

    def configure_model(self):
        if self.device_mesh is not None and not self.sharded:
            self.shard(self.device_mesh)
            group = torch.distributed.new_group(backend="gloo")
            self.passes = sharding.PassCounter(self.reasoner.backbone.text_model, group)

    def shard(self, mesh: DeviceMesh) -> None:
        """Split the weights among the processes of a mesh (:func:`train.sharding.shard`)."""
        teacher, _ = self.teacher()  # which may be a copy of the model, and is made while weights are whole
        if teacher is not None:
            teacher.to(mesh.device_type)
        sharding.shard(self.reasoner, mesh, self.sharding_options)

    def whole_weights(self) -> AbstractContextManager[None]:
        """All weights on every process, for decoding (:func:`train.sharding.whole`)."""
        return sharding.whole(self.reasoner, self.sharding_options)

    def configure_optimizers(self):
        optimizer = make_optimizer(self, self.optim)
        return [optimizer], [{"scheduler": make_schedule(optimizer, self.optim), "interval": "step"}]

    def compute_loss(
        self, batch: MixedBatch, shares: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Total loss (scalar) and its parts. ``shares`` scale parts in the total (default: 1 each)."""
        raise NotImplementedError

    def loss_weights(self, batch: MixedBatch) -> dict[str, torch.Tensor]:
        """The weight (scalar) of each part of the loss of a batch."""
        raise NotImplementedError

    def training_step(self, step_batch: StepBatch, index):
        batch = step_batch.batch
        shares = loss_shares(self.loss_weights(batch), self.sum_over_processes(step_batch.loss_weights))
        loss, parts = self.compute_loss(batch, shares)
        self.monitor.add_loss(loss)
        # Lightning takes the mean over accumulated batches and processes, but the shares call for the sum.
        loss = loss * (self.trainer.accumulate_grad_batches * self.data_parallel_size)
        if self.passes is not None:
            loss = loss + self.passes.make_missing(self.reasoner)
        loss = loss + self.zero_loss()
        self.log_dict({f"train/{n}": p for n, p in self.mean_over_processes(parts, shares).items()}, prog_bar=True)
        return loss

    @property
    def num_processes(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    @property
    def tensor_parallel_size(self) -> int:
        """Processes that share matrices, and read the same batches."""
        return 1 if self.device_mesh is None else self.device_mesh[sharding.TENSOR].size()

    @property
    def data_parallel_size(self) -> int:
        """Processes, or groups of those that share matrices, each with batches of its own."""
        return self.num_processes // self.tensor_parallel_size

    @property
    def data_parallel_rank(self) -> int:
        """Which of the ``data_parallel_size`` shares of batches this process reads."""
        return self.global_rank // self.tensor_parallel_size

    @property
    def batches_per_step(self) -> int:
        """Batches of an optimizer step, of all processes."""
        return self.optim.gradient_accumulation_steps * self.data_parallel_size

    def sum_over_processes(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Scalars of the batches of each process, added up over all batches. Every process must call it."""
        if self.num_processes == 1:
            return values
        total = torch.stack(list(values.values()))
        total = self.trainer.strategy.reduce(total, reduce_op="sum") / self.tensor_parallel_size
        return dict(zip(values, total.unbind(), strict=True))

    def mean_over_processes(
        self, parts: dict[str, torch.Tensor], shares: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The parts of a loss of this process, each as its mean over the examples of all processes; ``shares`` are those
        of this process in them. Every process must call it."""
        parts = {name: part.detach() for name, part in parts.items()}
        if self.num_processes == 1:
            return parts
        sums = {name: parts[name] * share if name in parts else 0 * share for name, share in shares.items()}
        sums = self.sum_over_processes(sums | {f"share of {name}": share for name, share in shares.items()})
        totals = {name: sums[f"share of {name}"].clamp_min(1e-8) for name in shares}
        return {name: sums[name] / totals[name] if name in totals else part for name, part in parts.items()}

    def on_optimizer_step(self) -> None:
        """Called after every optimizer step."""

    def end_step(self, objective: Objective) -> None:
        """Let an objective follow an optimizer step; a teacher that moves follows whole weights."""
        with self.whole_weights() if objective.has_moving_teacher else nullcontext():
            objective.on_optimizer_step(self.reasoner)

    def zero_loss(self) -> torch.Tensor:
        """Zero loss that touches every trainable parameter. Without it a batch without a sketch would leave the head
        without a gradient, which the optimizer, DDP and FSDP2 each treat in another way than a gradient of zero. Of
        sharded weights it touches those that have been gathered, as all have in a pass through the model."""
        return 0 * sum(p.sum() for p in sharding.at_hand(self.parameters()))

    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """Scale gradients down to this norm; returns the norm that they had (scalar)."""
        return sharding.clip_grad_norm(self.parameters(), max_norm)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val, gradient_clip_algorithm=None):
        """Clip by norm and log it. Lightning calls this when gradients are accumulated and unscaled."""
        norm = self.clip_grad_norm(gradient_clip_val)
        self.log("train/grad_norm", norm)
        self.skip_step_if_not_finite(norm)

    def skip_step_if_not_finite(self, norm: torch.Tensor) -> None:
        """Take all gradients away if the norm or a loss of this step is not finite on any process: the optimizer then
        changes nothing. Every process must call it."""
        is_finite = self.monitor.is_finite(norm)
        if self.num_processes > 1:
            is_finite = self.trainer.strategy.reduce(is_finite.float(), reduce_op="sum") == self.num_processes
        if self.monitor.end_step(bool(is_finite)):
            return
        self.monitor.report(self, norm)
        for p in self.parameters():
            p.grad = None

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        if not self.monitor.num_skipped_in_a_row:
            self.on_optimizer_step()

    def on_validation_start(self):
        self.random_before = random_state()

    def on_validation_end(self):
        """Training does not depend on how often it is validated."""
        set_random_state(self.random_before)

    def current_batches(self) -> list[MixedBatch]:
        """The batches of the current optimizer step on this process, as they were collated."""
        return self.trainer.train_dataloader.step

    # -- what a resumed run needs --------------------------------------------------------------------------------------
    def counters(self) -> dict[str, Any]:
        """Plain values of this process that training changes."""
        return {"skipped": self.monitor.num_skipped}

    def load_counters(self, values: dict[str, Any]) -> None:
        self.monitor.num_skipped = values["skipped"]

    def has_ended_step(self, batch_index: int) -> bool:
        """Whether no gradients wait for more batches after this one."""
        return (batch_index + 1) % self.trainer.accumulate_grad_batches == 0

    def teacher(self) -> tuple[nn.Module | None, bool]:
        """The module that the method keeps beside the model, if any, and whether it changes in training."""
        return None, False

    def frozen_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that training reads and does not change."""
        yield from ((name, p) for name, p in self.named_parameters() if not p.requires_grad)
        module, moves = self.teacher()
        if module is not None and not moves:
            yield from ((f"teacher.{name}", p) for name, p in module.named_parameters())

    def validation_step(self, step_batch: StepBatch, index):
        _, parts = self.compute_loss(step_batch.batch)
        self.log_dict({f"val/{n}": p for n, p in parts.items()}, batch_size=len(step_batch.batch.ids))


class SFTModule(TrainingModule):
    """Text, latent and stop losses of a reasoner on traces."""

    def __init__(
        self,
        reasoner: LatentReasoner,
        objective: Objective,
        optim: OptimConfig,
        sharding_options: sharding.ShardingOptions | None = None,
    ):
        super().__init__(optim, sharding_options)
        self.reasoner, self.objective = reasoner, objective

    def compute_loss(self, batch, shares=None):
        progress = 1.0
        if self._trainer is not None:
            progress = min(1.0, self.trainer.global_step / max(self.trainer.max_steps, 1))
        terms = self.reasoner(self.objective.loss, batch, progress)
        return terms.scaled(shares or {}).total, terms.parts()

    def loss_weights(self, batch):
        return self.objective.loss_weights(self.reasoner, batch)

    def on_optimizer_step(self):
        self.end_step(self.objective)

    def teacher(self):
        return self.objective.teacher_module(self.reasoner), self.objective.has_moving_teacher


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
        parts = terms.parts() | {"reconstruction": loss}
        if not self.training:
            parts["token_accuracy"] = next_token_accuracy(self.reasoner, batch)
        loss = self.reconstruction_weight * shares.get("reconstruction", 1) * loss
        return terms.scaled(shares).total + loss, parts

    def loss_weights(self, batch):
        count = torch.tensor(min(self.images_per_step, len(batch.images)))
        return self.objective.loss_weights(self.reasoner, batch) | {"reconstruction": count}


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

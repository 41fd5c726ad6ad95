"""What all Lightning modules share, and that of supervised training. Every part of a loss is logged by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from latent_reason.model.batch import MixedBatch
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.losses import loss_shares
from latent_reason.objectives.objective import Objective

from . import sharding
from .batches import HeldOutBatch, StepBatch
from .config import OptimConfig
from .finiteness import StepMonitor
from .optim import make_optimizer, make_schedule
from .random_numbers import noise_seed, random_state, set_random_state
from .throughput import Counts, text_flops_per_token

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
    has_adapter = reasoner.backbone.adapter is not None
    check_trainable(parts, has_adapter)
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


def check_trainable(parts: list[str], has_adapter: bool) -> None:
    """Raises ValueError for an unknown part, or for one that does not train with a LoRA adapter or without one."""
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"trainable: {part!r} is not a part. Known: {', '.join(PARTS)}.")
    if "lora" in parts and not has_adapter:
        raise ValueError("trainable: the model has no LoRA adapter. Add one with lora.rank, such as 16.")
    if has_adapter and {"text_model", "embeddings"} & set(parts):
        raise ValueError(
            f"trainable={parts}: a LoRA adapter trains in place of text_model and embeddings. Name lora, and head."
        )


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
        self.monitor, self.counts = StepMonitor(), Counts()
        self.passes: sharding.PassCounter | None = None  # of a sharded model
        self.held_out: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # of each part: weighted sum, and weight

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
        self.count(batch)
        shares = loss_shares(self.loss_weights(batch), self.sum_over_processes(step_batch.loss_weights))
        loss, parts = self.compute_loss(batch, shares)
        self.monitor.add_loss(loss)
        # Lightning takes the mean over accumulated batches and processes, but the shares call for the sum.
        loss = loss * (self.trainer.accumulate_grad_batches * self.data_parallel_size)
        if self.passes is not None:
            loss = loss + self.passes.make_missing(self.reasoner)
        loss = loss + self.zero_loss()
        self.log_parts(self.mean_over_processes(parts, shares))
        return loss

    def count(self, batch: MixedBatch) -> None:
        """Add a training batch to ``counts``, before its step."""
        self.counts.add_batch(batch)

    def log_parts(self, parts: dict[str, torch.Tensor]) -> None:
        """Log the parts of a loss, which are shown while the run trains, and what else was computed with them, whose
        names have a slash."""
        self.log_dict({f"train/{name}": part for name, part in parts.items() if "/" not in name}, prog_bar=True)
        self.log_dict({name: value for name, value in parts.items() if "/" in name})

    def flops_per_token(self) -> float | None:
        """Operations of a training step for one position; None where they are not counted."""
        return None

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
        return self.trainer.accumulate_grad_batches * self.data_parallel_size

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
        """Clip by norm; log it, and the loss of the step. Lightning calls this when gradients are accumulated and unscaled."""
        norm = self.clip_grad_norm(gradient_clip_val)
        own = {"train/loss": torch.stack(self.monitor.losses).sum()}  # of all batches of the step, with their shares
        self.log_dict(self.sum_over_processes(own) | {"train/grad_norm": norm})
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

    # -- held-out examples ---------------------------------------------------------------------------------------------
    def on_validation_start(self):
        self.random_before, self.held_out = random_state(), {}

    def validation_step(self, held_out: HeldOutBatch, index):
        torch.manual_seed(noise_seed(held_out.number))  # the same noise at every validation, in any process
        _, parts = self.compute_loss(held_out.batch)
        weights, rows = self.loss_weights(held_out.batch), torch.tensor(float(len(held_out.batch.ids)))
        for name, part in ((name, part) for name, part in parts.items() if "/" not in name):
            weight = weights.get(name, rows).to(self.device) * held_out.counts
            total, weight_so_far = self.held_out.get(name, self.nothing())
            self.held_out[name] = total + part.detach() * weight, weight_so_far + weight

    def on_validation_epoch_end(self):
        """Log each part as its mean over all held-out examples, however batches and processes share them."""
        names = self.all_names(self.held_out)
        pairs = {name: self.held_out.get(name, self.nothing()) for name in names}
        sums = {f"{name}, {i}": pair[i].float() for name, pair in pairs.items() for i in (0, 1)}
        sums = self.sum_over_processes(sums) if sums else {}
        means = {f"val/{name}": sums[f"{name}, 0"] / sums[f"{name}, 1"].clamp_min(1e-8) for name in names}
        self.log_dict(means, sync_dist=self.num_processes > 1)  # they are equal, but Lightning would warn

    def nothing(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum and the weight of no value."""
        zero = torch.zeros((), device=self.device)
        return zero, zero

    def on_validation_end(self):
        """Training does not depend on how often it is validated."""
        set_random_state(self.random_before)

    def all_names(self, names: Iterable[str]) -> list[str]:
        """The names that any process has, in order. Every process must call it."""
        found: list[list[str]] = [list(names)]
        if self.num_processes > 1:
            found *= self.num_processes
            torch.distributed.all_gather_object(found, list(names))
        return sorted({name for some in found for name in some})

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
        return terms.scaled(shares or {}).total, terms.parts() | terms.metrics

    def loss_weights(self, batch):
        return self.objective.loss_weights(self.reasoner, batch)

    def on_optimizer_step(self):
        self.end_step(self.objective)

    def flops_per_token(self):
        return text_flops_per_token(self.reasoner)

    def teacher(self):
        return self.objective.teacher_module(self.reasoner), self.objective.has_moving_teacher

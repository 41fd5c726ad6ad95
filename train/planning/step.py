"""One optimizer step of a config, simulated: its memory at the peak by kind, and its arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from PIL import Image as PILImage

from latent_reason.model.batch import LATENT, PAD, TEXT, MixedBatch
from latent_reason.model.processor import EncodedExample
from latent_reason.model.reasoner import LatentReasoner

from ..averaging import WeightAverage
from ..config import OptimConfig, SFTConfig
from ..data import TraceData
from ..lit_modules import SFTModule, TrainingModule
from ..optim import make_optimizer
from ..progress import console
from ..traces import mode_of
from .simulation import Accountant

STEP_TEMPORARY = "temporary, of the optimizer"
#: kinds of tensors that fsdp splits, and fsdp_cpu_offload keeps in main memory
SPLIT = ("weights", "gradients", "optimizer state", "averaged weights", STEP_TEMPORARY)
EXAMPLES = 64  # of which the longest make the batch: rows of a batch have similar lengths


@dataclass(frozen=True)
class Decoding:
    """Rollouts that one device decodes together: ``flops``, bytes of the ``cache`` of all their positions, ``steps`` one
    after the other, and bytes of the ``weights`` that each step reads."""

    flops: int
    cache: int
    steps: int
    weights: int

    @property
    def traffic(self) -> int:
        """Bytes that are read; the cache is half full on average."""
        return self.steps * (self.weights + self.cache // 2)


@dataclass(frozen=True)
class Work:
    """The batches of one optimizer step of one device.

    Args:
        losses: functions that compute the loss of a batch, each with the number of such batches.
        counts: examples, positions, sketches and latents of all batches.
        clears_first: whether gradients are cleared before the first forward pass, and not after it.
        decoding: the decoding of rollouts before it, if there is any.
    """

    module: TrainingModule
    losses: list[tuple[Callable[[], torch.Tensor], int]]
    counts: dict[str, int]
    clears_first: bool = False
    decoding: Decoding | None = None


@dataclass(frozen=True)
class Measured:
    """Bytes at the peak by kind, on the device and in main memory, and arithmetic of an optimizer step of one device by
    phase. ``between`` are the bytes between two steps, gradients included, and ``whole`` those of gathered weights when
    most of them were."""

    memory: dict[str, int]
    main_memory: dict[str, int]
    between: dict[str, int]
    flops: dict[str, int]
    whole: int


def supervised_work(module: SFTModule, batch: MixedBatch, times: int) -> Work:
    """The work of a step that accumulates the gradients of so many batches like this one."""
    counts = {name: n * times for name, n in count_batch(batch).items()}

    def compute_loss() -> torch.Tensor:
        return module.compute_loss(batch)[0] + module.zero_loss()  # as TrainingModule.training_step

    return Work(module, [(compute_loss, times)], counts)


def longest_batch(config: SFTConfig, module: SFTModule, length: int = 0) -> MixedBatch:
    """A batch of the longest examples of a config, or of examples of ``length`` positions. Raises ValueError as the data
    do."""
    reasoner, size = module.reasoner, config.data.micro_batch_size or config.data.global_batch_size
    has_frozen_encoder = not {"vision_encoder", "connector"} & set(config.trainable)
    items = min(config.data.items, max(size, EXAMPLES))
    some = replace(config.data, items=items, val_items=0, cache=None, feature_cache_gb=0.0)  # encode one batch only
    mode = mode_of(config.method.name)
    data = TraceData(some, reasoner, module.objective, mode, config.seed, has_frozen_encoder)
    with console.capture():  # it speaks of all items of a run
        data.setup()
    rows = sorted(data.rows["train"], key=lambda row: len(row.ids), reverse=True)
    rows = [rows[i % len(rows)] for i in range(size)]  # a few examples stand for many
    if has_frozen_encoder:
        rows = share_images(rows)
    return data.training_batch([lengthen(row, length, reasoner) for row in rows] if length else rows, 0)


def share_images(rows: list[EncodedExample]) -> list[EncodedExample]:
    """The examples with one image in place of all of its size, which a frozen encoder then encodes once."""
    known: dict[tuple[int, int], PILImage.Image] = {}

    def shared(images):
        return [image and known.setdefault(image.size, image) for image in images]

    return [
        replace(
            row,
            images=shared(row.images),
            sketches=shared(row.sketches),
            teacher_example=row.teacher_example and share_images([row.teacher_example])[0],
        )
        for row in rows
    ]


def lengthen(row: EncodedExample, length: int, reasoner: LatentReasoner) -> EncodedExample:
    """The example with more text at its end. Raises ValueError if it is longer than ``length`` positions."""
    more = length - len(row.ids)
    if more < 0:
        raise ValueError(
            f"--tokens-per-example {length}: an example of these data has {len(row.ids):,} positions. Give more, or leave "
            "the option out."
        )
    teacher = row.teacher_example
    return replace(
        row,
        ids=row.ids + [reasoner.vocabulary.end] * more,
        token_type=row.token_type + [TEXT] * more,
        loss_weight=row.loss_weight + [1.0] * more,
        teacher_example=teacher and lengthen(teacher, len(teacher.ids) + more, reasoner),  # the same text for both
    )


def measure(work: Work, accountant: Accountant, optim: OptimConfig, precision: str) -> Measured:
    """One optimizer step, as Lightning orders it, that meets the gradients and the optimizer state of the step before.

    Of equal batches one is computed, with the gradients of others there. Real tensors are measured as fake ones are.
    """
    module, is_accumulated = work.module, sum(count for _, count in work.losses) > 1
    with accountant:
        register_models(module, accountant)
        optimizer = make_optimizer(module, optim)
        if optim.ema_decay:
            average = WeightAverage(optim.ema_decay)
            average.start(module, optimizer)
            for value in average.averages.values():
                accountant.rename(value, "averaged weights")
        step_on_zeros(work, optimizer, accountant)
        accountant.restart()
        between = dict(accountant.at_peak)
        for compute_loss, times in work.losses:
            if work.clears_first and not is_accumulated:
                optimizer.zero_grad()
            with accountant.phase("forward", "activations", times), autocast(precision):
                loss = compute_loss()
            if not work.clears_first and not is_accumulated:
                optimizer.zero_grad()
            with accountant.phase("backward", "temporary", times):
                loss.backward()
            del loss
        with accountant.phase("optimizer", STEP_TEMPORARY):
            module.clip_grad_norm(optim.max_grad_norm)
            optimizer.step()
            module.on_optimizer_step()
    memory, main_memory = dict(accountant.at_peak), dict(accountant.main_memory)
    return Measured(memory, main_memory, between, dict(accountant.flops), accountant.most_gathered)


def step_on_zeros(work: Work, optimizer: torch.optim.Optimizer, accountant: Accountant) -> None:
    """A step on gradients of zero, which leaves gradients and the state of the optimizer."""
    for p in work.module.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: accountant.rename(p.grad, "gradients"))
            with accountant.phase("setup", "gradients"):
                p.grad = torch.zeros_like(p)
    with accountant.phase("optimizer", "optimizer state"):
        optimizer.step()
        work.module.on_optimizer_step()


def register_models(module: TrainingModule, accountant: Accountant) -> None:
    """Count the models beside the one that trains."""
    with warnings.catch_warnings():  # a teacher may be a copy, which asks tensors without values for their address
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
        teacher, _ = module.teacher()
    for other in (teacher, getattr(module, "reference", None)):
        if other is not None:
            accountant.add_module(other, "teacher, reference")


def autocast(precision: str):
    """The forward pass of mixed precision. Both 16-bit types take as much memory."""
    return torch.autocast("cpu", torch.bfloat16) if precision.endswith("-mixed") else nullcontext()


def count_batch(batch: MixedBatch) -> dict[str, int]:
    """Examples, positions, sketches and latents of a batch; padding is left out."""
    documents = batch.document_lengths
    return {
        "examples": len(batch.ids) if documents is None else sum(map(len, documents)),
        "positions": int((batch.token_type != PAD).sum()),
        "sketches": len(batch.spans),
        "latents": int((batch.token_type == LATENT).sum()),
    }

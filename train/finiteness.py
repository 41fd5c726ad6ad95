"""Steps whose loss or gradient is not finite: they are skipped, counted and written aside, and too many end the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from latent_reason.files import atomic_write_bytes, atomic_write_json
from latent_reason.model.batch import ImageBatch, MixedBatch
from latent_reason.model.tokenization import Vocabulary

from .progress import console

if TYPE_CHECKING:
    from .lit_modules import TrainingModule

MAX_SKIPPED_STEPS = 20  # in a row; the scale of float16 needs up to 16 at the start of a run
MAX_KEPT = 3  # skipped steps whose batches are kept for a person to look at


class StepMonitor:
    """Watches the losses and the gradient norm of the current optimizer step, and counts skipped steps."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []  # of the current step
        self.num_skipped = self.num_skipped_in_a_row = 0
        self.folder: Path | None = None  # where batches are kept

    def watch(self, folder: Path) -> None:
        """Keep batches of skipped steps below the folder of a run."""
        self.folder = folder / "not-finite"

    def add_loss(self, loss: torch.Tensor) -> None:
        self.losses.append(loss.detach())

    def is_finite(self, norm: torch.Tensor) -> torch.Tensor:
        """Scalar: whether the norm and all losses of this step are finite on this process."""
        device = self.losses[0].device if self.losses else norm.device  # gradients may be in main memory
        values = [norm.detach().float().to(device), *(loss.float() for loss in self.losses)]
        return torch.isfinite(torch.stack(values)).all()

    def end_step(self, is_finite: bool) -> bool:
        """Count a step; returns ``is_finite``."""
        if is_finite:
            self.num_skipped_in_a_row = 0
            self.losses = []
        else:
            self.num_skipped += 1
            self.num_skipped_in_a_row += 1
        return is_finite

    def report(self, module: TrainingModule, norm: torch.Tensor) -> None:
        """Log and print a skipped step, and keep its batches.

        Raises:
            ValueError: too many steps in a row were skipped.
        """
        step, losses = module.trainer.global_step, [float(loss) for loss in self.losses]
        self.losses = []
        module.log("train/skipped_steps", float(self.num_skipped))
        kept = ""
        if self.folder is not None and self.num_skipped <= MAX_KEPT:
            where = self.folder / f"step-{step}-process-{module.global_rank}"
            found = {"step": step, "losses": [str(loss) for loss in losses], "gradient_norm": str(float(norm))}
            found["gradients_not_finite"] = not_finite(module)
            keep_batches(where, found, module.current_batches(), module.reasoner.vocabulary)
            kept = f" Its batches are in '{where}'."
        console.print(
            f"Warning: step {step} was skipped, because its loss or gradient is not finite (losses {losses}, gradient norm "
            f"{float(norm)}).{kept}",
            style="yellow",
        )
        if self.num_skipped_in_a_row >= MAX_SKIPPED_STEPS:
            raise ValueError(
                f"{MAX_SKIPPED_STEPS} steps in a row had a loss or gradient that is not finite. The weights are those "
                f"before them. Look at the batches in '{self.folder}'; use a smaller learning rate, or precision 32-true "
                "or bf16-mixed."
            )


def not_finite(module: TrainingModule) -> list[str]:
    """Names of parameters whose gradient is not finite."""
    return [n for n, p in module.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())]


def keep_batches(where: Path, found: dict[str, Any], batches: list[MixedBatch], vocabulary: Vocabulary) -> None:
    """Write the tensors of the batches of a step as safetensors, and beside them their text and what was not finite.
    A full disk is no reason to end a run."""
    texts = [[vocabulary.decode(ids) for ids in batch.ids.tolist()] for batch in batches]
    try:
        for number, batch in enumerate(batches):
            tensors = {name: t.contiguous().cpu() for name, t in tensors_of(batch)}
            atomic_write_bytes(where / f"batch-{number}.safetensors", save(tensors))
        atomic_write_json(where / "step.json", found | {"texts": texts})
    except OSError as error:
        console.print(f"Warning: the batches were not kept: {error}", style="yellow")


def tensors_of(batch: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a batch, those of its images included."""
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, ImageBatch):
            yield from tensors_of(value, f"{prefix}{name}.")

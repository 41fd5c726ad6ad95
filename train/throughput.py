"""What a run measures of itself: tokens and examples a second, time, memory, learning rates."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from latent_reason.model.batch import PAD, MixedBatch
from latent_reason.model.reasoner import LatentReasoner

from .planning.devices import device_by_name

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


@dataclass
class Counts:
    """What a process has trained on so far, known without a read from the device."""

    tokens: int = 0  # positions that are not padding: text, image and latents
    examples: int = 0
    with_sketches: int = 0  # examples that have a span of latents

    def add_batch(self, batch: MixedBatch) -> None:
        layout = batch.layout
        rows, length = layout.token_type.shape
        self.tokens += int((layout.token_type != PAD).sum())
        if batch.document_lengths is None:
            self.examples += rows
            self.with_sketches += len(np.unique(layout.spans[:, 0]))
            return
        self.examples += sum(map(len, batch.document_lengths))
        found = set()
        for row, start in layout.spans[:, :2].tolist():
            ends = np.cumsum([size for size, _ in batch.document_lengths[row]])
            padding = length - ends[-1]  # on the left
            found.add((row, int(np.searchsorted(ends, start - padding, side="right"))))
        self.with_sketches += len(found)


def text_flops_per_token(reasoner: LatentReasoner) -> float:
    """Operations of the text model for one position, forward and backward, by the usual count: 2 for each weight in the
    forward pass, 2 for the gradient of its input, and 2 for that of the weight if it trains (2204.02311, appendix B).
    Attention, the vision encoder and the head are left out."""
    backbone = reasoner.backbone
    weights = {p for p in backbone.text_model.parameters() if p.ndim == 2 and p.shape[0] != backbone.vocab_size}
    goes_back = any(p.requires_grad for p in backbone.parameters())
    total = sum(p.numel() for p in weights) + backbone.vocab_size * backbone.width  # the last layer, to logits
    trained = sum(p.numel() for p in weights if p.requires_grad)
    return 2.0 * total * (1 + goes_back) + 2.0 * trained


def utilization(flops: float, device_name: str) -> dict[str, float]:
    """``train/mfu``: operations a second over what a device can do in bfloat16; nothing where that is unknown."""
    device = device_by_name(device_name)
    return {"train/mfu": flops / device.flops} if device is not None else {}


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has used, in GB: tensors on a GPU, else its resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9


class Throughput(Callback):
    """Logs at every log entry, with means since the last one, in which validations do not count:

    ``step_time`` (seconds of a step), ``num_tokens`` (so far), ``train/tokens_per_second``,
    ``train/samples_per_second`` (of all processes), ``train/data_wait_share`` (of the time), ``train/peak_memory_gb``,
    ``train/share_with_sketches`` (of examples), ``train/learning_rate`` (of the first group of parameters; and of each, by
    its name), and on a GPU whose peak is known ``train/mfu``, its share that the text model uses (in bfloat16).
    """

    def __init__(self) -> None:
        self.num_tokens = 0.0  # of all processes
        self.began = self.paused = self.waited = 0.0
        self.batches, self.counted, self.rates = 0, Counts(), {}

    def state_dict(self):
        return {"num_tokens": self.num_tokens}

    def load_state_dict(self, state):
        self.num_tokens = state["num_tokens"]

    def on_train_start(self, trainer, module):
        self.restart(trainer, module)

    def restart(self, trainer: L.Trainer, module) -> None:
        """Begin to measure anew."""
        self.began, self.paused, self.batches = time.monotonic(), 0.0, 0
        self.waited, self.counted = trainer.train_dataloader.wait_seconds, Counts(**vars(module.counts))

    def on_validation_start(self, trainer, module):
        self.paused -= time.monotonic()

    def on_validation_end(self, trainer, module):
        self.paused += time.monotonic()

    def on_train_batch_start(self, trainer, module, batch, index):
        self.rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.batches += 1
        if (index + 1) % (trainer.accumulate_grad_batches * trainer.log_every_n_steps):
            return
        rates = {f"train/learning_rate/{name}": rate for name, rate in self.rates.items()}
        module.log_dict(
            self.measure(trainer, module) | {"train/learning_rate": next(iter(self.rates.values()))} | rates
        )
        self.restart(trainer, module)

    def measure(self, trainer: L.Trainer, module) -> dict[str, float]:
        """What is logged, but learning rates. Every process must call it."""
        seconds = max(time.monotonic() - self.began - self.paused, 1e-9)
        waited = trainer.train_dataloader.wait_seconds - self.waited
        tokens, examples, with_sketches = self.count_all(module)
        found = {
            "step_time": seconds / self.batches * trainer.accumulate_grad_batches,
            "train/tokens_per_second": tokens / seconds,
            "train/samples_per_second": examples / seconds,
            "train/share_with_sketches": with_sketches / max(examples, 1),
            "train/data_wait_share": waited / seconds,
            "train/peak_memory_gb": peak_memory(module.device),
        }
        if module.automatic_optimization:  # else the module counts the tokens of its rollouts
            self.num_tokens += tokens
            found["num_tokens"] = self.num_tokens
        if module.device.type == "cuda" and (flops := module.flops_per_token()):
            per_device = flops * tokens / seconds / module.num_processes
            found |= utilization(per_device, torch.cuda.get_device_name(module.device))
        return found

    def count_all(self, module) -> tuple[float, float, float]:
        """(tokens, examples, examples with sketches) of all processes since the last entry."""
        now, before = vars(module.counts), vars(self.counted)
        device = module.device if module.num_processes > 1 else "cpu"  # on one process, nothing waits for the device
        found = {name: torch.tensor(float(now[name] - before[name]), device=device) for name in now}
        return tuple(float(total) for total in module.sum_over_processes(found).values())

"""Optimisers of a recipe: Muon for the matrices inside the network, AdamW for everything else."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import Optim
from .muon import Muon


def groups(module: nn.Module) -> tuple[list, list]:
    """Trainable parameters that are matrices inside the network, and all others (embeddings, norms, biases, and the
    factors of LoRA: to orthogonalise those moves every direction of a pretrained matrix alike, and what the model could
    write before is lost).
    """
    matrices, others = [], []
    for name, p in module.named_parameters():
        if p.requires_grad:
            inner = p.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "lora_"))
            (matrices if inner else others).append(p)
    return matrices, others


def optimizers(module: nn.Module, optim: Optim) -> list[torch.optim.Optimizer]:
    """One optimiser, or two with ``muon``."""
    matrices, others = groups(module)
    adamw = {"weight_decay": optim.weight_decay, "betas": tuple(optim.betas), "fused": True}
    if optim.name == "adamw":
        decayed = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        return [torch.optim.AdamW(decayed, lr=optim.lr, **adamw)]
    made = []
    if matrices:
        made.append(Muon(matrices, lr=optim.lr, weight_decay=optim.weight_decay))
    if others:
        made.append(torch.optim.AdamW(others, lr=optim.other_lr, **adamw | {"weight_decay": 0.0}))
    return made


def schedule(optimizer: torch.optim.Optimizer, optim: Optim) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, cosine decay to ``final`` of the peak."""

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / optim.steps)))
        return min(1.0, (step + 1) / optim.warmup) * (optim.final + (1 - optim.final) * cosine)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

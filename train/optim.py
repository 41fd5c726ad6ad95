"""The optimizer and learning rate schedule of a config."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import OptimConfig
from .muon import MuonWithAdamW


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters that are matrices inside the network, and all others: embeddings, norms, biases and LoRA.

    Muon on the factors of LoRA would move every direction of a pretrained matrix alike, and the model would lose the
    language that it had before.
    """
    matrices, others = [], []
    for name, p in module.named_parameters():
        if p.requires_grad:
            is_inner = p.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "lora_"))
            (matrices if is_inner else others).append(p)
    return matrices, others


def make_optimizer(module: nn.Module, optim: OptimConfig) -> MuonWithAdamW:
    """One optimizer for all trainable parameters of a module."""
    matrices, others = split_parameters(module)
    is_muon, scale = optim.name == "muon", optim.head_lr_scale
    head = {id(p) for name, p in module.named_parameters() if scale != 1 and ".head." in f".{name}"}
    groups = []
    for prefix, factor in (("", 1.0), ("head ", scale)):
        own = [[p for p in part if (id(p) in head) == bool(prefix)] for part in (matrices, others)]
        groups += [
            {
                "name": f"{prefix}matrices",
                "params": own[0],
                "rule": "muon" if is_muon else "adamw",
                "lr": factor * optim.lr,
                "weight_decay": optim.weight_decay,
            },
            {
                "name": f"{prefix}others",
                "params": own[1],
                "rule": "adamw",
                "lr": factor * (optim.adamw_lr if is_muon else optim.lr),
                "weight_decay": 0.0,
            },
        ]
    return MuonWithAdamW([group for group in groups if group["params"]], optim.betas)


def make_schedule(optimizer: torch.optim.Optimizer, optim: OptimConfig) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then cosine decay to ``min_lr_ratio`` of the peak; the same factor for every parameter group."""

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / optim.max_steps)))
        return min(1.0, (step + 1) / optim.warmup_steps) * (optim.min_lr_ratio + (1 - optim.min_lr_ratio) * cosine)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

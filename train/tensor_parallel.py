"""Tensor parallelism: processes share the matrices of each layer by columns or rows, as the stock model's plan says
(``base_model_tp_plan`` of its config; Megatron-LM 1909.08053)."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

HEADS = 2  # dimension of heads in (B, N, heads, width), where norms of queries and keys read them

STYLES: dict[str, type[ParallelStyle]] = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}


def parallelize(text_model: nn.Module, mesh: DeviceMesh) -> None:
    """Split the matrices of a stock text model among the processes of a mesh of one dimension."""
    parallelize_module(text_model, mesh, {name: style_of(kind) for name, kind in plan_of(text_model).items()})


def plan_of(text_model: nn.Module) -> dict[str, str]:
    """Pattern of module names -> how their matrices are split; empty where the stock model has no plan."""
    return text_model.config.base_model_tp_plan or {}


def style_of(kind: str) -> ParallelStyle:
    if kind == "replicated_with_grad_allreduce":  # a norm of queries or keys: each process sees its own heads only
        return SequenceParallel(sequence_dim=HEADS, use_local_output=True)
    return STYLES[kind]()


def check_plan(text_model: nn.Module, size: int) -> None:
    """Raises ValueError if a text model cannot be shared by so many processes."""
    plan, config = plan_of(text_model), text_model.config
    known = {*STYLES, "replicated_with_grad_allreduce"}
    if not plan or set(plan.values()) - known:
        raise ValueError(
            f"tensor_parallel_size={size}: transformers has no plan for {config.model_type!r} that this version knows. "
            "Set 1."
        )
    counts = {
        "attention heads": config.num_attention_heads,
        "key-value heads": config.num_key_value_heads,
        "channels inside the MLP": config.intermediate_size,
    }
    for name, count in counts.items():
        if count % size:
            raise ValueError(
                f"tensor_parallel_size={size}: the text model has {count} {name}, which {size} processes cannot share "
                "equally. Set a divisor of that."
            )

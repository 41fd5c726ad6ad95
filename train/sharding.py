"""FSDP2: every process keeps a part of each weight, of its gradient and of its optimizer state (``fsdp: true``), and may
share the matrices of each layer with others (``tensor_parallel_size``).

Weights are gathered layer by layer at their first use in a step. Without ``fsdp_reshard_after_forward`` they stay whole
until the backward pass has used them: processes may then make unequally many forward passes (rollouts of any length, one
more pass for a batch with sketches). Every process must go backward through the model equally often, and each time to
the same weights; :class:`PassCounter` sees to that where a method makes a pass for each latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective

from .config import RLTrainingConfig, StagedConfig
from .tensor_parallel import check_plan, parallelize

SAME_TYPE = (
    "fsdp: weights in 16 bits cannot train beside a head in 32 bits. Set precision to bf16-mixed, and "
    "backbone.options.dtype to float32."
)
DATA, TENSOR = "data_parallel", "tensor_parallel"  # dimensions of Lightning's device mesh


@dataclass(frozen=True)
class ShardingOptions:
    """How weights are split; see the keys of these names. ``dtype``: the type of gathered weights of layers (None: that
    of the weights)."""

    reshard_after_forward: bool = False
    cpu_offload: bool = False
    dtype: torch.dtype | None = None

    @classmethod
    def of(cls, config: StagedConfig, objective: Objective) -> ShardingOptions:
        """Those of a config. A teacher that moves follows weights that nothing has rounded."""
        rounds = config.precision == "bf16-mixed" and not objective.has_moving_teacher
        dtype = torch.bfloat16 if rounds else None
        return cls(config.fsdp_reshard_after_forward, config.fsdp_cpu_offload, dtype)


def shard(reasoner: LatentReasoner, mesh: DeviceMesh, options: ShardingOptions | None = None) -> None:
    """Split the weights of a reasoner among the processes of a mesh with the dimensions ``data_parallel`` and
    ``tensor_parallel``: each layer of its text model, and all others.

    With mixed precision, layers are gathered in 16 bits. Autocast would round these weights for every product anyway;
    embeddings and heads stay in the type that they have.
    """
    options = options or ShardingOptions()
    if mesh[TENSOR].size() > 1:
        parallelize(reasoner.backbone.text_model, mesh[TENSOR])
    policy = CPUOffloadPolicy(pin_memory=mesh.device_type != "cpu") if options.cpu_offload else OffloadPolicy()
    rounding = MixedPrecisionPolicy(param_dtype=options.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in reasoner.backbone.text_model.layers:
        fully_shard(
            layer,
            mesh=mesh[DATA],
            reshard_after_forward=options.reshard_after_forward,
            mp_policy=rounding if options.dtype else MixedPrecisionPolicy(),
            offload_policy=policy,
        )
    whole_ones = encoder_parameters(reasoner)
    fully_shard(
        reasoner, mesh=mesh[DATA], reshard_after_forward=False, offload_policy=policy, ignored_params=whole_ones
    )
    # Which layer is gathered next in the backward pass must not follow from the forward passes of this process.
    for before, layer in pairwise([reasoner.backbone.text_model.layers[0], *reasoner.backbone.text_model.layers]):
        layer.set_modules_to_backward_prefetch([before])
    reasoner.set_modules_to_backward_prefetch([reasoner])
    reasoner(LatentReasoner.latent_grid_for, None)  # FSDP takes the module that is called first for the root
    reasoner.reshard()  # that call has gathered its own weights, which an optimizer must not see whole


def encoder_parameters(reasoner: LatentReasoner) -> set[torch.nn.Parameter]:
    """The frozen parameters that encode images, which also happens between two passes: every process holds them whole."""
    found = [
        *reasoner.backbone.vision_parameters,
        *(reasoner.target.parameters() if reasoner.target is not None else ()),
    ]
    return {p for p in found if not p.requires_grad}


def move_all_but_layers(reasoner: LatentReasoner, device: torch.device | str) -> None:
    """Move what is needed before the weights are split. Layers of the text model go to the device one after the other when
    they are split, so that no device holds them all."""
    inside = set(reasoner.backbone.text_model.layers.modules())
    for module in reasoner.modules():
        if module not in inside:
            for p in module.parameters(recurse=False):
                p.data = p.data.to(device)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))


def make_strategy(config: StagedConfig, processes: int) -> ModelParallelStrategy:
    """Lightning's strategy for sharded weights on so many processes.

    Raises:
        ValueError: groups of ``tensor_parallel_size`` processes do not come out even.
    """
    size = config.tensor_parallel_size
    check_groups(size, processes)
    kind = OffloadStrategy if config.fsdp_cpu_offload else ModelParallelStrategy
    return kind(data_parallel_size=processes // size, tensor_parallel_size=size)


def check_groups(size: int, processes: int) -> None:
    """Raises ValueError if so many processes cannot form groups of ``tensor_parallel_size``."""
    if processes % size:
        raise ValueError(
            f"tensor_parallel_size={size}: {processes} processes cannot form groups of {size}. Set a divisor of {processes}."
        )


class OffloadStrategy(ModelParallelStrategy):
    """Leaves weights in main memory, from where FSDP2 takes them to the device layer by layer. Their gradients are
    added up there, too."""

    def __init__(self, **sizes: int):
        super().__init__(**sizes, process_group_backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else None)

    def model_to_device(self) -> None:
        """FSDP2 has moved buffers when it split the model."""


def is_sharded(reasoner: LatentReasoner) -> bool:
    return isinstance(reasoner, FSDPModule)


@contextmanager
def whole(reasoner: LatentReasoner, options: ShardingOptions | None = None) -> Iterator[None]:
    """All weights of a reasoner on every process, for decoding; with tensor parallelism, on every process of those that
    share matrices, which must then decode the same. Every process has to enter; inside, none waits for another that has
    other data. Does nothing to a model that is not sharded. ``options``: those that it was sharded with."""
    parts = [module for module in reasoner.modules() if isinstance(module, FSDPModule)]
    frees_layers = bool(parts) and options is not None and options.reshard_after_forward
    for part in parts:
        part.unshard()
    if frees_layers:
        set_reshard_after_forward(reasoner, False)
    try:
        with autocast_to_layers(reasoner) if parts else nullcontext():
            yield
    finally:
        if frees_layers:
            set_reshard_after_forward(reasoner, True)
        for part in parts:
            part.reshard()


def set_reshard_after_forward(reasoner: LatentReasoner, frees_layers: bool) -> None:
    """Whether a layer's gathered weights are freed after its forward pass."""
    for layer in reasoner.backbone.text_model.layers:
        layer.set_reshard_after_forward(frees_layers, recurse=False)


def autocast_to_layers(reasoner: LatentReasoner) -> AbstractContextManager:
    """Autocast to the type of gathered layers where mixed precision has rounded them; else what is on already."""
    gathered_type = next(reasoner.backbone.text_model.layers.parameters()).dtype
    if gathered_type == reasoner.backbone.model.get_input_embeddings().weight.dtype:
        return nullcontext()
    return torch.autocast(reasoner.device.type, gathered_type)


def gathered(reasoner: LatentReasoner) -> dict[str, torch.Tensor]:
    """All weights on the first process, in main memory; every process has to call this."""
    return get_model_state_dict(reasoner, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def at_hand(parameters: Iterator[torch.nn.Parameter]) -> Iterator[torch.nn.Parameter]:
    """The trainable parameters that are whole at the moment."""
    return (p for p in parameters if p.requires_grad and not isinstance(p, DTensor))


class PassCounter:
    """Counts the passes through a text model whose backward pass splits gradients, so that all processes make as many.

    ``group`` is a group of all processes with a CPU backend.
    """

    def __init__(self, text_model: torch.nn.Module, group: dist.ProcessGroup):
        self.group, self.count = group, 0
        text_model.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, args: tuple) -> None:
        self.count += torch.is_grad_enabled()

    def make_missing(self, reasoner: LatentReasoner) -> torch.Tensor:
        """Make the passes that another process made more since the last call. Every process must call it.

        Returns:
            zero (scalar), whose backward pass goes back through them.
        """
        most = torch.tensor(self.count)
        dist.all_reduce(most, dist.ReduceOp.MAX, self.group)
        zero = torch.zeros((), device=reasoner.device)
        for _ in range(int(most) - self.count):
            zero = zero + reasoner(pass_of_zeros)
        self.count = 0
        return zero


def pass_of_zeros(reasoner: LatentReasoner) -> torch.Tensor:
    """Zero (scalar), from a pass of one position through the text model; its backward pass meets every layer."""
    backbone = reasoner.backbone
    ids = torch.zeros(1, 1, dtype=torch.long, device=reasoner.device)
    embeds = backbone.pad_extra(backbone.embed(ids).detach()).requires_grad_()
    states = backbone.forward_text(embeds, torch.ones_like(ids), torch.zeros_like(ids).expand(3, 1, 1))
    return 0 * states.sum()


def clip_grad_norm(parameters: Iterable[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale gradients, which may be split among different processes, down to this norm; returns the norm that they had
    (scalar)."""
    groups: dict[DeviceMesh | None, list[torch.nn.Parameter]] = {}
    for p in parameters:
        if p.grad is not None:
            groups.setdefault(p.grad.device_mesh if isinstance(p.grad, DTensor) else None, []).append(p)
    norms = [torch.nn.utils.get_total_norm([p.grad for p in group]) for group in groups.values()]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
    for group in groups.values():
        torch.nn.utils.clip_grads_with_norm_(group, max_norm, norm)
    return norm


def check_supported(config: StagedConfig, reasoner: LatentReasoner, objective: Objective) -> None:
    """Raises ValueError for what cannot be split: where processes would go through the model unequally often, or where
    an optimizer or a weight cannot be split. The trainable parts are chosen."""
    if not config.fsdp:
        return check_keys(config)
    is_rl = isinstance(config, RLTrainingConfig)
    unrolls = reasoner.can_sketch and (objective.unrolls_latents or objective.latent_input == "self")
    if unrolls and is_rl and config.rl.sft_coef:
        raise ValueError(
            f"rl.sft_coef: with fsdp, gold traces cannot train {config.method.name!r}, which makes one pass for each latent "
            "of a row. Remove one of the two keys."
        )
    if objective.takes_gradients:
        raise ValueError(
            f"fsdp: {config.method.name!r} with these options takes a gradient inside its loss. Remove the key."
        )
    if config.fsdp_reshard_after_forward and (is_rl or not objective.makes_one_pass):
        raise ValueError(
            "fsdp_reshard_after_forward: processes make unequally many passes with this method and command. Remove the key."
        )
    if config.tensor_parallel_size > 1:
        check_tensor_parallel(config, reasoner, objective, is_rl)
    if config.optim.name == "muon":
        raise ValueError("fsdp: Muon needs whole matrices. Set optim.name to adamw.")
    if reasoner.backbone.bits:
        raise ValueError("fsdp: weights rounded to 4 bits cannot be split. Remove backbone.options.bits.")
    if config.precision == "bf16-true":
        raise ValueError(SAME_TYPE)
    layers = list(reasoner.backbone.text_model.layers)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    others = [p for p in reasoner.parameters() if id(p) not in inside]
    for parameters in (*(layer.parameters() for layer in layers), others):
        if len({p.dtype for p in parameters if p.requires_grad}) > 1:
            raise ValueError(SAME_TYPE)


def check_keys(config: StagedConfig) -> None:
    """Raises ValueError for keys that need ``fsdp``."""
    for name, default in (
        ("fsdp_reshard_after_forward", False),
        ("fsdp_cpu_offload", False),
        ("tensor_parallel_size", 1),
    ):
        if getattr(config, name) != default:
            raise ValueError(f"{name} is an option of fsdp. Set fsdp to true, or remove the key.")


def check_tensor_parallel(config: StagedConfig, reasoner: LatentReasoner, objective: Objective, is_rl: bool) -> None:
    """Raises ValueError where processes cannot share matrices."""
    size = config.tensor_parallel_size
    if is_rl:
        raise ValueError("tensor_parallel_size: rollouts need whole matrices. Remove the key.")
    if objective.has_teacher or objective.has_moving_teacher:
        raise ValueError(
            f"tensor_parallel_size: the teacher of {config.method.name!r} needs whole matrices. Remove the key."
        )
    if reasoner.backbone.adapter is not None:
        raise ValueError(
            "tensor_parallel_size: matrices with a LoRA adapter cannot be shared. Remove one of the two keys."
        )
    check_plan(reasoner.backbone.text_model, size)

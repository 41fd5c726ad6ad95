"""FSDP2: every process keeps a part of each weight, its gradient and its optimiser state (``sharded: true``).

Weights are gathered layer by layer at their first use in a step and stay whole until the backward pass has used them,
so that how often a layer is called before that (rollouts of any length, one pass more for a batch with sketches) needs
no agreement between processes. What needs it: every process goes backward through the model equally often, and each
time to the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from latent_reason.model.reasoner import LatentReasoner

from .config import Recipe


def shard(reasoner: LatentReasoner, mesh: DeviceMesh) -> None:
    """Split the weights of a reasoner among the processes of a mesh: each layer of its text model, and all the rest."""
    for layer in reasoner.backbone.text_model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=False)
    fully_shard(reasoner, mesh=mesh, reshard_after_forward=False)
    reasoner(LatentReasoner.latent_grid_for, None)  # the module whose forward runs first becomes the root


def is_sharded(reasoner: LatentReasoner) -> bool:
    return isinstance(reasoner, FSDPModule)


@contextmanager
def whole(reasoner: LatentReasoner) -> Iterator[None]:
    """All weights of a reasoner on every process, for what a process decodes by itself. Every process has to come here;
    within, none waits for another. Does nothing to what is not sharded."""
    parts = [module for module in reasoner.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()


def gathered(reasoner: LatentReasoner) -> dict[str, torch.Tensor]:
    """All weights on the first process, in its main memory; every process has to ask."""
    return get_model_state_dict(reasoner, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def at_hand(parameters: Iterator[torch.nn.Parameter]) -> Iterator[torch.nn.Parameter]:
    """Those of the parameters that train and are whole at the moment."""
    return (p for p in parameters if p.requires_grad and not isinstance(p, DTensor))


def refuse(recipe: Recipe, module) -> None:
    """Raises ValueError for what cannot be trained sharded: where processes would go backward unequally often, or what
    trains is not all in the reasoner."""
    reasoner = module.reasoner
    if hasattr(module, "decoder"):
        raise ValueError("sharded: a sketch decoder trains whole. Leave the key out.")
    objective = getattr(module, "objective", None) or module.sft
    if reasoner.can_sketch and (objective.unrolls_latents or objective.latent_input == "self"):
        raise ValueError(
            f"sharded: {recipe.method.name!r}, as it is set, goes through rows piece by piece, as often "
            "as they have latents, which differs between processes. Leave the key out."
        )
    if recipe.rl.views:
        raise ValueError(
            "sharded: rl.views score other rollouts, of lengths that differ between processes. Leave one "
            "of the two out."
        )
    if recipe.optim.name == "muon":
        raise ValueError("sharded: Muon needs whole matrices. Set optim.name to adamw.")
    if reasoner.backbone.bits:
        raise ValueError("sharded: weights rounded to 4 bits cannot be split. Leave backbone.options.bits out.")

"""Which attention a backbone uses. ``settle`` resolves ``attn`` once, for a model that stands where it will run.

Flash attention knows no mask of what each position may see, and float16 and bfloat16 only: weights in float32 rule it
out in mixed precision too, as what runs outside of autocast (decoding held-out items, say) would hand it float32.
PyTorch's own ``sdpa`` takes everything everywhere, ``eager`` is the textbook. Nothing is ever fetched from the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .base import Backbone


@dataclass(frozen=True)
class Flash:
    """A flash-attention package: the GPUs it runs on, (major, minor) capabilities from ``oldest`` to ``newest``."""

    package: str
    oldest: tuple[int, int]
    newest: tuple[int, int]
    install: str


#: by the name that transformers knows, the one to prefer first
FLASH = {
    "flash_attention_2": Flash(
        "flash-attn",
        (8, 0),
        (12, 9),
        'pip install setuptools wheel ninja packaging && pip install --no-build-isolation "flash-attn>=2.8.3,<3"',
    ),
    "flash_attention_3": Flash(
        "flash-attn-3",
        (9, 0),
        (9, 9),
        "build the folder hopper of https://github.com/Dao-AILab/flash-attention (no package index has it)",
    ),
    "flash_attention_4": Flash("flash-attn-4", (9, 0), (12, 9), 'pip install "flash-attn-4[cu13]>=4.0.0b36"'),
}
NAMES = ("auto", "sdpa", "eager", *FLASH)


@dataclass(frozen=True)
class Machine:
    """What attention depends on: the GPU with its capability, and which names of ``FLASH`` are installed."""

    torch: str
    gpu: str | None = None
    capability: tuple[int, int] = (0, 0)
    installed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choice:
    """``name`` as transformers knows it, and why."""

    name: str
    reason: str


def look() -> Machine:
    """The machine at hand."""
    from transformers import utils  # its probes tell flash-attn from flash-attn-4, which share a module name

    if not torch.cuda.is_available():
        return Machine(torch.__version__)
    probes = (utils.is_flash_attn_2_available, utils.is_flash_attn_3_available, utils.is_flash_attn_4_available)
    return Machine(
        torch.__version__,
        torch.cuda.get_device_name(),
        torch.cuda.get_device_capability(),
        frozenset(name for name, there in zip(FLASH, probes, strict=True) if there()),
    )


def choose(attn: str, *, dtype: torch.dtype, device: str, masks: bool, machine: Machine | None = None) -> Choice:
    """What ``attn`` means for weights of a ``dtype`` on a ``device`` (``cuda``, ``cpu``), with ``masks`` of what each
    position may see or without: ``auto`` is flash attention where it can be used, else ``sdpa``.

    Raises:
        ValueError: no such name; or what was asked for cannot be used, as nothing else is ever taken in its place.
    """
    if attn not in NAMES:
        raise ValueError(f"attn={attn!r}: one of {', '.join(NAMES)}.")
    machine = machine or look()
    if attn == "auto":
        against = {name: obstacle(name, dtype, device, masks, machine) for name in FLASH}
        fits = next((name for name in FLASH if not against[name]), None)
        return (
            Choice(fits, f"{FLASH[fits].package} is installed and runs on the {machine.gpu}")
            if fits
            else Choice("sdpa", ", ".join(dict.fromkeys(against.values())))
        )
    if against := obstacle(attn, dtype, device, masks, machine):
        gpu = f"{machine.gpu}, capability {dotted(machine.capability)}" if machine.gpu else "no GPU"
        install = f"Install it ({FLASH[attn].install}) or set" if against.endswith("not installed") else "Set"
        raise ValueError(
            f"attn={attn} cannot be used: {against} (torch {machine.torch}, {gpu}, dtype "
            f"{str(dtype).removeprefix('torch.')}). {install} attn to sdpa or auto."
        )
    return Choice(attn, "as asked for")


def obstacle(name: str, dtype: torch.dtype, device: str, masks: bool, machine: Machine) -> str:
    """Why the attention ``name`` cannot be used; empty where it can."""
    if name == "sdpa":
        return ""
    if masks:
        return (
            "positions have masks of their own (a bottleneck, a veil, two-way blocks, own latents in packed rows), "
            "which sdpa alone takes"
        )
    if name == "eager":
        return ""
    flash = FLASH[name]
    if device != "cuda":
        return f"the model is on the {device.upper()} and flash attention runs on CUDA"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"the weights are {str(dtype).removeprefix('torch.')} and flash attention takes bfloat16 and float16"
    if not flash.oldest <= machine.capability <= flash.newest:
        return (
            f"{flash.package} runs on GPUs of capability {dotted(flash.oldest)} to {dotted(flash.newest)} and the "
            f"{machine.gpu} has {dotted(machine.capability)}"
        )
    return "" if name in machine.installed else f"{flash.package} is not installed"


def dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def settle(backbone: Backbone, attn: str, *, masks: bool = False) -> Choice:
    """Have a backbone attend as ``attn`` says, on the device it is on. Raises as :func:`choose`."""
    model = backbone.model
    choice = choose(attn, dtype=model.dtype, device=model.device.type, masks=masks or backbone.masks)
    model.set_attn_implementation(choice.name)
    return choice

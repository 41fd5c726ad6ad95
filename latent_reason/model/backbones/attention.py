"""Which attention implementation a backbone uses. ``set_attention`` resolves it once, for a model on its device.

Flash attention takes no mask for each position, and only float16 and bfloat16. Weights in float32 exclude it in mixed
precision too, because code outside of autocast (decoding held-out items, for example) would pass it float32. PyTorch's
``sdpa`` takes everything everywhere; ``eager`` is the textbook formula. Nothing is downloaded from the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .base import Backbone


@dataclass(frozen=True)
class Flash:
    """A flash-attention package and its GPUs: (major, minor) compute capabilities from ``oldest`` to ``newest``."""

    package: str
    oldest: tuple[int, int]
    newest: tuple[int, int]
    install: str


#: by the name in transformers, the preferred one first
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
    """What the choice depends on: the GPU with its compute capability, and which names of ``FLASH`` are installed."""

    torch: str
    gpu: str | None = None
    capability: tuple[int, int] = (0, 0)
    installed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choice:
    """The implementation by its name in transformers, and the reason for it."""

    name: str
    reason: str


def inspect_machine() -> Machine:
    """The current machine."""
    from transformers import utils  # flash-attn and flash-attn-4 share a module name

    if not torch.cuda.is_available():
        return Machine(torch.__version__)
    probes = (utils.is_flash_attn_2_available, utils.is_flash_attn_3_available, utils.is_flash_attn_4_available)
    return Machine(
        torch.__version__,
        torch.cuda.get_device_name(),
        torch.cuda.get_device_capability(),
        frozenset(name for name, is_available in zip(FLASH, probes, strict=True) if is_available()),
    )


def choose_attention(
    attn_implementation: str, *, dtype: torch.dtype, device: str, needs_mask: bool, machine: Machine | None = None
) -> Choice:
    """The implementation for weights of ``dtype`` on a ``device`` (``cuda``, ``cpu``). ``needs_mask``: positions have
    masks of their own. ``auto`` is flash attention where it can be used, otherwise ``sdpa``.

    Raises:
        ValueError: an unknown name, or an implementation that cannot be used. Another one never replaces it.
    """
    attn = attn_implementation
    if attn not in NAMES:
        raise ValueError(f"attn_implementation={attn!r}: must be one of {', '.join(NAMES)}.")
    machine = machine or inspect_machine()
    if attn == "auto":
        against = {name: obstacle(name, dtype, device, needs_mask, machine) for name in FLASH}
        fits = next((name for name in FLASH if not against[name]), None)
        return (
            Choice(fits, f"{FLASH[fits].package} is installed and runs on the {machine.gpu}")
            if fits
            else Choice("sdpa", ", ".join(dict.fromkeys(against.values())))
        )
    if reason := obstacle(attn, dtype, device, needs_mask, machine):
        gpu = f"{machine.gpu}, capability {format_capability(machine.capability)}" if machine.gpu else "no GPU"
        install = f"Install it ({FLASH[attn].install}) or set" if reason.endswith("not installed") else "Set"
        raise ValueError(
            f"attn_implementation={attn} cannot be used: {reason} (torch {machine.torch}, {gpu}, dtype "
            f"{str(dtype).removeprefix('torch.')}). {install} it to sdpa or auto."
        )
    return Choice(attn, "requested")


def obstacle(name: str, dtype: torch.dtype, device: str, needs_mask: bool, machine: Machine) -> str:
    """Why an implementation cannot be used; empty if it can."""
    if name == "sdpa":
        return ""
    if needs_mask:
        return (
            "positions have masks of their own (attention bottleneck, hidden images, bidirectional images, own latents "
            "in packed rows), which only sdpa takes"
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
            f"{flash.package} runs on GPUs of capability {format_capability(flash.oldest)} to {format_capability(flash.newest)} and the "
            f"{machine.gpu} has {format_capability(machine.capability)}"
        )
    return "" if name in machine.installed else f"{flash.package} is not installed"


def format_capability(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def set_attention(backbone: Backbone, attn_implementation: str = "auto", *, needs_mask: bool = False) -> Choice:
    """Set the attention of a backbone on its current device. Raises as :func:`choose_attention`."""
    model = backbone.model
    needs_mask = needs_mask or backbone.has_bidirectional_images
    choice = choose_attention(attn_implementation, dtype=model.dtype, device=model.device.type, needs_mask=needs_mask)
    model.set_attn_implementation(choice.name)
    return choice

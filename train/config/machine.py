"""Whether this machine has the devices and packages that a config names, before any model or data is prepared."""

from __future__ import annotations

import os
from importlib.util import find_spec

PACKAGES = {"trackio": "trackio>=0.40", "wandb": "wandb>=0.24"}  # of loggers, which are extras in pyproject.toml
CPU_PROCESSES = max(8, os.cpu_count() or 1)  # at most, on one machine


def check_machine(config) -> None:
    """Raises ValueError for an accelerator, a number of devices, a precision or a logger that this machine does not have.

    Processes that torchrun started count their devices themselves.
    """
    # they import torch, and --help does not
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

    check_loggers(getattr(config, "logger", []))
    kinds = {  # accelerator of a config -> those of Lightning that it may be
        "gpu": (CUDAAccelerator, MPSAccelerator),
        "cuda": (CUDAAccelerator,),
        "mps": (MPSAccelerator,),
        "tpu": (XLAAccelerator,),
    }
    wanted = kinds.get(config.accelerator, (CUDAAccelerator, MPSAccelerator, XLAAccelerator))
    found = next((kind for kind in wanted if kind.is_available()), None) if config.accelerator != "cpu" else None
    if found is None and config.accelerator in kinds:
        raise ValueError(
            f"accelerator={config.accelerator}: this machine has none that torch can use. Set auto or cpu, or see "
            "latent-reason doctor."
        )
    precision, devices = getattr(config, "precision", "32-true"), getattr(config, "devices", "auto")
    if found is None and precision == "16-mixed":
        raise ValueError("precision=16-mixed: a CPU has no arithmetic in 16 bits. Set bf16-mixed or 32-true.")
    if found is MPSAccelerator and precision == "64-true":
        raise ValueError("precision=64-true: MPS has no numbers of 64 bits. Set 32-true, or accelerator to cpu.")
    most = CPU_PROCESSES if found is None else found.auto_device_count()
    if devices != "auto" and devices > most and "LOCAL_WORLD_SIZE" not in os.environ:
        what = (
            f"at most {most} processes train on the CPU of this machine"
            if found is None
            else f"this machine has {most}"
        )
        raise ValueError(f"devices={devices}: {what}. Set devices to {most} or less, or to auto.")


def count_processes(config) -> tuple[int, int]:
    """(processes on this machine, machines) that train together."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    return 1 if config.devices == "auto" else config.devices, 1


def check_loggers(names: list[str]) -> None:
    """Raises ValueError for a logger whose package is not installed."""
    for name in names:
        if name in PACKAGES and find_spec(name) is None:
            raise ValueError(
                f"logger: {name} is not installed. Run pip install '{PACKAGES[name]}', or name another logger."
            )

"""What GPUs can do, by the data sheets of their maker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """Dense bfloat16 operations a second, and bytes a second of its memory."""

    flops: float
    bandwidth: float


DEVICES = {
    "H100": Device(989e12, 3350e9),
    "H200": Device(989e12, 4800e9),
    "A100": Device(312e12, 2039e9),
}


def device_by_name(name: str) -> Device | None:
    """The device that a full name, such as ``NVIDIA H100 80GB HBM3``, stands for."""
    return next((device for known, device in DEVICES.items() if known in name), None)

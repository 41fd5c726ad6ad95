"""Sizes of models, and how much is measured. The command line reads both before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = {
    "tiny": {"width": 128, "layers": 4, "heads": 4},
    "deep": {"width": 64, "layers": 36, "heads": 2},  # as many layers as Qwen2.5-VL-3B, for what is counted
    "30m": {"width": 512, "layers": 8, "heads": 8},
    "100m": {"width": 768, "layers": 14, "heads": 12},
    "0.5b": {"width": 1280, "layers": 24, "heads": 20},
    "3b": {"width": 2560, "layers": 36, "heads": 20},
}


@dataclass(frozen=True)
class Setting:
    """How much is measured.

    Args:
        size: of the models.
        is_timed: whether anything is timed; if not, only counts are left.
        repeats: turns of what is timed.
        batches: rows of the batches that are decoded next to transformers.
        steps: positions that are decoded.
        counted: steps that are counted.
        rows: rows of the batches whose steps are counted.
        many: rows of the larger batch that is held against one row.
        requests, slots, shortest: of continuous batching; tokens of the shortest request.
        examples: of a training step.
    """

    size: str = "30m"
    is_timed: bool = True
    repeats: int = 7
    batches: tuple[int, ...] = (1, 16, 64)
    steps: int = 48
    counted: int = 8
    rows: int = 16
    many: int = 32
    requests: int = 64
    slots: int = 8
    shortest: int = 16
    examples: int = 8

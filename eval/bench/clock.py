"""Times of functions that take turns, so that a slower moment of the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Ratio(NamedTuple):
    """A ratio of times, over turns."""

    median: float
    least: float
    greatest: float
    turns: int


def read_clock(device: torch.device) -> float:
    """Seconds, once the device has done all that is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    start = read_clock(device)
    run()
    return read_clock(device) - start


def time_in_turns(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each of ``runs`` says it took, in seconds, in each of so many turns. A turn before them warms up. The order
    is reversed from turn to turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(repeats + 1):
        for name in names if turn % 2 else reversed(names):
            took = runs[name]()
            if turn:
                seconds[name].append(took)
    return seconds


def ratio_of(numerator: list[float], denominator: list[float]) -> Ratio:
    """The median of the ratios within each turn, with the least and the greatest."""
    ratios = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], len(ratios))

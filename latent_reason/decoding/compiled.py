"""Compiled steps: one graph for each kind, the text model and the head included."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..model.backbones.cache import SlotCache
from .rows import Rows
from .steps import Kind, Stepper, StepRecord

MOST_GRAPHS = 96  # in a process: three for each batch size, and for each length of a static cache


def compile_steps(stepper: Stepper) -> Callable[..., StepRecord]:
    """:meth:`Stepper.take_step` as one graph for each kind of step, the text model and the head included. On a GPU they
    are CUDA graphs.

    Raises:
        torch._dynamo.exc.Unsupported: at the first step, where a head or a backbone does not compile whole.
    """

    def step(kind: Kind, rows: Rows, cache: SlotCache, has_queue: bool) -> StepRecord:
        record = stepper.take_step(kind, rows, cache, has_queue)
        rows.positions = rows.positions.contiguous()  # of the same layout after every kind, or each would need a graph
        return record

    on_gpu = stepper.no.is_cuda
    step = torch.compile(step, fullgraph=True, dynamic=False, mode="reduce-overhead" if on_gpu else None)

    def take_step(kind: Kind, rows: Rows, cache: SlotCache, has_queue: bool) -> StepRecord:
        torch.compiler.cudagraph_mark_step_begin()
        with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
            record = step(kind, rows, cache, has_queue)
        if not on_gpu:
            return record
        # the next run of a CUDA graph writes where this one has written
        rows.copy_tensors()
        return StepRecord(*(x if x is None else x.clone() for x in record))

    return take_step

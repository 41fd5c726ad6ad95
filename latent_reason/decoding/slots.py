"""What lies on the device in the slots of an engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.backbones.cache import SlotCache
from ..model.batch import MixedBatch, to_device
from ..model.heads.base import HeadContext
from ..model.reasoner import LatentReasoner
from ..model.switching import DONE
from .config import GenerationConfig
from .history import History
from .prompts import ComputedPrompts
from .rows import Rows
from .written import WrittenIds


class Slots:
    """The state of ``size`` rows, their keys and values, and what a head or a hook reads of them.

    Attributes:
        rows, cache: from the first row on.
        is_new: whether there has been no row yet.
        context: for a head that reads more than the state.
        history: states so far, for such a head if ``reads_states``.
        written: ids so far, for hooks on text.
    """

    def __init__(self, model: LatentReasoner, config: GenerationConfig, size: int, *, reads_states: bool):
        self.model, self.config, self.size, self.reads_states = model, config, size, reads_states
        self.rows: Rows
        self.cache: SlotCache
        self.is_new = True
        self.context: HeadContext | None = None
        self.history: History | None = None
        has_hooks = config.has_text_hooks
        self.written = WrittenIds(size, model.vocabulary.pad, model.device) if has_hooks else None

    def place_prompts(
        self, slots: list[int], rows: Rows, computed: ComputedPrompts, prompt: MixedBatch, budget: int
    ) -> None:
        """Put rows that begin into ``slots``, with all that is kept of their prompts. ``budget`` is the largest of
        theirs."""
        context, is_new, config = self.model.head_context(prompt), self.is_new, self.config
        index, layers = to_device(torch.tensor(slots), self.model.device), computed.cache.layers
        if is_new:
            self.place(index, rows, [(layer.keys, layer.values) for layer in layers])
        room = budget + len(config.answer_prefix) + config.answer_budget + 2
        self.cache.reserve(prompt.ids.shape[1] + (room if self.cache.static else 0))
        self.cache.fill(index, computed.cache, computed.rows, computed.pads)
        if not is_new:  # last: an error before it leaves no row that nobody knows
            self.place(index, rows, [])
        if self.written is not None:
            self.written.admit(index, prompt.ids)
        if context is None:
            return
        if self.context is None:
            self.context = context.select(self._every_slot(index))
            self.history = History(self.size, self.model.device) if self.reads_states else None
        else:
            self.context.put(index, context)
            self.model.head.reset_memory(self.context.memory, index)
        if self.history is not None:
            self.history.forget(slots)

    def place(self, index: torch.Tensor, rows: Rows, like: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put rows into the slots ``index`` (n,). ``like`` are keys and values of the sizes of the model's."""
        if self.is_new:  # every slot needs some row; those without one of their own have ended
            self.cache = SlotCache(like, self.size, self.config.cache_implementation == "static")
            self.rows = rows.select(self._every_slot(index))
            empty = torch.ones(self.size, dtype=torch.bool, device=index.device).index_fill(0, index, False)
            self.rows.mode = self.rows.mode.masked_fill(empty, DONE)
            self.is_new = False
        else:
            self.rows.put(index, rows)

    def _every_slot(self, index: torch.Tensor) -> torch.Tensor:
        """(S,) for the slots ``index`` (n,) the numbers 0 to n - 1, for the others 0."""
        every = torch.zeros(self.size, dtype=torch.long, device=index.device)
        return every.index_copy(0, index, torch.arange(len(index), device=index.device))

    def select(self, index: torch.Tensor) -> None:
        """Keep these slots only."""
        self.rows, self.size = self.rows.select(index), len(index)
        self.cache.select(index)

    def forget(self, steps: int, width: int) -> None:
        """Forget the first ``steps`` steps, and all but the last ``width`` columns of the ids."""
        if self.history is not None:
            self.history.drop(steps)
        if self.written is not None:
            self.written.keep(width)

"""Keys and values of rows that are at different positions: one slot a row, and a column of its own for each row.

A row's positions lie at columns 0, 1, 2, ... of its slot, without padding. So a slot whose row has ended can take
another row at any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 64  # columns; a cache grows by a multiple of them


class SlotLayer(CacheLayerMixin):
    """Keys and values (S, heads, C, d) of one layer."""

    is_sliding = False

    def __init__(self, cache: SlotCache, keys: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.cache, self.keys, self.values, self.is_initialized = cache, keys, values, True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: it was built with its tensors."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):
        """Write positions (S, heads, Q, d) of every row. Returns keys and values of all columns in use."""
        at, extent = self.cache.columns, self.cache.extent
        dtype = key_states.dtype  # under mixed precision a prompt and a step may differ
        keys = self.keys.scatter_(2, at, key_states.to(self.keys.dtype))
        values = self.values.scatter_(2, at, value_states.to(self.values.dtype))
        if extent is not None:
            keys, values = keys[:, :, :extent], values[:, :, :extent]
        return keys.to(dtype), values.to(dtype)

    def get_seq_length(self) -> int:
        return (self.cache.extent or self.keys.shape[2]) - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + 1, 0

    def get_max_length(self) -> int:
        return self.keys.shape[2]

    get_max_cache_shape = get_max_length  # its name in transformers 5.17


class SlotCache(Cache):
    """A cache of S slots for :meth:`Backbone.forward_text`.

    ``static``: attention reads all columns, so that shapes never change. Otherwise it reads the columns in use.

    Attributes:
        columns: (S, heads, Q, d) the columns each row writes in this step.
        extent: how many columns are read; None: all.
        longest: the largest extent so far: where rows that have ended still write.
    """

    def __init__(self, like: Sequence[tuple[torch.Tensor, torch.Tensor]], num_slots: int, static: bool = False):
        """``like`` are keys and values (..., heads, C, d) of each layer of the model; only their sizes are used."""
        super().__init__(
            layers=[
                SlotLayer(self, *(x.new_zeros(num_slots, x.shape[-3], 0, x.shape[-1]) for x in pair)) for pair in like
            ]
        )
        self.static, self.capacity, self.longest = static, 0, 0
        self.extent: int | None = None
        self.columns: torch.Tensor

    def reserve(self, columns: int) -> None:
        """Have room for at least so many columns; where it grows step by step, for a quarter more. Layers grow one after
        the other, so that the old columns of one layer only are held beside the new ones."""
        if columns <= self.capacity:
            return
        columns = columns if self.static else max(columns, self.capacity + self.capacity // 4)
        more = -(-columns // GROWTH) * GROWTH
        for layer in self.layers:
            layer.keys, layer.values = (
                torch.cat([x, x.new_zeros(*x.shape[:2], more - self.capacity, x.shape[3])], 2)
                for x in (layer.keys, layer.values)
            )
        self.capacity = more

    def fill(self, slots: torch.Tensor, prefix: Cache, rows: torch.Tensor, pads: torch.Tensor) -> None:
        """Copy rows of a stock cache of a left-padded prompt to slots. ``rows`` (n,) are their rows there, and ``pads``
        (n,) their numbers of padding positions."""
        length = prefix.layers[0].keys.shape[2]
        column = (pads[:, None] + torch.arange(length, device=pads.device)).clamp_max(length - 1)
        for layer, source in zip(self.layers, prefix.layers, strict=True):
            for mine, its in ((layer.keys, source.keys), (layer.values, source.values)):
                mine[slots, :, :length] = its[rows[:, None], :, column].transpose(1, 2)
                mine[slots, :, length:] = 0  # a NaN of the row before would pass through its mask

    def set_extent(self, extent: int, width: int = 1) -> None:
        """Say how many columns active rows use after the next step, in which each writes at most ``width`` positions.
        A row that has ended writes behind its last column, which nobody reads, and may be longer than they are."""
        self.longest = max(self.longest, extent)
        self.reserve(self.longest + width)
        self.extent = None if self.static or extent == self.capacity else extent

    def set_columns(self, columns: torch.Tensor) -> torch.Tensor:
        """Say which columns (S, Q) each row writes in the next step. Returns the columns (E,) that attention reads."""
        _, heads, _, width = self.layers[0].keys.shape
        self.columns = columns[:, None, :, None].expand(-1, heads, -1, width)
        return torch.arange(self.extent or self.capacity, device=columns.device)

    def read(self, slot: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A copy of the first ``length`` columns of a slot: keys and values (heads, length, d) of each layer."""
        return [(layer.keys[slot, :, :length].clone(), layer.values[slot, :, :length].clone()) for layer in self.layers]

    def write(self, slot: int, columns: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put what :meth:`read` gave into a slot."""
        for layer, (keys, values) in zip(self.layers, columns, strict=True):
            for mine, columns_of_row in ((layer.keys, keys), (layer.values, values)):
                mine[slot, :, : keys.shape[1]], mine[slot, :, keys.shape[1] :] = columns_of_row, 0

    def select(self, slots: torch.Tensor) -> None:
        """Keep these slots only."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[slots], layer.values[slots]

"""What code does, as counts that no clock can disturb: tensor operations, reads by the host, bytes of weights.

On a GPU each read by the host waits for all the work that is queued.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: operators whose result, or the shape of it, the host reads
READS = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
MASKED = {
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
    "_unsafe_index",
}  # by a mask, they look for its places


class HostReads(TorchDispatchMode):
    """Counts the host's reads of tensors by the line of this project that made them.

    Example:
        >>> with HostReads() as reads:
        ...     loss.backward()
        >>> reads.total, reads.lines
    """

    def __init__(self):
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.lists = ToLists(self)

    @property
    def total(self) -> int:
        return self.lines.total()

    def __enter__(self):
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self.lists.__exit__(*raised)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_tensor = name != "repeat_interleave" or function._overloadname.startswith(("Tensor", "self_Tensor"))
        if (name in READS and by_tensor) or (name in MASKED and any(is_mask(index) for index in args[1])):
            self.note(name)
        return function(*args, **kwargs or {})

    def note(self, name: str) -> None:
        here = [frame for frame in traceback.extract_stack() if "/latent_reason/" in frame.filename]
        where = f"{Path(here[-1].filename).name}:{here[-1].lineno} {here[-1].name}" if here else "elsewhere"
        self.lines[f"{name} in {where}"] += 1


class ToLists(TorchFunctionMode):
    """Notes reads of whole tensors, which are no operators where the tensor is on the CPU."""

    def __init__(self, reads: HostReads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.tolist, torch.Tensor.cpu):
            self.reads.note(function.__name__)
        return function(*args, **kwargs or {})


def is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


class Operations(TorchDispatchMode):
    """Counts tensor operations by name, views included."""

    def __init__(self):
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names[str(function)] += 1
        return function(*args, **kwargs or {})


def count_operations(run: Callable[[], Any]) -> int:
    """Tensor operations of one call, views included."""
    with Operations() as counted:
        run()
    return counted.names.total()


class WeightBytes(TorchDispatchMode):
    """Adds up the bytes of ``weights`` that operations read. Of a table of embeddings, they read the rows they look up;
    a weight that several operations read counts several times. Views and new tensors like a weight read nothing."""

    def __init__(self, weights: Iterable[torch.Tensor]):
        super().__init__()
        self.storages = {storage_of(weight) for weight in weights}
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        read = [x for x in read if storage_of(x) in self.storages]
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        name = function.overloadpacket.__name__
        if name in ("embedding", "index", "gather"):
            self.total += sum(x.nbytes for x in made) if read else 0
        elif not name.startswith("new_") and not any(storage_of(x) in self.storages for x in made):
            self.total += sum(x.nbytes for x in read)
        return out


def storage_of(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()

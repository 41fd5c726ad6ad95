"""A training step without its numbers: tensors that depend on weights or pixels have a shape and no values (fake tensors
of torch), all others (ids, positions, spans, masks, loss weights) are computed as usual.

So code that reads positions or grids on the host runs as it is, and a step of a model of any size takes seconds and little
memory. While it runs, every allocation and every matrix product is counted.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

from ..sharding import local

aten = torch.ops.aten
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_)


def attention_flops(query, key, value, *args, **kwargs) -> int:
    """From shapes (B, heads, N, width). A mask saves nothing, as in torch's own formulas."""
    return sdpa_flop_count(query, key, value)


def attention_backward_flops(grad, query, key, value, *args, **kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


#: what torch does not count, attention on a CPU, as an argument of its FlopCounterMode
ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}
FORMULAS = flop_registry | {name: shape_wrapper(formula) for name, formula in ATTENTION.items()}


#: what is assumed of values that nobody knows: equal if shapes are, true, and nothing is found that a check looks for
ASSUMPTIONS = {
    aten.equal.default: lambda a, b: a.shape == b.shape,
    aten._local_scalar_dense.default: lambda a: torch.ones((), dtype=a.dtype).item(),
    aten.nonzero.default: lambda a: torch.empty(0, a.ndim, dtype=torch.long),
}


class Accountant(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, by kind, and the arithmetic, by phase; of real and fake tensors alike.

    A new tensor is of the kind of the current phase, or ``logits`` if its rows are as wide as the vocabulary, or ``weights
    in 16 bits`` if mixed precision rounds a weight. Kinds of ``offloaded`` are in main memory, all others on the device.

    Attributes:
        at_peak: bytes by kind when most was alive on the device.
        main_memory: the same of main memory.
        most_gathered: bytes of gathered weights when most of them were.
    """

    def __init__(self, vocab_size: int, mode: FakeTensorMode, offloaded: Collection[str] = ()):
        super().__init__()
        self.vocab_size, self.mode, self.offloaded = vocab_size, mode, offloaded
        self._phase, self._kind, self._times = "setup", "setup", 1.0
        self._alive: dict[int, tuple[weakref.ref, int, str]] = {}  # by id of a storage
        self._bytes, self._main = Counter[str](), Counter[str]()  # of what is alive, on the device and in main memory
        self.restart()

    def restart(self) -> None:
        """Begin to count: the peak is that of what is alive now, and no arithmetic was done."""
        self.at_peak, self.main_memory, self.flops = self._bytes.copy(), self._main.copy(), Counter[str]()
        self.most_gathered = self._bytes["gathered weights"]

    @contextmanager
    def phase(self, name: str, kind: str, times: float = 1) -> Iterator[None]:
        """The block is a phase of a step, whose tensors are of a kind and whose arithmetic is done so many times."""
        before = self._phase, self._kind, self._times
        self._phase, self._kind, self._times = name, kind, times
        try:
            yield
        finally:
            self._phase, self._kind, self._times = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented  # it comes back as operations on the part of this process
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args)  # asked all the time
        if FakeTensor in types:
            if func in ASSUMPTIONS:
                return ASSUMPTIONS[func](*args)
            args = with_indices(func, args)
        with self.mode if func is aten.empty.memory_format else nullcontext():  # memory without values
            out = func(*args, **kwargs)
        if formula := FORMULAS.get(func._overloadpacket):
            self.flops[self._phase] += int(formula(*args, **kwargs, out_val=out) * self._times)
        if func.namespace == "fsdp":
            self._follow_fsdp(tree_leaves((out, kwargs.get("out"))))
        is_copy = func is aten._to_copy.default and self._kind != "weights"
        copies_weight = is_copy and self._kind_of(args[0]) == "weights"
        for made in tree_leaves(out):
            if isinstance(made, torch.Tensor):
                rounds_weight = copies_weight and made.dtype.itemsize < args[0].dtype.itemsize
                is_logits = made.ndim > 1 and made.shape[-1] == self.vocab_size and self._phase != "optimizer"
                self.add(made, "weights in 16 bits" if rounds_weight else "logits" if is_logits else self._kind)
        return out

    def add_module(self, module: nn.Module, kind: str) -> None:
        """Count parameters and buffers of a module that are no weights of another."""
        for tensor in (*module.parameters(), *module.buffers()):
            if self._kind_of(tensor) != "weights":
                self.rename(tensor, kind)

    def add(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor, unless its storage is counted already, or DTensor only asks with it for the shape of a result."""
        if isinstance(tensor, FakeTensor) and tensor.fake_mode is not self.mode:
            return
        storage = local(tensor).untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive or not size:
            return
        self._alive[key] = weakref.ref(storage, lambda _: self._remove(key)), size, kind
        self._count(kind, size)

    def rename(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor as another kind than so far."""
        self.add(tensor, kind)
        key = id(local(tensor).untyped_storage())
        if key in self._alive:
            reference, size, old = self._alive[key]
            self._count(old, -size)
            self._count(kind, size)
            self._alive[key] = reference, size, kind

    def _follow_fsdp(self, made: list) -> None:
        """FSDP2 gathers weights into storages that it frees and takes again by changing their size."""
        for tensor in made:
            if isinstance(tensor, torch.Tensor) and self._phase != "backward":
                self.rename(tensor, "gathered weights")
        for key, (reference, size, kind) in list(self._alive.items()):
            storage = reference()
            if storage is not None and storage.nbytes() != size:
                self._alive[key] = reference, storage.nbytes(), kind
                self._count(kind, storage.nbytes() - size)

    def _count(self, kind: str, size: int) -> None:
        """Count so many more bytes of a kind."""
        if kind in self.offloaded:
            self._main[kind] += size
            if size > 0 and self._main.total() > self.main_memory.total():
                self.main_memory = self._main.copy()
            return
        self._bytes[kind] += size
        self.most_gathered = max(self.most_gathered, self._bytes["gathered weights"])
        if size > 0 and self._bytes.total() > self.at_peak.total():
            self.at_peak = self._bytes.copy()

    def _kind_of(self, tensor: torch.Tensor) -> str | None:
        known = self._alive.get(id(local(tensor).untyped_storage()))
        return known[2] if known else None

    def _remove(self, key: int) -> None:
        _, size, kind = self._alive.pop(key)
        self._count(kind, -size)


def with_indices(func, args: tuple) -> tuple:
    """The arguments of an operation with masks as indices: how many entries a mask chooses is known here, but not where
    everything is fake. A mask without values chooses all."""
    if func._overloadpacket not in INDEXING or len(args) < 2:
        return args
    indices: list[torch.Tensor | None] = []
    for index in args[1]:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            indices.append(index)
        else:
            known = torch.ones(index.shape, dtype=torch.bool) if isinstance(index, FakeTensor) else index
            indices += known.nonzero(as_tuple=True)
    return args[0], indices, *args[2:]


def without_values(module: nn.Module, mode: FakeTensorMode) -> None:
    """Replace the parameters and float buffers of a module, in place, by fake ones of the same shapes on the CPU. Shared
    parameters stay shared."""
    made: dict[int, torch.Tensor] = {}

    def fake(t: torch.Tensor) -> torch.Tensor:
        if id(t) not in made:
            with mode:
                empty = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cpu")
            made[id(t)] = nn.Parameter(empty, t.requires_grad) if isinstance(t, nn.Parameter) else empty
        return made[id(t)]

    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, t in table.items():
                if t is not None and (t.is_floating_point() or t.is_meta):
                    table[name] = fake(t)

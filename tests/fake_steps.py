"""One training step of every method and family on tensors that have a shape, a type and a device, but no values. A read
by the host, or a tensor on the other device, is an error. The device is none that exists.

tests/unit/test_host_reads.py runs this file in a process of its own.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from conftest import ready
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from latent_reason import methods
from latent_reason.contracts.fixtures import CASES, Case, modal_mixed, seen_once, training_batch
from latent_reason.model.backbones.families import FAMILIES

METHODS = [next(case for case in CASES if case.method == name) for name in methods.names()]
OTHERS = [
    Case("monet", {"k": 4, "stage": 2}),
    modal_mixed("flow", "2d", latent_input="self"),
    Case("lvr", {"k": 4, "head": "mlp", "stop": "distance", "supervise": "end_only"}),
]
#: with pixels, or with features where the stock model reads the sizes of images. Qwen3-VL's text model finds the places
#: of DeepStack features by a mask.
READ_SIZES = ("qwen2_vl", "qwen2_5_vl", "llava_onevision")
IMAGES = {name: "features" if name in READ_SIZES else "pixels" for name in FAMILIES if name != "qwen3_vl"}


@pytest.fixture(scope="session")
def device():
    _setup_privateuseone_for_python_backend("nowhere")
    return torch.device("nowhere:0")


def without_values(mode: FakeTensorMode, device: torch.device, x):
    """A tensor without values on the device; lists and the tensors of a batch too, but what stays on the host."""
    if isinstance(x, torch.nn.Parameter):
        return torch.nn.Parameter(without_values(mode, device, x.data), x.requires_grad)
    if isinstance(x, torch.Tensor):
        return FakeTensor(mode, x.to("meta"), device)
    if isinstance(x, list):
        return [without_values(mode, device, item) for item in x]
    if dataclasses.is_dataclass(x):
        x = copy.copy(x)
        for name, part in vars(x).items():
            if name != "grid":
                setattr(x, name, without_values(mode, device, part))
    return x


def forget_values(mode: FakeTensorMode, device: torch.device, *modules: torch.nn.Module) -> None:
    """Replace all parameters and buffers; those that modules share stay shared."""
    known: dict[int, torch.Tensor] = {}
    for module in (m for root in modules for m in root.modules()):
        for tensors in (module._parameters, module._buffers):
            for name, x in tensors.items():
                if x is not None:
                    tensors[name] = known.setdefault(id(x), without_values(mode, device, x))
                    known[id(tensors[name])] = tensors[name]
        for part in (part for name, part in vars(module).items() if name.endswith("scheduler")):
            part.alphas_cumprod = without_values(mode, device, part.alphas_cumprod)  # diffusers moves it once


def step(reasoner, batch, device, monkeypatch) -> None:
    objective, mode = methods.objective_of(reasoner.train()), FakeTensorMode()
    teacher = objective.teacher_module(reasoner)
    forget_values(mode, device, reasoner, *([] if teacher is None else [teacher]))
    batch = without_values(mode, device, batch)
    tensor = torch.tensor

    def without_value(*data, device=None, **kind):  # no kernel of this device copies a list to it
        made = tensor(*data, **kind)
        return torch.empty(made.shape, dtype=made.dtype, device=device)

    with mode, monkeypatch.context() as patched:
        patched.setattr(torch, "tensor", without_value)
        objective.loss_weights(reasoner, batch)
        total = reasoner(objective.loss, batch).total
        total.backward()
    assert total.device == device and any(p.grad is not None for p in reasoner.parameters())


@pytest.mark.parametrize("case", [*METHODS, *OTHERS], ids=str)
def test_method(case, device, make_backbone, make_traces, monkeypatch):
    reasoner = ready(case, make_backbone, make_traces)
    batch = training_batch(reasoner, make_traces(reasoner.can_sketch)[1:3])
    for one in (batch, batch.teacher_batch):
        if one is not None:
            seen_once(reasoner, one)
    step(reasoner, batch, device, monkeypatch)


@pytest.mark.parametrize("family, images", IMAGES.items())
def test_family(family, images, device, make_backbone, make_traces, monkeypatch):
    case = modal_mixed("mlp", stop="close", supervise="full")
    reasoner = ready(case, lambda positions: make_backbone(positions, family), make_traces)
    batch = training_batch(reasoner, make_traces()[1:3])
    step(reasoner, seen_once(reasoner, batch) if images == "features" else batch, device, monkeypatch)

"""Fixtures of the contract tests: a very small backbone, traces with text, images and sketches of many sizes, and a
small version of every method. All images are numpy noise, so no task, download or file is needed.
"""

from __future__ import annotations

import copy
import weakref
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from .. import methods
from ..model.backbones import load_backbone
from ..model.batch import ImageBatch
from ..objectives.latent_inputs import text_since_span
from ..objectives.objective import Objective
from ..trace import Image, Message, Sketch, Text, Trace
from .closeness import arithmetic

CELL = 16  # pixels per token, so that convolutions over patches are small: in float64 they are slow


def pytest_runtest_setup(item):
    torch.manual_seed(0)


def _picture(height: int, width: int, seed: int = 0) -> PILImage.Image:
    """An image of height x width uniform cells, with one token per cell for the tiny backbone."""
    cells = np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PILImage.fromarray(cells.repeat(CELL, 0).repeat(CELL, 1))


@pytest.fixture
def float64():
    """Run the test in float64. Two computations of one value then differ by about 1e-15 on any CPU."""
    with arithmetic("float64"):
        yield


@pytest.fixture(scope="session")
def picture():
    return _picture


@cache
def small_backbone(family: str):
    """The smallest stock model of a family, or a user's ``CLASS@FOLDER``. The weights are scaled up: with the usual std
    of 0.02 a random transformer hardly depends on its context, and tests would not detect swapped rows or positions."""
    with arithmetic("float32"):
        if "@" in family:
            backbone = load_backbone(family)
        else:
            backbone = load_backbone(
                f"tiny-{family}", width=32, layers=2, heads=2, vision_width=32, patch=CELL // 2, cells=2
            )
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            if p.ndim > 1:
                p.mul_(15 if "embed_tokens" in name else 8)
    return backbone


@pytest.fixture(scope="session")
def make_backbone():
    """``make_backbone(latent_positions, family)``: a new copy of a small backbone. Tokens may be added to its
    tokenizer."""

    def make(latent_positions: str = "1d", family: str = "qwen2_5_vl"):
        backbone = copy.deepcopy(small_backbone(family)).to(torch.get_default_dtype())
        backbone.set_latent_positions(latent_positions)
        return backbone

    return make


@pytest.fixture(scope="session")
def make_traces():
    """``make_traces(sketches, same_size)``: four traces of different lengths and image sizes.

    With ``sketches``, three of them have one or two spans of up to four latents or of two. With ``same_size``, every
    sketch has the size of the preceding image and all its latents, as in decoding.
    """

    def drawing(size, seed, k=None):
        return Sketch(_picture(*size, seed), k=k)

    def trace(name, size, question, said, drawn, pictures=1):
        seen = tuple(Image(_picture(*size, seed)) for seed in range(pictures))
        words = [Text(words) for words in said]
        content = [part for pair in zip(words, [*drawn, None], strict=True) for part in pair if part is not None]
        return Trace(name, (Message("user", (*seen, Text(question))), Message("assistant", tuple(content))))

    def make(sketches: bool = True, same_size: bool = False):
        other, k = ((2, 2), 2) if not same_size else ((2, 3), None)
        drawn = [[drawing((2, 3), 1), drawing(other, 2, k)], [drawing((3, 3), 3)], [], [drawing((3, 2), 4, k)]]
        said = [["go", " left then ", "up."], ["now ", "the map is safe: down"], ["yes"], ["", "no, right."]]
        if not sketches:
            drawn, said = [[] for _ in drawn], [["".join(words)] for words in said]
        sizes, pictures = [(2, 3), (3, 3), (2, 2), (3, 2)], [1, 2, 1, 1]
        questions = ["where?", "which way is the goal from here?", "a hole?", "go on"]
        return [trace(str(i), *row) for i, row in enumerate(zip(sizes, questions, said, drawn, pictures, strict=True))]

    return make


# -- small versions of methods -----------------------------------------------------------------------------------------
DENOISER = {"hidden": 64, "depth": 1, "steps": 3, "repeats": 8}
SMALL = {
    "mlp": {"hidden": 64},
    "glu": {"hidden": 64},
    "gaussian": {"hidden": 64},
    "flow": DENOISER,
    "diffusion": DENOISER,
    "mean_flow": DENOISER | {"steps": 1},
    "whole_span": {"hidden": 64, "depth": 1, "longest": 16},
}


class Case(NamedTuple):
    method: str
    options: dict
    latent_positions: str = "1d"

    def __str__(self):
        said = {n: v for n, v in self.options.items() if n not in ("k", "head_options")}
        kind = [] if self.options.get("head_options", {}).get("residual", True) else ["plain"]
        return "-".join([self.method, *map(str, said.values()), *kind, self.latent_positions])


def small(method: str, **options) -> dict:
    """Those options of a method that make it small."""
    known = methods.schema(method)
    head = options.get("head", known["head"].default if "head" in known else None)
    sized = {
        "k": 4,
        "depth": 1,
        "cross_attention_layers": 1,
        "head_options": SMALL.get(head, {}) | options.pop("head_options", {}),
    }
    return {n: v for n, v in sized.items() if n in known} | options


def modal_mixed(head, latent_positions="1d", **options) -> Case:
    return Case("modal_mixed", small("modal_mixed", head=head, **options), latent_positions)


CASES = [Case(name, small(name)) for name in methods.names()] + [
    modal_mixed("mlp", "2d"),
    modal_mixed("mlp", stop="close", supervise="full"),
    modal_mixed("identity", "2d", stop="close", supervise="end_only"),
    modal_mixed("diffusion", head_options={"prediction": "x", "residual": False}),
    modal_mixed("gaussian", "2d"),
    modal_mixed("flow", "2d", stop="close", supervise="full", head_options={"residual": False}),
    modal_mixed("mean_flow"),
    modal_mixed("whole_span", "2d", stop="close", supervise="full"),
    modal_mixed("mlp", latent_input="self", stop="close", supervise="full"),
    modal_mixed("identity", latent_input="self"),
    modal_mixed("flow", "2d", latent_input="self"),
    modal_mixed("whole_span", latent_input="self"),
    Case("mcout", {"thoughts": 3, "multi": True}, "2d"),
    Case("mirage", {"k": 4, "stage": 2}),
    Case("coconut", {"c": 2, "stage": 2, "jacobi_sweeps": 4}),
    modal_mixed("mlp", scheduled_sampling={"noise_std": 0.1, "prob": 0.5}),
    Case("lvr", {"k": 4, "head": "mlp", "stop": "distance", "supervise": "end_only", "standardize": True}),
    Case("lvr", {"k": 4, "head": "glu", "standardize": True, "max_spans": 1}),
    Case("lvr", {"k": 4, "head": "mlp"}),
    Case("lvr", {"k": 4, "head": "glu"}),
]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture
def reasoner(case, make_backbone, make_traces, ready_once):
    return ready_copy(case, make_backbone, make_traces, ready_once)


def ready_copy(case, make_backbone, make_traces, ready_once):
    """A copy of the model of a case. Each is built once for a precision."""
    key = (repr(case), torch.get_default_dtype())
    if key not in ready_once:
        ready_once[key] = ready(case, make_backbone, make_traces)
    torch.manual_seed(0)  # the same random numbers follow, whether it was built now or before
    return copy.deepcopy(ready_once[key])


@pytest.fixture(scope="session")
def ready_once() -> dict:
    return {}


@pytest.fixture
def sketcher(reasoner):
    """The reasoner of a method with sketches."""
    if not reasoner.can_sketch:
        pytest.skip("this method never sketches")
    return reasoner


_objectives: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def objective_for(reasoner) -> Objective:
    """The objective for a model's method and options, cached per model."""
    if reasoner not in _objectives:
        _objectives[reasoner] = methods.objective_of(reasoner)
    return _objectives[reasoner]


def loss_of(reasoner, batch):
    """The loss terms of a batch."""
    return reasoner(objective_for(reasoner).loss, batch)


def training_batch(reasoner, traces):
    """The training batch of the model's objective for the traces."""
    return objective_for(reasoner).collate(reasoner, traces)


@pytest.fixture
def batch(reasoner, make_traces):
    return training_batch(reasoner, make_traces(reasoner.can_sketch))


def ready(case, make_backbone, make_traces):
    """A method with a frozen vision encoder, fitted target statistics and no zero weights (a denoiser is initialized to
    zero, where its output does not depend on its input)."""
    torch.manual_seed(0)
    reasoner = methods.build_method(case.method, make_backbone(case.latent_positions), **case.options)
    torch.nn.ParameterList(reasoner.backbone.vision_parameters).requires_grad_(False)
    for p in reasoner.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    if reasoner.can_sketch and reasoner.target is not None:
        fit(reasoner, training_batch(reasoner, make_traces()))
    return reasoner


def fit(reasoner, batch):
    reasoner.target.fit_statistics(reasoner.target.statistics_samples(batch))


def seen_once(reasoner, batch):
    """The same batch with cached features of its images from frozen encoders, so that training steps are fast."""
    with torch.no_grad():
        if batch.images is not None:
            batch.images = ImageBatch(batch.images.grid, features=reasoner.backbone.image_embeddings(batch.images))
        if batch.sketches is not None:
            seen = reasoner.target.encode_images(batch.sketches)
            batch.sketches = ImageBatch(batch.sketches.grid, features=seen)
    return batch


def slot_by_slot(reasoner, batch, h, noise, draw):
    """(S, K, ...) outputs of ``draw(h, grids, slot, noise, context)``, computed slot by slot for all spans."""
    mask, scene, columns = batch.latent_slots()[2], reasoner.head_context(batch), []
    if scene is not None:
        rows, states = (
            batch.spans[:, 0],
            torch.randn(len(batch.spans), batch.ids.shape[1], h.shape[-1], generator=torch.Generator().manual_seed(0)),
        )
        scene = scene.for_spans(rows, states, text_since_span(batch))  # one row per span
    for j in range(mask.shape[1]):
        own = mask[:, j].nonzero()[:, 0]
        slot = torch.full_like(own, j)
        drawn = draw(h[own, j], batch.spans[own, 2:], slot, noise[own, j], scene and scene.for_rows(own, slot))
        columns.append(drawn.new_zeros(len(mask), drawn.shape[-1]).index_put((own,), drawn))
    return torch.stack(columns, 1)


def eager(reasoner):
    """Make an untrained model open spans and end turns occasionally."""
    plain, v = reasoner.backbone.logits, reasoner.vocabulary
    bias = torch.zeros(len(reasoner.backbone.model.get_output_embeddings().weight))
    bias[v.open], bias[v.end] = 6.0, 4.0
    reasoner.backbone.logits = lambda states: plain(states) + bias
    return reasoner

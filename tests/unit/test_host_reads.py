"""A training step reads nothing back from the device: what the host must know was made with the batch."""

from __future__ import annotations

import pytest
import torch
from conftest import ready
from packed_rows import both
from processes import python
from tiny_runs import ROOT

from eval.bench.counting import HostReads
from latent_reason import methods
from latent_reason.contracts.fixtures import CASES, Case, modal_mixed, seen_once, small, training_batch
from latent_reason.model.backbones.families import FAMILIES
from latent_reason.objectives.objective import RunOptions

METHODS = [next(case for case in CASES if case.method == name) for name in methods.names()]
MORE = [
    modal_mixed("identity", "2d", stop="close", supervise="end_only"),
    pytest.param(modal_mixed("diffusion", latent_input="self"), marks=pytest.mark.slow),
    modal_mixed("gaussian", "2d"),
    modal_mixed("mean_flow"),
    modal_mixed("whole_span", "2d", stop="close", supervise="full"),
    modal_mixed("whole_span", latent_input="self"),
    modal_mixed("mlp", stop="close", supervise="full", scheduled_sampling={"noise_std": 0.1, "prob": 0.5}),
    modal_mixed("mlp", latent_input="blank"),
    Case("coconut", {"c": 2, "stage": 2, "jacobi_sweeps": 2}),
    pytest.param(Case("deepsketcher", small("deepsketcher", own_latents=True)), marks=pytest.mark.slow),
    Case("ilvr", {"k": 4, "stage": 2}),
    Case("latent_sketchpad", small("latent_sketchpad", scheduled_sampling={"prob": 0.5})),
    Case("lvr", {"k": 4, "head": "mlp", "stop": "distance", "supervise": "end_only"}),
    Case("mcout", {"thoughts": 3, "multi": True}, "2d"),
    Case("monet", {"k": 4, "stage": 2}),
]
#: what reads in spite of all, at most, and where: (count, part of the lines)
STOCK_MASK = (2, "call_text_model")  # a stock text model looks whether its mask (B, N) has padding
KNOWN = {
    "ilvr-1d": STOCK_MASK,  # of the teacher
    "deepsketcher-1-True-1d": (50, "deepsketcher.py"),  # it edits an image where a span opens, as in decoding
}
#: with pixels, or with features: Qwen's stock vision encoders loop over the grid of each image
IMAGES = {name: "features" if "qwen" in name else "pixels" for name in FAMILIES}
KNOWN_FAMILIES = {
    "qwen3_vl": (5, "call_text_model"),  # the stock model finds the places of DeepStack features by a mask
    "llava_onevision": (8, "encode_pixels"),  # the stock model reads sizes and numbers of images, which are on the host
    "idefics3": (2, "_encode_squares"),  # the stock vision model looks whether patches are masked
    "smolvlm": (2, "_encode_squares"),
}


def reads_of_a_step(reasoner, batch, objective=None) -> HostReads:
    """The reads of one forward and backward pass, and of the weights of its losses."""
    objective = objective or methods.objective_of(reasoner)
    with HostReads() as reads:
        objective.loss_weights(reasoner, batch)
        reasoner.train()(objective.loss, batch).total.backward()
    return reads


def check_reads(reads: HostReads, most: int, where: str) -> None:
    """At most so many reads, all of them there, or in the backward pass of what is there."""
    assert reads.total <= most, dict(reads.lines)
    assert all(where in line or "elsewhere" in line for line in reads.lines), dict(reads.lines)


def with_features(reasoner, batch):
    """The batch, and that of its teacher, with features of frozen encoders."""
    if batch.teacher_batch is not None:
        with_features(reasoner, batch.teacher_batch)
    return seen_once(reasoner, batch)


@pytest.mark.parametrize("case", [*METHODS, *MORE], ids=str)
def test_a_step_of_a_method_reads_nothing(case, make_backbone, make_traces):
    reasoner = ready(case, make_backbone, make_traces)
    batch = with_features(reasoner, training_batch(reasoner, make_traces(reasoner.can_sketch)[:2]))
    check_reads(reads_of_a_step(reasoner, batch), *KNOWN.get(str(case), (0, "")))


@pytest.mark.parametrize("family, images", IMAGES.items())
def test_a_step_of_a_family_reads_nothing(family, images, make_backbone, make_traces):
    case = modal_mixed("mlp", stop="close", supervise="full")
    reasoner = ready(case, lambda positions: make_backbone(positions, family), make_traces)
    batch = training_batch(reasoner, make_traces()[:2])
    batch = with_features(reasoner, batch) if images == "features" else batch
    check_reads(reads_of_a_step(reasoner, batch), *KNOWN_FAMILIES.get(family, (0, "")))


@pytest.mark.parametrize("is_packed", [False, True], ids=["alone", "packed"])
def test_a_step_with_dropped_latents_and_a_bottleneck_reads_nothing(is_packed, make_backbone, make_traces):
    reasoner = ready(modal_mixed("mlp", "2d"), make_backbone, make_traces)
    batch = with_features(reasoner, both(reasoner, make_traces())[is_packed])
    objective = methods.objective_of(reasoner, RunOptions(attention_bottleneck_prob=0.5, latent_dropout=0.5))
    check_reads(reads_of_a_step(reasoner, batch, objective), 0, "")


def test_reads_are_counted():
    x, mask = torch.arange(3.0), torch.tensor([True, False, True])
    code = [x.sum().item, x.tolist, mask.nonzero, x.unique, lambda: x[mask], lambda: float(x[0]), lambda: bool(mask[0])]
    code += [lambda: x.repeat_interleave(mask.long()), lambda: torch.equal(x, x), x.cpu]
    for function in code:
        with HostReads() as reads:
            function()
        assert reads.total >= 1, function
    with HostReads() as reads:
        x.repeat_interleave(2), x[torch.tensor([0])], x.masked_fill(mask, 0.0), torch.where(mask, x, 0.0), x.sort()
    assert not reads.total, dict(reads.lines)


@pytest.mark.slow
def test_a_step_runs_on_tensors_without_values():
    """In a process of its own, because PyTorch cannot forget a device."""
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/fake_steps.py")
    done = python(*words, cwd=ROOT, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # plugins of packages that are imported already
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]

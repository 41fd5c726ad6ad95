"""A training step reads nothing back from the device: what the host must know was made with the batch."""

from __future__ import annotations

import pytest
import torch
from conftest import ready
from host_reads import HostReads
from packed_rows import both
from processes import python
from tiny_runs import ROOT

from latent_reason import methods
from latent_reason.contracts.fixtures import CASES, Case, modal_mixed, seen_once, small, training_batch
from latent_reason.model.backbones.families import FAMILIES
from latent_reason.objectives.objective import RunOptions

MORE = [
    Case("monet", {"k": 4, "stage": 1}),
    Case("monet", {"k": 4, "stage": 2}),
    Case("ilvr", {"k": 4, "stage": 2}),
    Case("latent_sketchpad", small("latent_sketchpad", scheduled_sampling={"prob": 0.5})),
    modal_mixed("diffusion", latent_input="self"),
    modal_mixed("mlp", latent_input="blank"),
    Case("deepsketcher", small("deepsketcher", own_latents=True)),
]
#: what reads in spite of all, at most, and where: (count, part of the lines)
STOCK_MASK = (2, "call_text_model")  # a stock text model looks whether its mask (B, N) has padding
KNOWN = {
    "ilvr-1d": STOCK_MASK,  # of the teacher
    "deepsketcher-1-True-1d": (50, "deepsketcher.py"),  # it edits an image where a span opens, as in decoding
}
KNOWN_FAMILIES = {"qwen3_vl": (5, "call_text_model")}  # the stock model adds DeepStack features by a mask
KNOWN_ENCODERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # the stock vision encoders loop over the grid of each image


def reads_of_a_step(reasoner, batch, objective=None) -> HostReads:
    """The reads of one forward and backward pass, and of the weights of its losses."""
    objective = objective or methods.objective_of(reasoner)
    reasoner.train()(objective.loss, batch).total.backward()  # what is computed once
    with HostReads() as reads:
        objective.loss_weights(reasoner, batch)
        reasoner(objective.loss, batch).total.backward()
    return reads


def with_features(reasoner, batch):
    """The batch, and that of its teacher, with features of frozen encoders."""
    if batch.teacher_batch is not None:
        with_features(reasoner, batch.teacher_batch)
    return seen_once(reasoner, batch)


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=str)
def test_a_step_of_a_method_reads_nothing(case, make_backbone, make_traces):
    reasoner = ready(case, make_backbone, make_traces)
    batch = with_features(reasoner, training_batch(reasoner, make_traces(reasoner.can_sketch)))
    most, where = KNOWN.get(str(case), (0, ""))
    reads = reads_of_a_step(reasoner, batch)
    assert reads.total <= most, dict(reads.lines)
    assert all(where in line or "elsewhere" in line for line in reads.lines), dict(reads.lines)


@pytest.mark.parametrize("is_cached", [True, False], ids=["features", "pixels"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_a_family_reads_nothing(family, is_cached, make_backbone, make_traces):
    case = modal_mixed("mlp", stop="close", supervise="full")
    reasoner = ready(case, lambda positions: make_backbone(positions, family), make_traces)
    batch = training_batch(reasoner, make_traces())
    most, where = KNOWN_FAMILIES.get(family, (0, ""))
    reads = reads_of_a_step(reasoner, with_features(reasoner, batch) if is_cached else batch)
    encoder = {line for line in reads.lines if "encode_pixels" in line}
    assert not encoder or (family in KNOWN_ENCODERS and not is_cached), encoder
    others = {line: n for line, n in reads.lines.items() if line not in encoder}
    assert sum(others.values()) <= most and all(where in line or "elsewhere" in line for line in others), others


@pytest.mark.parametrize("is_packed", [False, True], ids=["alone", "packed"])
def test_a_step_with_dropped_latents_and_a_bottleneck_reads_nothing(is_packed, make_backbone, make_traces):
    reasoner = ready(modal_mixed("mlp", "2d"), make_backbone, make_traces)
    batch = with_features(reasoner, both(reasoner, make_traces())[is_packed])
    objective = methods.objective_of(reasoner, RunOptions(attention_bottleneck_prob=0.5, latent_dropout=0.5))
    assert not (reads := reads_of_a_step(reasoner, batch, objective)).total, dict(reads.lines)


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


def test_a_step_runs_on_tensors_without_values():
    """In a process of its own, because PyTorch cannot forget a device."""
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/fake_steps.py", cwd=ROOT)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]

"""Rows of other formats are trained on: one step of every method on a row of each format that it can use."""

import copy
import json

import pytest
import torch
from data_samples import SAMPLES
from PIL import Image as PILImage

from latent_reason import methods
from latent_reason.contracts.fixtures import small, small_backbone
from latent_reason.data import formats

OPTIONS = {"lvr": {"stop": "close", "supervise": "full"}}  # a region has as many latents as its size asks for


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """The trace of every sample with an answer, by its format and number."""
    folder, result = tmp_path_factory.mktemp("formats"), {}
    for number in range(1, 5):
        PILImage.new("RGB", (64, 64), (50 * number,) * 3).save(folder / f"{number}.png")
    for number, (format, row, options, turns, *_) in enumerate(SAMPLES):
        (folder / "a.jsonl").write_text(json.dumps(row))
        if len(turns) > 1:
            (result[f"{format}-{number}"],) = formats.load(format).read(folder / "a.jsonl", **options)
    return result


@pytest.mark.parametrize("method", methods.names())
def test_every_method_takes_a_step_on_every_format(traces, method):
    torch.manual_seed(0)
    backbone = copy.deepcopy(small_backbone("qwen2_5_vl"))
    reasoner = methods.build_method(method, backbone, **small(method, **OPTIONS.get(method, {}))).train()
    if reasoner.target is not None:
        reasoner.target.standardizer.fitted.fill_(True)
    objective = methods.objective_of(reasoner)
    usable = [trace for trace in traces.values() if reasoner.can_sketch or not trace.sketches()]
    assert usable == list(traces.values()) if reasoner.can_sketch else len(usable) >= 2
    before = backbone.model.get_input_embeddings().weight.clone()
    optimizer = torch.optim.SGD([p for p in reasoner.parameters() if p.requires_grad], lr=1e-3)
    loss = reasoner(objective.loss, objective.collate(reasoner, usable)).total
    loss.backward()
    gradients = [p.grad for p in reasoner.parameters() if p.grad is not None]
    assert loss.isfinite() and gradients and all(gradient.isfinite().all() for gradient in gradients)
    optimizer.step()
    assert not torch.equal(backbone.model.get_input_embeddings().weight, before)


def test_a_turn_that_is_not_trained_on_has_no_loss(tmp_path):
    """Neither its text nor the token that ends it."""
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "loss_scale": 0}]
    again = [{"role": "user", "content": "So?"}, {"role": "assistant", "content": "Yes"}]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": chat}, {"messages": chat + again}]))
    first, second = formats.load("sharegpt").read(tmp_path / "a.json")
    reasoner = methods.build_method("direct", copy.deepcopy(small_backbone("qwen2_5_vl")))
    assert not any(reasoner.processor.encode(first).loss_weight)
    row = reasoner.processor.encode(second)
    taught = [id for id, weight in zip(row.ids, row.loss_weight, strict=True) if weight]
    assert taught == [*reasoner.vocabulary.encode_text("Yes", plain=True), reasoner.vocabulary.end]

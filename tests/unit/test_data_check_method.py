"""``data check --method``: each record of training is refused by the check, or a step trains on it."""

import contextlib
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_records import picture
from test_data_native import traces as any_trace
from tiny_runs import BACKBONE

from latent_reason import methods
from latent_reason.cli import main
from latent_reason.data import native
from latent_reason.data.checks import trainable
from latent_reason.data.errors import DataError
from latent_reason.model import backbones
from latent_reason.trace import Image, Message, Sketch, Text, Trace


@pytest.fixture(scope="module")
def models():
    """Every method on the smallest backbone: name -> (model, objective, its check)."""
    made = {}
    for name in methods.names():
        torch.manual_seed(0)
        model = methods.build_method(name, backbones.load_backbone("tiny", **BACKBONE))
        objective = methods.objective_of(model)
        made[name] = (
            model,
            objective,
            trainable(name, partial(objective.encode, model), partial(step, model, objective)),
        )
    return made


def step(model, objective, trace) -> torch.Tensor:
    return model(objective.loss, objective.collate(model, [trace])).total


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=any_trace(), name=st.sampled_from(methods.names()))
def test_a_record_is_refused_or_trained_on(models, trace, name):
    trace, (model, objective, check) = replace(trace, split="train"), models[name]
    with contextlib.suppress(DataError):
        check(trace)
        loss = step(model, objective, trace)
        loss.backward()
        assert torch.isfinite(loss)
        model.zero_grad()


def turns(*parts) -> tuple[Message, ...]:
    return Message("user", (Text("Go"),)), Message("assistant", (*parts, Text("\\boxed{U}")))


def test_each_kind_is_refused_once_and_by_its_row(tmp_path, capsys):
    """Questions without an answer turn (only for reinforcement learning), and sketches for a method without a head."""
    sketch = turns(Text("Look"), Sketch(picture(1)))
    asked = (Message("user", (Image(picture(0)), Text("Go"))),)
    records = [
        Trace("plain", turns(), mode="direct", answer="U"),
        Trace("drawn", sketch, answer="U"),
        Trace("again", sketch, answer="U"),
        Trace("asked", asked, answer="U"),
        Trace("tested", (Message("user", (Text("Go"),)),), split="test", answer="U"),
    ]
    native.write(records, tmp_path / "set")
    with pytest.raises(SystemExit):
        main(["data", "check", str(tmp_path / "set"), "--method", "direct"])
    said = capsys.readouterr().out
    for row, code in ((2, "E26"), (3, "E26"), (4, "E19")):
        assert f"{code} {tmp_path}/set/traces.jsonl:{row}: messages: " in said
    assert "direct cannot be trained on it" in said and "Use it with train.rl" in said and "2 of 5 rows usable" in said
    main(["data", "check", str(tmp_path / "set")])


def test_whatever_a_method_raises_is_a_refusal():
    def encode(trace):
        raise IndexError("no image")

    with pytest.raises(DataError, match=r"mine cannot be trained on it: IndexError no image\. Leave the record out"):
        trainable("mine", encode, encode)(Trace("a", turns(), mode="direct"))


def test_a_step_is_tried_once_for_each_order_of_parts():
    tried = []
    check = trainable("mine", lambda trace: None, lambda trace: tried.append(trace.id))
    for id, parts in (("a", ()), ("b", ()), ("c", (Sketch(picture(1)),)), ("d", ())):
        check(Trace(id, turns(*parts)))
    assert tried == ["a", "c"]

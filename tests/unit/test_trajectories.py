"""Several answers after one trajectory of latents."""

from __future__ import annotations

import pytest
import torch
from conftest import CASES, eager

from latent_reason.contracts.closeness import assert_close
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.decoding.engine import generate
from latent_reason.decoding.trajectories import generate_trajectories
from latent_reason.model.batch import LATENT, PAD
from latent_reason.objectives.latent_policies import FlowSde
from latent_reason.objectives.replay import replay

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def model(make_backbone, make_traces, ready_once):
    case = next(c for c in CASES if c.method == "modal_mixed")._replace(options={"k": 4, "head": "flow"})
    return eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())


def rolled(model, make_traces, completions, **options):
    traces = [trace for trace in make_traces()[:2] for _ in range(4)]
    prompt = model.processor(traces, generate=True)
    policy = FlowSde(model.head)
    options = {"max_new_tokens": 24, "temperature": 1.0, "seed": 3, "latent_policy": policy, "group_size": 4} | options
    if completions == 1:
        return generate(model, prompt, **options), policy
    return generate_trajectories(model, prompt, completions=completions, **options), policy


@pytest.mark.parametrize("completions", [2, 4])
def test_rows_of_a_trajectory_share_it_and_differ_after_it(model, make_traces, completions):
    rollout, policy = rolled(model, make_traces, completions)
    plain, _ = rolled(model, make_traces, 1)
    n, differ = rollout.ids.shape[1], 0
    for first in range(0, 8, completions):
        length = int((plain.token_type[first] != PAD).sum())
        assert torch.equal(rollout.ids[first, :length], plain.ids[first, :length]), "the first row is as it is alone"
        spans = rollout.spans_of(first)
        end = next((at for span in spans if (at := span.start + span.length + 1) < length), n)
        for row in range(first + 1, first + completions):
            assert torch.equal(rollout.ids[row, :end], rollout.ids[first, :end])
            assert_close(rollout.latent_embeds[row, :end], rollout.latent_embeds[first, :end])
            differ += int(not torch.equal(rollout.ids[row, end:n], rollout.ids[first, end:n]))
    assert differ >= 2 and rollout.spans
    found = replay(model, rollout, policy)
    assert_close(found.text + found.stops, rollout.sampled_log_prob)
    assert len(rollout.policy_records) == int((rollout.token_type == LATENT).sum()) > 0


def test_a_row_without_a_sketch_is_repeated(model, make_traces):
    """Fresh rows in its place would sketch more often than the policy does."""
    rollout, _ = rolled(model, make_traces, 4, latent_mode="off", latent_policy=None)
    plain = rolled(model, make_traces, 1, latent_mode="off", latent_policy=None)[0]
    for row in range(8):
        length = int((plain.token_type[row - row % 4] != PAD).sum())
        assert torch.equal(rollout.ids[row, :length], plain.ids[row - row % 4, :length])


def test_groups_that_do_not_fit_are_refused(model, make_traces):
    with pytest.raises(ValueError, match="no trajectories of 3 rows"):
        rolled(model, make_traces, 3)

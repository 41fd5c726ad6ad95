"""Logits processors and stopping criteria in decoding: what they read, and which rows they change."""

from __future__ import annotations

import pytest
import torch
from conftest import eager
from tiny_runs import untrained

from latent_reason import GenerationConfig, generate, methods
from latent_reason.decoding.queue import Request, decode_requests
from latent_reason.model.batch import LATENT, PAD, TEXT


@pytest.fixture(scope="module")
def reasoner():
    reasoner, _ = untrained()
    return eager(reasoner)


def same(ids, logits):
    return logits


def test_hooks_that_change_nothing_change_nothing(reasoner, make_traces):
    prompt = reasoner.processor(make_traces(), generate=True)
    for options in ({}, {"temperature": 1.0, "seed": 3, "latent_mode": "first"}):
        plain = generate(reasoner, prompt, max_new_tokens=30, **options)
        hooked = generate(
            reasoner,
            prompt,
            max_new_tokens=30,
            logits_processor=same,
            stopping_criteria=lambda ids, scores: torch.zeros(len(ids), dtype=torch.bool),
            **options,
        )
        assert torch.equal(plain.ids, hooked.ids) and plain.spans == hooked.spans
        assert plain.finish_reasons == hooked.finish_reasons


def test_a_processor_reads_the_ids_so_far(reasoner, make_traces):
    prompt, seen = reasoner.processor(make_traces(), generate=True), []
    rollout = generate(
        reasoner,
        prompt,
        max_new_tokens=[20, 5, 12, 20],
        latent_mode="first",
        logits_processor=lambda ids, logits: (seen.append(ids), logits)[1],
    )
    whole = torch.cat([prompt.ids, rollout.ids.masked_fill(rollout.token_type == PAD, reasoner.vocabulary.pad)], 1)
    n = prompt.ids.shape[1]
    assert {ids.shape[1] - n for ids in seen} <= set(range(20)) and (rollout.token_type == LATENT).any()
    for ids in seen:
        assert torch.equal(ids, whole[:, : ids.shape[1]]), "left-padded prompts, latents, and padding after the end"


def test_rows_that_draw_whole_spans_keep_their_ids(make_backbone, make_traces):
    """One row takes all positions of a span in a step, in which others take one."""
    torch.manual_seed(0)
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4, head="whole_span")
    reasoner.target.standardizer.fitted.fill_(True)
    opening, words, seen = reasoner.vocabulary.open, reasoner.vocabulary.encode_text("go on and on"), []
    forced = [[opening], [words[0], words[1], opening], words, [words[0], opening]]
    prompt = reasoner.processor(make_traces(), generate=True)
    rollout = generate(
        reasoner.eval(),
        prompt,
        max_new_tokens=12,
        forced_tokens=forced,
        logits_processor=lambda ids, logits: (seen.append(ids), logits)[1],
    )
    assert len(rollout.spans) >= 3 and (seen[-1] == reasoner.vocabulary.latent).any(1).sum() >= 3
    for row, written in enumerate(seen[-1]):
        own = prompt.ids[row, prompt.mask[row]].tolist() + rollout.ids[row, rollout.token_type[row] != PAD].tolist()
        text = [i for i in written.tolist() if i != reasoner.vocabulary.pad]
        assert text == own[: len(text)] and len(text) >= len(own) - 12


def test_a_processor_cannot_allow_what_is_forbidden(reasoner, make_traces):
    v, prompt = reasoner.vocabulary, reasoner.processor(make_traces(), generate=True)
    evil = generate(
        reasoner,
        prompt,
        max_new_tokens=10,
        latent_mode="off",
        logits_processor=lambda ids, logits: logits.index_fill(1, torch.tensor([v.latent, v.close, v.open]), 1e4),
    )
    assert (evil.token_type != LATENT).all() and not torch.isin(evil.ids, torch.tensor([v.close, v.open])).any()
    word = v.encode_text("the")[0]
    forced = generate(
        reasoner,
        prompt,
        max_new_tokens=4,
        logits_processor=lambda ids, logits: logits.index_fill(1, torch.tensor([word]), 1e4),
    )
    assert (forced.ids == word).all()


def test_criteria_end_rows_after_text(reasoner, make_traces):
    prompt = reasoner.processor(make_traces(), generate=True)
    n, end = prompt.ids.shape[1], torch.tensor([reasoner.vocabulary.end])
    rollout = generate(
        reasoner,
        prompt,
        max_new_tokens=40,
        latent_mode="first",
        latents_per_span=6,
        max_spans=1,
        logits_processor=lambda ids, logits: logits.index_fill(1, end, float("-inf")),
        stopping_criteria=lambda ids, scores: torch.full((len(ids),), ids.shape[1] >= n + 3),
    )
    assert rollout.ids.shape[1] == 9 and [span.length for span in rollout.spans] == [6] * 4, "spans are not cut"
    assert rollout.finish_reasons == ["stopped"] * 4
    first = generate(
        reasoner,
        prompt,
        max_new_tokens=9,
        latent_mode="off",
        stopping_criteria=lambda ids, scores: torch.arange(len(ids)) == 1,
    )
    assert (first.token_type == TEXT).sum(1).tolist()[1] == 1


def test_hooks_work_in_slots_that_are_taken_again(reasoner, make_traces):
    """A processor that reads what was written gives each request what it gives it alone."""

    def no_repeat(ids, logits):
        return logits.scatter(1, ids[:, -8:], float("-inf")) if ids.shape[1] else logits

    config = GenerationConfig(latent_mode="off", logits_processor=no_repeat)
    requests = [Request(trace, n, max_new_tokens=5 + 4 * n) for n, trace in enumerate(make_traces() * 2)]
    for request, rollout, row, *_ in decode_requests(reasoner, requests, config, 3):
        prompt = reasoner.processor([request.trace], generate=True)
        alone = generate(reasoner, prompt, config, max_new_tokens=request.max_new_tokens)
        assert torch.equal(rollout.select([row], prompt).ids, alone.ids)


def test_a_span_that_has_just_been_opened_is_drawn_before_a_row_stops(reasoner, make_traces):
    prompt, opening = reasoner.processor(make_traces()[:1], generate=True), reasoner.vocabulary.open
    stops = lambda ids, scores: ids[:, -1] == opening
    out = generate(reasoner, prompt, max_new_tokens=20, forced_tokens=[[opening]], stopping_criteria=stops)
    assert [span.start for span in out.spans][:1] == [1] and out.ids[
        0, out.spans[0].length + 1
    ] == reasoner.vocabulary.close


def test_the_ids_of_rows_that_are_gone_are_forgotten(reasoner, make_traces):
    widths = []
    config = GenerationConfig(
        latent_mode="off", logits_processor=lambda ids, logits: (widths.append(ids.shape[1]), logits)[1]
    )
    trace = make_traces()[0]
    prompt = reasoner.processor([trace], generate=True).ids.shape[1]
    requests = [Request(trace, number, max_new_tokens=8) for number in range(12)]
    assert len(list(decode_requests(reasoner, requests, config, 1))) == 12
    assert max(widths) <= 2 * (prompt + 8)

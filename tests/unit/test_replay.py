"""The replay protocol: what the answer would have been with other latents and the same words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import fit, training_batch

from eval.interventions import KeepFirst, shuffle_slots
from eval.replay import answer_kl, answer_start
from latent_reason import methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding.engine import generate
from latent_reason.decoding.items import Result
from latent_reason.decoding.replacements import StoredLatents, Zero
from latent_reason.objectives.rollout_states import rollout_states

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def drawn(make_backbone, make_traces):
    """A rollout whose rows sketch and box an answer, but for one that does not sketch and one that does not answer."""
    reasoner = methods.build_method("modal_mixed", make_backbone(), k=4, head="mlp")
    fit(reasoner, training_batch(reasoner, make_traces()))
    v, prompt = reasoner.vocabulary, reasoner.processor(make_traces(same_size=True), generate=True)
    said = [
        v.encode_text(r"go \boxed{U}"),
        v.encode_text(r"so then \boxed{R,D}"),
        v.encode_text("never"),
        v.encode_text(r"\boxed{L}"),
    ]
    queue = [[v.open, *words, v.end] for words in said]
    queue[3] = queue[3][1:]
    rollout = generate(reasoner, prompt, max_new_tokens=30, forced_tokens=queue)
    return reasoner, [Result(r, "", {}, rollout, r, trace=trace) for r, trace in enumerate(make_traces(same_size=True))]


def test_the_same_latents_change_nothing_and_others_do(drawn):
    reasoner, results = drawn
    same = answer_kl(reasoner, results, lambda items: StoredLatents([r.latents for r in results]))
    assert len(same) == 2 and max(same) < 1e-12, "rows 0 and 1 sketch and answer"
    other = answer_kl(reasoner, results, lambda items: Zero())
    assert min(other) > 1e-4


def test_latents_go_to_the_item_they_belong_to_whatever_the_order_of_results(drawn):
    reasoner, results = drawn
    assert not torch.allclose(results[0].latents[0], results[1].latents[0], atol=1e-3), "or a mix-up changes nothing"
    shuffled_results = [results[i] for i in (2, 1, 3, 0)]
    same = answer_kl(reasoner, shuffled_results, lambda items: StoredLatents([results[i].latents for i in items]))
    assert len(same) == 2 and max(same) < 1e-6
    some = answer_kl(reasoner, results[1:2], lambda items: Zero())
    assert_close(some, answer_kl(reasoner, results, lambda items: Zero())[1:])


def test_it_is_the_divergence_at_the_answer(drawn):
    reasoner, results = drawn
    rollout = results[0].rollout
    at = answer_start(rollout, 0, reasoner)
    before = reasoner.vocabulary.decode(rollout.ids[0, :at][rollout.token_type[0, :at] == 1].tolist())
    assert before.endswith(r"\boxed{") and answer_start(rollout, 2, reasoner) is None
    one = replace(rollout, latent_embeds=torch.zeros_like(rollout.latent_embeds))
    with torch.no_grad():
        p, q = (reasoner.backbone.logits(rollout_states(reasoner, x)[0, at]).log_softmax(-1) for x in (rollout, one))
    expected = float((p.exp() * (p - q)).sum())
    assert_close(answer_kl(reasoner, results, lambda items: Zero())[0], expected)


def test_orders_and_shares():
    random = torch.Generator().manual_seed(0)
    spans = [torch.arange(n)[:, None].float() for n in (4, 1, 2)]
    for _ in range(20):
        a, b, c = shuffle_slots(spans, random)
        assert not torch.equal(a, spans[0]) and torch.equal(a.sort(0).values, spans[0])
        assert torch.equal(b, spans[1]) and torch.equal(c, spans[2].flip(0))
    keep = KeepFirst(lambda *given: torch.zeros(6, 1), [(2, 3)], 0.5)
    rows, slots = torch.zeros(6, dtype=torch.long), torch.arange(6)
    assert keep(rows, rows, slots, torch.ones(6, 1), None)[:, 0].tolist() == [1, 1, 1, 0, 0, 0]

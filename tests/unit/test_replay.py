"""The replay protocol: what the answer would have been with other latents and the same words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from closeness import assert_close
from conftest import fit

from eval.decode import Result
from eval.interventions import FirstOnly, Given, Zero, shuffled
from eval.replay import answer_at, answer_kl
from latent_reason import methods
from latent_reason.decoding.engine import generate

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def drawn(make_backbone, make_traces):
    """A rollout whose rows sketch and box an answer, but for one that does not sketch and one that does not answer."""
    reasoner = methods.build("modal_mixed", make_backbone(), k=4, head="mlp")
    fit(reasoner, reasoner.collator()(make_traces()))
    v, prompt = reasoner.vocabulary, reasoner.collator()(make_traces(same_size=True), generate=True)
    said = [v.words(r"go \boxed{U}"), v.words(r"so then \boxed{R,D}"), v.words("never"), v.words(r"\boxed{L}")]
    queue = [[v.open, *words, v.end] for words in said]
    queue[3] = queue[3][1:]
    rollout = generate(reasoner, prompt, max_new=30, queue=queue)
    return reasoner, [Result(r, "", {}, rollout, r) for r in range(4)]


def test_the_same_latents_change_nothing_and_others_do(drawn):
    reasoner, results = drawn
    same = answer_kl(reasoner, results, lambda items: Given([r.latents for r in results]))
    assert len(same) == 2 and max(same) < 1e-12, "rows 0 and 1 sketch and answer"
    other = answer_kl(reasoner, results, lambda items: Zero())
    assert min(other) > 1e-4


def test_it_is_the_divergence_at_the_answer(drawn):
    reasoner, results = drawn
    rollout = results[0].rollout
    at = answer_at(rollout, 0, reasoner)
    before = reasoner.vocabulary.text(rollout.ids[0, :at][rollout.kind[0, :at] == 1].tolist())
    assert before.endswith(r"\boxed{") and answer_at(rollout, 2, reasoner) is None
    one = replace(rollout, vectors=torch.zeros_like(rollout.vectors))
    with torch.no_grad():
        p, q = (reasoner.backbone.logits(reasoner.states_of(x)[0, at]).log_softmax(-1) for x in (rollout, one))
    expected = float((p.exp() * (p - q)).sum())
    assert_close(answer_kl(reasoner, results, lambda items: Zero())[0], expected)


def test_orders_and_shares():
    random = torch.Generator().manual_seed(0)
    spans = [torch.arange(n)[:, None].float() for n in (4, 1, 2)]
    for _ in range(20):
        a, b, c = shuffled(spans, random)
        assert not torch.equal(a, spans[0]) and torch.equal(a.sort(0).values, spans[0])
        assert torch.equal(b, spans[1]) and torch.equal(c, spans[2].flip(0))
    keep = FirstOnly(lambda *given: torch.zeros(6, 1), [(2, 3)], 0.5)
    rows, slots = torch.zeros(6, dtype=torch.long), torch.arange(6)
    assert keep(rows, rows, slots, torch.ones(6, 1), None)[:, 0].tolist() == [1, 1, 1, 0, 0, 0]

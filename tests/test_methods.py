"""What each method must do beyond the contracts, most of all where a released code went wrong."""

from __future__ import annotations

import pytest
import torch

from latent_reason import methods
from latent_reason.batch import LATENT, MixedBatch, before
from latent_reason.generation import generate
from latent_reason.trace import Message, Sketch, Text, Trace


def equal(a: MixedBatch, b: MixedBatch) -> bool:
    """Ids of padding may differ: nothing looks at them."""
    return torch.equal(a.ids * a.mask, b.ids * b.mask) and all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("kind", "weight", "spans", "span_weight"))


def thought(trace: Trace, k: int) -> Trace:
    """The trace with one thought of k latents before its answer's second half."""
    *asked, last = trace.messages
    words = "".join(p.text for p in last.content if isinstance(p, Text))
    return Trace(trace.id, (*asked, Message("assistant", (Text(words[:3]), Sketch(None, k), Text(words[3:])))))


# -- spans without pictures --------------------------------------------------------------------------------------------
def test_shortened_rows_are_rows_with_shorter_spans(make_backbone, make_traces):
    collate = methods.build("mcout", make_backbone(), thoughts=4, mu=0.0).collator()
    collate.read = lambda trace: trace
    traces = [thought(t, k) for t, k in zip(make_traces(False), (5, 2, 3, 5), strict=True)]
    for k in (1, 2, 3, 4, 5):
        fewer = [thought(t, min(k, n)) for t, n in zip(make_traces(False), (5, 2, 3, 5), strict=True)]
        assert equal(collate(traces).shortened(k), collate(fewer)), k


def test_pictures_for_all_sketches_of_a_batch_or_for_none(make_backbone, make_traces):
    reasoner = methods.build("blank", make_backbone(), k=4)
    with pytest.raises(ValueError, match="of a batch have a picture"):
        reasoner.collator()([make_traces()[0], thought(make_traces()[1], 2)])


# -- blank -------------------------------------------------------------------------------------------------------------
def test_blank_says_the_same_whatever_the_state(make_backbone, make_traces):
    reasoner = methods.build("blank", make_backbone(), k=4)
    out = generate(reasoner, reasoner.collator()(make_traces(), generate=True), max_new=8, sketching="first")
    fed = out.vectors[out.kind == LATENT]
    assert len(fed) > 8 and torch.equal(fed, reasoner.head.vector.expand(len(fed), -1))


# -- coconut -----------------------------------------------------------------------------------------------------------
def said(trace: Trace) -> list:
    return [p.text if isinstance(p, Text) else p.k for p in trace.messages[-1].content]


def test_coconut_removes_sentences_and_never_the_answer(make_backbone):
    trace = Trace("t", (Message("user", (Text("where?"),)), Message("assistant", (
        Text("Go up."), Sketch(None, 1), Text(" Then left. Done: \\boxed{U,L}")))))
    for stage, rest in enumerate((None, "Then left. Done: \\boxed{U,L}", "Done: \\boxed{U,L}", "Done: \\boxed{U,L}")):
        reasoner = methods.build("coconut", make_backbone(), c=3, stage=stage)
        if not stage:
            assert not reasoner.sketches and reasoner.read(trace) is trace
            continue
        assert said(reasoner.read(trace)) == [3 * stage, rest]
        assert reasoner.read(trace.prompt()) == trace.prompt()
        prompt = reasoner.collator()([trace], generate=True)
        out = generate(reasoner, prompt, max_new=20)
        assert [s.length for s in out.spans] == [3 * stage] and out.spans[0].start == 1


# -- mcout -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("multi", [False, True])
def test_mcout_the_answer_depends_on_every_thought(make_backbone, make_traces, multi):
    """In the released code thoughts stand after the answer: no loss depends on them, Multi's attention never learns."""
    reasoner = methods.build("mcout", make_backbone(), thoughts=3, multi=multi)
    batch = reasoner.collator()(make_traces(False))
    assert [tuple(s[2:]) for s in batch.spans.tolist()] == [(1, 3)] * 4
    draw, drawn = reasoner.draw, []
    reasoner.draw = lambda *args: drawn.append(draw(*args)) or drawn[-1]
    terms = reasoner(batch)
    grads = torch.autograd.grad(terms.text, [*drawn, *reasoner.head.parameters()], retain_graph=True)
    assert len(drawn) == 3 and all(g.any() for g in grads)


def test_mcout_scores_the_answer_after_fewer_thoughts_too(make_backbone, make_traces):
    reasoner = methods.build("mcout", make_backbone(), thoughts=3, mu=0.5)
    losses = []
    for k in (1, 2, 3):
        reasoner.switch = type(reasoner.switch)(start="first", count=k)
        batch = reasoner.collator()(make_traces(False))
        states, _ = reasoner.unroll(batch, reasoner.backbone.place(batch))
        losses.append(reasoner.losses(batch, before(states), None).text)
    expected = (1.5 * losses[2] + 0.5 * (losses[0] + losses[1])) / (1 + 0.5 * 3)
    torch.testing.assert_close(reasoner(batch).text, expected, atol=1e-5, rtol=1e-5)


def test_mcout_pays_no_attention_to_padding(make_backbone, make_traces):
    """The released attention has no padding mask: a row's thought changed with the pictures of the others."""
    reasoner = methods.build("mcout", make_backbone(), thoughts=3, multi=True)
    traces = make_traces(False)
    together = reasoner.collator()(traces)
    _, thoughts = reasoner.unroll(together, reasoner.backbone.place(together))
    for i, trace in enumerate(traces):
        alone = reasoner.collator()([trace])
        _, own = reasoner.unroll(alone, reasoner.backbone.place(alone))
        torch.testing.assert_close(own[0], thoughts[i], atol=2e-5, rtol=1e-4)

"""The same traces a row each and packed into shared rows, and whether a reasoner learns the same from both."""

import copy

from closeness import assert_close

from latent_reason.model.batch import collate
from latent_reason.model.packing import packed


def both(reasoner, traces, budget=150):
    """The same traces a row each and packed; rows of each."""
    collator = reasoner.collator()
    rows = [collator.encode(t) for t in traces]
    batches = [
        collate(r, reasoner.vocabulary.pad, reasoner.backbone.look, reasoner.look) for r in (rows, packed(rows, budget))
    ]
    assert len(batches[1].ids) < len(rows) and batches[1].documents is not None
    return batches


def losses(reasoner, batch):
    """(parts of the loss, gradients), both by name."""
    reasoner = copy.deepcopy(reasoner)
    terms = reasoner(batch)
    terms.total.backward()
    return terms.parts(), {n: p.grad for n, p in reasoner.named_parameters() if p.grad is not None}


def same(first, second):
    """Raise unless losses and gradients are the same but for rounding."""
    assert_close(second[0], first[0])
    assert first[1]
    assert_close(second[1], first[1], depth=16)

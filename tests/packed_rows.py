"""The same traces a row each and packed into shared rows, and whether a reasoner learns the same from both."""

import copy

from conftest import objective_for

from latent_reason.contracts.closeness import assert_close
from latent_reason.objectives.packing import collate_examples, pack_examples


def both(reasoner, traces, budget=150):
    """The same traces a row each and packed; rows of each."""
    rows = [objective_for(reasoner).encode(reasoner, t) for t in traces]
    budget += 2 * len(reasoner.vocabulary.encode_text(reasoner.system_prompt))  # of two examples a row
    batches = [collate_examples(reasoner.processor, r) for r in (rows, pack_examples(rows, budget))]
    assert len(batches[1].ids) < len(rows) and batches[1].document_lengths is not None
    return batches


def losses(reasoner, batch, objective=None):
    """(parts of the loss, gradients), both by name."""
    objective = objective or objective_for(reasoner)
    reasoner = copy.deepcopy(reasoner)
    terms = reasoner(objective.loss, batch)
    terms.total.backward()
    return terms.parts(), {n: p.grad for n, p in reasoner.named_parameters() if p.grad is not None}


def same(first, second):
    """Raise unless losses and gradients are the same but for rounding."""
    assert_close(second[0], first[0])
    assert first[1]
    assert_close(second[1], first[1], depth=16)

"""What a training step costs: against the stock model on as many tokens, packed, checkpointed, and with own latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import torch

from latent_reason import methods
from latent_reason.model.batch import PAD, MixedBatch
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective
from latent_reason.objectives.packing import collate_examples, pack_examples
from train.feature_cache import with_features

from .clock import measure_seconds, ratio_of, time_in_turns
from .counting import Operations
from .findings import Finding, at_most, timed
from .models import board_traces, build
from .settings import Setting

MOST = 1.10  # of a training step over the stock model's forward and backward pass
PACKED_ROWS = 4  # examples of about one row
DEEP = "deep"  # operations follow from the layers alone


def training_batch(reasoner: LatentReasoner, examples: int, per_row: int = 1) -> MixedBatch:
    """Examples whose images a frozen encoder has seen; ``per_row`` of them are packed into a row."""
    objective = methods.objective_of(reasoner)
    rows = [objective.encode(reasoner, trace) for trace in board_traces(examples)]
    rows = with_features(rows, reasoner)
    if per_row > 1:
        rows = pack_examples(rows, per_row * max(len(row.ids) for row in rows))
    batch = collate_examples(reasoner.processor, rows).to(reasoner.device)
    if not reasoner.target.standardizer.fitted:
        reasoner.target.fit_statistics(reasoner.target.statistics_samples(batch))
    return batch


def train_once(reasoner: LatentReasoner, batch: MixedBatch, objective: Objective | None = None) -> None:
    """Forward and backward of one batch."""
    reasoner.zero_grad()
    objective = objective or methods.objective_of(reasoner)
    reasoner(objective.loss, batch).total.backward()


def train_checkpointed(reasoner: LatentReasoner, batch: MixedBatch) -> None:
    """The same with activation checkpointing."""
    reasoner.backbone.set_gradient_checkpointing()
    try:
        train_once(reasoner, batch)
    finally:
        reasoner.backbone.set_gradient_checkpointing(False)


def train_stock(reasoner: LatentReasoner, batch: MixedBatch) -> None:
    """Forward and backward of the stock model on as many tokens of text."""
    reasoner.zero_grad()
    labels = batch.ids.masked_fill(batch.token_type == PAD, -100)
    ids = torch.full_like(batch.ids, reasoner.vocabulary.encode_text("go")[0])
    reasoner.backbone.model(input_ids=ids, attention_mask=batch.mask.long(), labels=labels).loss.backward()


def names_of(run: Callable[[], None]) -> Counter[str]:
    """Operations of one call by name."""
    with Operations() as counted:
        run()
    return counted.names


def count_against_stock(reasoner: LatentReasoner, examples: int) -> Finding:
    """Operations of a training step over those of the stock model."""
    batch = training_batch(reasoner, examples)
    ours, stock = (names_of(partial(run, reasoner, batch)) for run in (train_once, train_stock))
    details = {"ours": ours.total(), "stock": stock.total(), "most_added": dict((ours - stock).most_common(8))}
    details |= {"tokens": int(batch.mask.sum()), "positions": batch.ids.numel()}
    layers = reasoner.backbone.model.config.get_text_config().num_hidden_layers
    name = f"operations over the stock model, {layers} layers"
    return Finding(name, ours.total() / stock.total(), at_most(MOST), details=details)


def compare_training_with_stock(setting: Setting) -> Iterator[Finding]:
    """A step of supervised training (modal_mixed, features cached) over forward and backward of the stock model."""
    for size in (setting.size, DEEP):
        yield count_against_stock(build(size)[0], setting.examples)
    if not setting.is_timed:
        return
    reasoner, _ = build(setting.size)
    batch = training_batch(reasoner, setting.examples)
    packed = training_batch(reasoner, setting.examples, PACKED_ROWS)
    runs = {
        "ours": partial(train_once, reasoner, batch),
        "stock": partial(train_stock, reasoner, batch),
        "packed": partial(train_once, reasoner, packed),
        "checkpointed": partial(train_checkpointed, reasoner, batch),
    }
    turns = {name: partial(measure_seconds, run, reasoner.device) for name, run in runs.items()}
    seconds = time_in_turns(turns, setting.repeats)
    yield timed("time over the stock model", ratio_of(seconds["ours"], seconds["stock"]), at_most(MOST))
    yield timed("time of a packed step over a plain one", ratio_of(seconds["packed"], seconds["ours"]))
    yield timed("time of a checkpointed step over a plain one", ratio_of(seconds["checkpointed"], seconds["ours"]))


def compare_own_latents_with_given(setting: Setting) -> Iterator[Finding]:
    """A training step on the model's own latents, one cached pass per column of latents, over one on given latents."""
    reasoner, _ = build(setting.size)
    batch = training_batch(reasoner, setting.examples)
    runs = {
        latent_input: partial(train_once, reasoner, batch, Objective(latent_input=latent_input))
        for latent_input in ("self", "teacher")
    }
    counts = {name: names_of(run).total() for name, run in runs.items()}
    yield Finding("operations", counts["self"] / counts["teacher"], details=counts)
    if setting.is_timed:
        turns = {name: partial(measure_seconds, run, reasoner.device) for name, run in runs.items()}
        seconds = time_in_turns(turns, setting.repeats)
        yield timed("time", ratio_of(seconds["self"], seconds["teacher"]))

"""Rollout: what a model generated, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..model.batch import LATENT, PAD, TEXT, Grid, MixedBatch, to_device
from ..model.tokenization import Vocabulary
from .steps import CAUSES, StepRecord


@dataclass
class Span:
    """One span of latents: its row, where it starts in the rollout, its length and grid, and why it ended."""

    row: int
    start: int
    length: int
    grid: tuple[int, int]
    cause: str  # count | close | cap | budget


@dataclass
class Rollout:
    """What was generated after a batch of prompts. B rows, T steps.

    Example:
        >>> rollout = generate(reasoner, prompt, max_new_tokens=128)
        >>> print(rollout.text(0, reasoner.vocabulary), rollout.spans_of(0))
    """

    prompt: MixedBatch
    ids: torch.Tensor  # (B, T) latent positions hold the latent id
    token_type: torch.Tensor  # (B, T) TEXT LATENT, PAD after the end
    latent_embeds: torch.Tensor  # (B, T, D) latents exactly as they were fed back, zero elsewhere
    positions: torch.Tensor  # (axes, B, T)
    log_prob: torch.Tensor  # (B, T) of chosen text tokens at temperature 1
    sampled_log_prob: torch.Tensor  # (B, T) of text tokens and stop decisions under temperature and top_p
    stop_log_prob: torch.Tensor  # (B, T) of the model's own stop decisions
    text_decisions: torch.Tensor  # (B, T) text tokens the model chose itself (forced tokens are no choice)
    stop_decisions: torch.Tensor  # (B, T) positions where the model itself decided to continue or to close
    open_allowed: torch.Tensor  # (B, T) text tokens in whose place the model could have opened a span
    spans: list[Span] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)  # end | budget | stopped, one a row
    forced_answer: list[bool] = field(default_factory=list)  # whether a row was forced to answer after its budget
    mixed: torch.Tensor | None = None  # (B, T) text positions that were fed a mixture, which latent_embeds hold
    policy_records: torch.Tensor | None = None  # (n, J, Z) what a latent policy recorded of the n latents, row by row
    hides_images: bool = False  # whether text after a span could not attend to the prompt's images

    def spans_of(self, row: int) -> list[Span]:
        return [span for span in self.spans if span.row == row]

    def latents(self, span: Span) -> torch.Tensor:
        """(K, D) the latents of a span, as they were fed back."""
        return self.latent_embeds[span.row, span.start : span.start + span.length]

    def select(self, rows: Sequence[int], prompt: MixedBatch) -> Rollout:
        """Some of its rows, cut to the longest of them. ``prompt`` holds their prompts and may be padded otherwise."""
        return join_rollouts([(self, row) for row in rows], prompt)

    def records_of(self, row: int) -> torch.Tensor | None:
        """(n, J, Z) what a latent policy recorded of the latents of a row."""
        if self.policy_records is None:
            return None
        counts = (self.token_type == LATENT).sum(1).tolist()
        return self.policy_records[sum(counts[:row]) : sum(counts[: row + 1])]

    def segments(self, row: int, vocabulary: Vocabulary) -> list[str | Span]:
        """A row as a person reads it: texts and spans in order."""
        out, spans, at = list[str | Span](), self.spans_of(row), 0
        for span in [*spans, None]:
            stop = span.start if span else int((self.token_type[row] != PAD).sum())
            is_text = self.token_type[row, at:stop] == TEXT
            text = vocabulary.decode(self.ids[row, at:stop][is_text].tolist())
            out += [text] if text else []
            if span:
                out.append(span)
                at = span.start + span.length
        return out

    def text(self, row: int, vocabulary: Vocabulary) -> str:
        """All text of a row."""
        return vocabulary.decode(self.ids[row][self.token_type[row] == TEXT].tolist())


def join_rollouts(rows: Sequence[tuple[Rollout, int]], prompt: MixedBatch) -> Rollout:
    """Rows of several rollouts as one, cut to the longest of them. ``prompt`` holds their prompts."""
    lengths = [int((rollout.token_type[row] != PAD).sum()) for rollout, row in rows]

    def join(name: str, axis: int = 0) -> torch.Tensor:
        parts = [getattr(rollout, name).select(axis, row) for rollout, row in rows]
        parts = [part.narrow(axis, 0, n).movedim(axis, 0) for part, n in zip(parts, lengths, strict=True)]
        return pad_sequence(parts, batch_first=True)

    names = "ids token_type latent_embeds log_prob sampled_log_prob stop_log_prob text_decisions stop_decisions".split()
    spans = [replace(span, row=new) for new, (rollout, row) in enumerate(rows) for span in rollout.spans_of(row)]
    records = [rollout.records_of(row) for rollout, row in rows]
    return Rollout(
        prompt,
        **{name: join(name) for name in (*names, "open_allowed")},
        positions=join("positions", 1).movedim(-1, 0),
        spans=spans,
        mixed=join("mixed") if rows and all(rollout.mixed is not None for rollout, _ in rows) else None,
        policy_records=torch.cat(kept) if (kept := [x for x in records if x is not None]) else None,
        finish_reasons=[rollout.finish_reasons[row] for rollout, row in rows],
        forced_answer=[rollout.forced_answer[row] for rollout, row in rows],
        hides_images=any(rollout.hides_images for rollout, _ in rows),
    )


#: fields of a step that are no integers
DTYPES = {
    "text_decisions": torch.bool,
    "stop_decisions": torch.bool,
    "open_allowed": torch.bool,
    "mixed": torch.bool,
    "log_prob": torch.float32,
    "sampled_log_prob": torch.float32,
    "stop_log_prob": torch.float32,
    "sampled_stop_log_prob": torch.float32,
}


def stack_steps(
    records: Sequence[StepRecord],
    rows: Sequence[Sequence[tuple[int, int, int]]],
    grids: list[Grid],
    latent: int,
    empty: torch.Tensor,
) -> tuple[dict[str, Any], list[Span]]:
    """The fields of a Rollout of n rows, and their spans.

    Args:
        rows: of each row its positions: the step in ``records``, the slot there, and the id it wrote.
        grids: the latent grid of each row's spans.
        latent: the id at latent positions.
        empty: (D,) gives width, precision and device of latents.
    """
    device, lengths = empty.device, [len(row) for row in rows]
    starts = [0, *accumulate(len(record.ids) for record in records)]
    index = [torch.tensor([starts[step] + slot for step, slot, _ in row], dtype=torch.long) for row in rows]
    index = to_device(pad_sequence(index, batch_first=True), device)  # into the entries of all steps in a row
    there = torch.arange(max(lengths), device=device) < to_device(torch.tensor(lengths), device)[:, None]

    def stack(name: str, where: torch.Tensor) -> torch.Tensor:
        # (n, T), zero but where rows did something of the kind
        values = [getattr(record, name) for record in records]
        none = torch.zeros(starts[-1], dtype=DTYPES.get(name, torch.long), device=device)
        every = [none[: len(record.ids)] if x is None else x for x, record in zip(values, records, strict=True)]
        return torch.cat([*every, none[:0]])[index].masked_fill(~where, 0)

    ids = stack("ids", there)
    kinds = torch.where(ids == latent, LATENT, TEXT).masked_fill(~there, PAD)
    text, stops = (stack(f"{name}_decisions", there) for name in ("text", "stop"))
    positions = torch.cat([record.positions for record in records], 1) if records else index.new_zeros(3, 0)
    fields: dict[str, Any] = {"ids": ids, "token_type": kinds, "positions": positions[:, index] * there}
    fields |= {"text_decisions": text, "stop_decisions": stops, "log_prob": stack("log_prob", text)}
    fields |= {"open_allowed": stack("open_allowed", text), "stop_log_prob": stack("stop_log_prob", stops)}
    fields["sampled_log_prob"] = stack("sampled_log_prob", text) + stack("sampled_stop_log_prob", stops)
    fields["latent_embeds"] = empty.new_zeros(*ids.shape, len(empty))
    drawn = [(step, slot) for row in rows for step, slot, token in row if token == latent]
    if drawn:
        latents = take_by_step(drawn, [record.latent_embeds for record in records])
        fields["latent_embeds"] = fields["latent_embeds"].masked_scatter(kinds[..., None] == LATENT, latents)
    if any(record.mixed is not None for record in records):
        fields["mixed"] = stack("mixed", there & (kinds == TEXT))
        vectors = [
            empty.new_zeros(len(record.ids), len(empty)) if record.mixed_embeds is None else record.mixed_embeds
            for record in records
        ]
        fields["latent_embeds"] = torch.where(
            fields["mixed"][..., None], torch.cat(vectors)[index], fields["latent_embeds"]
        )
    if drawn and any(record.policy_records is not None for record in records):
        fields["policy_records"] = take_by_step(drawn, [record.policy_records for record in records])
    spans = []
    for row, codes in enumerate(stack("cause", there).tolist()):
        for end in (at for at, code in enumerate(codes) if code):
            start = end
            while start and rows[row][start - 1][2] == latent:
                start -= 1
            spans.append(Span(row, start, end - start, grids[row], CAUSES[codes[end]]))
    return fields, spans


def take_by_step(places: list[tuple[int, int]], values: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """(n, ...) the entries of ``values``, one tensor (S, ...) a step, at n places: step and slot."""
    order = sorted(range(len(places)), key=places.__getitem__)
    parts = []
    for step, chosen in groupby(order, key=lambda i: places[i][0]):
        value = values[step]
        assert value is not None  # a latent was drawn in this step
        parts.append(value[to_device(torch.tensor([places[i][1] for i in chosen]), value.device)])
    return torch.cat(parts)[to_device(torch.tensor(order).argsort(), parts[0].device)]

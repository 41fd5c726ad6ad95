"""Rollout: what a model generated, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..model.batch import LATENT, PAD, TEXT, Grid, MixedBatch
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
    finish_reasons: list[str] = field(default_factory=list)  # end | budget, one a row
    forced_answer: list[bool] = field(default_factory=list)  # whether a row was forced to answer after its budget
    policy_records: torch.Tensor | None = None  # (n, J, Z) what a latent policy recorded of the n latents, row by row

    def spans_of(self, row: int) -> list[Span]:
        return [span for span in self.spans if span.row == row]

    def latents(self, span: Span) -> torch.Tensor:
        """(K, D) the latents of a span, as they were fed back."""
        return self.latent_embeds[span.row, span.start : span.start + span.length]

    def select(self, rows: Sequence[int], prompt: MixedBatch) -> Rollout:
        """Some of its rows, cut to the longest of them. ``prompt`` holds their prompts and may be padded otherwise."""
        index = torch.as_tensor(rows, device=self.ids.device)
        longest = int((self.token_type[index] != PAD).sum(1).max())
        names = (
            "ids token_type latent_embeds log_prob sampled_log_prob stop_log_prob text_decisions stop_decisions "
            "open_allowed"
        )
        cut = {name: getattr(self, name)[index, :longest] for name in names.split()}
        spans = [replace(span, row=new) for new, row in enumerate(rows) for span in self.spans_of(row)]
        records = None
        if self.policy_records is not None:
            by_row = self.policy_records.split((self.token_type == LATENT).sum(1).tolist())
            records = torch.cat([by_row[row] for row in rows])
        return Rollout(
            prompt,
            **cut,
            positions=self.positions[:, index, :longest],
            spans=spans,
            policy_records=records,
            finish_reasons=[self.finish_reasons[row] for row in rows],
            forced_answer=[self.forced_answer[row] for row in rows],
        )

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


#: fields of a step that are no integers
DTYPES = {name: torch.float32 for name in ("log_prob", "sampled_log_prob", "stop_log_prob", "sampled_stop_log_prob")}
DTYPES |= {name: torch.bool for name in ("text_decisions", "stop_decisions", "open_allowed")}


def stack_steps(
    parts: list[tuple[list[StepRecord], torch.Tensor]], lengths: list[int], grids: list[Grid], empty: torch.Tensor
) -> tuple[dict[str, Any], list[Span]]:
    """The fields of a Rollout of n rows, and their spans.

    Args:
        parts: steps one after the other, in parts that share the slots (n,) of the rows.
        lengths: how many positions each row has.
        grids: the latent grid of each row's spans.
        empty: (D,) gives width, precision and device of latents.
    """
    n, longest, device = len(lengths), max(lengths), empty.device
    there = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]

    def stack(name: str, where: torch.Tensor) -> torch.Tensor:
        """(n, T), zero but ``where`` (n, T) rows did something of the kind."""
        dtype, columns = DTYPES.get(name, torch.long), []
        for steps, slots in parts:
            none = torch.zeros(int(steps[0].ids.shape[0]), dtype=dtype, device=device)
            values = (getattr(step, name) for step in steps)
            columns.append(torch.stack([none if x is None else x for x in values])[:, slots])
        return (torch.cat(columns).T if columns else torch.zeros(n, 0, dtype=dtype, device=device)).masked_fill(
            ~where, 0
        )

    fields: dict[str, Any] = {name: stack(name, there) for name in ("ids", "token_type")}
    text, stops = (stack(f"{name}_decisions", there) for name in ("text", "stop"))
    fields |= {"text_decisions": text, "stop_decisions": stops, "log_prob": stack("log_prob", text)}
    fields |= {"open_allowed": stack("open_allowed", text), "stop_log_prob": stack("stop_log_prob", stops)}
    fields["sampled_log_prob"] = stack("sampled_log_prob", text) + stack("sampled_stop_log_prob", stops)
    fields["latent_embeds"] = empty.new_zeros(n, longest, len(empty))
    positions, drawn, records = [], [], []
    for steps, slots in parts:
        for step in steps:
            if step.latent_embeds is not None:
                fields["latent_embeds"][:, len(positions)] = step.latent_embeds[slots]
            if step.policy_records is not None:
                drawn.append(len(positions))
                records.append(step.policy_records[slots])
            positions.append(step.positions[:, slots])
    fields["positions"] = torch.stack(positions, 2) * there if positions else there.long().expand(3, -1, -1)
    is_latent = fields["token_type"] == LATENT
    fields["latent_embeds"] *= is_latent[..., None]
    if records:
        fields["policy_records"] = torch.stack(records, 1)[is_latent[:, drawn]]
    spans, kinds = [], fields["token_type"].tolist()
    for row, codes in enumerate(stack("cause", there).tolist()):
        for end in (at for at, code in enumerate(codes) if code):
            start = end
            while start and kinds[row][start - 1] == LATENT:
                start -= 1
            spans.append(Span(row, start, end - start, grids[row], CAUSES[codes[end]]))
    return fields, spans

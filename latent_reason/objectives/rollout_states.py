"""The states of the text model over a rollout: with the latents as they were fed, or drawn again from their noise."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..decoding.rollout import Rollout
from ..model.batch import IMAGE, LATENT, PAD, TEXT, shift_right, to_device
from ..model.reasoner import LatentReasoner
from .attention_masks import block_causal_mask
from .latent_policies import Pathwise


def rollout_inputs(model: LatentReasoner, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs of the text model for prompt and generation, N positions: embeddings (B, N, D + extra_width), mask (B, N),
    or (B, N, N) where images are hidden, and position ids (axes, B, N)."""
    prompt, backbone = rollout.prompt, model.backbone
    embeds = backbone.embed(rollout.ids)
    is_vector = rollout.token_type == LATENT
    if rollout.mixed is not None:
        is_vector = is_vector | rollout.mixed
    embeds = torch.where(is_vector[..., None], rollout.latent_embeds.to(embeds.dtype), embeds)
    embeds = torch.cat([model.prompt_embeddings(prompt), backbone.pad_extra(embeds)], 1)
    mask = torch.cat([prompt.mask, rollout.token_type != PAD], 1)
    if rollout.hides_images:
        mask = mask_without_images(rollout, mask, model.vocabulary.open)
    positions = torch.cat([backbone.position_ids(prompt), rollout.positions], -1)
    return embeds, mask, positions


def mask_without_images(rollout: Rollout, mask: torch.Tensor, opening: int) -> torch.Tensor:
    """(B, N, N) what each position attends to, of a rollout that ``hides_images`` and whose positions there are in
    ``mask`` (B, N): text after the first token ``opening`` of its row to no image, other opening tokens and latents to
    all."""
    opens = rollout.ids == opening
    hidden = (rollout.token_type == TEXT) & (opens.cumsum(1) > 0) & ~opens
    is_image = F.pad(rollout.prompt.token_type == IMAGE, (0, opens.shape[1]))
    hidden = F.pad(hidden, (mask.shape[1] - opens.shape[1], 0))
    return block_causal_mask(mask) & ~(hidden[:, :, None] & is_image[:, None])


def rollout_states(model: LatentReasoner, rollout: Rollout) -> torch.Tensor:
    """States (B, T, D) before every position of a rollout, from one parallel pass over prompt and generation."""
    states = model.backbone.forward_text(*rollout_inputs(model, rollout))
    return shift_right(states)[:, rollout.prompt.ids.shape[1] :]


class Places(NamedTuple):
    """Of the n latents of a rollout, row by row: row, column among the N positions of prompt and generation, number of
    the span in its row from 1 on and slot in the span, each (n,), and the grid (n, 2)."""

    row: torch.Tensor
    column: torch.Tensor
    span: torch.Tensor
    slot: torch.Tensor
    grid: torch.Tensor

    def select(self, index: torch.Tensor) -> Places:
        return Places(*(values[index] for values in self))


def places_of(rollout: Rollout) -> tuple[Places, list[int]]:
    """The places of all latents, and their columns as numbers."""
    start, host = rollout.prompt.ids.shape[1], list[tuple[int, ...]]()
    for i in range(len(rollout.ids)):
        spans = sorted((span for span in rollout.spans_of(i) if span.length), key=lambda span: span.start)
        for n, span in enumerate(spans, 1):
            host += [(i, start + span.start + k, n, k, *span.grid) for k in range(span.length)]
    table = to_device(torch.tensor(host, dtype=torch.long).reshape(-1, 6), rollout.ids.device)
    row, column, number, slot = table[:, :4].unbind(1)
    return Places(row, column, number, slot, table[:, 4:]), [column for _, column, *_ in host]


def count_spans(rollout: Rollout) -> torch.Tensor:
    """(B, N) how many spans have begun at each of the N positions of prompt and generation: 0 before the first latent."""
    is_latent = rollout.token_type == LATENT
    begun = (is_latent & ~F.pad(is_latent, (1, 0))[:, :-1]).cumsum(1)
    return F.pad(begun, (rollout.prompt.ids.shape[1], 0))


def path_states(model: LatentReasoner, rollout: Rollout, policy: Pathwise) -> torch.Tensor:
    """States (B, T, D) before every position of a rollout, with its latents drawn again from their noise, and with the
    gradient of what follows them. With ``credit="span"``, the states from the first latent of a span to that of the next
    have a gradient through the latents of this span alone.

    Raises:
        ValueError: activation checkpointing is on, and every latent has a pass of its own.
    """
    draw = unroll_path if policy.path == "full" else pass_twice
    begun, (places, columns) = count_spans(rollout), places_of(rollout)
    graded = [torch.ones_like(places.span, dtype=torch.bool)]
    if policy.credit == "span" and columns:
        graded = [places.span == number for number in range(1, int(places.span.max()) + 1)]
    states, *later = draw(model, rollout, policy, places, columns, graded)
    for number, part in enumerate(later, 2):  # the states before a span are the same in every pass from its own on
        states = torch.where((begun >= number)[..., None], part, states)
    return shift_right(states)[:, rollout.prompt.ids.shape[1] :]


def draw_again(
    model: LatentReasoner, policy: Pathwise, h: torch.Tensor, record: torch.Tensor, at: Places
) -> torch.Tensor:
    """(n, D + extra_width) latents as inputs of the text model, from the states (n, D) before them and their noise."""
    states, _ = model.head.cast_inputs(h, None)
    z, _ = policy.sample(model.head, states, record.to(states))
    return model.backbone.pad_extra(model.to_embeddings(z, at.grid, at.slot).to(h.dtype))


def keep_gradients(drawn: torch.Tensor, graded: torch.Tensor) -> torch.Tensor:
    """Latents (n, W) of which those of ``graded`` (n,) keep their gradient."""
    return torch.where(graded[:, None], drawn, drawn.detach())


def pass_twice(model, rollout, policy, places, columns, graded: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """For each of ``graded`` (n,), the latents with a gradient: states (B, N, D) of a pass over latents that are drawn
    from the states of a pass over those of the rollout. Without latents it makes two passes as well, both with a
    backward pass, so that sharded processes make as many as each other."""
    embeds, mask, positions = rollout_inputs(model, rollout)
    states = shift_right(model.backbone.forward_text(embeds, mask, positions))
    if not columns:
        yield model.backbone.forward_text(embeds + 0 * states.mean(), mask, positions)
        return
    drawn = draw_again(model, policy, states[places.row, places.column], rollout.policy_records, places)
    for some in graded:
        chosen = embeds.index_put((places.row, places.column), keep_gradients(drawn, some))
        yield model.backbone.forward_text(chosen, mask, positions)


def unroll_path(model, rollout, policy, places, columns, graded: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The same with latents that are drawn one after the other, by a cached pass for each column with one."""
    if model.backbone.is_gradient_checkpointing:
        raise ValueError(
            "rl.latent_policy_options.path=full cannot run with activation checkpointing: transformers drops the cache "
            "there. Turn one of them off."
        )
    order = sorted(range(len(columns)), key=columns.__getitem__)
    by_column = {column: [i for i in order if columns[i] == column] for column in sorted(set(columns))}
    for some in graded:
        yield unroll_columns(model, rollout, policy, places, by_column, some)


def unroll_columns(
    model: LatentReasoner,
    rollout: Rollout,
    policy: Pathwise,
    places: Places,
    by_column: dict[int, list[int]],
    graded: torch.Tensor,
) -> torch.Tensor:
    """States (B, N, D) with the latents of each column drawn again from the states before it, of which those of
    ``graded`` (n,) have a gradient. ``by_column`` has the latents of each column that holds some."""
    embeds, mask, positions = rollout_inputs(model, rollout)
    states: list[torch.Tensor] = []
    cache = model.backbone.new_cache()
    for start, stop in pairwise([0, *by_column, embeds.shape[1]]):
        chunk = embeds[:, start:stop]
        if start in by_column:
            index = to_device(torch.tensor(by_column[start]), embeds.device)
            at = places.select(index)
            drawn = draw_again(model, policy, states[-1][at.row, -1], rollout.policy_records[index], at)
            drawn = keep_gradients(drawn, graded[index])
            chunk = torch.cat([chunk[:, 0].index_put((at.row,), drawn)[:, None], chunk[:, 1:]], 1)
        seen = mask[:, :stop] if mask.ndim == 2 else mask[:, start:stop, :stop]
        states.append(model.backbone.forward_text(chunk, seen, positions[..., start:stop], cache))
    return torch.cat(states, 1)

"""Anchors of latents in reinforcement learning: how far the latents that a model draws are from something that stays.

Shapes: n latents of width Z, row by row, in the space of the head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import Grid
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.rollout_states import places_of
from latent_reason.visualization.sketch_decoder import SketchDecoder, fill_grid, preprocess_renderings

from ..config import RLConfig
from .rollouts import Experience


def check_anchor(rl: RLConfig, reasoner: LatentReasoner, decoder: SketchDecoder | None) -> None:
    """Raises ValueError for an anchor that needs renderings, where latents cannot be rendered."""
    needs_rendering = rl.latent_anchor > 0 and rl.latent_anchor_to != "start"
    if needs_rendering and (decoder is None or not reasoner.is_renderable):
        raise ValueError(
            f"rl.latent_anchor_to={rl.latent_anchor_to} needs decoded sketches. Start from a checkpoint with a sketch "
            "decoder and a method whose latents can be decoded to images, or set rl.latent_anchor_to to start."
        )


def anchor_distance(
    to: str,
    reference: LatentReasoner,
    decoder: SketchDecoder | None,
    experience: Experience,
    drawn: torch.Tensor,
    initial: torch.Tensor,
) -> torch.Tensor:
    """The mean squared distance (scalar) of latents ``drawn`` (n, Z) from their anchor, with the gradient of ``drawn``.

    ``to`` names the anchor: ``start``, the latents ``initial`` (n, Z) of the reference model in the same places;
    ``encoder``, what the reference's encoder makes of their own rendering, which stands still as every target does
    (image processors have no gradient); both in stds of a channel. ``rendering`` is the distance of their rendering from
    that of ``initial``, in stds of all its pixels, with the gradient of the decoder. The formulas of the last two are ours.
    """
    if to == "rendering":
        own, start = (render(reference, decoder, z, experience) for z in (drawn, initial))
        return (own - start).square().mean() / start.var(correction=0).clamp_min(1e-6)
    target, in_hidden_space = reference.target, reference.head.in_hidden_space
    is_raw = target is not None and (in_hidden_space or not target.standardize)
    std = target.std if is_raw else initial.square().mean().sqrt() if in_hidden_space else 1.0
    goal = initial if to == "start" else reencode(reference, decoder, drawn.detach(), experience)
    return ((drawn - goal) / std).square().mean()


class DrawnSpan(NamedTuple):
    """The latents of a span, as a decoder takes them (K, D), their grid and the token size of their picture."""

    latents: torch.Tensor
    grid: Grid
    size: Grid


def split_spans(reference: LatentReasoner, z: torch.Tensor, experience: Experience) -> list[DrawnSpan]:
    """The spans of a rollout that have a latent, row by row, with latents z (n, Z). As everywhere, a sketch has the size
    of the item's last image."""
    rollout: Rollout = experience.rollout
    places, _ = places_of(rollout)
    latents = reference.unscale_latents(reference.to_embeddings(z, places.grid, places.slot))
    spans = sorted((span for span in rollout.spans if span.length), key=lambda span: (span.row, span.start))
    images = [experience.graded[span.row].item.images[-1] for span in spans]
    return [
        DrawnSpan(part, span.grid, reference.backbone.token_grid(image))
        for part, span, image in zip(latents.split([span.length for span in spans]), spans, images, strict=True)
    ]


def render(reference: LatentReasoner, decoder: SketchDecoder, z: torch.Tensor, experience: Experience) -> torch.Tensor:
    """(pixels,) of the renderings of latents z (n, Z), those of the same grid and size together."""
    groups: dict[tuple[Grid, Grid], list[torch.Tensor]] = {}
    for latents, grid, size in split_spans(reference, z, experience):
        filled = fill_grid(latents, grid).to(decoder.device, decoder.dtype)
        groups.setdefault((grid, size), []).append(filled)
    return torch.cat([decoder(torch.stack(spans), *key).flatten() for key, spans in groups.items()]).to(z.device)


@torch.no_grad()
def reencode(
    reference: LatentReasoner, decoder: SketchDecoder, z: torch.Tensor, experience: Experience
) -> torch.Tensor:
    """(n, Z) what the encoder makes of the renderings of latents z (n, Z). Latents beyond the grid of their span, which no
    rendering shows, stay as they are."""
    spans, target = split_spans(reference, z, experience), reference.target
    images = preprocess_renderings(reference, [decoder.draw(*span) for span in spans], [span.size for span in spans])
    encoded, goals = target.encode(images, [span.grid for span in spans]), []
    for own, span, found in zip(z.split([len(span.latents) for span in spans]), spans, encoded, strict=True):
        if not reference.head.in_hidden_space:
            found = target.normalize(found[None], torch.tensor([span.grid], device=z.device))[0]
        goals.append(torch.cat([found[: len(own)].to(own), own[len(found) :]]))
    return torch.cat(goals)

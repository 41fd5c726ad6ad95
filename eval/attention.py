"""Attention per layer: of the state before the answer, and on the part of the image that contains the answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latent_reason.decoding.items import Result
from latent_reason.model.backbones import Backbone
from latent_reason.model.batch import IMAGE, LATENT, TEXT
from latent_reason.tasks import Task

from .replay import answer_start

MAX_ITEMS = 32


@torch.no_grad()
def attention_table(reasoner, r: Result, stop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Attention (L, N, N) over the prompt and the first ``stop`` positions of the output, their ids (N,) and token types
    (N,), and the length of the prompt."""
    rollout, prompt, row = r.rollout, r.rollout.prompt, slice(r.row, r.row + 1)
    own_embeds = reasoner.backbone.embed(rollout.ids)
    own_embeds = torch.where(
        (rollout.token_type == LATENT)[..., None], rollout.latent_embeds.to(own_embeds.dtype), own_embeds
    )
    prompt_length = prompt.ids.shape[1]
    n = prompt_length + stop
    embeds = torch.cat([reasoner.prompt_embeddings(prompt), reasoner.backbone.pad_extra(own_embeds)], 1)[row, :n]
    ids, token_type = (
        torch.cat([getattr(prompt, name), getattr(rollout, name)], 1)[row, :n] for name in ("ids", "token_type")
    )
    positions = torch.cat([reasoner.backbone.position_ids(prompt), rollout.positions], -1)[:, row, :n]
    return (
        attention_weights(reasoner.backbone, embeds, token_type != 0, positions)[:, 0],
        ids[0],
        token_type[0],
        prompt_length,
    )


def attention_weights(
    backbone: Backbone, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """(L, B, N, N) attention weights of every layer, averaged over heads, of one pass over inputs of
    :meth:`Backbone.forward_text`."""
    before = backbone.attn_implementation
    backbone.model.set_attn_implementation("eager")  # the only one that returns weights
    try:
        out = backbone.call_text_model(embeds, mask, positions, use_cache=False, output_attentions=True)
    finally:
        backbone.model.set_attn_implementation(before)
    return torch.stack([a.mean(1) for a in out.attentions])


def answer_attention(reasoner, results: Sequence[Result]) -> dict:
    """Attention of the state before the answer, per layer: its shares on the image, the latents, the model's own text
    and the rest of the prompt. Uses items with a sketch and a boxed answer. ``share_of_positions`` has the shares that
    uniform attention would have."""
    layers, sizes = [], []
    for r in results:
        at = answer_start(r.rollout, r.row, reasoner)
        if at is None or not r.latents:
            continue
        table, _, token_type, prompt_length = attention_table(reasoner, r, at)
        shares, own = table[:, -1], torch.arange(len(token_type), device=token_type.device) >= prompt_length
        parts = {
            "picture": token_type == IMAGE,
            "latents": (token_type == LATENT) & own,
            "own_words": (token_type == TEXT) & own,
            "prompt": (token_type == TEXT) & ~own,
        }
        layers.append(torch.stack([shares[:, m].sum(-1) for m in parts.values()], -1))
        sizes.append(torch.tensor([m.sum() for m in parts.values()]) / sum(int(m.sum()) for m in parts.values()))
        if len(layers) == MAX_ITEMS:
            break
    if not layers:
        return {}
    names = ("picture", "latents", "own_words", "prompt")
    mean, size = torch.stack(layers).mean(0), torch.stack(sizes).mean(0)
    return {
        "n": len(layers),
        "share_of_positions": dict(zip(names, [round(float(v), 4) for v in size], strict=True)),
        "layers": [dict(zip(names, [round(float(v), 4) for v in row], strict=True)) for row in mean],
    }


def box_overlap(box: tuple[float, float, float, float], grid: tuple[int, int]) -> torch.Tensor:
    """(h * w,) the share of each grid cell inside a box, given as x0, y0, x1, y1 in 0-1."""

    def overlap(low, high, n):
        edge = torch.arange(n)
        return ((edge + 1).clamp(max=n * high) - edge.clamp(min=n * low)).clamp(min=0)

    x0, y0, x1, y1 = box
    return torch.outer(overlap(y0, y1, grid[0]), overlap(x0, x1, grid[1])).flatten()


def attention_in_box(reasoner, task: Task, results: Sequence[Result]) -> dict:
    """Attention coverage: share of the attention on image tokens that falls on the part with the answer, per layer.

    The queries are the last position of the prompt, tokens that open a span, and latents. ``ratio`` is coverage divided
    by the area of the part (1: no focus), as mean over layers and for the best layer. {} if the task has no such part.
    """
    rows: dict[str, list] = {"prompt": [], "start": [], "latents": []}
    area = []
    for r in results[:MAX_ITEMS]:
        if (box := task.box(r.item)) is None:
            continue
        stop = max((s.start + s.length for s in r.rollout.spans_of(r.row)), default=0)
        table, ids, token_type, prompt_length = attention_table(reasoner, r, stop)
        image_attention = table[..., token_type == IMAGE]  # (L, N, image tokens)
        box_share = box_overlap(box, reasoner.backbone.token_grid(r.item.images[-1])).to(image_attention)
        if len(reasoner.backbone.image_layout(r.item.images[-1])) > 2:  # tiled: use the whole image, which is last
            image_attention = image_attention[..., -len(box_share) :]
        padding = box_share.new_zeros(image_attention.shape[-1] - len(box_share))  # earlier images have no box
        box_share = torch.cat([padding, box_share])
        coverage, at = image_attention @ box_share / image_attention.sum(-1), torch.arange(len(ids), device=ids.device)
        own = at >= prompt_length
        for name, queries in {
            "prompt": at == prompt_length - 1,
            "start": own & (ids == reasoner.vocabulary.open),
            "latents": own & (token_type == LATENT),
        }.items():
            if queries.any():
                rows[name].append(coverage[:, queries].mean(-1))
        area.append(float(box_share.mean()))
    if not area:
        return {}
    share_of_area = sum(area) / len(area)
    means = {name: torch.stack(values).mean(0) for name, values in rows.items() if values}
    return {
        "n": len(area),
        "share_of_area": round(share_of_area, 4),
        "layers": [{name: round(float(v[i]), 4) for name, v in means.items()} for i in range(len(table))],
        "ratio": {
            name: {"mean": round(float(v.mean()) / share_of_area, 3), "best": round(float(v.max()) / share_of_area, 3)}
            for name, v in means.items()
        },
    }

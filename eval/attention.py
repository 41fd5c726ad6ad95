"""Where a model looks, layer by layer: the state before the answer; and whether the prompt, openings of spans and
latents look into the part of the picture that suffices to answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latent_reason.decoding.items import Result
from latent_reason.model.backbones import Backbone
from latent_reason.model.batch import IMAGE, LATENT, TEXT
from latent_reason.tasks import Task

from .replay import answer_at

MOST = 32  # items whose attention is taken


@torch.no_grad()
def attended(reasoner, r: Result, stop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Attention (L, N, N) over the prompt and the first ``stop`` positions that a row wrote, their ids (N,) and kinds
    (N,), and how many are the prompt's."""
    rollout, prompt, row = r.rollout, r.rollout.prompt, slice(r.row, r.row + 1)
    fed = reasoner.backbone.embed(rollout.ids)
    fed = torch.where((rollout.token_type == LATENT)[..., None], rollout.latent_embeds.to(fed.dtype), fed)
    asked = prompt.ids.shape[1]
    n = asked + stop
    embeds = torch.cat([reasoner.prompt_embeddings(prompt), reasoner.backbone.pad_extra(fed)], 1)[row, :n]
    ids, kind = (
        torch.cat([getattr(prompt, name), getattr(rollout, name)], 1)[row, :n] for name in ("ids", "token_type")
    )
    positions = torch.cat([reasoner.backbone.position_ids(prompt), rollout.positions], -1)[:, row, :n]
    return attention_weights(reasoner.backbone, embeds, kind != 0, positions)[:, 0], ids[0], kind[0], asked


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


def looks(reasoner, results: Sequence[Result]) -> dict:
    """Where the state before the answer looks: shares of its attention on the picture, the latents, the model's own
    words and the rest of the prompt, layer by layer, over items that sketched and boxed an answer; and how much of each
    is there to look at (share of positions)."""
    layers, there = [], []
    for r in results:
        at = answer_at(r.rollout, r.row, reasoner)
        if at is None or not r.latents:
            continue
        table, _, kind, asked = attended(reasoner, r, at)
        looked, own = table[:, -1], torch.arange(len(kind), device=kind.device) >= asked
        parts = {
            "picture": kind == IMAGE,
            "latents": (kind == LATENT) & own,
            "own_words": (kind == TEXT) & own,
            "prompt": (kind == TEXT) & ~own,
        }
        layers.append(torch.stack([looked[:, m].sum(-1) for m in parts.values()], -1))
        there.append(torch.tensor([m.sum() for m in parts.values()]) / sum(int(m.sum()) for m in parts.values()))
        if len(layers) == MOST:
            break
    if not layers:
        return {}
    names = ("picture", "latents", "own_words", "prompt")
    mean, size = torch.stack(layers).mean(0), torch.stack(there).mean(0)
    return {
        "n": len(layers),
        "share_of_positions": dict(zip(names, [round(float(v), 4) for v in size], strict=True)),
        "layers": [dict(zip(names, [round(float(v), 4) for v in row], strict=True)) for row in mean],
    }


def inside(box: tuple[float, float, float, float], grid: tuple[int, int]) -> torch.Tensor:
    """(h * w,) how much of each cell of a grid lies in a box, given as shares x0, y0, x1, y1 of the whole."""

    def along(low, high, n):
        edge = torch.arange(n)
        return ((edge + 1).clamp(max=n * high) - edge.clamp(min=n * low)).clamp(min=0)

    x0, y0, x1, y1 = box
    return torch.outer(along(y0, y1, grid[0]), along(x0, x1, grid[1])).flatten()


def looks_into_box(reasoner, task: Task, results: Sequence[Result]) -> dict:
    """Attention coverage: how much of the attention on pictures falls into the part that suffices to answer, from the
    prompt's last position, from tokens that open a span and from latents, layer by layer. ``ratio`` is coverage over
    the part's share of the picture tokens (1: no focus), mean over layers and in the best one. {} for tasks that name
    no such part."""
    rows: dict[str, list] = {"prompt": [], "start": [], "latents": []}
    area = []
    for r in results[:MOST]:
        if (box := task.box(r.item)) is None:
            continue
        stop = max((s.start + s.length for s in r.rollout.spans_of(r.row)), default=0)
        table, ids, kind, asked = attended(reasoner, r, stop)
        seen = table[..., kind == IMAGE]  # (L, N, picture tokens)
        part = inside(box, reasoner.backbone.token_grid(r.item.images[-1])).to(seen)
        if len(reasoner.backbone.image_layout(r.item.images[-1])) > 2:  # in tiles: look at the whole, which comes last
            seen = seen[..., -len(part) :]
        part = torch.cat([part.new_zeros(seen.shape[-1] - len(part)), part])  # pictures before it hold none
        covered, at = seen @ part / seen.sum(-1), torch.arange(len(ids), device=ids.device)
        own = at >= asked
        for name, queries in {
            "prompt": at == asked - 1,
            "start": own & (ids == reasoner.vocabulary.open),
            "latents": own & (kind == LATENT),
        }.items():
            if queries.any():
                rows[name].append(covered[:, queries].mean(-1))
        area.append(float(part.mean()))
    if not area:
        return {}
    share_of_area = sum(area) / len(area)
    means = {name: torch.stack(found).mean(0) for name, found in rows.items() if found}
    return {
        "n": len(area),
        "share_of_area": round(share_of_area, 4),
        "layers": [{name: round(float(v[i]), 4) for name, v in means.items()} for i in range(len(table))],
        "ratio": {
            name: {"mean": round(float(v.mean()) / share_of_area, 3), "best": round(float(v.max()) / share_of_area, 3)}
            for name, v in means.items()
        },
    }

"""What stands in for a drawn latent while a probe decodes: noise, nothing, another item's sketch, the true one.

Each is called by the engine as ``f(rows, spans, slots, vectors, written) -> vectors`` (n, D) just before latents are
fed, and everything after is free ("regenerate" protocol).
"""

from __future__ import annotations

import torch

from latent_reason.decoding.items import Result


class Zero:
    """P2a."""

    def __call__(self, rows, spans, slots, vectors, written):
        return torch.zeros_like(vectors)


class Mean:
    """P2b: the mean latent of the slot; the floor of what a sketch could say."""

    def __init__(self, bank: Bank, grids):
        self.bank, self.grids = bank, grids

    def __call__(self, rows, spans, slots, vectors, written):
        out = vectors.clone()
        for i, (r, s) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True)):
            if known := self.bank.slot(self.grids[r], s):
                out[i] = known[0]
        return out


class Noise:
    """P1: Gaussian with the mean and the (shrunk) covariance of the slot over many items, norm matched to what was
    drawn. ``random`` is shared by all batches of a probe."""

    def __init__(self, bank: Bank, grids, random: torch.Generator):
        self.bank, self.grids, self.random = bank, grids, random

    def __call__(self, rows, spans, slots, vectors, written):
        noise = vectors.clone()
        for i, (r, s) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True)):
            if known := self.bank.slot(self.grids[r], s):
                mean, root = known
                noise[i] = mean + root @ torch.randn(vectors.shape[-1], generator=self.random)
        return noise * vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True).clamp_min(1e-8)


class Dummy:
    """P2c: the embedding of one ordinary word."""

    def __init__(self, reasoner):
        word, *_ = reasoner.vocabulary.encode_text("the")
        self.vector = reasoner.backbone.embed(torch.tensor([word], device=reasoner.device))[0].detach()

    def __call__(self, rows, spans, slots, vectors, written):
        return self.vector.to(vectors).expand_as(vectors)


def encoded(reasoner, picture) -> torch.Tensor:
    """(K, D) the latents a sketch that looks like the picture should have."""
    return reasoner.target.encode_embeddings(reasoner.processor.preprocess_sketches([picture]).to(reasoner.device))[0]


class Region:
    """P1r: the encoding of a random part of the item's own picture, blown up to the whole."""

    def __init__(self, reasoner, items, random: torch.Generator):
        self.latents = []
        for item in items:
            picture = item.images[-1]
            w, h = (max(s // 2, 1) for s in picture.size)
            x, y = (
                int(torch.randint(s - part + 1, (), generator=random))
                for s, part in zip(picture.size, (w, h), strict=True)
            )
            self.latents.append(encoded(reasoner, picture.crop((x, y, x + w, y + h)).resize(picture.size)))

    def __call__(self, rows, spans, slots, vectors, written):
        picked = [
            self.latents[r][min(s, len(self.latents[r]) - 1)]
            for r, s in zip(rows.tolist(), slots.tolist(), strict=True)
        ]
        return torch.stack(picked).to(vectors)


class FirstOnly:
    """The first ``share`` of a span as drawn, the mean of its slot after that."""

    def __init__(self, mean: Mean, grids, share: float):
        self.mean, self.share = mean, share
        self.lengths = torch.tensor([h * w for h, w in grids])

    def __call__(self, rows, spans, slots, vectors, written):
        late = slots >= (self.share * self.lengths.to(slots.device)[rows]).ceil()
        return torch.where(late[:, None], self.mean(rows, spans, slots, vectors, written), vectors)


def shuffled(spans: list[torch.Tensor], random: torch.Generator) -> list[torch.Tensor]:
    """P8: the latents of each span in another order; a single one stays."""
    out = []
    for z in spans:
        order = torch.arange(len(z))
        while len(z) > 1 and torch.equal(order, torch.arange(len(z))):
            order = torch.randperm(len(z), generator=random)
        out.append(z[order])
    return out


class Given:
    """Latents known beforehand, span by span: P3 (another item's) and the kept latents of P7. ``spans`` are lists of
    (K, D) a row; a row with fewer spans than the model opens repeats its last one, or draws freely with
    ``only_given``."""

    def __init__(self, latents: list[list[torch.Tensor]], only_given: bool = False):
        self.latents, self.only_given = latents, only_given

    def __call__(self, rows, spans, slots, vectors, written):
        out = vectors.clone()
        for i, (r, span, slot) in enumerate(zip(rows.tolist(), spans.tolist(), slots.tolist(), strict=True)):
            own = self.latents[r]
            given = own[min(span, len(own) - 1)] if own else ()
            if len(given) and not (self.only_given and span >= len(own)):
                out[i] = given[min(slot, len(given) - 1)]
        return out


class Oracle:
    """P4: the encoding of the true picture, that of the state the model's own words have led to so far."""

    def __init__(self, reasoner, task, items):
        self.reasoner, self.task, self.items, self.drawn = reasoner, task, items, {}

    def __call__(self, rows, spans, slots, vectors, written):
        out = vectors.clone()
        for i, (r, span, slot) in enumerate(zip(rows.tolist(), spans.tolist(), slots.tolist(), strict=True)):
            if (r, span) not in self.drawn:
                self.drawn[r, span] = self.encode(self.items[r], span, written[r])
            latents = self.drawn[r, span]
            out[i] = latents[min(slot, len(latents) - 1)]
        return out

    def encode(self, item, span: int, ids) -> torch.Tensor:
        said = [""] * span + [self.reasoner.vocabulary.decode(ids)]
        return encoded(self.reasoner, self.task.render_state(item, self.task.state_said(item, said)))


class Bank:
    """Mean (D,) and square root of the covariance (D, D) of drawn latents, slot by slot of each grid, shrunk toward its
    diagonal (``shrink`` 1: only that). Where a slot was never drawn on a grid, the last one before it stands in; on a
    grid never drawn on, all latents together do."""

    def __init__(self, results: list[Result], shrink: float = 0.1):
        self.shrink, self.found = shrink, {}
        self.drawn: dict[tuple | None, dict[int, list[torch.Tensor]]] = {None: {0: []}}
        for r in results:
            for span in r.rollout.spans_of(r.row):
                for number, z in enumerate(r.rollout.latents(span).float().cpu()):
                    self.drawn.setdefault(tuple(span.grid), {}).setdefault(number, []).append(z)
                    self.drawn[None][0].append(z)

    def slot(self, grid: tuple[int, int], number: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and root of a slot; None where nothing was drawn at all."""
        grid = tuple(grid) if tuple(grid) in self.drawn else None
        number = max((n for n in self.drawn[grid] if n <= number), default=0)
        if not self.drawn[grid].get(number):
            return None
        if (grid, number) not in self.found:
            z = torch.stack(self.drawn[grid][number])
            centred = z - z.mean(0)
            if self.shrink == 1:
                root = torch.diag(centred.square().mean(0).sqrt())
            else:
                cov = centred.T @ centred / max(len(z) - 1, 1)
                cov = (1 - self.shrink) * cov + self.shrink * torch.diag(cov.diagonal())
                values, vectors = torch.linalg.eigh(cov)
                root = vectors * values.clamp_min(0).sqrt()
            self.found[grid, number] = z.mean(0), root
        return self.found[grid, number]

"""Replacements of the sampled latents during a probe: noise, zeros, another item's sketch, the true sketch, and others.

The engine calls each as ``f(rows, spans, slots, vectors, written) -> vectors`` (n, D) just before latents become inputs.
All later text is generated freely (protocol "regenerate").
"""

from __future__ import annotations

import torch

from latent_reason.decoding.items import Result
from latent_reason.decoding.replacements import MAX_LATENTS, StoredLatents, Zero
from latent_reason.decoding.sampling import noise_counters, normal, row_keys
from latent_reason.visualization.storyboard import split_text


class Mean:
    """P2b: the mean latent of the slot, which contains nothing about the item."""

    def __init__(self, statistics: LatentStatistics, grids):
        self.statistics, self.grids = statistics, grids

    def __call__(self, rows, spans, slots, vectors, written):
        out = vectors.clone()
        for i, (r, s) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True)):
            if statistics := self.statistics.slot(self.grids[r], s):
                out[i] = statistics[0]
        return out


class Noise:
    """P1: Gaussian noise with the mean and the (shrunk) covariance of the slot over many items, scaled to the norm of
    the sampled latent. It is keyed by row, span and slot, so that the order of decoding does not change it."""

    def __init__(self, statistics: LatentStatistics, grids, seed: int):
        self.statistics, self.grids, self.seed = statistics, grids, seed

    def __call__(self, rows, spans, slots, vectors, written):
        noise, rows = vectors.clone(), rows.tolist()
        place = (spans * MAX_LATENTS + slots).cpu()
        draws = normal(row_keys(self.seed, rows), place, noise_counters(vectors.shape[-1]))
        for i, (r, s) in enumerate(zip(rows, slots.tolist(), strict=True)):
            if statistics := self.statistics.slot(self.grids[r], s):
                mean, root = statistics
                noise[i] = mean + root @ draws[i].to(root)
        return noise * vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True).clamp_min(1e-8)


class WordEmbedding:
    """P2c: the embedding of the word "the"."""

    def __init__(self, reasoner):
        token, *_ = reasoner.vocabulary.encode_text("the")
        self.vector = reasoner.backbone.embed(torch.tensor([token], device=reasoner.device))[0].detach()

    def __call__(self, rows, spans, slots, vectors, written):
        return self.vector.to(vectors).expand_as(vectors)


def encode_sketch(reasoner, image) -> torch.Tensor:
    """(K, D) the latents of the true sketch ``image``, as they are fed."""
    images = reasoner.processor.preprocess_sketches([image]).to(reasoner.device)
    return reasoner.scale_latents(reasoner.target.encode_embeddings(images)[0])


class RandomCrop:
    """P1r: the encoding of a random part of the item's own image, resized to the whole image."""

    def __init__(self, reasoner, items, seed: int):
        self.reasoner, self.items, self.seed = reasoner, items, seed
        self.latents: dict[int, torch.Tensor] = {}

    def __call__(self, rows, spans, slots, vectors, written):
        chosen = [
            self.crop_latents(r)[min(s, len(self.crop_latents(r)) - 1)]
            for r, s in zip(rows.tolist(), slots.tolist(), strict=True)
        ]
        return torch.stack(chosen).to(vectors)

    def crop_latents(self, row: int) -> torch.Tensor:
        if row not in self.latents:
            image, random = self.items[row].images[-1], row_random(self.seed, row)
            w, h = (max(s // 2, 1) for s in image.size)
            x, y = (
                int(torch.randint(s - part + 1, (), generator=random))
                for s, part in zip(image.size, (w, h), strict=True)
            )
            self.latents[row] = encode_sketch(self.reasoner, image.crop((x, y, x + w, y + h)).resize(image.size))
        return self.latents[row]


def row_random(seed: int, row: int) -> torch.Generator:
    """Random numbers of one row, whatever other rows draw."""
    return torch.Generator().manual_seed(int(row_keys(seed, [row])) >> 1)


class KeepFirst:
    """The first ``share`` of a span as sampled; the mean of the slot for the rest."""

    def __init__(self, mean: Mean, grids, share: float):
        self.mean, self.share = mean, share
        self.lengths = torch.tensor([h * w for h, w in grids])

    def __call__(self, rows, spans, slots, vectors, written):
        is_late = slots >= (self.share * self.lengths.to(slots.device)[rows]).ceil()
        return torch.where(is_late[:, None], self.mean(rows, spans, slots, vectors, written), vectors)


def shuffle_slots(spans: list[torch.Tensor], random: torch.Generator) -> list[torch.Tensor]:
    """P8: the latents of each span in another order. A span of one latent is unchanged."""
    out = []
    for z in spans:
        order = torch.arange(len(z))
        while len(z) > 1 and torch.equal(order, torch.arange(len(z))):
            order = torch.randperm(len(z), generator=random)
        out.append(z[order])
    return out


class Oracle:
    """P4: the encoding of the true sketch of the state that the model's own text has reached."""

    def __init__(self, reasoner, task, items):
        self.reasoner, self.task, self.items, self.encoded = reasoner, task, items, {}

    def __call__(self, rows, spans, slots, vectors, written):
        out = vectors.clone()
        for i, (r, span, slot) in enumerate(zip(rows.tolist(), spans.tolist(), slots.tolist(), strict=True)):
            if (r, span) not in self.encoded:
                self.encoded[r, span] = self.encode(self.items[r], span, written[r])
            latents = self.encoded[r, span]
            out[i] = latents[min(slot, len(latents) - 1)]
        return out

    def encode(self, item, span: int, ids) -> torch.Tensor:
        texts = [""] * span + [self.reasoner.vocabulary.decode(ids)]
        return encode_sketch(self.reasoner, self.task.render_state(item, self.task.state_said(item, texts)))


class LatentStatistics:
    """Mean (D,) and square root of the covariance (D, D) of sampled latents, per slot of each grid.

    The covariance is shrunk toward its diagonal (``shrink`` 1: diagonal only). A slot without samples uses the previous
    slot of the grid; a grid without samples uses all latents together.
    """

    def __init__(self, results: list[Result], shrink: float = 0.1):
        self.shrink, self.cache = shrink, {}
        self.latents: dict[tuple | None, dict[int, list[torch.Tensor]]] = {None: {0: []}}
        for r in results:
            for span in r.rollout.spans_of(r.row):
                for number, z in enumerate(r.rollout.latents(span).float().cpu()):
                    self.latents.setdefault(tuple(span.grid), {}).setdefault(number, []).append(z)
                    self.latents[None][0].append(z)

    def slot(self, grid: tuple[int, int], number: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and root of a slot; None if there are no latents at all."""
        grid = tuple(grid) if tuple(grid) in self.latents else None
        number = max((n for n in self.latents[grid] if n <= number), default=0)
        if not self.latents[grid].get(number):
            return None
        if (grid, number) not in self.cache:
            z = torch.stack(self.latents[grid][number])
            centered = z - z.mean(0)
            if self.shrink == 1:
                root = torch.diag(centered.square().mean(0).sqrt())
            else:
                cov = centered.T @ centered / max(len(z) - 1, 1)
                cov = (1 - self.shrink) * cov + self.shrink * torch.diag(cov.diagonal())
                values, vectors = torch.linalg.eigh(cov)
                root = vectors * values.clamp_min(0).sqrt()
            self.cache[grid, number] = z.mean(0), root
        return self.cache[grid, number]


def probe_arms(reasoner, task, mode: str, plain: list[Result], donor_rows: list[int], seed: int) -> dict[str, dict]:
    """Name of a probe -> options of :func:`decode`. Each probe has its own random numbers, whichever ran before it."""
    index = {id(r.item): i for i, r in enumerate(plain)}

    def rows_of(chunk):
        return [index[id(i)] for i in chunk]

    def grids(chunk):
        return [reasoner.latent_grid_for(reasoner.backbone.token_grid(i.images[-1])) for i in chunk]

    def own(chunk):
        return StoredLatents([plain[i].latents for i in rows_of(chunk)])

    statistics, diagonal = LatentStatistics(plain), LatentStatistics(plain, 1.0)
    order = torch.Generator().manual_seed(seed)
    permuted = [shuffle_slots(r.latents, order) for r in plain]
    foreign = [plain[d].latents if d >= 0 else [] for d in donor_rows]
    return {
        "again": {"seed": seed + 1},
        "noise": {"latent_hook": lambda c: Noise(statistics, grids(c), seed)},
        "noise_diagonal": {"latent_hook": lambda c: Noise(diagonal, grids(c), seed)},
        "region": {"latent_hook": lambda c: RandomCrop(reasoner, c, seed)},
        "mean": {"latent_hook": lambda c: Mean(statistics, grids(c))},
        "zero": {"latent_hook": lambda c: Zero()},
        "dummy": {"latent_hook": lambda c: WordEmbedding(reasoner)},
        "first_half": {"latent_hook": lambda c: KeepFirst(Mean(statistics, grids(c)), grids(c), 0.5)},
        "permuted": {"latent_hook": lambda c: StoredLatents([permuted[i] for i in rows_of(c)])},
        "reversed": {
            "latent_hook": lambda c: StoredLatents([[z.flip(0) for z in plain[i].latents] for i in rows_of(c)])
        },
        "foreign": {"latent_hook": lambda c: StoredLatents([foreign[i] for i in rows_of(c)])},
        "oracle": {"latent_hook": lambda c: Oracle(reasoner, task, c)},
        "copy": {"latent_hook": lambda c: StoredLatents([[encode_sketch(reasoner, i.images[-1])] for i in c])},
        "markers": {"latents_per_span": 0},
        "removed": {"latent_mode": "off"},
        "image_blanked": {"make_trace": lambda item: task.blind(item, mode), "latent_hook": own},
        "image_masked": {"hide_images": True, "latent_hook": own},
        "blind": {"make_trace": lambda item: task.blind(item, mode), "latent_mode": "off"},
        "text_corrupted": {
            "forced_tokens": lambda c: [corrupted_prefix(reasoner, task, plain[i]) for i in rows_of(c)],
            "latent_hook": lambda c: StoredLatents([plain[i].latents[:1] for i in rows_of(c)], only_stored=True),
        },
    }


def corrupted_prefix(reasoner, task, result: Result) -> list[int]:
    """The ids of the text before the first sketch with one move flipped, then the open token of that sketch."""
    first = split_text(result.rollout, result.row, reasoner.vocabulary)[0]
    text = task.corrupt(first, task.stream(result.item.level, result.item.index, "corrupt"))
    return reasoner.vocabulary.encode_text(text) + ([reasoner.vocabulary.open] if result.latents else [])

"""The same words under another picture: what they should lose when it is masked, and keep when it is only noisy.

PAPO (2507.06448) rewards words for being less likely once patches of the picture are black; DVRP asks that, and that a
little noise changes nothing. Latents stay as they were drawn (``recorded``), are drawn again from the changed picture
(``regenerated``), or are out of sight (``dropped``), which asks the answer to need the sketch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from diffusers.schedulers import DDPMScheduler
from PIL import Image as PILImage

from latent_reason.decoding.engine import generate
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, PAD
from latent_reason.objectives.policy_gradient import distance
from latent_reason.trace import Image, Trace

PATCH = 14  # pixels of a side
FURTHEST = 20.0  # a difference of log-probabilities is cut there
NOISIEST, SHARPNESS = 500, 10.0  # of the noise: the step of its schedule at first, and how suddenly it goes


def masked(picture: PILImage.Image, share: float, random: np.random.Generator) -> PILImage.Image:
    """The picture with this share of its patches black."""
    pixels = np.array(picture.convert("RGB"))
    rows, columns = (math.ceil(side / PATCH) for side in pixels.shape[:2])
    black = (random.random((rows, columns)) < share).repeat(PATCH, 0).repeat(PATCH, 1)
    pixels[black[: pixels.shape[0], : pixels.shape[1]]] = 0
    return PILImage.fromarray(pixels)


def noisy(picture: PILImage.Image, done: float, random: np.random.Generator) -> PILImage.Image:
    """The picture with noise that keeps its variance: much at first, almost none when training is ``done`` (0 to 1)."""
    t = int(NOISIEST / (1 + math.exp(SHARPNESS * (done - 0.5))))
    kept = float(DDPMScheduler().alphas_cumprod[t])
    pixels = np.asarray(picture.convert("RGB")) / 127.5 - 1
    pixels = math.sqrt(kept) * pixels + math.sqrt(1 - kept) * random.standard_normal(pixels.shape)
    return PILImage.fromarray(((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))


def changed(trace: Trace, change: Callable[[PILImage.Image], PILImage.Image]) -> Trace:
    """The trace with every picture it shows changed; sketches are as they were."""
    return replace(
        trace,
        messages=tuple(
            replace(
                m,
                content=tuple(
                    replace(part, image=change(part.image)) if isinstance(part, Image) else part for part in m.content
                ),
            )
            for m in trace.messages
        ),
    )


def seen(reasoner, rollout: Rollout, traces: list[Trace], latents: str, **drawn) -> Rollout:
    """The rollout as if its pictures had been those of ``traces``. ``drawn`` are the options of :func:`generate` it was
    drawn with (seed, rows, policy, latents of a span), so that nothing but the picture differs.

    Raises:
        ValueError: latents are to be drawn again, but not as many as before.
    """
    prompt = reasoner.processor(traces, generate=True).to(reasoner.device)
    rows = list(range(len(traces)))
    other = rollout.select(rows, prompt)
    if latents == "dropped":
        gone = other.token_type == LATENT
        return replace(
            other,
            token_type=other.token_type.masked_fill(gone, PAD),
            stop_decisions=other.stop_decisions & ~gone,
            policy_records=None,
        )
    if latents == "recorded":
        return replace(other, policy_records=None)
    lengths, close = (other.token_type != PAD).sum(1).tolist(), reasoner.vocabulary.close
    queue = [
        [token for token, kind in zip(ids[:n], kinds[:n], strict=True) if kind != LATENT and token != close]
        for ids, kinds, n in zip(other.ids.tolist(), other.token_type.tolist(), lengths, strict=True)
    ]
    again = generate(reasoner, prompt, max_new_tokens=lengths, forced_tokens=queue, **drawn)
    if not torch.equal(again.ids, other.ids):
        raise ValueError(
            "rl.perturbation_latents=regenerated: drawn again, a sketch has another number of latents (the method "
            "decides itself how many, or the budget cut it short), so words would not stand where they "
            "stood. Take 'recorded' or 'dropped'."
        )
    return replace(
        again,
        text_decisions=other.text_decisions,
        stop_decisions=other.stop_decisions,
        open_allowed=other.open_allowed,
    )


def apart(words: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """How far words (R, T) of these log-probabilities are from those under another view (k3, bounded)."""
    return distance(words, words + (there - words).clamp(-FURTHEST, FURTHEST))

"""Rollouts scored under a perturbed image: their text should become less likely if the image is masked, and stay as
likely if the image has a little noise.

PAPO (2507.06448) rewards text that is less likely when patches of the image are black. DVRP adds the robustness to
noise. Latents keep their recorded values (``recorded``), are sampled again from the perturbed image (``regenerated``),
or are masked (``dropped``), which rewards answers that need the sketch.
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

PATCH = 14  # side of a masked patch in pixels
MAX_LOG_RATIO = 20.0  # differences of log-probabilities are clipped to this
# noise decays as a sigmoid of training progress, from this step of the DDPM schedule
MAX_NOISE_STEP, NOISE_DECAY = 500, 10.0


def mask_patches(image: PILImage.Image, share: float, random: np.random.Generator) -> PILImage.Image:
    """The image with this share of its patches black."""
    pixels = np.array(image)
    rows, columns = (math.ceil(side / PATCH) for side in pixels.shape[:2])
    is_black = (random.random((rows, columns)) < share).repeat(PATCH, 0).repeat(PATCH, 1)
    pixels[is_black[: pixels.shape[0], : pixels.shape[1]]] = 0
    return PILImage.fromarray(pixels)


def add_noise(image: PILImage.Image, progress: float, random: np.random.Generator) -> PILImage.Image:
    """The image with variance-preserving noise, which decays with training progress (0 to 1)."""
    t = int(MAX_NOISE_STEP / (1 + math.exp(NOISE_DECAY * (progress - 0.5))))
    alpha = float(DDPMScheduler().alphas_cumprod[t])
    pixels = np.asarray(image) / 127.5 - 1
    pixels = math.sqrt(alpha) * pixels + math.sqrt(1 - alpha) * random.standard_normal(pixels.shape)
    return PILImage.fromarray(((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))


def change_images(trace: Trace, change: Callable[[PILImage.Image], PILImage.Image]) -> Trace:
    """The trace with ``change`` applied to every input image. Sketches do not change."""
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


def with_images_of(reasoner, rollout: Rollout, traces: list[Trace], latents: str, **options) -> Rollout:
    """The rollout with the images of ``traces`` in its prompt.

    Args:
        latents: recorded, regenerated or dropped.
        options: the options of :func:`generate` that the rollout was sampled with (seed, row_ids, latent_policy,
            latents_per_span), so that only the images differ.

    Raises:
        ValueError: regenerated sketches have another number of latents.
    """
    prompt = reasoner.processor(traces, generate=True).to(reasoner.device)
    rows = list(range(len(traces)))
    rollout = rollout.select(rows, prompt)
    if latents == "dropped":
        is_latent = rollout.token_type == LATENT
        return replace(
            rollout,
            token_type=rollout.token_type.masked_fill(is_latent, PAD),
            stop_decisions=rollout.stop_decisions & ~is_latent,
            policy_records=None,
        )
    if latents == "recorded":
        return replace(rollout, policy_records=None)
    lengths, close = (rollout.token_type != PAD).sum(1).tolist(), reasoner.vocabulary.close
    forced_tokens = [
        [token for token, kind in zip(ids[:n], kinds[:n], strict=True) if kind != LATENT and token != close]
        for ids, kinds, n in zip(rollout.ids.tolist(), rollout.token_type.tolist(), lengths, strict=True)
    ]
    regenerated = generate(reasoner, prompt, max_new_tokens=lengths, forced_tokens=forced_tokens, **options)
    if not torch.equal(regenerated.ids, rollout.ids):
        raise ValueError(
            "rl.perturbation_latents=regenerated: a regenerated sketch has another number of latents (the method "
            "predicts the number, or the budget cut the sketch), so the text would move to other positions. Set "
            "'recorded' or 'dropped'."
        )
    return replace(
        regenerated,
        text_decisions=rollout.text_decisions,
        stop_decisions=rollout.stop_decisions,
        open_allowed=rollout.open_allowed,
    )


def bounded_kl(log_probs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """KL estimate (k3, bounded) of each token, from log-probabilities (R, T) under two images."""
    return distance(log_probs, log_probs + (others - log_probs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))

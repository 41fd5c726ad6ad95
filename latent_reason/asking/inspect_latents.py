"""What the latents of an answer say: the text that would follow them, the known sketches they are most similar to, and
how they came out of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image as PILImage

from ..decoding.queue import Request, decode_requests
from ..model.batch import LATENT
from ..model.heads.denoise import DenoisingHead
from ..model.reasoner import LatentReasoner
from ..objectives.latent_policies import Pathwise
from ..objectives.rollout_states import rollout_states
from ..trace import Trace
from ..visualization.sketch_decoder import SketchDecoder
from ..visualization.storyboard import DecodedTrace
from .ask import AskOptions, check_room, sampling_steps


@torch.no_grad()
def tokens_after(model: LatentReasoner, decoded: DecodedTrace, top: int = 3) -> list[list[list[str]]]:
    """The logit lens of each latent: the text tokens that the model would most likely write after it.

    Returns:
        of each span, of each latent, ``top`` tokens, the likeliest first.
    """
    rollout = decoded.rollout.select([decoded.row], model.processor([decoded.trace], generate=True).to(model.device))
    states = rollout_states(model, rollout)[0]  # before each position
    states = torch.cat([states, states.new_zeros(1, states.shape[1])])  # nothing is known after the last one
    logits = model.backbone.logits(states[1:]).float()
    hidden = model.forbidden_tokens().any(0)  # control tokens say nothing of what a latent means
    ids = logits.masked_fill(hidden, float("-inf")).topk(top, -1).indices.tolist()
    vocabulary = model.vocabulary

    def read(i: int) -> str:  # a special token has no text
        return vocabulary.decode([i]) or str(vocabulary.tokenizer.convert_ids_to_tokens(i))

    return [
        [[read(i) for i in ids[at]] for at in range(span.start, min(span.start + span.length, len(ids) - 1))]
        for span in rollout.spans_of(0)
    ]


@torch.no_grad()
def encode_pictures(model: LatentReasoner, pictures: Sequence[PILImage.Image]) -> list[torch.Tensor]:
    """(K, D) the target latents of each picture, as a model with a renderable target would be fed them.

    Raises:
        ValueError: the latents of the model do not encode pictures.
    """
    if not model.is_renderable:
        raise ValueError(
            f"the latents of method {model.method.name!r} do not encode pictures, so none can be compared with them."
        )
    encoded = []
    for picture in pictures:
        images = model.processor.preprocess_sketches([picture]).to(model.device)
        encoded.append(model.scale_latents(model.target.encode_embeddings(images)[0]))
    return encoded


def most_similar(latents: torch.Tensor, known: Sequence[torch.Tensor], top: int = 3) -> list[tuple[int, float]]:
    """The known sketches whose latents are most similar to those of a span (K, D).

    Every known sketch must be (K', D); those of another number of latents are left out. Similar is a high cosine of the
    latents without the mean of the known ones, which all sketches share.

    Returns:
        index and cosine of at most ``top`` sketches, the most similar first.
    """
    fitting = [i for i, z in enumerate(known) if z.shape == latents.shape]
    if not fitting:
        return []
    table = torch.stack([known[i].float() for i in fitting])
    mean = table.mean(0)
    scores = F.cosine_similarity((latents.float() - mean).flatten()[None], (table - mean).flatten(1))
    best = scores.topk(min(top, len(fitting)))
    return [(fitting[i], round(score, 4)) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


@torch.no_grad()
def denoising_frames(
    model: LatentReasoner,
    decoder: SketchDecoder,
    trace: Trace,
    options: AskOptions | None = None,
    span: int = 0,
) -> list[PILImage.Image]:
    """Pictures of a span of the answer to a trace after each step of denoising: the noise first, then one for each step
    of the head.

    The latents of the span and their noise are those of the answer. Every frame shows what all latents of the span are
    after the same number of steps.

    Raises:
        ValueError: the head draws in one pass or reads more than the state, the answer has no such span, or another
            decoding method or replaced latents are asked for.
    """
    options = options or AskOptions()
    if not options.is_plain or options.latents != "on":
        raise ValueError("the steps of denoising are shown of plain decoding with the latents of the model.")
    if not isinstance(model.head, DenoisingHead):
        kind = "no head" if model.head is None else f"a {type(model.head).__name__}"
        raise ValueError(f"the model has {kind}, which draws a latent in one pass: there are no steps to show.")
    check_room(model, trace)
    with sampling_steps(model, options.steps):
        config = replace(options.config, latent_policy=Pathwise(model.head))  # records the noise
        [done] = decode_requests(model, [Request(trace, 0)], config, 1)
        rollout = done.rollout
        spans = rollout.spans_of(done.row)
        if not 0 <= span < len(spans):
            raise ValueError(f"the answer has {len(spans)} sketches, so there is none of number {span + 1}.")
        chosen, images = spans[span], trace.images()
        at = slice(chosen.start, chosen.start + chosen.length)
        is_latent = rollout.token_type[done.row] == LATENT
        first = int(is_latent[: chosen.start].sum())
        noise = rollout.records_of(done.row)[first : first + chosen.length, 0]
        states, _ = model.head.cast_inputs(rollout_states(model, rollout)[done.row, at], None)
        path = model.head.sample_path(states, noise.to(states))
        grids = torch.tensor([chosen.grid] * chosen.length, device=model.device)
        slots = torch.arange(chosen.length, device=model.device)
        size = model.backbone.token_grid(images[-1]) if images else chosen.grid
        return [
            decoder.draw(model.unscale_latents(model.to_embeddings(z, grids, slots)), chosen.grid, size) for z in path
        ]

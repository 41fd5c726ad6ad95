"""``model.generate(...)`` of transformers, with its options, for a model that also draws latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image as PILImage
from transformers import GenerationMixin
from transformers.utils import ModelOutput

from ...decoding.config import GenerationConfig
from ...decoding.engine import Engine
from ...decoding.rollout import Rollout, Span
from ...model.batch import PAD, MixedBatch


@dataclass
class GenerateInterleavedOutput(ModelOutput):
    """What rows (B,) were continued with: ``sequences`` (B, N + T) with their prompts, and for each row its ``spans``,
    their ``latents`` (K, D) and ``images`` (None without a sketch decoder)."""

    sequences: torch.Tensor = None
    spans: list[list[Span]] | None = None
    latents: list[list[torch.Tensor]] | None = None
    images: list[list[PILImage.Image | None]] | None = None


class InterleavedGenerationMixin(GenerationMixin):
    """Greedy search and sampling of transformers, by the engine of this library.

    transformers prepares logits processors, stopping criteria and lengths. Processors change the logits of text;
    criteria end rows after text. ``sequences`` hold the placeholder at latents.

    Example:
        >>> output = model.generate(**model.inputs_for(image, "Which way?"), max_new_tokens=100)
        >>> print(model.tokenizer.batch_decode(output.sequences), output.images)
    """

    def adjust_generation_fn(self, *args, **options) -> None:
        """Nothing to do: ``from_pretrained`` reads the settings, and ``generate`` is that of the class."""

    def prepare_inputs_for_generation(
        self,
        input_ids,
        attention_mask=None,
        pixel_values=None,
        image_grid=None,
        seed=None,
        latent_mode=None,
        latents_per_span=None,
        max_spans=None,
        **others,
    ):
        """Names the inputs of ``generate`` besides those of transformers. Its other loops are refused."""
        raise ValueError("this model decodes by greedy search or sampling. Remove num_beams and other kinds of search.")

    def _sample(
        self,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        synced_gpus=False,
        streamer=None,
        attention_mask=None,
        pixel_values=None,
        image_grid=None,
        seed=None,
        latent_mode="learned",
        latents_per_span=None,
        max_spans=None,
        **others,
    ) -> GenerateInterleavedOutput:
        """The loop that ``generate`` ends in. Without a seed, sampling takes one from the generator of torch."""
        if generation_config.num_return_sequences > 1 or (streamer is not None and len(input_ids) > 1):
            raise ValueError("num_return_sequences must be 1, and a streamer takes one row. Repeat rows of the prompt.")
        temperature = (generation_config.temperature or 1.0) if generation_config.do_sample else 0.0
        if temperature:  # the warpers of transformers have divided text by it, and decisions to close a span are left
            logits_processor = type(logits_processor)([*logits_processor, lambda ids, logits: logits * temperature])
        if seed is None:
            seed = int(torch.randint(2**31, ())) if temperature else 0
        config = GenerationConfig(
            max_new_tokens=generation_config.max_length - input_ids.shape[1],
            temperature=temperature,
            seed=seed,
            latent_mode=latent_mode,
            latents_per_span=latents_per_span,
            max_spans=max_spans,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
        )
        inputs = input_ids, attention_mask, pixel_values, image_grid
        batch = self.batch(*(None if x is None else x.to(self.device) for x in inputs))
        engine = Engine(self.reasoner, config, len(input_ids))
        group = engine.admit(batch)
        while engine.num_active:
            engine.step()
            token = group.rows[0].ids[-1]
            if streamer is not None and token != self.reasoner.vocabulary.latent:
                streamer.put(torch.tensor([token]))
        if streamer is not None:
            streamer.end()
        return self._output(batch, engine.collect(group))

    def _output(self, batch: MixedBatch, rollout: Rollout) -> GenerateInterleavedOutput:
        """A rollout as transformers returns it."""
        grids = [] if batch.images is None else self.reasoner.backbone.token_grids(batch.images)
        sizes = dict(zip(batch.image_rows, grids, strict=True))  # of the last image of each row
        spans = [rollout.spans_of(row) for row in range(len(batch.ids))]
        return GenerateInterleavedOutput(
            torch.cat([batch.ids, rollout.ids.masked_fill(rollout.token_type == PAD, self.reasoner.vocabulary.pad)], 1),
            spans,
            [[rollout.latents(span) for span in own] for own in spans],
            [[self.render(rollout, span, sizes.get(row)) for span in own] for row, own in enumerate(spans)],
        )

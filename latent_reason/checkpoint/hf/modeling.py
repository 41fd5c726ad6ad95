"""A reasoner as a model of transformers: a PreTrainedModel that holds a LatentReasoner.

It works by composition, because the stock model inside keeps its class and with it what transformers knows of its
weights. While transformers loads, the stock model is built without memory and filled from the files. Everything else is
small; it is built on the CPU and filled after that (values that start at zero or come from a seed would be lost
otherwise).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel
from transformers import GenerationConfig as StockGenerationConfig
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import cached_file

from ...decoding.engine import generate
from ...decoding.rollout import Rollout, Span
from ...model.backbones.base import Backbone
from ...model.batch import ImageBatch, MixedBatch, prompt_batch
from ...model.reasoner import LatentReasoner, MethodRecord
from ...trace import Image, Message, Text, Trace
from ...visualization.sketch_decoder import SketchDecoder
from .configuration import LatentReasonConfig
from .generation import InterleavedGenerationMixin
from .parity import differences

#: options of from_pretrained that say where files are
LOCATION = ("revision", "cache_dir", "token", "local_files_only", "force_download", "proxies")


@dataclass
class SketchOutput:
    """One sketch: its latents (K, D) on a grid, and the image they show (None without a sketch decoder)."""

    latents: torch.Tensor
    grid: tuple[int, int]
    image: PILImage.Image | None = None


@dataclass
class InterleavedOutput:
    """What a model answered: all its text, and in order its ``segments``, text or :class:`SketchOutput`."""

    text: str
    segments: list[str | SketchOutput]

    @property
    def sketches(self) -> list[SketchOutput]:
        return [segment for segment in self.segments if isinstance(segment, SketchOutput)]

    @property
    def latents(self) -> list[torch.Tensor]:
        """(K, D) of each sketch."""
        return [sketch.latents for sketch in self.sketches]

    @property
    def images(self) -> list[PILImage.Image | None]:
        """Each sketch as an image; None if this model has no decoder for its latents."""
        return [sketch.image for sketch in self.sketches]


class LatentReasonModel(PreTrainedModel, InterleavedGenerationMixin):
    """A checkpoint with everything that belongs to it: ``reasoner``, ``tokenizer``, ``image_processor``, ``decoder``.

    Raises:
        ValueError: built without tokenizer and image processor, or with the tokenizer of another model.
    """

    config_class = LatentReasonConfig
    backbone_class: type[Backbone]  # the class of the stock model's family
    base_model_prefix = "reasoner"
    main_input_name = "input_ids"
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True
    # heads and statistics stay in fp32, where small steps do not round to zero; the boolean flag among them is no number
    _keep_in_fp32_modules_strict = {r"reasoner\.head\.", r"reasoner\.target\.(?!.*fitted)", "feedback_gain"}

    def __init__(
        self,
        config: LatentReasonConfig,
        *,
        tokenizer: Any = None,
        image_processor: Any = None,
        reasoner: LatentReasoner | None = None,
        decoder: SketchDecoder | None = None,
    ):
        super().__init__(config)
        self.reasoner = reasoner or self._build(config, tokenizer, image_processor)
        self._decoder = [decoder]  # in a list: its weights are files of their own
        self.generation_config = None
        self.post_init()
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)
        self._no_split_modules = self.reasoner.backbone.model._no_split_modules

    @staticmethod
    def build_reasoner(config: LatentReasonConfig, backbone: Backbone) -> LatentReasoner:
        """The model of a configuration on its backbone, with new weights. Subclasses implement it."""
        raise NotImplementedError("load this checkpoint by AutoModel, or by latent_reason.load")

    @classmethod
    def family_of(cls, config: LatentReasonConfig) -> type[Backbone]:
        """The backbone class of a configuration."""
        return cls.backbone_class

    def _build(self, config: LatentReasonConfig, tokenizer: Any, image_processor: Any) -> LatentReasoner:
        if tokenizer is None or image_processor is None:
            raise ValueError(
                "a latent_reason model is built with its tokenizer and image processor, which from_pretrained reads. "
                "Use AutoModelForImageTextToText.from_pretrained."
            )
        stock = AutoModelForImageTextToText.from_config(config.backbone_config, trust_remote_code=False)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device("cpu"):
                family = self.family_of(config)
                backbone = family(stock, tokenizer, image_processor, config.latent_positions)
                reasoner = self.build_reasoner(config, backbone)
                reasoner.reserve_statistics(config.slot_means)
                reasoner.reserve_gain(config.feedback)
        finally:
            torch.set_default_dtype(default)
        if reasoner.method.name is None:  # the library knows the options that an older checkpoint lacks
            reasoner.record_method(MethodRecord(config.method or None, config.options or {}))
        for role, (token, number) in config.control_tokens.items():
            if (found := getattr(reasoner.vocabulary, role)) != number:
                raise ValueError(
                    f"control token {token!r} has id {found} in tokenizer.json but {number} in config.json. The "
                    "tokenizer was changed; copy the checkpoint again."
                )
        return reasoner

    def init_weights(self) -> None:
        """Nothing to do: the parts got their weights when they were built."""

    # -- files ---------------------------------------------------------------------------------------------------------
    @classmethod
    def from_pretrained(cls, folder, *args, config=None, **options):
        """As in transformers; tokenizer, image processor, generation settings and decoder are loaded too.

        Raises:
            ValueError, OSError: as there; also if the configuration does not name a stock model and a method.
        """
        location = {name: options[name] for name in LOCATION if options.get(name) is not None}
        if getattr(config, "model_type", None) != LatentReasonConfig.model_type:  # a path, or None
            config = cls.config_class.from_pretrained(config or folder, **location)
        if config.backbone_config is None:
            raise ValueError(f"config.json of '{folder}' has no backbone_config. Copy the checkpoint again.")
        family = cls.family_of(config)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=config.backbone_config, trust_remote_code=False, **location
        )
        place = str(Path(cached_file(folder, "preprocessor_config.json", **location)).parent)
        processor = family.load_image_processor(place, config.backbone_config)
        loaded = super().from_pretrained(
            folder, *args, config=config, tokenizer=tokenizer, image_processor=processor, **options
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.generation_config = StockGenerationConfig.from_pretrained(folder, **location)
        if config.decoder:
            decoder = SketchDecoder.from_pretrained(
                folder, subfolder="decoder", use_safetensors=True, low_cpu_mem_usage=False, **location
            )
            model._decoder = [decoder.eval()]
        return loaded

    def save_pretrained(self, folder, **options) -> None:
        """As in transformers, with everything that :meth:`from_pretrained` reads."""
        super().save_pretrained(folder, save_original_format=False, **options)
        self.save_companions(folder)

    def save_companions(self, folder: str | Path) -> None:
        """Write everything that belongs to configuration and weights."""
        folder, processor = Path(folder), self.reasoner.backbone.image_processor
        for name in ("is_local", "local_files_only"):  # how it was loaded on this machine
            self.tokenizer.init_kwargs.pop(name, None)
        self.tokenizer.save_pretrained(folder)
        processor.save_pretrained(folder)
        whole = {"image_processor": json.loads(processor.to_json_string())}
        (folder / "processor_config.json").write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")
        if self.generation_config is not None:
            self.generation_config.save_pretrained(folder)
        if self.decoder is not None:
            self.decoder.register_to_config(_name_or_path="")  # otherwise diffusers writes the folder it came from
            self.decoder.save_pretrained(folder / "decoder")

    # -- parts ---------------------------------------------------------------------------------------------------------
    @property
    def tokenizer(self):
        return self.reasoner.backbone.tokenizer

    @property
    def decoder(self) -> SketchDecoder | None:
        return self._decoder[0]

    def get_input_embeddings(self):
        return self.reasoner.backbone.model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.reasoner.backbone.model.get_output_embeddings()

    # -- use -----------------------------------------------------------------------------------------------------------
    def batch(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid: torch.Tensor | None = None,
    ) -> MixedBatch:
        """Prompts (B, N), padded on the left, without sketches, as a batch. ``pixel_values`` and ``image_grid`` are the
        fields of :class:`~latent_reason.model.batch.ImageBatch`, in the order in which images stand in the rows.

        Raises:
            ValueError: there is a sketch in a prompt, or image positions without an image.
        """
        token_type = self.reasoner.vocabulary.token_types(input_ids, attention_mask)
        if pixel_values is None:
            return prompt_batch(input_ids, token_type, None, [])
        features = self.reasoner.backbone.image_embeddings(ImageBatch(image_grid, pixel_values))
        images = ImageBatch(image_grid, features=features)
        return prompt_batch(input_ids, token_type, images, [len(f) for f in features])

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid: torch.Tensor | None = None,
    ) -> CausalLMOutput:
        """Next-token logits (B, N, V) of what :meth:`batch` takes. Raises as it does."""
        batch, backbone = self.batch(input_ids, attention_mask, pixel_values, image_grid), self.reasoner.backbone
        states = backbone.forward_text(self.reasoner.embed_batch(batch), batch.mask, backbone.position_ids(batch))
        return CausalLMOutput(logits=backbone.logits(states))

    def prompt_for(self, images: PILImage.Image | Sequence[PILImage.Image], question: str) -> MixedBatch:
        """A question about images as a batch of one prompt on the device."""
        images = [images] if isinstance(images, PILImage.Image) else list(images)
        pictures = (Image(image) for image in images)
        trace = Trace("question", (Message("user", (*pictures, Text(question))),))
        return self.reasoner.processor([trace], generate=True).to(self.reasoner.device)

    def inputs_for(self, images: PILImage.Image | Sequence[PILImage.Image], question: str) -> dict[str, torch.Tensor]:
        """A question about images as the inputs of ``generate`` and :meth:`forward`."""
        prompt = self.prompt_for(images, question)
        inputs = {"input_ids": prompt.ids, "attention_mask": prompt.mask.long()}
        if prompt.images is not None:
            inputs |= {"pixel_values": prompt.images.pixels, "image_grid": prompt.images.grid}
        return inputs

    @torch.no_grad()
    def rollout(self, batch: MixedBatch, **options: Any) -> Rollout:
        """Continue a batch of prompts. ``options`` are the fields of
        :class:`~latent_reason.decoding.config.GenerationConfig`."""
        return generate(self.reasoner, batch, **options)

    def render(self, rollout: Rollout, span: Span, size: tuple[int, int] | None = None) -> PILImage.Image | None:
        """A sketch as an image of ``size`` tokens (None: as large as its grid); None if nothing can render it."""
        if self.decoder is None or not self.reasoner.is_renderable:
            return None
        return self.decoder.draw(self.reasoner.unscale_latents(rollout.latents(span)), span.grid, size or span.grid)

    def parity(self, folder: str | Path) -> dict[str, float]:
        """How far this model is from the outputs stored in a folder: see :mod:`.parity`."""
        return differences(self, folder)

    def generate_interleaved(
        self, images: PILImage.Image | Sequence[PILImage.Image], question: str, **options: Any
    ) -> InterleavedOutput:
        """Answer a question about images in text and sketches.

        Example:
            >>> answer = model.generate_interleaved(image, "What is under the circle?", max_new_tokens=100)
            >>> print(answer.text, answer.images)

        ``options`` are those of :meth:`rollout`: max_new_tokens, temperature, top_p, seed, latent_mode, ...
        """
        prompt = self.prompt_for(images, question)
        rollout, vocabulary = self.rollout(prompt, **options), self.reasoner.vocabulary
        size = None if prompt.images is None else self.reasoner.backbone.token_grids(prompt.images)[-1]
        segments = [
            SketchOutput(rollout.latents(segment), segment.grid, self.render(rollout, segment, size))
            if isinstance(segment, Span)
            else segment
            for segment in rollout.segments(0, vocabulary)
        ]
        return InterleavedOutput(rollout.text(0, vocabulary), segments)

"""A reasoner as a model of transformers: a PreTrainedModel that holds a LatentReasoner and passes everything on to it.

By composition, as the stock model inside keeps its class and with it what transformers knows of its weights. While
transformers loads, the stock model is built without memory and filled from the files; all else is small, is built in
earnest, on the CPU, and filled after that (what begins at zero, or comes from a seed, would be lost otherwise).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import cached_file

from ...decoding.engine import Rollout, Span, generate
from ...model.backbones.base import Backbone
from ...model.batch import MixedBatch, Pictures, prompts
from ...model.reasoner import LatentReasoner
from ...trace import Image, Message, Text, Trace
from .configuration import LatentReasonConfig
from .parity import differences

#: of the options of from_pretrained, those that say where files are
WHERE = ("revision", "cache_dir", "token", "local_files_only", "force_download", "proxies")


@dataclass
class Interleaved:
    """What a model answered: all its words, and in order its ``pieces``, words or :class:`Sketched`."""

    text: str
    pieces: list

    @property
    def sketches(self) -> list[Sketched]:
        return [piece for piece in self.pieces if isinstance(piece, Sketched)]

    @property
    def latents(self) -> list[torch.Tensor]:
        """(K, D) of each sketch."""
        return [sketch.latents for sketch in self.sketches]

    @property
    def pictures(self) -> list[PILImage.Image | None]:
        """Each sketch as a picture; None where this model has no decoder for its latents."""
        return [sketch.picture for sketch in self.sketches]


@dataclass
class Sketched:
    """One sketch: its latents (K, D) on a grid, and the picture they show."""

    latents: torch.Tensor
    grid: tuple[int, int]
    picture: PILImage.Image | None = None


class LatentReasonModel(PreTrainedModel):
    """A checkpoint with everything that goes with it: ``reasoner``, ``tokenizer``, ``image_processor``, ``decoder``.

    Raises:
        ValueError: built without tokenizer and picture processor, or with a tokenizer of another model.
    """

    config_class = LatentReasonConfig
    base_model_prefix = "reasoner"
    main_input_name = "input_ids"
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True
    # heads and statistics, or small steps would round to none; not the flag among them, which is no number
    _keep_in_fp32_modules_strict = {r"reasoner\.head\.", r"reasoner\.target\.(?!.*fitted)"}

    def __init__(
        self,
        config: LatentReasonConfig,
        *,
        tokenizer=None,
        image_processor=None,
        reasoner: LatentReasoner | None = None,
        decoder=None,
    ):
        super().__init__(config)
        self.reasoner = reasoner or self.built(config, tokenizer, image_processor)
        self._decoder = [decoder]  # in a list: its weights are files of their own
        self.generation_config = None
        self.post_init()
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)
        self._no_split_modules = self.reasoner.backbone.model._no_split_modules

    @staticmethod
    def parts(config: LatentReasonConfig) -> tuple[Callable[..., LatentReasoner], type[Backbone]]:
        """The ``build`` of the method, and the class of the family of the stock model."""
        raise NotImplementedError("load this checkpoint by AutoModel, or by latent_reason.load")

    def built(self, config: LatentReasonConfig, tokenizer, image_processor) -> LatentReasoner:
        """The reasoner a configuration describes."""
        if tokenizer is None or image_processor is None:
            raise ValueError(
                "a latent_reason model is built with its tokenizer and picture processor, which "
                "from_pretrained reads. Use AutoModelForImageTextToText.from_pretrained."
            )
        build, family = self.parts(config)
        stock = AutoModelForImageTextToText.from_config(config.backbone_config)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device("cpu"):
                reasoner = build(family(stock, tokenizer, image_processor, config.positions), **config.options)
        finally:
            torch.set_default_dtype(usual)
        reasoner.recipe = {"method": config.method, "options": config.options}
        for role, (token, number) in config.control_tokens.items():
            if (found := getattr(reasoner.vocabulary, role)) != number:
                raise ValueError(
                    f"control token {token!r} has id {found} in tokenizer.json but {number} in "
                    "config.json. The tokenizer was changed; copy the checkpoint again."
                )
        return reasoner

    def init_weights(self) -> None:
        """Nothing is left to do: whoever built the parts gave them their weights."""

    # -- files ---------------------------------------------------------------------------------------------------------
    @classmethod
    def from_pretrained(cls, folder, *args, config=None, **options):
        """As in transformers; tokenizer, picture processor, generation settings and decoder come along.

        Raises:
            ValueError, OSError: as there; also where the configuration does not name a stock model and a method.
        """
        where = {name: options[name] for name in WHERE if options.get(name) is not None}
        if getattr(config, "model_type", None) != LatentReasonConfig.model_type:  # a path, or None
            config = cls.config_class.from_pretrained(config or folder, **where)
        if config.backbone_config is None:
            raise ValueError(f"config.json of '{folder}' has no backbone_config. Copy the checkpoint again.")
        _, family = cls.parts(config)
        trusted = bool(options.get("trust_remote_code"))  # or it would ask
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=config.backbone_config, trust_remote_code=trusted, **where
        )
        place = str(Path(cached_file(folder, "preprocessor_config.json", **where)).parent)
        found = super().from_pretrained(
            folder,
            *args,
            config=config,
            tokenizer=tokenizer,
            image_processor=family.processor(place, config.backbone_config),
            **options,
        )
        model = found[0] if isinstance(found, tuple) else found
        model.generation_config = GenerationConfig.from_pretrained(folder, **where)
        if config.decoder:
            from ...visualization.sketch_decoder import SketchDecoder

            model._decoder = [
                SketchDecoder.from_pretrained(
                    folder, subfolder="decoder", use_safetensors=True, low_cpu_mem_usage=False, **where
                ).eval()
            ]
        return found

    def save_pretrained(self, folder, **options) -> None:
        """As in transformers, with all that :meth:`from_pretrained` reads."""
        super().save_pretrained(folder, save_original_format=False, **options)
        self.save_beside(folder)

    def save_beside(self, folder) -> None:
        """Write all that goes with configuration and weights."""
        folder, processor = Path(folder), self.reasoner.backbone.image_processor
        for name in ("is_local", "local_files_only"):  # how it was loaded here
            self.tokenizer.init_kwargs.pop(name, None)
        self.tokenizer.save_pretrained(folder)
        processor.save_pretrained(folder)
        whole = {"image_processor": json.loads(processor.to_json_string())}
        (folder / "processor_config.json").write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")
        if self.generation_config is not None:
            self.generation_config.save_pretrained(folder)
        if self.decoder is not None:
            self.decoder.register_to_config(_name_or_path="")  # else diffusers writes the folder it was loaded from
            self.decoder.save_pretrained(folder / "decoder")

    # -- parts ---------------------------------------------------------------------------------------------------------
    @property
    def tokenizer(self):
        return self.reasoner.backbone.tokenizer

    @property
    def decoder(self):
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
        fields of :class:`~latent_reason.model.batch.Pictures`, in the order in which pictures stand in the rows.

        Raises:
            ValueError: there is a sketch in a prompt, or picture positions without a picture.
        """
        kind = self.reasoner.vocabulary.kinds(input_ids, attention_mask)
        if pixel_values is None:
            return prompts(input_ids, kind, None, [])
        seen = self.reasoner.backbone.inputs(Pictures(image_grid, pixel_values))
        return prompts(input_ids, kind, Pictures(image_grid, tokens=seen), [len(tokens) for tokens in seen])

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid: torch.Tensor | None = None,
    ) -> CausalLMOutput:
        """Next-token logits (B, N, V) of what :meth:`batch` takes. Raises as it does."""
        batch, backbone = self.batch(input_ids, attention_mask, pixel_values, image_grid), self.reasoner.backbone
        states = backbone.trunk(self.reasoner.embed(batch), batch.attention(), backbone.place(batch))
        return CausalLMOutput(logits=backbone.logits(states))

    @torch.no_grad()
    def rollout(self, batch: MixedBatch, **options) -> Rollout:
        """Continue a batch of prompts: see :func:`~latent_reason.decoding.engine.generate` for the options."""
        return generate(self.reasoner, batch, **options)

    def drawn(self, rollout: Rollout, span: Span, size: tuple[int, int] | None = None) -> PILImage.Image | None:
        """A sketch as a picture of ``size`` tokens (None: as large as its grid); None where nothing can draw it."""
        if self.decoder is None or not self.reasoner.renders:
            return None
        return self.decoder.draw(rollout.latents(span), span.grid, size or span.grid)

    def compared(self, folder: str | Path) -> dict[str, float]:
        """How far this model is from what is stored as its answers in a folder: see :mod:`.probe`."""
        return differences(self, folder)

    def generate_interleaved(
        self, images: PILImage.Image | Sequence[PILImage.Image], question: str, **options
    ) -> Interleaved:
        """Answer a question about pictures in words and sketches; ``options`` as for :meth:`rollout`: max_new,
        temperature, top_p, seed, sketching, ..."""
        images = [images] if isinstance(images, PILImage.Image | str) else list(images)
        shown = tuple(Image(Image(image).image.convert("RGB")) for image in images)
        asked = Trace("asked", (Message("user", (*shown, Text(question))),))
        prompt = self.reasoner.collator()([asked], generate=True).to(self.reasoner.device)
        rollout, vocabulary = self.rollout(prompt, **options), self.reasoner.vocabulary
        size = self.reasoner.backbone.token_grid(shown[-1].image) if shown else None
        pieces = [
            Sketched(rollout.latents(piece), piece.grid, self.drawn(rollout, piece, size))
            if isinstance(piece, Span)
            else piece
            for piece in rollout.pieces(0, vocabulary)
        ]
        return Interleaved(rollout.text(0, vocabulary), pieces)

"""The interface of every backbone: a stock Hugging Face vision-language model by composition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import nn

from ..batch import Grid, ImageBatch, MixedBatch
from ..tokenization import Layout, Vocabulary

if TYPE_CHECKING:
    from transformers.cache_utils import Cache
    from transformers.modeling_outputs import BaseModelOutput


class Backbone(nn.Module, ABC):
    """A stock model by composition. ``model`` is the Hugging Face module, ``tokenizer`` and ``image_processor`` are its
    own. Nothing of it is subclassed or patched.

    ``latent_positions`` says how latents are placed: ``1d`` (like text) or ``2d`` (like an image, if the family has
    position axes for rows and columns). A checkpoint records it.

    Inputs at image positions may be wider than D: ``extra_width`` channels carry what the text model of a family needs
    besides tokens (features for later layers, the block an image forms). Text and latents have none.
    """

    layout: Layout = Layout()
    has_2d_positions = False  # whether position ids have axes for rows and columns
    has_bidirectional_images = False  # whether image positions attend both ways, which needs a mask for each position
    extra_width: int = 0

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        image_processor: Any,
        latent_positions: str = "1d",
        *,
        name: str | None = None,
        bits: int | None = None,
    ):
        super().__init__()
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.set_latent_positions(latent_positions)
        self.name = name  # the folder or Hub name it was loaded from; None: it belongs to its checkpoint alone
        self.bits = bits  # bits of a text weight, where weights are quantized
        self.length_limit: int | None = None  # most positions of a row, where that is less than the stock model's
        self.set_adapter(None)

    def set_latent_positions(self, latent_positions: str) -> None:
        """Place latents ``1d`` or ``2d``. Raises ValueError where the family cannot."""
        if latent_positions not in ("1d", "2d"):
            raise ValueError(f"latent_positions={latent_positions!r}: must be '1d' or '2d'.")
        if latent_positions == "2d" and not self.has_2d_positions:
            raise ValueError(f"latent_positions='2d': {type(self).__name__} has one position axis. Use '1d'.")
        self.latent_positions = latent_positions

    def set_adapter(self, adapter: nn.Module | None) -> None:
        """Record peft's handle of a LoRA inside ``model``. It stays outside the module tree, where it would name every
        parameter a second time."""
        object.__setattr__(self, "adapter", adapter)

    def set_image_processor(self, image_processor: Any) -> None:
        """Use this image processor in place of the one it was loaded with."""
        self.image_processor = image_processor

    def forget_name(self) -> None:
        """Say that these weights belong to their checkpoint alone, which then saves them with an adapter."""
        self.name = None

    @staticmethod
    @abstractmethod
    def load_image_processor(folder: str, config: Any) -> Any:
        """The family's image processor as it was saved in a folder."""

    # -- inputs -------------------------------------------------------------------------------------------------------
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings (..., D)."""
        return self.model.get_input_embeddings()(ids)

    @abstractmethod
    def preprocess_images(self, images: list[PILImage.Image], *, tiled: bool = True) -> ImageBatch:
        """Images as the vision encoder takes them. Without ``tiled``, images are never split into tiles, as for
        sketches."""

    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        """Tokens of each image after vision encoder and connector: one (T, D) tensor an image, row-major."""
        pairs = zip(self.image_embeddings(images), self.token_grids(images), strict=True)
        return [tokens[: h * w, : self.width] for tokens, (h, w) in pairs]

    def image_embeddings(self, images: ImageBatch) -> list[torch.Tensor]:
        """Inputs at the positions of each image, (T + layout.trailing, D + extra_width): the tokens of
        :meth:`encode_images` and whatever else the family puts there."""
        return self.encode_pixels(images) if images.features is None else images.features

    @abstractmethod
    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        """:meth:`image_embeddings` of images without cached features."""

    def pad_extra(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D + extra_width): text or latents among the inputs of :meth:`forward_text`."""
        return F.pad(x, (0, self.extra_width))

    def vision_features(self, images: ImageBatch) -> list[torch.Tensor]:
        """Features of each image before the connector: one (T, C) tensor an image, row-major."""
        raise ValueError(f"{type(self).__name__} has no features before a connector. Use a method with another target.")

    def apply_connector(self, features: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., D): the connector alone, so that connector(vision_features) equals encode_images."""
        raise ValueError(f"{type(self).__name__} has no connector that can be applied alone.")

    @property
    def feature_width(self) -> int:
        """C of :meth:`vision_features`."""
        raise ValueError(f"{type(self).__name__} has no features before a connector. Use a method with another target.")

    # -- the text model -----------------------------------------------------------------------------------------------
    @property
    def text_model(self) -> nn.Module:
        """The stock text model inside."""
        return self.model.model.language_model

    @property
    def width(self) -> int:
        """D."""
        return self.model.config.get_text_config().hidden_size

    @property
    def vocab_size(self) -> int:
        """V of :meth:`logits`, which may be more than the tokenizer's size."""
        return len(self.model.get_output_embeddings().weight)

    def forward_text(
        self, embeds: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Cache | None = None
    ) -> torch.Tensor:
        """Last hidden states (B, n, D) of n new positions ``embeds`` (B, n, D or D + extra_width).

        ``mask`` (B, past + n) marks what is no padding, or (B, n, past + n) says what each position may attend to. Without
        one, each attends to all up to itself.

        Raises:
            ValueError: a mask for each position under flash attention, which takes none.
        """
        options = {"past_key_values": cache, "use_cache": cache is not None}
        return self.call_text_model(embeds, mask, positions, **options).last_hidden_state

    def call_text_model(
        self,
        embeds: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        *,
        text_model: nn.Module | None = None,
        **options: Any,
    ) -> BaseModelOutput:
        """Stock output of the stock text model (or of ``text_model``, a copy of it) for the inputs of
        :meth:`forward_text`. ``options`` are the stock model's own. Raises as there."""
        if mask is not None and (mask.ndim == 3 or self.has_bidirectional_images):
            if self.attn_implementation not in ("sdpa", "eager"):
                raise ValueError(
                    f"attn_implementation={self.attn_implementation!r} takes no mask for each position. Use sdpa."
                )
        inputs = self.text_model_kwargs(embeds[..., : self.width], embeds[..., self.width :], mask, positions)
        return (text_model or self.text_model)(**inputs, **options)

    def text_model_kwargs(
        self, embeds: torch.Tensor, extra: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor
    ) -> dict[str, Any]:
        """Keyword arguments of the Hugging Face text model. ``extra`` (B, n, 0 or extra_width): per-token features
        besides embeddings (DeepStack). ``mask`` None: the attention gets its limits in another way."""
        if mask is not None:
            mask = mask.long() if mask.ndim == 2 else self.attention_mask(mask, embeds.dtype)
        return {"inputs_embeds": embeds, "position_ids": positions, "attention_mask": mask}

    def attention_mask(self, allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B, n, m) bool -> the (B, 1, n, m) mask of the attention in use. Eager attention adds it to its scores, and
        sdpa would make such a mask in every layer, so a single position gets it made once."""
        if self.attn_implementation != "eager" and allowed.shape[1] > 1:
            return allowed[:, None]
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

    @property
    def attn_implementation(self) -> str:
        return self.model.config._attn_implementation

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits (..., V)."""
        return self.model.lm_head(states)

    def new_cache(self) -> Cache:
        """An empty cache for :meth:`forward_text`."""
        from transformers.cache_utils import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())

    # -- positions ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def position_ids(self, batch: MixedBatch) -> torch.Tensor:
        """Position ids (axes, B, N) of a batch whose rows each hold one example. Latents follow ``latent_positions``,
        equal to what :meth:`latent_position_ids` gives step by step."""

    def latent_position_ids(self, start: torch.Tensor, slot: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(axes, n) position ids of latents at ``slot`` (n,) of spans that begin at position ``start`` (n,) and have
        the grids (n, 2)."""
        if self.latent_positions == "1d":
            return (start + slot).expand(3, -1)
        return torch.stack([start, start + slot // grids[:, 1], start + slot % grids[:, 1]])

    def position_after_span(self, start: torch.Tensor, length: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(n,) position that follows a span of ``length`` (n,) latents which begins at ``start`` (n,)."""
        if self.latent_positions == "1d":
            return start + length
        return start + torch.where(length > 0, grids.amax(-1), 0)

    # -- geometry of images -------------------------------------------------------------------------------------------
    @abstractmethod
    def token_grid(self, image: PILImage.Image) -> tuple[int, int]:
        """(h, w) of the tokens :meth:`encode_images` makes of an image."""

    @abstractmethod
    def token_grids(self, images: ImageBatch) -> list[Grid]:
        """The same, of preprocessed images."""

    @property
    @abstractmethod
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that becomes one token."""

    def image_layout(self, image: PILImage.Image) -> list[tuple[str, int]]:
        """How an image stands in a row: marks, each with the number of image positions that follow it."""
        return self.layout_for_grid(*self.token_grid(image))

    def layout_for_grid(self, height: int, width: int) -> list[tuple[str, int]]:
        """:meth:`image_layout` of an image of ``height`` x ``width`` tokens."""
        return [(self.layout.image_open, height * width + self.layout.trailing), (self.layout.image_close, 0)]

    def num_positions(self, images: ImageBatch) -> list[int]:
        """Positions of a row that each image takes, marks included."""
        return [self.layout_length(self.layout_for_grid(*size)) for size in self.token_grids(images)]

    def layout_length(self, layout: list[tuple[str, int]]) -> int:
        """Positions of one image layout, marks included."""
        marks = (self.tokenizer(mark, add_special_tokens=False)["input_ids"] for mark, _ in layout)
        return sum(len(ids) for ids in marks) + sum(n for _, n in layout)

    def set_tiling(self, tiles: bool) -> None:
        """Split images into tiles of the encoder's square, or leave them whole.

        Raises:
            ValueError: this family does not use tiles here.
        """
        if tiles:
            raise ValueError(f"tiles: {type(self).__name__} takes whole images here. Remove the option.")

    def set_pixel_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
        """Resize images to at least and at most so many pixels (None: as before).

        Raises:
            ValueError: this family resizes images to one size.
        """
        raise ValueError(
            f"min_pixels, max_pixels: {type(self).__name__} resizes every image to one size. Remove the options."
        )

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        """Fewest and most pixels of an image; None for a family that resizes images to one size."""
        return None

    def set_max_length(self, max_length: int) -> None:
        """Take rows of at most so many positions."""
        self.length_limit = max_length

    @property
    def max_length(self) -> int:
        """The most positions of a row: as set, or as the text model has seen in its training, as its config says."""
        return self.length_limit or self.model.config.get_text_config().max_position_embeddings

    # -- weights ------------------------------------------------------------------------------------------------------
    @property
    def vision_parameters(self) -> list[nn.Parameter]:
        """Parameters of vision encoder and connector: all of the stock model that is not its text model."""
        text = {id(p) for part in (self.text_model, self.model.lm_head) for p in part.parameters()}
        return [p for p in self.model.parameters() if id(p) not in text]

    @property
    def is_gradient_checkpointing(self) -> bool:
        return any(getattr(m, "gradient_checkpointing", False) for m in self.model.modules())

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        """Turn activation checkpointing on or off: layers are computed again in the backward pass. It is not
        re-entrant; otherwise parameters behind frozen embeddings would get no gradient."""
        newer = hasattr(self.model, "activation_checkpointing_enable")  # transformers 5.17 has only the older name
        prefix = "activation_checkpointing" if newer else "gradient_checkpointing"
        if on:
            getattr(self.model, f"{prefix}_enable")({"use_reentrant": False})
        else:
            getattr(self.model, f"{prefix}_disable")()

    def add_control_tokens(self, vocabulary: Vocabulary) -> None:
        """Give new control tokens their embedding rows: the mean of the old rows + 0.02 std of noise."""
        weight = self.model.get_input_embeddings().weight
        if len(vocabulary) <= weight.shape[0]:
            rows = [i for i in vocabulary.added if i < weight.shape[0]]
        else:
            self.model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
            weight, rows = self.model.get_input_embeddings().weight, vocabulary.added
        if not rows:
            return
        tables = {id(t): t for t in (weight, self.model.get_output_embeddings().weight)}
        with torch.no_grad():
            for table in tables.values():
                old = table[: min(rows)]
                noise = torch.randn(len(rows), table.shape[1], dtype=table.dtype, device=table.device)
                table[rows] = old.mean(0) + 0.02 * old.std() * noise

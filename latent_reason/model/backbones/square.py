"""Families that resize every image to one square of tokens and have one position axis: LLaVA, LLaVA-OneVision,
InternVL, Idefics3 and SmolVLM.

An image is resized to the encoder's square, as their own processors do without tiling. So no cell of a board is lost,
and all sketches have the same grid. Idefics3 and SmolVLM may also split input images into tiles.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from einops import rearrange
from PIL import Image as PILImage
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from ...images import to_rgb
from ..batch import Grid, ImageBatch, MixedBatch
from ..tokenization import Layout
from .base import Backbone

PROCESSOR_KEYS = (
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "do_normalize",
)  # copied from a saved processor
ENCODER_BATCH = 64  # squares per forward pass of the vision encoder
CHATML = Layout(image_open="", image="<image>", image_close="\n")


class Square(Backbone):
    @staticmethod
    def load_image_processor(folder: str, config) -> SiglipImageProcessorPil:
        """A processor with the size (default: the encoder's training size) and the normalization of the saved one,
        whatever its class."""
        saved, _ = ImageProcessingMixin.get_image_processor_dict(folder)
        trained, size = config.vision_config.image_size, saved.get("size") or {}
        height, width = (trained, trained) if isinstance(trained, int) else trained
        height, width = size.get("height", height), size.get("width", width)
        kept = {name: saved[name] for name in PROCESSOR_KEYS if saved.get(name) is not None}
        return SiglipImageProcessorPil(size={"height": height, "width": width}, **kept)

    @property
    def square(self) -> int:
        """Side of the vision encoder's square in pixels."""
        return self.image_processor.size["height"]

    @property
    def patches_per_side(self) -> int:
        """Patches per side of every image, before the connector."""
        patch = self.model.config.vision_config.patch_size
        return self.square // (patch if isinstance(patch, int) else patch[0])

    side = patches_per_side  # tokens per side, where the connector joins none

    @property
    def pixels_per_token(self) -> int:
        return self.square // self.side

    def preprocess_images(self, images: list[PILImage.Image], *, tiled: bool = True) -> ImageBatch:
        pixels = self.image_processor(images=[to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        return ImageBatch(grid=torch.tensor([[1, self.side, self.side]]).repeat(len(images), 1), pixels=pixels)

    def token_grid(self, image: PILImage.Image) -> tuple[int, int]:
        return self.side, self.side

    def token_grids(self, images: ImageBatch) -> list[Grid]:
        return [(h, w) for _, h, w in images.sizes]

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        return list(self.model.model.get_image_features(images.pixels.to(self.model.dtype)).pooler_output)

    def position_ids(self, batch: MixedBatch) -> torch.Tensor:
        return (batch.mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)

    def text_model_kwargs(self, embeds, extra, mask, positions):
        return super().text_model_kwargs(embeds, extra, mask, positions[0])


class Llava(Square):
    """LLaVA (2304.08485) with ChatML turns."""

    layout = CHATML

    def vision_features(self, images: ImageBatch) -> list[torch.Tensor]:
        config = self.model.config
        output = self.model.model.vision_tower(images.pixels.to(self.model.dtype), output_hidden_states=True)
        states = output.hidden_states[config.vision_feature_layer]
        return list(states[:, 1:] if config.vision_feature_select_strategy == "default" else states)

    def apply_connector(self, features: torch.Tensor) -> torch.Tensor:
        return self.model.model.multi_modal_projector(features.to(self.model.dtype))

    @property
    def feature_width(self) -> int:
        return self.model.config.vision_config.hidden_size


class LlavaOneVision(Llava):
    """LLaVA-OneVision (2408.03326). Every image is encoded as in multi-image input: one square, and a learned end
    marker after the last token."""

    layout = replace(CHATML, trailing=1)

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        n, size = len(images), self.image_processor.size
        return list(
            self.model.model.get_image_features(
                images.pixels.to(self.model.dtype),
                torch.tensor([[size["height"], size["width"]]] * n),
                batch_num_images=torch.tensor([n + 1]),
            ).pooler_output
        )  # more than 1, because a single image would be split into tiles


class InternVL(Llava):
    """InternVL 3 and 3.5 (2504.10479) in the transformers layout (model names that end in -HF)."""

    layout = Layout(image_open="<img>", image="<IMG_CONTEXT>", image_close="</img>\n")

    @property
    def side(self) -> int:
        return int(self.patches_per_side * self.model.config.downsample_ratio)

    def vision_features(self, images: ImageBatch) -> list[torch.Tensor]:
        """Merged neighborhoods, the input of the connector."""
        features = torch.stack(super().vision_features(images))
        planes = rearrange(features, "n (h w) c -> n h w c", h=math.isqrt(features.shape[1]))
        merged = self.model.model.pixel_shuffle(planes, scale_factor=self.model.config.downsample_ratio)
        return list(merged.flatten(1, 2))

    @property
    def feature_width(self) -> int:
        return int(super().feature_width / self.model.config.downsample_ratio**2)


class Idefics3(Square):
    """Idefics3 (2408.12637). With tiling, the default of most checkpoints, an image is also enlarged and split into
    rows and columns of tiles, each with a position marker; the whole image comes last. ``ImageBatch.grid`` then holds
    rows, columns and the side of the whole image in tokens."""

    layout = Layout(
        begin="<|begin_of_text|>",
        turn="{role}:",
        end="<end_of_utterance>",
        image="<image>",
        image_open="<fake_token_around_image><global-img>",
        image_close="<fake_token_around_image>",
        tile="<fake_token_around_image><row_{row}_col_{column}>",
        roles={"system": "System", "user": "User", "assistant": "Assistant"},
    )
    Processor = Idefics3ImageProcessorPil

    @classmethod
    def load_image_processor(cls, folder: str, config):
        saved, _ = ImageProcessingMixin.get_image_processor_dict(folder)
        side = saved.get("max_image_size", {}).get("longest_edge", config.vision_config.image_size)
        kept = {
            name: saved[name] for name in (*PROCESSOR_KEYS, "size", "do_image_splitting") if saved.get(name) is not None
        }
        return cls.Processor(max_image_size={"longest_edge": side}, **kept)

    def set_tiling(self, tiles: bool) -> None:
        self.image_processor.do_image_splitting = tiles

    @property
    def text_model(self):
        return self.model.model.text_model

    @property
    def square(self) -> int:
        return self.image_processor.max_image_size["longest_edge"]

    @property
    def side(self) -> int:
        return self.patches_per_side // self.model.config.scale_factor

    def tile_grid(self, image: PILImage.Image) -> tuple[int, int]:
        """(rows, columns) of the tiles of an image; (0, 0) if it is not split."""
        return self.image_processor.get_number_of_image_patches(image.height, image.width)[1:]

    def image_layout(self, image: PILImage.Image) -> list[tuple[str, int]]:
        return self.layout_for_tiles(*self.tile_grid(image))

    def num_positions(self, images: ImageBatch) -> list[int]:
        return [self.layout_length(self.layout_for_tiles(rows, columns)) for rows, columns, _ in images.sizes]

    def layout_for_tiles(self, rows: int, columns: int) -> list[tuple[str, int]]:
        """:meth:`image_layout` for an image of ``rows`` x ``columns`` tiles."""
        marks, size = [], self.side**2
        for row in range(rows):
            for column in range(columns):
                between = "\n" if row and not column else ""  # line break after each row
                marks.append((between + self.layout.tile.format(row=row + 1, column=column + 1), size))
        return [*marks, ("\n\n" * bool(rows) + self.layout.image_open, size), (self.layout.image_close, 0)]

    def preprocess_images(self, images: list[PILImage.Image], *, tiled: bool = True) -> ImageBatch:
        """The tiles and the whole image of each image, in the order of the sequence."""
        pixels, grids = [], []
        for image in images:
            rows, columns = self.tile_grid(image) if tiled else (0, 0)
            options = (
                {} if rows else {"do_image_splitting": False, "do_resize": False}
            )  # the image was already resized to the square
            inputs = self.image_processor(images=[[to_rgb(image)]], do_pad=False, return_tensors="pt", **options)
            pixels.append(inputs["pixel_values"][0])
            grids.append([rows, columns, self.side])
        return ImageBatch(grid=torch.tensor(grids), pixels=torch.cat(pixels))

    def token_grids(self, images: ImageBatch) -> list[Grid]:
        return [(side, side) for _, _, side in images.sizes]

    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        return [tokens[-(self.side**2) :] for tokens in self.image_embeddings(images)]

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        # get_image_features is not usable here: it omits squares that are all zero
        squares = [self._encode_squares(some) for some in images.pixels.to(self.model.dtype).split(ENCODER_BATCH)]
        counts = [rows * columns + 1 for rows, columns, _ in images.sizes]
        return [torch.cat(list(some)) for some in torch.cat(squares).split(counts)]

    def _encode_squares(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) -> (n, T, D)."""
        patches, model = self.square // self.model.config.vision_config.patch_size, self.model.model
        mask = torch.ones(len(pixels), patches, patches, dtype=torch.bool, device=pixels.device)
        return model.connector(model.vision_model(pixel_values=pixels, patch_attention_mask=mask).last_hidden_state)


class SmolVLM(Idefics3):
    """SmolVLM and SmolVLM2 (2504.05299)."""

    Processor = SmolVLMImageProcessorPil

    layout = replace(Idefics3.layout, begin="<|im_start|>")

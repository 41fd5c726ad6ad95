"""Families that squeeze every picture into one square of tokens and know one axis of positions: LLaVA, LLaVA-OneVision,
InternVL, Idefics3 and SmolVLM.

A picture is resized to the eye's square, as their own processors do with tiles switched off: so a board keeps all its
cells, and a sketch has one grid. Idefics3 and SmolVLM may see pictures they are shown in tiles as well.
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

from ..batch import MixedBatch, Pictures
from ..tokenization import Layout
from .base import Backbone

KEPT = ("image_mean", "image_std", "resample", "rescale_factor", "do_normalize")  # of a saved processor
AT_ONCE = 64  # squares that the eye sees in one pass
CHATML = Layout(image_open="", image="<image>", image_close="\n")


class Square(Backbone):
    @staticmethod
    def processor(folder: str, config) -> SiglipImageProcessorPil:
        """Resizes to the square of the saved processor (where it names none, to the one the eye was trained on) and
        normalises as it does, whatever class it is of."""
        saved, _ = ImageProcessingMixin.get_image_processor_dict(folder)
        eye, size = config.vision_config.image_size, saved.get("size") or {}
        height, width = (eye, eye) if isinstance(eye, int) else eye
        height, width = size.get("height", height), size.get("width", width)
        kept = {name: saved[name] for name in KEPT if saved.get(name) is not None}
        return SiglipImageProcessorPil(size={"height": height, "width": width}, **kept)

    @property
    def square(self) -> int:
        """Pixels a side of what the eye takes."""
        return self.image_processor.size["height"]

    @property
    def side(self) -> int:
        """Tokens a side of every picture."""
        patch = self.model.config.vision_config.patch_size
        return self.square // (patch if isinstance(patch, int) else patch[0])

    @property
    def cell(self) -> int:
        return self.square // self.side

    def look(self, pictures: list[PILImage.Image]) -> Pictures:
        pixels = self.image_processor(images=[p.convert("RGB") for p in pictures], return_tensors="pt")["pixel_values"]
        return Pictures(grid=torch.tensor([[1, self.side, self.side]]).repeat(len(pictures), 1), pixels=pixels)

    def token_grid(self, picture: PILImage.Image) -> tuple[int, int]:
        return self.side, self.side

    def merged(self, pictures: Pictures) -> torch.Tensor:
        return pictures.grid[:, 1:]

    def encode(self, pictures: Pictures) -> list[torch.Tensor]:
        return list(self.model.model.get_image_features(pictures.pixels.to(self.model.dtype)).pooler_output)

    def placed(self, batch: MixedBatch) -> torch.Tensor:
        return (batch.mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)

    def given(self, embeds, more, mask, positions) -> dict:
        return super().given(embeds, more, mask, positions[0])


class Llava(Square):
    """LLaVA (2304.08485) with ChatML turns."""

    layout = CHATML

    def features(self, pictures: Pictures) -> list[torch.Tensor]:
        config = self.model.config
        seen = self.model.model.vision_tower(pictures.pixels.to(self.model.dtype), output_hidden_states=True)
        states = seen.hidden_states[config.vision_feature_layer]
        return list(states[:, 1:] if config.vision_feature_select_strategy == "default" else states)

    def connect(self, features: torch.Tensor) -> torch.Tensor:
        return self.model.model.multi_modal_projector(features.to(self.model.dtype))

    @property
    def feature_width(self) -> int:
        return self.model.config.vision_config.hidden_size


class LlavaOneVision(Llava):
    """LLaVA-OneVision (2408.03326). Every picture is read as one of several: one square, and a learned mark of its end
    after the last token."""

    layout = replace(CHATML, trailing=1)

    def encode(self, pictures: Pictures) -> list[torch.Tensor]:
        n, size = len(pictures), self.image_processor.size
        return list(
            self.model.model.get_image_features(
                pictures.pixels.to(self.model.dtype),
                torch.tensor([[size["height"], size["width"]]] * n),
                batch_num_images=torch.tensor([n + 1]),
            ).pooler_output
        )  # never 1: one alone would be cut into tiles


class InternVL(Llava):
    """InternVL 3 and 3.5 (2504.10479) in the layout of transformers (models whose name ends in -HF)."""

    layout = Layout(image_open="<img>", image="<IMG_CONTEXT>", image_close="</img>\n")

    @property
    def side(self) -> int:
        return int(super().side * self.model.config.downsample_ratio)

    def features(self, pictures: Pictures) -> list[torch.Tensor]:
        """Neighbourhoods as the connector takes them."""
        seen = torch.stack(super().features(pictures))
        planes = rearrange(seen, "n (h w) c -> n h w c", h=math.isqrt(seen.shape[1]))
        merged = self.model.model.pixel_shuffle(planes, scale_factor=self.model.config.downsample_ratio)
        return list(merged.flatten(1, 2))

    @property
    def feature_width(self) -> int:
        return int(super().feature_width / self.model.config.downsample_ratio**2)


class Idefics3(Square):
    """Idefics3 (2408.12637). A picture is read whole, or (where the processor says so, as that of most checkpoints
    does) blown up and cut into rows and columns of tiles as well, each with a mark of its place; whole it comes last.
    ``Pictures.grid`` then holds rows, columns and the side of the whole in tokens."""

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
    def processor(cls, folder: str, config):
        saved, _ = ImageProcessingMixin.get_image_processor_dict(folder)
        side = saved.get("max_image_size", {}).get("longest_edge", config.vision_config.image_size)
        kept = {name: saved[name] for name in (*KEPT, "size", "do_image_splitting") if saved.get(name) is not None}
        return cls.Processor(max_image_size={"longest_edge": side}, **kept)

    def cut(self, tiles: bool) -> None:
        self.image_processor.do_image_splitting = tiles

    @property
    def language(self):
        return self.model.model.text_model

    @property
    def square(self) -> int:
        return self.image_processor.max_image_size["longest_edge"]

    @property
    def side(self) -> int:
        return super().side // self.model.config.scale_factor

    def tiles(self, picture: PILImage.Image) -> tuple[int, int]:
        """(rows, columns) of the tiles of a picture; (0, 0) where it is left whole."""
        return self.image_processor.get_number_of_image_patches(picture.height, picture.width)[1:]

    def laid(self, picture: PILImage.Image) -> list[tuple[str, int]]:
        return self.laid_in(*self.tiles(picture))

    def room(self, pictures: Pictures) -> list[int]:
        return [
            sum(
                len(self.tokenizer(mark, add_special_tokens=False)["input_ids"]) + n
                for mark, n in self.laid_in(rows, columns)
            )
            for rows, columns, _ in pictures.grid.tolist()
        ]

    def laid_in(self, rows: int, columns: int) -> list[tuple[str, int]]:
        """:meth:`laid` of a picture of so many tiles."""
        marks, size = [], self.side**2
        for row in range(rows):
            for column in range(columns):
                between = "\n" if row and not column else ""  # rows end in a line break
                marks.append((between + self.layout.tile.format(row=row + 1, column=column + 1), size))
        return [*marks, ("\n\n" * bool(rows) + self.layout.image_open, size), (self.layout.image_close, 0)]

    def look(self, pictures: list[PILImage.Image], tiles: bool = True) -> Pictures:
        """Tiles and the whole of each picture, in the order in which they stand in a row."""
        seen, grids = [], []
        for picture in pictures:
            rows, columns = self.tiles(picture) if tiles else (0, 0)
            how = {} if rows else {"do_image_splitting": False, "do_resize": False}  # squeezed at once
            seen.append(
                self.image_processor(images=[[picture.convert("RGB")]], do_pad=False, return_tensors="pt", **how)[
                    "pixel_values"
                ][0]
            )
            grids.append([rows, columns, self.side])
        return Pictures(grid=torch.tensor(grids), pixels=torch.cat(seen))

    def look_whole(self, pictures: list[PILImage.Image]) -> Pictures:
        return self.look(pictures, tiles=False)

    def merged(self, pictures: Pictures) -> torch.Tensor:
        return pictures.grid[:, 2:].expand(-1, 2)

    def see(self, pictures: Pictures) -> list[torch.Tensor]:
        return [tokens[-(self.side**2) :] for tokens in self.inputs(pictures)]

    def encode(self, pictures: Pictures) -> list[torch.Tensor]:
        # not by get_image_features, which leaves out squares that are all zero
        squares = [self._square(some) for some in pictures.pixels.to(self.model.dtype).split(AT_ONCE)]
        counts = (pictures.grid[:, 0] * pictures.grid[:, 1] + 1).tolist()
        return [torch.cat(list(some)) for some in torch.cat(squares).split(counts)]

    def _square(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) -> (n, T, D)."""
        patches = self.square // self.model.config.vision_config.patch_size
        there = torch.ones(len(pixels), patches, patches, dtype=torch.bool, device=pixels.device)
        eye = self.model.model
        return eye.connector(eye.vision_model(pixel_values=pixels, patch_attention_mask=there).last_hidden_state)


class SmolVLM(Idefics3):
    """SmolVLM and SmolVLM2 (2504.05299)."""

    Processor = SmolVLMImageProcessorPil

    layout = replace(Idefics3.layout, begin="<|im_start|>")

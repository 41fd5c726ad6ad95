"""Frozen vision encoders outside the model, for latent targets: stock SigLIP (2303.15343).

``tiny`` is a small encoder with random weights from a fixed seed, so that everything runs without a download.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image as PILImage
from transformers import AutoConfig, SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from ...images import to_rgb
from ..batch import ImageBatch

MODEL_TYPES = ("siglip", "siglip_vision_model")


class VisionEncoder:
    """Encodes every image as ``side`` x ``side`` tokens of ``width``."""

    def __init__(self, model: SiglipVisionModel):
        self.model = model.eval().requires_grad_(False)
        config = model.config
        self.side, self.width = config.image_size // config.patch_size, config.hidden_size
        self.processor = SiglipImageProcessorPil(size={"height": config.image_size, "width": config.image_size})

    def preprocess_images(self, images: list[PILImage.Image]) -> ImageBatch:
        pixels = self.processor(images=[to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        return ImageBatch(grid=torch.tensor([[1, self.side, self.side]]).repeat(len(pixels), 1), pixels=pixels)

    @torch.no_grad()
    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        """One (side^2, width) tensor per image."""
        self.model.to(images.pixels.device)
        return list(self.model(pixel_values=images.pixels).last_hidden_state)


def load_encoder(name: str = "tiny") -> VisionEncoder:
    """Load ``tiny``, or a SigLIP vision encoder from a folder or the Hub, whose sizes :mod:`.encoder_files` checks.

    Raises:
        ValueError: there is no such encoder.
    """
    if name == "tiny":
        config = SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=384,
            patch_size=32,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return VisionEncoder(SiglipVisionModel(config))
    try:
        if AutoConfig.from_pretrained(name, trust_remote_code=False).model_type not in MODEL_TYPES:
            raise ValueError(f"encoder {name!r} is not a SigLIP model. Give one of that family, or 'tiny'.")
        with torch.device("cpu"):  # also where sizes of a checkpoint are checked on the meta device
            model = SiglipVisionModel.from_pretrained(
                name, attn_implementation="sdpa", use_safetensors=True, trust_remote_code=False
            )
        return VisionEncoder(model)
    except OSError as error:
        raise ValueError(
            f"encoder {name!r} is neither 'tiny', nor a folder with a SigLIP model"
            f"{'' if Path(name).exists() else ' (no such folder)'}, nor reachable on the Hub. Download it "
            "where you have a network and give the folder."
        ) from error

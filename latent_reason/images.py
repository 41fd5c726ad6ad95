"""The one way an image becomes RGB, wherever it comes from: data, prompts, exported models."""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps

ORIENTATION = 0x0112  # the EXIF tag


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """The current frame in RGB: applies the orientation tag, composites alpha and palette transparency on white, scales
    16 bits to 8, drops metadata. A plain RGB image is returned itself."""
    image = _upright(image)
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values
        values = np.asarray(image).astype(np.int64)
        is_deep = image.mode != "I" or values.max() > 255  # 32 bits may hold values of 8
        image = PILImage.fromarray((values >> (8 if is_deep else 0)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    elif image.info or type(image) is not PILImage.Image:
        image = image.copy()
    if image.info:
        image.info = {}
    return image


def _upright(image: PILImage.Image) -> PILImage.Image:
    """The image as its orientation tag says; as it is where the tag cannot be read."""
    try:
        return image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, OSError):
        return image

"""A small batch stored with a checkpoint, and the model's outputs for it, so that a user can check a loaded copy.

input_ids, pixel_values, image_grid   a prompt about one image of colored cells
logits                                (1, 8, V) of its last eight positions, fp32
latents, picture                      one sketch (K, D) sampled with the stored seed, and its rendering (H, W, 3)
merged                                for an adapter: the logits after it is merged into its base
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from safetensors import safe_open
from safetensors.torch import save_file

from ...trace import Image, Message, Text, Trace

FILE, NUM_LOGITS, MAX_NEW_TOKENS = "probe.safetensors", 8, 16
BOUNDS = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}


def write(model, folder: Path, merged: torch.Tensor | None = None, seed: int = 0) -> None:
    """Store the outputs of a model (hf/modeling.py) for the prompt."""
    inputs = prompt(model, seed)
    whole = inputs | outputs(model, inputs, seed) | ({} if merged is None else {"merged": merged})
    save_file(
        {name: value.cpu().contiguous() for name, value in whole.items()}, folder / FILE, metadata={"seed": str(seed)}
    )


def prompt(model, seed: int = 0) -> dict[str, torch.Tensor]:
    """The prompt as model inputs."""
    backbone = model.reasoner.backbone
    cells = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    side = 2 * backbone.pixels_per_token
    image = PILImage.fromarray(cells.repeat(side, 0).repeat(side, 1))
    trace = Trace("probe", (Message("user", (Image(image), Text("What does the picture show?"))),))
    batch = model.reasoner.processor([trace], generate=True)
    return {"input_ids": batch.ids, "pixel_values": batch.images.pixels, "image_grid": batch.images.grid}


@torch.no_grad()
def outputs(model, inputs: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Outputs of a model for a stored prompt."""
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    out = {"logits": model(**inputs).logits[:, -NUM_LOGITS:].float()}
    if model.reasoner.can_sketch:
        batch = model.batch(**inputs)
        rollout = model.rollout(batch, max_new_tokens=MAX_NEW_TOKENS, latent_mode="first", seed=seed)
        span = rollout.spans[0]
        out["latents"] = rollout.latents(span).float()
        if (image := model.render(rollout, span)) is not None:
            out["picture"] = torch.from_numpy(np.array(image))
    return out


def differences(model, folder: str | Path) -> dict[str, float]:
    """Distance of a model from the stored outputs, name by name: the largest |a - b| / (1 + |b|). Infinite where one
    is missing, not finite or of another shape.

    Raises:
        ValueError, OSError: the file cannot be read, or holds no prompt.
    """
    stored, seed = read(folder)
    inputs = {name: stored.pop(name) for name in ("input_ids", "pixel_values", "image_grid")}
    found = outputs(model, inputs, seed)
    return {name: difference(found.get(name), stored.get(name)) for name in found.keys() | stored.keys() - {"merged"}}


def read(folder: str | Path) -> tuple[dict[str, torch.Tensor], int]:
    """The stored tensors, and the seed."""
    with safe_open(Path(folder) / FILE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, int((file.metadata() or {}).get("seed", 0))


def difference(found: torch.Tensor | None, stored: torch.Tensor | None) -> float:
    if found is None or stored is None or found.shape != stored.shape:
        return float("inf")
    if stored.dtype == torch.uint8:  # an image: rounding may go either way
        return float(((found.cpu().float() - stored.float()).abs() - 1).clamp_min(0).max()) / 255
    found, stored = found.cpu().float(), stored.float()
    return float(((found - stored).abs() / (1 + stored.abs())).nan_to_num(float("inf")).max())

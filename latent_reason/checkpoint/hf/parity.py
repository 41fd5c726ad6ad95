"""A small batch stored with a checkpoint, and what the model made of it: who loads it can see that it is the same.

input_ids, pixel_values, image_grid   a prompt about one picture of coloured cells
logits                                (1, 8, V) of its last eight positions, fp32
latents, picture                      one sketch (K, D) drawn with the stored seed, and what it shows (H, W, 3)
merged                                of an adapter: the logits when it is folded into its base
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from safetensors import safe_open
from safetensors.torch import save_file

from ...trace import Image, Message, Text, Trace

FILE, LAST, LONGEST = "probe.safetensors", 8, 16
BOUNDS = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}


def write(model, folder: Path, merged: torch.Tensor | None = None, seed: int = 0) -> None:
    """Store what a model (pretrained/modeling.py) makes of the prompt."""
    given = prompt(model, seed)
    whole = given | answers(model, given, seed) | ({} if merged is None else {"merged": merged})
    save_file(
        {name: value.cpu().contiguous() for name, value in whole.items()}, folder / FILE, metadata={"seed": str(seed)}
    )


def prompt(model, seed: int = 0) -> dict[str, torch.Tensor]:
    """The prompt as a model takes it."""
    backbone = model.reasoner.backbone
    cells = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    picture = PILImage.fromarray(cells.repeat(2 * backbone.cell, 0).repeat(2 * backbone.cell, 1))
    asked = Trace("probe", (Message("user", (Image(picture), Text("What does the picture show?"))),))
    batch = model.reasoner.collator()([asked], generate=True)
    return {"input_ids": batch.ids, "pixel_values": batch.images.pixels, "image_grid": batch.images.grid}


@torch.no_grad()
def answers(model, given: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """What a model makes of a stored prompt."""
    given = {name: value.to(model.device) for name, value in given.items()}
    found = {"logits": model(**given).logits[:, -LAST:].float()}
    if model.reasoner.sketches:
        rollout = model.rollout(model.batch(**given), max_new=LONGEST, sketching="first", seed=seed)
        span = rollout.spans[0]
        found["latents"] = rollout.latents(span).float()
        if (picture := model.drawn(rollout, span)) is not None:
            found["picture"] = torch.from_numpy(np.array(picture))
    return found


def differences(model, folder: str | Path) -> dict[str, float]:
    """How far from what is stored a model is, name by name: the largest |a - b| / (1 + |b|). Infinite where one is
    missing, not finite or of another shape.

    Raises:
        ValueError, OSError: the file cannot be read, or holds no prompt.
    """
    stored, seed = read(folder)
    given = {name: stored.pop(name) for name in ("input_ids", "pixel_values", "image_grid")}
    found = answers(model, given, seed)
    return {name: difference(found.get(name), stored.get(name)) for name in found.keys() | stored.keys() - {"merged"}}


def read(folder: str | Path) -> tuple[dict[str, torch.Tensor], int]:
    """What is stored, and the seed."""
    with safe_open(Path(folder) / FILE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, int((file.metadata() or {}).get("seed", 0))


def difference(found: torch.Tensor | None, stored: torch.Tensor | None) -> float:
    if found is None or stored is None or found.shape != stored.shape:
        return float("inf")
    if stored.dtype == torch.uint8:  # a picture: rounding may go either way
        return float(((found.cpu().float() - stored.float()).abs() - 1).clamp_min(0).max()) / 255
    found, stored = found.cpu().float(), stored.float()
    return float(((found - stored).abs() / (1 + stored.abs())).nan_to_num(float("inf")).max())

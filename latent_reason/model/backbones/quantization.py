"""4-bit weights of the text model (NF4, 2305.14314), by bitsandbytes, for LoRA."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from ...errors import pip_install


def quantization_options(bits: int) -> dict[str, Any]:
    """Options of ``from_pretrained`` that quantize the text model's weights. Vision encoder, connector and output
    embeddings stay as they are.

    Raises:
        ValueError: ``bits`` is not 4, or a package is missing.
    """
    from transformers import BitsAndBytesConfig

    if bits != 4:
        raise ValueError(f"bits={bits}: must be 4. Remove the option to keep full weights.")
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise ValueError(f"bits=4 needs {' and '.join(missing)}. Install with: {pip_install('bits')}")
    gpu = torch.cuda.is_available()
    vision = ("visual", "vision_tower", "vision_model", "connector", "multi_modal_projector")
    return {
        "device_map": {"": torch.cuda.current_device() if gpu else "cpu"},
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if gpu else torch.float32,
            llm_int8_skip_modules=["lm_head", *(f"model.{part}" for part in vision)],
        ),
    }

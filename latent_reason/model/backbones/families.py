"""The class of each model family, and how a backbone is loaded by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ... import values
from ...errors import did_you_mean
from ...imports import import_object, is_dotted_path
from .base import Backbone

#: model_type of a configuration -> (file, class) of its family
FAMILIES = {
    "qwen2_vl": ("qwen_vl", "QwenVL"),
    "qwen2_5_vl": ("qwen_vl", "QwenVL"),
    "qwen3_vl": ("qwen_vl", "Qwen3VL"),
    "gemma3": ("gemma3", "Gemma3"),
    "llava": ("square", "Llava"),
    "llava_onevision": ("square", "LlavaOneVision"),
    "internvl": ("square", "InternVL"),
    "idefics3": ("square", "Idefics3"),
    "smolvlm": ("square", "SmolVLM"),
}
DTYPES = ("float32", "bfloat16", "float16", "float64")


def family(model_type: str) -> type[Backbone]:
    """The class of a family, by the model_type of its configuration."""
    file, name = FAMILIES[model_type]
    return getattr(import_module(f"{__package__}.{file}"), name)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for every file it reads or writes."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def load_backbone(name: str = "tiny", *, latent_positions: str = "1d", **options: Any) -> Backbone:
    """A backbone by name, on the CPU.

    Example:
        >>> backbone = load_backbone("tiny")  # a small random Qwen2.5-VL, no download
        >>> backbone = load_backbone("Qwen/Qwen2.5-VL-3B-Instruct", dtype="bfloat16")
        >>> backbone = load_backbone("my_pkg.backbones:MyBackbone@models/small")  # a class of your own

    ``name`` is ``tiny`` (a Qwen2.5-VL), ``tiny-FAMILY`` (as ``tiny-qwen3-vl``), a folder, or a Hub name; or, for a
    family of your own, the dotted path of its :class:`Backbone`, ``@``, and a folder or Hub name.
    :func:`.attention.set_attention` chooses the attention once the model is on its device.

    Raises:
        ValueError: no such folder, a model family without a class here, or an unknown option.
    """
    known = f"Families: {', '.join(FAMILIES)}."
    if name == "tiny" or name.startswith("tiny-"):
        from .tiny import tiny

        model_type = re.sub(r"[-.]", "_", name.removeprefix("tiny").removeprefix("-")) or "qwen2_5_vl"
        if model_type not in FAMILIES:
            raise ValueError(f"backbone {name!r}: the family {model_type!r} is not supported. {known}")
        check_options(tiny, options)
        return tiny(model_type, latent_positions=latent_positions, **options)
    path, at, folder = name.partition("@")
    if at and is_dotted_path(path):
        check_options(load_pretrained, options)
        cls = import_object(path, "backbone", Backbone)
        return load_pretrained(cls, folder, latent_positions=latent_positions, name=name, **options)
    config = _stock_config(name)
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"backbone {name!r}: the family {config.model_type!r} is not supported. {known} Name a Backbone class of "
            "your own before the folder: my_pkg.backbones:MyBackbone@FOLDER."
        )
    check_options(load_pretrained, options)
    return load_pretrained(family(config.model_type), name, config=config, latent_positions=latent_positions, **options)


def _stock_config(name: str) -> Any:
    """The configuration of a folder or Hub name. Raises ValueError as :func:`.stock_config.read_stock_config`, and where
    there is none."""
    from .stock_config import read_stock_config

    try:
        return read_stock_config(name)
    except OSError as error:
        raise ValueError(
            f"backbone {name!r} is neither 'tiny', nor a folder with a config.json"
            f"{'' if Path(name).exists() else ' (no such folder)'}, nor reachable on the Hub. Download it where you "
            "have a network and give the folder."
        ) from error


def load_pretrained(
    family: type[Backbone],
    folder: str,
    *,
    config: Any = None,
    latent_positions: str = "1d",
    dtype: torch.dtype | str | None = None,
    tiles: bool | None = None,
    bits: int | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    name: str | None = None,
) -> Backbone:
    """Load a folder or Hub name of a family. ``config`` is its configuration (None: it is read). ``name`` is what the backbone is loaded by again, if not ``folder``.
    ``tiles`` says whether images are split into tiles (None: as the saved processor says). ``bits=4`` quantizes the text
    model as it is read (for LoRA, by bitsandbytes). ``min_pixels`` and ``max_pixels`` limit the size to which images are
    resized (None: as the saved processor says).

    Raises:
        ValueError: weights are missing or left over, ``dtype`` is unknown, weights cannot be quantized here, or images
            would be enlarged without bound; see also :func:`.stock_config.read_stock_config`.
    """
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from .quantization import quantization_options
    from .stock_config import check_image_processor, check_sizes, check_tokenizer, stored_weights

    quantization = {} if bits is None else quantization_options(bits)
    config = _stock_config(folder) if config is None else config
    check_sizes(config, stored_weights(folder), Path(folder, "config.json"))  # before memory is taken
    with no_progress_bars():
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            dtype=torch_dtype(dtype),
            output_loading_info=True,
            use_safetensors=True,
            **quantization,
        )
    if info["missing_keys"] or info["unexpected_keys"]:
        raise ValueError(
            f"{folder}: {len(info['missing_keys'])} weights are missing and {len(info['unexpected_keys'])} are left "
            "over. Is this the folder of a whole model?"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    processor = family.load_image_processor(folder, model.config)
    check_image_processor(processor, model.config, folder)
    check_tokenizer(tokenizer, folder)
    backbone = family(model, tokenizer, processor, latent_positions, name=name or folder, bits=bits)
    if tiles is not None:
        backbone.set_tiling(tiles)
    if min_pixels is not None or max_pixels is not None:
        backbone.set_pixel_limits(min_pixels, max_pixels)
    return backbone


def torch_dtype(dtype: torch.dtype | str | None) -> torch.dtype | str:
    """A dtype by name; None is ``auto``. Raises ValueError for a name that torch does not have."""
    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        return dtype or "auto"
    found = getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype={dtype!r}: not a torch dtype. Use float32, bfloat16 or float16.")
    return found


def check_options(function: Any, options: dict[str, Any]) -> None:
    """Raises ValueError for an option that a loading function does not have, or a value that it does not take."""
    parameters = inspect.signature(function).parameters
    known = [
        name
        for name, p in parameters.items()
        if p.kind is p.KEYWORD_ONLY and name not in ("latent_positions", "name", "config")
    ]
    for option in options:
        if option not in known:
            raise ValueError(f"backbone.options has no option {option!r}. {did_you_mean(option, known)}")
    values.check_options(options, function, "backbone.options.")

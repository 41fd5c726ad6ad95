"""Which class of this package a model family has, and how a backbone is loaded by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...files import nearest
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
    """The class of a family, by the model_type of its configurations."""
    file, name = FAMILIES[model_type]
    return getattr(import_module(f"{__package__}.{file}"), name)


def load(name: str = "tiny", *, positions: str = "line", **options) -> Backbone:
    """A backbone by name: ``tiny`` (a Qwen2.5-VL), ``tiny-FAMILY`` (as ``tiny-qwen3-vl``), a folder, or a Hub name.
    It is on the CPU; :func:`.attention.settle` chooses its attention where it goes.

    Raises:
        ValueError: no such folder, a model family without a file here, or an option that the backbone does not have.
    """
    known = f"Families: {', '.join(FAMILIES)}."
    if name == "tiny" or name.startswith("tiny-"):
        from .tiny import tiny

        model_type = re.sub(r"[-.]", "_", name.removeprefix("tiny").removeprefix("-")) or "qwen2_5_vl"
        if model_type not in FAMILIES:
            raise ValueError(f"backbone {name!r}: {model_type!r} has no file in latent_reason/backbones. {known}")
        check_options(name, tiny, options)
        return tiny(model_type, positions=positions, **options)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except OSError as error:
        raise ValueError(
            f"backbone {name!r} is neither 'tiny', nor a folder with a config.json"
            f"{'' if Path(name).exists() else ' (no such folder)'}, nor reachable on the Hub. Download "
            "it where you have a network and give the folder."
        ) from error
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"backbone {name!r} is of the family {config.model_type!r}, which has no file in "
            f"latent_reason/backbones. {known}"
        )
    kind = family(config.model_type)
    check_options(name, kind.from_pretrained, options)
    return kind.from_pretrained(name, positions=positions, **options)


def check_options(name: str, loader: Callable, options: dict) -> None:
    """Raises ValueError for an option that a loader does not take, or a dtype that does not exist."""
    parameters = inspect.signature(loader).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "positions"]
    for option in options:
        if option not in known:
            raise ValueError(
                f"backbone.options: backbone {name!r} has no option {option!r}. {nearest(option, known)} "
                f"It has: {', '.join(known)}."
            )
    dtype = options.get("dtype")
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ValueError(f"backbone.options.dtype={dtype!r}: one of {', '.join(DTYPES)}. {nearest(dtype, DTYPES)}")

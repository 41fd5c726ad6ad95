"""``config.json`` of a stock model, as strangers may have written it.

It says what the model is. What it wishes beyond that is not followed: which attention or experts to use (transformers
would download kernels for some names), which file holds the weights, and which code to run. Its sizes are held against
the tensors that are there, on the meta device, before memory is taken.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from ...folders import check_folder, read_json
from ..weight_files import Stored, count_values, read_header, read_headers
from .families import DTYPES

WISHES = re.compile(r"attn_implementation|experts_implementation|^transformers_weights$|^_name_or_path$|^use_kernels$")
#: keys that say how often something is repeated, which takes time even where it takes no memory
COUNTS = re.compile(r"^(num_(hidden_|encoder_|decoder_)?(layers|blocks|stages)|(encoder_|decoder_)?layers|n_layers?|depths?"
                    r"|num_(local_)?experts|cross_attention_layers|gate_layers)$")  # fmt: skip
FEW = 100  # repetitions that cost nothing
MANY = 10_000  # the most, where no tensors are at hand
LARGEST = 2**40  # of any number: no size of a model is so large
MAX_GROWTH = 64  # how much longer a normalizer may make a text
MAX_SIDE = 4096  # pixels of a side of the square to which an image may be enlarged


def read_stock_config(name: str) -> PreTrainedConfig:
    """The configuration of a folder or Hub name.

    Raises:
        OSError: there is no such folder, or no such model on the Hub.
        ValueError: it is damaged, is none of transformers' own models, is quantized, or has more layers than its folder
            has tensors.
    """
    if Path(name).is_dir():
        check_folder(name)
    file = Path(name, "config.json") if Path(name).is_dir() else Path(str(cached_file(name, "config.json")))
    given = read_json(file)
    if Path(name, "adapter_config.json").is_file():
        raise ValueError(f"'{name}' has an adapter_config.json, so transformers would load another model. Remove it.")
    if not isinstance(given, dict) or given.get("model_type") not in CONFIG_MAPPING:
        kind = given.get("model_type") if isinstance(given, dict) else None
        raise ValueError(
            f"'{file}' is of the kind {str(kind)[:60]!r}, which this version of transformers does not know. Use a model "
            "of a family that it has."
        )
    check_no_code(given, file)
    check_numbers(given, len(read_headers(Path(name))) if Path(name).is_dir() else MANY, file)
    return CONFIG_MAPPING[given["model_type"]].from_dict(without_wishes(given), name_or_path=name)


def check_no_code(given: dict[str, Any], file: Path) -> None:
    """Raises ValueError if a configuration, or a part of it, names code or quantized weights."""
    for key, value in walk(given):
        if key == "auto_map" and value:
            raise ValueError(
                f"'{file}' names code of its own (auto_map), which is not run. Use a model whose class is part of "
                "transformers, or remove the key."
            )
        if key == "quantization_config" and value:
            raise ValueError(
                f"'{file}' describes quantized weights (quantization_config). Use the full weights; backbone.options "
                "bits: 4 quantizes them here."
            )
        if key in ("dtype", "torch_dtype") and value not in (None, *DTYPES):
            raise ValueError(f"'{file}' names the dtype {str(value)[:40]!r}. Use one of {', '.join(DTYPES)}.")


def check_numbers(given: Any, most: int, file: Path) -> None:
    """Raises ValueError if a number is absurd, or if more layers are described than there are tensors (``most``)."""
    for key, value in walk(given):
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if abs(value) > LARGEST:
            raise ValueError(f"'{file}' says {key}: {str(value)[:30]}, which no model has. Copy it again.")
        if COUNTS.match(key) and value > max(most, FEW):
            raise ValueError(f"'{file}' says {key}: {value:,}, but there are only {most:,} tensors. Copy both again.")


def stored_weights(name: str) -> dict[str, Stored]:
    """The headers of the weights of a folder or Hub name, which are downloaded if they are not in the cache.

    Raises:
        OSError: there is no such model, or no weights of it in safetensors.
        ValueError: the folder has no weights.
    """
    if Path(name).is_dir():
        return read_headers(Path(name))
    try:
        files = [cached_file(name, "model.safetensors")]
    except OSError:  # in several files
        try:
            index = cached_file(name, "model.safetensors.index.json")
            files, _ = get_checkpoint_shard_files(name, index)
        except OSError as error:
            raise FileNotFoundError(
                f"the weights of '{name}' (model.safetensors) are neither in the cache nor reachable on the Hub. Download "
                "the model where you have a network and give the folder."
            ) from error
    return {key: stored for file in files for key, stored in read_header(Path(str(file))).items()}


def check_sizes(
    config: PreTrainedConfig, stored: dict[str, Stored], file: Path, model_class: Any = AutoModelForImageTextToText
) -> None:
    """Raises ValueError if the model that is described has more weights than the stored tensors. Names are not
    compared, because transformers reads older names, too."""
    wanted, there = count_weights(config, model_class), count_values(one.shape for one in stored.values())
    if wanted > there:
        raise ValueError(
            f"'{file}' describes {wanted:,} weights, but the files beside it hold {there:,}. Copy both again."
        )


def count_weights(config: PreTrainedConfig, model_class: Any = AutoModelForImageTextToText) -> int:
    """The number of weights of a stock model, tied ones once, from the model without memory."""
    with torch.device("meta"):
        model = model_class.from_config(copy.deepcopy(config), trust_remote_code=False)
    return count_values(tuple(p.shape) for p in model.parameters())


def check_image_processor(processor: Any, config: Any, where: str | Path) -> None:
    """Raises ValueError if images would be enlarged without bound, or cut into patches that the encoder does not take."""
    vision = config.vision_config
    sizes = [pair for name in ("size", "max_image_size") for pair in dict(getattr(processor, name, None) or {}).items()]
    sizes = [(name, pixels) for name, pixels in sizes if pixels is not None]
    has_areas = "shortest_edge" in dict(sizes)  # of Qwen: pixels of an image, not of a side
    for name, pixels in sizes:
        largest = LARGEST if name == "longest_edge" and has_areas else MAX_SIDE**2 if has_areas else MAX_SIDE
        if not isinstance(pixels, int) or not 0 < pixels <= largest:
            raise ValueError(
                f"'{where}': the image processor says {name}: {str(pixels)[:30]}, expected 1 to {largest:,}. Correct "
                "preprocessor_config.json, or copy it again."
            )
    for own, theirs in (("patch_size", "patch_size"), ("merge_size", "spatial_merge_size")):
        found, wanted = getattr(processor, own, None), getattr(vision, theirs, None)
        if has_areas and found != wanted:
            raise ValueError(
                f"'{where}': the image processor says {own}: {str(found)[:30]}, but the vision encoder has {wanted}. "
                "Copy both again, from one model."
            )


def without_wishes(given: Any) -> Any:
    """A configuration without the keys that are not followed."""
    if isinstance(given, dict):
        return {key: without_wishes(value) for key, value in given.items() if not WISHES.search(key)}
    return [without_wishes(value) for value in given] if isinstance(given, list) else given


def walk(given: Any, key: str = "") -> list[tuple[str, Any]]:
    """All keys with their values, of all parts; the entries of a list have its key."""
    if isinstance(given, dict):
        inner = [pair for name, value in given.items() for pair in walk(value, str(name))]
    else:
        inner = [pair for value in given for pair in walk(value, key)] if isinstance(given, list) else []
    return [(key, given), *inner]


def check_tokenizer(tokenizer: Any, where: str | Path) -> None:
    """Raises ValueError if the tokenizer would make a text longer without bound: replacements one after another double
    its length again and again."""
    normalizer = getattr(tokenizer.backend_tokenizer, "normalizer", None)
    growth = 1
    for key, value in walk(json.loads(normalizer.__getstate__())) if normalizer is not None else ():
        if key == "content" and isinstance(value, str):
            growth *= max(len(value), 1)
    if growth > MAX_GROWTH:
        raise ValueError(
            f"'{where}': the normalizer of tokenizer.json may make a text more than {MAX_GROWTH} times as long. Copy it again."
        )

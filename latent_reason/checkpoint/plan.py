"""What a checkpoint says of itself is held against the tensors that are there, before memory is taken.

A damaged or hostile description may ask for any size and any number of layers. So the model is built on the meta device
first, where tensors have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoTokenizer

from ..errors import is_sentence
from ..folders import check_folder, read_json
from ..imports import UntrustedCode, is_dotted_path
from ..model.adapters import BASE
from ..model.backbones.base import Backbone
from ..model.backbones.families import FAMILIES, family
from ..model.backbones.stock_config import (
    check_image_processor,
    check_no_code,
    check_numbers,
    check_sizes,
    check_tokenizer,
    without_wishes,
)
from ..model.reasoner import LatentReasoner
from ..model.weight_files import Stored, count_values, read_header, read_headers
from . import parts
from .config_file import CONFIG_FILE, check_feedback, check_slot_means, upgrade_options

if TYPE_CHECKING:
    from .hf.configuration import LatentReasonConfig

DECODER_SIZES = ("latent", "width", "depth", "heads", "patch")


@contextmanager
def reading(part: Path) -> Iterator[None]:
    """Name the part of a checkpoint, and what to do, in whatever a library raises for it. Sentences of this library that
    name it already pass as they are."""
    try:
        yield
    except UntrustedCode:
        raise
    except Exception as error:  # a library raises anything for a damaged file
        is_own = is_sentence(error) and not (isinstance(error, OSError) and error.errno)
        if is_own and isinstance(error, ValueError | FileNotFoundError) and str(part) in str(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"'{part}' cannot be read ({type(error).__name__}: {reason[:200]}). Copy the checkpoint again."
        ) from error


@contextmanager
def without_memory(config: dict[str, Any]) -> Iterator[list]:
    """Build modules on the meta device. The list stays empty where code of the user, which the description names, reads
    weights as it is built."""
    built: list = []
    try:
        with torch.device("meta"):
            yield built
    except RuntimeError:
        if not any(is_dotted_path(str(name)) for name in (config.get("method"), config["options"].get("head"))):
            raise
        built.clear()


def plan_reasoner(config: dict[str, Any], backbone: Backbone, stored: dict[str, Stored], where: Path) -> None:
    """Hold the parts beside the backbone that a description names against ``stored``, the header of the file ``where``.

    Raises:
        ValueError: a tensor is missing, left over or of another shape, or a number is absurd.
    """
    described = {name: config.get(name) for name in ("options", "parts", "slot_means")}  # notes may have any number
    check_numbers(described, len(stored), where.parent / CONFIG_FILE)
    with without_memory(config) as planned:
        planned.append(parts.build_reasoner(config, backbone))
    for model in planned:
        check_shapes(stored, own_tensors(model), f"'{where}' does not fit method {config['method']!r} of {CONFIG_FILE}")


def plan_model(folder: Path) -> LatentReasonConfig:
    """The configuration of an exported folder, after it was held against the weights beside it.

    Raises:
        FileNotFoundError, ValueError: it is damaged, names code or an unknown family, or does not fit the weights.
    """
    from .hf.configuration import LatentReasonConfig

    check_folder(folder)
    with reading(folder):
        file, stored = folder / "config.json", read_headers(folder)
        given = read_json(file)
        if not isinstance(given, dict) or not isinstance(given.get("backbone_config"), dict):
            raise ValueError(f"config.json of '{folder}' has no backbone_config. Copy the checkpoint again.")
        if (folder / "adapter_config.json").is_file():
            raise ValueError(f"'{folder}' has an adapter_config.json beside a whole model. Remove it.")
        check_no_code({name: value for name, value in given.items() if name != "auto_map"}, file)
        check_numbers(given, len(stored), file)
        config = LatentReasonConfig.from_dict(without_wishes(given), name_or_path=str(folder))
        if config.backbone_config.model_type not in FAMILIES:
            raise ValueError(
                f"'{file}': the backbone family {config.backbone_config.model_type!r} is not supported. Families: "
                f"{', '.join(FAMILIES)}."
            )
        check_sizes(config.backbone_config, stored, file)
        _plan_whole(config, stored, folder)
        if config.decoder:
            plan_decoder(folder / "decoder")
    return config


def _plan_whole(config: LatentReasonConfig, stored: dict[str, Stored], folder: Path) -> None:
    """Hold the shapes of a whole model against those in the files, and check its tokenizer and image processor. Tied
    weights are stored once, and names that are missing are told by loading."""
    kind = family(config.backbone_config.model_type)
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config.backbone_config, trust_remote_code=False)
    check_tokenizer(tokenizer, folder)
    processor = kind.load_image_processor(str(folder), config.backbone_config)
    check_image_processor(processor, config.backbone_config, folder)
    described = {
        "method": config.method or None,
        "options": upgrade_options(config.options or {}),
        "slot_means": check_slot_means(config.slot_means, folder / "config.json"),
        "feedback": check_feedback(config.feedback, folder / "config.json"),
    }
    with without_memory(described) as planned:
        stock = AutoModelForImageTextToText.from_config(config.backbone_config, trust_remote_code=False)
        backbone = kind(stock, tokenizer, processor, config.latent_positions)
        planned.append(parts.build_reasoner(described | {"parts": config.parts}, backbone))
    for model in planned:
        wanted = {f"reasoner.{name}": value for name, value in model.state_dict().items()}
        both = {name: stored[name] for name in wanted.keys() & stored.keys()}
        check_shapes(both, {n: wanted[n] for n in both}, f"the weights of '{folder}' do not fit config.json")
        own, there = (
            count_values(t.shape for t in values) for values in (own_tensors(model).values(), stored.values())
        )
        if own > there:
            raise ValueError(f"config.json of '{folder}' describes a head of {own:,} weights, but there are {there:,}.")


def plan_decoder(folder: Path) -> None:
    """Hold the configuration of a sketch decoder against its weights.

    Raises:
        FileNotFoundError, ValueError: it is damaged, or does not fit.
    """
    from ..visualization.sketch_decoder import SketchDecoder

    file = folder / "config.json"
    with reading(folder):
        stored, given = read_header(folder / "diffusion_pytorch_model.safetensors"), read_json(file)
        if not isinstance(given, dict):
            raise ValueError(f"'{file}' does not describe a sketch decoder. Copy the checkpoint again.")
        for key, value in given.items():
            if key in DECODER_SIZES and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"'{file}' says {key}: {str(value)[:30]}, expected a whole number of at least 1.")
            if key not in DECODER_SIZES and not key.startswith("_"):
                raise ValueError(f"'{file}' says {key}, which a sketch decoder does not have. Remove the key.")
        check_numbers(given, len(stored), file)
        with torch.device("meta"):
            model = SketchDecoder(**{key: value for key, value in given.items() if key in DECODER_SIZES})
        check_shapes(stored, model.state_dict(), f"'{folder}' cannot be read: its sizes differ")


def named_weights(module: nn.Module | None) -> list[tuple[str, torch.Tensor]]:
    """Names and values of all weights of a part; none where there is no such part."""
    return [] if module is None else list(module.state_dict().items())


def own_tensors(reasoner: LatentReasoner) -> dict[str, torch.Tensor]:
    """Everything of a state that is not the backbone."""
    return {n: t for n, t in reasoner.state_dict().items() if not n.startswith("backbone.")}


def check_shapes(found: dict[str, Stored], tensors: dict[str, torch.Tensor], problem: str) -> None:
    """Raises ValueError, with ``problem``, for what does not fit."""
    wanted = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = [f"{n} is missing" for n in wanted.keys() - found.keys()]
    wrong += [f"{n} is left over" for n in found.keys() - wanted.keys()]
    both = wanted.keys() & found.keys()
    wrong += [f"{n} is {found[n].shape} instead of {wanted[n]}" for n in both if found[n].shape != wanted[n]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{problem}: {', '.join(sorted(wrong)[:3])}{more}. Copy both again, from one checkpoint.")


def check_dtypes(folder: Path, config: dict[str, Any]) -> None:
    """Raises ValueError if weights of the stock model are of another dtype than the description says, or those beside it
    and those of an adapter of another than float32, in which they are trained and saved."""
    dtype, base, layout = config.get("dtype"), config.get("base"), config.get("layout")
    if dtype is None:  # older checkpoints name none
        return
    fine = "float64" if dtype == "float64" else "float32"
    stock = folder if layout else folder / "backbone"
    if layout == "model":
        _check_dtypes(stock, read_headers, lambda name: dtype if ".backbone." in name else fine)
        return
    _check_dtypes(folder / "reasoner.safetensors", read_header, lambda name: fine)
    if base:
        _check_dtypes(stock / "adapter_model.safetensors", read_header, lambda name: fine)
    if base in (None, BASE):
        _check_dtypes(stock / (base or ""), read_headers, lambda name: dtype)


def _check_dtypes(place: Path, read: Callable[[Path], dict[str, Stored]], wanted: Callable[[str], str]) -> None:
    """Hold the dtypes of a file or folder against those that its tensors should have by their names."""
    with reading(place):
        stored = read(place)
    for name, one in stored.items():
        if one.dtype not in (None, wanted(name)):
            raise ValueError(
                f"'{place}' holds {name} in {one.dtype}, but {CONFIG_FILE} says {wanted(name)}. Copy both again, from one "
                "checkpoint."
            )

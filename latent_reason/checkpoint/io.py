"""A checkpoint is a folder of safetensors and JSON: save it, load it.

    latent_reason.json         method with all options (or, for a model built by hand, its parts), control tokens, format
    backbone/                  the stock model, its tokenizer and image processor, as transformers writes them; or a
                               LoRA adapter as peft writes it, for the base that the JSON names (model/adapters.py)
    reasoner.safetensors       head and target statistics: everything that is not the backbone
    decoder/                   sketch decoder, as diffusers writes it (optional)

An exported checkpoint (checkpoint/export) has its model at the top level instead, as AutoModel loads it, or its adapter
beside ``reasoner.safetensors``. Its JSON says which as ``layout``. Nothing here unpickles, and nothing runs code of the
folder.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from .. import __version__
from ..files import atomic_folder
from ..folders import read_json
from ..imports import path_of, restrict_imports
from ..model import adapters
from ..model.backbones import Backbone, load_backbone, no_progress_bars
from ..model.backbones.attention import set_attention
from ..model.limits import InputLimits
from ..model.reasoner import LatentReasoner
from ..model.tokenization import Vocabulary
from ..model.weight_files import check_finite, read_header
from . import parts
from .config_file import CONFIG_FILE, FORMAT, find_checkpoint, read_config
from .plan import check_dtypes, named_weights, plan_decoder, plan_reasoner, reading

if TYPE_CHECKING:
    from ..visualization.sketch_decoder import SketchDecoder


def save(
    reasoner: LatentReasoner,
    folder: str | Path,
    *,
    decoder: SketchDecoder | None = None,
    notes: dict[str, Any] | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a whole checkpoint, atomically: it is written beside its place and renamed.

    Example:
        >>> save(reasoner, "checkpoints/mine/model")

    ``weights``, named as in the reasoner's ``state_dict``, replace its own, for weights that are sharded among
    processes. ``notes`` replace those of ``reasoner.method``.

    Raises:
        FileExistsError: the folder exists and is not empty.
        ValueError: the backbone is quantized and has no adapter, a part of a model built by hand is unknown, or a weight
            is NaN or infinite; nothing was written.
        OSError: the disk is full; nothing is left behind.
    """
    backbone = reasoner.backbone
    if backbone.bits and backbone.adapter is None:
        raise ValueError(
            f"weights of {backbone.bits} bits cannot be saved alone. Save them with the adapter that was trained on "
            "them."
        )
    described = parts.describe(reasoner)
    weights = reasoner.state_dict() if weights is None else weights
    check_finite([*weights.items(), *named_weights(decoder)], f"'{folder}' was not saved, as it would hold")
    with atomic_folder(folder) as new, no_progress_bars():
        (new / "backbone").mkdir()
        base = None
        stock = {n.removeprefix("backbone.model."): t for n, t in weights.items() if n.startswith("backbone.model.")}
        if backbone.adapter is None:
            backbone.model.save_pretrained(new / "backbone", state_dict=stock)
        else:
            base = adapters.save(backbone, new / "backbone", stock)
        backbone.tokenizer.save_pretrained(new / "backbone")
        backbone.image_processor.save_pretrained(new / "backbone")
        own = {n: t.detach().cpu().contiguous() for n, t in weights.items() if not n.startswith("backbone.")}
        save_file(own, new / "reasoner.safetensors", metadata={"format": "pt"})
        if decoder is not None:
            decoder.register_to_config(_name_or_path="")  # otherwise diffusers writes the folder it was loaded from
            decoder.save_pretrained(new / "decoder")
        files = {p.relative_to(new).as_posix(): p.stat().st_size for p in sorted(new.rglob("*")) if p.is_file()}
        config = {
            "format": FORMAT,
            "written_by": f"latent_reason {__version__}",
            **described,
            "backbone_class": path_of(type(backbone)),  # None for a class of this library
            "latent_positions": backbone.latent_positions,
            "decoder": decoder is not None,
            "base": base,
            "bits": backbone.bits,
            "dtype": str(backbone.model.dtype).removeprefix("torch."),
            "control_tokens": reasoner.vocabulary.control_tokens,
            "files": files,
            "notes": reasoner.method.notes if notes is None else notes,
        }
        (new / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def load(
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    attn_implementation: str = "auto",
    allow_imports: bool = False,
) -> tuple[LatentReasoner, SketchDecoder | None]:
    """Load a checkpoint or run folder: (reasoner, sketch decoder or None), in eval mode.

    Example:
        >>> reasoner, decoder = load("checkpoints/frozenlake-tiny")

    ``allow_imports`` imports the modules outside of this library that the checkpoint names for its method, head or
    backbone. Without it, they have to be imported before (:mod:`latent_reason.imports`).

    Raises:
        UntrustedCode: it names a module that nobody said is trusted.
        FileNotFoundError, ValueError: see :func:`.config_file.read_config`; also where weights or control tokens do
            not fit, weights are not finite or of another dtype than the description says, the description asks for more
            than the weights hold, or ``attn_implementation`` cannot be used.
    """
    folder = find_checkpoint(folder)
    config = read_config(folder)
    _check_indices(folder)
    with restrict_imports(folder, allow_imports), reading(folder):
        check_dtypes(folder, config)
        load_layout = _load_model if config.get("layout") == "model" else _load_parts
        reasoner, decoder = load_layout(folder, config)
        check_finite([*named_weights(reasoner), *named_weights(decoder)], f"'{folder}' holds")
    reasoner.record_method(replace(reasoner.method, notes=config.get("notes", {})))
    InputLimits.of_notes(reasoner.method.notes).apply_to(reasoner.backbone)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    set_attention(reasoner.to(device).backbone, attn_implementation, needs_mask=reasoner.hides_images)
    return reasoner.eval(), None if decoder is None else decoder.to(device)


def backbone_folder(folder: Path, config: dict[str, Any]) -> Path:
    """Where tokenizer, image processor and stock model (or adapter) of a checkpoint are."""
    return folder if config.get("layout") else folder / "backbone"


def _load_model(folder: Path, config: dict[str, Any]) -> tuple[LatentReasoner, SketchDecoder | None]:
    """(reasoner, decoder) of a folder that transformers can load."""
    from .hf.auto_model import LatentReasonForConditionalGeneration

    with reading(folder), no_progress_bars():
        model, info = LatentReasonForConditionalGeneration.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True
        )
    if wrong := sorted([*info["missing_keys"], *info["unexpected_keys"]]):
        raise ValueError(
            f"'{folder}' does not hold the weights of method {config['method']!r}: {wrong[0]} is missing or left "
            f"over, one of {len(wrong)}. Copy the checkpoint again."
        )
    return model.reasoner, model.decoder


def _load_parts(folder: Path, config: dict[str, Any]) -> tuple[LatentReasoner, SketchDecoder | None]:
    """(reasoner, decoder) of a folder in this library's own layout."""
    weights = folder / "reasoner.safetensors"
    with reading(weights):
        stored = read_header(weights)
    backbone = _load_backbone(folder, config)
    backbone.add_control_tokens(Vocabulary(backbone.tokenizer, backbone.layout))
    plan_reasoner(config, backbone, stored, weights)
    reasoner = parts.build_reasoner(config, backbone)
    for role, (token, number) in config["control_tokens"].items():
        found = getattr(reasoner.vocabulary, role)
        if found != number:
            raise ValueError(
                f"'{folder}': control token {token!r} has id {found} in its tokenizer.json but {number} in "
                f"{CONFIG_FILE}. The tokenizer was changed; copy the checkpoint again."
            )
    if config.get("base"):
        with reading(backbone_folder(folder, config)):
            adapters.load(reasoner, backbone_folder(folder, config))
    with reading(weights):
        reasoner.load_state_dict(load_file(weights), strict=False)
    return reasoner, _load_decoder(folder / "decoder") if config["decoder"] else None


def _load_decoder(folder: Path) -> SketchDecoder:
    from ..visualization.sketch_decoder import SketchDecoder

    plan_decoder(folder)
    with reading(folder):
        # low_cpu_mem_usage=True needs accelerate
        return SketchDecoder.from_pretrained(folder, use_safetensors=True, low_cpu_mem_usage=False).eval()


def _load_backbone(folder: Path, config: dict[str, Any]) -> Backbone:
    """The stock model of a checkpoint; for an adapter, its base."""
    base, positions = config.get("base"), config["latent_positions"]
    if base in (None, adapters.BASE):
        own_class = f"{config['backbone_class']}@" if config.get("backbone_class") else ""
        with reading(folder / "backbone"), no_progress_bars():
            backbone = load_backbone(f"{own_class}{folder / 'backbone' / (base or '')}", latent_positions=positions)
        if base:
            backbone.forget_name()  # this base belongs to its checkpoint alone
        return backbone
    options = {"bits": config["bits"]} if config.get("bits") else {}
    if config.get("dtype"):  # older checkpoints have none
        options["dtype"] = config["dtype"]
    try:
        backbone = load_backbone(base, latent_positions=positions, **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{folder}' holds an adapter of '{base}', which cannot be loaded: {error} Or write its path as \"base\" in "
            f"{folder / CONFIG_FILE}."
        ) from error
    stock = backbone_folder(folder, config)
    with reading(stock):  # images may have been processed otherwise in training than the base does
        backbone.set_image_processor(backbone.load_image_processor(str(stock), backbone.model.config))
    return backbone


def _check_indices(folder: Path) -> None:
    """Raises ValueError if an index names weights that are not beside it, or that are not safetensors."""
    for index in folder.rglob("*.index.json"):
        with reading(index):
            content = read_json(index)
            names = content.get("weight_map") if isinstance(content, dict) else None
            if not isinstance(names, dict):
                raise ValueError("it has no weight_map")
            for name in names.values():
                if Path(str(name)).name != name:
                    raise ValueError(f"it names weights outside of its folder: {name!r}")
                if not name.endswith(".safetensors"):
                    raise ValueError(f"it names weights that are not safetensors: {name!r}")

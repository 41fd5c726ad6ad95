"""The model of a recipe without its weights. Sizes come from a folder's config.json or from models.json, so that a model
can be planned that is on another machine."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoTokenizer

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.plan import reading
from latent_reason.errors import did_you_mean
from latent_reason.folders import read_json
from latent_reason.model import adapters
from latent_reason.model.backbones import Backbone
from latent_reason.model.backbones.families import family, load_backbone, load_pretrained, torch_dtype
from latent_reason.model.backbones.stock_config import read_stock_config
from latent_reason.model.backbones.tiny import train_tokenizer
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective

from ..config import ModelConfig, complete
from ..lit_modules import set_trainable
from ..model_setup import build_objective, check_bits, import_plugins, prepare_backbone, set_limits
from ..traces import corpus
from .simulation import without_values

MODELS = Path(__file__).with_name("models.json")
BYTES_OF_4_BITS = 0.516  # of an NF4 weight with its scales, which are quantized too (2305.14314)


def build_model(config: ModelConfig, mode: FakeTensorMode, name: str | None = None) -> tuple[LatentReasoner, Objective]:
    """(model without values, its objective) of a config. ``name`` is a backbone in place of the config's, or of its
    checkpoint's.

    Raises:
        ValueError: the sizes of the backbone are unknown here.
    """
    import_plugins(config)
    adapter = None
    if config.init_from and not name:
        backbone, adapter = build_saved_backbone(config)
        config = complete(config)
    else:
        options = getattr(config.backbone, "options", {"dtype": "float32"} if config.fsdp else {})
        backbone = build_backbone(config, name or config.backbone.name, options)
    set_limits(backbone, config)
    reasoner = methods.build_method(config.method.name, backbone, **config.method.options)
    if adapter:
        adapters.add(reasoner, **adapter)
    prepare_backbone(reasoner, config)
    backbone.model.set_attn_implementation("eager" if config.backbone.attn_implementation == "eager" else "sdpa")
    objective = build_objective(config, reasoner)
    set_trainable(reasoner, [part for part in config.trainable if part != "head" or reasoner.can_sketch])
    without_values(reasoner, mode)
    if reasoner.target is not None:
        reasoner.target.standardizer.fitted.fill_(True)
    return reasoner.train(), objective


def build_saved_backbone(config: ModelConfig) -> tuple[Backbone, dict[str, Any] | None]:
    """(backbone of a config's checkpoint, options of its adapter or None). Weights are not read, except of a folder for
    transformers and of a class outside of this library.

    Raises:
        FileNotFoundError, ValueError: as :func:`latent_reason.checkpoint.load`.
    """
    folder = checkpoint.find_checkpoint(config.init_from)
    described = checkpoint.read_config(folder)
    if described.get("layout") or described.get("backbone_class"):
        backbone = checkpoint.load(folder, device="cpu")[0].backbone
        backbone.set_latent_positions(config.backbone.latent_positions)
        return backbone, None
    own, base = folder / "backbone", described.get("base")
    if base is None:
        return build_backbone(config, str(own), {}), None
    options = {key: described[key] for key in ("dtype", "bits") if described.get(key)}
    backbone = build_backbone(config, str(own / adapters.BASE) if base == adapters.BASE else base, options, own)
    if base == adapters.BASE:
        backbone.forget_name()
    return backbone, adapter_options(own)


def adapter_options(folder: Path) -> dict[str, Any]:
    """The options of :func:`latent_reason.model.adapters.add` that a saved adapter was made with. Raises ValueError for
    settings of another adapter."""
    with reading(folder):
        saved = read_json(folder / "adapter_config.json")
        names = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "targets": "target_modules"}
        return {name: saved[key] for name, key in names.items()}


def build_backbone(config: ModelConfig, name: str, options: dict[str, Any], files: Path | None = None) -> Backbone:
    """A backbone by name whose parameters are on the meta device, except for a tiny one. ``files``: the folder of its
    tokenizer and image processor, if that is not its own."""
    options = dict(options)
    if name == "tiny" or name.startswith("tiny-"):
        if "corpus" not in options:
            options["corpus"] = corpus(config.data.with_defaults())
        return load_backbone(name, latent_positions=config.backbone.latent_positions, **options)
    if options.get("bits"):
        check_bits(config)
    known = inspect.signature(load_pretrained).parameters
    if unknown := options.keys() - known.keys():
        raise ValueError(f"backbone.options has no option {min(unknown)!r}. {did_you_mean(min(unknown), known)}")
    stock = read_stock_config(name) if Path(name).is_dir() else None
    files = files or (Path(name) if stock else None)
    sizes = {} if stock else sizes_of(name)
    kind = family(stock.model_type if stock else sizes["config"]["model_type"])
    tokenizer = (
        AutoTokenizer.from_pretrained(files, trust_remote_code=False)
        if files
        else train_tokenizer(corpus(config.data.with_defaults()), kind.layout)
    )
    if not stock:
        stock = CONFIG_MAPPING[sizes["config"]["model_type"]].from_dict(with_ids(sizes["config"], tokenizer, kind))
    dtype = options.get("dtype") or sizes.get("dtype") or stock.dtype or torch.float32
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(stock, dtype=torch_dtype(dtype), trust_remote_code=False)
    processor = kind.load_image_processor(str(files), stock) if files else image_processor(sizes)
    backbone = kind(model, tokenizer, processor, config.backbone.latent_positions, name=name, bits=options.get("bits"))
    if options.get("tiles") is not None:
        backbone.set_tiling(options["tiles"])
    return backbone


def sizes_of(name: str) -> dict[str, Any]:
    """The entry of models.json. Raises ValueError for a name without one."""
    models = json.loads(MODELS.read_text(encoding="utf-8"))["models"]
    if name not in models:
        raise ValueError(
            f"backbone {name!r}: its sizes are not known here. Give a folder with its config.json and tokenizer, or one of "
            f"{', '.join(models)}."
        )
    return models[name]


def with_ids(config: dict[str, Any], tokenizer: Any, kind: type[Backbone]) -> dict[str, Any]:
    """A stock configuration with the ids of a stand-in tokenizer."""
    marks = {"image_token_id": kind.layout.image, "video_token_id": "<|video_pad|>"}
    ids = {name: tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()}
    return config | ids | {"vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>")}


def image_processor(sizes: dict[str, Any]) -> Any:
    """The image processor of a Qwen-VL."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    vision, (least, most) = sizes["config"]["vision_config"], sizes["pixels"]
    return Qwen2VLImageProcessorPil(
        patch_size=vision["patch_size"],
        merge_size=vision["spatial_merge_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        min_pixels=least,
        max_pixels=most,
    )


def quantized_bytes(reasoner: LatentReasoner) -> int:
    """Bytes by which weights in 4 bits are smaller than the full ones of this model: those of the linear layers of the
    text model, without its adapter."""
    if not reasoner.backbone.bits:
        return 0
    layers = reasoner.backbone.text_model.named_modules()
    weights = [m.weight for name, m in layers if type(m) is torch.nn.Linear and "lora_" not in name]
    return sum(round(w.nbytes - w.numel() * BYTES_OF_4_BITS) for w in weights)

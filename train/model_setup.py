"""The model that a run starts with: loaded or built, with its adapter, its attention kernel and its trainable parts."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from typing import Any

import lightning as L
import torch
from rich.table import Table

from latent_reason import checkpoint, methods
from latent_reason.imports import import_object, is_dotted_path
from latent_reason.model import adapters, backbones
from latent_reason.model.backbones import Backbone
from latent_reason.model.backbones.attention import set_attention
from latent_reason.model.limits import InputLimits
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective, RunOptions
from latent_reason.visualization.sketch_decoder import SketchDecoder, reencode_sketches

from . import sharding
from .config import LoraConfig, ModelConfig
from .lit_modules import parameter_table, set_trainable
from .progress import console
from .traces import corpus


def prepare_model(config: ModelConfig, require_trained: bool = False) -> tuple[LatentReasoner, SketchDecoder | None]:
    """(reasoner, decoder or None) that a config starts with: from a checkpoint, or from a backbone by name. Its
    attention is still to be chosen (:func:`choose_attention`).

    Args:
        require_trained: the model must be the checkpoint's. It has trained weights for every part, and its options are
            those of the checkpoint, where the config does not set them.

    Raises:
        ValueError: the checkpoint's method, options, positions or adapter differ from the config's; weights in 4 bits
            without an adapter.
    """
    L.seed_everything(config.seed, verbose=False)
    device = _device(config.accelerator)
    if device is not None:
        torch.cuda.set_device(device)
    loaded = decoder = None
    import_plugins(config)
    if config.init_from:
        loaded, decoder = checkpoint.load(config.init_from, device="cpu")
        backbone = loaded.backbone
        _set_positions(backbone, config, require_trained)
    else:
        backbone = load_backbone(config)
    set_limits(backbone, config)
    method = config.method
    options = trained_options(loaded, config) if loaded is not None and require_trained else method.options
    reasoner = methods.build_method(method.name, backbone, **options)
    _load_trained_parts(reasoner, loaded, config, require_trained)
    prepare_backbone(reasoner, config)
    if device is not None and getattr(config, "fsdp", False):
        sharding.move_all_but_layers(reasoner, torch.device("cuda", device))
    elif device is not None:
        reasoner.cuda(device)
    return reasoner, decoder


def trained_options(loaded: LatentReasoner, config: ModelConfig) -> dict[str, Any]:
    """The options of a checkpoint's method, with those that a config changes and that training alone has.

    Raises:
        ValueError: the config names another method, or sets an option of the model otherwise.
    """
    name, given, trained = config.method.name, config.method.options, loaded.method
    if trained.name != name:
        raise ValueError(
            f"method.name={name!r}: '{config.init_from}' was trained with {trained.name!r}. Set that, with its options."
        )
    methods.check_options(name, given)
    for option in methods.model_options(name):
        if option in given and given[option] != trained.options[option]:
            raise ValueError(
                f"method.options.{option}={given[option]!r}: '{config.init_from}' was trained with "
                f"{trained.options[option]!r}. Set that, or remove the key."
            )
    return trained.options | given


def prepare_backbone(reasoner: LatentReasoner, config: ModelConfig) -> None:
    """Give a model the activation checkpointing and the adapter of a config."""
    if config.backbone.gradient_checkpointing:
        reasoner.backbone.set_gradient_checkpointing()
    if config.lora.rank and not adapters.has_adapter(reasoner, **lora_options(config.lora)):
        adapters.add(reasoner, **lora_options(config.lora))


def set_limits(backbone: Backbone, config: ModelConfig) -> None:
    """Give a backbone the limits of a config: pixels of an image, and positions of a row. Raises ValueError for a family
    that resizes images to one size."""
    data, image = config.data, config.image
    InputLimits(image.min_pixels, image.max_pixels, getattr(data, "max_length", None)).apply_to(backbone)


def import_plugins(config: ModelConfig) -> None:
    """Import the modules of a user's own package that a config names: a checkpoint may then name them, too."""
    methods.load(config.method.name)
    default = methods.schema(config.method.name).get("head")
    head = config.method.options.get("head", default and default.default)
    if isinstance(head, str) and is_dotted_path(head):
        import_object(head, "head")


def build_objective(config: ModelConfig, reasoner: LatentReasoner, decoder: SketchDecoder | None = None) -> Objective:
    """The objective of a config for its model. Raises ValueError for options the method does not support."""
    run = RunOptions(
        attention_bottleneck_prob=getattr(config.method, "attention_bottleneck_prob", 0.0),
        latent_dropout=getattr(config.method, "latent_dropout", 0.0),
        reencode=None if decoder is None else partial(reencode_sketches, decoder=decoder),
    )
    return methods.objective_of(reasoner, run)


def load_backbone(config: ModelConfig) -> Backbone:
    """The backbone that a config names. Raises ValueError for options that it cannot have."""
    options, is_tiny = dict(config.backbone.options), config.backbone.name.startswith("tiny")
    if is_tiny and "corpus" not in options:
        options["corpus"] = corpus(config.data.with_defaults())
    check_bits(config)
    return backbones.load_backbone(config.backbone.name, latent_positions=config.backbone.latent_positions, **options)


def check_bits(config: ModelConfig) -> None:
    """Raises ValueError for weights in 4 bits that cannot be trained."""
    if not config.backbone.options.get("bits"):
        return
    if config.backbone.name.startswith("tiny"):
        raise ValueError(
            "backbone.options.bits rounds pretrained weights, and those of a tiny model are random. Remove it."
        )
    if not config.lora.rank:
        raise ValueError(
            "backbone.options.bits: rounded weights cannot train, only a LoRA adapter on them can. Set lora.rank, such "
            "as 16."
        )


def choose_attention(reasoner: LatentReasoner, config: ModelConfig, objective: Objective) -> None:
    """Choose the attention kernel of a model for training with an objective, and print it. Flash attention takes no
    mask for each position."""
    packs = getattr(config.data, "packing_length", 0) > 0
    packs_unrolled = packs and reasoner.can_sketch and objective.unrolls_latents
    needs_mask = objective.needs_attention_mask or packs_unrolled
    choice = set_attention(reasoner.backbone, config.backbone.attn_implementation, needs_mask=needs_mask)
    console.print(f"attention: {choice.name} ({choice.reason})")


def load_compatible_weights(reasoner, loaded) -> set[str]:
    """Copy the weights of a checkpoint of the same method; head and target each as a whole or not at all, because half
    of a set of statistics would be wrong.

    Returns:
        The parts whose kind or shapes differ, which start from random weights.
    """
    if loaded.target is not None:  # room for as many means as it has
        reasoner.reserve_statistics(loaded.target.standardizer.stored_means)
    reasoner.reserve_gain(loaded.feedback)
    old, new = ({n: t for n, t in r.state_dict().items() if not n.startswith("backbone.")} for r in (loaded, reasoner))
    differ = {n.partition(".")[0] for n in old.keys() ^ new.keys()}
    differ |= {n.partition(".")[0] for n in old.keys() & new.keys() if old[n].shape != new[n].shape}
    before, now = (r.method.options for r in (loaded, reasoner))
    if any(before.get(name) != now.get(name) for name in ("head", "head_options")):
        differ.add("head")  # a head of another kind may have weights of the same shapes
    reasoner.load_state_dict({n: t for n, t in old.items() if n.partition(".")[0] not in differ}, strict=False)
    return differ & {n.partition(".")[0] for n in new}


def freeze_all_but(reasoner, parts: list[str]) -> None:
    """Train these parts only (a head only where the method has one), and print a table of what trains."""
    set_trainable(reasoner, [part for part in parts if part != "head" or reasoner.can_sketch])
    table = Table(title=f"{reasoner.method.name}: trainable parts")
    for title in ("part", "parameters", "trainable"):
        table.add_column(title, justify="left" if title == "part" else "right")
    for part, total, trainable in parameter_table(reasoner):
        table.add_row(part, f"{total:,}", f"{trainable:,}")
    console.print(table)


def lora_options(lora: LoraConfig) -> dict:
    """The adapter's options as the library names them."""
    options = asdict(lora)
    return options | {"targets": options.pop("target_modules")}


def _device(accelerator: str) -> int | None:
    """The GPU of this process; None where the run is not on one."""
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return int(os.environ.get("LOCAL_RANK", 0))
    return None


def _set_positions(backbone, config: ModelConfig, require_trained: bool) -> None:
    positions, trained = config.backbone.latent_positions, backbone.latent_positions
    if require_trained and trained != positions:
        raise ValueError(
            f"backbone.latent_positions={config.backbone.latent_positions!r}: '{config.init_from}' was trained with "
            f"{trained!r}. Set that."
        )
    backbone.set_latent_positions(positions)


def _load_trained_parts(reasoner, loaded, config: ModelConfig, require_trained: bool) -> None:
    """Copy what a checkpoint of the same method has; print what starts from random weights, or refuse it."""
    same_method = loaded is not None and loaded.method.name == reasoner.method.name
    differ = load_compatible_weights(reasoner, loaded) if same_method else set()
    if require_trained and differ:
        raise ValueError(
            f"method.options: '{config.init_from}' was trained with {loaded.method.options}, so its "
            f"{' and '.join(sorted(differ))} would start from random weights. Set those options."
        )
    if differ:
        console.print(f"Starts from random weights, because kind or size differ: {', '.join(sorted(differ))}")

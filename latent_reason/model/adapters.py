"""LoRA on a stock language model through peft (2106.09685), with the control tokens as trained rows beside it.

peft works in place: its layers are inside the backbone's own model, so every call of the backbone goes through them.
A checkpoint with an adapter holds the adapter, the heads and the name of its base. A base without a name is written
beside it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ..errors import pip_install
from .adapter_config import LINEAR, check_adapter_config, check_pattern
from .backbones.base import Backbone
from .reasoner import LatentReasoner
from .weight_files import read_header

BASE = "base"  # where a base without a name is written, in the folder of its adapter


@contextmanager
def _peft() -> Iterator:
    try:
        import peft
    except ImportError as error:
        raise ValueError(f"LoRA needs peft. Install it with: {pip_install('peft')}") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated")  # between peft and transformers
        yield peft


def add(
    reasoner: LatentReasoner, *, rank: int = 16, alpha: int = 32, dropout: float = 0.0, targets: str = LINEAR
) -> None:
    """Add a new adapter of this rank to the modules whose full names match ``targets``, and train the rows of the three
    control tokens in both embedding tables. Everything else of the stock model is frozen.

    Raises:
        ValueError: peft is missing, there is an adapter already, nothing matches, or matching may take for ever.
    """
    check_pattern(targets)
    backbone, v = reasoner.backbone, reasoner.vocabulary
    if backbone.adapter is not None:
        raise ValueError(
            "the model already has an adapter. Remove lora.rank to continue training it, or merge it first "
            "(latent_reason.model.adapters.merge)."
        )
    rows = [v.open, v.latent, v.close]
    tied = backbone.model.get_input_embeddings().weight is backbone.model.get_output_embeddings().weight
    with _peft() as peft:
        backbone.set_adapter(
            peft.get_peft_model(
                backbone.model,
                peft.LoraConfig(
                    r=rank,
                    lora_alpha=alpha,
                    lora_dropout=dropout,
                    target_modules=targets,
                    trainable_token_indices={"embed_tokens": rows} if tied else {"embed_tokens": rows, "lm_head": rows},
                ),
            )
        )


def has_adapter(reasoner: LatentReasoner, *, rank: int, alpha: int, dropout: float, targets: str) -> bool:
    """Whether the model already has the adapter that the arguments describe.

    Raises:
        ValueError: it has a different one.
    """
    if reasoner.backbone.adapter is None:
        return False
    has = reasoner.backbone.adapter.peft_config["default"]
    if (has.r, has.lora_alpha, has.target_modules) != (rank, alpha, targets):
        raise ValueError(
            f"the model already has an adapter of rank {has.r}, alpha {has.lora_alpha} on {has.target_modules!r}. "
            "Remove lora.rank to continue training it, or merge it first (latent_reason.model.adapters.merge)."
        )
    return True


def merge(reasoner: LatentReasoner) -> None:
    """Merge the adapter into the full weights: the same model, without peft.

    Raises:
        ValueError: the base weights are quantized, so the merged weights would be quantized as well.
    """
    if reasoner.backbone.bits:
        raise ValueError(
            f"an adapter cannot be merged into weights of {reasoner.backbone.bits} bits. Load the checkpoint on its "
            f'full base: remove "bits" from latent_reason.json, then merge.'
        )
    if reasoner.backbone.adapter is not None:
        reasoner.backbone.adapter.merge_and_unload()
        reasoner.backbone.set_adapter(None)


def save(backbone: Backbone, folder: Path, weights: dict[str, Tensor]) -> str:
    """Write the adapter from the weights of the stock model into a folder. Returns where its base is: a name, or BASE
    in that folder."""
    with _peft():
        backbone.adapter.save_pretrained(
            folder,
            save_embedding_layers=False,
            state_dict={f"base_model.model.{name}": value for name, value in weights.items()},
        )
    (folder / "README.md").unlink()  # peft's empty card
    if backbone.name is not None:
        return backbone.name
    bare = {
        re.sub(r"(\.token_adapter)?\.base_layer\.", ".", name): value
        for name, value in weights.items()
        if not re.search(r"lora_|trainable_tokens_", name)
    }
    backbone.model.save_pretrained(folder / BASE, state_dict=bare)
    backbone.tokenizer.save_pretrained(folder / BASE)
    backbone.image_processor.save_pretrained(folder / BASE)
    return BASE


def load(reasoner: LatentReasoner, folder: Path) -> None:
    """Load a saved adapter onto its base.

    Raises:
        FileNotFoundError, ValueError: weights of it are missing (peft would leave them random) or left over, or its
            settings are not those of an adapter of this library.
    """
    stored = read_header(folder / "adapter_model.safetensors")
    with _peft() as peft:
        check_adapter_config(folder, peft.LoraConfig().to_dict(), stored)
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # the error below says it
        reasoner.backbone.set_adapter(peft.PeftModel.from_pretrained(reasoner.backbone.model, folder))
        wanted = set(peft.get_peft_model_state_dict(reasoner.backbone.adapter, save_embedding_layers=False))
    if wrong := sorted(wanted ^ stored.keys()):
        raise ValueError(f"{len(wrong)} weights of the adapter are missing or left over, the first is {wrong[0]}")

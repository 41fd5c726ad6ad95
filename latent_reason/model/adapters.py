"""LoRA on a stock language model through peft (2106.09685), with the control tokens as trained rows beside it.

peft works in place: its layers stand inside the backbone's own model, so every call of the backbone goes through them.
A checkpoint with an adapter holds the adapter, the heads and the name of the base it was trained on; a base that was
made on the spot, and so has no name, is written beside it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from ..errors import pip_install

LINEAR = r".*\.(language|text)_model\..*\.(q|k|v|o|gate|up|down)_proj"  # every linear map of the text model
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


def add(reasoner, *, rank: int = 16, alpha: int = 32, dropout: float = 0.0, targets: str = LINEAR) -> None:
    """Put a fresh adapter of this rank on the modules whose whole names match ``targets``, and train the rows of the
    three control tokens, going in and coming out; all else of the stock model is frozen.

    Raises:
        ValueError: peft is missing, there is an adapter already, or nothing matches.
    """
    backbone, v = reasoner.backbone, reasoner.vocabulary
    if backbone.adapter is not None:
        raise ValueError(
            "the model has an adapter already. Leave lora.rank out to go on training that, or merge it "
            "first (latent_reason.model.adapters.merge)."
        )
    rows = [v.open, v.latent, v.close]
    tied = backbone.model.get_input_embeddings().weight is backbone.model.get_output_embeddings().weight
    with _peft() as peft:
        _hold(
            backbone,
            peft.get_peft_model(
                backbone.model,
                peft.LoraConfig(
                    r=rank,
                    lora_alpha=alpha,
                    lora_dropout=dropout,
                    target_modules=targets,
                    trainable_token_indices={"embed_tokens": rows} if tied else {"embed_tokens": rows, "lm_head": rows},
                ),
            ),
        )


def goes_on(reasoner, *, rank: int, alpha: int, dropout: float, targets: str) -> bool:
    """Whether the model has the adapter that is asked for, to be trained on.

    Raises:
        ValueError: it has another.
    """
    if reasoner.backbone.adapter is None:
        return False
    has = reasoner.backbone.adapter.peft_config["default"]
    if (has.r, has.lora_alpha, has.target_modules) != (rank, alpha, targets):
        raise ValueError(
            f"the model has an adapter of rank {has.r}, alpha {has.lora_alpha} on {has.target_modules!r} "
            "already. Leave lora.rank out to go on training that, or merge it first "
            "(latent_reason.model.adapters.merge)."
        )
    return True


def merge(reasoner) -> None:
    """Fold the adapter into full weights: the same model, without peft.

    Raises:
        ValueError: the weights below it are rounded, so the sum would be as well.
    """
    if reasoner.backbone.bits:
        raise ValueError(
            f"weights rounded to {reasoner.backbone.bits} bits take no adapter up. Load the checkpoint on "
            f'its base as it is: remove "bits" from latent_reason.json, then merge.'
        )
    if reasoner.backbone.adapter is not None:
        reasoner.backbone.adapter.merge_and_unload()
        _hold(reasoner.backbone, None)


def save(backbone, folder: Path, weights: dict[str, Tensor]) -> str:
    """Write the adapter, out of the weights of the stock model it stands in, into a folder. What comes back is where
    its base is: a name, or BASE in that folder."""
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


def load(reasoner, folder: Path) -> None:
    """Put a saved adapter on its base.

    Raises:
        ValueError: weights of it are missing, which peft would leave random, or left over.
    """
    with _peft() as peft:
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # said below
        _hold(reasoner.backbone, peft.PeftModel.from_pretrained(reasoner.backbone.model, folder))
        wanted = set(peft.get_peft_model_state_dict(reasoner.backbone.adapter, save_embedding_layers=False))
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        wrong = sorted(wanted ^ set(file.keys()))
    if wrong:
        raise ValueError(f"{len(wrong)} weights of the adapter are missing or left over, the first is {wrong[0]}")


def _hold(backbone, adapter: nn.Module | None) -> None:
    """Keep peft's handle outside the module tree, where it would name every parameter a second time."""
    object.__setattr__(backbone, "adapter", adapter)

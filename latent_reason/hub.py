"""A checkpoint is a folder of safetensors and JSON that says everything: save it, load it, export it.

    latent_reason.json         method with all options, control tokens, format version
    backbone/                  the stock model, its tokenizer and picture processor, as transformers writes them
    reasoner.safetensors       head, target statistics: everything that is not the backbone
    decoder/                   sketch decoder, as diffusers writes it (optional)

Nothing here unpickles.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from . import __version__, methods
from .backbones import load as load_backbone
from .files import atomic_folder
from .reasoner import LatentReasoner

FORMAT = 1
CARD = "latent_reason.json"


def save(reasoner: LatentReasoner, folder: str | Path, *, decoder=None, notes: dict | None = None) -> Path:
    """Write a whole checkpoint. All or nothing: it is written beside its place and renamed.

    Raises:
        FileExistsError: the folder exists and is not empty.
        OSError: the disk is full; nothing is left behind.
    """
    with atomic_folder(folder) as new:
        (new / "backbone").mkdir()
        backbone = reasoner.backbone
        backbone.model.save_pretrained(new / "backbone")
        backbone.tokenizer.save_pretrained(new / "backbone")
        backbone.image_processor.save_pretrained(new / "backbone")
        own = {n: t.detach().cpu().contiguous() for n, t in reasoner.state_dict().items()
               if not n.startswith("backbone.")}
        save_file(own, new / "reasoner.safetensors", metadata={"format": "pt"})
        if decoder is not None:
            decoder.save_pretrained(new / "decoder")
        v = reasoner.vocabulary
        card = {"format": FORMAT, "written_by": f"latent_reason {__version__}", "method": reasoner.recipe["method"],
                "options": reasoner.recipe["options"], "positions": backbone.positions, "decoder": decoder is not None,
                "control_tokens": {"open": [v.roles.open, v.open], "latent": [v.roles.latent, v.latent],
                                   "close": [v.roles.close, v.close]}, "notes": notes if notes is not None else reasoner.recipe.get("notes", {})}
        (new / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def resolve(folder: str | Path) -> Path:
    """A run folder stands for the checkpoint in it."""
    folder = Path(folder)
    return folder / "model" if not (folder / CARD).is_file() and (folder / "model" / CARD).is_file() else folder


def read_card(folder: str | Path) -> dict:
    """The checkpoint's own description.

    Raises:
        FileNotFoundError: not a checkpoint folder, or a part of it is missing; names the part.
        ValueError: written in another format.
    """
    folder = resolve(folder)
    if not (folder / CARD).is_file():
        inner = sorted(p.parent.name for p in folder.glob(f"*/{CARD}")) if folder.is_dir() else []
        hint = f" Did you mean '{folder / inner[0]}'?" if inner else " Train one with: bash train/quickstart.sh"
        raise FileNotFoundError(f"'{folder}' is not a checkpoint: it has no {CARD}.{hint}")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{folder / CARD}' is not readable JSON ({error}). Copy the checkpoint again.") from error
    if card.get("format") != FORMAT:
        raise ValueError(f"'{folder}' has checkpoint format {card.get('format')}, this version reads {FORMAT} "
                         f"(it was written by {card.get('written_by', 'an unknown version')}). "
                         "Use that version, or export it again.")
    parts = ["backbone/config.json", "backbone/tokenizer.json", "backbone/preprocessor_config.json",
             "reasoner.safetensors"] + (["decoder/config.json"] if card["decoder"] else [])
    for part in parts:
        if not (folder / part).is_file():
            raise FileNotFoundError(f"'{folder}' is incomplete: {part} is missing. Copy the checkpoint again.")
    if not any((folder / "backbone").glob("*.safetensors")):
        raise FileNotFoundError(f"'{folder}' is incomplete: backbone/ has no .safetensors. Copy the checkpoint again.")
    return card


def load(folder: str | Path, *, device: str | torch.device | None = None, attn: str = "sdpa"):
    """A checkpoint folder -> (reasoner, decoder or None), in eval mode.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_card`; also where weights or control tokens do not fit.
    """
    folder = resolve(folder)
    card = read_card(folder)
    backbone = load_backbone(str(folder / "backbone"), positions=card["positions"], attn=attn)
    reasoner = methods.build(card["method"], backbone, **card["options"])
    reasoner.recipe["notes"] = card.get("notes", {})
    for role, (token, number) in card["control_tokens"].items():
        found = getattr(reasoner.vocabulary, role)
        if found != number:
            raise ValueError(f"'{folder}': control token {token!r} has id {found} in backbone/tokenizer.json but "
                             f"{number} in {CARD}. The tokenizer was changed; copy the checkpoint again.")
    own = load_file(folder / "reasoner.safetensors")
    missing, unexpected = reasoner.load_state_dict(own, strict=False)
    missing = [m for m in missing if not m.startswith("backbone.")]
    if missing or unexpected:
        raise ValueError(f"'{folder}/reasoner.safetensors' does not fit method {card['method']!r}: missing "
                         f"{missing[:3]}, left over {list(unexpected)[:3]}. Was {CARD} edited?")
    decoder = None
    if card["decoder"]:
        from .rendering import SketchDecoder

        decoder = SketchDecoder.from_pretrained(folder / "decoder").eval()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return reasoner.to(device).eval(), None if decoder is None else decoder.to(device)

"""A checkpoint is a folder of safetensors and JSON that says everything: save it, load it, export it.

    latent_reason.json         method with all options, control tokens, format version
    backbone/                  the stock model, its tokenizer and picture processor, as transformers writes them; or a
                               LoRA adapter as peft writes it, for the base the card names (adapters.py)
    reasoner.safetensors       head, target statistics: everything that is not the backbone
    decoder/                   sketch decoder, as diffusers writes it (optional)

An exported checkpoint (publishing/) has its model at the top instead, as AutoModel loads it; or its adapter, beside
``reasoner.safetensors``. Its card says which as ``layout``. Nothing here unpickles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from .. import __version__, methods
from ..errors import did_you_mean, find_checkout
from ..files import atomic_folder
from ..imports import UntrustedCode, restrict_imports
from ..model import adapters
from ..model.backbones import load as load_backbone
from ..model.backbones import no_bars
from ..model.backbones.attention import settle
from ..model.reasoner import LatentReasoner
from ..model.tokenization import Vocabulary

FORMAT = 1
CARD = "latent_reason.json"
KEYS = {"format", "method", "options", "positions", "decoder", "control_tokens"}


def save(
    reasoner: LatentReasoner,
    folder: str | Path,
    *,
    decoder=None,
    notes: dict | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a whole checkpoint. All or nothing: it is written beside its place and renamed. ``weights``, by the names
    of the reasoner's ``state_dict``, stand for those it holds, as where they are split among processes.

    Raises:
        FileExistsError: the folder exists and is not empty.
        ValueError: the backbone's weights are rounded and it has no adapter.
        OSError: the disk is full; nothing is left behind.
    """
    backbone = reasoner.backbone
    if backbone.bits and backbone.adapter is None:
        raise ValueError(
            f"weights rounded to {backbone.bits} bits are no checkpoint. Save them with the adapter that "
            "was trained on them."
        )
    with atomic_folder(folder) as new, no_bars():
        (new / "backbone").mkdir()
        base, weights = None, reasoner.state_dict() if weights is None else weights
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
            decoder.register_to_config(_name_or_path="")  # else diffusers writes the folder it was loaded from
            decoder.save_pretrained(new / "decoder")
        written = {p.relative_to(new).as_posix(): p.stat().st_size for p in sorted(new.rglob("*")) if p.is_file()}
        card = {
            "format": FORMAT,
            "written_by": f"latent_reason {__version__}",
            "method": reasoner.recipe["method"],
            "options": reasoner.recipe["options"],
            "positions": backbone.positions,
            "decoder": decoder is not None,
            "base": base,
            "bits": backbone.bits,
            "dtype": str(backbone.model.dtype).removeprefix("torch."),
            "control_tokens": reasoner.vocabulary.control_tokens,
            "files": written,
            "notes": reasoner.recipe.get("notes", {}) if notes is None else notes,
        }
        (new / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return Path(folder)


def resolve(folder: str | Path) -> Path:
    """A run folder stands for the checkpoint in it."""
    folder = Path(folder)
    return folder / "model" if not (folder / CARD).is_file() and (folder / "model" / CARD).is_file() else folder


def read_card(folder: str | Path, whole: bool = True) -> dict:
    """The checkpoint's own description; ``whole`` looks whether all files it names are there, too.

    Raises:
        FileNotFoundError: not a checkpoint folder, or a part of it is missing; names the part.
        ValueError: written in another format.
    """
    folder = resolve(folder)
    if not (folder / CARD).is_file():
        what = f"it has no {CARD}" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"'{folder}' is not a checkpoint: {what}. {_nearby(folder)}")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{folder / CARD}' is not readable JSON ({error}). Copy the checkpoint again.") from error
    if not isinstance(card, dict) or (card.get("format") == FORMAT and KEYS - card.keys()):
        lacking = ", ".join(sorted(KEYS - set(card)))
        raise ValueError(f"'{folder / CARD}' does not describe a checkpoint: it lacks {lacking}. Copy it again.")
    if card.get("format") != FORMAT:
        raise ValueError(
            f"'{folder}' has checkpoint format {card.get('format')}, this version reads {FORMAT} "
            f"(it was written by {card.get('written_by', 'an unknown version')}). "
            "Use that version, or export it again."
        )
    if not isinstance(getattr(torch, str(card.get("dtype", "float32")), None), torch.dtype):
        raise ValueError(
            f"'{folder / CARD}' names dtype {str(card['dtype'])[:40]!r}, which torch has not. Copy it again."
        )
    for part, size in card.get("files", {}).items() if whole else ():
        if not (folder / part).is_file():
            raise FileNotFoundError(f"'{folder}' is incomplete: {part} is missing. Copy the checkpoint again.")
        found = (folder / part).stat().st_size
        if part.endswith(".safetensors") and found != size:
            raise ValueError(
                f"'{folder}' is incomplete: {part} has {found:,} bytes instead of {size:,}. Copy the checkpoint again."
            )
    return card


def _nearby(folder: Path) -> str:
    """Which checkpoint was meant: one inside the folder, else the one of the nearest name around it."""
    inner = sorted(p.parent for p in folder.glob(f"*/{CARD}"))
    around = {
        p
        for place in (folder.parent, Path("checkpoints"))
        if place.is_dir()
        for p in place.iterdir()
        if (resolve(p) / CARD).is_file()
    }
    if inner:
        return f"Did you mean '{inner[0]}'?"
    if around:
        return did_you_mean(str(folder), map(str, around))
    return "Train one with: bash train/quickstart.sh" if find_checkout() else "Name the folder of a checkpoint."


@contextmanager
def _reading(part: Path) -> Iterator[None]:
    """Says what a library finds wrong with a part of a checkpoint with the part's name and what to do."""
    try:
        yield
    except UntrustedCode:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"'{part}' cannot be read ({type(error).__name__}: {reason[:200]}). Copy the checkpoint again."
        ) from error


def load(
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    attn: str = "auto",
    allow_imports: bool = False,
):
    """A checkpoint folder -> (reasoner, decoder or None), in eval mode. ``allow_imports`` imports the modules outside
    of this library that it names; without, they have to be imported before (:mod:`latent_reason.imports`).

    Raises:
        UntrustedCode: it names a module that nobody said is trusted.
        FileNotFoundError, ValueError: see :func:`read_card`; also where weights or control tokens do not fit, or
            ``attn`` cannot be used.
    """
    folder = resolve(folder)
    card = read_card(folder)
    _check_indices(folder)
    with restrict_imports(folder, allow_imports):
        reasoner, decoder = _whole(folder, card) if card.get("layout") == "model" else _parts(folder, card)
    reasoner.recipe["notes"] = card.get("notes", {})
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    settle(reasoner.to(device).backbone, attn, masks=reasoner.masks)
    return reasoner.eval(), None if decoder is None else decoder.to(device)


def _check_indices(folder: Path) -> None:
    """Raises ValueError where an index names weights that are not beside it, or that are no safetensors."""
    for index in folder.rglob("*.index.json"):
        with _reading(index):
            found = json.loads(index.read_text(encoding="utf-8"))
            named = found.get("weight_map") if isinstance(found, dict) else None
            if not isinstance(named, dict):
                raise ValueError("it has no weight_map")
            for name in named.values():
                if Path(str(name)).name != name:
                    raise ValueError(f"it names weights outside of it: {name!r}")
                if not name.endswith(".safetensors"):
                    raise ValueError(f"it names weights that are no safetensors: {name!r}")


def _whole(folder: Path, card: dict):
    """(reasoner, decoder) of a folder that transformers can load."""
    from .hf.auto_model import LatentReasonForConditionalGeneration

    with _reading(folder), no_bars():
        model, info = LatentReasonForConditionalGeneration.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True
        )
    if wrong := sorted([*info["missing_keys"], *info["unexpected_keys"]]):
        raise ValueError(
            f"'{folder}' does not hold the weights of method {card['method']!r}: {wrong[0]} is missing or "
            f"left over, one of {len(wrong)}. Copy the checkpoint again."
        )
    return model.reasoner, model.decoder


def _parts(folder: Path, card: dict):
    """(reasoner, decoder) of a folder whose parts are apart."""
    backbone, weights = _backbone(folder, card), folder / "reasoner.safetensors"
    problem = f"'{weights}' does not fit method {card['method']!r} of {CARD}"
    backbone.grow(Vocabulary(backbone.tokenizer, backbone.layout))
    with _planned() as planned:  # sizes first: a card may ask for any
        planned.append(methods.build(card["method"], backbone, **card["options"]))
    with _reading(weights):
        there = _shapes(weights)
    for one in planned:
        _same(there, _own(one), problem)
    reasoner = methods.build(card["method"], backbone, **card["options"])
    for role, (token, number) in card["control_tokens"].items():
        found = getattr(reasoner.vocabulary, role)
        if found != number:
            raise ValueError(
                f"'{folder}': control token {token!r} has id {found} in its tokenizer.json but "
                f"{number} in {CARD}. The tokenizer was changed; copy the checkpoint again."
            )
    if card.get("base"):
        with _reading(stock(folder, card)):
            adapters.load(reasoner, stock(folder, card))
    _same(there, _own(reasoner), problem)
    with _reading(weights):
        reasoner.load_state_dict(load_file(weights), strict=False)
    decoder = None
    if card["decoder"]:
        from ..visualization.sketch_decoder import SketchDecoder

        with _reading(folder / "decoder"):
            with _planned() as planned:
                planned.append(SketchDecoder.from_config(SketchDecoder.load_config(folder / "decoder")))
            for one in planned:
                _same(
                    _shapes(folder / "decoder" / "diffusion_pytorch_model.safetensors"),
                    {name: tuple(value.shape) for name, value in one.state_dict().items()},
                    "its sizes differ",
                )
            decoder = SketchDecoder.from_pretrained(
                folder / "decoder", use_safetensors=True, low_cpu_mem_usage=False
            ).eval()  # True needs accelerate
    return reasoner, decoder


def stock(folder: Path, card: dict) -> Path:
    """Where tokenizer, picture processor and stock model (or adapter) of a checkpoint are."""
    return folder if card.get("layout") else folder / "backbone"


def _backbone(folder: Path, card: dict):
    """The stock model of a checkpoint; of one that holds an adapter, its base."""
    base = card.get("base")
    if base in (None, adapters.BASE):
        with _reading(folder / "backbone"), no_bars():
            backbone = load_backbone(str(folder / "backbone" / (base or "")), positions=card["positions"])
        if base:
            backbone.name = None  # it belongs to this checkpoint alone
        return backbone
    try:
        options = {"bits": card["bits"]} if card.get("bits") else {}
        if card.get("dtype"):  # cards written before it was kept have none
            options["dtype"] = getattr(torch, card["dtype"])
        backbone = load_backbone(base, positions=card["positions"], **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{folder}' holds an adapter of '{base}', which cannot be loaded: {error} Or write where it "
            f'is as "base" in {folder / CARD}.'
        ) from error
    with _reading(stock(folder, card)):  # how pictures were taken in training may differ from how the base takes them
        backbone.image_processor = backbone.processor(str(stock(folder, card)), backbone.model.config)
    return backbone


@contextmanager
def _planned() -> Iterator[list]:
    """Modules are made without memory for their weights; none where a part is one of others, which has to be read."""
    made: list = []
    try:
        with torch.device("meta"):
            yield made
    except RuntimeError:  # what transformers says to reading weights there
        made.clear()


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """What a file of safetensors holds, by its header alone."""
    with safe_open(file, "pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}


def _own(reasoner: LatentReasoner) -> dict[str, tuple[int, ...]]:
    """Everything that is not the backbone."""
    return {n: tuple(t.shape) for n, t in reasoner.state_dict().items() if not n.startswith("backbone.")}


def _same(there: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]], problem: str) -> None:
    """Raises ValueError, with ``problem``, for what does not fit."""
    wrong = (
        [f"{n} is missing" for n in wanted.keys() - there.keys()]
        + [f"{n} is left over" for n in there.keys() - wanted.keys()]
        + [f"{n} is {there[n]} instead of {wanted[n]}" for n in wanted.keys() & there.keys() if there[n] != wanted[n]]
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{problem}: {', '.join(sorted(wrong)[:3])}{more}. Copy both again, from one checkpoint.")

"""Export: a checkpoint as a folder that anybody can load, with a model card.

    config.json, *.py                     the model for AutoModel(trust_remote_code=True); code is this library's own
    custom_generate/generate.py           model.generate(custom_generate=FOLDER, trust_remote_code=True)
    model.safetensors                     all weights once (in several files with an index, where they are large)
    tokenizer, processors, chat template, generation_config.json
    decoder/                              the sketch decoder, as diffusers writes it
    probe.safetensors                     a batch and the model's outputs for it
    README.md, LICENSE, LICENSE-base, requirements.txt  and the figures and recipes that lie in the run's folder
    latent_reason.json                    what ``latent_reason.load`` reads

A checkpoint with a LoRA has ``adapter_model.safetensors`` and ``reasoner.safetensors`` in place of model and code.
"""

from __future__ import annotations

import json
import re
import shutil
from itertools import islice
from pathlib import Path

import torch
from PIL import Image as PILImage
from safetensors.torch import save_file

from ... import __version__, checkpoint, methods, tasks
from ...data import native
from ...decoding.engine import generate
from ...files import atomic_folder, atomic_write_json
from ...folders import check_file
from ...imports import is_dotted_path
from ...model import adapters
from ...model.limits import NOTE, InputLimits
from ...visualization.storyboard import DecodedTrace, draw_storyboard
from .. import model_card, parts
from ..config_file import CONFIG_FILE, FORMAT
from ..hf import parity
from ..training_data import TrainingData, make_task
from . import bundle, license

EXTRAS = (
    "eval.json",
    "eval-larger.json",
    "probe.json",
    "controls",
    "sketches.png",
    "recipe.yaml",
    "recipe-pretrain.yaml",
)
PLACE = re.compile(r"(?<![\w.:/~-])(?:/[\w.+~-]+){2,}/?|\b[A-Z]:\\[\w\\.-]+")  # an absolute path
EXAMPLE, SKETCHES = "example.png", "sketches.png"
SHOWN, ROOM = 3, 400  # items with sketches on a card, and the positions an answer to them may take


def export(
    run: str | Path,
    folder: str | Path,
    *,
    merge_lora: bool = False,
    max_shard_size: str = "5GB",
    records: bool = False,
    limits: InputLimits | None = None,
) -> Path:
    """Write the checkpoint of a run, with all that is known of it, into a new folder. Where the run holds no
    ``sketches.png``, some are drawn: on items of the task it was trained on, or, if they may be shown (``records``), on
    the records. ``limits`` of pixels and positions take the place of those of the run.

    Raises:
        FileNotFoundError, ValueError: the run holds no whole checkpoint, no adapter to merge, or one whose base has no
            name.
        FileExistsError: the folder exists and is not empty.
    """
    run = Path(run)
    source = checkpoint.find_checkpoint(run)
    known = checkpoint.read_config(source)
    if any(is_dotted_path(str(name)) for name in (known["method"], known["options"].get("head", ""))):
        raise ValueError(
            f"'{run}' uses code of your own package (method {known['method']}), which an export cannot hold: its code is "
            "that of latent_reason. Publish your package, and share the checkpoint folder as it is; "
            "latent_reason.load(folder, allow_imports=True) reads it."
        )
    with atomic_folder(folder) as new:
        reasoner, decoder = checkpoint.load(source, device="cpu")
        if limits is not None:
            limits.apply_to(reasoner.backbone)
            known["notes"] = known.get("notes", {}) | {NOTE: InputLimits.of(reasoner.backbone).to_json()}
        if merge_lora and reasoner.backbone.adapter is None:
            raise ValueError(f"'{run}' has no adapter to merge. Leave --merge-lora out.")
        if merge_lora:
            adapters.merge(reasoner)
        model = model_of(reasoner, decoder)
        if reasoner.backbone.adapter:
            write_adapter(model, new, run)
        else:
            write_model(model, new, max_shard_size)
        parity.write(model, new, merged=merged_logits(source) if reasoner.backbone.adapter else None)
        for name, generated in bundle.generated_files(reasoner).items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(generated, encoding="utf-8")
        copy_extras(run, new)
        described = describe(reasoner, known, decoder is not None, max_shard_size)
        if text := licence_text(source, known):
            shutil.copyfile(text, new / "LICENSE-base")
        if not (new / SKETCHES).exists() and (sheet := sketched(described, model, records)):
            sheet.save(new / SKETCHES)
        question = example(described, model, new / EXAMPLE)
        (new / "README.md").write_text(model_card.model_card(described, new, question), encoding="utf-8")
        write_card(new, described)
    return Path(folder)


def model_of(reasoner, decoder):
    from ..hf.auto_model import LatentReasonForConditionalGeneration

    return LatentReasonForConditionalGeneration.from_reasoner(reasoner, decoder, bundle.AUTO_MAP)


def write_model(model, folder: Path, max_shard_size: str) -> None:
    """Weights and configuration."""
    from ...model.backbones import no_progress_bars

    with no_progress_bars():
        model.save_pretrained(folder, max_shard_size=max_shard_size)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors lets nobody else read them


def write_adapter(model, folder: Path, run: Path) -> None:
    """Adapter and heads."""
    reasoner = model.reasoner
    if reasoner.backbone.name is None:
        raise ValueError(
            f"the adapter of '{run}' stands on a base that was made on the spot and has no name others "
            "could load it by. Export it with --merge-lora."
        )
    adapters.save(reasoner.backbone, folder, reasoner.backbone.model.state_dict())
    own = {
        name: value.detach().cpu().contiguous()
        for name, value in reasoner.state_dict().items()
        if not name.startswith("backbone.")
    }
    save_file(own, folder / "reasoner.safetensors", metadata={"format": "pt"})
    model.save_companions(folder)


def merged_logits(source: Path) -> torch.Tensor | None:
    """What the probe's logits are when the adapter of a checkpoint is folded in; None over rounded weights."""
    reasoner, _ = checkpoint.load(source, device="cpu")
    if reasoner.backbone.bits:
        return None
    adapters.merge(reasoner)
    model = model_of(reasoner, None)
    return parity.outputs(model, parity.prompt(model), seed=0)["logits"]


def describe(reasoner, known: dict, decoder: bool, max_shard_size: str) -> dict:
    """``latent_reason.json`` but for the list of files."""
    backbone = reasoner.backbone
    adapter, base = backbone.adapter is not None, known.get("base")
    return {
        "format": FORMAT,
        "layout": "adapter" if adapter else "model",
        "written_by": f"latent_reason {__version__}",
        **parts.describe(reasoner),
        "latent_positions": backbone.latent_positions,
        "decoder": decoder,
        "base": base if adapter else None,
        "merged": without_places(base) if base and not adapter else None,
        "bits": backbone.bits,
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "max_shard_size": max_shard_size,
        "licence": known.get("licence") or license.of(model_card.base_of(known)),
        "control_tokens": reasoner.vocabulary.control_tokens,
        "notes": json.loads(without_places(json.dumps(known.get("notes", {})))),
    }


def licence_text(source: Path, known: dict) -> Path | None:
    """The licence of what a checkpoint began with: beside it where it was exported before, else beside its base."""
    beside = source / "LICENSE-base"
    return beside if beside.is_file() else license.text(model_card.base_of(known))


def write_card(folder: Path, described: dict) -> None:
    """``latent_reason.json``, with the size of every file beside it that loading needs."""
    needed = [
        p
        for pattern in ("*.safetensors", "*config.json", "*.index.json", "tokenizer*", "decoder/*")
        for p in sorted(folder.glob(pattern))
    ]
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in dict.fromkeys(needed) if p.name != parity.FILE}
    atomic_write_json(folder / CONFIG_FILE, described | {"files": sizes})


def example(described: dict, model, file: Path) -> str:
    """Save a picture to try the model on; what is to be asked about it."""
    if TrainingData.of(described["notes"]).task not in tasks.names():
        PILImage.new("RGB", (4 * model.reasoner.backbone.pixels_per_token,) * 2, "white").save(file)
        return "What does the picture show?"
    item = make_task(described["notes"], file.parent, split="test", options={})[0]
    item.images[0].save(file)
    return item.question


def sketched(described: dict, model, records: bool) -> PILImage.Image | None:
    """What the model draws on a few test items; None where that cannot be seen, or may not be shown."""
    reasoner, data = model.reasoner, TrainingData.of(described["notes"])
    if model.decoder is None or not reasoner.is_renderable:
        return None
    if data.folder:
        if not records:
            return None
        traces = list(islice((t for t in native.read(data.folder) if t.split == "test" and t.images()), SHOWN))
    elif data.task in tasks.names():
        task = make_task(described["notes"], described["method"], split="test")
        mode = methods.load(described["method"]).MODE
        traces = [task.trace(task[i], mode) for i in range(SHOWN)]
    else:
        traces = []
    if not traces:
        return None
    rollout = generate(reasoner, reasoner.processor(traces, generate=True), max_new_tokens=ROOM)
    decoded = [DecodedTrace(trace, rollout, row) for row, trace in enumerate(traces)]
    return draw_storyboard(reasoner, model.decoder, decoded)


def copy_extras(run: Path, folder: Path) -> None:
    """Figures, recipes and pictures of a run, without the places of the machine they were made on; the licence."""
    for extra in EXTRAS:
        for source in sorted((run / extra).iterdir()) if (run / extra).is_dir() else [run / extra]:
            if source.exists() or source.is_symlink():  # a link may lead to any file of this machine
                check_file(source, run)
            target = folder / source.relative_to(run)
            target.parent.mkdir(exist_ok=True)
            if source.suffix in (".json", ".yaml") and source.is_file():
                target.write_text(without_places(source.read_text(encoding="utf-8")), encoding="utf-8")
            elif source.is_file():
                shutil.copy2(source, target)
    shutil.copy2(bundle.licence(), folder / "LICENSE")


def without_places(text: str) -> str:
    """Absolute paths cut to their last part: nobody needs to know the folders of this machine."""
    return PLACE.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)

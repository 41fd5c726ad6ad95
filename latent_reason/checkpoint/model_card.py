"""The model card of an exported checkpoint: what it is, how to use it, what it was measured to do, its limits."""

from __future__ import annotations

import json
import math
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .. import methods
from ..folders import read_json
from .markdown import code, escape, one_line
from .training_data import TrainingData

MEASURES = ("success", "accuracy", "exact", "sketch_equal", "constant", "hole_blind")
#: the licence of a card whose base says nothing of its own
UNKNOWN = {"license": "other", "license_name": "terms-of-the-base-model"}
FRAMEWORKS = ("latent_reason", "torch", "transformers", "diffusers", "safetensors")
STOCK = """from PIL import Image
from transformers import AutoModelForImageTextToText

folder = "."  # this folder, or its name on the Hub
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
answer = model.generate_interleaved(Image.open("example.png"), {question!r})
print(answer.text)
print(len(answer.sketches), "sketches", [picture and picture.size for picture in answer.images])"""
OWN = """import latent_reason
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from PIL import Image

reasoner, decoder = latent_reason.load(".")  # this folder
model = LatentReasonForConditionalGeneration.from_reasoner(reasoner, decoder)
answer = model.generate_interleaved(Image.open("example.png"), {question!r})
print(answer.text)
print(len(answer.sketches), "sketches", [picture and picture.size for picture in answer.images])"""


def model_card(card: dict, folder: Path, question: str) -> str:
    """README.md of a folder with this ``latent_reason.json``, with the figures that lie in the folder. ``question`` is
    asked about ``example.png``."""
    method = card["method"]
    module, task = methods.load(method), data_of(card) or "its own records"
    lines = [
        "---",
        head(card, folder).to_yaml().strip(),
        "---",
        "",
        f"# {escape(method)} on {escape(task)}",
        "",
        f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]} (method {code(method)}, source: {module.PAPER}).",
        "",
        "## Use",
        "",
        *use(card, question),
        "",
        "## Training",
        "",
        *training(card, folder),
        "",
        "## Results",
        "",
        *_results(folder),
        "",
        "Shares with their 95 % Wilson intervals; all measures are in the JSON files.",
        *_probes(folder / "probe.json"),
    ]
    if (folder / "sketches.png").is_file():
        lines += [
            "",
            "![sketches](sketches.png)",
            "",
            "*Columns: the input, the gold sketch, the gold sketch encoded and decoded, the model's sketch, the model's "
            "answer.*",
        ]
    lines += [
        "",
        "## Limits",
        "",
        f"A research checkpoint, trained on {code(task)} and measured on nothing else than the "
        "tables above. A sketch is what the model drew, not what is true. Whether it reads its sketches is what "
        "the probes say, where there are any.",
        "",
        "## Licence",
        "",
        *licence(card, folder),
        "",
        "## Citation",
        "",
        "```bibtex",
        *citation(method),
        "```",
    ]
    return "\n".join(lines) + "\n"


def head(card: dict, folder: Path) -> ModelCardData:
    """The YAML head."""
    method, table, task = card["method"], figures(folder), one_line(data_of(card) or "its own records")
    own = {place: found for place, found in table.items() if place[0] == "this model"}
    own = {place: found for place, found in own.items() if "-" in place[-1]} or own  # of all levels together
    main = next((m for m in MEASURES for found in own.values() if m in found), "accuracy")
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=one_line(name),
            dataset_name=one_line(name),
            dataset_config=one_line(f"level {level}"),
            dataset_split=one_line(split),
            metric_type=main,
            metric_value=found[main]["value"],
        )
        for (_, name, split, level), found in own.items()
        if main in found
    ]
    return ModelCardData(
        language="en",
        **{key: one_line(value) for key, value in card["licence"].items()},
        library_name="latent_reason" if card["layout"] == "adapter" else "transformers",
        pipeline_tag="image-text-to-text",
        base_model=base_of(card),
        datasets=[task],
        metrics=[main],
        model_name=f"{method} on {task}",
        tags=["latent-reasoning", "visual-reasoning", "latent_reason", method]
        + ["lora"] * (card["layout"] == "adapter"),
        eval_results=results or None,
    )


def base_of(card: dict) -> str | None:
    """The pretrained model a checkpoint began with; None where it began with random weights or nobody wrote it down."""
    name = card.get("base") or card.get("merged") or card.get("notes", {}).get("backbone") or "tiny"
    return None if name.startswith("tiny") else name


def data_of(card: dict) -> str | None:
    """The name of the task, or of the folder of records, that a checkpoint was trained on."""
    data = TrainingData.of(card.get("notes", {}))
    return Path(data.folder).name if data.folder else data.task


def use(card: dict, question: str) -> list[str]:
    """How to load it, with a snippet that runs as it is."""
    if card["layout"] == "adapter":
        said = ["", f"An adapter of {code(card['base'])}: it needs that model, peft and the library `latent_reason`."]
    else:
        said = [
            "",
            "The flag lets transformers run the code in this folder, which is that of the library "
            "`latent_reason`; without it loading asks on standard input, and stops with a ValueError where nobody "
            "answers. With the library installed no flag is needed, and nothing in this folder is run: "
            '`reasoner, decoder = latent_reason.load(".")`.',
        ]
    return ["```python", *snippet(card, question).splitlines(), "```", *said]


def snippet(card: dict, question: str) -> str:
    """The Python code that loads the model and asks it about ``example.png``."""
    return (OWN if card["layout"] == "adapter" else STOCK).format(question=question)


def training(card: dict, folder: Path) -> list[str]:
    notes = card.get("notes", {})
    data = TrainingData.of(notes)
    known = {
        "seed": notes.get("seed"),
        "steps": notes.get("steps"),
        "batch": notes.get("batch_size"),
        "levels": data.levels and list(data.levels),
        "items": notes.get("data", {}).get("items"),
    }
    said = ", ".join(f"{name} {escape(value)}" for name, value in known.items() if value is not None)
    recipes = [code(p.name) for p in sorted(folder.glob("recipe*.yaml"))]
    lines = [
        f"{said[:1].upper()}{said[1:]}. " * bool(said)
        + f"Options {code_span(card['options'])}."
        + f" The whole recipe: {', '.join(recipes)}." * bool(recipes)
    ]
    versions = [f"Python {platform.python_version()}"]
    for name in FRAMEWORKS:
        versions.append(f"{name} {metadata.version(name)}")
    return [*lines, "", f"Exported with {', '.join(versions)}."]


def code_span(options: dict) -> str:
    """Options as JSON in a code span, of any length."""
    return "`" + json.dumps(options, sort_keys=True).replace("`", "'") + "`"


def licence(card: dict, folder: Path) -> list[str]:
    base, its = base_of(card), card["licence"]
    if base is None:
        return ["Apache-2.0, see LICENSE."]
    name = escape(its.get("license_name", its["license"]))
    known = f"its licence is {name}" if its != UNKNOWN else "its card, which names its licence, was not at hand"
    return [
        f"The code is Apache-2.0, see LICENSE. The weights come from {code(base)}, whose terms hold for them: {known}"
        f"{', see LICENSE-base' * (folder / 'LICENSE-base').is_file()}."
    ]


def citation(method: str) -> list[str]:
    """BibTeX of the method, where it has a paper, and of the library."""
    module = methods.load(method)
    lines = []
    if re.fullmatch(r"\d{4}\.\d{5}", module.PAPER):
        title = module.__doc__.partition("(")[0].strip()
        lines = [
            f"@misc{{{method},",
            f"  title = {{{{{title}}}}},",
            f"  eprint = {{{module.PAPER}}},",
            "  archivePrefix = {arXiv},",
            f"  year = {{20{module.PAPER[:2]}}}",
            "}",
        ]
    return [
        *lines,
        "@software{latent_reason,",
        "  title = {{latent_reason: vision-language models that sketch}},",
        f"  version = {{{metadata.version('latent_reason')}}}",
        "}",
    ]


def figures(folder: Path) -> dict[tuple, dict]:
    """(who, task, split, level) -> measures by name; those of the controls after those of the model."""
    files = [("this model", folder / name) for name in ("eval.json", "eval-larger.json")]
    files += [(path.stem.removesuffix("-larger"), path) for path in sorted(folder.glob("controls/*.json"))]
    table: dict[tuple, dict] = {}
    for who, path in files:
        for r in read_rows(path) if path.is_file() else ():
            table.setdefault((who, r["task"], r["split"], str(r["level"])), {})[r["metric"]] = r
    return table


def read_rows(path: Path) -> list[dict]:
    """The results in a file of eval.run. Raises ValueError if it is none."""
    given = read_json(path)
    rows = given.get("results", []) if isinstance(given, dict) else None
    if not isinstance(rows, list) or not all(map(is_result, rows)):
        raise ValueError(f"'{path}' is not a result file of eval.run. Write it again, or remove it from the run.")
    return rows


def is_result(row: Any) -> bool:
    """Whether a row of a result file names what was measured, and has a number with its interval."""
    texts = isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("task", "split", "metric"))
    return texts and "level" in row and type(row.get("n")) is int and is_share(row, "value", "low", "high")


def is_share(found: Any, value: str, low: str, high: str) -> bool:
    """Whether a value has a number and an interval of numbers, or no interval."""
    if not isinstance(found, dict):
        return False
    ends = [found.get(low), found.get(high)]
    numbers: list[Any] = [found.get(value), *([] if ends == [None, None] else ends)]
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)


def _results(folder: Path) -> list[str]:
    """One line a level, those of the controls after those of the model; every measure is in the JSON files."""
    table = figures(folder)
    if not table:
        return ["No evaluation was run."]
    known = list(dict.fromkeys(metric for found in table.values() for metric in found))
    shown = [m for m in MEASURES if m in known] or known
    head = ["", "task", "split", "level", "n", *(escape(m.replace("_", " ")) for m in shown)]
    rows = [
        [*map(escape, place), str(next(iter(found.values()))["n"]), *(_cell(found.get(m)) for m in shown)]
        for place, found in table.items()
    ]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    return f"{row['value']:.3f}" + (f" ({row['low']:.2f}-{row['high']:.2f})" if row["low"] is not None else "")


def _probes(path: Path) -> list[str]:
    if not path.is_file():
        return []
    found = read_probes(path)
    lines = [
        "",
        f"Probes on {found['n']} items whose gold trace has a sketch ({escape(found['protocol'])}):",
        "",
        "| latents are | accuracy | 95 % interval | loss, paired 95 % interval |",
        "|---|---|---|---|",
    ]
    for name, r in found["probes"].items():
        d = r.get("difference")
        loss = f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" if d else ""
        shown = escape(name.replace("_", " "))
        lines.append(f"| {shown} | {r['accuracy']:.3f} | {r['low']:.3f} - {r['high']:.3f} | {loss} |")
    return lines


def read_probes(path: Path) -> dict:
    """The content of a file of eval.probe. Raises ValueError if it is none."""
    given = read_json(path)
    probes = given.get("probes") if isinstance(given, dict) else None
    good = isinstance(probes, dict) and type(given.get("n")) is int and isinstance(given.get("protocol"), str)
    for r in probes.values() if good else ():
        difference = r.get("difference") if isinstance(r, dict) else None
        good = good and is_share(r, "accuracy", "low", "high") and r["low"] is not None
        good = good and (difference is None or (is_share(difference, "value", "low", "high") and "low" in difference))
    if not good:
        raise ValueError(f"'{path}' is not a result file of eval.probe. Write it again, or remove it from the run.")
    return given

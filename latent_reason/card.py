"""Export: a checkpoint folder with a model card, ready to be published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from . import hub, methods
from .files import atomic_folder

EXTRAS = ("eval.json", "eval-larger.json", "probe.json", "controls", "sketches.png", "recipe.yaml",
          "recipe-pretrain.yaml")
MEASURES = ("success", "accuracy", "exact", "sketch_equal",
            "constant", "hole_blind")


def export(run: str | Path, folder: str | Path) -> Path:
    """Copy the checkpoint of a run into a new folder of its own, with README.md, LICENSE, metrics and sketches.

    Raises:
        FileNotFoundError, ValueError: the run holds no whole checkpoint.
        FileExistsError: the folder exists and is not empty.
    """
    run = Path(run)
    model = hub.resolve(run)
    card = hub.read_card(model)
    with atomic_folder(folder) as new:
        for part in sorted(model.iterdir()):
            if part.is_dir() and part.name in ("backbone", "decoder"):
                shutil.copytree(part, new / part.name)
            elif part.name in (hub.CARD, "reasoner.safetensors"):
                shutil.copy2(part, new / part.name)
        for extra in EXTRAS:
            if (run / extra).is_dir():
                shutil.copytree(run / extra, new / extra)
            elif (run / extra).is_file():
                shutil.copy2(run / extra, new / extra)
        licence = Path(__file__).parent.parent / "LICENSE"
        if licence.is_file():
            shutil.copy2(licence, new / "LICENSE")
        (new / "README.md").write_text(model_card(card, run), encoding="utf-8")
    return Path(folder)


def model_card(card: dict, run: Path) -> str:
    """The README of a checkpoint: what it is, its figures with intervals, how to use it, its limits."""
    notes, method = card.get("notes", {}), card["method"]
    data = notes.get("data", {})
    lines = [
        "---", "license: apache-2.0", "library_name: latent_reason", "pipeline_tag: image-text-to-text",
        "tags: [latent-reasoning, visual-reasoning]", "---", "",
        f"# {method} on {data.get('task', 'its task')}", "",
        f"{methods.load(method).SUMMARY} (method `{method}`, source: {methods.load(method).PAPER}).", "",
        "## Use", "", "```python", "import latent_reason",
        "from latent_reason import generate, tasks", "",
        "reasoner, decoder = latent_reason.load(\".\")  # this folder",
        f"task = tasks.make(\"{data.get('task', 'frozenlake_plan')}\", split=\"test\", level=4)",
        "prompt = reasoner.collator()([task.trace(task[0])], generate=True)",
        "rollout = generate(reasoner, prompt)",
        "print(rollout.text(0, reasoner.vocabulary))", "```", "",
        f"Or: `python -m latent_reason generate . --task {data.get('task', 'frozenlake_plan')} --level 4`", "",
        "## Training", "", f"Seed {notes.get('seed')}, {notes.get('steps')} steps of batch {notes.get('batch_size')}, "
        f"levels {data.get('levels')}, options `{json.dumps(card['options'])}`. The whole recipe is in `recipe.yaml`.",
        "", "## Results", ""]
    lines += [*_results(run), "", "Shares with their 95 % Wilson intervals; all measures are in the JSON files."]
    lines += _probes(run / "probe.json")
    if (run / "sketches.png").is_file():
        lines += ["", "![sketches](sketches.png)"]
    lines += ["", "## Limits", "", "A research checkpoint for one procedural task. It knows nothing else."]
    return "\n".join(lines) + "\n"


def _results(run: Path) -> list[str]:
    """One line a level, those of the controls after those of the model; every measure is in the JSON files."""
    files = [("this model", run / name) for name in ("eval.json", "eval-larger.json")]
    files += [(path.stem.removesuffix("-larger"), path) for path in sorted(run.glob("controls/*.json"))]
    table: dict[tuple, dict] = {}
    for who, path in files:
        for r in json.loads(path.read_text(encoding="utf-8")).get("results", ()) if path.is_file() else ():
            table.setdefault((who, r["task"], r["split"], str(r["level"])), {})[r["metric"]] = r
    if not table:
        return ["No evaluation was run."]
    known = list(dict.fromkeys(metric for found in table.values() for metric in found))
    shown = [m for m in MEASURES if m in known] or known
    head = ["", "task", "split", "level", "n", *(m.replace("_", " ") for m in shown)]
    rows = [[*place, str(next(iter(found.values()))["n"]), *(_cell(found.get(m)) for m in shown)]
            for place, found in table.items()]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    return f"{row['value']:.3f}" + (f" ({row['low']:.2f}-{row['high']:.2f})" if row["low"] is not None else "")


def _probes(path: Path) -> list[str]:
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["", f"Probes on {found['n']} items whose gold trace has a sketch ({found['protocol']}):", "",
             "| latents are | accuracy | 95 % interval | loss, paired 95 % interval |", "|---|---|---|---|"]
    for name, r in found["probes"].items():
        d = r.get("difference")
        loss = f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" if d else ""
        lines.append(f"| {name.replace('_', ' ')} | {r['accuracy']:.3f} | {r['low']:.3f} - {r['high']:.3f} | {loss} |")
    return lines

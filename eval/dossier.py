"""Everything that is measured of a checkpoint, as one JSON and one page that needs no other file.

    python -m eval.dossier CHECKPOINT --out DIR [--task frozenlake_plan] [--levels 3,4] [--n 100] [--reader CHECKPOINT]

DIR (new) gets dossier.json and index.html: accuracy in and out of distribution, what is lost without the picture or
with another, the probes of the latents with their verdict, what sketches alone show (to the task's reader, and to the
model given as --reader), how the answer grows with steps and latents, where it looks, the health of the latents, and
the sheet of sketches.
"""

from __future__ import annotations

import argparse
import time
from io import BytesIO
from pathlib import Path

import torch
from rich.console import Console

from latent_reason import checkpoint, methods, tasks
from latent_reason.decoding.items import Result, decode, distinct_items, main_score
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_folder, atomic_write_json
from latent_reason.visualization.storyboard import draw_storyboard

from . import attention, input_perturbations, metrics
from .collapse import alarm, health
from .html import page
from .interventions import Bank, Given, Mean, Zero
from .probe import MAIN, OTHERS, donors, probe, verdict
from .replay import answer_kl

console = Console(soft_wrap=True)


def dossier(
    reasoner, decoder, name: str, levels: tuple[int, ...], n: int, seed: int, options: dict, reader=None
) -> tuple[dict, bytes]:
    """(all figures, the PNG of the sheet). ``n`` items over all levels for accuracy, the health of latents and the
    probes that a verdict needs (those of them whose gold trace holds a sketch), a quarter of that for all else."""
    mode, own = methods.load(reasoner.method.name).MODE, tasks.own(name, options)

    def made(level=levels, **changes):
        return tasks.make(name, **{"split": "test", "seed": seed, "level": level} | own | changes)

    task, quarter = made(), -(-n // 4)
    items = distinct_items(task, n)
    plain = decode(reasoner, decoder, task, items, mode, progress="as generated")
    found: dict = {"main_score": main_score(plain), "out_of_distribution": {}}
    found["accuracy"] = {
        f"level {k}": scores([r for r in plain if r.item.level == k]) for k in sorted({r.item.level for r in plain})
    }
    for axis, changes in task.ood.items():
        others = distinct_items(made(**changes), quarter)
        found["out_of_distribution"][axis] = scores(
            decode(reasoner, None, made(**changes), others, mode, progress=axis)
        )
    found["input"] = input_perturbations.inputs(reasoner, task, mode, plain[:quarter])
    found["as_pixels"] = input_perturbations.as_pixels(reasoner, task, mode, plain[:quarter])
    found["attention_in_box"] = attention.looks_into_box(reasoner, task, plain[:quarter])
    found["consistency"] = metrics.consistency(task, plain, reasoner.vocabulary)
    if reasoner.can_sketch:
        sketched = [r for r in plain if any(s.sketch is not None for s in r.item.steps)] or plain
        found |= of_latents(reasoner, task, sketched, seed, mode)
        found["health"] = health(reasoner, plain)
        found["alarm"] = alarm(found["health"])
    if decoder is None or not reasoner.is_renderable:
        return found, b""
    found["sketches_alone"] = metrics.sketches_alone(reasoner, decoder, task, plain[:quarter])
    if reader is not None:
        found["sketchqa_vlm"] = metrics.read_by(reader, reasoner, decoder, task, plain[:quarter])
    held = BytesIO()
    draw_storyboard(reasoner, decoder, [r.decoded for r in plain[:6]]).save(held, "PNG")
    return found, held.getvalue()


def scores(results: list[Result]) -> dict:
    return {name: metrics.share([r.scores[name] for r in results]) for name in results[0].scores}


def of_latents(reasoner, task, results: list[Result], seed: int, mode: str) -> dict:
    """Probes, their verdict, the replay protocol, curves over steps and budgets, and attention; all but the probes that
    the verdict needs on a quarter of the results."""
    report = probe(reasoner, task, [r.item for r in results], seed, only=MAIN, plain=results)
    few = [r.item for r in results[: -(-len(results) // 4)]]
    plain = decode(reasoner, None, task, few, mode)  # again, as replay takes rollouts whole
    others = probe(reasoner, task, few, seed, only=OTHERS, plain=plain)
    report |= {name: found for name, found in others.items() if name not in report}
    bank, given, index = Bank(plain), donors(task, plain, seed), {id(r.item): i for i, r in enumerate(plain)}

    def grids(chunk):
        return [reasoner.latent_grid_for(reasoner.backbone.token_grid(i.images[-1])) for i in chunk]

    swaps = {
        "zero": lambda c: Zero(),
        "mean": lambda c: Mean(bank, grids(c)),
        "foreign": lambda c: Given([plain[given[index[id(i)]]].latents if given[index[id(i)]] >= 0 else [] for i in c]),
    }
    divergence = {name: answer_kl(reasoner, plain, swap) for name, swap in swaps.items()}
    means = {name: {"nats": round(sum(v) / len(v), 4), "n": len(v)} for name, v in divergence.items() if v}
    return {
        "probes": report,
        "verdict": verdict(report),
        "answer_kl": means,
        "by_step": metrics.by_step(reasoner, task, mode, plain),
        "by_budget": metrics.by_budget(reasoner, task, mode, plain),
        "attention": attention.looks(reasoner, plain),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.dossier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--out", required=True, help="a new folder")
    parser.add_argument("--task", help="default: the task it was trained on")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels it was trained on")
    parser.add_argument("--n", type=at_least(2), default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", metavar="CHECKPOINT", help="a model that is to answer from sketches alone")
    with cli_errors():
        to_folder(parser.parse_args(argv))


def to_folder(given: argparse.Namespace) -> None:
    began = time.time()
    reasoner, decoder = checkpoint.load(given.checkpoint)
    if given.reader and (decoder is None or not reasoner.is_renderable):
        raise ValueError(
            f"'{given.checkpoint}' draws no sketch that can be rendered, so there is none to read. Leave --reader out."
        )
    reader = checkpoint.load(given.reader)[0] if given.reader else None
    data = reasoner.method.notes.get("data", {})
    name = given.task or tasks.check_trusted(data.get("task", "frozenlake_plan"), given.checkpoint)
    levels = tuple(given.levels or data.get("levels", (3, 4)))
    with atomic_folder(given.out) as folder:
        found, sheet = dossier(reasoner, decoder, name, levels, given.n, given.seed, data.get("options", {}), reader)
        about = {
            "checkpoint": Path(given.checkpoint).as_posix(),
            "method": reasoner.method.name,
            "task": name,
            "levels": ", ".join(map(str, levels)),
            "items": f"{given.n}; a quarter of them where n says so",
            "seed": given.seed,
            "decoding": "greedy",
            "protocol": "regenerate, unless said otherwise",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "seconds": round(time.time() - began),
        }
        if given.reader:
            about["reader"] = Path(given.reader).as_posix()
        atomic_write_json(folder / "dossier.json", {"schema": 1, "about": about, **found})
        (folder / "index.html").write_text(page(found, about, sheet), encoding="utf-8")
    console.print(found.get("verdict", "No latents to probe."))
    console.print(f"Written to {given.out}: dossier.json, and index.html to look at")


if __name__ == "__main__":
    main()

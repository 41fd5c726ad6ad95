"""All measurements of a checkpoint as one JSON file and one self-contained HTML page.

    python -m eval.dossier CHECKPOINT --out DIR [--task frozenlake_plan] [--levels 3,4] [--n 100] [--reader CHECKPOINT]
    python -m eval.dossier CHECKPOINT --out DIR --folder RECORDS      # the test records of your own folder

DIR (new) gets dossier.json and index.html: accuracy in and out of distribution, accuracy on changed inputs, the probes
of the latents with their verdict, what sketches alone show (to the task's parser, and to the model of --reader),
accuracy by steps and latents, attention, diagnostics of the latents, and a storyboard of sketches. The same command
resumes an interrupted run from DIR.unfinished. Records have no generator of puzzles and no parser of sketches, so for
them the parts that need one are left out.
"""

from __future__ import annotations

import argparse

from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.dossier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--out", required=True, help="new folder")
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--task", help="default: the task or the records that the checkpoint was trained on")
    data.add_argument("--folder", help="native records; uses test records with image, sketch and answer")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the training levels of the checkpoint")
    parser.add_argument("--n", type=at_least(2), default=100)
    parser.add_argument("--seed", type=argument(Seed), default=1)
    parser.add_argument("--reader", metavar="CHECKPOINT", help="a model that answers from sketches alone")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from rich.console import Console

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.training_data import make_task, records_folder
from latent_reason.decoding.items import Result, decode, distinct_items, main_score
from latent_reason.decoding.replacements import StoredLatents, Zero
from latent_reason.files import atomic_folder, atomic_write_json
from latent_reason.outputs import check_output_folder
from latent_reason.tasks import Item, Task
from latent_reason.visualization.storyboard import draw_storyboard

from . import attention, input_perturbations, metrics, sketch_qa
from .collapse import collapse_warning, latent_diagnostics
from .html import page
from .interventions import LatentStatistics, Mean
from .probe import EXTRA, MAIN, RECORD_PROBES, choose_donors, probe, record_items
from .records import Records
from .replay import answer_kl
from .resume import ProgressFile, items_digest, model_digest
from .verdict import verdict

console = Console(soft_wrap=True)


def build_dossier(
    reasoner, decoder, make_task: Callable[..., Task], items: list[Item], seed: int, reader, recall: Callable
) -> tuple[dict, bytes]:
    """(all figures, the PNG of the storyboard). ``make_task(**changes)`` makes the task of ``items`` with other options,
    ``recall`` gives what an interrupted run has kept.

    Accuracy, diagnostics of latents and the probes of the verdict use all items (probes: those whose gold trace has a
    sketch). Everything else uses a quarter of that.
    """
    mode, task, num_quick = methods.load(reasoner.method.name).MODE, make_task(), -(-len(items) // 4)
    plain = decode(reasoner, decoder, task, items, mode, progress="as generated")
    quick = plain[:num_quick]

    def out_of_distribution(axis: str, changes: dict) -> dict:
        changed = make_task(**changes)
        return scores(decode(reasoner, None, changed, distinct_items(changed, num_quick), mode, progress=axis))

    report: dict = {"main_score": main_score(plain)}
    report["out_of_distribution"] = {
        axis: recall(f"ood {axis}", partial(out_of_distribution, axis, changes)) for axis, changes in task.ood.items()
    }
    report["accuracy"] = {
        f"level {k}": scores([r for r in plain if r.item.level == k]) for k in sorted({r.item.level for r in plain})
    }
    report["input"] = recall("input", lambda: input_perturbations.evaluate_inputs(reasoner, task, mode, quick))
    report["as_pixels"] = recall(
        "as_pixels", lambda: input_perturbations.evaluate_text_as_image(reasoner, task, mode, quick)
    )
    report["attention_in_box"] = recall("attention_in_box", lambda: attention.attention_in_box(reasoner, task, quick))
    report["consistency"] = metrics.consistency(task, plain, reasoner.vocabulary)
    if reasoner.can_sketch:
        sketched = [r for r in plain if any(s.sketch is not None for s in r.item.steps)] or plain
        report |= latent_report(reasoner, task, sketched, seed, mode, recall)
        report["health"] = latent_diagnostics(reasoner, plain)
        report["alarm"] = collapse_warning(report["health"])
    if decoder is None or not reasoner.is_renderable:
        return report, b""
    report["sketches_alone"] = recall("alone", lambda: metrics.sketches_alone(reasoner, decoder, task, quick))
    if reader is not None:
        report["sketchqa_vlm"] = recall(
            "reader", lambda: sketch_qa.evaluate_reader(reader, reasoner, decoder, task, quick)
        )
    return report, sketches_png(reasoner, decoder, plain)


def build_record_dossier(reasoner, decoder, records: Records, seed: int, recall: Callable) -> tuple[dict, bytes]:
    """The same for records, without what needs the generator or the parser of a task."""
    mode, items = methods.load(reasoner.method.name).MODE, records.items
    plain = decode(reasoner, None, records, items, mode, progress="as generated")
    quick = plain[: -(-len(items) // 4)]
    report: dict = {
        "main_score": main_score(plain),
        "accuracy": {"test records": scores(plain)},
        "out_of_distribution": {},
        "input": recall("input", lambda: input_perturbations.evaluate_images(reasoner, records, mode, quick)),
    }
    if reasoner.can_sketch:
        report |= latent_report(reasoner, records, plain, seed, mode, recall)
        report["health"] = latent_diagnostics(reasoner, plain)
        report["alarm"] = collapse_warning(report["health"])
    if decoder is None or not reasoner.is_renderable:
        return report, b""
    return report, sketches_png(reasoner, decoder, plain)


def sketches_png(reasoner, decoder, results: list[Result]) -> bytes:
    """A sheet of the sketches of the first results, as a PNG."""
    buffer = BytesIO()
    draw_storyboard(reasoner, decoder, [r.decoded for r in results[:6]]).save(buffer, "PNG")
    return buffer.getvalue()


def scores(results: list[Result]) -> dict:
    return {name: metrics.share([r.scores[name] for r in results]) for name in results[0].scores}


def latent_report(reasoner, task, results: list[Result], seed: int, mode: str, recall: Callable) -> dict:
    """Probes, verdict, replay protocol, accuracy by step and by budget, and attention. The probes of the verdict use all
    results, the others a quarter."""
    probes = probe(reasoner, task, [r.item for r in results], seed, only=MAIN, plain=results, recall=recall)
    items = [r.item for r in results[: -(-len(results) // 4)]]
    plain = decode(reasoner, None, task, items, mode)  # decoded again, because replay needs whole rollouts
    names = [name for name in EXTRA if isinstance(task, Task) or name in RECORD_PROBES]
    extra = probe(reasoner, task, items, seed, only=names, plain=plain, recall=recall)
    probes |= {name: value for name, value in extra.items() if name not in probes}
    statistics, donor_rows = LatentStatistics(plain), choose_donors(task, plain, seed)
    index = {id(r.item): i for i, r in enumerate(plain)}
    foreign = [plain[d].latents if d >= 0 else [] for d in donor_rows]

    def grids(chunk):
        return [reasoner.latent_grid_for(reasoner.backbone.token_grid(i.images[-1])) for i in chunk]

    hooks = {
        "zero": lambda c: Zero(),
        "mean": lambda c: Mean(statistics, grids(c)),
        "foreign": lambda c: StoredLatents([foreign[index[id(i)]] for i in c]),
    }
    divergence = {n: recall(f"kl {n}", partial(answer_kl, reasoner, plain, hook)) for n, hook in hooks.items()}
    means = {name: {"nats": round(sum(v) / len(v), 4), "n": len(v)} for name, v in divergence.items() if v}
    return {
        "probes": probes,
        "verdict": verdict(probes),
        "answer_kl": means,
        "by_step": recall("by_step", lambda: metrics.accuracy_by_step(reasoner, task, mode, plain)),
        "by_budget": recall("by_budget", lambda: metrics.accuracy_by_budget(reasoner, task, mode, plain)),
        "attention": recall("attention", lambda: attention.answer_attention(reasoner, plain)),
    }


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        dossier_to_folder(parse_arguments(argv))


def describe_task(task: Task) -> dict:
    """What the page says of a task."""
    return {"task": task.name, "levels": ", ".join(map(str, task.levels))}


def dossier_to_folder(args: argparse.Namespace) -> None:
    start, out = time.time(), check_output_folder(args.out)
    reasoner, decoder = checkpoint.load(args.checkpoint)
    if args.reader and (decoder is None or not reasoner.is_renderable):
        raise ValueError(f"'{args.checkpoint}' cannot render sketches for a reader. Leave --reader out.")
    reader = checkpoint.load(args.reader)[0] if args.reader else None
    notes = reasoner.method.notes
    folder = None if args.task else records_folder(notes, args.checkpoint, args.folder)
    if folder and args.reader:
        raise ValueError("--reader needs a task that grades what sketches show, not records. Leave it out.")

    def changed_task(**changes) -> Task:
        given = {"split": "test", "seed": args.seed} | changes
        return make_task(notes, args.checkpoint, args.task, levels=args.levels, **given)

    if folder:
        items, records, described = record_items(args, folder)
    else:
        items, described = distinct_items(changed_task(), args.n), describe_task(changed_task())
    identity = {
        "command": "eval.dossier",
        "model": model_digest(args.checkpoint),
        "reader": model_digest(args.reader) if args.reader else None,
        "items": items_digest(items),
        "task": described["task"],
        "seed": args.seed,
    }
    with ProgressFile(f"{out}.unfinished", identity) as progress, atomic_folder(out) as place:
        if folder:
            report, storyboard_png = build_record_dossier(reasoner, decoder, records, args.seed, progress.recall)
        else:
            report, storyboard_png = build_dossier(
                reasoner, decoder, changed_task, items, args.seed, reader, progress.recall
            )
        about = {
            "checkpoint": Path(args.checkpoint).as_posix(),
            "method": reasoner.method.name,
            **described,
            "items": f"{len(items)}; a quarter of them where n says so",
            "seed": args.seed,
            "decoding": "greedy",
            "protocol": "regenerate, unless said otherwise",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "seconds": round(time.time() - start),
        }
        if args.reader:
            about["reader"] = Path(args.reader).as_posix()
        atomic_write_json(place / "dossier.json", {"schema": 1, "about": about, **report})
        (place / "index.html").write_text(page(report, about, storyboard_png), encoding="utf-8")
    progress.remove()
    console.print(report.get("verdict", "No latents to probe."))
    console.print(f"Results written to {args.out}: dossier.json and index.html")


if __name__ == "__main__":
    main()

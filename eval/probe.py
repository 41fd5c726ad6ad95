"""Tests whether latents matter: replaces them during decoding and measures the effect on the answers.

    python -m eval.probe CHECKPOINT --task frozenlake_plan --n 200 --out FILE.json
    python -m eval.probe CHECKPOINT --folder DIR --out FILE.json      # the test records of your own folder

Protocol "regenerate": each latent is replaced just before it becomes an input, and all later text is generated freely.
An output may have twice the length of the item's original output, or the length of the longest of its level.
Only items whose gold trace has a sketch are probed. The latents carry content only if all of these are significant after
Holm's correction over all tests of the report: the loss of accuracy under noise, mean and foreign latents, and the rate
of following a foreign sketch. A verdict needs 50 items. The same command resumes an interrupted run from FILE.unfinished.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_limits, add_output, limits_of
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    items = parser.add_mutually_exclusive_group()
    items.add_argument("--task", help="default: the task or the records that the checkpoint was trained on")
    items.add_argument("--folder", help="native records; uses test records with image, sketch and answer")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the training levels of the checkpoint")
    parser.add_argument("--n", type=at_least(1), default=200)
    parser.add_argument("--seed", type=argument(Seed), default=1)
    parser.add_argument("--batch-size", type=at_least(1), default=64)
    add_limits(parser)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint, methods, tasks
from latent_reason.checkpoint.training_data import make_task, records_folder
from latent_reason.decoding.items import Result, decode, distinct_items, main_score, room
from latent_reason.decoding.prompt_store import PromptStore
from latent_reason.files import atomic_write_json
from latent_reason.model.limits import InputLimits
from latent_reason.outputs import check_output
from latent_reason.visualization.storyboard import split_text

from .interventions import probe_arms
from .records import Records
from .resume import ProgressFile, compute_now, items_digest, model_digest
from .statistics import mcnemar, p_text, paired_bootstrap, paired_p, wilson
from .verdict import correct_p_values, verdict

console = Console(soft_wrap=True)
MAIN = ("noise", "mean", "zero", "foreign", "oracle", "copy", "markers", "removed")
EXTRA = (
    "again",
    "noise_diagonal",
    "region",
    "dummy",
    "first_half",
    "permuted",
    "reversed",
    "image_blanked",
    "image_masked",
    "blind",
    "text_corrupted",
)
FOLLOWED = ("foreign", "mean", "noise", "zero")  # whose text is compared with the donor of foreign latents
RECORD_PROBES = tuple(name for name in (*MAIN, *EXTRA) if name != "text_corrupted")  # needs the generator of a puzzle


def sketched_items(task, n: int) -> list:
    """The first n distinct items whose gold reasoning has a sketch; fewer if there are no more."""
    return distinct_items(task, n, fits=lambda item: any(s.sketch is not None for s in item.steps))


def choose_donors(task, results: list[Result], seed: int) -> list[int]:
    """Index of a donor for each item, -1 without one.

    A donor has the same level, at least one sketch, and sketches that lead to another answer.
    """
    random, out = np.random.default_rng(seed), []
    for i, r in enumerate(results):
        fits = [
            j
            for j, d in enumerate(results)
            if j != i
            and d.item.level == r.item.level
            and d.latents
            and (target := task.asked_of(r.item, d.item))
            and target.answer != r.item.answer
        ]
        out.append(int(random.choice(fits)) if fits else -1)
    return out


def follow_score(task, vocabulary, result: Result, donor: Result) -> float:
    """How well the text after the first sketch of ``result`` follows the donor's sketch: 0-1."""
    if not result.rollout.spans_of(result.row):
        return 0.0
    _, *rest = split_text(result.rollout, result.row, vocabulary)
    target = task.asked_of(result.item, donor.item)
    return task.follows(target, split_text(donor.rollout, donor.row, vocabulary)[0], rest)


def probe(
    reasoner,
    task,
    items,
    seed: int = 0,
    batch_size: int = 64,
    only: Sequence[str] = (*MAIN, *EXTRA),
    plain: list[Result] | None = None,
    recall: Callable[[str, Callable[[], Any]], Any] = compute_now,
) -> dict:
    """Runs the probes on the same items.

    Args:
        only: names of the probes to run.
        plain: the unchanged results of ``items``, if they are already decoded.
        recall: gives the result of a probe that an interrupted run has kept (:meth:`.resume.ProgressFile.recall`).

    Returns:
        name -> accuracy with interval, paired difference to the unchanged results (P0), rate of changed answers.
    """
    mode, prompts = methods.load(reasoner.method.name).MODE, PromptStore()
    traces = {id(item): task.trace(item, mode) for item in items}  # one object an item, so that arms share its prompt

    def run(name, **options):
        options = {"make_trace": lambda item: traces[id(item)]} | options
        return decode(
            reasoner,
            None,
            task,
            items,
            mode,
            batch_size=batch_size,
            progress=f"probe {name}",
            prompts=prompts,
            **options,
        )

    plain = run("as generated") if plain is None else plain
    key = main_score(plain)
    report = {
        "as_generated": _accuracy(plain, key)
        | {"sketches_per_item": round(float(np.mean([len(r.latents) for r in plain])), 3)}
    }
    donor_rows = choose_donors(task, plain, seed)
    arms = probe_arms(reasoner, task, mode, plain, donor_rows, seed)
    arms = {name: arms[name] for name in only if has_meaning(name, reasoner)}
    pairs = [i for i, r in enumerate(plain) if donor_rows[i] >= 0 and r.latents]  # items that get foreign latents

    def follow_scores(results: list[Result]) -> list[float]:
        donors = (plain[donor_rows[i]] for i in pairs)
        return [
            float(follow_score(task, reasoner.vocabulary, results[i], d)) for i, d in zip(pairs, donors, strict=True)
        ]

    def measure(name: str, options: dict) -> dict:
        changed = run(name, max_new_tokens=room(plain), **options)
        rows = (pairs if name == "foreign" else None) or range(len(plain))
        paired = _paired([plain[i] for i in rows], [changed[i] for i in rows], key)
        follows = follow_scores(changed) if name in FOLLOWED else []
        return {"report": _accuracy([changed[i] for i in rows], key) | paired, "follows": follows}

    found = {name: recall(f"probe {name}", partial(measure, name, options)) for name, options in arms.items()}
    report |= {name: dict(one["report"]) for name, one in found.items()}
    if "oracle" in found and "copy" in found:
        shares = (report[name]["accuracy"] for name in ("as_generated", "oracle", "copy"))
        report["oracle"]["gain_recovered"] = gain_recovered(*shares)
    if "foreign" in found:
        own = follow_scores(plain)
        idle = next((found[n]["follows"] for n in ("mean", "noise", "zero") if n in found), own)
        report["foreign"] |= _follow_rates(found["foreign"]["follows"], own, idle)
    correct_p_values(report)
    return report


def has_meaning(name: str, reasoner) -> bool:
    """Whether a probe can be run, and can differ from the unchanged output."""
    if name in ("oracle", "copy", "region"):
        return reasoner.is_renderable  # otherwise no image has the true latents
    if name == "image_masked":
        return not reasoner.hides_images  # else text sees no image after a sketch anyway
    if name == "again":
        return reasoner.head.is_stochastic  # greedy text and a deterministic head: a second run is equal
    return name != "text_corrupted" or reasoner.switch.start != "first"  # text has to precede the sketch


def gain_recovered(own: float, oracle: float, copy: float) -> float | None:
    """Share of the gain of true sketches over copies of the input that the model's own sketches reach; None if there is
    no gain."""
    return round((own - copy) / (oracle - copy), 4) if oracle > copy else None


def _interval(interval) -> dict:
    return {"low": round(interval.low, 4), "high": round(interval.high, 4)}


def _accuracy(results: list[Result], key: str) -> dict:
    interval = wilson(sum(r.scores[key] for r in results), len(results))
    return {
        "accuracy": round(interval.estimate, 4),
        **_interval(interval),
        "n": len(results),
        "exact": round(float(np.mean([r.scores.get("exact", r.scores[key]) for r in results])), 4),
    }


def _paired(plain: list[Result], changed: list[Result], key: str) -> dict:
    """Unchanged accuracy minus accuracy under the probe, on the same items, and the rate of changed answers."""
    a, b = (np.array([r.scores[key] for r in x]) for x in (plain, changed))
    interval = paired_bootstrap(a, b)
    return {
        "difference": {"value": round(interval.estimate, 4), **_interval(interval)},
        "mcnemar_p": round(mcnemar(a, b).p, 5),
        "flip_rate": round(
            float(
                np.mean(
                    [
                        p.text.split("\\boxed")[-1] != c.text.split("\\boxed")[-1]
                        for p, c in zip(plain, changed, strict=True)
                    ]
                )
            ),
            4,
        ),
    }


def _follow_rates(foreign: list[float], own: list[float], idle: list[float]) -> dict:
    """How often the text after a foreign sketch follows the donor, from the scores of the items with foreign latents.

    Two references: the model's own unchanged output (chance), and the output after uninformative latents (``idle``),
    because a guess may agree with the donor too.
    """
    if not foreign:
        return {"follow_rate": None, "follow_n": 0}
    return {
        "follow_when_idle": round(float(np.mean(idle)), 4),
        "follow_beyond_idle": _follow_test(foreign, idle),
        "follow_rate": round(float(np.mean(foreign)), 4),
        "follow_by_chance": round(float(np.mean(own)), 4),
        "follow_difference": _follow_test(foreign, own),
        "follow_n": len(foreign),
    }


def _follow_test(foreign: list[float], reference: list[float]) -> dict:
    interval = paired_bootstrap(foreign, reference)
    return {
        "value": round(interval.estimate, 4),
        **_interval(interval),
        "p": round(paired_p(foreign, reference), 5),
    }


def probe_table(report: dict) -> Table:
    """Per probe: accuracy, loss against P0 on the same items with its corrected p-value, rate of changed answers."""
    output = Table(title="effect of replaced latents on the answer (95 % intervals; the loss is paired)")
    for title in ("latents are", "accuracy", "loss", "p\n(Holm)", "changed", "follows\n(chance)"):
        output.add_column(title, justify="left" if title == "latents are" else "right")
    for name, r in report.items():
        d = r.get("difference")
        loss = f"{d['value']:+.2f}\n{d['low']:+.2f} to {d['high']:+.2f}" if d else ""
        follow = f"{r['follow_rate']:.2f}\n({r['follow_by_chance']:.2f})" if r.get("follow_n") else ""
        output.add_row(
            name.replace("_", " "),
            f"{r['accuracy']:.2f}\n{r['low']:.2f}-{r['high']:.2f}",
            loss,
            p_text(r["holm_p"]) if "holm_p" in r else "",
            f"{r['flip_rate']:.2f}" if d else "",
            follow,
        )
    return output


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        probe_to_file(parse_arguments(argv))


def probe_to_file(args: argparse.Namespace) -> None:
    out = check_output(args.out, args.overwrite)
    reasoner, _ = checkpoint.load(args.checkpoint)
    limits_of(args).apply_to(reasoner.backbone)
    if not reasoner.can_sketch:
        raise ValueError(
            f"'{args.checkpoint}' was trained with {reasoner.method.name!r}, which has no latents to probe. Use a "
            "checkpoint of another method."
        )
    folder = None if args.task else records_folder(reasoner.method.notes, args.checkpoint, args.folder)
    items, task, description = record_items(args, folder) if folder else task_items(args, reasoner)
    only = RECORD_PROBES if folder else (*MAIN, *EXTRA)
    limits = InputLimits.of(reasoner.backbone).to_json()
    settings = {**description, "n": len(items), "seed": args.seed, "limits": limits}
    identity = {
        "command": "eval.probe",
        "model": model_digest(args.checkpoint),
        "items": items_digest(items),  # in their order: each gets the latents of another
        "batch_size": args.batch_size,
        **settings,
    }
    with ProgressFile(out.with_suffix(".unfinished"), identity) as progress:
        report = probe(reasoner, task, items, args.seed, args.batch_size, only, recall=progress.recall)
        about = {"schema": 1, "checkpoint": Path(args.checkpoint).as_posix(), **settings}
        atomic_write_json(out, about | {"protocol": "regenerate", "decoding": "greedy", "probes": report})
        progress.remove()
    console.print(probe_table(report))
    console.print(verdict(report))
    console.print(f"Results written to {args.out}")


def task_items(args: argparse.Namespace, reasoner) -> tuple[list, tasks.Task, dict]:
    """Items with a sketch, their task, and their description in the result file."""
    task = make_task(
        reasoner.method.notes, args.checkpoint, args.task, levels=args.levels, split="test", seed=args.seed
    )
    return sketched_items(task, args.n), task, {"task": args.task or task.name, "levels": list(task.levels)}


def record_items(args: argparse.Namespace, folder: Path) -> tuple[list, Records, dict]:
    """The same for the records of a folder."""
    if args.levels:
        raise ValueError("--levels applies to items of a task, not to records. Leave it out.")
    records = Records(folder, args.n)
    if records.left_out:
        console.print(f"{records.left_out} test records lack an image, a sketch or an answer and are left out.")
    return records.items, records, {"task": folder.name, "folder": folder.as_posix()}


if __name__ == "__main__":
    main()

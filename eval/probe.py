"""Do the latents matter? Replace them while the model decodes and see whether the answer obeys.

    python -m eval.probe CHECKPOINT --task frozenlake_plan --n 200 --out FILE.json
    python -m eval.probe CHECKPOINT --folder DIR --out FILE.json      # the test records of a folder of your own

Protocol "regenerate": the replacement is fed instead of each latent as it is produced, and all later text is free, but
cut at twice the item's output as generated or the longest of its level.
Only items whose gold trace holds a sketch are probed. Reading rule: latents carry content only if the interval of the
loss under noise, mean and foreign latents, and that of sketch-following, exclude 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint, methods, tasks
from latent_reason.decoding.items import Result, decode, distinct_items, main_score, room
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json
from latent_reason.visualization.storyboard import split_text

from .interventions import Bank, Dummy, FirstOnly, Given, Mean, Noise, Oracle, Region, Zero, encoded, shuffled
from .records import Records
from .statistics import holm, mcnemar, paired_bootstrap, wilson

console = Console(soft_wrap=True)
MAIN = ("noise", "mean", "zero", "foreign", "oracle", "copy", "markers", "removed")
OTHERS = (
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
OF_RECORDS = tuple(name for name in (*MAIN, *OTHERS) if name != "text_corrupted")  # no rule says how words go wrong


def sketched_items(task, n: int) -> list:
    """The first n different items whose gold reasoning holds a sketch; fewer where there are no more."""
    return distinct_items(task, n, fits=lambda item: any(s.sketch is not None for s in item.steps))


def donors(task, results: list[Result], seed: int) -> list[int]:
    """For each item another one of the same level that drew at least one sketch and whose sketches lead to another
    answer."""
    random, out = np.random.default_rng(seed), []
    for i, r in enumerate(results):
        fits = [
            j
            for j, d in enumerate(results)
            if j != i
            and d.item.level == r.item.level
            and d.latents
            and (asked := task.asked_of(r.item, d.item))
            and asked.answer != r.item.answer
        ]
        out.append(int(random.choice(fits)) if fits else -1)
    return out


def continues(task, vocabulary, writer: Result, donor: Result) -> float:
    """How far what the writer wrote after its first sketch is what a reader of the *donor's* sketch would write."""
    if not writer.rollout.spans_of(writer.row):
        return 0.0
    _, *rest = split_text(writer.rollout, writer.row, vocabulary)
    asked = task.asked_of(writer.item, donor.item)
    return task.follows(asked, split_text(donor.rollout, donor.row, vocabulary)[0], rest)


def probe(
    reasoner,
    task,
    items,
    seed: int = 0,
    batch_size: int = 64,
    only: Sequence[str] = (*MAIN, *OTHERS),
    plain: list[Result] | None = None,
) -> dict:
    """Probes on the same items: accuracy with interval, paired difference to P0, flip rate. ``plain``: the items as
    generated, where they have been decoded already."""
    mode = methods.load(reasoner.method.name).MODE

    def run(name, **options):
        return decode(reasoner, None, task, items, mode, batch_size=batch_size, progress=f"probe {name}", **options)

    plain = run("as generated") if plain is None else plain
    key = main_score(plain)
    report = {
        "as_generated": _accuracy(plain, key)
        | {"sketches_per_item": round(float(np.mean([len(r.latents) for r in plain])), 3)}
    }
    index = {id(r.item): i for i, r in enumerate(plain)}

    def at(chunk):
        return [index[id(i)] for i in chunk]

    def grids(chunk):
        return [reasoner.latent_grid_for(reasoner.backbone.token_grid(i.images[-1])) for i in chunk]

    bank, diagonal, given = Bank(plain), Bank(plain, 1.0), donors(task, plain, seed)
    random = torch.Generator().manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    changed_order = [shuffled(r.latents, order) for r in plain]
    arms = {
        "again": {"seed": seed + 1},
        "noise": {"latent_hook": lambda c: Noise(bank, grids(c), random)},
        "noise_diagonal": {"latent_hook": lambda c: Noise(diagonal, grids(c), random)},
        "region": {"latent_hook": lambda c: Region(reasoner, c, random)},
        "mean": {"latent_hook": lambda c: Mean(bank, grids(c))},
        "zero": {"latent_hook": lambda c: Zero()},
        "dummy": {"latent_hook": lambda c: Dummy(reasoner)},
        "first_half": {"latent_hook": lambda c: FirstOnly(Mean(bank, grids(c)), grids(c), 0.5)},
        "permuted": {"latent_hook": lambda c: Given([changed_order[i] for i in at(c)])},
        "reversed": {"latent_hook": lambda c: Given([[z.flip(0) for z in plain[i].latents] for i in at(c)])},
        "foreign": {"latent_hook": lambda c: Given([plain[given[i]].latents if given[i] >= 0 else [] for i in at(c)])},
        "oracle": {"latent_hook": lambda c: Oracle(reasoner, task, c)},
        "copy": {"latent_hook": lambda c: Given([[encoded(reasoner, i.images[-1])] for i in c])},
        "markers": {"latents_per_span": 0},
        "removed": {"latent_mode": "off"},
        "image_blanked": {
            "make_trace": lambda item: task.blind(item, mode),
            "latent_hook": lambda c: Given([plain[i].latents for i in at(c)]),
        },
        "image_masked": {"hide_images": True, "latent_hook": lambda c: Given([plain[i].latents for i in at(c)])},
        "blind": {"make_trace": lambda item: task.blind(item, mode), "latent_mode": "off"},
        "text_corrupted": {
            "forced_tokens": lambda c: [_corrupted(reasoner, task, plain[i]) for i in at(c)],
            "latent_hook": lambda c: Given([plain[i].latents[:1] for i in at(c)], only_given=True),
        },
    }
    arms = {name: arms[name] for name in only}
    if not reasoner.is_renderable:  # no picture says what its latents should have been
        arms = {name: options for name, options in arms.items() if name not in ("oracle", "copy", "region")}
    if not reasoner.head.is_stochastic:  # greedy words and no noise: nothing would change
        arms.pop("again", None)
    if reasoner.switch.start == "first":  # there are no words before its sketch
        arms.pop("text_corrupted", None)
    runs = {}
    for name, options in arms.items():
        changed = runs[name] = run(name, max_new_tokens=room(plain), **options)
        at_all = [i for i, r in enumerate(plain) if name != "foreign" or (given[i] >= 0 and r.latents)]
        at_all = at_all or range(len(plain))  # of foreign latents: the items that got some
        report[name] = _accuracy([changed[i] for i in at_all], key) | _paired(
            [plain[i] for i in at_all], [changed[i] for i in at_all], key
        )
    if "oracle" in runs and "copy" in runs:
        shares = (report[name]["accuracy"] for name in ("as_generated", "oracle", "copy"))
        report["oracle"]["gain_recovered"] = recovered(*shares)
    if "foreign" in runs:
        idle = next((runs[n] for n in ("mean", "noise", "zero") if n in runs), plain)
        report["foreign"] |= _following(task, reasoner.vocabulary, plain, runs["foreign"], given, idle)
    tested = [name for name in report if "mcnemar_p" in report[name]]
    for name, p in zip(tested, holm([report[n]["mcnemar_p"] for n in tested]) if tested else [], strict=True):
        report[name]["holm_p"] = round(float(p), 5)
    return report


def recovered(own: float, oracle: float, copy: float) -> float | None:
    """How much of what true sketches bring over copies of the input the model's own bring; None where they bring
    nothing."""
    return round((own - copy) / (oracle - copy), 4) if oracle > copy else None


def verdict(report: dict) -> str:
    """What may be said of a report, by one rule: content only if noise, mean and foreign latents all cost something and
    a foreign sketch is followed more often than by chance and than after latents that say nothing; markers only if
    sketching matters, content does not, and marks keep 0.8 of it."""
    needed = ("noise", "mean", "foreign")
    if not all("difference" in report.get(name, {}) for name in (*needed, "markers", "removed")):
        return "Not all probes that a verdict needs were run."
    foreign = report["foreign"]
    content = all(report[name]["difference"]["low"] > 0 for name in needed)
    followed = (
        foreign.get("follow_n", 0)
        and min(foreign["follow_difference"]["low"], foreign["follow_beyond_idle"]["low"]) > 0
    )
    gain = report["removed"]["difference"]
    if content and followed:
        return (
            "The latents carry content: noise, mean and foreign latents each cost accuracy, and the answer follows "
            "a foreign sketch more often than by chance."
        )
    if content:
        return "Replacing latents costs accuracy, but a foreign sketch is not followed: what they carry is not shown."
    kept = gain["value"] and 1 - report["markers"]["difference"]["value"] / gain["value"]
    if gain["low"] > 0 and kept >= 0.8:
        return f"Only the markers matter: they alone keep {kept:.0%} of what sketching brings."
    return "Nothing here shows that the latents matter."


def _corrupted(reasoner, task, result: Result) -> list[int]:
    """The words before the first sketch with one stated move flipped, then the opening of that sketch."""
    first = split_text(result.rollout, result.row, reasoner.vocabulary)[0]
    words = task.corrupt(first, task.stream(result.item.level, result.item.index, "corrupt"))
    return reasoner.vocabulary.encode_text(words) + ([reasoner.vocabulary.open] if result.latents else [])


def _interval(found) -> dict:
    return {"low": round(found.low, 4), "high": round(found.high, 4)}


def _accuracy(results: list[Result], key: str) -> dict:
    found = wilson(sum(r.scores[key] for r in results), len(results))
    return {
        "accuracy": round(found.estimate, 4),
        **_interval(found),
        "n": len(results),
        "exact": round(float(np.mean([r.scores.get("exact", r.scores[key]) for r in results])), 4),
    }


def _paired(plain: list[Result], changed: list[Result], key: str) -> dict:
    """Accuracy as generated minus accuracy under the probe, on the same items, and how many answers changed."""
    a, b = (np.array([r.scores[key] for r in x]) for x in (plain, changed))
    found = paired_bootstrap(a, b)
    return {
        "difference": {"value": round(found.estimate, 4), **_interval(found)},
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


def _following(task, vocabulary, plain, changed, given, idle) -> dict:
    """How often the words after a foreign sketch continue the donor's puzzle, beside how often the model's own did, and
    how often it does so after latents that say nothing (``idle``): a model that only guesses may hit the donor too."""
    pairs = [
        (c, p, plain[d], n) for c, p, d, n in zip(changed, plain, given, idle, strict=True) if d >= 0 and p.latents
    ]
    if not pairs:
        return {"follow_rate": None, "follow_n": 0}
    follows = np.array([continues(task, vocabulary, c, d) for c, _, d, _ in pairs])
    chance = np.array([continues(task, vocabulary, p, d) for _, p, d, _ in pairs])
    guessed = np.array([continues(task, vocabulary, n, d) for *_, d, n in pairs])
    found, beyond = paired_bootstrap(follows, chance), paired_bootstrap(follows, guessed)
    return {
        "follow_when_idle": round(float(guessed.mean()), 4),
        "follow_beyond_idle": {"value": round(beyond.estimate, 4), **_interval(beyond)},
        "follow_rate": round(float(follows.mean()), 4),
        "follow_by_chance": round(float(chance.mean()), 4),
        "follow_difference": {"value": round(found.estimate, 4), **_interval(found)},
        "follow_n": len(pairs),
    }


def table(report: dict) -> Table:
    """Every probe: accuracy, what it costs beside P0 on the same items, how many answers changed."""
    shown = Table(title="what the answer does when latents are replaced (95 % intervals; loss is paired)")
    for title in ("latents are", "right", "loss", "changed", "follows"):
        shown.add_column(title, justify="left" if title == "latents are" else "right")
    for name, r in report.items():
        d = r.get("difference")
        loss = f"{d['value']:+.2f}\n{d['low']:+.2f} to {d['high']:+.2f}" if d else ""
        follow = f"{r['follow_rate']:.2f}\nby chance {r['follow_by_chance']:.2f}" if r.get("follow_n") else ""
        shown.add_row(
            name.replace("_", " "),
            f"{r['accuracy']:.2f}\n{r['low']:.2f}-{r['high']:.2f}",
            loss,
            f"{r['flip_rate']:.2f}" if d else "",
            follow,
        )
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    items = parser.add_mutually_exclusive_group()
    items.add_argument("--task", default="frozenlake_plan")
    items.add_argument("--folder", help="native records: those whose split is test, with picture, sketch and answer")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels it was trained on")
    parser.add_argument("--n", type=at_least(1), default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-size", type=at_least(1), default=64)
    parser.add_argument("--out", required=True)
    with cli_errors():
        probe_to_file(parser.parse_args(argv))


def probe_to_file(given: argparse.Namespace) -> None:
    reasoner, _ = checkpoint.load(given.checkpoint)
    if not reasoner.can_sketch:
        raise ValueError(
            f"'{given.checkpoint}' was trained with {reasoner.method.name!r}, which draws no "
            "latents: there is nothing to probe."
        )
    items, task, asked = of_records(given) if given.folder else of_task(given, reasoner)
    only = OF_RECORDS if given.folder else (*MAIN, *OTHERS)
    report = probe(reasoner, task, items, given.seed, given.batch_size, only)
    atomic_write_json(
        given.out,
        {
            "schema": 1,
            "checkpoint": Path(given.checkpoint).as_posix(),
            **asked,
            "n": len(items),
            "seed": given.seed,
            "protocol": "regenerate",
            "decoding": "greedy",
            "probes": report,
        },
    )
    console.print(table(report))
    console.print(verdict(report))
    console.print(f"Written to {given.out}")


def of_task(given: argparse.Namespace, reasoner) -> tuple[list, tasks.Task, dict]:
    """Items with a sketch, their task, and what a file says of them."""
    data = reasoner.method.notes.get("data", {})
    levels = tuple(given.levels or data.get("levels", (3, 4)))
    task = tasks.make(
        given.task, split="test", seed=given.seed, level=levels, **tasks.own(given.task, data.get("options", {}))
    )
    return sketched_items(task, given.n), task, {"task": given.task, "levels": list(levels)}


def of_records(given: argparse.Namespace) -> tuple[list, Records, dict]:
    """The same of the records of a folder."""
    if given.levels:
        raise ValueError("--levels is for items of a task; records are taken as they come. Leave it out.")
    records = Records(given.folder, given.n)
    if records.left_out:
        console.print(f"{records.left_out} test records have no picture, sketch or answer and are left out.")
    return records.items, records, {"task": Path(given.folder).name, "folder": Path(given.folder).as_posix()}


if __name__ == "__main__":
    main()

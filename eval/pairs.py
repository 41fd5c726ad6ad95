"""Accuracy of a checkpoint as a reward model: which of two responses is better, by the likelihood of an answer.

    python -m eval.pairs CHECKPOINT mmrb2/reasoning DIR --out FILE.json [--judge letter|grade] [--n N] [--partial]

``--judge letter`` (the default) shows both responses and chooses the one whose letter is likelier as the boxed answer.
Every pair is shown in both orders and each order counts, as published. ``first_chosen`` is the share of orders in which
the first response is chosen: 0.5 has no position bias. ``both_orders`` counts pairs that are right in both.

``--judge grade`` shows one response at a time and asks whether it is good. The response whose odds of Yes against No are
higher is chosen, so no order is involved. eval.best_of_n chooses among samples by the same grade.

An exact tie is wrong and counted. ``sources`` has the accuracy by the source of the requests. ``eval.benchmark`` asks the
same pairs and grades what the model writes. The same command resumes an interrupted run from FILE.items.unfinished.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output, limits_of
from latent_reason.errors import cli_errors

from .benchmark_arguments import add_benchmark_arguments

JUDGES = ("letter", "grade")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.pairs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_benchmark_arguments(parser)
    add_output(parser, "FILE.json; FILE.items.jsonl is written beside it")
    parser.add_argument("--judge", choices=JUDGES, default=JUDGES[0], help="how responses are judged (default: letter)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint, methods
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.trace import Trace

from . import benchmarks
from .aggregate import interval, result_row, result_rows
from .benchmark import pixels_of, questions_digest, run_identity, table
from .constants import with_constants
from .grading import GRADE_QUESTION, grade_trace
from .item_lines import items_path, write_items
from .items import PROMPTS, EvalItem, build_trace
from .likelihood import log_odds
from .readers import open_source
from .resume import ProgressFile
from .selection import chosen_items

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Choice:
    """A judged pair. ``first`` says whether the first response is preferred, by the model's odds; None: a tie."""

    item: EvalItem
    odds: float
    first: bool | None

    @property
    def is_right(self) -> bool:
        return self.first is not None and self.first == self.item.meta["is_preferred"]


# -- judges ------------------------------------------------------------------------------------------------------------
def measure_odds(
    reasoner, traces: dict[str, Callable[[], Trace]], answers: tuple[str, str], batch_size: int, progress: ProgressFile
) -> dict[str, float]:
    """The log-odds of the first answer against the second after each prompt, by key. Images are loaded by batch."""
    missing = [key for key in traces if key not in progress.kept]
    starts = range(0, len(missing), batch_size)
    for start in track(starts, description="judge", transient=console.is_terminal):
        keys = missing[start : start + batch_size]
        found = log_odds(reasoner, [traces[key]() for key in keys], *answers)
        progress.add({key: round(odds, 6) for key, odds in zip(keys, found, strict=True)})
    return {key: progress.kept[key] for key in traces}


def judge_letters(
    reasoner, items: dict[str, EvalItem], args: argparse.Namespace, progress: ProgressFile
) -> list[Choice]:
    """One choice of each order of each pair, by the likelihood of the letters."""
    mode = methods.load(reasoner.method.name).MODE
    traces = {key: (lambda item=item: build_trace(item, "boxed", mode)) for key, item in items.items()}
    odds = measure_odds(reasoner, traces, ("A", "B"), args.batch_size, progress)
    return [Choice(item, odds[key], choose(odds[key], 0.0)) for key, item in items.items()]


def judge_grades(
    reasoner, items: dict[str, EvalItem], args: argparse.Namespace, progress: ProgressFile
) -> list[Choice]:
    """One choice of each pair, by the grades of its responses, each shown alone."""
    mode = methods.load(reasoner.method.name).MODE

    def shown(item: EvalItem) -> Trace:
        return grade_trace(item.id, item.meta["request"], item.meta["response"], mode)

    grades = measure_odds(
        reasoner,
        {key: (lambda item=item: shown(item)) for key, item in items.items()},
        ("Yes", "No"),
        args.batch_size,
        progress,
    )
    pairs: dict[str, list[tuple[EvalItem, float]]] = defaultdict(list)
    for key, item in items.items():
        pairs[item.cluster].append((item, grades[key]))
    if alone := next((name for name, pair in pairs.items() if len(pair) != 2), None):
        raise ValueError(f"pair '{alone}' has {len(pairs[alone])} orders, two are needed. Keep both items of each row.")
    return [Choice(first, grade - other, choose(grade, other)) for (first, grade), (_, other) in pairs.values()]


def choose(first: float, second: float) -> bool | None:
    """Whether the first score is higher; None if they are equal."""
    return None if first == second else first > second


# -- results -----------------------------------------------------------------------------------------------------------
def summarise(choices: Sequence[Choice], judge: str, both_orders: str | None) -> list[dict]:
    """The rows of eval.benchmark, and for letters the share of orders in which the first response is chosen."""
    items, is_right = [one.item for one in choices], [one.is_right for one in choices]
    if judge == "grade":  # which of the two is first means nothing
        row = result_row("all", "accuracy", interval(items, [float(x) for x in is_right]), len(items), 0.5)
        return [row | {"constant": None}]
    rows = with_constants(items, result_rows(items, is_right, [{}] * len(items), "accuracy", both_orders))
    decided = [one for one in choices if one.first is not None]
    if decided:
        share = interval([one.item for one in decided], [float(one.first) for one in decided])
        rows.append(result_row("all", "first_chosen", share, len(decided), 0.5) | {"constant": None})
    return rows


def by_source(choices: Sequence[Choice]) -> list[dict]:
    """The accuracy by the source of the requests."""
    groups: dict[str, list[Choice]] = defaultdict(list)
    for one in choices:
        groups[one.item.meta["source"] or "unnamed"].append(one)
    return [
        result_row(
            source, "accuracy", interval([x.item for x in some], [float(x.is_right) for x in some]), len(some), 0.5
        )
        for source, some in sorted(groups.items())
    ]


def describe_protocol(args: argparse.Namespace, items: list[EvalItem], entries: dict, reasoner) -> dict:
    """All settings that must be equal for two numbers to be comparable."""
    is_letter = args.judge == "letter"
    return entries | {
        "questions": questions_digest(items),
        "judge": f"{args.judge}: log-probability of \\boxed{{{'A' if is_letter else 'Yes'}}} against "
        f"\\boxed{{{'B' if is_letter else 'No'}}}, answered at once, without sketches",
        "prompt_text": PROMPTS["boxed"].format(form="{form}") if is_letter else GRADE_QUESTION,
        "ties": "an exact tie is wrong",
        "metric": "accuracy",
        "pixels": pixels_of(reasoner),
        **({"max_length": limit} if (limit := reasoner.backbone.length_limit) else {}),
        **(benchmarks.find(args.name)[0].notes(items) if is_letter else {}),
    }


def line_of(choice: Choice) -> dict:
    """A choice, for the file of single items."""
    return {
        "id": choice.item.id,
        "task": choice.item.task,
        "cluster": choice.item.cluster,
        "source": choice.item.meta["source"],
        "odds": round(choice.odds, 4),
        "answer": {True: "first", False: "second", None: None}[choice.first],
        "gold": "first" if choice.item.meta["is_preferred"] else "second",
        "right": choice.is_right,
    }


# -- the command -------------------------------------------------------------------------------------------------------
def check_pairs(name: str, items: list[EvalItem]) -> None:
    """Raises ValueError if the items of a benchmark are no pairs of responses."""
    if not all({"request", "response", "is_preferred"} <= item.meta.keys() for item in items):
        known = [one for one in benchmarks.names() if one.startswith("mmrb2/")]
        raise ValueError(f"'{name}' has no pairs of responses. Use one of {', '.join(known)}.")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with cli_errors():
        judge_to_file(args)


def judge_to_file(args: argparse.Namespace) -> None:
    """Checks all files before the model reads, then writes the results."""
    check_output(args.out, args.overwrite)
    check_output(items_path(args.out), args.overwrite)
    module, part = benchmarks.find(args.name)
    checkpoint.read_config(args.checkpoint)
    with open_source(args.folder) as source:
        items, entries = chosen_items(args.name, source, args.partial, args.n, args.seed)
        check_pairs(args.name, list(items.values()))
        reasoner, _ = checkpoint.load(args.checkpoint)
        limits_of(args).apply_to(reasoner.backbone)
        protocol = describe_protocol(args, list(items.values()), entries, reasoner)
        judge = judge_letters if args.judge == "letter" else judge_grades
        identity = run_identity(args, protocol, items) | {"command": "eval.pairs"}
        with ProgressFile(items_path(args.out).with_suffix(".unfinished"), identity) as progress:
            choices = judge(reasoner, items, args, progress)
            rows = summarise(choices, args.judge, getattr(module, "GROUPED", {}).get(part))
            ties = sum(one.first is None for one in choices)
            write_items(items_path(args.out), map(line_of, choices))
            atomic_write_json(
                args.out,
                {
                    "schema": 1,
                    "kind": "benchmark",
                    "checkpoint": Path(args.checkpoint).as_posix(),
                    "method": reasoner.method.name,
                    "benchmark": args.name,
                    "protocol": protocol,
                    "seed": args.seed,
                    "device": str(reasoner.device),
                    "results": rows,
                    "sources": by_source(choices),
                    "unparsed": ties,
                },
            )
            progress.remove()
    console.print(table(rows))
    console.print(f"{ties} of {len(choices)} are ties, which are wrong. Results written to {args.out}")


if __name__ == "__main__":
    main()

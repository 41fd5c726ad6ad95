"""Accuracy of a checkpoint on a public benchmark in a local folder. Answers are graded by rule.

    python -m eval.benchmark CHECKPOINT NAME DIR --out FILE.json [--n N] [--prompt boxed] [--partial] [--blind]
    python -m eval.benchmark --list

Nothing is downloaded. Rows that cannot be asked are left out and counted by reason. The result has the full protocol.
FILE.items.jsonl beside FILE.json has one line per item. The same command resumes an interrupted run from
FILE.items.unfinished, in whatever order the rows stand then. ``--partial`` allows a folder without all published
items or images. ``--n`` evaluates a sample of whole clusters. The protocol notes both. ``--blind`` removes the images, ``--grey``
replaces them by gray ones; with ``--seeing FILE.json`` (a run of the same protocol with images) both report the share
of the accuracy that is retained, raw and corrected for chance.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_limits, add_output, limits_of
from latent_reason.errors import at_least, cli_errors
from latent_reason.values import Seed, Temperature, argument

from .items import PROMPTS, EvalItem, prompt_text


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("name", nargs="?", help="a name of --list")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="folder with the files of the benchmark")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    add_output(parser, "FILE.json; FILE.items.jsonl is written beside it", required=False)
    parser.add_argument("--n", type=at_least(1), help="number of items, sampled with --seed (default: all)")
    parser.add_argument("--partial", action="store_true", help="allow missing items and images")
    parser.add_argument("--prompt", help=f"{', '.join(PROMPTS)}, or a text with {{question}} and optionally {{form}}")
    blind = parser.add_mutually_exclusive_group()
    blind.add_argument("--blind", action="store_const", const="removed", help="remove the images")
    blind.add_argument("--grey", dest="blind", action="store_const", const="grey", help="replace images by gray ones")
    parser.add_argument("--seeing", metavar="FILE.json", help="for --blind and --grey: the run with images to compare")
    parser.add_argument("--judge", help="dotted path of judge(question, reply, gold) for replies that no rule reads")
    parser.add_argument("--max-new", type=at_least(1), default=640, help="maximum number of new positions of a reply")
    parser.add_argument("--temperature", type=argument(Temperature), default=0.0, help="0: greedy decoding")
    parser.add_argument("--seed", type=argument(Seed), default=0)
    parser.add_argument("--batch-size", type=at_least(1), default=8)
    add_limits(parser)
    args = parser.parse_args(argv)
    if not args.list and None in (args.checkpoint, args.name, args.folder, args.out):
        parser.error("CHECKPOINT, NAME, DIR and --out are required (or use --list)")
    return args


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from latent_reason import checkpoint
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output

from . import benchmarks
from .aggregate import check_comparable, read_seeing, result_rows, retention
from .constants import with_constants
from .item_lines import items_path, write_items
from .judges import judge_unread, load_judge
from .readers import open_source
from .replies import ReplyOptions, decode_replies
from .resume import ProgressFile, model_digest
from .scoring import Judgment, judge, judge_by_checker
from .selection import chosen_items

console = Console(soft_wrap=True)
SPANS = "the last box, <answer>, <Output>, the last sentence that states an answer, a line that is one (eval/spans.py)"


@dataclass
class Answer:
    """One decoded item. ``latents`` has the length of each span, ``other_checks`` the results of further checkers."""

    item: EvalItem
    text: str
    judgment: Judgment
    other_checks: dict[str, bool]
    latents: list[int]
    tokens: int
    seconds: float


# -- protocol ----------------------------------------------------------------------------------------------------------
def build_protocol(
    name: str, items: list[EvalItem], protocol_entries: dict, reasoner, args: argparse.Namespace
) -> dict:
    """All settings that must be equal for two numbers to be comparable."""
    module, _ = benchmarks.find(name)
    notes = module.notes(items) if hasattr(module, "notes") else {}
    known = args.prompt in PROMPTS
    return protocol_entries | {
        "questions": questions_digest(items),
        "prompt": args.prompt if known else "own",
        "prompt_text": PROMPTS[args.prompt].format(form="{form}") if known else args.prompt,
        "checker": ", ".join(sorted({item.checker for item in items})),
        "answer_span": SPANS,
        "metric": getattr(module, "METRIC", "accuracy") + "_with_judge" * bool(args.judge),
        **({"judge": f"{args.judge}, for replies that no rule reads"} if args.judge else {}),
        "blind": args.blind,
        "max_new": args.max_new,
        "temperature": args.temperature,
        "pixels": pixels_of(reasoner),
        **({"max_length": limit} if (limit := reasoner.backbone.length_limit) else {}),
        **notes,
    }


def questions_digest(items: list[EvalItem]) -> str:
    """A short hash of what is asked and what is right: ids, questions with options, numbers of images, gold answers. Runs
    on other questions, or on corrected answers, differ in it."""
    asked = sorted((item.id, prompt_text(item, "bare"), len(item.images), item.answer) for item in items)
    return sha256(json.dumps(asked).encode()).hexdigest()[:12]


def run_identity(args: argparse.Namespace, protocol: dict, keys: Iterable[str]) -> dict:
    """All that must be equal to resume a run. The order of the items is no part of it: an answer depends on its item."""
    return {
        "benchmark": args.name,
        "model": model_digest(args.checkpoint),
        "data": sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16],
        "seed": args.seed,
        "protocol": protocol,
    }


def pixels_of(reasoner) -> str:
    """The image size limits of the model's processor. Some families call the minimum and maximum number of pixels
    ``shortest_edge`` and ``longest_edge``."""
    size = dict(getattr(reasoner.backbone.image_processor, "size", None) or {})
    return ", ".join(f"{name} {value}" for name, value in sorted(size.items()) if value) or "unknown"


# -- decoding ----------------------------------------------------------------------------------------------------------
def answer_items(
    reasoner,
    items: dict[str, EvalItem],
    other_checks: tuple[str, ...],
    args: argparse.Namespace,
    progress: ProgressFile,
) -> list[Answer]:
    """Answers to the items in order."""
    options = ReplyOptions(args.prompt, args.max_new, args.temperature, args.seed, args.batch_size, args.blind)
    replies = decode_replies(reasoner, items, options, progress, args.name)
    model_judge = load_judge(args.judge) if args.judge else None
    return [make_answer(item, other_checks, model_judge, **replies[key]) for key, item in items.items()]


def make_answer(
    item: EvalItem,
    other_checks: tuple[str, ...],
    model_judge,
    text: str,
    latents: list[int],
    tokens: int,
    seconds: float,
) -> Answer:
    """A reply, judged."""
    others = {name: judge_by_checker(text, item, name).is_right for name in other_checks if item.checker == "vsp"}
    judgment = judge_unread(judge(text, item), text, item, model_judge)
    return Answer(item, text, judgment, others, latents, tokens, seconds)


def item_line(answer: Answer, prompt: str) -> dict:
    """An item, for the file of single items."""
    return {
        "id": answer.item.id,
        "task": answer.item.task,
        "cluster": answer.item.cluster,
        "prompt": prompt,
        "text": answer.text,
        "spans": len(answer.latents),
        "latents": answer.latents,
        "answer": answer.judgment.parsed,
        "gold": answer.item.answer,
        "right": answer.judgment.is_right,
        **answer.other_checks,
        "seconds": round(answer.seconds, 4),
        "tokens": answer.tokens,
    }


# -- the command -------------------------------------------------------------------------------------------------------
def print_protocol(args: argparse.Namespace, items: list[EvalItem], protocol: dict) -> None:
    """Prints the protocol and the first prompt as an example."""
    output = Table(title=f"{args.name}: protocol", show_header=False)
    tasks = Counter(item.task for item in items)
    facts = {
        "items": f"{len(items)} in {len({item.cluster for item in items})} clusters",
        "tasks": ", ".join(f"{task} {count}" for task, count in tasks.most_common(8)) + ", ..." * (len(tasks) > 8),
    }
    example = prompt_text(items[0], args.prompt)
    for key, value in (facts | protocol | {"seed": args.seed, "example": example}).items():
        output.add_row(key, "-" if value in (None, "") else Text(str(value)), end_section=key in ("tasks", "seed"))
    console.print(output)


def table(results: list[dict]) -> Table:
    output = Table(title="accuracy with 95 % interval, chance and the best constant answer")
    for title in ("task", "measure", "n", "value", "interval", "chance", "constant"):
        output.add_column(title, justify="left" if title in ("task", "measure") else "right")
    for r in results:
        output.add_row(
            Text(r["task"]),
            r["metric"],
            str(r["n"]),
            f"{r['value']:.3f}",
            f"{r['low']:.2f}-{r['high']:.2f}",
            *("-" if r[name] is None else f"{r[name]:.3f}" for name in ("chance", "constant")),
        )
    return output


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.list:
        console.print(benchmarks.benchmark_table())
        return
    with cli_errors():
        run_to_file(args)


def run_to_file(args: argparse.Namespace) -> None:
    """Checks all files and options before the model decodes, then writes the results."""
    module, _ = benchmarks.find(args.name)
    args.prompt = args.prompt or getattr(module, "PROMPT", "boxed")
    check_options(args)
    seeing = read_seeing(args.seeing) if args.seeing else None
    with open_source(args.folder) as source:
        items, protocol_entries = chosen_items(args.name, source, args.partial, args.n, args.seed)
        reasoner, _ = checkpoint.load(args.checkpoint)
        limits_of(args).apply_to(reasoner.backbone)
        check_head_context(reasoner, list(items.values()), args.blind)
        protocol = build_protocol(args.name, list(items.values()), protocol_entries, reasoner, args)
        if seeing:
            check_comparable(seeing, args.seeing, args.name, protocol)
        print_protocol(args, list(items.values()), protocol)
        with ProgressFile(
            items_path(args.out).with_suffix(".unfinished"), run_identity(args, protocol, items)
        ) as progress:
            answers = answer_items(reasoner, items, getattr(module, "ALSO", ()), args, progress)
            write_results(args, reasoner, protocol, answers, seeing["results"] if seeing else None)
            progress.remove()


def write_results(
    args: argparse.Namespace, reasoner, protocol: dict, answers: list[Answer], reference: list[dict] | None
) -> None:
    """Write FILE.json and FILE.items.jsonl, and print the results. ``reference`` has those of the run with images."""
    module, part = benchmarks.find(args.name)
    lines = items_path(args.out)
    results = with_constants(
        [answer.item for answer in answers],
        result_rows(
            [answer.item for answer in answers],
            [answer.judgment.is_right for answer in answers],
            [answer.other_checks for answer in answers],
            protocol["metric"],
            getattr(module, "GROUPED", {}).get(part),
        ),
    )
    report = build_report(args, reasoner, protocol, results, answers)
    if reference:
        report["retention"] = retention(reference, results)
    write_items(lines, (item_line(answer, protocol["prompt"]) for answer in answers))
    atomic_write_json(args.out, report)
    console.print(table(results))
    print_retention(report.get("retention", []))
    console.print(
        f"{report['unparsed']} of {len(answers)} replies had no answer that could be parsed. Results written to {args.out}, "
        f"single items to {lines}"
    )


def build_report(
    args: argparse.Namespace, reasoner, protocol: dict, results: list[dict], answers: list[Answer]
) -> dict:
    """The JSON of a run."""
    count = len(answers)
    return {
        "schema": 1,
        "kind": "benchmark",
        "checkpoint": Path(args.checkpoint).as_posix(),
        "method": reasoner.method.name,
        "benchmark": args.name,
        "protocol": protocol,
        "seed": args.seed,
        "device": str(reasoner.device),
        "results": results,
        "unparsed": sum(answer.judgment.parsed is None for answer in answers),
        "latents_per_item": round(sum(sum(answer.latents) for answer in answers) / count, 3),
        "tokens_per_item": round(sum(answer.tokens for answer in answers) / count, 3),
        "seconds_per_item": round(sum(answer.seconds for answer in answers) / count, 4),
    }


def print_retention(rows: list[dict]) -> None:
    for row in rows:
        if row["task"] != "all":
            continue
        share, corrected = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("retention", "corrected"))
        console.print(
            f"{row['metric']}: {row['blind']:.3f} without images, {row['seeing']:.3f} with images, "
            f"retention {share}, corrected for chance {corrected}"
        )


def check_options(args: argparse.Namespace) -> None:
    if not args.out.endswith(".json"):
        raise ValueError(f"--out '{args.out}' does not end with .json. Give a name that does.")
    for path in (args.out, items_path(args.out)):
        check_output(path, args.overwrite)
    checkpoint.read_config(args.checkpoint)
    if args.judge:
        load_judge(args.judge)
    if args.prompt not in PROMPTS and "{question}" not in args.prompt:
        raise ValueError(
            f"unknown prompt '{args.prompt[:60]}'. Use one of {', '.join(PROMPTS)}, or a text that contains "
            "{question}."
        )
    if args.seeing and not args.blind:
        raise ValueError("--seeing gives a run with images to compare with. Add --blind or --grey.")


def check_head_context(reasoner, items: list[EvalItem], blind: str | None) -> None:
    """Raises ValueError if the head needs image tokens and some items would have no image."""
    num_without_images = sum(blind == "removed" or not item.images for item in items)
    if num_without_images and reasoner.head is not None and reasoner.head.needs_context:
        todo = " Use --grey instead of --blind." if blind else " Use another benchmark."
        raise ValueError(
            f"the head of method '{reasoner.method.name}' needs an image, but {num_without_images} items have "
            f"none.{todo}"
        )


if __name__ == "__main__":
    main()

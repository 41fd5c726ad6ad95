"""Accuracy of choosing: a checkpoint answers a benchmark several times, and a judge chooses one answer of each item.

    python -m eval.best_of_n CHECKPOINT NAME DIR --judge JUDGE --out FILE.json [--samples 8] [--n N] [--partial]

JUDGE is a checkpoint. It sees the question with its images and the text of one sample, and grades it by the odds of Yes
against No, as ``eval.pairs --judge grade`` does. The sample with the highest grade is chosen; the first of equal ones.
Beside its accuracy stand the mean accuracy of a sample (``sample``), that of the most frequent answer (``majority``),
and the share of items of which any sample is right (``any``). ``gain`` is chosen minus sample, paired by item. Answers
are graded by rule, as in eval.benchmark. The same command resumes an interrupted run from FILE.items.unfinished.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output, limits_of
from latent_reason.errors import at_least, cli_errors
from latent_reason.values import Temperature, argument

from .benchmark_arguments import add_benchmark_arguments, add_reply_arguments


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.best_of_n", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_benchmark_arguments(parser)
    add_output(parser, "FILE.json; FILE.items.jsonl is written beside it")
    add_reply_arguments(parser)
    parser.add_argument("--judge", required=True, metavar="CHECKPOINT", help="the model that grades the samples")
    parser.add_argument("--samples", type=at_least(2), default=8, help="answers to each item (default: 8)")
    parser.add_argument("--temperature", type=argument(Temperature), default=0.7, help="of the samples (default: 0.7)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint, methods
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.trace import Text

from . import benchmarks
from .aggregate import interval, result_row
from .benchmark import check_head_context, pixels_of, questions_digest, run_identity, table
from .grading import GRADE_QUESTION, grade, grade_trace
from .item_lines import items_path, write_items
from .items import PROMPTS, EvalItem, interleave, prompt_text
from .readers import open_source
from .replies import ReplyOptions, decode_replies
from .resume import ProgressFile, model_digest
from .scoring import Judgment, judge
from .selection import chosen_items
from .statistics import paired_bootstrap

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Samples:
    """The samples of an item: how the rule grades each, and how the judge does."""

    item: EvalItem
    judgments: list[Judgment]
    grades: list[float]

    @property
    def rights(self) -> list[float]:
        return [float(one.is_right) for one in self.judgments]

    @property
    def chosen(self) -> int:
        """The number of the sample with the highest grade; the first of equal ones."""
        return max(range(len(self.grades)), key=self.grades.__getitem__)

    @property
    def majority(self) -> int:
        """The first sample with the most frequent answer; the first sample if no answer could be parsed. Answers that the
        rule of the item takes for each other, such as 5 and 5.0, are one."""
        groups: list[list[int]] = []
        for number, one in enumerate(self.judgments):
            if one.parsed is None:
                continue
            same = (group for group in groups if is_same(self.item, self.judgments[group[0]].parsed, one.parsed))
            group = next(same, None)
            if group is None:
                groups.append([number])
            else:
                group.append(number)
        return max(groups, key=len)[0] if groups else 0


def is_same(item: EvalItem, answer: str, other: str) -> bool:
    """Whether the rule of an item takes one parsed answer for the other. Letters of options are compared as they are."""
    if answer == other or item.options:
        return answer == other
    return judge(f"\\boxed{{{other}}}", replace(item, answer=answer)).is_right


def draw_samples(
    reasoner, items: dict[str, EvalItem], args: argparse.Namespace, progress: ProgressFile
) -> list[dict[str, dict]]:
    """The replies to all items, once for each sample. Each has a seed of its own."""
    rounds = []
    for number in range(args.samples):
        seed = args.seed * args.samples + number
        options = ReplyOptions(args.prompt, args.max_new, args.temperature, seed, args.batch_size)
        labelled = {f"sample {number} {key}": item for key, item in items.items()}
        found = decode_replies(reasoner, labelled, options, progress, f"sample {number + 1} of {args.samples}")
        rounds.append(dict(zip(items, found.values(), strict=True)))
    return rounds


def grade_samples(
    judge_model, items: dict[str, EvalItem], rounds: list[dict], prompt: str, batch_size: int, progress: ProgressFile
) -> dict[tuple[str, int], float]:
    """The grade of each sample, by the key of its item and its number. Equal texts of an item are graded once."""
    mode, texts = methods.load(judge_model.method.name).MODE, {}
    for replies in rounds:
        for key, reply in replies.items():
            texts.setdefault(f"grade {key} {reply['text']}", (key, reply["text"]))
    missing = [name for name in texts if name not in progress.kept]
    for start in track(range(0, len(missing), batch_size), description="grades", transient=console.is_terminal):
        names = missing[start : start + batch_size]
        traces = [
            grade_trace(key, request_of(items[key], prompt), [("text", text or "(empty)")], mode)
            for key, text in map(texts.__getitem__, names)
        ]
        progress.add({name: round(x, 6) for name, x in zip(names, grade(judge_model, traces), strict=True)})
    return {
        (key, number): progress.kept[f"grade {key} {reply['text']}"]
        for number, replies in enumerate(rounds)
        for key, reply in replies.items()
    }


def request_of(item: EvalItem, prompt: str) -> list[tuple]:
    """The question of an item as the model was asked, with its images at their places."""
    parts = interleave(prompt_text(item, prompt), item.images)
    return [("text", part.text) if isinstance(part, Text) else ("image", part) for part in parts]


# -- results -----------------------------------------------------------------------------------------------------------
def summarise(samples: Sequence[Samples]) -> tuple[list[dict], dict]:
    """(accuracies, gain of the choice over a sample)."""
    items = [one.item for one in samples]
    means = [sum(one.rights) / len(one.rights) for one in samples]
    values = {
        "chosen": [one.rights[one.chosen] for one in samples],
        "sample": means,
        "majority": [one.rights[one.majority] for one in samples],
        "any": [max(one.rights) for one in samples],
    }
    rows = [
        result_row("all", name, interval(items, some), len(items), None) | {"constant": None}
        for name, some in values.items()
    ]
    gain = paired_bootstrap(values["chosen"], means, [item.cluster for item in items])
    return rows, {name: round(x, 4) for name, x in gain._asdict().items()}


def describe_protocol(args: argparse.Namespace, items: list[EvalItem], entries: dict, reasoner, judge_model) -> dict:
    """All settings that must be equal for two numbers to be comparable."""
    return entries | {
        "questions": questions_digest(items),
        "prompt": args.prompt,
        "prompt_text": PROMPTS[args.prompt].format(form="{form}"),
        "checker": ", ".join(sorted({item.checker for item in items})),
        "metric": "chosen",
        "judge": f"{Path(args.judge).as_posix()}: odds of Yes against No to '{GRADE_QUESTION}'",
        "judge_model": model_digest(args.judge),
        "samples": args.samples,
        "temperature": args.temperature,
        "max_new": args.max_new,
        "pixels": pixels_of(reasoner),
        "judge_pixels": pixels_of(judge_model),
        **({"max_length": limit} if (limit := reasoner.backbone.length_limit) else {}),
    }


def line_of(one: Samples, texts: list[str]) -> dict:
    """An item, for the file of single items."""
    return {
        "id": one.item.id,
        "task": one.item.task,
        "cluster": one.item.cluster,
        "gold": one.item.answer,
        "answers": [judgment.parsed for judgment in one.judgments],
        "grades": [round(x, 4) for x in one.grades],
        "chosen": one.chosen,
        "text": texts[one.chosen],
        "right": bool(one.rights[one.chosen]),
    }


# -- the command -------------------------------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with cli_errors():
        choose_to_file(args)


def choose_to_file(args: argparse.Namespace) -> None:
    """Checks all files before a model decodes, then writes the results."""
    if args.temperature == 0:
        raise ValueError("--temperature 0: all samples would be equal. Use more than 0.")
    check_output(args.out, args.overwrite)
    check_output(items_path(args.out), args.overwrite)
    benchmarks.find(args.name)
    for folder in (args.checkpoint, args.judge):
        checkpoint.read_config(folder)
    with open_source(args.folder) as source:
        items, entries = chosen_items(args.name, source, args.partial, args.n, args.seed)
        reasoner, _ = checkpoint.load(args.checkpoint)
        judge_model, _ = checkpoint.load(args.judge)
        for model in (reasoner, judge_model):
            limits_of(args).apply_to(model.backbone)
        check_head_context(reasoner, list(items.values()), None)
        protocol = describe_protocol(args, list(items.values()), entries, reasoner, judge_model)
        identity = run_identity(args, protocol, items) | {"command": "eval.best_of_n"}
        with ProgressFile(items_path(args.out).with_suffix(".unfinished"), identity) as progress:
            rounds = draw_samples(reasoner, items, args, progress)
            grades = grade_samples(judge_model, items, rounds, args.prompt, args.batch_size, progress)
            samples = {
                key: Samples(
                    item,
                    [judge(replies[key]["text"], item) for replies in rounds],
                    [grades[key, number] for number in range(args.samples)],
                )
                for key, item in items.items()
            }
            rows, gain = summarise(list(samples.values()))
            texts = {key: [replies[key]["text"] for replies in rounds] for key in items}
            write_items(items_path(args.out), (line_of(one, texts[key]) for key, one in samples.items()))
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
                    "gain": gain,
                },
            )
            progress.remove()
    console.print(table(rows))
    console.print(
        f"gain of the choice over a sample: {gain['estimate']:+.3f} ({gain['low']:+.2f} to {gain['high']:+.2f}). Results "
        f"written to {args.out}"
    )


if __name__ == "__main__":
    main()

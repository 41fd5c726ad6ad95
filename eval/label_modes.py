"""Labels each record with the reasoning mode it needs. A model answers k times, without and with the sketches shown.

    python -m eval.label_modes CHECKPOINT FOLDER --out DIR [--k 8] [--split train]
    python -m train.sft --config RECIPE --data.folder DIR

The rule follows SwimBird's curation (arXiv 2602.06040). It uses the share of right answers among k samples (its pass@8):

    direct   always right from the question alone: needs neither text nor sketches (SwimBird leaves these records out,
             as --drop-easy does)
    vision   with the sketches shown, right in at least 0.75 (--vision) of the samples: the sketches suffice
    mixed    other records with sketches
    text     records without sketches
    (left out: less often right with the sketches than without; no gold answer; sketches in an earlier turn)

DIR gets the records in their mode: vision keeps the sketches and the boxed answer, direct the answer alone.
``meta.pass`` has the number of right answers. The rule of the task grades an answer if the record belongs to a task of
this project. Otherwise the answer must equal the gold answer up to case and a final full stop. Sketching is off, so that
only the shown sketches differ. DIR.json has the figures.
"""

from __future__ import annotations

import argparse

from latent_reason.errors import at_least, cli_errors
from latent_reason.values import Seed, Share, Temperature, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.label_modes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("folder", help="native records, in files or packed")
    parser.add_argument("--out", required=True, help="new folder of native records")
    parser.add_argument("--k", type=at_least(1), default=8, help="samples per record, without and with sketches")
    parser.add_argument("--n", type=at_least(1), help="number of records, from the first (default: all)")
    parser.add_argument("--split", default="train", help="split of the records (default: train)")
    parser.add_argument(
        "--vision", type=argument(Share), default=0.75, metavar="SHARE", help="pass rate for the mode vision"
    )
    parser.add_argument("--drop-easy", action="store_true", help="leave out records that need no sketch and no text")
    parser.add_argument("--temperature", type=argument(Temperature), default=1.0)
    parser.add_argument("--max-new", type=at_least(1), default=640, help="maximum number of new positions of an answer")
    parser.add_argument("--seed", type=argument(Seed), default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from latent_reason import checkpoint, tasks
from latent_reason.data import native
from latent_reason.decoding.engine import generate
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output, check_output_folder
from latent_reason.tasks.checkers import boxed
from latent_reason.trace import Image, Message, Sketch, Text, Trace

from .answers import normalize_answer
from .statistics import pass_at_k

console = Console(soft_wrap=True)
MODES = ("direct", "text", "vision", "mixed")
cached_task = cache(tasks.make)


@dataclass(frozen=True)
class PassCounts:
    """Number of right answers among ``samples`` per record; ``hinted`` (sketches shown) is None without sketches."""

    samples: int
    alone: int
    hinted: int | None = None


def mode_of(counts: PassCounts, has_text: bool, vision: float = 0.75, drop_easy: bool = False) -> str | None:
    """The mode of a record by the rule above, or None to leave it out. ``has_text``: whether it reasons in text."""
    if counts.alone == counts.samples:
        return None if drop_easy else "direct"
    if counts.hinted is None:
        return "text" if has_text else "direct"
    if counts.hinted < counts.alone:
        return None
    return "mixed" if has_text and counts.hinted / counts.samples < vision else "vision"


# -- records -----------------------------------------------------------------------------------------------------------
def gold_answer(trace: Trace) -> str | None:
    return trace.answer if trace.answer is not None else boxed(trace.assistant_text())


def has_reasoning_text(trace: Trace) -> bool:
    """Whether there is text before the boxed answer."""
    *before, last = trace.messages[-1].content
    texts = [part.text for part in before if isinstance(part, Text)] + [last.text.rpartition("\\boxed{")[0]]
    return any(text.strip() for text in texts)


def convert_to_mode(trace: Trace, mode: str, counts: PassCounts) -> Trace:
    """The record in the format of ``mode``, with its counts in ``meta``."""
    if mode in ("direct", "vision"):
        parts = trace.messages[-1].content if mode == "vision" else ()
        content = (
            *(part for part in parts if isinstance(part, Sketch)),
            Text(f"\\boxed{{{gold_answer(trace).strip()}}}"),
        )
        trace = replace(trace, messages=(*trace.messages[:-1], Message("assistant", content)))
    return replace(trace, mode=mode, meta={**trace.meta, "pass": asdict(counts)})


def with_sketches_shown(trace: Trace) -> Trace:
    """The record with its sketches as images in the last question, after the images there."""
    *before, question, answer = trace.messages
    at = max((i + 1 for i, part in enumerate(question.content) if isinstance(part, Image)), default=0)
    sketches = [Image(part.image) for part in answer.content if isinstance(part, Sketch)]
    return replace(
        trace, messages=(*before, Message("user", (*question.content[:at], *sketches, *question.content[at:])), answer)
    )


def reason_to_skip(trace: Trace) -> str | None:
    """Why a record cannot be labeled; None if it can."""
    if trace.messages[-1].role != "assistant":
        return "no answer turn"
    last = trace.messages[-1].content[-1]
    if gold_answer(trace) is None or not isinstance(last, Text) or "\\boxed{" not in last.text:
        return "no boxed answer"
    if any(isinstance(part, Sketch) for message in trace.messages[:-1] for part in message.content):
        return "sketches in an earlier turn"
    return None


# -- answers -----------------------------------------------------------------------------------------------------------
def is_right(trace: Trace, text: str) -> bool:
    if trace.task in tasks.names() and "checker" in trace.meta:
        return cached_task(trace.task).check(text, trace.meta).ok
    return normalize_answer(boxed(text) or text) == normalize_answer(gold_answer(trace))


def count_right(
    reasoner,
    traces: Sequence[Trace],
    k: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
    progress: str = "",
) -> list[int]:
    """The number of right answers among k samples, for each record."""
    num_right, processor = [0] * len(traces), reasoner.processor
    starts = [(sample, start) for start in range(0, len(traces), batch_size) for sample in range(k)]
    for sample, start in track(starts, description=progress, console=console, transient=True):
        chunk = traces[start : start + batch_size]
        prompt = processor(chunk, generate=True).to(reasoner.device)
        rollout = generate(
            reasoner,
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed * k + sample,
            row_ids=range(start, start + len(chunk)),
            latent_mode="off",
        )
        for row, trace in enumerate(chunk):
            num_right[start + row] += is_right(trace, rollout.text(row, reasoner.vocabulary))
    return num_right


def count_passes(reasoner, traces: Sequence[Trace], k: int, **options) -> list[PassCounts]:
    """Counts for each record without sketches and, if it has any, with its sketches shown."""
    with_sketches = [i for i, trace in enumerate(traces) if trace.sketches()]
    alone = count_right(reasoner, traces, k, progress="from the question alone", **options)
    shown = [with_sketches_shown(traces[i]) for i in with_sketches]
    hinted = count_right(reasoner, shown, k, progress="with its sketches shown", **options)
    hints = dict(zip(with_sketches, hinted, strict=True))
    return [PassCounts(k, count, hints.get(i)) for i, count in enumerate(alone)]


# -- the table ---------------------------------------------------------------------------------------------------------
def summary(labels: Sequence[str | None], counts: Sequence[PassCounts], k: int) -> dict[str, dict]:
    """Per label: number of records, and mean pass@1 and pass@k without and with sketches shown."""
    out = {}
    for label in (*MODES, None):
        chosen = [c for c, record_label in zip(counts, labels, strict=True) if record_label == label]
        counts_by_setting = {
            "alone": [c.alone for c in chosen],
            "hinted": [c.hinted for c in chosen if c.hinted is not None],
        }
        out[label or "left out"] = {"records": len(chosen)} | {
            f"pass@{n} {setting}": round(sum(pass_at_k(k, c, n) for c in right) / len(right), 4) if right else None
            for setting, right in counts_by_setting.items()
            for n in dict.fromkeys((1, k))
        }
    return out


def summary_table(label_summary: dict[str, dict]) -> Table:
    output = Table(title="records and pass rates by reasoning mode")
    output.add_column("mode")
    for title in next(iter(label_summary.values())):
        output.add_column(title, justify="right")
    for label, row in label_summary.items():
        records, *shares = row.values()
        output.add_row(label, str(records), *("" if share is None else f"{share:.2f}" for share in shares))
    return output


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        label_to_folder(parse_arguments(argv))


def label_to_folder(args: argparse.Namespace) -> None:
    if args.temperature <= 0:
        raise ValueError(f"--temperature {args.temperature}: must be greater than 0, or all samples are equal.")
    check_output_folder(args.out)
    check_output(f"{args.out}.json", None)
    reasoner, _ = checkpoint.load(args.checkpoint)
    records = list(islice((t for t in native.read(args.folder) if t.split == args.split), args.n))
    skipped = Counter(filter(None, map(reason_to_skip, records)))
    traces = [trace for trace in records if reason_to_skip(trace) is None]
    if not traces:
        raise ValueError(f"'{args.folder}' has no records of the split '{args.split}' with a boxed answer.")
    counts = count_passes(
        reasoner, traces, args.k, temperature=args.temperature, max_new_tokens=args.max_new, seed=args.seed
    )
    labels = [
        mode_of(c, has_reasoning_text(trace), args.vision, args.drop_easy)
        for c, trace in zip(counts, traces, strict=True)
    ]
    label_summary = summary(labels, counts, args.k)
    console.print(summary_table(label_summary))
    if skipped:
        console.print("Skipped: " + ", ".join(f"{count} with {reason}" for reason, count in skipped.items()))
    labeled = [convert_to_mode(*row) for row in zip(traces, labels, counts, strict=True) if row[1] is not None]
    if not labeled:
        raise ValueError("The rule leaves out every record. No folder was written.")
    native.write(labeled, args.out)
    atomic_write_json(
        f"{args.out}.json",
        {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "folder": Path(args.folder).as_posix(),
            "split": args.split,
            "k": args.k,
            "temperature": args.temperature,
            "seed": args.seed,
            "vision": args.vision,
            "drop_easy": args.drop_easy,
            "not_looked_at": dict(skipped),
            "modes": label_summary,
        },
    )
    console.print(
        f"{len(labeled)} records in {args.out}, figures in {args.out}.json. To train on them: --data.folder {args.out}"
    )


if __name__ == "__main__":
    main()

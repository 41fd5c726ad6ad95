"""Which way of reasoning does each record need? Answered k times from the question alone and with its sketches shown.

    python -m eval.label_modes CHECKPOINT FOLDER --out DIR [--k 8] [--split train]
    python -m train.sft --config RECIPE --data.folder DIR

The rule, after SwimBird's curation (2602.06040), on the share of k sampled answers that are right (its pass@8):

    direct   the question alone is answered right every time: neither words nor sketches are needed (SwimBird leaves
             such records out, as --drop-easy does)
    vision   shown its sketches it is right in 0.75 (--vision) of the samples or more: the sketches say it all
    mixed    other records with sketches
    text     records without sketches
    (left out: right less often with the sketches than without; no gold answer; sketches in an earlier turn)

The records of DIR are rewritten in their mode: vision keeps the sketches and the boxed answer, direct the answer alone;
``meta.pass`` says how often each way was right. An answer is judged by the rule of its task where the record is of one
of ours, else it is right where it is the gold one but for case and a full stop. Sketching is off while it answers, so
that the two ways differ by the hint alone. DIR.json holds the figures.
"""

from __future__ import annotations

import argparse
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
from latent_reason.errors import at_least, cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.tasks.checkers import boxed
from latent_reason.trace import Image, Message, Sketch, Text, Trace

from .answers import plain
from .statistics import pass_at_k

console = Console(soft_wrap=True)
MODES = ("direct", "text", "vision", "mixed")
rule_of = cache(tasks.make)


@dataclass(frozen=True)
class Passed:
    """How many of ``samples`` answers to a record were right; ``hinted`` is None where it has no sketches."""

    samples: int
    alone: int
    hinted: int | None = None


def mode_of(passed: Passed, words: bool, vision: float = 0.75, drop_easy: bool = False) -> str | None:
    """The mode of a record by the rule above, or None to leave it out. ``words``: whether it reasons in words."""
    if passed.alone == passed.samples:
        return None if drop_easy else "direct"
    if passed.hinted is None:
        return "text" if words else "direct"
    if passed.hinted < passed.alone:
        return None
    return "mixed" if words and passed.hinted / passed.samples < vision else "vision"


# -- records -----------------------------------------------------------------------------------------------------------
def gold(trace: Trace) -> str | None:
    return trace.answer if trace.answer is not None else boxed(trace.assistant_text())


def speaks(trace: Trace) -> bool:
    """Whether words stand before the boxed answer."""
    *before, last = trace.messages[-1].content
    said = [part.text for part in before if isinstance(part, Text)] + [last.text.rpartition("\\boxed{")[0]]
    return any(text.strip() for text in said)


def in_mode(trace: Trace, mode: str, passed: Passed) -> Trace:
    """The record as it is taught in ``mode``, with what it passed."""
    if mode in ("direct", "vision"):
        drawn = trace.messages[-1].content if mode == "vision" else ()
        told = (*(part for part in drawn if isinstance(part, Sketch)), Text(f"\\boxed{{{gold(trace).strip()}}}"))
        trace = replace(trace, messages=(*trace.messages[:-1], Message("assistant", told)))
    return replace(trace, mode=mode, meta={**trace.meta, "pass": asdict(passed)})


def hinted(trace: Trace) -> Trace:
    """The record with its sketches shown in the last question, after the pictures that are there."""
    *before, asked, told = trace.messages
    at = max((i + 1 for i, part in enumerate(asked.content) if isinstance(part, Image)), default=0)
    shown = [Image(part.image) for part in told.content if isinstance(part, Sketch)]
    return replace(trace, messages=(*before, Message("user", (*asked.content[:at], *shown, *asked.content[at:])), told))


def unfit(trace: Trace) -> str | None:
    """Why a record cannot be labelled, if it cannot."""
    if trace.messages[-1].role != "assistant":
        return "no answer turn"
    last = trace.messages[-1].content[-1]
    if gold(trace) is None or not isinstance(last, Text) or "\\boxed{" not in last.text:
        return "no boxed answer"
    if any(isinstance(part, Sketch) for message in trace.messages[:-1] for part in message.content):
        return "sketches in an earlier turn"
    return None


# -- answers -----------------------------------------------------------------------------------------------------------
def right(trace: Trace, text: str) -> bool:
    if trace.task in tasks.names() and "checker" in trace.meta:
        return rule_of(trace.task).check(text, trace.meta).ok
    return plain(boxed(text) or text) == plain(gold(trace))


def solved(
    reasoner,
    traces: Sequence[Trace],
    k: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
    progress: str = "",
) -> list[int]:
    """How many of k sampled answers to each record are right."""
    counts, processor = [0] * len(traces), reasoner.processor
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
            counts[start + row] += right(trace, rollout.text(row, reasoner.vocabulary))
    return counts


def passes(reasoner, traces: Sequence[Trace], k: int, **options) -> list[Passed]:
    """What each record passes without and, where it has sketches, with them."""
    drawn = [i for i, trace in enumerate(traces) if trace.sketches()]
    alone = solved(reasoner, traces, k, progress="from the question alone", **options)
    shown = solved(reasoner, [hinted(traces[i]) for i in drawn], k, progress="with its sketches shown", **options)
    hints = dict(zip(drawn, shown, strict=True))
    return [Passed(k, count, hints.get(i)) for i, count in enumerate(alone)]


# -- the table ---------------------------------------------------------------------------------------------------------
def summary(labels: Sequence[str | None], passed: Sequence[Passed], k: int) -> dict[str, dict]:
    """Label by label: records, and means of pass@1 and pass@k without and with hints, over those that have hints."""
    out = {}
    for label in (*MODES, None):
        chosen = [one for one, its in zip(passed, labels, strict=True) if its == label]
        ways = {
            "alone": [one.alone for one in chosen],
            "hinted": [one.hinted for one in chosen if one.hinted is not None],
        }
        out[label or "left out"] = {"records": len(chosen)} | {
            f"pass@{n} {way}": round(sum(pass_at_k(k, c, n) for c in counts) / len(counts), 4) if counts else None
            for way, counts in ways.items()
            for n in dict.fromkeys((1, k))
        }
    return out


def table(found: dict[str, dict]) -> Table:
    shown = Table(title="what each way of reasoning is needed for")
    shown.add_column("mode")
    for title in next(iter(found.values())):
        shown.add_column(title, justify="right")
    for label, row in found.items():
        records, *shares = row.values()
        shown.add_row(label, str(records), *("" if share is None else f"{share:.2f}" for share in shares))
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.label_modes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("folder", help="native records, in files or packed")
    parser.add_argument("--out", required=True, help="a new folder of native records")
    parser.add_argument("--k", type=at_least(1), default=8, help="sampled answers a record and way")
    parser.add_argument("--n", type=at_least(1), help="records, from the first on (default: all)")
    parser.add_argument("--split", default="train", help="which records (default: train)")
    parser.add_argument("--vision", type=float, default=0.75, metavar="SHARE", help="right with hints: sketches do")
    parser.add_argument("--drop-easy", action="store_true", help="leave out what is right every time without a sketch")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-new", type=at_least(1), default=640, help="positions of an answer")
    parser.add_argument("--seed", type=int, default=0)
    with cli_errors():
        to_folder(parser.parse_args(argv))


def to_folder(given: argparse.Namespace) -> None:
    if given.temperature <= 0:
        raise ValueError(f"--temperature {given.temperature}: more than 0, or all answers are the same.")
    for place in (given.out, f"{given.out}.json"):
        if Path(place).exists():
            raise FileExistsError(f"'{place}' exists. Give another --out, or move it away; nothing was touched.")
    reasoner, _ = checkpoint.load(given.checkpoint)
    asked = list(islice((t for t in native.read(given.folder) if t.split == given.split), given.n))
    strange = Counter(filter(None, map(unfit, asked)))
    traces = [trace for trace in asked if unfit(trace) is None]
    if not traces:
        raise ValueError(f"'{given.folder}' has no records of the split '{given.split}' with a boxed answer.")
    passed = passes(reasoner, traces, given.k, temperature=given.temperature, max_new=given.max_new, seed=given.seed)
    labels = [
        mode_of(one, speaks(trace), given.vision, given.drop_easy) for one, trace in zip(passed, traces, strict=True)
    ]
    found = summary(labels, passed, given.k)
    console.print(table(found))
    if strange:
        console.print("Not looked at: " + ", ".join(f"{count} with {why}" for why, count in strange.items()))
    kept = [in_mode(*one) for one in zip(traces, labels, passed, strict=True) if one[1] is not None]
    if not kept:
        raise ValueError("every record is left out by the rule, so no folder was written.")
    native.write(kept, given.out)
    atomic_write_json(
        f"{given.out}.json",
        {
            "schema": 1,
            "checkpoint": Path(given.checkpoint).as_posix(),
            "folder": Path(given.folder).as_posix(),
            "split": given.split,
            "k": given.k,
            "temperature": given.temperature,
            "seed": given.seed,
            "vision": given.vision,
            "drop_easy": given.drop_easy,
            "not_looked_at": dict(strange),
            "modes": found,
        },
    )
    console.print(
        f"{len(kept)} records in {given.out}, the figures in {given.out}.json. Train on them with "
        f"--data.folder {given.out}"
    )


if __name__ == "__main__":
    main()

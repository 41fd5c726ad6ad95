"""A checkpoint on a public benchmark that lies in a local folder: answers by rule, with the protocol said.

    python -m eval.benchmark CHECKPOINT NAME DIR --out FILE.json [--n N] [--prompt boxed] [--partial] [--blind]
    python -m eval.benchmark --list

Nothing is downloaded. Beside FILE.json stands FILE.items.jsonl, a line an item; a run that breaks off is gone on with
by the same command (what it had found is in FILE.items.unfinished). ``--partial`` allows a folder that does
not hold every published item; ``--n`` asks that many of them, drawn by the seed with whole clusters; both are noted.
``--blind`` leaves the pictures out, ``--grey`` shows grey ones in their place; with ``--seeing FILE.json`` of the same
protocol either tells how much accuracy that retains, as it is and corrected for chance.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from latent_reason import checkpoint, methods
from latent_reason.data.errors import DataError
from latent_reason.decoding.engine import generate
from latent_reason.errors import at_least, cli_errors
from latent_reason.files import atomic_write_json, atomic_write_text
from latent_reason.model.batch import TEXT

from . import benchmarks
from .aggregate import retention, rows
from .items import PROMPTS, EvalItem, asked, trace
from .readers import Source, opened
from .resume import Unfinished
from .scoring import Judged, by_checker, judge

console = Console(soft_wrap=True)
SPANS = "the last box, <answer>, <Output>, 'answer is' on the last line, a reply of one line, a bare last line"


@dataclass
class Answered:
    """One decoded item. ``latents`` counts those of each span; ``also`` are the rights by further checkers."""

    item: EvalItem
    text: str
    judged: Judged
    also: dict[str, bool]
    latents: list[int]
    tokens: int
    seconds: float


# -- items -------------------------------------------------------------------------------------------------------------
def items_of(name: str, source: Source, partial: bool = False) -> tuple[list[EvalItem], dict]:
    """The items of a benchmark that a rule can grade, and what the protocol must say of them.

    Raises:
        FileNotFoundError: no file of the expected layout.
        DataError: a row that does not fit it, or an id that is used twice.
        ValueError: not as many rows as are published, unless ``partial``; more than that always.
    """
    module, part = benchmarks.find(name)
    found, published = list(module.read(source, part)), module.COUNTS[part]
    for id, count in Counter(item.id for item in found).items():
        if count > 1:
            raise DataError("E13", "id", f"id '{id}' is used {count} times. Ids must be unique.", str(source.folder))
    if len(found) > published or (len(found) < published and not partial):
        todo = ", or allow fewer with --partial." if len(found) < published else "."
        raise ValueError(
            f"'{source.folder}' holds {len(found)} items of {name}, {published} are published. Copy it again{todo}"
        )
    graded = [item for item in found if item.checker != "none"]
    if not graded:
        raise ValueError(f"'{source.folder}' holds no item of {name} that a rule can grade.")
    said = {
        "n_published": published,
        "left_out": len(found) - len(graded),
        "partial": None if len(found) == published else f"{len(found)} of {published} in the folder",
    }
    return graded, said


def drawn(items: list[EvalItem], n: int, seed: int) -> list[EvalItem]:
    """``n`` items or a few more, as whole clusters are drawn; in their order."""
    clusters = list(dict.fromkeys(item.cluster for item in items))
    random.Random(seed).shuffle(clusters)
    sizes, kept, count = Counter(item.cluster for item in items), set(), 0
    for cluster in clusters:
        if count >= n:
            break
        kept.add(cluster)
        count += sizes[cluster]
    return [item for item in items if item.cluster in kept]


def protocol_of(name: str, items: list[EvalItem], said: dict, reasoner, given: argparse.Namespace) -> dict:
    """All that must be equal for two numbers to be comparable."""
    module, _ = benchmarks.find(name)
    notes = module.notes(items) if hasattr(module, "notes") else {}
    known = given.prompt in PROMPTS
    return said | {
        "prompt": given.prompt if known else "own",
        "prompt_text": PROMPTS[given.prompt].format(form="{form}") if known else given.prompt,
        "checker": ", ".join(sorted({item.checker for item in items})),
        "answer_span": SPANS,
        "metric": getattr(module, "METRIC", "accuracy"),
        "blind": given.blind,
        "max_new": given.max_new,
        "temperature": given.temperature,
        "pixels": pixels_of(reasoner),
        **notes,
    }


def run_of(given: argparse.Namespace, protocol: dict) -> dict:
    """What must be the same for a run to be gone on with: the protocol, the seed and the very checkpoint."""
    written = (checkpoint.find_checkpoint(given.checkpoint) / checkpoint.CONFIG_FILE).stat().st_mtime_ns
    return {
        "benchmark": given.name,
        "checkpoint": Path(given.checkpoint).as_posix(),
        "written": written,
        "seed": given.seed,
        "protocol": protocol,
    }


def pixels_of(reasoner) -> str:
    """How large a picture the model's own processor makes. Families that keep its shape name the fewest and the most
    pixels shortest and longest edge."""
    size = dict(getattr(reasoner.backbone.image_processor, "size", None) or {})
    return ", ".join(f"{name} {value}" for name, value in sorted(size.items()) if value) or "unknown"


# -- decoding ----------------------------------------------------------------------------------------------------------
def answered(
    reasoner, items: list[EvalItem], also: tuple[str, ...], given: argparse.Namespace, kept: Unfinished
) -> Iterator[Answered]:
    """Items in order, each with what a model replies; a bar shows how far it is. Each batch is ``kept``."""
    mode, processor = methods.load(reasoner.method.name).MODE, reasoner.processor

    def judged(item: EvalItem, text: str, latents: list[int], tokens: int, seconds: float) -> Answered:
        further = {name: by_checker(text, item, name).right for name in also if item.checker == "vsp"}
        return Answered(item, text, judge(text, item), further, latents, tokens, seconds)

    for item, line in zip(items, kept.found, strict=False):
        yield judged(item, *(line[name] for name in ("text", "latents", "tokens", "seconds")))
    starts = range(len(kept.found), len(items), given.batch_size)
    for start in track(starts, description=given.name, transient=Console().is_terminal):
        chunk, began = items[start : start + given.batch_size], time.perf_counter()
        batch = processor([trace(item, given.prompt, mode, given.blind) for item in chunk], generate=True)
        rollout = generate(
            reasoner,
            batch.to(reasoner.device),
            max_new_tokens=given.max_new,
            temperature=given.temperature,
            seed=given.seed,
            row_ids=range(start, start + len(chunk)),
        )
        seconds = (time.perf_counter() - began) / len(chunk)
        found = [
            judged(
                item,
                rollout.text(row, reasoner.vocabulary),
                [span.length for span in rollout.spans_of(row)],
                int((rollout.token_type[row] == TEXT).sum()),
                seconds,
            )
            for row, item in enumerate(chunk)
        ]
        kept.add([line_of(one, given.prompt) for one in found])
        yield from found


def line_of(one: Answered, prompt: str) -> str:
    """An item as a JSON line."""
    return json.dumps(
        {
            "id": one.item.id,
            "task": one.item.task,
            "cluster": one.item.cluster,
            "prompt": prompt,
            "text": one.text,
            "spans": len(one.latents),
            "latents": one.latents,
            "answer": one.judged.parsed,
            "gold": one.item.answer,
            "right": one.judged.right,
            **one.also,
            "seconds": round(one.seconds, 4),
            "tokens": one.tokens,
        },
        ensure_ascii=False,
    )


# -- the command -------------------------------------------------------------------------------------------------------
def text_since_span(given: argparse.Namespace, items: list[EvalItem], protocol: dict) -> None:
    """The protocol, so that a number is never read without it, and the first question as it is asked."""
    shown = Table(title=f"{given.name}: protocol", show_header=False)
    tasks = Counter(item.task for item in items)
    facts = {
        "items": f"{len(items)} in {len({item.cluster for item in items})} clusters",
        "tasks": ", ".join(f"{task} {count}" for task, count in tasks.most_common(8)) + ", ..." * (len(tasks) > 8),
    }
    first = asked(items[0], given.prompt)
    for key, value in (facts | protocol | {"seed": given.seed, "for example": first}).items():
        shown.add_row(key, "-" if value in (None, "") else Text(str(value)), end_section=key in ("tasks", "seed"))
    console.print(shown)


def table(results: list[dict]) -> Table:
    shown = Table(title="share right, 95 % interval")
    for title in ("task", "measure", "n", "value", "interval", "chance"):
        shown.add_column(title, justify="left" if title in ("task", "measure") else "right")
    for r in results:
        shown.add_row(
            Text(r["task"]),
            r["metric"],
            str(r["n"]),
            f"{r['value']:.3f}",
            f"{r['low']:.2f}-{r['high']:.2f}",
            "-" if r["chance"] is None else f"{r['chance']:.3f}",
        )
    return shown


def listed() -> Table:
    """Names, published numbers and what each is; the docstrings say the layouts."""
    shown = Table(title="python -m eval.benchmark CHECKPOINT NAME DIR --out FILE.json")
    for title in ("name", "items", "what it is"):
        shown.add_column(title, justify="right" if title == "items" else "left")
    for name in benchmarks.modules():
        module = benchmarks.load(name)
        for k, (part, count) in enumerate(module.COUNTS.items()):
            shown.add_row(
                f"{name}/{part}" if part else name,
                f"{count:,}",
                "" if k else module.__doc__.split("\n\n")[0].replace("\n", " "),
            )
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("name", nargs="?", help="a name of --list")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="where the benchmark's files lie")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--out", help="FILE.json; FILE.items.jsonl is written beside it")
    parser.add_argument("--n", type=at_least(1), help="items to ask, drawn by the seed; all of them if not given")
    parser.add_argument("--partial", action="store_true", help="allow fewer items than are published")
    parser.add_argument("--prompt", help=f"{', '.join(PROMPTS)}, or a text with {{question}} and perhaps {{form}}")
    blind = parser.add_mutually_exclusive_group()
    blind.add_argument("--blind", action="store_const", const="removed", help="leave the pictures out")
    blind.add_argument("--grey", dest="blind", action="store_const", const="grey", help="show grey in their place")
    parser.add_argument("--seeing", metavar="FILE.json", help="with either: the run with pictures to compare with")
    parser.add_argument("--max-new", type=at_least(1), default=640, help="positions a reply may have")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=at_least(1), default=8)
    given = parser.parse_args(argv)
    if given.list:
        console.print(listed())
        return
    if None in (given.checkpoint, given.name, given.folder, given.out):
        parser.error("CHECKPOINT, NAME, DIR and --out are needed (or --list)")
    with cli_errors():
        to_file(given)


def to_file(given: argparse.Namespace) -> None:
    """Everything that can be wrong with the files is said before a model answers."""
    module, _ = benchmarks.find(given.name)
    given.prompt = given.prompt or getattr(module, "PROMPT", "boxed")
    check_options(given)
    with opened(given.folder) as source:
        items, said = items_of(given.name, source, given.partial)
        if given.n and given.n < len(items):
            items = drawn(items, given.n, given.seed)
            said["partial"] = "; ".join(filter(None, [said["partial"], f"{len(items)} drawn by seed {given.seed}"]))
        pictures = {(shown.pictures.root, shown.name): shown for item in items for shown in item.images}
        for shown in track(pictures.values(), description="pictures", transient=Console().is_terminal):
            shown.load()
        reasoner, _ = checkpoint.load(given.checkpoint)
        check_pictures(reasoner, items, given.blind)
        protocol = protocol_of(given.name, items, said, reasoner, given)
        seeing = seen_file(given.seeing, given.name, protocol) if given.seeing else None
        text_since_span(given, items, protocol)
        lines = Path(given.out).with_suffix(".items.jsonl")
        kept = Unfinished(lines.with_suffix(".unfinished"), run_of(given, protocol))
        if kept.found:
            console.print(f"{kept.path}: goes on after {len(kept.found)} of {len(items)} items")
        found = list(answered(reasoner, items, getattr(module, "ALSO", ()), given, kept))
    results = rows(
        [one.item for one in found],
        [one.judged.right for one in found],
        [one.also for one in found],
        protocol["metric"],
        getattr(module, "GROUPED", None),
    )
    count = len(found)
    written = {
        "schema": 1,
        "kind": "benchmark",
        "checkpoint": Path(given.checkpoint).as_posix(),
        "method": reasoner.method.name,
        "benchmark": given.name,
        "protocol": protocol,
        "seed": given.seed,
        "device": str(reasoner.device),
        "results": results,
        "unparsed": sum(one.judged.parsed is None for one in found),
        "latents_per_item": round(sum(sum(one.latents) for one in found) / count, 3),
        "tokens_per_item": round(sum(one.tokens for one in found) / count, 3),
        "seconds_per_item": round(sum(one.seconds for one in found) / count, 4),
    }
    if seeing:
        written["retention"] = retention(seeing, results)
    atomic_write_text(lines, "".join(line_of(one, protocol["prompt"]) + "\n" for one in found))
    atomic_write_json(given.out, written)
    kept.ended()
    console.print(table(results))
    for kept in (kept for kept in written.get("retention", []) if kept["task"] == "all"):
        share, corrected = ("-" if kept[name] is None else f"{kept[name]:.3f}" for name in ("retention", "corrected"))
        console.print(
            f"{kept['metric']}: {kept['blind']:.3f} without pictures for {kept['seeing']:.3f} with them, "
            f"retention {share}, corrected for chance {corrected}"
        )
    console.print(
        f"{written['unparsed']} of {count} replies had no answer that could be read. Written to {given.out}, "
        f"item by item to {lines}"
    )


def check_options(given: argparse.Namespace) -> None:
    checkpoint.read_config(given.checkpoint)
    if given.prompt not in PROMPTS and "{question}" not in given.prompt:
        raise ValueError(
            f"'{given.prompt[:60]}' is no prompt: name one of {', '.join(PROMPTS)}, or write a text with "
            "{question} in it."
        )
    if given.seeing and not given.blind:
        raise ValueError("--seeing names a run with pictures to compare one without with. Add --blind or --grey.")
    if not given.out.endswith(".json"):
        raise ValueError(f"'{given.out}' does not end with .json. Name a file that does.")


def check_pictures(reasoner, items: list[EvalItem], blind: str | None) -> None:
    """Raises ValueError where a head that draws from what it is shown would be shown nothing."""
    without = sum(blind == "removed" or not item.images for item in items)
    if without and reasoner.head is not None and reasoner.head.needs_context:
        todo = " Use --grey in place of --blind." if blind else " Use another benchmark."
        raise ValueError(
            f"method '{reasoner.method.name}' draws from the pictures it is shown, and {without} "
            f"items would have none.{todo}"
        )


def seen_file(path: str, name: str, protocol: dict) -> list[dict]:
    """The results of the run with pictures. Raises ValueError where it is of another benchmark or protocol."""
    try:
        other = json.loads(Path(path).read_text(encoding="utf-8"))
        theirs, results = other["protocol"], other["results"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"'{path}' is no result of eval.benchmark. Name the FILE.json of the run with pictures."
        ) from None
    differ = [key for key in sorted({*theirs, *protocol} - {"blind"}) if theirs.get(key) != protocol.get(key)]
    if other.get("benchmark") != name or theirs.get("blind") or differ:
        what = f"its {', '.join(differ)} differ" if differ else "it is of another benchmark or blind itself"
        raise ValueError(f"'{path}' cannot be compared with: {what}. Run it again with pictures and the same options.")
    return results


if __name__ == "__main__":
    main()

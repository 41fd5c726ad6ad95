"""SketchQA: a reader answers the item's question from the last sketch alone. How much do the sketches tell?

    python -m eval.sketch_qa CHECKPOINT --reader READER --out FILE.json [--task TASK] [--levels 3,4] [--n 200]

The protocol of CodeVQA (VCode, 2511.02778; see eval.code_vqa) on rendered sketches. READER is a checkpoint that was
trained on the task: it sees the question of the item with the rendered sketch in the place of the image. The task's rule
grades its answer after the text before that sketch. Uses items with a true sketch. ``drawn`` is own minus foreign,
paired by item: above 0, the reader uses what the model drew. eval.dossier --reader reports the same shares.

A reader that reasons in text works for every task; one that only answers fails if the plan is part of the text (blocks,
slide).
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.sketch_qa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument(
        "--reader", required=True, metavar="CHECKPOINT", help="a model that answers from sketches alone"
    )
    parser.add_argument("--task", help="default: the task the checkpoint was trained on")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the training levels of the checkpoint")
    parser.add_argument("--n", type=at_least(2), default=200, help="number of items (default: 200)")
    parser.add_argument("--seed", type=argument(Seed), default=1, help="of the items")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.training_data import make_task
from latent_reason.decoding.items import Result, decode, distinct_items, main_score
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.tasks import Item, Task
from latent_reason.tasks.checkers import boxed
from latent_reason.visualization.storyboard import decode_sketches, reconstruct_picture, split_text

from .metrics import other_sketch, share
from .statistics import paired_bootstrap

console = Console(soft_wrap=True)
MEANINGS = {
    "answer": "the model itself",
    "own": "its last sketch, rendered",
    "foreign": "the rendered sketch of another item",
    "pixels": "the true sketch",
    "ceiling": "the true sketch through encoder and decoder",
    "blank": "a blank page",
    "another": "the true sketch of another item",
}


def score_reader(reader, reasoner, decoder, task: Task, results: Sequence[Result]) -> dict[str, list[float]]:
    """Scores in 0-1 of the items with a true sketch, in order, by what the reader was shown; see ``MEANINGS``.

    ``answer``, ``own`` and ``foreign`` are of those among them with a sketch of the model. A kind for which an item has no
    picture is left out.
    """
    sketch_steps = [(r, [k for k, s in enumerate(r.item.steps) if s.sketch is not None]) for r in results]
    last = [(r, at[-1]) for r, at in sketch_steps if at]
    if not last:
        return {}
    golds = [(r.item, r.item.steps[k]) for r, k in last]
    items, texts = [item for item, _ in golds], [" ".join(s.text for s in r.item.steps[: k + 1]) for r, k in last]
    pictures = {
        "pixels": [s.sketch for _, s in golds],
        "ceiling": [reconstruct_picture(reasoner, decoder, s.sketch) for _, s in golds],
        "blank": [PILImage.new("RGB", s.sketch.size, "white") for _, s in golds],
        "another": [other_sketch(golds, i) for i in range(len(golds))],
    }
    found = {}
    if own := [r for r, _ in last if r.latents]:
        own_items = [r.item for r in own]
        own_texts = [" ".join(split_text(r.rollout, r.row, reasoner.vocabulary)[:-1]) for r in own]
        drawn = [decode_sketches(reasoner, decoder, r.rollout, r.row, r.item.images[-1])[-1] for r in own]
        found["answer"] = [float(r.scores[main_score([r])]) for r in own]
        for name, shown in (("own", drawn), ("foreign", other_pictures(own_items, drawn))):
            if all(shown):
                found[name] = read_pictures(reader, task, name, own_items, own_texts, shown)
    for name, shown in pictures.items():
        if all(shown):
            found[name] = read_pictures(reader, task, name, items, texts, shown)
    return found


def other_pictures(items: Sequence[Item], pictures: Sequence[PILImage.Image]) -> list[PILImage.Image | None]:
    """For each item the picture of the next other item of its level; None if there is none."""
    count = len(items)
    return [
        next(
            (
                pictures[k]
                for k in (*range(i + 1, count), *range(i))
                if items[k].id != items[i].id and items[k].level == items[i].level
            ),
            None,
        )
        for i in range(count)
    ]


def read_pictures(
    reader, task: Task, name: str, items: Sequence[Item], texts: Sequence[str], pictures: Sequence[PILImage.Image]
) -> list[float]:
    """Whether the reader's answer from each picture follows the text before it, as 1 or 0."""
    shown = [
        replace(item, images=[picture.resize(item.images[-1].size)])  # the decoder may render smaller images
        for item, picture in zip(items, pictures, strict=True)
    ]
    mode = methods.load(reader.method.name).MODE
    results = decode(reader, None, task, shown, mode, progress=f"reader of {name}")
    return [float(task.follows(r.item, text, [reader_text(r.text)])) for r, text in zip(results, texts, strict=True)]


def evaluate_reader(reader, reasoner, decoder, task: Task, results: Sequence[Result]) -> dict:
    """The shares of :func:`score_reader` with their intervals."""
    return {name: share(scores) for name, scores in score_reader(reader, reasoner, decoder, task, results).items()}


def reader_text(text: str) -> str:
    """The text of a reader. An answer without other text is repeated as text."""
    return text if text.split("\\boxed")[0].strip() else f"{boxed(text) or ''} {text}"


# -- the command -------------------------------------------------------------------------------------------------------
def table_of(results: dict) -> Table:
    table = Table(title="right answers from one picture")
    for title in ("shown", "what", "n", "value", "interval"):
        table.add_column(title, justify="left" if title in ("shown", "what") else "right")
    for name, row in results.items():
        values = str(row["n"]), f"{row['value']:.3f}", f"{row['low']:.2f}-{row['high']:.2f}"
        table.add_row(name, MEANINGS[name], *values)
    return table


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with cli_errors():
        evaluate_to_file(args)


def evaluate_to_file(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite)
    reasoner, decoder = checkpoint.load(args.checkpoint)
    if decoder is None or not reasoner.is_renderable:
        raise ValueError(f"'{args.checkpoint}' cannot render sketches for a reader. Use a checkpoint with a decoder.")
    reader = checkpoint.load(args.reader)[0]
    notes, mode = reasoner.method.notes, methods.load(reasoner.method.name).MODE
    task = make_task(notes, args.checkpoint, args.task, levels=args.levels, split="test", seed=args.seed)
    items = distinct_items(task, args.n)
    plain = decode(reasoner, None, task, items, mode, progress="as generated")
    scores = score_reader(reader, reasoner, decoder, task, plain)
    if "own" not in scores:
        raise ValueError(
            f"no answer of '{args.checkpoint}' to an item with a true sketch has a sketch. Use another task."
        )
    results, gap = {name: share(values) for name, values in scores.items()}, None
    if "foreign" in scores:
        gap = {n: round(x, 4) for n, x in paired_bootstrap(scores["own"], scores["foreign"])._asdict().items()}
    atomic_write_json(
        args.out,
        {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "method": reasoner.method.name,
            "reader": Path(args.reader).as_posix(),
            "task": task.name,
            "levels": list(task.levels),
            "n": len(items),
            "seed": args.seed,
            "protocol": "the reader answers from the picture in the place of the item's image; the task's rule grades the "
            "answer after the text before the sketch; greedy decoding",
            "shown": results,
            "drawn": gap,
        },
    )
    console.print(table_of(results))
    says = f"own minus foreign: {gap['estimate']:+.3f} ({gap['low']:+.2f} to {gap['high']:+.2f}). " if gap else ""
    console.print(f"{says}Results written to {args.out}")


if __name__ == "__main__":
    main()

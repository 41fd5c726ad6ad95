"""CodeVQA: a checkpoint redraws each image of a benchmark as SVG, and a reader answers from the rendering alone.

    python -m eval.code_vqa CHECKPOINT vcode/cvbench DIR --reader READER --out FILE.json [--n N] [--partial]

After VCode (2511.02778); NAME is any benchmark, of which the questions with one image are asked. READER is a checkpoint.
It answers each question from the rendered SVG (``svg``), from the image itself (``image``, the ceiling), from the
rendering of another image (``another``) and from a blank page (``blank``, what the question alone gives away). ``own``
is what CHECKPOINT itself answers from the image. An SVG that cannot be rendered is wrong. ``drawn`` is svg minus
another, paired by item: above 0, the reader uses what was drawn. It is low, too, where few SVG can be rendered, so
``drawn_rendered`` is the same on the items whose own SVG was. ``rendered`` is the share of images with a rendering.

Answers are graded by the rule of each item, as in eval.benchmark. SVG is rendered in a sandbox without network and
files, with limits of time and memory (eval/svg.py). The same command resumes an interrupted run from
FILE.items.unfinished. For sketches in latents, the same protocol is eval.sketch_qa.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output, limits_of
from latent_reason.errors import at_least, cli_errors

from .benchmark_arguments import add_benchmark_arguments, add_reply_arguments


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.code_vqa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_benchmark_arguments(parser)
    add_output(parser, "FILE.json; FILE.items.jsonl is written beside it")
    add_reply_arguments(parser)
    parser.add_argument("--reader", required=True, metavar="CHECKPOINT", help="the model that answers from renderings")
    parser.add_argument("--max-svg", type=at_least(1), default=4096, help="maximum number of new positions of an SVG")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image as PILImage
from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint
from latent_reason.data.pictures import pixel_hash
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output

from . import benchmarks
from .aggregate import chance, interval, result_row
from .benchmark import check_head_context, pixels_of, questions_digest, run_identity, table
from .item_lines import items_path, write_items
from .items import PROMPTS, EvalItem
from .readers import open_source
from .replies import ReplyOptions, decode_replies
from .resume import ProgressFile, model_digest
from .scoring import Judgment, judge
from .selection import chosen_items, counted
from .statistics import paired_bootstrap
from .svg import WIDTH, Rendering, check_renderer, extract_svg, render_svg

console = Console(soft_wrap=True)
SVG_QUESTION = (
    "Redraw this image as SVG, so that questions about it can be answered from the drawing alone: objects, their number, "
    "places, colours, and texts. Use native elements, no embedded images and no links. Begin with <svg "
    'xmlns="http://www.w3.org/2000/svg" viewBox="..."> and end with </svg>. Write nothing else.'
)


@dataclass(frozen=True)
class Shown:
    """A picture in the place of an image of a benchmark."""

    picture: PILImage.Image

    def load(self) -> PILImage.Image:
        return self.picture


# -- drawing -----------------------------------------------------------------------------------------------------------
def draw_images(
    reasoner, items: dict[str, EvalItem], pictures: dict[str, str], args: argparse.Namespace, progress: ProgressFile
) -> dict[str, Rendering]:
    """The rendering of each distinct image, by its hash. ``pictures`` maps the key of an item to that hash."""
    first: dict[str, str] = {}
    for key, digest in pictures.items():
        first.setdefault(digest, key)
    questions = {
        f"svg {digest[:16]}": replace(
            items[key], question=SVG_QUESTION, options=(), lists_options=False, meta={"form": ""}
        )
        for digest, key in first.items()
    }
    options = ReplyOptions("bare", args.max_svg, 0.0, args.seed, args.batch_size)
    replies = decode_replies(reasoner, questions, options, progress, "SVG")
    shown = track(zip(first, replies.values(), strict=True), "renderings", len(first), transient=console.is_terminal)
    return {digest: render_svg(extract_svg(reply["text"])) for digest, reply in shown}


def other_renderings(pictures: dict[str, str], renderings: dict[str, Rendering]) -> dict[str, PILImage.Image]:
    """For each item the rendering of the next image that is another one and has a rendering; items without one are left
    out."""
    drawn = [(digest, one.image) for digest, one in renderings.items() if one.image]
    found = {}
    for place, (key, digest) in enumerate(pictures.items()):
        others = [image for other, image in drawn if other != digest]
        if others:
            found[key] = others[place % len(others)]
    return found


def with_picture(item: EvalItem, picture: PILImage.Image) -> EvalItem:
    return replace(item, images=(Shown(picture),))


# -- reading -----------------------------------------------------------------------------------------------------------
def ask_reader(
    reader,
    items: dict[str, EvalItem],
    pictures: dict[str, str],
    renderings: dict[str, Rendering],
    args: argparse.Namespace,
    progress: ProgressFile,
) -> dict[str, dict[str, Judgment]]:
    """The judged answers from each kind of picture, by the key of the item. Items without such a picture are missing."""
    own = {key: renderings[digest].image for key, digest in pictures.items()}
    blank = PILImage.new("RGB", (WIDTH, WIDTH), "white")
    kinds = {
        "svg": {key: with_picture(items[key], image) for key, image in own.items() if image},
        "image": items,
        "another": {
            key: with_picture(items[key], image) for key, image in other_renderings(pictures, renderings).items()
        },
        "blank": {key: with_picture(item, blank) for key, item in items.items()},
    }
    return {kind: answers_to(reader, some, args, progress, f"reader {kind}") for kind, some in kinds.items()}


def answers_to(
    reasoner, items: dict[str, EvalItem], args: argparse.Namespace, progress: ProgressFile, label: str
) -> dict[str, Judgment]:
    """The judged answers of a model to items."""
    options = ReplyOptions(args.prompt, args.max_new, 0.0, args.seed, args.batch_size)
    replies = decode_replies(
        reasoner, {f"{label} {key}": item for key, item in items.items()}, options, progress, label
    )
    return {key: judge(reply["text"], item) for (key, item), reply in zip(items.items(), replies.values(), strict=True)}


# -- results -----------------------------------------------------------------------------------------------------------
def summarise(
    items: dict[str, EvalItem], answers: dict[str, dict[str, Judgment]]
) -> tuple[list[dict], dict[str, dict[str, float] | None]]:
    """(one row for each kind of answer, ``drawn`` and ``drawn_rendered``: svg minus another on the items with another
    rendering, and on those of them with their own)."""
    rows = []
    for kind, found in answers.items():
        keys = list(items) if kind in ("svg", "own", "image", "blank") else list(found)
        if not keys:
            continue
        right = [float(key in found and found[key].is_right) for key in keys]
        some = [items[key] for key in keys]
        rows.append(result_row("all", kind, interval(some, right), len(keys), chance(some)) | {"constant": None})
    both = list(answers["another"])
    rendered = [key for key in both if key in answers["svg"]]
    return rows, {"drawn": difference(items, answers, both), "drawn_rendered": difference(items, answers, rendered)}


def difference(
    items: dict[str, EvalItem], answers: dict[str, dict[str, Judgment]], keys: Sequence[str]
) -> dict[str, float] | None:
    """svg minus another on some items, with its n; None without items."""
    if not keys:
        return None
    values = [
        [float(key in answers[kind] and answers[kind][key].is_right) for key in keys] for kind in ("svg", "another")
    ]
    gap = paired_bootstrap(*values, [items[key].cluster for key in keys])
    return {name: round(x, 4) for name, x in gap._asdict().items()} | {"n": len(keys)}


def describe_protocol(
    args: argparse.Namespace, items: list[EvalItem], entries: dict, reasoner, reader, renderer: str
) -> dict:
    """All settings that must be equal for two numbers to be comparable."""
    return entries | {
        "questions": questions_digest(items),
        "svg_prompt": SVG_QUESTION,
        "renderer": renderer,
        "reader": Path(args.reader).as_posix(),
        "reader_model": model_digest(args.reader),
        "prompt": args.prompt,
        "prompt_text": PROMPTS[args.prompt].format(form="{form}"),
        "checker": ", ".join(sorted({item.checker for item in items})),
        "metric": "svg",
        "max_new": args.max_new,
        "max_svg": args.max_svg,
        **({"max_length": limit} if (limit := reasoner.backbone.length_limit) else {}),
        "pixels": pixels_of(reasoner),
        "reader_pixels": pixels_of(reader),
    }


def line_of(key: str, item: EvalItem, rendering: Rendering, answers: dict[str, dict[str, Judgment]]) -> dict:
    """An item, for the file of single items."""
    return {
        "id": item.id,
        "task": item.task,
        "cluster": item.cluster,
        "gold": item.answer,
        "error": rendering.error,
        "answers": {kind: found[key].parsed for kind, found in answers.items() if key in found},
        "right": key in answers["svg"] and answers["svg"][key].is_right,
    }


# -- the command -------------------------------------------------------------------------------------------------------
def with_one_image(items: dict[str, EvalItem], name: str) -> tuple[dict[str, EvalItem], int]:
    """(the items with one image, the number of others). Raises ValueError if there is none."""
    kept = {key: item for key, item in items.items() if len(item.images) == 1}
    if not kept:
        raise ValueError(
            f"'{name}' has no question with exactly one image. Use another benchmark, such as vcode/cvbench."
        )
    return kept, len(items) - len(kept)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with cli_errors():
        evaluate_to_file(args)


def evaluate_to_file(args: argparse.Namespace) -> None:
    """Checks all files before a model decodes, then writes the results."""
    check_output(args.out, args.overwrite)
    check_output(items_path(args.out), args.overwrite)
    benchmarks.find(args.name)
    renderer = check_renderer()
    for folder in (args.checkpoint, args.reader):
        checkpoint.read_config(folder)
    with open_source(args.folder) as source:
        every, entries = chosen_items(args.name, source, args.partial, args.n, args.seed)
        items, others = with_one_image(every, args.name)
        if others:
            source.left_out["not exactly one image"] += others
            entries["left_out"] = counted(source.left_out)
        reasoner, reader = (checkpoint.load(folder)[0] for folder in (args.checkpoint, args.reader))
        for model in (reasoner, reader):
            limits_of(args).apply_to(model.backbone)
            check_head_context(model, list(items.values()), None)
        protocol = describe_protocol(args, list(items.values()), entries, reasoner, reader, renderer)
        identity = run_identity(args, protocol, items) | {"command": "eval.code_vqa"}
        with ProgressFile(items_path(args.out).with_suffix(".unfinished"), identity) as progress:
            pictures = {key: pixel_hash(item.images[0].load()) for key, item in items.items()}
            renderings = draw_images(reasoner, items, pictures, args, progress)
            answers = ask_reader(reader, items, pictures, renderings, args, progress)
            answers["own"] = answers_to(reasoner, items, args, progress, "own")
            write_results(args, reasoner, protocol, items, pictures, renderings, answers)
            progress.remove()


def write_results(args, reasoner, protocol, items, pictures, renderings, answers) -> None:
    """Write FILE.json and FILE.items.jsonl, and print the results."""
    rows, gaps = summarise(items, answers)
    rendered = sum(one.image is not None for one in renderings.values())
    lines = (line_of(key, item, renderings[pictures[key]], answers) for key, item in items.items())
    write_items(items_path(args.out), lines)
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
            **gaps,
            "rendered": {"images": len(renderings), "rendered": rendered},
        },
    )
    console.print(table(rows))
    gap = gaps["drawn"]
    says = f"svg minus another: {gap['estimate']:+.3f} ({gap['low']:+.2f} to {gap['high']:+.2f}). " if gap else ""
    console.print(f"{rendered} of {len(renderings)} images were rendered. {says}Results written to {args.out}")


if __name__ == "__main__":
    main()

"""Verbs that use a model: methods, generate, render."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from pathlib import Path

from ..outputs import check_picture_output, save_picture
from ..values import Seed, argument
from .arguments import add_decoding, add_output, add_overwrite, add_verb, at_least


def add_verbs(verbs) -> None:
    add_verb(verbs, "methods", list_methods).add_argument(
        "--options", action="store_true", help="also list the options of each method"
    )
    for name, function in (("generate", generate), ("render", render)):
        parser = add_verb(verbs, name, function)
        parser.add_argument("checkpoint", help="a checkpoint folder or a run folder")
        parser.add_argument(
            "--task", help="a task name or a dotted path (default: the task the checkpoint was trained on)"
        )
        parser.add_argument("--level", type=at_least(1), help="default: the levels the checkpoint was trained on")
        parser.add_argument("--seed", type=argument(Seed), default=1, help="seed of the held-out items (default: 1)")
        add_decoding(parser)
        if function is generate:
            parser.add_argument("--index", type=at_least(0), default=0, help="which held-out item (default: 0)")
            parser.add_argument("--image", metavar="PNG", help="save the input image of the item to this file")
            add_overwrite(parser)
        else:
            parser.add_argument("--n", type=at_least(1), default=6, help="number of items (default: 6)")
            help = "default: sketches.png"
            add_output(parser, help, required=False, metavar="PNG", default="sketches.png")


def list_methods(arguments: Namespace) -> None:
    """List the methods, each with its paper (arXiv id) and a summary.

    Your own methods need no registration: every command accepts a dotted path.

      latent-reason methods --options
      python -m train.sft --config RECIPE.yaml --method.name my_pkg.my_method
    """
    from .. import methods

    for name in methods.names():
        paper, summary = methods.read_summary(name)
        print(textwrap.fill(f"{name:18} {paper:12} {summary}", 80, subsequent_indent=32 * " ", break_long_words=False))
        if arguments.options:
            for option, parameter in methods.schema(name).items():
                print(f"{'':18} --method.options.{option} (default {parameter.default!r})")


def generate(arguments: Namespace) -> None:
    """Answer one held-out item; print its text and sketches.

    The item comes from the test split of the task the checkpoint was trained on.
    Each sketch is printed as its number of latents and, where the checkpoint has
    a sketch decoder, the state that the decoded image shows.

      latent-reason generate checkpoints/frozenlake-tiny --level 5 --index 3
    """
    from ..decoding.rollout import Span

    if arguments.image:
        check_picture_output(arguments.image, arguments.overwrite)
    reasoner, _, task, [item], [result] = _decode(arguments, range(arguments.index, arguments.index + 1))
    print(f"question: {item.question}")
    sketches = iter(result.sketches)
    for piece in result.rollout.segments(result.row, reasoner.vocabulary):
        if isinstance(piece, Span):
            print(f"  [sketch: {piece.length} latents{_describe(next(sketches, None), task, item)}]")
        else:
            print(f"  {piece.strip()}")
    print(
        "scores: "
        + ", ".join(f"{name} {value:.2f}" for name, value in result.scores.items())
        + f"   (gold {item.answer})"
    )
    if arguments.image:
        save_picture(item.images[0], Path(arguments.image))
        print(f"image: {arguments.image}")


def render(arguments: Namespace) -> None:
    """Save an image of sketches beside the gold ones.

    The image shows held-out items of the task the checkpoint was trained on, one
    row for each step: input, gold sketch, gold sketch encoded and decoded, sketch of
    the model, and its answer. The checkpoint needs a sketch decoder.

      latent-reason render checkpoints/frozenlake-tiny --n 4 --out sketches.png
    """
    from ..visualization.storyboard import draw_storyboard

    out = check_picture_output(arguments.out, arguments.overwrite)
    reasoner, decoder, _, items, results = _decode(arguments, range(arguments.n))
    if decoder is None or not reasoner.is_renderable:
        raise ValueError(
            f"'{arguments.checkpoint}' has no sketches to render (method {reasoner.method.name}"
            f"{'' if decoder else ', no sketch decoder'})."
        )
    save_picture(draw_storyboard(reasoner, decoder, [result.decoded for result in results]), out)
    sketches = [sketch for result in results for sketch in result.sketches]
    correct = sum(sketch["equal"] for sketch in sketches)
    print(
        f"{len(items)} items, {len(sketches)} sketches, {correct} of them show the state that the model's own "
        f"actions lead to.\nImage: {out}"
    )


def _decode(arguments: Namespace, indices: range):
    """Generate for held-out items of the checkpoint's task; returns (reasoner, decoder, task, items, results)."""
    from .. import methods, tasks
    from ..checkpoint import load
    from ..decoding.items import decode
    from ..decoding.strategies import make_decoding

    decoding = make_decoding(arguments.decoding)
    reasoner, decoder = load(arguments.checkpoint)
    data = reasoner.method.notes.get("data", {})
    name = arguments.task or tasks.check_trusted(data.get("task", "frozenlake_plan"), arguments.checkpoint)
    levels = (arguments.level,) if arguments.level else tuple(data.get("levels", (4,)))
    options = tasks.own(name, data.get("options", {}))
    task = tasks.make(name, split="test", seed=arguments.seed, level=levels, **options)
    if reasoner.method.name is None:
        raise ValueError(f"'{arguments.checkpoint}' was built by hand, so its mode is unknown. Use one with a method.")
    mode = methods.load(reasoner.method.name).MODE
    items = [task[i] for i in indices]
    results = decode(reasoner, decoder, task, items, mode, batch_size=len(items), decoding=decoding)
    return reasoner, decoder, task, items, results


def _describe(sketch: dict | None, task, item) -> str:
    """The state that the decoded image of a sketch shows; empty without a sketch decoder."""
    if sketch is None:
        return ""
    if not sketch["valid"]:
        return ", unreadable"
    return f", {task.state_sentence(sketch['state'], task.stream(item.level, item.index, 'shown'))}"

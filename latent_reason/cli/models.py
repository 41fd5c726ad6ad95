"""Verbs that use a model: methods, generate, render."""

from __future__ import annotations

import textwrap
from argparse import Namespace

from ..outputs import check_picture_output, save_picture
from ..values import Seed, argument
from .answers import add_answer_output, check_answer_output, print_answer, save_answer
from .arguments import add_decoding, add_output, add_verb, at_least


def add_verbs(verbs) -> None:
    add_verb(verbs, "methods", list_methods).add_argument(
        "--options", action="store_true", help="also list the options of each method"
    )
    for name, function in (("generate", generate), ("render", render)):
        parser = add_verb(verbs, name, function)
        parser.add_argument("checkpoint", help="a checkpoint folder or a run folder")
        data = parser.add_mutually_exclusive_group()
        data.add_argument("--task", help="a task name or a dotted path (default: what the checkpoint was trained on)")
        data.add_argument("--folder", help="native records, of which the test records are taken")
        parser.add_argument("--level", type=at_least(1), help="default: the levels the checkpoint was trained on")
        parser.add_argument("--seed", type=argument(Seed), default=1, help="seed of the held-out items (default: 1)")
        add_decoding(parser)
        if function is generate:
            parser.add_argument("--index", type=at_least(0), default=0, help="which held-out item (default: 0)")
            add_answer_output(parser)
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

    The item is of the kind that the checkpoint was trained on: from the test split
    of its task, or a test record of its folder. Each sketch is printed as its
    number of latents and, where the checkpoint has a sketch decoder, the state that
    the decoded image shows. For a picture of your own: latent-reason ask.

      latent-reason generate checkpoints/frozenlake-tiny --level 5 --index 3
      latent-reason generate checkpoints/frozenlake-tiny --out answer.pdf
    """
    from ..asking.ask import AskOptions, ask
    from ..asking.examples import held_out_examples
    from ..checkpoint import load

    check_answer_output(arguments)
    options = AskOptions(decoding=arguments.decoding)
    reasoner, decoder = load(arguments.checkpoint)
    [example] = held_out_examples(reasoner, arguments.checkpoint, [arguments.index], **_source(arguments))
    decoded = ask(reasoner, example.trace, options)
    view = example.view(reasoner, decoder, decoded)
    print(f"question: {view.question}")
    print_answer(view, _describe_sketches(example, reasoner, decoder, decoded))
    scores = example.scores(decoded.rollout.text(decoded.row, reasoner.vocabulary))
    said = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
    print(f"scores: {said}   (gold {example.trace.answer})" if scores else f"gold answer: {example.trace.answer}")
    about = {"checkpoint": str(arguments.checkpoint), "item": example.trace.id, "decoding": arguments.decoding}
    save_answer(arguments, view, about, (reasoner, decoder, example.trace, decoded, options))


def render(arguments: Namespace) -> None:
    """Save an image of sketches beside the gold ones.

    The image shows held-out items of the kind that the checkpoint was trained on,
    one row for each step: input, gold sketch, gold sketch encoded and decoded, sketch
    of the model, and its answer. The checkpoint needs a sketch decoder.

      latent-reason render checkpoints/frozenlake-tiny --n 4 --out sketches.png
    """
    from ..asking.ask import AskOptions, ask_each
    from ..asking.examples import held_out_examples
    from ..checkpoint import load
    from ..visualization.storyboard import draw_storyboard

    out = check_picture_output(arguments.out, arguments.overwrite)
    options = AskOptions(decoding=arguments.decoding)
    reasoner, decoder = load(arguments.checkpoint)
    if decoder is None or not reasoner.is_renderable:
        raise ValueError(
            f"'{arguments.checkpoint}' has no sketches to render (method {reasoner.method.name}"
            f"{'' if decoder else ', no sketch decoder'})."
        )
    examples = held_out_examples(reasoner, arguments.checkpoint, range(arguments.n), **_source(arguments))
    decoded = ask_each(reasoner, [example.trace for example in examples], options)
    save_picture(draw_storyboard(reasoner, decoder, decoded), out)
    reports = [example.sketch_reports(reasoner, decoder, one) for example, one in zip(examples, decoded, strict=True)]
    num_sketches = sum(len(one.rollout.spans_of(one.row)) for one in decoded)
    correct = sum(report["equal"] for one in reports for report in one)
    judged = f", {correct} of them show the state that the model's own actions lead to" if any(reports) else ""
    print(f"{len(examples)} items, {num_sketches} sketches{judged}.\nImage: {out}")


def _source(arguments: Namespace) -> dict:
    """Which examples a command asks for."""
    levels = (arguments.level,) if arguments.level else None
    return {"task": arguments.task, "folder": arguments.folder, "levels": levels, "seed": arguments.seed}


def _describe_sketches(example, reasoner, decoder, decoded) -> list[str]:
    """The state that the decoded image of each sketch shows; nothing where no parser reads them."""
    task, item = example.task, example.item
    described = []
    for report in example.sketch_reports(reasoner, decoder, decoded):
        if report["valid"]:
            described.append(task.state_sentence(report["state"], task.stream(item.level, item.index, "shown")))
        else:
            described.append("unreadable")
    return described

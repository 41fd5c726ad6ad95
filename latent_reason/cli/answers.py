"""An answer on the terminal and in a file: shared by the verbs generate and ask."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..outputs import check_output
from .arguments import add_overwrite

if TYPE_CHECKING:
    from ..visualization.answer_view import AnswerView

#: endings of a file with an answer
ENDINGS = (".html", ".png", ".pdf", ".svg")


def add_answer_output(parser) -> None:
    """Add the options that save an answer."""
    parser.add_argument("--out", metavar="FILE", help=f"save the answer with its sketches: {', '.join(ENDINGS)}")
    parser.add_argument("--width", type=float, default=7.0, metavar="INCHES", help="of a figure (default: 7)")
    parser.add_argument(
        "--latent-tokens",
        action="store_true",
        help="in HTML: also the text tokens that the model would write after each latent",
    )
    parser.add_argument(
        "--similar",
        type=int,
        default=0,
        metavar="N",
        help="in HTML: also the N most similar of 200 sketches of the training data",
    )
    parser.add_argument("--gif", metavar="GIF", help="save how a sketch comes out of noise, step by step")
    parser.add_argument("--sketch", type=int, default=1, metavar="N", help="with --gif: which sketch (default: 1)")
    add_overwrite(parser)


def check_answer_output(arguments: Namespace) -> None:
    """Check the options of :func:`add_answer_output` before anything is computed.

    Raises:
        ValueError: a file of another kind; an option that has no effect.
        FileExistsError, OSError: a file cannot be written.
    """
    for name, endings in (("out", ENDINGS), ("gif", (".gif",))):
        if (path := getattr(arguments, name)) is None:
            continue
        if Path(path).suffix.lower() not in endings:
            raise ValueError(f"'{path}' does not end in {', '.join(endings)}. Give it one of these endings.")
        check_output(path, arguments.overwrite)
    is_page = arguments.out is not None and Path(arguments.out).suffix.lower() == ".html"
    if (arguments.latent_tokens or arguments.similar) and not is_page:
        raise ValueError("--latent-tokens and --similar are shown in a page. Add --out FILE.html.")
    if not 1 <= arguments.width <= 40:
        raise ValueError(f"--width {arguments.width:g}: a figure is 1 to 40 inches wide.")


def print_answer(view: AnswerView, descriptions: Sequence[str] = ()) -> None:
    """Print the steps of an answer, one a line. ``descriptions`` say what each sketch shows."""
    from ..visualization.answer_view import SketchView

    for step in view.steps:
        if isinstance(step, SketchView):
            shown = f", {descriptions[step.number - 1]}" if step.number <= len(descriptions) else ""
            print(f"  [sketch: {step.num_latents} latents{shown}]")
        elif step.strip():
            print(f"  {step.strip()}")


def save_answer(arguments: Namespace, view: AnswerView, about: dict[str, str], source: tuple) -> None:
    """Write the files that were asked for. ``source`` are the reasoner, its decoder, the trace, the decoded trace and the
    options of the answer."""
    from ..files import atomic_write_bytes, atomic_write_text
    from ..visualization import answer_page
    from ..visualization.answer_figure import draw_answer_figure, save_figure

    reasoner, decoder, trace, decoded, options = source
    view = replace(view, about=about)
    if arguments.out and Path(arguments.out).suffix.lower() == ".html":
        view = _inspected(arguments, view, reasoner, decoded)
        atomic_write_text(Path(arguments.out), answer_page.write_page([view], view.question[:80] or "An answer"))
    elif arguments.out:
        save_figure(draw_answer_figure(view, arguments.width), arguments.out)
    if arguments.gif:
        from ..asking.inspect_latents import denoising_frames

        if decoder is None or not reasoner.is_renderable:
            raise ValueError(f"'{arguments.checkpoint}' has no sketch decoder, so --gif has nothing to show.")
        frames = denoising_frames(reasoner, decoder, trace, options, arguments.sketch - 1)
        atomic_write_bytes(Path(arguments.gif), answer_page.as_gif(frames))
    for path in (arguments.out, arguments.gif):
        if path:
            print(f"Saved: {path}")


def _inspected(arguments: Namespace, view: AnswerView, reasoner, decoded) -> AnswerView:
    """The view with what its latents say, as far as it was asked for."""
    from ..asking.examples import training_sketches
    from ..asking.inspect_latents import encode_pictures, most_similar, tokens_after
    from ..visualization.answer_view import SketchView

    tokens = tokens_after(reasoner, decoded) if arguments.latent_tokens else []
    known = training_sketches(reasoner, arguments.checkpoint) if arguments.similar else []
    encoded = encode_pictures(reasoner, known) if known else []
    spans, steps = decoded.rollout.spans_of(decoded.row), []
    for step in view.steps:
        if isinstance(step, SketchView):
            n = step.number - 1
            nearest = most_similar(decoded.rollout.latents(spans[n]), encoded, arguments.similar) if encoded else []
            step = replace(
                step,
                tokens=tuple(map(tuple, tokens[n])) if tokens else (),
                similar=tuple((known[i], cosine) for i, cosine in nearest),
            )
        steps.append(step)
    return replace(view, steps=steps)

"""The verb ``ask``."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ..values import Seed, Temperature, argument
from .answers import add_answer_output, check_answer_output, save_answer
from .arguments import add_decoding, add_verb, at_least


def add_verbs(verbs) -> None:
    parser = add_verb(verbs, "ask", ask)
    parser.add_argument("checkpoint", help="a checkpoint folder or a run folder")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="a picture of yours; repeat it for several"
    )
    parser.add_argument("--question", required=True, metavar="TEXT", help="what to ask about the pictures")
    parser.add_argument("--chat", action="store_true", help="read further questions from standard input, one a line")
    parser.add_argument("--max-new-tokens", type=at_least(1), default=640, metavar="N", help="default: 640")
    parser.add_argument("--temperature", type=argument(Temperature), default=0.0, help="default: 0, greedy")
    parser.add_argument("--seed", type=argument(Seed), default=0, help="of all random numbers (default: 0)")
    parser.add_argument("--device", help="default: a GPU if there is one, else the CPU")
    latents = parser.add_argument_group("latents")
    latents.add_argument(
        "--latents",
        choices=["on", "off", "zero", "noise", "foreign"],
        default="on",
        help="off: no sketch is opened; zero, noise: each latent is replaced; foreign: by those of the answer about "
        "--foreign-image (default: on)",
    )
    latents.add_argument("--foreign-image", metavar="FILE", help="the picture whose sketches --latents foreign takes")
    latents.add_argument("--k", type=at_least(0), metavar="N", help="latents of a sketch (default: as in training)")
    latents.add_argument("--steps", type=at_least(1), metavar="N", help="denoising steps of the head")
    add_decoding(parser)
    add_answer_output(parser)


def ask(arguments: Namespace) -> None:
    """Ask about your own pictures; print the answer as it is written.

    A sketch is printed as its number of latents. With --out, the answer is saved
    with its sketches as a page or a figure.

      latent-reason ask checkpoints/frozenlake-tiny --image board.png \\
          --question "Plan the moves from the elf to the gift." --out answer.html
    """
    from ..asking.ask import answered, question
    from ..checkpoint import load
    from ..visualization.answer_view import view_answer
    from ..visualization.storyboard import decode_sketches

    check_answer_output(arguments)
    if (arguments.latents == "foreign") != (arguments.foreign_image is not None):
        raise ValueError("--latents foreign and --foreign-image FILE belong together. Give both or none.")
    images = [read_image(path) for path in arguments.image]
    foreign = read_image(arguments.foreign_image) if arguments.foreign_image else None
    reasoner, decoder = load(arguments.checkpoint, device=arguments.device)
    options = make_options(arguments, reasoner, foreign)
    trace = question(images, arguments.question)
    decoded = print_as_it_comes(reasoner, trace, options)
    further = (line.strip() for line in sys.stdin) if arguments.chat else iter(())
    for text in further:
        if not text:
            break
        is_drawn = decoder is not None and reasoner.is_renderable and trace.images()
        picture = trace.images()[-1] if is_drawn else None
        pictures = decode_sketches(reasoner, decoder, decoded.rollout, decoded.row, picture) if is_drawn else []
        trace = question([], text, answered(decoded, reasoner, pictures))
        print(f"question: {text}")
        decoded = print_as_it_comes(reasoner, trace, options)
    about = {"checkpoint": str(arguments.checkpoint), "latents": arguments.latents, "decoding": arguments.decoding}
    about |= {"temperature": f"{arguments.temperature:g}", "seed": str(arguments.seed)}
    view = view_answer(reasoner, decoder, decoded)
    save_answer(arguments, view, about, (reasoner, decoder, trace, decoded, options))


def make_options(arguments: Namespace, reasoner, foreign):
    """The options of the answer. Those of a foreign picture are taken from the answer to the same question about it."""
    from ..asking.ask import AskOptions, latents_about

    given = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "seed": arguments.seed,
        "latents_per_span": arguments.k,
        "steps": arguments.steps,
        "decoding": arguments.decoding,
    }
    if foreign is None:
        return AskOptions(latents=arguments.latents, **given)
    latents = latents_about(reasoner, foreign, arguments.question, AskOptions(**given))
    return AskOptions(latents="foreign", foreign=latents, **given)


def print_as_it_comes(reasoner, trace, options):
    """Print an answer piece by piece. Returns it as a whole."""
    from ..asking.ask import DrawnSketch, stream_answer

    decoded, is_at_start = None, True
    for piece in stream_answer(reasoner, trace, options):
        if isinstance(piece, str):
            text = piece.lstrip() if is_at_start else piece
            print(text, end="", flush=True)
            is_at_start = is_at_start and not text
        elif isinstance(piece, DrawnSketch):
            print(f"{'' if is_at_start else chr(10)}[sketch: {len(piece.latents)} latents]", flush=True)
            is_at_start = True
        else:
            decoded = piece
    print()
    return decoded


def read_image(path: str):
    """A picture of the user, in RGB.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is no picture that can be read safely.
    """
    from ..data.pictures import read_picture

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no picture '{path}'. Name a PNG, JPEG or WebP file.")
    return read_picture(path, path, "--image", lambda kind, text: print(f"warning: {text}", file=sys.stderr))

"""The verbs that open a port of this machine: serve, demo."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from pathlib import Path

from ..errors import pip_install
from .arguments import add_verb, at_least


def add_verbs(verbs) -> None:
    parser = add_verb(verbs, "serve", serve)
    parser.add_argument("checkpoint", help="a checkpoint folder or a run folder")
    parser.add_argument("--name", help="the name of the model (default: that of the folder)")
    parser.add_argument("--device", help="default: a GPU if there is one, else the CPU")
    parser.add_argument("--port", type=port, default=8000, help="0: a free one, which is printed (default: 8000)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="another address opens the server to other machines (default: 127.0.0.1)"
    )
    options = (
        ("slots", 8, "answers that are decoded at a time"),
        ("waiting", 32, "answers that may wait; more requests are refused"),
        ("max-tokens", 1024, "positions of an answer, latents included"),
        ("max-pictures", 8, "pictures in a request"),
        ("max-pixels", 4_000_000, "pixels of a picture"),
        ("max-mib", 16, "size of a request in MiB"),
    )
    for name, default, help in options:
        low = 0 if name in ("waiting", "max-pictures") else 1
        parser.add_argument(
            f"--{name}", type=at_least(low), default=default, metavar="N", help=f"{help} (default: {default})"
        )
    parser.add_argument(
        "--grace",
        type=at_least(0),
        default=10,
        metavar="SECONDS",
        help="time that running answers have after a signal (default: 10)",
    )

    parser = add_verb(verbs, "demo", demo)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="one or two checkpoint or run folders")
    parser.add_argument("--device", help="default: a GPU if there is one, else the CPU")
    parser.add_argument("--port", type=port, default=7860, help="0: a free one, which is printed (default: 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="another address opens the page to other machines (default: 127.0.0.1)"
    )


def port(text: str) -> int:
    """An argparse type: a port, or 0."""
    number = at_least(0)(text)
    if number >= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is at most 65535")
    return number


def serve(arguments: Namespace) -> None:
    """Serve a checkpoint as an OpenAI-style chat endpoint on this machine.

    Any OpenAI client can use it. Requests are decoded together, and text and
    sketches are streamed as they are drawn. Ctrl-C stops it. Needs the extra
    `serve`.

      latent-reason serve checkpoints/frozenlake-tiny --port 8000
    """
    try:
        from ..serving.limits import Limits
        from ..serving.server import is_loopback, serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise ValueError(f"{error.name} is missing. Install it with: {pip_install('serve')}") from None
    from ..checkpoint import load

    if not is_loopback(arguments.host):
        warn_of_open_host(arguments.host)
    reasoner, decoder = load(arguments.checkpoint, device=arguments.device)
    limits = Limits(
        slots=arguments.slots,
        waiting=arguments.waiting,
        max_tokens=arguments.max_tokens,
        pictures=arguments.max_pictures,
        pixels=arguments.max_pixels,
        body_bytes=arguments.max_mib * 2**20,
    )
    serve(
        reasoner,
        decoder,
        arguments.name or Path(arguments.checkpoint).resolve().name,
        host=arguments.host,
        port=arguments.port,
        limits=limits,
        grace=arguments.grace,
    )


def warn_of_open_host(host: str) -> None:
    print(
        f"warning: {host} lets other machines use this server, and it asks for no password. Put it behind a proxy that "
        "does.",
        file=sys.stderr,
    )


def demo(arguments: Namespace) -> None:
    """Open a page in the browser to ask one or two checkpoints about pictures.

    Text and sketches appear as they are drawn. Latents can be replaced, and two
    checkpoints answer side by side. Ctrl-C stops it. Needs the extra `demo`.

      latent-reason demo checkpoints/frozenlake-tiny
      latent-reason demo checkpoints/run-a checkpoints/run-b --port 0
    """
    if len(arguments.checkpoints) > 2:
        raise ValueError(f"the page shows one or two checkpoints, not {len(arguments.checkpoints)}. Name two.")
    try:
        from ..demo.server import start
        from ..serving.app import LOOPBACK
        from ..serving.server import is_loopback
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "fastapi", "starlette", "uvicorn"):
            raise
        raise ValueError(f"{error.name} is missing. Install it with: {pip_install('demo')}") from None

    is_open = not is_loopback(arguments.host)
    if is_open:
        warn_of_open_host(arguments.host)
    start(
        arguments.checkpoints,
        host=arguments.host,
        port=arguments.port,
        device=arguments.device,
        hosts=None if is_open else LOOPBACK,
    )

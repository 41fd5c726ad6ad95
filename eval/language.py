"""Effect of training on plain text: the loss of a checkpoint and of the model before training.

    python -m eval.language CHECKPOINT --base MODEL --out FILE.json [--texts FILE.txt]

Without ``--texts`` (one text a line) the texts are the docstrings of Python's standard library. They are natural prose,
available on every machine, and not in the training data of this project. ``--base`` is a backbone's folder or Hub name.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.language", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--base", required=True, help="the model before training: a folder or a Hub name")
    parser.add_argument("--texts", help="file with one text a line; default: docstrings")
    parser.add_argument("--n", type=at_least(2), default=100, help="maximum number of texts")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import sys
import sysconfig
from collections.abc import Iterable

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint
from latent_reason.data.texts import docstrings, lines
from latent_reason.files import atomic_write_json
from latent_reason.model import backbones
from latent_reason.model.backbones import Backbone
from latent_reason.objectives.losses import token_losses
from latent_reason.outputs import check_output

from .statistics import cluster_bootstrap

console = Console(soft_wrap=True)


@torch.no_grad()
def losses(backbone: Backbone, texts: Iterable[str], max_tokens: int = 256) -> np.ndarray:
    """(n,) mean next-token loss (nats) of each text, over its first ``max_tokens`` tokens."""
    out = []
    for text in texts:
        ids = torch.tensor(backbone.tokenizer(text, add_special_tokens=False)["input_ids"][: max_tokens + 1])
        if len(ids) < 2:
            raise ValueError(f"the text {text[:40]!r} has fewer than two tokens. Leave it out.")
        ids = ids.to(backbone.model.device)
        mask = torch.ones(1, len(ids), dtype=torch.bool, device=ids.device)
        positions = torch.arange(len(ids), device=ids.device).expand(3, 1, -1)
        states = backbone.forward_text(backbone.embed(ids)[None], mask, positions)
        out.append(token_losses(backbone.logits(states[0, :-1]), ids[1:]).mean().item())
    return np.array(out)


def compare(before: np.ndarray, after: np.ndarray) -> dict:
    """Mean losses, and their relative difference with its 95 % interval over texts."""
    interval, base = cluster_bootstrap(after - before, range(len(before))), float(before.mean())
    return {
        "n": len(before),
        "before": round(base, 4),
        "after": round(float(after.mean()), 4),
        "worse": [round(x / base, 4) for x in interval],
    }


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        compare_to_file(parse_arguments(argv))


def compare_to_file(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite)
    texts = lines(args.texts) if args.texts else docstrings(sysconfig.get_path("stdlib"))
    texts = texts[: args.n]
    text_losses = []
    for name in ("before", "after"):
        backbone = (
            backbones.load_backbone(args.base).float()
            if name == "before"
            else checkpoint.load(args.checkpoint)[0].backbone
        )
        text_losses.append(losses(backbone.eval(), track(texts, description=name, console=console, transient=True)))
    result = compare(*text_losses)
    source = args.texts or f"docstrings of Python {sys.version_info.major}.{sys.version_info.minor}"
    atomic_write_json(
        args.out, {"schema": 1, "checkpoint": args.checkpoint, "base": args.base, "texts": source, **result}
    )
    worse, low, high = (100 * x for x in result["worse"])
    console.print(
        f"Plain text ({result['n']} texts): {result['before']:.3f} nats per token before training, "
        f"{result['after']:.3f} after: {worse:+.1f} % ({low:+.1f} to {high:+.1f}). Results written to {args.out}"
    )


if __name__ == "__main__":
    main()

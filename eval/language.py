"""What training did to plain text: its loss under a checkpoint and under the model that it began as.

    python -m eval.language CHECKPOINT --base MODEL --out FILE.json [--texts FILE.txt]

Without ``--texts`` (one text a line) the texts are docstrings of the modules of Python's standard library: prose by
people, on every machine, and nothing this project trains on. ``--base`` is a backbone's folder or Hub name.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Iterable

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from latent_reason import checkpoint
from latent_reason.data.texts import docstrings, lines
from latent_reason.errors import at_least, cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.model import backbones
from latent_reason.model.backbones import Backbone
from latent_reason.objectives.losses import token_losses

from .statistics import paired_bootstrap

console = Console(soft_wrap=True)


@torch.no_grad()
def losses(backbone: Backbone, texts: Iterable[str], longest: int = 256) -> np.ndarray:
    """Mean next-token loss (nats) of each text, of its first ``longest`` tokens."""
    out = []
    for text in texts:
        ids = torch.tensor(backbone.tokenizer(text, add_special_tokens=False)["input_ids"][: longest + 1])
        if len(ids) < 2:
            raise ValueError(f"the text {text[:40]!r} has no second word to tell. Leave it out.")
        ids = ids.to(backbone.model.device)
        mask = torch.ones(1, len(ids), dtype=torch.bool, device=ids.device)
        positions = torch.arange(len(ids), device=ids.device).expand(3, 1, -1)
        states = backbone.forward_text(backbone.embed(ids)[None], mask, positions)
        out.append(token_losses(backbone.logits(states[0, :-1]), ids[1:]).mean().item())
    return np.array(out)


def compare(before: np.ndarray, after: np.ndarray) -> dict:
    """Mean losses, and their difference as a share of the loss before, with its 95 % interval over texts."""
    gap, base = paired_bootstrap(after, before), float(before.mean())
    return {
        "n": len(before),
        "before": round(base, 4),
        "after": round(float(after.mean()), 4),
        "worse": [round(x / base, 4) for x in gap],
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.language", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--base", required=True, help="the model it began as: a folder or a Hub name")
    parser.add_argument("--texts", help="a file with one text a line; default: docstrings")
    parser.add_argument("--n", type=at_least(2), default=100, help="texts at most")
    parser.add_argument("--out", required=True)
    with cli_errors():
        to_file(parser.parse_args(argv))


def to_file(given: argparse.Namespace) -> None:
    texts = lines(given.texts) if given.texts else docstrings(sysconfig.get_path("stdlib"))
    texts = texts[: given.n]
    found = []
    for name in ("before", "after"):
        backbone = (
            backbones.load_backbone(given.base).float()
            if name == "before"
            else checkpoint.load(given.checkpoint)[0].backbone
        )
        found.append(losses(backbone.eval(), track(texts, description=name, console=console, transient=True)))
    result = compare(*found)
    source = given.texts or f"docstrings of Python {sys.version_info.major}.{sys.version_info.minor}"
    atomic_write_json(
        given.out, {"schema": 1, "checkpoint": given.checkpoint, "base": given.base, "texts": source, **result}
    )
    worse, low, high = (100 * x for x in result["worse"])
    console.print(
        f"Plain text ({result['n']} texts): {result['before']:.3f} nats a token before, "
        f"{result['after']:.3f} after: {worse:+.1f} % ({low:+.1f} to {high:+.1f}). Written to {given.out}"
    )


if __name__ == "__main__":
    main()

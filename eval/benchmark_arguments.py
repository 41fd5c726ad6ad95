"""Arguments of the commands that answer a benchmark in more than one step."""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_limits
from latent_reason.errors import at_least
from latent_reason.values import Seed, argument

from .items import PROMPTS


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """CHECKPOINT, NAME, DIR, and what chooses and decodes the items, as ``eval.benchmark`` has them."""
    parser.add_argument("checkpoint")
    parser.add_argument("name", help="a name of eval.benchmark --list")
    parser.add_argument("folder", metavar="DIR", help="folder with the files of the benchmark")
    parser.add_argument("--n", type=at_least(1), help="number of items, sampled with --seed (default: all)")
    parser.add_argument("--partial", action="store_true", help="allow missing items and images")
    parser.add_argument("--seed", type=argument(Seed), default=0)
    parser.add_argument("--batch-size", type=at_least(1), default=8)
    add_limits(parser)


def add_reply_arguments(parser: argparse.ArgumentParser) -> None:
    """How replies to questions are asked for and decoded."""
    parser.add_argument("--prompt", choices=PROMPTS, default="boxed", help="how an answer is asked for")
    parser.add_argument("--max-new", type=at_least(1), default=640, help="maximum number of new positions of a reply")

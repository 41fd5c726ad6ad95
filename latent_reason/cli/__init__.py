"""The command line of the library: ``latent-reason VERB``, or ``python -m latent_reason VERB``.

Each module defines a group of verbs. A verb is a function of the parsed arguments; its docstring is its help text.
Heavy imports are inside these functions, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse

from .. import __version__
from ..errors import cli_errors
from . import asking, data, models, packages, publishing, serving
from .arguments import HelpFormatter

DESCRIPTION = """\
Run, inspect and publish vision-language models that sketch while they reason.
Training is `python -m train.sft`, evaluation `python -m eval.run`; both need a
checkout of the repository.

  latent-reason methods                                   # list the methods
  latent-reason generate checkpoints/frozenlake-tiny      # answer one item
  latent-reason ask CHECKPOINT --image a.png --question "What is next?"
  latent-reason render checkpoints/frozenlake-tiny        # image of sketches
  latent-reason serve checkpoints/frozenlake-tiny         # OpenAI-style API
  latent-reason data check my_records                     # validate records
  latent-reason export RUN FOLDER --check                 # for transformers

`python -m latent_reason VERB` does the same. `latent-reason VERB --help` shows
the options of a verb. Set LATENT_REASON_TRACEBACK=1 to see the traceback of an
error, and LATENT_REASON_PLUGINS=my_pkg.my_method to load a checkpoint whose
method, head or backbone is your own code."""


def main(argv: list[str] | None = None) -> None:
    """Run one verb. ``argv`` defaults to the arguments of the process."""
    parser = argparse.ArgumentParser(prog="latent-reason", description=DESCRIPTION, formatter_class=HelpFormatter)
    parser.add_argument("--version", action="version", version=f"latent_reason {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for group in (models, asking, serving, data, publishing, packages):
        group.add_verbs(verbs)
    arguments = parser.parse_args(argv)
    with cli_errors():
        arguments.function(arguments)

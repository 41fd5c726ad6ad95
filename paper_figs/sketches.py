"""The storyboard of a checkpoint: inputs, gold sketches, gold sketches decoded, the model's sketches, its answers.

python paper_figs/sketches.py [CHECKPOINT] [--out FILE.png]
"""

from __future__ import annotations

from figure import figure_arguments

from latent_reason.cli import main
from latent_reason.outputs import PICTURES

if __name__ == "__main__":
    (checkpoint,), out = figure_arguments(
        __doc__, "sketches", "../checkpoints/frozenlake-tiny", endings=tuple(PICTURES)
    )
    main(["render", str(checkpoint), "--n", "4", "--out", str(out), "--overwrite"])

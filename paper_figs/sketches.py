"""The storyboard of a checkpoint: input, gold sketch, decoded target, the model's own sketch, and its text.

python paper_figs/sketches.py [CHECKPOINT] [--out FILE.png]
"""

from __future__ import annotations

from figure import load_sources

from latent_reason.cli import main

if __name__ == "__main__":
    (checkpoint,), out = load_sources(__doc__, "sketches", "../checkpoints/frozenlake-tiny", read=str)
    main(["render", checkpoint, "--n", "4", "--out", str(out)])

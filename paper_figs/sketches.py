"""The sheet of sketches of a checkpoint: input, gold sketch, decoded target, the model's own sketch, its words.

python paper_figs/sketches.py [CHECKPOINT] [--out FILE.png]
"""

from __future__ import annotations

from figure import asked

from latent_reason.cli import main

if __name__ == "__main__":
    (checkpoint,), out = asked(__doc__, "sketches", "../checkpoints/frozenlake-tiny", read=str)
    main(["render", checkpoint, "--n", "4", "--out", str(out)])

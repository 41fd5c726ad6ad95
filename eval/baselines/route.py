"""Choose the way to think first (Metis-HOME, paper 54 of the list, in its cheap form): a classifier on the state of the prompt
chooses to answer at once, to think in words, or to sketch.

The source has two experts, thinking and not, and a trained router. Here one model that was tuned to follow the mode in its
prompt (train/recipes/dual_frozenlake.yaml) has all modes, and a linear classifier chooses. It is fitted on training items, of
which each mode's answer is known, as in the boundary report:

    python -m eval.turns.router CHECKPOINT --out ROUTER.json
    python -m eval.baselines CHECKPOINT --baseline route:file=ROUTER.json --out FILE.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256

from eval.turns.baseline import Ask, Baseline, Problem, Read, Thinking
from eval.turns.router import MODES, Router, ask_for
from latent_reason.model.reasoner import LatentReasoner


@dataclass(frozen=True)
class Route(Baseline):
    """Args:
    file: a file of eval.turns.router. Without one, every question is answered in words.
    """

    file: str = ""

    PAPER = "Metis-HOME"
    SUMMARY = "chooses to answer at once, in words or with sketches"

    def __post_init__(self):
        router = Router.read(self.file) if self.file else None
        object.__setattr__(self, "_router", router)  # read once, and a mistake is told before anything is answered

    @property
    def may_sketch(self) -> bool:
        return self._router is not None and "sketch" in self._router.modes

    def check(self, model: LatentReasoner, decoder) -> None:
        super().check(model, decoder)
        if self._router is not None and len(self._router.mean) != model.backbone.width:
            raise ValueError(
                f"'{self.file}' reads states of width {len(self._router.mean)}, and this model has {model.backbone.width}. Fit it "
                "for this checkpoint with python -m eval.turns.router."
            )

    @property
    def fingerprint(self) -> str:
        return sha256(json.dumps(self._router.to_json()).encode()).hexdigest()[:16] if self._router else ""

    def think(self, problem: Problem) -> Thinking:
        mode = "text"
        if self._router is not None:
            reading = yield Read(problem.chat())
            mode = self._router.choose(reading.state)
        reply = yield Ask(ask_for(problem, MODES[mode]))
        return reply.text

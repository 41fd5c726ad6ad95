"""Coconut (2412.06769): language steps are replaced by continuous thoughts, which the text loss alone trains.

Idea: the last hidden state is the next input embedding. Stage s leaves out the first s sentences of the reasoning and
puts c * s thoughts before the rest. ``stages`` in a recipe raises s step by step; each stage starts from the model of
the stage before.

What differs from the released code: the thoughts of a batch need not be aligned; decoding is batched and cached; a step
is a sentence, not a line; a trace that ``uniform_prob`` sends to another stage stays there, and has no span in stage 0.
As in the released code (``pad_latent_to_max``), all rows of a stage have the same number of thoughts, because decoding
does not know how many steps an answer has. A stage after ``max_stage`` is the last: all steps are replaced by c *
``max_stage`` thoughts. START is forced and has no text loss (``start_loss=True`` gives it one).
Defaults: c = 2 and max_stage = 3 from the GSM8K runs of the paper, uniform_prob = 0 (0.3 in its analysis); stage 2 is our
choice.
"""

from __future__ import annotations

import random
from dataclasses import replace

from ..model.backbones.base import Backbone
from ..model.heads import IdentityHead
from ..model.processor import Processor
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..objectives.objective import Objective, RunOptions, remove_loss
from ..objectives.sentences import check_texts_can_be_joined, split_sentences
from ..trace import Sketch, Text, Trace
from ..values import Share, Size, SizeOrZero

PAPER = "2412.06769"
SUMMARY = "hidden states fed back as thoughts in place of the first sentences, stage by stage; text loss alone"
MODE = "text"
OLDER = {"max_stage": 0, "start_loss": True}


def thoughts_of(c: int, stage: int, max_stage: int) -> int:
    """The number of thoughts in a stage; ``max_stage`` 0: no stage is the last."""
    return c * min(stage, max_stage or stage)


class CoconutObjective(Objective):
    """Replaces the first sentences of the reasoning by the thoughts of one span: as many as ``stage`` says, and all after
    ``max_stage``. A share ``uniform_prob`` of the traces is of another stage, drawn from those that the trace has."""

    def __init__(
        self,
        run: RunOptions | None = None,
        *,
        c: int,
        stage: int,
        max_stage: int,
        uniform_prob: float,
        jacobi_sweeps: int = 0,
    ):
        super().__init__(run, latent_input="self", jacobi_sweeps=jacobi_sweeps)
        self.c, self.stage, self.max_stage, self.uniform_prob = c, stage, max_stage, uniform_prob

    def stage_of(self, trace: Trace) -> int:
        """The stage of a trace. It follows from its id and texts, so that a resumed run draws the same and records that
        share an id do not share a draw."""
        texts = [[p.text for p in message.content if isinstance(p, Text)] for message in trace.messages]
        draw = random.Random(f"{self.stage} {trace.id} {texts}")
        return self.stage if draw.random() >= self.uniform_prob else draw.randint(0, len(steps_of(trace)) - 1)

    def processor_for(self, model: LatentReasoner, trace: Trace) -> Processor:
        count = thoughts_of(self.c, self.stage_of(trace), self.max_stage)
        switch = replace(model.switch, count=count)
        return Processor(model.vocabulary, model.backbone, model.target, switch, model.system_prompt)

    def check_trace(self, model: LatentReasoner, trace: Trace) -> None:
        """As the base class does; also refuses an answer of texts with and without a loss, since it joins them."""
        super().check_trace(model, trace)
        if model.can_sketch:
            check_texts_can_be_joined(trace, "coconut")

    def prepare_example(self, model: LatentReasoner, trace: Trace) -> Trace:
        """The trace without sketches, its first sentences replaced by one span of thoughts."""
        *earlier, last = trace.messages
        if last.role != "assistant" or not model.can_sketch:
            return trace
        texts, steps, stage = [p for p in last.content if isinstance(p, Text)], steps_of(trace), self.stage_of(trace)
        removed = len(steps) if self.max_stage and stage > self.max_stage else stage
        rest = " ".join(steps[min(removed, len(steps) - 1) :])  # the answer is never removed
        text = Text(rest, texts[-1].loss if texts else None)
        content = (Sketch(None), text) if stage else (text,)
        return replace(trace, messages=(*remove_loss(earlier), replace(last, content=content)))


def steps_of(trace: Trace) -> list[str]:
    """The sentences of the last turn, at least one. The last of them is the answer."""
    text = "".join(p.text for p in trace.messages[-1].content if isinstance(p, Text))
    return [step for step in split_sentences(text) if step.strip()] or [""]


def build_model(
    backbone: Backbone, *, c: Size = 2, stage: SizeOrZero = 2, max_stage: SizeOrZero = 3, start_loss: bool = False
) -> LatentReasoner:
    if stage == 0:
        return LatentReasoner(backbone)
    return LatentReasoner(
        backbone,
        head=IdentityHead(backbone.width, backbone.width),
        switch=Switch(start="first", count=thoughts_of(c, stage, max_stage), open_loss=start_loss),
    )


def build_objective(
    run: RunOptions | None = None,
    *,
    c: Size = 2,
    stage: SizeOrZero = 2,
    max_stage: SizeOrZero = 3,
    uniform_prob: Share = 0.0,
    jacobi_sweeps: SizeOrZero = 0,
) -> CoconutObjective:
    if uniform_prob and stage == 0:
        raise ValueError(
            f"uniform_prob={uniform_prob} has no effect in stage 0, whose model has no thoughts. Set it in later stages "
            "alone."
        )
    return CoconutObjective(
        run, c=c, stage=stage, max_stage=max_stage, uniform_prob=uniform_prob, jacobi_sweeps=jacobi_sweeps
    )

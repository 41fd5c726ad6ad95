"""How likely a checkpoint finds a given answer: from one parallel pass, without decoding and without sketches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from latent_reason.objectives.losses import token_losses
from latent_reason.trace import Message, Text, Trace


@torch.no_grad()
def answer_log_probs(reasoner, traces: Sequence[Trace]) -> list[float]:
    """The log-probability in nats of the last turn of each trace, its end included. That turn has text alone.

    Raises:
        ValueError: a trace is longer than the model allows; names it.
    """
    batch = reasoner.processor(traces).to(reasoner.device)
    for trace, length in zip(traces, batch.mask.sum(1).tolist(), strict=True):
        if length > reasoner.backbone.max_length:
            raise ValueError(
                f"'{trace.id}' has {length:,} positions, images included, and the model takes {reasoner.backbone.max_length:,}. "
                "Set a smaller --image.max_pixels, or a larger --max_length."
            )
    states = reasoner.backbone.forward_text(reasoner.prompt_embeddings(batch), batch.mask, batch.positions)
    rows, columns = (batch.loss_weight > 0).nonzero(as_tuple=True)
    losses = token_losses(reasoner.backbone.logits(states[rows, columns - 1]), batch.ids[rows, columns])
    return (-losses.new_zeros(len(traces)).index_add(0, rows, losses)).tolist()


def log_odds(reasoner, prompts: Sequence[Trace], first: str, second: str) -> list[float]:
    """The log-probability of the boxed answer ``first`` minus that of ``second``, in nats, after each prompt."""
    answers = [answered(prompt, answer) for answer in (first, second) for prompt in prompts]
    found = answer_log_probs(reasoner, answers)
    return [one - other for one, other in zip(found[: len(prompts)], found[len(prompts) :], strict=True)]


def answered(prompt: Trace, answer: str) -> Trace:
    """The prompt, answered at once by the boxed answer."""
    return replace(prompt, messages=(*prompt.messages, Message("assistant", (Text(f"\\boxed{{{answer}}}"),))))

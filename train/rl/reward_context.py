"""What the measures of reinforcement learning need besides rollouts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latent_reason.tasks import Task
from latent_reason.visualization.sketch_decoder import SketchDecoder


@dataclass(frozen=True)
class RewardContext:
    """The models, the task and the decoder of a run."""

    reasoner: torch.nn.Module
    reference: torch.nn.Module | None  # the model at the start of training
    decoder: SketchDecoder | None
    task: Task
    mode: str  # of the task's traces

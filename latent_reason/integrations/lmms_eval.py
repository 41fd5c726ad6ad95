"""Adapter for lmms-eval: evaluate a checkpoint with its tasks, prompts and scores.

    pip install -e '.[lmms]' -c constraints.txt && pip install --no-deps lmms-eval==0.7.3    # in a checkout
    python -m lmms_eval --model latent_reason --model_args pretrained=CHECKPOINT --tasks TASK --batch_size 32 \\
        --output_path DIR --log_samples

The model argument ``boxed=True`` returns only the content of the last ``\\boxed{}``. lmms-eval finds the class by the
entry point in pyproject.toml. Answers contain no control tokens, so ``--reasoning_tags`` is not needed. Not supported:
likelihoods, multi-round chats, video, audio and several processes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from rich.console import Console
from rich.progress import track

from ..model.limits import InputLimits
from .answerer import Answerer, trace

REPEAT_OFFSET = 2**32  # larger than every document number


def manifests() -> list:
    """The model manifests for lmms-eval, called by the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest  # circular at module level: its package imports this file

    return [
        ModelManifest(model_id="latent_reason", chat_class_path="latent_reason.integrations.lmms_eval.LatentReason")
    ]


class LatentReason(lmms):
    """``pretrained`` is a checkpoint folder. ``min_pixels`` and ``max_pixels`` of an image and ``max_length``, the most
    positions of a row, are those of training unless they are given. ``max_batch_size``, for automatic batch sizes, is not
    used."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        boxed: bool = False,
        max_batch_size: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_length: int | None = None,
    ):
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("this adapter supports one process only. Start lmms-eval without accelerate or torchrun.")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size={batch_size}: must be an integer of at least 1.")
        limits = InputLimits(min_pixels, max_pixels, max_length)
        self.answer = Answerer(str(pretrained), batch_size=int(batch_size), device=device, boxed=boxed, limits=limits)

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests. Requests with the same generation arguments share batches. Repeated
        documents (``repeats``) get different noise."""
        same_args: dict[str, list[int]] = defaultdict(list)
        times_asked: Counter[tuple] = Counter()
        rows, results = [], {}
        for position, request in enumerate(requests):
            _, _, generation_args, number, task, split = request.args
            same_args[key := repr(sorted(generation_args.items()))].append(position)
            rows.append(number + REPEAT_OFFSET * times_asked[key, task, split, number])
            times_asked[key, task, split, number] += 1
        size = self.answer.batch_size
        batches = [places[at : at + size] for places in same_args.values() for at in range(0, len(places), size)]
        for places in track(batches, description="answers", transient=Console().is_terminal):
            generation_args = requests[places[0]].args[2]
            answers = self.answer([self.trace(requests[p]) for p in places], [rows[p] for p in places], generation_args)
            for position, answer in zip(places, answers, strict=True):
                counts = TokenCounts(output_tokens=answer.positions, reasoning_tokens=answer.latents)
                results[position] = GenerationResult(answer.text, counts)
                self.cache_hook.add_partial(
                    "generate_until", (requests[position].args[0], generation_args), answer.text
                )
        return [results[position] for position in range(len(requests))]

    def trace(self, request: Instance):
        """The trace of a request."""
        _, messages, _, number, task, split = request.args
        return trace(f"{task}, {split} document {number}", messages(self.task_dict[task][split][number]))

    def loglikelihood(self, requests):
        raise NotImplementedError("latent_reason does not support tasks that compare likelihoods.")

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("latent_reason does not support multi-round tasks.")

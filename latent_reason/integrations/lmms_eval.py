"""A checkpoint of ours as a model of lmms-eval: its tasks, prompts and scores, our decoding.

    pip install -e '.[lmms]' -c constraints.txt && pip install --no-deps lmms-eval==0.7.3    # in a checkout
    python -m lmms_eval --model latent_reason --model_args pretrained=CHECKPOINT --tasks TASK --batch_size 32 \\
        --output_path DIR --log_samples

``boxed=True`` among the model's arguments answers with the content of the last ``\\boxed{}`` alone. lmms-eval finds
the class by the entry point in pyproject.toml. Control tokens never reach the answer, so ``--reasoning_tags`` has
nothing to strip. Leaves out: likelihoods, chats of several rounds, video and sound, several processes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from rich.console import Console
from rich.progress import track

from .answerer import Answerer, trace

AGAIN = 2**32  # apart from the number of every document


def manifests() -> list:
    """What the entry point tells lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest  # its package reads this file while it is imported

    return [
        ModelManifest(model_id="latent_reason", chat_class_path="latent_reason.integrations.lmms_eval.LatentReason")
    ]


class LatentReason(lmms):
    """``pretrained`` is a checkpoint folder; ``max_batch_size``, of batch sizes found by trying, is not used."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        boxed: bool = False,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("this adapter runs in one process. Start lmms-eval without accelerate or torchrun.")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size={batch_size}: give a whole number from 1 on.")
        self.answer = Answerer(str(pretrained), batch_size=int(batch_size), device=device, boxed=boxed)

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests; those with the same generation arguments share batches. A document that
        is asked again (``repeats``) draws other noise."""
        alike: dict[str, list[int]] = defaultdict(list)
        asked: Counter[tuple] = Counter()
        rows, found = [], {}
        for place, request in enumerate(requests):
            _, _, given, number, task, split = request.args
            alike[how := repr(sorted(given.items()))].append(place)
            rows.append(number + AGAIN * asked[how, task, split, number])
            asked[how, task, split, number] += 1
        size = self.answer.batch_size
        batches = [places[at : at + size] for places in alike.values() for at in range(0, len(places), size)]
        for places in track(batches, description="answers", transient=Console().is_terminal):
            given = requests[places[0]].args[2]
            answers = self.answer([self.trace(requests[p]) for p in places], [rows[p] for p in places], given)
            for place, answer in zip(places, answers, strict=True):
                counts = TokenCounts(output_tokens=answer.positions, reasoning_tokens=answer.latents)
                found[place] = GenerationResult(answer.text, counts)
                self.cache_hook.add_partial("generate_until", (requests[place].args[0], given), answer.text)
        return [found[place] for place in range(len(requests))]

    def trace(self, request: Instance):
        _, messages, _, number, task, split = request.args
        return trace(f"{task}, {split} document {number}", messages(self.task_dict[task][split][number]))

    def loglikelihood(self, requests):
        raise NotImplementedError("latent_reason answers in words: tasks that compare likelihoods cannot be run.")

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("latent_reason answers once: tasks of several rounds cannot be run.")

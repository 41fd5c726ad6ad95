"""Vectors in the prompt that are optimised for each item on a frozen model: LTPO (2510.04182) and DMLR (2512.12623).

L vectors end the user's turn. Each iteration perturbs them, reads from the model's own predictions behind the vectors
how sure it is, and moves them. DMLR also puts copies of the image tokens behind a vector to which it attends most. Then the
answer is decoded from exactly the vectors, patches and positions that were scored best. A high reward is no proof of a
right answer: report both.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn.utils.rnn import pad_sequence

from ...model.batch import MixedBatch
from ...model.processor import EncodedExample
from ...model.reasoner import LatentReasoner
from ...trace import Trace
from ..config import GenerationConfig
from ..engine import generate
from ..rollout import Rollout
from .vector_block import VectorBlock
from .vector_search import PromptVectors, Search, reward_of_logits

__all__ = ["Candidate", "OptimisedPrompt", "PromptVectors", "generate_with_vectors", "join_prompts", "optimise"]

#: a step of more than this many times the RMS of a vector replaces it rather than moves it
LARGE_STEP = 0.5


@dataclass(frozen=True)
class Candidate:
    """What was scored: vectors (L, D) in the model's precision, the columns (L, c) of their patches, and the reward."""

    vectors: torch.Tensor
    patches: torch.Tensor
    reward: float


@dataclass
class OptimisedPrompt:
    """A prompt with the vectors and patches that earned the best reward.

    Attributes:
        prompt: a batch of one row, with the positions under which it was scored.
        prompt_embeds: (1, N, D + extra_width) its inputs.
        best: the candidate that it holds.
        start_reward: of the first vectors without patches. They are kept if nothing is better.
        rewards: of all candidates of each iteration.
        relative_steps: the length of each update of a vector over the vector's own, the largest of the L.
        num_passes, num_positions: forward passes of the text model, and the positions in all rows of them.
        example: the encoded prompt, from which batches are made.
    """

    prompt: MixedBatch
    prompt_embeds: torch.Tensor
    best: Candidate
    start_reward: float
    rewards: list[list[float]] = field(default_factory=list)
    relative_steps: list[float] = field(default_factory=list)
    num_passes: int = 0
    num_positions: int = 0
    example: EncodedExample = field(default_factory=EncodedExample)

    @property
    def best_reward(self) -> float:
        return self.best.reward


@torch.no_grad()
def optimise(
    model: LatentReasoner, trace: Trace, options: PromptVectors | None = None, seed: int = 0, row_id: int = 0
) -> OptimisedPrompt:
    """Search the vectors of one prompt. The perturbations of an iteration are one batch.

    Example:
        >>> found = optimise(reasoner, trace, PromptVectors(length=2))
        >>> rollout = generate(reasoner, found.prompt, prompt_embeds=found.prompt_embeds)

    Args:
        model: any reasoner, or an untouched stock backbone as method ``direct``. It stays as it is.
        trace: an example whose prompt ends with a user's message.
        seed, row_id: name the noise, so that a result depends on neither batch nor order.

    Raises:
        ValueError: what :class:`.VectorBlock` refuses, ``top_k`` is more than the model's tokens, or a reward is not
            finite.

    Warns:
        UserWarning: a step of the formula is longer than half of a vector.
    """
    options, was_training = options or PromptVectors(), model.training
    model.eval()
    try:
        block = VectorBlock(model, trace, options.length, options.start, options.patch_positions)
        return Optimiser(model, block, options, seed, row_id).run()
    finally:
        model.train(was_training)


class Optimiser:
    """:func:`optimise` of one block."""

    def __init__(self, model: LatentReasoner, block: VectorBlock, options: PromptVectors, seed: int, row_id: int):
        self.model, self.block, self.options = model, block, options
        self.forbidden = model.forbidden_tokens()[0]  # no span opens at a vector
        known = int((~self.forbidden).sum())
        if options.top_k > known:
            raise ValueError(f"top_k={options.top_k}: the model may write {known} tokens only.")
        self.search = Search(options, block.start, seed, row_id)

    def score(self, vectors: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Rewards (n,) of vectors (n, L, D) with patches at columns (L, c): the mean over the vectors."""
        states = self.block.states(vectors, patches, self.block.prompt(patches).positions)
        logits = self.model.backbone.logits(states).float().masked_fill(self.forbidden, float("-inf"))
        return reward_of_logits(logits, self.options.reward, self.options.top_k).mean(-1)

    def run(self) -> OptimisedPrompt:
        block, options, search = self.block, self.options, self.search
        none = block.image_columns.new_zeros(options.length, 0)
        start = float(self.score(block.start[None], none))
        best, since, all_rewards, steps = Candidate(block.start, none, start), 0, [], []
        while search.iteration < options.iterations and (options.patience is None or since < options.patience):
            patches, noise = self.pick_patches(best.patches), search.perturbations()
            candidates = search.candidates(noise).to(block.start.dtype)
            rewards = self.score(candidates, patches)
            all_rewards.append(rewards.tolist())
            first = max(range(len(rewards)), key=all_rewards[-1].__getitem__)
            self.check_rewards(all_rewards[-1])
            since += 1
            if all_rewards[-1][first] > best.reward:
                best, since = Candidate(candidates[first].clone(), patches, all_rewards[-1][first]), 0
            steps.append(search.update(noise, rewards))
        self.warn_of_large_steps(steps)
        return OptimisedPrompt(
            block.prompt(best.patches),
            block.prompt_embeds(best.vectors, best.patches),
            best,
            start,
            all_rewards,
            steps,
            block.num_passes,
            block.num_positions,
            block.example_with(best.patches.shape[1]),
        )

    def pick_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """(L, c) columns of the next candidates' patches, by the attention of the vectors as they are, with the patches
        (L, c) of the best candidate. They replace those; the paper does not say whether they should be added."""
        if not self.options.patches or not len(self.block.image_columns):
            return patches
        vectors = self.search.vectors.to(self.block.start.dtype)
        return self.block.attended(vectors, patches, self.block.prompt(patches).positions, self.options.patches)

    def check_rewards(self, rewards: list[float]) -> None:
        if not all(map(math.isfinite, rewards)):
            raise ValueError(
                f"iteration {self.search.iteration}: rewards are not finite ({rewards}). Use a smaller sigma or step."
            )

    def warn_of_large_steps(self, steps: list[float]) -> None:
        if self.options.estimator == "reinforce" and max(steps, default=0) > LARGE_STEP:
            warnings.warn(
                f"a step moved a vector by more than {LARGE_STEP} times its RMS, so it is replaced rather than moved. Use "
                "sigma_unit='rms' with a smaller step, or PromptVectors.OURS.",
                stacklevel=4,
            )


# -- decoding ----------------------------------------------------------------------------------------------------------
@torch.no_grad()
def generate_with_vectors(
    model: LatentReasoner,
    traces: Sequence[Trace],
    options: PromptVectors | None = None,
    config: GenerationConfig | None = None,
    row_ids: Sequence[int] | None = None,
) -> tuple[Rollout, list[OptimisedPrompt]]:
    """Optimise the vectors of each prompt by itself, then decode all answers together.

    Example:
        >>> rollout, found = generate_with_vectors(reasoner, traces, PromptVectors.OURS)
        >>> print(rollout.text(0, reasoner.vocabulary), found[0].start_reward, found[0].best_reward)

    Args:
        config: how the answers are decoded. Its seed is also that of the search.
        row_ids: keys of each row's randomness (default: its number).

    Returns:
        The rollout, and the prompts that it continues. It cannot be replayed or trained on, because ids do not say what
        the vectors are.

    Raises:
        ValueError: as :func:`optimise`, or ``hide_images`` with patches, which would show what it hides.
    """
    options, config = options or PromptVectors(), config or GenerationConfig()
    if config.for_model(model.hides_images).hide_images and options.patches:
        raise ValueError("hide_images: the patches behind the vectors would stay visible. Use patches=0.")
    keys = list(range(len(traces))) if row_ids is None else list(row_ids)
    found = [optimise(model, trace, options, config.seed, key) for trace, key in zip(traces, keys, strict=True)]
    prompt, embeds = join_prompts(model, found)
    return generate(model, prompt, config, row_ids=keys, prompt_embeds=embeds), found


def join_prompts(model: LatentReasoner, prompts: Sequence[OptimisedPrompt]) -> tuple[MixedBatch, torch.Tensor]:
    """Prompts of one row each as one left-padded batch, and their inputs (B, N, D + extra_width)."""
    backbone, v = model.backbone, model.vocabulary
    batch = model.processor.collate([prompt.example for prompt in prompts]).to(model.device)
    positions = [prompt.prompt.positions[:, 0].T for prompt in prompts]
    embeds = backbone.pad_extra(backbone.embed(torch.full_like(batch.ids, v.pad)))
    for row, prompt in zip(embeds, prompts, strict=True):
        row[-prompt.prompt_embeds.shape[1] :] = prompt.prompt_embeds[0]
    positions = pad_sequence(positions, batch_first=True, padding_side="left").movedim(-1, 0)
    return replace(batch, positions=positions), embeds

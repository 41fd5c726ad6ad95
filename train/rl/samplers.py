"""Which items reinforcement learning uses, how many, and the weight of each, by the pass rate of their level."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler

from latent_reason.tasks import Item

from ..config import RLTrainingConfig
from ..data import kept
from .evidence_triples import make_triple

DECAY = 0.9  # of every running average
MAX_OVERSAMPLING = 4.0


class PassRates:
    """Running averages: the pass rate of each level, and the share of groups without a gradient. Each process has its
    own."""

    def __init__(self, levels: list[int]):
        self.levels, self.skipped = levels, 0.0
        self.rates = dict.fromkeys(levels, 0.5)

    def update(self, level: int, share: float) -> None:
        """Add a group of this level. ``share`` of its answers was correct."""
        self.rates[level] = DECAY * self.rates[level] + (1 - DECAY) * share

    def update_skipped(self, share: float) -> None:
        """Add a batch in which this share of groups had no gradient."""
        self.skipped = DECAY * self.skipped + (1 - DECAY) * share

    def sampling_probs(self) -> torch.Tensor:
        """(levels,) sampling probabilities: largest at a pass rate of 1/2, smallest at 0 and 1 (the idea of RLCS,
        GLM-4.1V-Thinking 2507.01006, which gives no formula)."""
        p = torch.tensor([self.rates[level] for level in self.levels])
        weight = p * (1 - p) + 0.02
        return weight / weight.sum()

    def weight(self, level: int) -> float:
        """Weight of the advantages of this level, from 1/2 to 2: larger for a lower pass rate."""
        unsolved = {key: 1 - rate for key, rate in self.rates.items()}
        mean = sum(unsolved.values()) / len(unsolved)
        return max(0.5, min(2.0, unsolved[level] / mean)) if mean else 1.0

    @property
    def oversampling(self) -> float:
        """Factor of items to try, so that the requested number of groups has a gradient (same source)."""
        return min(MAX_OVERSAMPLING, 1 / max(1 - self.skipped, 1 / MAX_OVERSAMPLING))


class PassRateSampler(Sampler):
    """Endless indices of items for one process. Levels are sampled by pass rate; the items of a level follow in
    order."""

    def __init__(self, pass_rates: PassRates, levels: list[int], seed: int, rank: int = 0, world: int = 1):
        """``levels``: for each item, the index of its level in ``pass_rates.levels``."""
        self.pass_rates, self.levels, self.rank, self.world = pass_rates, levels, rank, world
        self.random = torch.Generator().manual_seed(seed * world + rank)

    def __iter__(self) -> Iterator[int]:
        levels = self.pass_rates.levels
        indices = {
            level: [i for i, item_level in enumerate(self.levels) if item_level == number][self.rank :: self.world]
            for number, level in enumerate(levels)
        }
        if not all(indices.values()):
            raise ValueError(
                f"data.items: {len(self.levels)} items are too few for {len(levels)} levels on {self.world} processes. "
                "Set a larger data.items."
            )
        next_index = dict.fromkeys(levels, 0)
        while True:
            level = levels[int(torch.multinomial(self.pass_rates.sampling_probs(), 1, generator=self.random))]
            yield indices[level][next_index[level] % len(indices[level])]
            next_index[level] += 1


class ShuffledSampler(Sampler):
    """Endless indices of items for one process: all items once per epoch, in another order in each epoch."""

    def __init__(self, items: int, seed: int, rank: int = 0, world: int = 1):
        self.items, self.seed, self.rank, self.world = items, seed, rank, world

    def __iter__(self) -> Iterator[int]:
        for epoch in count():
            random = torch.Generator().manual_seed(self.seed + 1_000_003 * epoch)
            yield from torch.randperm(self.items, generator=random).tolist()[self.rank :: self.world]


class PromptData(L.LightningDataModule):
    """Batches of items for each process: shuffled with the seed of the recipe, or sampled by pass rate."""

    def __init__(self, task, config: RLTrainingConfig, pass_rates: PassRates, is_validated: bool = True):
        super().__init__()
        self.task, self.config, self.pass_rates = task, config, pass_rates
        self.rows = {"val": [0] if is_validated else []}

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        data, rl = self.config.data, self.config.rl
        indices = kept(data, data.items) if data.include_ids else list(self.task.indices(data.items))
        if len(indices) < world:
            raise ValueError(
                f"data.items: {len(indices)} items are too few for {world} processes. Set a larger data.items."
            )
        if rl.sampler == "pass_rate":
            levels = [self.pass_rates.levels.index(self.task.level_of(i)) for i in indices]
            sampler = PassRateSampler(self.pass_rates, levels, self.config.seed, rank, world)
        else:
            sampler = ShuffledSampler(len(indices), self.config.seed, rank, world)
        size = (rl.num_prompts // 3 if rl.evidence_triples else rl.num_prompts) * (1 + rl.dynamic_sampling)
        return DataLoader(
            indices, batch_size=min(size, -(-len(indices) // world)), sampler=sampler, collate_fn=self.items
        )

    def items(self, indices: list[int]) -> list[Item]:
        """The items of these indices; with ``rl.evidence_triples``, three variants of each."""
        if not self.config.rl.evidence_triples:
            return [self.task[i] for i in indices]
        return [item for i in indices for item in make_triple(self.task, self.task[i])]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows["val"])

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch  # items are no tensors

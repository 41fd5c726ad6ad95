"""Which items reinforcement learning takes, how many of them, and what each of them counts: by how often their kind is
solved."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler

from latent_reason.tasks import Item

from ..config import RLTrainingConfig
from ..data import kept
from .evidence_triples import triple

DECAY = 0.9  # of every running average
MOST = 4.0  # times as many items as asked for


class PassRates:
    """How often items of each level are solved, and how many groups teach nothing, as running averages. Each process
    keeps its own."""

    def __init__(self, levels: list[int]):
        self.levels, self.dull = levels, 0.0
        self.solved = dict.fromkeys(levels, 0.5)

    def note(self, level: int, share: float) -> None:
        """A group of this level of which this share was right."""
        self.solved[level] = DECAY * self.solved[level] + (1 - DECAY) * share

    def note_dull(self, share: float) -> None:
        """A batch of which this share of groups taught nothing."""
        self.dull = DECAY * self.dull + (1 - DECAY) * share

    def chances(self) -> torch.Tensor:
        """(levels,) how often each level is to be drawn: most where every other answer is right, seldom where all or
        none are (the idea of RLCS, GLM-4.1V-Thinking 2507.01006, which gives no formula)."""
        p = torch.tensor([self.solved[level] for level in self.levels])
        weight = p * (1 - p) + 0.02
        return weight / weight.sum()

    def weight(self, level: int) -> float:
        """What an advantage of this level counts: the more the fewer are solved, between 1/2 and 2."""
        unsolved = {name: 1 - rate for name, rate in self.solved.items()}
        mean = sum(unsolved.values()) / len(unsolved)
        return max(0.5, min(2.0, unsolved[level] / mean)) if mean else 1.0

    @property
    def ahead(self) -> float:
        """How many times as many items to take so that as many as asked for teach something (the same)."""
        return min(MOST, 1 / max(1 - self.dull, 1 / MOST))


class ByPassRate(Sampler):
    """Places of items without end, the level of each drawn by its pass rate, those of a level in turn: this process'
    share of them."""

    def __init__(self, rates: PassRates, levels: list[int], seed: int, rank: int = 0, world: int = 1):
        """``levels`` numbers the level of each item among those of ``rates``."""
        self.rates, self.levels, self.rank, self.world = rates, levels, rank, world
        self.random = torch.Generator().manual_seed(seed * world + rank)

    def __iter__(self) -> Iterator[int]:
        levels = self.rates.levels
        places = {
            level: [i for i, its in enumerate(self.levels) if its == at][self.rank :: self.world]
            for at, level in enumerate(levels)
        }
        if not all(places.values()):
            raise ValueError(
                f"data.items: {len(self.levels)} are too few for {len(levels)} levels on {self.world} processes."
            )
        turn = dict.fromkeys(levels, 0)
        while True:
            level = levels[int(torch.multinomial(self.rates.chances(), 1, generator=self.random))]
            yield places[level][turn[level] % len(places[level])]
            turn[level] += 1


class InTurn(Sampler):
    """Places of items without end, each once before any comes again, in another order every time: this process' share
    of them."""

    def __init__(self, items: int, seed: int, rank: int = 0, world: int = 1):
        self.items, self.seed, self.rank, self.world = items, seed, rank, world

    def __iter__(self) -> Iterator[int]:
        for turn in count():
            random = torch.Generator().manual_seed(self.seed + 1_000_003 * turn)
            yield from torch.randperm(self.items, generator=random).tolist()[self.rank :: self.world]


class Prompts(L.LightningDataModule):
    """Batches of items, each process its own: in an order that the seed fixes, or by pass rate."""

    def __init__(self, task, config: RLTrainingConfig, rates: PassRates):
        super().__init__()
        self.task, self.config, self.rates = task, config, rates
        self.rows = {"val": [0]}

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        data, rl = self.config.data, self.config.rl
        items = kept(data, data.items) if data.include_ids else list(range(data.items))
        if len(items) < world:
            raise ValueError(f"data.items: {len(items)} for {world} processes. Give more.")
        if rl.sampler == "pass_rate":
            levels = [place % len(self.rates.levels) for place in items]
            sampler = ByPassRate(self.rates, levels, self.config.seed, rank, world)
        else:
            sampler = InTurn(len(items), self.config.seed, rank, world)
        places = (rl.num_prompts // 3 if rl.evidence_triples else rl.num_prompts) * (1 + rl.dynamic_sampling)
        return DataLoader(
            items, batch_size=min(places, -(-len(items) // world)), sampler=sampler, collate_fn=self.items
        )

    def items(self, places: list[int]) -> list[Item]:
        """The items at these places, with ``rl.evidence_triples`` each in three."""
        if not self.config.rl.evidence_triples:
            return [self.task[i] for i in places]
        return [item for i in places for item in triple(self.task, self.task[i])]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows["val"])

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch  # items of a task are no tensors

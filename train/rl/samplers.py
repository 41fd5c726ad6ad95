"""Which items reinforcement learning uses, how many, and the weight of each, by the pass rate of their level."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice

import lightning as L
import torch
from torch.utils.data import DataLoader

from latent_reason.tasks import Item

from ..batch_sizes import TRIPLE, rows_per_process
from ..config import RLTrainingConfig
from ..traces import kept
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

    def state_dict(self) -> dict:
        return {"rates": [self.rates[level] for level in self.levels], "skipped": self.skipped}

    def load_state_dict(self, state: dict) -> None:
        self.rates, self.skipped = dict(zip(self.levels, state["rates"], strict=True)), state["skipped"]

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


class PassRateSampler:
    """Endless indices of items for one process. Levels are sampled by pass rate; the items of a level follow in
    order."""

    def __init__(self, pass_rates: PassRates, levels: list[int], seed: int, rank: int = 0, world: int = 1):
        """``levels``: for each item, the index of its level in ``pass_rates.levels``."""
        self.pass_rates, self.world = pass_rates, world
        self.random = torch.Generator().manual_seed(seed * world + rank)
        self.indices = {
            level: [i for i, item_level in enumerate(levels) if item_level == number][rank::world]
            for number, level in enumerate(pass_rates.levels)
        }
        if not all(self.indices.values()):
            raise ValueError(
                f"data.items: {len(levels)} items are too few for {len(pass_rates.levels)} levels on {world} processes. "
                "Set a larger data.items."
            )
        self.next_index = [0] * len(pass_rates.levels)

    def __iter__(self) -> Iterator[int]:
        while True:
            number = int(torch.multinomial(self.pass_rates.sampling_probs(), 1, generator=self.random))
            indices = self.indices[self.pass_rates.levels[number]]
            self.next_index[number] += 1
            yield indices[(self.next_index[number] - 1) % len(indices)]

    def state_dict(self) -> dict:
        random = base64.b64encode(self.random.get_state().numpy().tobytes()).decode()
        return {"world": self.world, "next_index": list(self.next_index), "random": random}

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError for the state of another number of processes, whose levels were sampled otherwise."""
        if state["world"] != self.world:
            raise ValueError(
                f"resume: rl.sampler pass_rate cannot continue on {self.world} processes. Use {state['world']}, as before."
            )
        self.next_index = list(state["next_index"])
        self.random.set_state(torch.frombuffer(bytearray(base64.b64decode(state["random"])), dtype=torch.uint8))


class ShuffledSampler:
    """Endless indices of items: all items once per epoch, in another order in each epoch. Process ``rank`` of ``world``
    takes every ``world``-th of them."""

    def __init__(self, items: int, seed: int, rank: int = 0, world: int = 1):
        self.items, self.seed, self.rank, self.world, self.taken = items, seed, rank, world, 0

    def __iter__(self) -> Iterator[int]:
        epoch, order = -1, []
        while True:
            number = self.taken * self.world + self.rank
            if number // self.items != epoch:
                epoch = number // self.items
                random = torch.Generator().manual_seed(self.seed + 1_000_003 * epoch)
                order = torch.randperm(self.items, generator=random).tolist()
            self.taken += 1
            yield order[number % self.items]

    def state_dict(self) -> dict:
        return {"taken": self.taken * self.world}

    def load_state_dict(self, state: dict) -> None:
        if state["taken"] % self.world:
            raise ValueError(
                f"resume: {self.world} processes cannot share the items after item {state['taken']}. Use as many as before."
            )
        self.taken = state["taken"] // self.world


class PromptBatches:
    """Batches of ``size`` items of a sampler. Lightning saves and restores the place."""

    def __init__(self, sampler: PassRateSampler | ShuffledSampler, size: int, items: Callable[[list[int]], list[Item]]):
        self.sampler, self.size, self.items = sampler, size, items
        self.wait_seconds = 0.0  # spent on making items so far, while training waited

    def __len__(self) -> int:
        """Endless. Without a length Lightning would read a batch ahead, and the place would be ahead of training."""
        return sys.maxsize

    def __iter__(self) -> Iterator[list[Item]]:
        indices = iter(self.sampler)
        while True:
            began = time.monotonic()
            items = self.items(list(islice(indices, self.size)))
            self.wait_seconds += time.monotonic() - began
            yield items

    def state_dict(self) -> dict:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.sampler.load_state_dict(state)


class PromptData(L.LightningDataModule):
    """Batches of items for each process: shuffled with the seed of the recipe, or sampled by pass rate."""

    def __init__(self, task, config: RLTrainingConfig, pass_rates: PassRates, is_validated: bool = True):
        super().__init__()
        self.task, self.config, self.pass_rates = task, config, pass_rates
        self.data = config.data
        self.rows = {"val": [0] if is_validated else []}

    def indices(self) -> list[int]:
        """The items that are used, by their index."""
        data = self.config.data
        return kept(data, data.items) if data.include_ids else list(self.task.indices(data.items))

    def digest(self) -> str:
        """Hash of the indices and levels of all items."""
        return blake2b(str([(i, self.task.level_of(i)) for i in self.indices()]).encode(), digest_size=16).hexdigest()

    def train_dataloader(self) -> PromptBatches:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        rl, indices = self.config.rl, self.indices()
        if len(indices) < world:
            raise ValueError(
                f"data.items: {len(indices)} items are too few for {world} processes. Set a larger data.items."
            )
        if rl.sampler == "pass_rate":
            levels = [self.pass_rates.levels.index(self.task.level_of(i)) for i in indices]
            sampler = PassRateSampler(self.pass_rates, levels, self.config.seed, rank, world)
        else:
            sampler = ShuffledSampler(len(indices), self.config.seed, rank, world)
        num_prompts = rows_per_process(self.config, world)
        size = (num_prompts // TRIPLE if rl.evidence_triples else num_prompts) * (1 + rl.dynamic_sampling)
        size = min(size, -(-len(indices) // world))
        return PromptBatches(sampler, size, lambda numbers: self.items([indices[number] for number in numbers]))

    def items(self, indices: list[int]) -> list[Item]:
        """The items of these indices; with ``rl.evidence_triples``, three variants of each."""
        if not self.config.rl.evidence_triples:
            return [self.task[i] for i in indices]
        return [item for i in indices for item in make_triple(self.task, self.task[i])]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows["val"], generator=torch.Generator())

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch  # items are no tensors

"""Native records as a task of reinforcement learning: each has a question and an ``answer``, which its ``checker``
grades. An assistant turn is not needed."""

from __future__ import annotations

from pathlib import Path

from eval.records import RecordTask, make_item
from latent_reason.data.errors import DataError
from latent_reason.data.indexed import RecordIndex
from latent_reason.tasks import Item
from latent_reason.trace import Trace

from ..config import RLTrainingConfig
from ..traces import warn_of_left_out_records

#: rewards and measures that need the rules of a task -> what a task says and records do not
TASK_REWARDS = {
    "ver": "which answer follows from a reasoning",
    "sketch_match": "what a sketch should show",
    "defacto": "where the evidence is",
}


class FolderTask(RecordTask):
    """The records of one split of a folder, at most ``most``. An image is read when its record is used.

    Raises:
        DataError: a record is damaged, has no answer, or its checker rejects its own answer; there is no record.
        FileNotFoundError: ``folder`` does not exist.
    """

    def __init__(self, folder: str | Path, split: str, most: int):
        self.name = Path(folder).name
        self.item_levels: list[int] = []
        self.has_traces = True  # every record has an assistant turn
        self.records = RecordIndex(folder, split, most, self._examine)
        del self.item_levels[len(self.records) :]
        self.levels = sorted(set(self.item_levels))

    def _examine(self, trace: Trace) -> None:
        if trace.answer is None:
            raise DataError("E14", "answer", "missing: rollouts are graded by it. Add it, or name another split.")
        item = make_item(trace, 0)
        try:
            self.check_item(item)
        except ValueError as error:
            raise DataError("E05", "checker", f"{error}") from None
        self.item_levels.append(item.level)
        self.has_traces &= trace.messages[-1].role == "assistant"

    def __len__(self) -> int:
        return len(self.records)

    def level_of(self, index: int) -> int:
        return self.item_levels[index]

    def indices(self, n: int) -> range:
        return range(min(n, len(self)))

    def __getitem__(self, index: int) -> Item:
        return make_item(self.records[index], index)

    def trace(self, item: Item, mode: str = "mixed") -> Trace:
        return self.records[item.index]

    def box(self, item: Item) -> None:
        """Where the evidence is: unknown."""


def load_records(config: RLTrainingConfig) -> FolderTask:
    """The training records of ``data.folder``.

    Raises:
        ValueError: a key needs the rules of a task, or a supervised loss has nothing to learn from.
    """
    task = FolderTask(config.data.folder, "train", config.data.items)
    for name in config.rl.rewards:
        if (needed := name.removeprefix("trust.")) in TASK_REWARDS:
            raise ValueError(
                f"rl.rewards: {name!r} asks a task {TASK_REWARDS[needed]}, and the records of data.folder do not say it. "
                "Remove the reward."
            )
    if config.rl.evidence_triples:
        raise ValueError(
            "rl.evidence_triples masks the evidence of a task's images, and the records of data.folder do not say where "
            "it is. Remove rl.evidence_triples."
        )
    if config.rl.sft_coef and not task.has_traces:
        raise ValueError(
            f"rl.sft_coef: '{config.data.folder}' has records without an assistant turn, which a supervised loss needs. "
            "Remove rl.sft_coef."
        )
    if task.records.has_more:
        warn_of_left_out_records(config.data.folder, len(task))
    return task


def load_held_out(config: RLTrainingConfig) -> FolderTask | None:
    """The val records of ``data.folder``; None without such records or with ``data.val_items`` 0."""
    try:
        return FolderTask(config.data.folder, "val", config.data.val_items) if config.data.val_items else None
    except DataError as error:
        if error.code == "E25":
            return None
        raise

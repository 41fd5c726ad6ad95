"""Held-out records of a folder that are decoded while a model trains on the others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from eval.records import RecordTask, make_item
from latent_reason.asking.examples import records_of
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.tasks import Item
from latent_reason.trace import Trace


class HeldOutRecords(RecordTask):
    """The first ``most`` val records of a folder that can be graded: with an ``answer`` that their checker accepts. There
    may be none."""

    def __init__(self, folder: str | Path, most: int):
        self.name = Path(folder).name
        self.traces = list(islice(self._gradable(Path(folder)), most))

    def _gradable(self, folder: Path) -> Iterator[Trace]:
        for trace in records_of(folder, "val"):
            if trace.answer is None or trace.messages[-1].role != "assistant":
                continue
            try:
                self.check_item(make_item(trace, 0))
            except ValueError:
                continue  # `data check` names it; a run on texts and images does not need its grade
            yield trace

    def __len__(self) -> int:
        return len(self.traces)

    def __getitem__(self, index: int) -> Item:
        return make_item(self.traces[index], index)

    def trace(self, item: Item, mode: str = "mixed") -> Trace:
        return self.traces[item.index]

    def longest_answer(self, reasoner: LatentReasoner) -> int:
        """Positions of the longest gold answer, sketches included."""
        encode = reasoner.processor.encode
        return max(len(encode(trace).ids) - len(encode(trace, generate=True).ids) for trace in self.traces)

"""Held-out examples of the kind that a checkpoint was trained on, and how its answers to them are judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image as PILImage

from .. import methods
from ..checkpoint.training_data import TrainingData, make_task, records_folder
from ..data import native
from ..data.packed import manifest, of_split
from ..tasks import Item, Task
from ..trace import Trace
from ..visualization.answer_view import AnswerView, view_answer
from ..visualization.storyboard import DecodedTrace, decode_sketches, split_text


@dataclass(frozen=True)
class Example:
    """A question with its gold trace. Items of a task can be judged; records have no ``task`` here."""

    trace: Trace
    item: Item | None = None
    task: Task | None = None

    def scores(self, text: str) -> dict[str, float]:
        """All metrics of an answer; none for a record."""
        return {} if self.task is None or self.item is None else self.task.score(text, self.item.meta)

    def sketch_reports(self, reasoner, decoder, decoded: DecodedTrace) -> list[dict]:
        """What the parser of the task says of each rendered sketch; nothing for a record, or without a decoder."""
        if self.task is None or self.item is None or decoder is None or not reasoner.is_renderable:
            return []
        rollout, row = decoded.rollout, decoded.row
        pictures = decode_sketches(reasoner, decoder, rollout, row, self.item.images[-1])
        said = split_text(rollout, row, reasoner.vocabulary)
        return self.task.sketch_report(pictures, self.item, said)["sketches"]

    def view(self, reasoner, decoder, decoded: DecodedTrace, **further) -> AnswerView:
        """The answer as a view, with what is known to be right. ``further`` are more arguments of :func:`view_answer`."""
        if self.task is None or self.item is None:
            return view_answer(reasoner, decoder, decoded, **further)
        text = decoded.rollout.text(decoded.row, reasoner.vocabulary)
        score = next(iter(self.scores(text).values()))
        reports = self.sketch_reports(reasoner, decoder, decoded)
        known = {
            "is_right": score == 1,
            "gold": self.true_states(reasoner, decoded),
            "sketches_right": [bool(report["equal"]) for report in reports],
        }
        return view_answer(reasoner, decoder, decoded, **known | further)

    def true_states(self, reasoner, decoded: DecodedTrace) -> list[PILImage.Image | None]:
        """Of each sketch, a picture of the state that the text before it leads to; None where it leads to none."""
        assert self.task is not None and self.item is not None
        said, pictures = split_text(decoded.rollout, decoded.row, reasoner.vocabulary), []
        for k in range(len(said) - 1):
            state = self.task.state_told(self.item, said, k)
            pictures.append(None if state is None else self.task.render_state(self.item, state))
        return pictures


def held_out_examples(
    reasoner,
    checkpoint: str | Path,
    indices: Sequence[int],
    *,
    task: str | None = None,
    folder: str | Path | None = None,
    levels: tuple[int, ...] | None = None,
    seed: int = 1,
) -> list[Example]:
    """The held-out examples of these numbers: of a task, or the test records of a folder. By default those of the kind
    that the checkpoint was trained on.

    Raises:
        ValueError: it is not known what the checkpoint was trained on; the folder has no such record.
        FileNotFoundError: the records it was trained on are not there.
    """
    notes = reasoner.method.notes
    records = None if task else records_folder(notes, checkpoint, folder)
    if records is not None:
        if levels:
            raise ValueError("a level is for items of a task, not for records. Leave it out.")
        return _record_examples(records, indices)
    if reasoner.method.name is None:
        raise ValueError(f"'{checkpoint}' was built by hand, so its mode is unknown. Use one with a method.")
    made = make_task(notes, checkpoint, task, levels=levels, split="test", seed=seed)
    mode = methods.load(reasoner.method.name).MODE
    items = [made[i] for i in indices]
    return [Example(made.trace(item, mode), item, made) for item in items]


def _record_examples(folder: Path, indices: Sequence[int]) -> list[Example]:
    traces = list(islice(records_of(folder, "test"), max(indices) + 1))
    if len(traces) <= max(indices):
        raise ValueError(
            f"'{folder}' has {len(traces)} test records, so there is none of number {max(indices)} (from 0). Mark "
            'records with "split": "test", or ask for fewer.'
        )
    return [Example(traces[i]) for i in indices]


def records_of(folder: Path, split: str) -> Iterator[Trace]:
    """The records of a split, packed or not."""
    source = of_split(folder, split) if folder.is_dir() and manifest(folder) else folder
    return (trace for trace in native.read(source) if trace.split == split) if source else iter(())


def training_sketches(reasoner, checkpoint: str | Path, n: int = 200) -> list[PILImage.Image]:
    """The first ``n`` sketches of the data that a checkpoint was trained on."""
    notes = reasoner.method.notes
    folder = records_folder(notes, checkpoint)
    if folder is not None:
        traces: Iterable[Trace] = records_of(folder, "train")
        return list(islice((s.image for trace in traces for s in trace.sketches() if s.image is not None), n))
    made = make_task(notes, checkpoint, split="train")
    known = TrainingData.of(notes).num_items or 10 * n
    steps = (step for i in range(known) for step in made[i].steps if step.sketch is not None)
    return [step.sketch for step in islice(steps, n)]

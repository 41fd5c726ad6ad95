"""Examples to choose from: held-out questions of the kinds the checkpoints were trained on, and of every other task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image as PILImage

from .. import methods, tasks
from ..asking.examples import Example, held_out_examples
from ..checkpoint.training_data import TrainingData
from .models import DemoModel

NUM_EXAMPLES = 6  # of each task
OWN_RECORDS = "its own records"


@dataclass(frozen=True)
class Board:
    """Held-out examples of one kind, and a sentence about them."""

    label: str
    examples: Sequence[Example] = ()


class Boards:
    """The boards that a page offers, each made when it is first opened.

    Attributes:
        names: of the boards: those of the checkpoints' training first, then every task of this library.
    """

    def __init__(self, models: Sequence[DemoModel]):
        self.models = tuple(models)
        self._trained: dict[str, list[DemoModel]] = {}
        for model in models:
            data = TrainingData.of(model.reasoner.method.notes)
            name = OWN_RECORDS if data.folder else data.task
            if name is not None:
                self._trained.setdefault(name, []).append(model)
        self.names = [*self._trained, *(name for name in tasks.names() if name not in self._trained)]
        self._made: dict[str, Board] = {}

    def open(self, name: str) -> Board:
        """The board of this name. One whose examples cannot be made says why."""
        if name not in self._made:
            try:
                self._made[name] = self._make(name)
            except (ValueError, OSError) as error:
                self._made[name] = Board(f"There are no examples: {error}")
        return self._made[name]

    def find(self, pictures: Sequence[PILImage.Image], text: str) -> Example | None:
        """The example of an opened board that has these pictures and this question."""
        for board in self._made.values():
            for example in board.examples:
                images = example.trace.images()
                if question_of(example) == text and len(images) == len(pictures):
                    if all(is_same(a, b) for a, b in zip(images, pictures, strict=True)):
                        return example
        return None

    def _make(self, name: str) -> Board:
        trained = self._trained.get(name, ())
        if trained:
            examples = held_out_examples(trained[0].reasoner, trained[0].path, range(NUM_EXAMPLES))
        else:
            method = self.models[0].reasoner.method.name
            task = tasks.make(name, split="test", seed=1)
            mode = methods.load(method).MODE if method else "mixed"
            items = [task[i] for i in range(NUM_EXAMPLES)]
            examples = [Example(task.trace(item, mode), item, task) for item in items]
        return Board(say_training(name, trained, self.models), examples)


def say_training(name: str, trained: Sequence[DemoModel], models: Sequence[DemoModel]) -> str:
    """Which checkpoints were trained on the kind of a board."""
    if len(trained) == len(models):
        return "Held-out items of the kind that was trained on."
    others = " and ".join(model.name for model in models if model not in trained)
    kind = "these records" if name == OWN_RECORDS else name
    return f"Held-out items. **{others} was not trained on {kind}**: expect no sensible answer from it."


def question_of(example: Example) -> str:
    """The text of the last question of an example."""
    content = example.trace.prompt().messages[-1].content
    return "".join(part.text for part in content if hasattr(part, "text"))


def is_same(a: PILImage.Image, b: PILImage.Image) -> bool:
    """Whether two pictures have the same pixels."""
    return a.size == b.size and a.convert("RGB").tobytes() == b.convert("RGB").tobytes()

"""Native records as a task for :mod:`.probe` and for reinforcement learning.

The ``checker`` of a record grades its answers: a rule of scoring.py or tasks/checkers.py, or the name of a task. Two
things need the generator of a puzzle and are not available. The text is never corrupted. The true sketch of a span is
the record's own sketch of the same number, independent of the text that the model has written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image as PILImage

from latent_reason import tasks
from latent_reason.data import native
from latent_reason.data.packed import manifest, of_split
from latent_reason.errors import did_you_mean
from latent_reason.tasks import Item, Step, checkers
from latent_reason.tasks.item import blank
from latent_reason.trace import Image, Sketch, Text, Trace

from .scoring import RULES

#: checker of a record -> (reads the answer, compares it): the rules of scoring.py that need no options
ANSWER_RULES = {
    "same_text": RULES["text"],
    **{name: RULES[name] for name in ("text", "yes_no", "number", "numbers", "set", "math")},
}
#: rules of tasks/checkers.py that a record may name
CHECKER_RULES = ("vsp", "mirage", "progress", "exact", "exact_strict", "vsp_task4", "mirage_check")


@dataclass(frozen=True)
class GoldAnswer:
    """The fields of an item that the rules of scoring.py use."""

    answer: str
    meta: dict


def change_images(trace: Trace, change: Callable[[PILImage.Image], PILImage.Image]) -> Trace:
    """A trace with changed input images."""
    messages = tuple(
        replace(m, content=tuple(Image(change(p.image)) if isinstance(p, Image) else p for p in m.content))
        for m in trace.messages
    )
    return replace(trace, messages=messages)


class RecordTask:
    """The part of the interface of a task that records have: prompts and grades."""

    def trace(self, item: Item, mode: str = "mixed") -> Trace:
        """The record itself, for every ``mode``."""
        raise NotImplementedError

    def blind(self, item: Item, mode: str = "mixed") -> Trace:
        """The record with every input image replaced by its mean color."""
        return change_images(self.trace(item), blank)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": float(is_right(text, GoldAnswer(meta["answer"], meta["meta"]), meta["checker"]))}

    def check_item(self, item: Item) -> None:
        """Raises ValueError if the checker is unknown or rejects the record's own answer."""
        try:
            is_right = self.score(f"\\boxed{{{item.answer}}}", item.meta)["accuracy"]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"record '{item.id}': meta lacks a field that its checker '{item.checker}' needs ({error}). Add "
                "it, or remove checker."
            ) from None
        if not is_right:
            raise ValueError(
                f"record '{item.id}': its checker '{item.checker}' rejects its own answer "
                f"'{item.answer[:40]}'. Correct one of them."
            )


class Records(RecordTask):
    """The test records of a folder that can be probed.

    A record needs an image in the question, a sketch in the answer, and an ``answer``. ``items`` are the first ``n`` of
    these; ``left_out`` counts the unsuitable records before them.

    Raises:
        DataError, FileNotFoundError: the folder cannot be read.
        ValueError: no record is suitable, or a record cannot be graded.
    """

    def __init__(self, folder: str | Path, n: int):
        self.folder, self.traces, self.left_out = Path(folder), {}, 0
        for trace in test_records(self.folder):
            if len(self.traces) == n:
                break
            if trace.answer is None or not trace.prompt().images() or not answer_sketches(trace):
                self.left_out += 1
                continue
            self.traces[trace.id] = trace
        if not self.traces:
            raise ValueError(
                f"'{folder}' has no record to probe: a record needs split 'test', an image in its question, a sketch "
                f"in its last turn and an answer ({self.left_out} test records lack one of these). Mark some records "
                'with "split": "test", or add sketches.'
            )
        self.items = [make_item(trace, index) for index, trace in enumerate(self.traces.values())]
        for item in self.items:
            self.check_item(item)

    def trace(self, item: Item, mode: str = "mixed") -> Trace:
        return self.traces[item.id]

    # -- sketches: the part of the interface of a task that only probes use --------------------------------------------
    def state_said(self, item: Item, said: list[str]) -> int:
        """The index of the record's sketch that belongs to the next span. After the last sketch it stays the last."""
        return min(len(said), len(item.steps)) - 1

    def render_state(self, item: Item, state: int) -> PILImage.Image:
        """That sketch, resized to the last input image so that it has the grid of the model's sketches."""
        return item.steps[state].sketch.resize(item.images[-1].size)

    def asked_of(self, item: Item, donor: Item) -> Item | None:
        """The donor; None if it belongs to another task of the folder."""
        return donor if donor.task == item.task else None

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the answer after a donor's sketch is the donor's answer."""
        return self.score(" ".join(after), donor.meta)["accuracy"]


def test_records(folder: Path) -> Iterable[Trace]:
    """The test records of a folder, packed or not."""
    source = of_split(folder, "test") if folder.is_dir() and manifest(folder) else folder
    return (trace for trace in native.read(source) if trace.split == "test") if source else ()


def answer_sketches(trace: Trace) -> list[Sketch]:
    """The sketches of the last assistant turn."""
    last = trace.messages[-1]
    return [part for part in last.content if isinstance(part, Sketch)] if last.role == "assistant" else []


def make_item(trace: Trace, index: int) -> Item:
    """A record as an item. Its sketches are the steps; ``meta`` has all that grades the answer."""
    prompt = trace.prompt()
    question = "".join(p.text for p in prompt.messages[-1].content if isinstance(p, Text))
    steps = [Step("", sketch.image, sketch.state, sketch.redundant) for sketch in answer_sketches(trace)]
    meta = {"answer": trace.answer, "checker": trace.checker, "meta": trace.meta}
    return Item(
        trace.id,
        trace.task,
        1,
        trace.split,
        0,
        trace.level or 0,
        index,
        None,
        prompt.images(),
        question,
        steps,
        trace.answer,
        trace.checker,
        meta,
    )


def is_right(text: str, gold: GoldAnswer, checker: str) -> bool:
    """Whether a reply is right by a rule. Raises ValueError for an unknown rule."""
    if checker in ANSWER_RULES:
        read, is_equal = ANSWER_RULES[checker]
        answer = read(text, gold)
        return answer is not None and is_equal(answer, gold)
    if checker in CHECKER_RULES:
        return getattr(checkers, checker)(text, gold.meta).ok
    if checker in tasks.names():
        return tasks.make(checker, split="test").check(text, gold.meta).ok
    raise ValueError(
        f"there is no checker {checker!r}. {did_you_mean(checker, [*ANSWER_RULES, *CHECKER_RULES, *tasks.names()])}"
    )

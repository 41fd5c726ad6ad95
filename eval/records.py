"""Native records as a task to be probed: what :mod:`.probe` asks of a task, answered by the records themselves.

A record is graded by its own ``checker``: a rule of scoring.py, of tasks/checkers.py, or the name of a task. What only
the maker of a puzzle knows stays out: words are not corrupted, and a sketch's truth is the record's own sketch of that
number, whatever the model's words have led to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image as PILImage

from latent_reason import tasks
from latent_reason.data import native
from latent_reason.data.packed import manifest, of_split
from latent_reason.errors import did_you_mean
from latent_reason.tasks import Item, Step, checkers
from latent_reason.tasks.base import blank
from latent_reason.trace import Image, Sketch, Text, Trace

from .scoring import RULES, answer_span

#: checker of a record -> how the answer is read and compared (those of scoring.py that need no options)
READ = {"same_text": RULES["text"], **{name: RULES[name] for name in ("text", "yes_no", "number", "numbers", "set")}}
#: rules of tasks/checkers.py that a record may name
GRIDS = ("vsp", "mirage", "progress", "exact", "exact_strict", "vsp_task4", "mirage_check")


@dataclass(frozen=True)
class Gold:
    """What these rules ask of an item."""

    answer: str
    meta: dict


class Records:
    """The test records of a folder. ``items`` are the first ``n`` of those that can be probed: with a picture in the
    question, a sketch in the answer, and an ``answer``; ``left_out`` counts the others before them.

    Raises:
        DataError, FileNotFoundError: the folder cannot be read.
        ValueError: no record can be probed, or one cannot be graded.
    """

    def __init__(self, folder: str | Path, n: int):
        self.folder, self.traces, self.left_out = Path(folder), {}, 0
        for trace in tested(self.folder):
            if len(self.traces) == n:
                break
            if trace.answer is None or not trace.prompt().images() or not drawn(trace):
                self.left_out += 1
                continue
            self.traces[trace.id] = trace
        if not self.traces:
            raise ValueError(
                f"'{folder}' has no record to probe: none whose split is test has a picture in its "
                f"question, a sketch in its last turn and an answer ({self.left_out} have not). Mark some "
                'with "split": "test", or make sketches.'
            )
        self.items = [item_of(trace, index) for index, trace in enumerate(self.traces.values())]
        for item in self.items:
            self.try_out(item)

    def try_out(self, item: Item) -> None:
        """Raises ValueError where the checker is not known, or does not take the record's own answer."""
        try:
            right = self.score(f"\\boxed{{{item.answer}}}", item.meta)["accuracy"]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"record '{item.id}': meta lacks what its checker '{item.checker}' needs ({error}). Add "
                "it, or leave checker out."
            ) from None
        if not right:
            raise ValueError(
                f"record '{item.id}': its own answer '{item.answer[:40]}' is not right by its checker "
                f"'{item.checker}'. Correct one of them."
            )

    # -- what a probe asks of a task -----------------------------------------------------------------------------------
    def trace(self, item: Item, mode: str = "mixed") -> Trace:
        """The record; it is asked as it stands, whatever the ``mode``."""
        return self.traces[item.id]

    def blind(self, item: Item, mode: str = "mixed") -> Trace:
        """The record with each picture that is shown replaced by its mean colour."""
        trace = self.traces[item.id]
        messages = tuple(
            replace(m, content=tuple(Image(blank(p.image)) if isinstance(p, Image) else p for p in m.content))
            for m in trace.messages
        )
        return replace(trace, messages=messages)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": float(right(text, Gold(meta["answer"], meta["meta"]), meta["checker"]))}

    def state_said(self, item: Item, said: list[str]) -> int:
        """The number of the record's sketch that stands where the model is about to draw: after its last, the last."""
        return min(len(said), len(item.steps)) - 1

    def render_state(self, item: Item, state: int) -> PILImage.Image:
        """That sketch, as large as the last picture shown: on the grid that a model draws on."""
        return item.steps[state].sketch.resize(item.images[-1].size)

    def asked_of(self, item: Item, donor: Item) -> Item | None:
        """The donor; None where it belongs to another task of the folder."""
        return donor if donor.task == item.task else None

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the answer written after a donor's sketch is the donor's."""
        return self.score(" ".join(after), donor.meta)["accuracy"]


def tested(folder: Path) -> Iterable[Trace]:
    """The test records of a folder, packed or not."""
    found = of_split(folder, "test") if folder.is_dir() and manifest(folder) else folder
    return (trace for trace in native.read(found) if trace.split == "test") if found else ()


def drawn(trace: Trace) -> list[Sketch]:
    """The sketches of the answer that is asked for."""
    last = trace.messages[-1]
    return [part for part in last.content if isinstance(part, Sketch)] if last.role == "assistant" else []


def item_of(trace: Trace, index: int) -> Item:
    """A record as an item whose steps are its sketches. ``meta`` holds all that grades it."""
    asked = trace.prompt()
    question = "".join(p.text for p in asked.messages[-1].content if isinstance(p, Text))
    steps = [Step("", sketch.image, sketch.state, sketch.redundant) for sketch in drawn(trace)]
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
        asked.images(),
        question,
        steps,
        trace.answer,
        trace.checker,
        meta,
    )


def right(text: str, gold: Gold, checker: str) -> bool:
    """Whether a reply is right by a rule. Raises ValueError for a rule that is not there."""
    if checker in READ:
        read, same = READ[checker]
        span = answer_span(text)
        said = read(span, gold) if span else None
        return said is not None and same(said, gold)
    if checker in GRIDS:
        return getattr(checkers, checker)(text, gold.meta).ok
    if checker in tasks.names():
        return tasks.make(checker, split="test").check(text, gold.meta).ok
    raise ValueError(f"there is no checker {checker!r}. {did_you_mean(checker, [*READ, *GRIDS, *tasks.names()])}")

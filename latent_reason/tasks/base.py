"""What every procedural task is: items that are pure functions of their key, and traces made from them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from PIL import Image as PILImage
from PIL.Image import Transpose

from ..trace import Image, Message, Part, Sketch, Text, Trace
from . import checkers
from .checkers import Check
from .stream import SPLITS, Stream, is_excluded, split_of

MODES = ("direct", "text", "vision", "mixed", "text_drop")
CONTROLS = (None, "copy", "shuffle")
ASKED = {
    "direct": "Answer at once.",
    "text": "Think in words.",
    "vision": "Think in sketches.",
    "mixed": "Think in words and sketches.",
    "text_drop": "Think in words and leave the sketches out.",
}
ATTEMPTS = 200_000
TURNS = {
    "turned_90": Transpose.ROTATE_90,
    "turned_180": Transpose.ROTATE_180,
    "turned_270": Transpose.ROTATE_270,
    "flipped": Transpose.FLIP_LEFT_RIGHT,
}  # to the left, as Pillow counts
READ = (
    "Say what the picture shows.",
    "What is in the picture?",
    "Describe the picture in full.",
    "Read the picture.",
    "What do you see?",
)


@dataclass(frozen=True)
class Step:
    """One piece of reasoning: words, then the picture of where they lead (None where no sketch follows)."""

    text: str
    sketch: PILImage.Image | None
    state: Any
    redundant: bool = False


@dataclass(frozen=True)
class Item:
    """One problem with its gold reasoning. ``meta`` is JSON-only and suffices to check and to draw everything again."""

    id: str
    task: str
    version: int
    split: str
    seed: int
    level: int
    index: int
    state: Any
    images: list[PILImage.Image]
    question: str
    steps: list[Step]
    answer: str
    checker: str
    meta: dict


@dataclass(frozen=True)
class Parsed:
    """What a sketch shows. ``state`` is None if no single state can be read; ``faults`` lists broken invariants."""

    state: Any
    confidence: float
    faults: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        return self.state is not None and not self.faults


class Rejected(Exception):
    """This attempt at an item does not fit; the reason is counted and the next attempt begins."""


class Task(ABC):
    """An endless, indexable list of items.

    ``level`` may be a tuple: then item i has level ``level[i % len(level)]``; none given: the levels ``trained``. With
    ``asked`` the prompt of a trace says which mode is wanted; ``control`` makes its sketches useless (see ``trace``). A
    subclass says how to draw a puzzle (``draw``), how to name it (``canon``) and how to make the item from it
    (``build``). ``ood`` names the ways out of what is trained on: for each, the options that lead there.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    trained: ClassVar[tuple[int, ...]]
    ood: ClassVar[dict[str, dict[str, Any]]]
    redraws: ClassVar[bool] = False  # whether a sketch shows all of the input that later steps need
    swaps: ClassVar[tuple[tuple[str, ...], ...]] = ()  # groups of words of which one may stand for another
    invariant_to: ClassVar[tuple[str, ...]] = ()  # which of ``TURNS`` of the pictures leave every answer as it is

    def __init__(
        self,
        *,
        split: str = "train",
        seed: int = 0,
        level: int | tuple[int, ...] | None = None,
        omit_state_p: float = 0.5,
        asked: bool = False,
        control: str | None = None,
    ):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
        self.split, self.seed = split, seed
        self.levels = self.trained if level is None else (level,) if isinstance(level, int) else tuple(level)
        if control not in CONTROLS:
            raise ValueError(f"control={control!r}: one of {', '.join(filter(None, CONTROLS))}, or none.")
        self.omit_state_p, self.asked, self.control = omit_state_p, asked, control

    @abstractmethod
    def targets(self, level: int, stream: Stream) -> Any:
        """What the item must be (path length, class), drawn once so that rejection cannot bias it."""

    @abstractmethod
    def draw(self, level: int, targets: Any, stream: Stream) -> Any:
        """A puzzle that may not fit yet."""

    @abstractmethod
    def canon(self, puzzle: Any) -> str:
        """The puzzle's identity, without skin, wording or path."""

    @abstractmethod
    def verify(self, puzzle: Any, targets: Any) -> None:
        """Raise ``Rejected`` if the puzzle misses its targets: the dear tests, run last."""

    @abstractmethod
    def build(self, puzzle: Any, level: int, index: int) -> Item:
        """The item of a puzzle: pictures, words, steps, answer."""

    @abstractmethod
    def state_sentence(self, state: Any, stream: Stream) -> str:
        """A sentence that states in full what a sketch of the state shows."""

    @abstractmethod
    def in_words(self, item: Item) -> str:
        """What the problem's pictures show, in words that suffice to answer without them."""

    @abstractmethod
    def render_state(self, item: Item, state: Any) -> PILImage.Image:
        """The picture of a state, as large as the problem's last picture: a gold sketch, or what one should be."""

    @abstractmethod
    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """The state a picture of any size shows; ``parse_sketch(render_state(item, s), meta).state == s``."""

    @abstractmethod
    def wrong(self, item: Item) -> list[str]:
        """Answers near the gold one that must not pass, at least three."""

    @abstractmethod
    def score(self, text: str, meta: dict) -> dict[str, float]:
        """All measures of an output."""

    def stream(self, level: int, index: int, purpose: int | str) -> Stream:
        """The stream of one attempt (a number) or of one purpose (a word) of an item."""
        return Stream.of(self.name, self.version, self.split, self.seed, level, index, purpose)

    def puzzle(self, level: int, index: int) -> Any:
        """The puzzle of an item: the first attempt that falls in the split, is not excluded and meets its targets."""
        stream = self.stream(level, index, 0)
        targets = self.targets(level, stream)
        reasons: Counter[str] = Counter()
        for attempt in range(ATTEMPTS):
            if attempt:
                stream = self.stream(level, index, attempt)
            try:
                puzzle = self.draw(level, targets, stream)
                name = self.canon(puzzle)
                if split_of(name) != self.split:
                    raise Rejected("other split")
                if self.split != "test" and is_excluded(name):
                    raise Rejected("excluded board")
                self.verify(puzzle, targets)
                return puzzle
            except Rejected as reason:
                reasons[str(reason)] += 1
        raise RuntimeError(
            f"{self.name}, split {self.split}, seed {self.seed}, level {level}, item {index}: nothing "
            f"fits after {ATTEMPTS} attempts ({dict(reasons)})"
        )

    def item_id(self, level: int, index: int) -> str:
        return f"{self.name}.v{self.version}-{self.split}-L{level}-s{self.seed}-{index:07d}"

    def item(self, level: int, index: int) -> Item:
        return self.build(self.puzzle(level, index), level, index)

    def __getitem__(self, index: int) -> Item:
        if index < 0:
            raise IndexError("a task has no last item")
        return self.item(self.levels[index % len(self.levels)], index)

    def distinct(self, patience: int) -> Iterator[Item]:
        """Items whose puzzles differ, in order, until ``patience`` items in a row bring nothing new."""
        seen: set[str] = set()
        index = last = 0
        while index - last <= patience:
            item = self[index]
            if (name := self.canon(item.state)) not in seen:
                seen.add(name)
                last = index
                yield item
            index += 1

    def take(self, n: int, patience: int = 500) -> list[Item]:
        """The first n items whose puzzles differ. Fails if ``patience`` items in a row bring nothing new."""
        items = list(islice(self.distinct(patience), n))
        if len(items) < n:
            raise ValueError(
                f"{self.name} {self.split} level {self.levels} holds too few puzzles: {len(items)} of {n} found"
            )
        return items

    def check(self, text: str, meta: dict) -> Check:
        """Judge an output by the item's own rule. Never raises on any text."""
        return getattr(checkers, meta["checker"])(text, meta)

    # -- the pictures, looked at otherwise -----------------------------------------------------------------------------
    def box(self, item: Item) -> tuple[float, float, float, float] | None:
        """The part of the last picture that suffices to answer, as shares x0, y0, x1, y1; None where no rule tells."""
        return None

    def turned(self, item: Item, turn: str) -> Item | None:
        """The item with its pictures turned (one of ``TURNS``) and the answer they have then; None where no rule tells
        it."""
        if turn not in self.invariant_to:
            return None
        return replace(item, images=[i.transpose(TURNS[turn]) for i in item.images])

    # -- what a model's own sketches are held against ------------------------------------------------------------------
    def state_said(self, item: Item, said: list[str]) -> Any:
        """The state after the model's own words: those before each sketch, the last of them just before the sketch in
        question. Where words do not fix it, the gold state of that sketch."""
        golds = [step.state for step in item.steps if step.sketch is not None]
        return golds[min(len(said), len(golds)) - 1] if golds else None

    def same(self, one: Any, other: Any) -> bool:
        return one is not None and one == other

    def legal(self, item: Item, before: Any, said: str, after: Any) -> bool:
        """Whether the words lead from one drawn state (None: unreadable; at first: the problem's) to the next."""
        return before != after

    def shown(self, item: Item) -> Any:
        """The state the problem's picture shows, where it shows one that a sketch could."""
        return None

    def kind(self, item: Item) -> str:
        """The kind of question an item asks, where answers of one kind cannot be those of another."""
        return ""

    def variables(self, state: Any) -> dict:
        """The state as named values, so that one can tell which of them change: here the leaves of its JSON, and of a
        row of cells each letter."""
        return dict(leaves(state))

    def sketch_report(self, images: list[PILImage.Image], item: Item, said: list[str]) -> dict:
        """What decoded sketches show. ``said[k]`` is what the model wrote before sketch k.

        ``equal`` compares with the state the model's own words lead to, ``gold`` with the item's sketch k, and
        ``legal`` asks whether the stated step leads from the previous sketch (first: the problem) to this one.
        """
        golds = [step.state for step in item.steps if step.sketch is not None]
        before, sketches = self.shown(item), []
        for k, image in enumerate(images):
            parsed, words = self.parse_sketch(image, item.meta), said[k] if k < len(said) else ""
            sketches.append(
                {
                    "valid": parsed.valid,
                    "equal": self.same(parsed.state, self.state_said(item, said[: k + 1])),
                    "gold": k < len(golds) and self.same(parsed.state, golds[k]),
                    "legal": parsed.valid and self.legal(item, before, words, parsed.state),
                    "confidence": parsed.confidence,
                    "faults": list(parsed.faults),
                    "state": parsed.state,
                }
            )
            before = parsed.state if parsed.valid else None
        shares = {
            key: sum(s[key] for s in sketches) / max(len(sketches), 1) for key in ("valid", "equal", "gold", "legal")
        }
        return {"count": len(sketches), **shares, "sketches": sketches}

    def asked_of(self, item: Item, donor: Item) -> Item | None:
        """The problem that an item's question becomes under the ``donor``'s sketches: the donor's own. None where it
        would have no answer."""
        return donor

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """How far words written after a sketch of the ``donor`` item obey it: those the donor's model wrote ``before``
        that sketch, then the writer's own ``after`` it, scored by the donor's rule."""
        return next(iter(self.score(" ".join(after), donor.meta).values()))

    def concluded(self, text: str, item: Item) -> str | None:
        """The answer that the reasoning itself arrives at, its boxed answer left out; None where no rule can tell."""
        return None

    def corrupt(self, text: str, stream: Stream) -> str:
        """The text with one word that tells the step replaced by another of its kind (``swaps``)."""
        kinds = {word: kind for kind in self.swaps for word in kind}
        found = [m for m in re.finditer(r"[A-Za-z]+|\d+", text.split("\\boxed")[0]) if m[0] in kinds]
        if not found:
            return text
        spot = stream.choice(found)
        other = stream.choice([w for w in kinds[spot[0]] if w != spot[0]])
        return text[: spot.start()] + other + text[spot.end() :]

    # -- traces --------------------------------------------------------------------------------------------------------
    def trace(self, item: Item, mode: str = "mixed", control: str | None = None) -> Trace:
        """The item as a chat in one of ``MODES``; ``copy`` and ``shuffle`` put wrong pictures in the sketches."""
        if mode not in MODES or control not in CONTROLS:
            raise ValueError(f"no mode {mode!r} with control {control!r}: modes are {MODES}, controls {CONTROLS}")
        question = f"{item.question} {ASKED[mode]}" if self.asked else item.question
        user = Message("user", (*map(Image, item.images), Text(question)))
        answer = Message("assistant", merged(self.reasoning(item, mode, control or self.control)))
        if not any(isinstance(part, Sketch) for part in answer.content):  # short items need none
            mode = {"mixed": "text", "text_drop": "text", "vision": "direct"}.get(mode, mode)
        return Trace(
            item.id, (user, answer), item.task, item.split, item.level, mode, item.answer, item.checker, item.meta
        )

    def reasoning(self, item: Item, mode: str, control: str | None = None) -> list[Part]:
        boxed = f"\\boxed{{{item.answer}}}"
        stream = self.stream(item.level, item.index, "trace")
        parts: list[Part] = []
        for step in [] if mode == "direct" else item.steps:
            if mode != "vision":
                parts.append(Text(step.text))
            if step.sketch is not None and mode == "text":
                parts.append(Text(self.state_sentence(step.state, stream)))
            elif step.sketch is not None and mode in ("mixed", "vision"):
                parts.append(self.sketch(item, step, control, stream))
        return [*parts, Text(boxed)]

    def sketch(self, item: Item, step: Step, control: str | None, stream: Stream) -> Sketch:
        if control == "copy":
            return Sketch(item.images[0], state=step.state, redundant=True)
        if control == "shuffle":  # a sketch of another item of the same level
            while True:
                other = self.item(item.level, item.index + stream.between(1, 100_000))
                drawn = [s for s in other.steps if s.sketch is not None]
                if drawn:
                    step = stream.choice(drawn)
                    break
        return Sketch(step.sketch, state=step.state, redundant=step.redundant)

    def text_twin(self, item: Item, mode: str = "text") -> Trace:
        """The same problem without a picture: what the pictures show is said in words."""
        question = f"{item.question} {ASKED[mode]}" if self.asked else item.question
        user = Message("user", (Text(f"{self.in_words(item)}\n{question}"),))
        parts = merged(self.reasoning(item, mode))
        return Trace(
            f"{item.id}-twin",
            (user, Message("assistant", parts)),
            item.task,
            item.split,
            item.level,
            mode,
            item.answer,
            item.checker,
            item.meta,
        )

    def reading_trace(self, index: int) -> Trace:
        """A chat that reads one picture: that of a sketch (none: of a step without), said in full."""
        level = self.levels[index % len(self.levels)]
        item, stream = self.item(level, index), self.stream(level, index, "reading")
        step = stream.choice([s for s in item.steps if s.sketch is not None] or item.steps)
        said = self.state_sentence(step.state, stream)
        user = Message("user", (Image(self.render_state(item, step.state)), Text(stream.choice(READ))))
        return Trace(
            f"{item.id}-read",
            (user, Message("assistant", (Text(said),))),
            self.name,
            self.split,
            level,
            "direct",
            said,
            "same_text",
            item.meta,
        )

    def blind(self, item: Item, mode: str = "mixed") -> Trace:
        """The same trace with each problem picture replaced by its mean colour."""
        return self.trace(replace(item, images=[blank(i) for i in item.images]), mode)


def blank(picture: PILImage.Image) -> PILImage.Image:
    """A picture of the same size in its mean colour."""
    return PILImage.new("RGB", picture.size, picture.resize((1, 1), PILImage.Resampling.BOX).getpixel((0, 0)))


def leaves(state: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """(path, value) of each number and each letter of a JSON state."""
    if isinstance(state, dict | list):
        for key, part in state.items() if isinstance(state, dict) else enumerate(state):
            yield from leaves(part, (*path, key))
    elif isinstance(state, str):
        yield from (((*path, k), letter) for k, letter in enumerate(state))
    else:
        yield path, state


def merged(parts: list[Part]) -> tuple[Part, ...]:
    """Neighbouring words become one text, so that deleting a sketch leaves no seam."""
    result: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and result and isinstance(result[-1], Text):
            part = Text(f"{result.pop().text} {part.text}")
        result.append(part)
    return tuple(result)

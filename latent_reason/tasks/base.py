"""Base class of all procedural tasks. An item is a pure function of its key, and a trace is made from an item."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

from PIL import Image as PILImage

from ..trace import Image, Message, Part, Sketch, Text, Trace
from ..values import Seed, Share
from . import checkers
from .checkers import Check
from .item import TURNS, Item, Parsed, Rejected, Step, blank, iter_leaves, merge_texts
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
READ = (
    "Say what the picture shows.",
    "What is in the picture?",
    "Describe the picture in full.",
    "Read the picture.",
    "What do you see?",
)


class Task(ABC):
    """An infinite, indexable list of items.

    Subclasses sample a puzzle (``draw``), return its canonical string (``canon``) and build the item (``build``).
    ``ood`` maps the name of each out-of-distribution test to its options.

    Args:
        split: train, val or test. Puzzles are assigned to splits by a hash.
        level: the difficulty. With a tuple, item i has level ``level[i % len(level)]``. Default: ``trained``.
        omit_state_p: the probability that a step does not state its result in text.
        asked: the question names the requested mode.
        control: replaces sketches with uninformative images (see ``trace``).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    trained: ClassVar[tuple[int, ...]]
    ood: ClassVar[dict[str, dict[str, Any]]]
    redraws: ClassVar[bool] = False  # a sketch shows everything of the input that later steps need
    swaps: tuple[tuple[str, ...], ...] = ()  # groups of interchangeable words, for ``corrupt``
    invariant_to: ClassVar[tuple[str, ...]] = ()  # the members of ``TURNS`` that do not change any answer

    def __init__(
        self,
        *,
        split: str = "train",
        seed: Seed = 0,
        level: int | tuple[int, ...] | None = None,
        omit_state_p: Share = 0.5,
        asked: bool = False,
        control: str | None = None,
    ):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}. Use one of {', '.join(SPLITS)}.")
        if level == ():
            raise ValueError("the level is empty. Name one, such as 4.")
        self.split, self.seed = split, seed
        self.levels = self.trained if level is None else (level,) if isinstance(level, int) else tuple(level)
        if control not in CONTROLS:
            raise ValueError(f"unknown control {control!r}. Use one of {', '.join(filter(None, CONTROLS))}, or none.")
        self.omit_state_p, self.asked, self.control = omit_state_p, asked, control

    @abstractmethod
    def targets(self, level: int, stream: Stream) -> Any:
        """The properties the item must have (path length, class). They are sampled once, so rejection cannot bias
        them."""

    @abstractmethod
    def draw(self, level: int, targets: Any, stream: Stream) -> Any:
        """Sample a candidate puzzle. May raise ``Rejected``."""

    @abstractmethod
    def canon(self, puzzle: Any) -> str:
        """The canonical string of a puzzle. It does not depend on skin, wording or path."""

    @abstractmethod
    def verify(self, puzzle: Any, targets: Any) -> None:
        """Raise ``Rejected`` if the puzzle misses its targets. Expensive tests belong here because they run last."""

    @abstractmethod
    def build(self, puzzle: Any, level: int, index: int) -> Item:
        """Build the item of a puzzle: images, question, steps and answer."""

    @abstractmethod
    def state_sentence(self, state: Any, stream: Stream) -> str:
        """A sentence that describes the state completely, as a sketch would show it."""

    @abstractmethod
    def in_words(self, item: Item) -> str:
        """A text description of the problem's images that suffices to answer without them."""

    @abstractmethod
    def render_state(self, item: Item, state: Any) -> PILImage.Image:
        """Render a state as an image of the size of the problem's last image, in the style of gold sketches."""

    @abstractmethod
    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """Parse the state from an image of any size. ``parse_sketch(render_state(item, s), meta).state == s``."""

    @abstractmethod
    def wrong(self, item: Item) -> list[str]:
        """At least three answers similar to the gold answer that the checker must reject."""

    @abstractmethod
    def score(self, text: str, meta: dict) -> dict[str, float]:
        """All metrics of an output text."""

    def stream(self, level: int, index: int, purpose: int | str) -> Stream:
        """The random stream of an item for one attempt (a number) or one purpose (a string)."""
        return Stream.of(self.name, self.version, self.split, self.seed, level, index, purpose)

    def puzzle(self, level: int, index: int) -> Any:
        """The puzzle of an item: the first attempt in the split that is not excluded and meets its targets.

        Raises:
            RuntimeError: no puzzle was accepted after ``ATTEMPTS`` attempts.
        """
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
            f"{self.name}, split {self.split}, seed {self.seed}, level {level}, item {index}: no puzzle was accepted "
            f"after {ATTEMPTS} attempts. Reasons: {dict(reasons)}"
        )

    def item_id(self, level: int, index: int) -> str:
        return f"{self.name}.v{self.version}-{self.split}-L{level}-s{self.seed}-{index:07d}"

    def make_item(
        self,
        level: int,
        index: int,
        state: Any,
        images: list[PILImage.Image],
        question: str,
        steps: list[Step],
        answer: str,
        meta: dict,
        checker: str | None = None,
    ) -> Item:
        """An item of this task. The arguments are fields of :class:`Item`, whose key is that of the task. ``checker`` is
        the name of the task by default."""
        key = (self.item_id(level, index), self.name, self.version, self.split, self.seed, level, index)
        return Item(*key, state, images, question, steps, answer, checker or self.name, meta)

    def item(self, level: int, index: int) -> Item:
        return self.build(self.puzzle(level, index), level, index)

    def level_of(self, index: int) -> int:
        """The level of an item."""
        return self.levels[index % len(self.levels)]

    def indices(self, n: int) -> range:
        """The indices of the first n items."""
        return range(n)

    def __getitem__(self, index: int) -> Item:
        if index < 0:
            raise IndexError("A task is infinite, so its items have no negative index.")
        return self.item(self.level_of(index), index)

    def distinct(self, patience: int) -> Iterator[Item]:
        """Items with distinct puzzles, in order. Stops after ``patience`` items in a row without a new puzzle."""
        seen: set[str] = set()
        index = last_new = 0
        while index - last_new <= patience:
            item = self[index]
            if (name := self.canon(item.state)) not in seen:
                seen.add(name)
                last_new = index
                yield item
            index += 1

    def take(self, n: int, patience: int = 500) -> list[Item]:
        """The first n items with distinct puzzles.

        Raises:
            ValueError: ``patience`` items in a row had no new puzzle.
        """
        items = list(islice(self.distinct(patience), n))
        if len(items) < n:
            raise ValueError(
                f"{self.name} {self.split} level {self.levels} has too few puzzles: found {len(items)} of {n}."
            )
        return items

    def check(self, text: str, meta: dict) -> Check:
        """Check an output text with the item's checker. Never raises, whatever the text."""
        return getattr(checkers, meta["checker"])(text, meta)

    # -- transformed inputs --------------------------------------------------------------------------------------------
    def box(self, item: Item) -> tuple[float, float, float, float] | None:
        """The region of the last image that suffices to answer, as fractions (x0, y0, x1, y1) of its size. None if it
        is unknown."""
        return None

    def turned(self, item: Item, turn: str) -> Item | None:
        """The item with its images rotated or flipped (a key of ``TURNS``) and the answer they then have. None if that
        answer is unknown."""
        if turn not in self.invariant_to:
            return None
        return replace(item, images=[i.transpose(TURNS[turn]) for i in item.images])

    # -- evaluation of a model's sketches ------------------------------------------------------------------------------
    def state_said(self, item: Item, said: list[str]) -> Any:
        """The state that the model's text describes. ``said[k]`` is the text before sketch k, up to the sketch to judge.
        If the text does not determine the state, the gold state of that sketch."""
        golds = [step.state for step in item.steps if step.sketch is not None]
        return golds[min(len(said), len(golds)) - 1] if golds else None

    def state_told(self, item: Item, said: list[str], k: int) -> Any:
        """The state of sketch k by the whole text: ``said[k]`` precedes sketch k. Default: by the text before it."""
        return self.state_said(item, said[: k + 1])

    def same(self, one: Any, other: Any) -> bool:
        return one is not None and one == other

    def as_good(self, state: Any, gold: Any) -> bool:
        """Whether a sketch of the state is as right as the gold sketch. Default: it shows the same."""
        return self.same(state, gold)

    def legal(self, item: Item, before: Any, said: str, after: Any) -> bool:
        """Whether the text ``said`` leads from the state ``before`` to the state ``after``. ``before`` is that of the
        previous sketch (None if unreadable), or of the problem for the first sketch."""
        return before != after

    def shown(self, item: Item) -> Any:
        """The state that the problem's image shows, or None if it shows no state of the kind in sketches."""
        return None

    def kind(self, item: Item) -> str:
        """The type of question an item asks, if questions of different types have different answer sets."""
        return ""

    def variables(self, state: Any) -> dict:
        """The state as named values, used to find which of them change. Default: the leaves of its JSON, where each
        letter of a string is one value."""
        return dict(iter_leaves(state))

    def sketch_report(self, images: list[PILImage.Image], item: Item, said: list[str]) -> dict:
        """Parse and judge decoded sketches. ``said[k]`` is the model's text before sketch k.

        ``equal``: the sketch shows the state that the model's text describes. ``gold``: it shows the state of the
        item's sketch k, or another right one. ``legal``: the stated step leads from the previous sketch (first: the problem) to this one.
        """
        golds = [step.state for step in item.steps if step.sketch is not None]
        before, sketches = self.shown(item), []
        for k, image in enumerate(images):
            parsed, words = self.parse_sketch(image, item.meta), said[k] if k < len(said) else ""
            sketches.append(
                {
                    "valid": parsed.valid,
                    "equal": self.same(parsed.state, self.state_told(item, said, k)),
                    "gold": k < len(golds) and self.as_good(parsed.state, golds[k]),
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
        """The problem whose answer is right for the item's question if the sketches come from ``donor``. Default: the
        donor. None if that problem has no answer."""
        return donor

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """How well the text written ``after`` a sketch of the ``donor`` item agrees with that sketch, by the donor's
        score. ``before`` is the text that preceded the sketch in the donor's own rollout."""
        return next(iter(self.score(" ".join(after), donor.meta).values()))

    def concluded(self, text: str, item: Item) -> str | None:
        """The answer that the reasoning implies, without its boxed answer. None if it is unknown."""
        return None

    def corrupt(self, text: str, stream: Stream) -> str:
        """The text with one step word replaced by another of its group in ``swaps``."""
        kinds = {word: kind for kind in self.swaps for word in kind}
        matches = [m for m in re.finditer(r"[A-Za-z]+|\d+", text.split("\\boxed")[0]) if m[0] in kinds]
        if not matches:
            return text
        match = stream.choice(matches)
        replacement = stream.choice([w for w in kinds[match[0]] if w != match[0]])
        return text[: match.start()] + replacement + text[match.end() :]

    # -- traces --------------------------------------------------------------------------------------------------------
    def trace(self, item: Item, mode: str = "mixed", control: str | None = None) -> Trace:
        """The item as a chat in one of ``MODES``.

        Controls replace the image of each sketch: ``copy`` by the problem's first image, ``shuffle`` by a sketch of
        another item of the same level.
        """
        if mode not in MODES or control not in CONTROLS:
            raise ValueError(f"no mode {mode!r} with control {control!r}. Modes: {MODES}. Controls: {CONTROLS}.")
        question = f"{item.question} {ASKED[mode]}" if self.asked else item.question
        user = Message("user", (*map(Image, item.images), Text(question)))
        answer = Message("assistant", merge_texts(self.reasoning(item, mode, control or self.control)))
        if not any(isinstance(part, Sketch) for part in answer.content):  # short items have no sketch
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
                sketched = [s for s in other.steps if s.sketch is not None]
                if sketched:
                    step = stream.choice(sketched)
                    break
        return Sketch(step.sketch, state=step.state, redundant=step.redundant)

    def text_twin(self, item: Item, mode: str = "text") -> Trace:
        """The same problem without images: the question describes them in text."""
        question = f"{item.question} {ASKED[mode]}" if self.asked else item.question
        user = Message("user", (Text(f"{self.in_words(item)}\n{question}"),))
        answer = Message("assistant", merge_texts(self.reasoning(item, mode)))
        return replace(self.trace(item, mode), id=f"{item.id}-twin", messages=(user, answer), mode=mode)

    def reading_trace(self, index: int) -> Trace:
        """A chat that describes one image completely: a sketch, or the state of a step if the item has no sketch."""
        level = self.level_of(index)
        item, stream = self.item(level, index), self.stream(level, index, "reading")
        step = stream.choice([s for s in item.steps if s.sketch is not None] or item.steps)
        return self.description_trace(
            item, self.render_state(item, step.state), self.state_sentence(step.state, stream), stream.choice(READ)
        )

    def description_trace(self, item: Item, image: PILImage.Image, description: str, question: str) -> Trace:
        """A chat that asks what an image of an item shows, and answers with its description."""
        messages = (Message("user", (Image(image), Text(question))), Message("assistant", (Text(description),)))
        asked = self.trace(item, "direct")
        return replace(asked, id=f"{item.id}-read", messages=messages, answer=description, checker="same_text")

    def blind(self, item: Item, mode: str = "mixed") -> Trace:
        """The same trace with each problem image replaced by its mean color."""
        return self.trace(replace(item, images=[blank(i) for i in item.images]), mode)

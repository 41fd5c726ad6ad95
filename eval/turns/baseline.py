"""What a baseline of explicit thinking is: a policy over turns of a model and of tools.

A policy is a generator. It yields what it needs next and is sent the result, until it returns the text of the answer:

    def think(self, problem):
        chat = self.begin(problem)
        reply = yield Ask(chat, continues=True)       # the model continues the chat
        picture = yield Call(partial(enlarge, ...))   # a tool, which may take long
        reply = yield Ask(chat.with_reply(reply.text).with_user("", [picture]))
        return reply.text

It never sees more of an item than a :class:`Problem`: the pictures and the question.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image as PILImage

from latent_reason.images import to_rgb
from latent_reason.tasks import Item, Task
from latent_reason.trace import Image, Message, Part, Sketch, Text, Trace

if TYPE_CHECKING:  # the command line of a baseline needs no torch
    import torch

    from latent_reason.model.reasoner import LatentReasoner

BOX = "Write the final answer in \\boxed{}."
ANSWER_NOW = "Answer now, without further calls."


@dataclass(frozen=True)
class Chat:
    """Messages so far. The next one is the model's.

    Example:
        >>> chat = Chat().with_user("Which way is safe?", [picture]).with_reply("Let me look closer.")
    """

    messages: tuple[Message, ...] = ()

    def with_user(self, text: str, pictures: Sequence[PILImage.Image] = ()) -> Chat:
        """The chat and a message of the user: pictures, then text. An empty one is left out, and one that follows another
        of the user continues it."""
        parts: tuple[Part, ...] = (*map(Image, pictures), *([Text(text)] if text else ()))
        if not parts:
            return self
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "user":
            return Chat((*self.messages, Message("user", parts)))
        gap = (Text("\n"),) if isinstance(last.content[-1], Text) and isinstance(parts[0], Text) else ()
        return Chat((*self.messages[:-1], Message("user", (*last.content, *gap, *parts))))

    def with_reply(self, text: str, sketch: PILImage.Image | None = None) -> Chat:
        """The chat and a message of the model, which a ``sketch`` may end. In a prompt its latents are the encoding of this
        picture."""
        parts: tuple[Part, ...] = (Text(text), *([] if sketch is None else [Sketch(sketch)]))
        return Chat((*self.messages, Message("assistant", parts)))

    def pictures(self) -> list[PILImage.Image]:
        """All pictures that a model reads in it, as inputs."""
        return [part.image for message in self.messages for part in message.content if isinstance(part, Image)]

    def num_encoded(self) -> int:
        """How many pictures the vision encoder reads: inputs, and sketches of earlier turns."""
        return sum(isinstance(part, Image | Sketch) for message in self.messages for part in message.content)

    def to_trace(self, name: str) -> Trace:
        """The chat as a prompt of the processor."""
        return Trace(name, self.messages, split="test")


@dataclass(frozen=True)
class Problem:
    """What a baseline may know of an item: RGB pictures and the question.

    Attributes:
        gold_pictures: of the solution, for the baselines with ``USES_GOLD`` alone.
    """

    id: str
    pictures: tuple[PILImage.Image, ...]
    question: str
    gold_pictures: tuple[PILImage.Image, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "pictures", tuple(map(to_rgb, self.pictures)))

    def chat(self, preface: str = "", pictures: Sequence[PILImage.Image] | None = None) -> Chat:
        """The question with its pictures, or with others in their place. ``preface`` follows the question."""
        text = f"{self.question}\n{preface}" if preface else self.question
        return Chat().with_user(text, self.pictures if pictures is None else pictures)


# -- what a policy yields ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ask:
    """The model continues a chat. The policy is sent a :class:`Reply`.

    Attributes:
        continues: the policy goes on after the reply, so that half of what is left of the budget is kept for it.
        opens_sketch: the reply begins with a sketch.
    """

    chat: Chat
    continues: bool = False
    opens_sketch: bool = False


@dataclass(frozen=True)
class Read:
    """The model reads a chat and the beginning of a reply, and writes nothing. The policy is sent a :class:`Reading`."""

    chat: Chat
    reply: str = ""


@dataclass(frozen=True)
class Call:
    """``function()`` runs beside the model, and the policy is sent what it returns. A failure is to be told in text: what
    it raises ends the run."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Reply:
    """What the model wrote. ``sketches`` are its sketches, rendered, where the baseline ``RENDERS``."""

    text: str
    sketches: tuple[PILImage.Image, ...] = ()


@dataclass(frozen=True)
class Reading:
    """The state (D,) at the end of what was read, and the probability of the likeliest next token over that of the second."""

    state: torch.Tensor
    margin: float


class OutOfBudget(Exception):
    """Thrown into a policy where it asks for more than the budget of tokens, or the length of the model, allows. One that
    has an answer catches it and returns that; otherwise the answer is empty."""


Thinking = Generator[Ask | Read | Call, Any, str]


class Baseline(ABC):
    """A way to think without latents. Subclasses are frozen dataclasses whose fields are their options.

    Class attributes:
        PAPER, SUMMARY: the source, and the idea in one line.
        INSTRUCTIONS: what follows the question.
        RENDERS: a reply ends after its first sketch, which is rendered, so the model needs a head and a sketch decoder.
        RUNS_CODE: it runs code that a model wrote.
        USES_GOLD: it is given true pictures, as a bound.
    """

    PAPER: ClassVar[str]
    SUMMARY: ClassVar[str]
    INSTRUCTIONS: ClassVar[str] = ""
    RENDERS: ClassVar[bool] = False
    RUNS_CODE: ClassVar[bool] = False
    USES_GOLD: ClassVar[bool] = False

    @property
    def may_sketch(self) -> bool:
        """Whether the model may draw latents in its replies."""
        return self.RENDERS

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def think(self, problem: Problem) -> Thinking:
        """Answer a problem; see the module."""

    def gold_pictures(self, task: Task, item: Item) -> tuple[PILImage.Image, ...]:
        """Pictures for ``Problem.gold_pictures``."""
        return ()

    def problem(self, task: Task, item: Item) -> Problem:
        """What it may know of an item."""
        gold = self.gold_pictures(task, item) if self.USES_GOLD else ()
        return Problem(item.id, tuple(item.images), item.question, gold)

    def check(self, model: LatentReasoner, decoder) -> None:
        """Raises ValueError if a model cannot think this way."""
        if self.RENDERS and (decoder is None or not model.is_renderable):
            raise ValueError(
                f"baseline {self.name!r} renders sketches, and this checkpoint has no sketch decoder for its latents. Use a "
                "checkpoint of a method that draws pictures, with a decoder."
            )
        if self.may_sketch and not model.can_sketch:
            raise ValueError(f"baseline {self.name!r} sketches, and this checkpoint draws no latents. Use another one.")

    @property
    def fingerprint(self) -> str:
        """What decides its answers besides the options, such as the content of a file."""
        return ""

    def demonstrate(self, task: Task, item: Item) -> Trace:
        """A chat in which an item is solved this way, to train on.

        Raises:
            ValueError: there are no demonstrations of this baseline, or of the task.
        """
        raise ValueError(f"baseline '{self.name}' has no demonstrations to train on.")


@dataclass(frozen=True)
class Prompted(Baseline):
    """A baseline whose instructions can be left out.

    Args:
        brief: ask the question alone, as a model is asked that was trained on demonstrations.
    """

    brief: bool = field(default=False, kw_only=True)

    def instructions(self, problem: Problem) -> str:
        """What a model is told to do with a problem."""
        return self.INSTRUCTIONS

    def preface(self, problem: Problem) -> str:
        """What follows the question."""
        return "" if self.brief else f"{self.instructions(problem)} {BOX}"

    def begin(self, problem: Problem) -> Chat:
        """The chat that asks a problem."""
        return problem.chat(self.preface(problem))

    def demonstration(self, task: Task, item: Item, chat: Chat) -> Trace:
        """The chat of a solved item as a trace with its answer and checker."""
        about = task.trace(item, "text")
        return replace(about, id=f"{item.id}-{self.name}", messages=chat.messages)

"""What the adapters to evaluation harnesses share: a harness' chat becomes a trace, a checkpoint answers it.

lmms_eval.py and vlmevalkit.py only translate. Prompts are the harness' own words and pictures, in
its order; answers are greedy unless a task asks to sample, and the same item draws the same noise in any batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as PILImage

from ..checkpoint import load
from ..data.pictures import ImageFolder, to_rgb
from ..decoding.engine import generate
from ..errors import did_you_mean
from ..model.batch import LATENT, PAD
from ..tasks import checkers
from ..trace import Image, Message, Part, Text, Trace

MAX_NEW = 640  # positions an answer may take where a task names no number
HELD = ("text", "image", "url", "value")  # where a part of a message may hold its words or its picture
FILLER = "\n\n"  # what lmms-eval stops at where a task names no stop: a chain of thought would end at once
NO_OPS = {"num_beams": (1,), "repetition_penalty": (1,), "image_aspect_ratio": ("original",)}
KNOWN = ("max_new_tokens", "temperature", "do_sample", "top_p", "top_k", "seed", "until", *NO_OPS)


class Answer(NamedTuple):
    """What was said, and what it took: all new positions, latents among them."""

    text: str
    positions: int
    latents: int


def trace(name: str, messages: Iterable[Mapping[str, Any]]) -> Trace:
    """A chat ``[{"role": ..., "content": [part, ...]}, ...]`` as a trace to be continued.

    A part is ``{"type": "text" | "image"}`` and holds its words, its picture or the picture's path under ``text``,
    ``image``, ``url`` or ``value``. Nothing is downloaded.

    Raises:
        ValueError: names the item, the message and the part that cannot be shown to a model, and why.
    """
    chat = []
    for number, message in enumerate(messages, 1):
        if message.get("role") not in ("system", "user", "assistant"):
            raise ValueError(
                f"{name}, message {number}: role {message.get('role')!r}. It is system, user or assistant."
            )
        content = message["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        chat.append(
            Message(
                message["role"],
                tuple(_part(part, f"{name}, message {number}, part {at}") for at, part in enumerate(content, 1)),
            )
        )
    if not chat or chat[-1].role != "user":
        raise ValueError(f"{name}: the chat does not end with the user's turn, so there is nothing to answer.")
    return Trace(name, tuple(chat), split="test")


def _part(part: Mapping[str, Any], where: str) -> Part:
    held = next((part[key] for key in HELD if part.get(key) is not None), None)
    if part.get("type") == "text" and isinstance(held, str):
        return Text(held)
    if part.get("type") == "image" and isinstance(held, PILImage.Image):
        return Image(to_rgb(held))
    if part.get("type") == "image" and isinstance(held, str | Path):
        if not (path := Path(held)).is_file():
            raise ValueError(
                f"{where}: there is no picture {str(held)[:200]!r}. Images are files that are here; "
                "nothing is downloaded."
            )
        return Image(ImageFolder(path.parent).load(path.name, where, lambda kind, sentence: None))
    raise ValueError(f"{where}: a {part.get('type')!r} part with {type(held).__name__}. Texts and pictures are read.")


def options(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Generation arguments as transformers names them -> (those of :func:`generate`, texts to stop at).

    ``max_new_tokens`` counts latents too. Greedy unless ``temperature`` is above 0, or ``do_sample`` without one.

    Raises:
        ValueError: an argument that cannot be honoured; names it and what to do.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in KNOWN:
            raise ValueError(f"generation argument {name!r} cannot be honoured here. {did_you_mean(name, KNOWN)}")
        if value not in NO_OPS.get(name, (value,)):
            raise ValueError(
                f"generation argument {name}={value!r} cannot be honoured here: it has to be "
                f"{NO_OPS[name][0]!r}, or left out."
            )
    sample = given.get("do_sample")
    temperature = float(given.get("temperature", bool(sample)))
    if temperature < 0 or (sample is not None and bool(sample) != (temperature > 0)):
        raise ValueError(
            f"do_sample={sample} and temperature={temperature:g} contradict each other. Give "
            "temperature=0 for greedy decoding, or do_sample=true and a temperature above 0."
        )
    found = {
        "max_new_tokens": int(given.get("max_new_tokens", MAX_NEW)),
        "temperature": temperature,
        "seed": int(given.get("seed", 0)),
    }
    if found["max_new_tokens"] < 1:
        raise ValueError(f"max_new_tokens={found['max_new_tokens']}: at least 1 is needed to answer.")
    if temperature > 0:
        found["top_p"] = float(given.get("top_p", 1.0))
        if given.get("top_k") or not 0 < found["top_p"] <= 1:
            raise ValueError(
                f"sampling with top_k={given.get('top_k')}, top_p={found['top_p']:g} cannot be honoured: "
                "leave top_k out, top_p lies above 0 and is at most 1."
            )
    until = given.get("until", [])
    until = [until] if isinstance(until, str) else list(until)
    return found, [] if until == [FILLER] else [stop for stop in until if stop]


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the stops."""
    return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=len(text))]


class Answerer:
    """A checkpoint that answers traces.

    With ``boxed`` an answer is the content of its last ``\\boxed{}`` alone, where it has one: extractors of harnesses
    take the first letter they find, wherever it stands.
    """

    def __init__(self, checkpoint: str, *, batch_size: int = 1, device: str | None = None, boxed: bool = False):
        self.reasoner, _ = load(checkpoint, device=device)
        self.batch_size, self.boxed = batch_size, boxed

    def __call__(self, traces: Sequence[Trace], rows: Sequence[int], given: Mapping[str, Any]) -> list[Answer]:
        """Answers in order. ``rows`` are the items' numbers, which key their noise; ``given`` as in :func:`options`."""
        decoding, until = options(given)
        processor, out = self.reasoner.processor, []
        for start in range(0, len(traces), self.batch_size):
            some = slice(start, start + self.batch_size)
            prompt = processor(traces[some], generate=True).to(self.reasoner.device)
            rollout = generate(self.reasoner, prompt, row_ids=rows[some], **decoding)
            for row, kind in enumerate(rollout.token_type):
                text = cut(rollout.text(row, self.reasoner.vocabulary), until)
                text = found if self.boxed and (found := checkers.boxed(text)) is not None else text
                out.append(Answer(text, int((kind != PAD).sum()), int((kind == LATENT).sum())))
        return out

"""Shared code of the evaluation harness adapters: convert a chat to a trace and answer it with a checkpoint.

lmms_eval.py and vlmevalkit.py only translate. Prompts are the texts and images of the harness, in its order. Decoding
is greedy unless a task asks for sampling. The latent noise of an item does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as PILImage

from ..checkpoint import load
from ..data.pictures import ImageFolder
from ..decoding.config import GenerationConfig
from ..decoding.queue import Request, decode_requests
from ..errors import did_you_mean
from ..model.batch import LATENT, PAD
from ..model.limits import InputLimits
from ..tasks import checkers
from ..trace import Image, Message, Part, Text, Trace

DEFAULT_MAX_NEW_TOKENS = 640  # default of max_new_tokens
CONTENT_KEYS = ("text", "image", "url", "value")  # keys of a message part for its text or image
DEFAULT_STOP = "\n\n"  # the default stop of lmms-eval; ignored, as it would end a chain of thought early
NO_OPS = {"num_beams": (1,), "repetition_penalty": (1,), "image_aspect_ratio": ("original",)}
KNOWN_ARGS = ("max_new_tokens", "temperature", "do_sample", "top_p", "top_k", "seed", "until", *NO_OPS)


class Answer(NamedTuple):
    """The answer text and the number of generated positions (latents included) and of latents."""

    text: str
    positions: int
    latents: int


def trace(name: str, messages: Iterable[Mapping[str, Any]]) -> Trace:
    """Convert a chat ``[{"role": ..., "content": [part, ...]}, ...]`` to a trace that the model continues.

    A part is ``{"type": "text" | "image"}`` with its text, its image or the path of its image under ``text``,
    ``image``, ``url`` or ``value``. Nothing is downloaded.

    Raises:
        ValueError: a message or part is not supported; the message names the item, the message and the part.
    """
    chat = []
    for number, message in enumerate(messages, 1):
        if message.get("role") not in ("system", "user", "assistant"):
            raise ValueError(
                f"{name}, message {number}: unknown role {message.get('role')!r}. Use system, user or assistant."
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
        raise ValueError(f"{name}: the chat does not end with a user turn. Add a question.")
    return Trace(name, tuple(chat), split="test")


def _part(part: Mapping[str, Any], where: str) -> Part:
    payload = next((part[key] for key in CONTENT_KEYS if part.get(key) is not None), None)
    if part.get("type") == "text" and isinstance(payload, str):
        return Text(payload)
    if part.get("type") == "image" and isinstance(payload, PILImage.Image):
        return Image(payload)
    if part.get("type") == "image" and isinstance(payload, str | Path):
        if not (path := Path(payload)).is_file():
            raise ValueError(
                f"{where}: image file {str(payload)[:200]!r} not found. Images must be local files; nothing is downloaded."
            )
        return Image(ImageFolder(path.parent).load(path.name, where, lambda kind, sentence: None))
    raise ValueError(
        f"{where}: a {part.get('type')!r} part with {type(payload).__name__} is not supported. Use texts and images."
    )


def options(generation_args: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Convert generation arguments of transformers to (arguments of :func:`generate`, stop strings).

    ``max_new_tokens`` includes latents. Decoding is greedy unless ``temperature`` is above 0, or ``do_sample`` is true
    and no temperature is given.

    Raises:
        ValueError: an argument is not supported; the message names it.
    """
    generation_args = {name: value for name, value in generation_args.items() if value is not None}
    for name, value in generation_args.items():
        if name not in KNOWN_ARGS:
            raise ValueError(f"generation argument {name!r} is not supported. {did_you_mean(name, KNOWN_ARGS)}")
        if value not in NO_OPS.get(name, (value,)):
            raise ValueError(
                f"generation argument {name}={value!r} is not supported. Use {NO_OPS[name][0]!r} or "
                "remove the argument."
            )
    sample = generation_args.get("do_sample")
    temperature = float(generation_args.get("temperature", bool(sample)))
    if temperature < 0 or (sample is not None and bool(sample) != (temperature > 0)):
        raise ValueError(
            f"do_sample={sample} and temperature={temperature:g} contradict each other. Use "
            "temperature=0 for greedy decoding, or do_sample=true and a temperature above 0."
        )
    decoding_args = {
        "max_new_tokens": int(generation_args.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)),
        "temperature": temperature,
        "seed": int(generation_args.get("seed", 0)),
    }
    if decoding_args["max_new_tokens"] < 1:
        raise ValueError(f"max_new_tokens={decoding_args['max_new_tokens']}: must be at least 1.")
    if temperature > 0:
        decoding_args["top_p"] = float(generation_args.get("top_p", 1.0))
        decoding_args["top_k"] = int(generation_args.get("top_k", 0))
        if decoding_args["top_k"] < 0 or not 0 < decoding_args["top_p"] <= 1:
            raise ValueError(
                f"sampling with top_k={decoding_args['top_k']}, top_p={decoding_args['top_p']:g}: top_k must be 0 (all) "
                "or more, and 0 < top_p <= 1."
            )
    until = generation_args.get("until", [])
    until = [until] if isinstance(until, str) else list(until)
    return decoding_args, [] if until == [DEFAULT_STOP] else [stop for stop in until if stop]


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=len(text))]


class Answerer:
    """Answers traces with a checkpoint.

    With ``boxed`` an answer is only the content of its last ``\\boxed{}``, if it has one. This helps harnesses that
    extract the first letter of an answer.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        batch_size: int = 1,
        device: str | None = None,
        boxed: bool = False,
        limits: InputLimits | None = None,
    ):
        """``limits`` of pixels and positions take the place of those of the checkpoint."""
        self.reasoner, _ = load(checkpoint, device=device)
        if limits is not None:
            limits.apply_to(self.reasoner.backbone)
        self.batch_size, self.boxed = batch_size, boxed

    def __call__(
        self, traces: Sequence[Trace], rows: Sequence[int], generation_args: Mapping[str, Any]
    ) -> list[Answer]:
        """Answers in order. ``rows`` are item numbers that seed the noise; ``generation_args`` as in :func:`options`."""
        decoding, until = options(generation_args)
        requests = (Request(trace, at, row) for at, (trace, row) in enumerate(zip(traces, rows, strict=True)))
        config, answers = GenerationConfig(**decoding), {}
        for request, rollout, row, _ in decode_requests(self.reasoner, requests, config, self.batch_size):
            text = cut(rollout.text(row, self.reasoner.vocabulary), until)
            text = answer if self.boxed and (answer := checkers.boxed(text)) is not None else text
            kind = rollout.token_type[row]
            answers[request.number] = Answer(text, int((kind != PAD).sum()), int((kind == LATENT).sum()))
        return [answers[at] for at in range(len(traces))]

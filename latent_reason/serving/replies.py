"""Events of a request -> the JSON of its reply, whole or in chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import APIError
from .parameters import ChatRequest
from .worker import EndEvent, Event, SketchEvent, TextEvent

DONE = "data: [DONE]\n\n"  # the end of a stream


class Reply:
    """One reply of ``model`` to ``request``, in the format of OpenAI's chat completions. Sketches stand in a field of
    their own."""

    def __init__(self, request: ChatRequest, model: str):
        self.request, self.model = request, model
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self, events: Sequence[Event]) -> dict[str, Any]:
        """The reply to a request that is not streamed, from all of its events."""
        ends = [event for event in events if isinstance(event, EndEvent)]
        choices = [self._choice(events, end) for end in sorted(ends, key=lambda end: end.choice)]
        return self._head("chat.completion") | {"choices": choices, "usage": usage(ends)}

    def _choice(self, events: Sequence[Event], end: EndEvent) -> dict[str, Any]:
        own = [event for event in events if not isinstance(event, APIError) and event.choice == end.choice]
        message = {
            "role": "assistant",
            "content": "".join(event.text for event in own if isinstance(event, TextEvent)),
            "refusal": None,
            "sketches": [sketch_json(event) for event in own if isinstance(event, SketchEvent)],
        }
        return {"index": end.choice, "message": message, "logprobs": None, "finish_reason": end.finish_reason}

    def first_chunks(self) -> Iterator[str]:
        """What a stream begins with: the role of each choice."""
        for choice in range(self.request.choices):
            yield self._chunk(choice, {"role": "assistant", "content": ""})

    def chunk(self, event: Event) -> str:
        """One event of a stream. A sketch is the ``sketch`` of its delta."""
        if isinstance(event, APIError):
            return as_line(event.as_json())
        if isinstance(event, TextEvent):
            return self._chunk(event.choice, {"content": event.text})
        if isinstance(event, SketchEvent):
            return self._chunk(event.choice, {"sketch": sketch_json(event)})
        return self._chunk(event.choice, {}, event.finish_reason)

    def last_chunks(self, events: Sequence[Event]) -> Iterator[str]:
        """What a stream ends with."""
        if self.request.include_usage:
            ends = [event for event in events if isinstance(event, EndEvent)]
            yield as_line(self._head("chat.completion.chunk") | {"choices": [], "usage": usage(ends)})
        yield DONE

    def _chunk(self, choice: int, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choices = [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        return as_line(self._head("chat.completion.chunk") | {"choices": choices})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def as_line(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def sketch_json(event: SketchEvent) -> dict[str, Any]:
    return {"index": event.index, "position": event.position, "grid": list(event.grid), "image": event.image}


def usage(ends: Sequence[EndEvent]) -> dict[str, int]:
    """Positions of the prompt and of all choices; ``latents`` are those of the completion that are no text."""
    prompt = ends[0].prompt_tokens if ends else 0
    completion = sum(end.completion_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "latents": sum(end.latents for end in ends),
    }

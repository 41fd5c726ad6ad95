"""Messages of a chat request -> Trace. Pictures come as data URLs; nothing is fetched."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image as PILImage

from ..data import pictures
from ..data.errors import DataError
from ..trace import Image, Message, Part, Sketch, Text, Trace
from .errors import bad
from .limits import Limits

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
DATA_URL = re.compile(r"data:image/(?:png|jpe?g|webp);base64,", re.IGNORECASE)
#: fields of a message that say nothing to a model
SILENT = {"role", "content", "name", "sketches"}


def read_messages(messages: Any, limits: Limits) -> Trace:
    """The chat of a request as a trace that a model continues.

    A message is ``{"role": ..., "content": TEXT or [part, ...]}``. A part is ``{"type": "text", "text": ...}`` or, in a
    turn of the system or the user, ``{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}``. The
    ``sketches`` of an earlier answer may be sent back with it.

    Raises:
        APIError: something else; the message names the place and says what to do.
    """
    if not isinstance(messages, list) or not messages:
        raise bad("messages", "must be a list with at least one message.")
    reader = Reader(limits)
    turns = tuple(reader.read_message(message, f"messages[{at}]") for at, message in enumerate(messages))
    if turns[-1].role != "user":
        raise bad("messages", "the last message must be of the role user. Add a question.")
    return Trace("request", turns, split="test")


class Reader:
    """Reads the messages of one request, and counts their pictures."""

    def __init__(self, limits: Limits):
        self.limits, self.num_pictures = limits, 0

    def read_message(self, message: Any, where: str) -> Message:
        if not isinstance(message, dict):
            raise bad("messages", f"{where} must be an object with role and content.")
        role = ROLES.get(message["role"]) if isinstance(message.get("role"), str) else None
        if role is None:
            raise bad("messages", f"{where}.role must be one of {', '.join(ROLES)}.")
        if unknown := sorted(key for key, value in message.items() if key not in SILENT and value not in (None, [])):
            raise bad("messages", f"{where}.{unknown[0][:40]} is not supported. Remove it.")
        content, sketches = message.get("content"), message.get("sketches")
        content = "" if content is None and sketches else content  # an answer without any text
        if isinstance(content, str):
            parts: tuple[Part, ...] = (read_text(content, where),)
        elif isinstance(content, list) and content:
            parts = tuple(self.read_part(part, role, f"{where}.content[{at}]") for at, part in enumerate(content))
        else:
            raise bad("messages", f"{where}.content must be a text or a list of parts.")
        if sketches is not None:
            if role != "assistant":
                raise bad("messages", f"{where}.sketches belong to a message of the role assistant.")
            text = "".join(part.text for part in parts if isinstance(part, Text))
            parts = tuple(self.insert_sketches(text, sketches, f"{where}.sketches"))
        return Message(role, parts)

    def read_part(self, part: Any, role: str, where: str) -> Part:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            return read_text(part["text"], where)
        if kind == "image_url" and role != "assistant":
            value = part.get("image_url")
            value = {"url": value} if isinstance(value, str) else value
            if not isinstance(value, Mapping) or value.get("detail") not in (None, "auto", "high"):
                raise bad("messages", f"{where}.image_url must have a url, and no detail but 'auto' or 'high'.")
            return Image(self.read_picture(value.get("url"), f"{where}.image_url"))
        raise bad(
            "messages",
            f"{where} must be a part of the type text with its text"
            + ("." if role == "assistant" else ", or of the type image_url with a data URL."),
        )

    def read_picture(self, url: Any, where: str) -> PILImage.Image:
        """The picture of a data URL, in RGB. Its size is checked before its pixels are decoded."""
        self.num_pictures += 1
        if self.num_pictures > self.limits.pictures:
            raise bad("messages", f"there are more than {self.limits.pictures} pictures. Leave some out.")
        start = DATA_URL.match(url) if isinstance(url, str) else None
        if start is None:
            raise bad(
                "messages",
                f"{where} must be a data URL of a PNG, JPEG or WebP (data:image/png;base64,...). Nothing is "
                "downloaded: send the picture itself.",
            )
        try:
            data = base64.b64decode(url[start.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise bad("messages", f"{where} is not base64.") from None
        bounds = pictures.Limits(pixels=self.limits.pixels, bytes=self.limits.body_bytes)
        try:
            return pictures.decode(data, "the picture", where, lambda kind, sentence: None, bounds)
        except DataError as error:
            raise bad("messages", f"{where}: {error.what}") from None

    def insert_sketches(self, text: str, sketches: Any, where: str) -> Iterator[Part]:
        """The parts of an earlier answer: its text, with its sketches where they stood."""
        end = 0
        for at, sketch in enumerate(sketches if isinstance(sketches, list) else [None]):
            position = sketch.get("position") if isinstance(sketch, dict) else None
            if type(position) is not int or not end <= position <= len(text):
                raise bad("messages", f"{where} must be as they were answered, in their order, each with its position.")
            if sketch.get("image") is None:
                raise bad("messages", f"{where}[{at}] has no image, so that it cannot be read again. Remove it.")
            if position > end:
                yield Text(text[end:position])
            yield Sketch(self.read_picture(sketch["image"], f"{where}[{at}].image"))
            end = position
        if text[end:]:
            yield Text(text[end:])


def read_text(text: str, where: str) -> Text:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad("messages", f"{where} holds half of a surrogate pair. Send the text in UTF-8.") from None
    return Text(text)

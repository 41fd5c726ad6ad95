"""One answer while it is written: ids -> text as it becomes known, sketches, and the end by a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..model.tokenization import Vocabulary


class DrawnSpan(NamedTuple):
    """A span that is closed: its first position in the answer, its latents, and the characters of text before it."""

    start: int
    length: int
    position: int


class Answer:
    """Reads the ids of one row, one after the other.

    Attributes:
        text: what is known of the text; nothing is known of a character until all of its bytes are there.
        num_sent: characters that :meth:`send` has returned.
        num_positions, num_latents: positions so far, and latents among them.
        is_stopped: whether a stop string was found. The text ends before it.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()):
        self.vocabulary, self.stop = vocabulary, tuple(stop)
        self.ids: list[int] = []  # of text
        self.text, self.is_stopped = "", False
        self.num_sent = self.num_positions = self.num_latents = 0
        self._open = 0  # latents of the open span
        self._known = self._read = 0  # ids whose text is known, and those that the next ones are decoded with

    def add(self, ids: Sequence[int]) -> list[DrawnSpan]:
        """Read the next ids. Returns the spans that they close; what comes after a stop string is left out."""
        spans = []
        for i in ids:
            if self.is_stopped:
                break
            self.num_positions += 1
            if i == self.vocabulary.latent:
                self.num_latents += 1
                self._open += 1
                continue
            if self._open and i == self.vocabulary.close:
                start = self.num_positions - 1 - self._open
                spans.append(DrawnSpan(start, self._open, len(self.text)))
            self._open = 0
            self.ids.append(i)
            self._decode()
        return spans

    def _decode(self) -> None:
        """Decode the ids that are not known yet together with some before them, as the text of an id may depend on its
        neighbors."""
        before = self.vocabulary.decode(self.ids[self._read : self._known])
        now = self.vocabulary.decode(self.ids[self._read :])
        if now.endswith("\ufffd") or len(now) <= len(before):
            return
        self._read, self._known = self._known, len(self.ids)
        self._append(now[len(before) :])

    def finish(self) -> None:
        """No id comes any more: the text is that of all of them."""
        whole = self.vocabulary.decode(self.ids)
        if not self.is_stopped and whole.startswith(self.text):
            self._append(whole[len(self.text) :])

    def _append(self, text: str) -> None:
        start = max(0, len(self.text) - max(map(len, self.stop), default=0))
        self.text += text
        found = [at for stop in self.stop if (at := self.text.find(stop, start)) >= 0]
        if found:
            self.text, self.is_stopped = self.text[: min(found)], True

    def send(self, is_last: bool = False) -> str:
        """The text since the last call, but for an end that may be the beginning of a stop string."""
        end = len(self.text)
        if not is_last and not self.is_stopped:
            end -= max((overlap(self.text, stop) for stop in self.stop), default=0)
        piece = self.text[self.num_sent : end]
        self.num_sent = max(self.num_sent, end)
        return piece


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)

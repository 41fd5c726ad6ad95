"""How much a request, and all of them together, may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Options of ``latent-reason serve``.

    Args:
        slots: answers that are decoded at a time.
        waiting: answers that may wait for a slot. More requests get the status 429.
        max_tokens: the most positions of an answer, latents included; also the default of a request.
        pictures: pictures in one request, sketches of earlier answers included.
        pixels: pixels of one picture, checked before it is decoded.
        body_bytes: size of the body of a request.
        body_seconds: time in which the body must arrive.
    """

    slots: int = 8
    waiting: int = 32
    max_tokens: int = 1024
    pictures: int = 8
    pixels: int = 4_000_000
    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0

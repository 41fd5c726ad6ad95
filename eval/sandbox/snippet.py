"""Runs one code in its confined process and writes what it gives back, as lines, to a file.

``picture WIDTH HEIGHT BASE64`` has the rows of RGBA pixels, ``error JSON`` a text, and ``end`` is the last line: without
it, the process ended before the code did.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sys
from contextlib import suppress
from traceback import walk_tb

import numpy as np
from PIL import Image, ImageShow

from . import turtle

CODE = "<code>"  # the name of the code's file
MAX_MESSAGE = 1000  # characters of an error


class Results:
    """Writes to the file descriptor ``descriptor``. Pictures of more than ``max_pixels`` are scaled down."""

    def __init__(self, descriptor: int, max_pictures: int, max_pixels: int) -> None:
        self.descriptor, self.max_pictures, self.max_pixels = descriptor, max_pictures, max_pixels
        self.pictures = 0

    def add_picture(self, picture: Image.Image) -> None:
        if self.pictures == self.max_pictures:
            raise ValueError(f"at most {self.max_pictures} pictures can be shown")
        width, height = picture.size
        scale = math.sqrt(self.max_pixels / (width * height))
        if scale < 1:
            picture = picture.resize((max(1, int(width * scale)), max(1, int(height * scale))))
        picture = picture.convert("RGBA")
        self.write("picture", *map(str, picture.size), base64.b64encode(picture.tobytes()).decode())
        self.pictures += 1

    def write(self, *words: str) -> None:
        line = (" ".join(words) + "\n").encode()
        while line:
            line = line[os.write(self.descriptor, line) :]


#: those of the code that runs: a process runs one
_results: Results | None = None


def show(picture: Image.Image | np.ndarray) -> None:
    """Give a picture back: a Pillow image, or an array of height x width, or of height x width x 3 or 4, of uint8."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(f"show() takes a PIL image or an array, not {type(picture).__name__}; figures: plt.show()")
    _results.add_picture(picture)


class _Viewer(ImageShow.Viewer):
    """What ``picture.show()`` of Pillow calls."""

    def show(self, image: Image.Image, **options) -> int:
        show(image)
        return 1


def run_snippet(code: str, image: Image.Image | None, results: Results) -> None:
    """Run ``code`` as a script. It sees ``show`` and, if there is one, the picture ``image``."""
    global _results
    _results = results
    ImageShow.register(_Viewer, order=0)
    names = {"__name__": "__main__", "show": show} | ({} if image is None else {"image": image})
    for step in (lambda: exec(compile(code, CODE, "exec"), names), _show_the_rest):
        try:
            step()
        except BaseException as error:
            if not isinstance(error, SystemExit) or error.code not in (None, 0):
                results.write("error", json.dumps(_describe(error, code)))
                break
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    results.write("end")


def _show_the_rest() -> None:
    """The figures that are open, and what the turtle drew."""
    if figures := sys.modules.get(f"{__package__}.figures"):
        figures.show_figures()
    if canvas := turtle.drawn():
        show(canvas)


def _describe(error: BaseException, code: str) -> str:
    """One line: the kind of the error, its message, and the line of the code where it arose."""
    kind, message, line = type(error).__name__, "", None
    for frame, number in walk_tb(error.__traceback__):
        if frame.f_code.co_filename == CODE:
            line = number
    with suppress(BaseException):  # of a class that the code wrote
        message = str(error)
        if isinstance(error, SyntaxError) and error.filename == CODE:
            message, line = error.msg, error.lineno
    text = f"{kind}: {message}" if message else kind
    lines = code.split("\n")
    if line and line <= len(lines):
        text += f" (line {line}: {lines[line - 1].strip()})"
    return " ".join(text.split())[:MAX_MESSAGE]

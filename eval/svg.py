"""Renders SVG that a model wrote, by resvg in the sandbox: without network and files, with limits of time and memory.

A picture of a picture is refused: ``<image>`` and ``<feImage>`` would show what is no drawing. So are declarations
(``<!DOCTYPE``, ``<!ENTITY``), which can hide elements and grow without bound. Nested ``<use>`` and ``<pattern>`` end at
the limits. Texts are drawn in DejaVu, which matplotlib brings, so that a rendering is the same on every machine.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from PIL import Image

from .sandbox import Limits, is_available, run_code
from .spans import strip_thinking

WIDTH = 768  # pixels of a rendering; its height follows from the viewBox
MAX_CHARACTERS = 200_000
LIMITS = Limits(seconds=10.0, cpu_seconds=5, memory_mb=1024, max_pixels=WIDTH * WIDTH * 4, max_pictures=1)
REFUSED = ("image", "feImage")  # elements, whatever stands before their colon
DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
MOST_TRIED = 8  # places in a reply where an SVG may begin, and where it may end
#: what runs in the sandbox; the SVG is a literal
CODE = """
import io
from pathlib import Path
import matplotlib, resvg_py
from PIL import Image
fonts = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
families = {{name + "_family": "DejaVu Sans" for name in ("font", "sans_serif", "cursive", "fantasy")}}
data = resvg_py.svg_to_bytes(svg_string={svg!r}, width={width}, background="#ffffff", skip_system_fonts=True,
                             font_dirs=[fonts], serif_family="DejaVu Serif", monospace_family="DejaVu Sans Mono", **families)
show(Image.open(io.BytesIO(bytes(data))))
"""


@dataclass(frozen=True)
class Rendering:
    """The picture of an SVG, RGB on white, or why there is none."""

    image: Image.Image | None
    error: str | None = None


def extract_svg(reply: str) -> str | None:
    """The SVG of a reply after its thinking: the first and longest part from ``<svg`` to ``</svg>`` that is well-formed, so
    that a tag that is only mentioned does not count. Without one, all from the first to the last tag; None without tags."""
    text = strip_thinking(reply)
    starts = [match.start() for match in re.finditer(r"<svg\b", text)][:MOST_TRIED]
    ends = [match.end() for match in re.finditer(r"</svg\s*>", text)][-MOST_TRIED:]
    parts = [text[start:end] for start in starts for end in reversed(ends) if start < end]
    return next((part for part in parts if isinstance(element_names(part), set)), parts[0] if parts else None)


def element_names(svg: str) -> set[str] | str:
    """The names of all elements, without their namespaces; the error where it is no XML, or declares something."""
    if len(svg) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS:,} characters"
    if declared := DECLARATION.search(svg):
        return f"holds {declared[1]}, which is refused"
    try:
        return {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    except (ElementTree.ParseError, ValueError) as error:  # a lone surrogate
        return f"is no XML: {error}"


def render_svg(svg: str | None) -> Rendering:
    """Render an SVG; whatever it does, there is a rendering or an error in words.

    Raises:
        RuntimeError: this machine cannot confine the renderer.
    """
    if svg is None:
        return Rendering(None, "no <svg>...</svg> in the reply")
    names = element_names(svg)
    if isinstance(names, str):
        return Rendering(None, names)
    if refused := sorted(names.intersection(REFUSED)):
        return Rendering(None, f"holds {refused[0]}, which is refused")
    ran = run_code(CODE.format(svg=svg, width=WIDTH), limits=LIMITS)
    if not ran.pictures:
        return Rendering(None, re.sub(r" \(line \d+: .*", "", ran.error or "nothing was drawn"))
    return Rendering(ran.pictures[0])


def check_renderer() -> str:
    """The name and version of the renderer.

    Raises:
        ValueError: resvg_py is not installed, or this machine cannot confine it.
    """
    if importlib.util.find_spec("resvg_py") is None:
        raise ValueError("rendering SVG needs resvg_py. Install it: pip install -e '.[svg]' -c constraints.txt")
    if reason := is_available():
        raise ValueError(f"SVG of a model is rendered in a sandbox only, but {reason}.")
    return f"resvg_py {importlib.metadata.version('resvg_py')}, {WIDTH} pixels wide"

"""One answer as a self-contained HTML page, and pictures in motion."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image as PILImage

from .answer_view import AnswerView, SketchView

STYLE = """
body{font:16px/1.45 system-ui,sans-serif;max-width:72rem;margin:1rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.25rem}.quiet{color:#555}figure{margin:0;width:11rem}figcaption{font-size:.85rem;color:#444;margin-top:.2rem}
.row{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start;margin:.6rem 0}img{width:11rem;height:auto;
border:2px solid #888;image-rendering:pixelated}.sketch img{border-color:#0072B2}.small img{width:5rem}.small{width:5rem}
.text{white-space:pre-wrap}.right{color:#00704f;font-weight:bold}.wrong{color:#b04a00;font-weight:bold}
details{margin:.3rem 0}table{border-collapse:collapse;font-size:.85rem}td,th{padding:.1rem .6rem .1rem 0;text-align:left;
vertical-align:top}code{background:#f3f3f3;padding:0 .2rem}
"""


def data_url(picture: PILImage.Image) -> str:
    """A picture as the data URL of a PNG."""
    data = BytesIO()
    picture.convert("RGB").save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def write_page(views: Sequence[AnswerView], title: str) -> str:
    """Answers under each other as one HTML page without scripts. All text is escaped."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>"
        + "<hr>".join(_write_answer(view) for view in views)
        + "</html>\n"
    )


def _write_answer(view: AnswerView) -> str:
    images = "".join(_figure(image, f"input {n}") for n, image in enumerate(view.images, 1))
    parts = [f"<div class=row>{images}</div>" if images else "", f"<p class=text>{escape(view.question)}</p>"]
    parts += [_write_sketch(s) if isinstance(s, SketchView) else _write_text(s) for s in view.steps]
    if view.is_right is not None:
        parts.append("<p class=right>✓ right</p>" if view.is_right else "<p class=wrong>✗ wrong</p>")
    if view.gold_answer:
        parts.append(f"<p class=quiet>gold answer: {escape(view.gold_answer)}</p>")
    rows = "".join(f"<tr><th>{escape(k)}<td>{escape(v)}" for k, v in view.about.items())
    return "".join(parts) + (f"<table class=quiet>{rows}</table>" if rows else "")


def _write_text(text: str) -> str:
    return f"<p class=text>{escape(text.strip())}</p>" if text.strip() else ""


def _write_sketch(sketch: SketchView) -> str:
    mark = {True: " <span class=right>✓</span>", False: " <span class=wrong>✗</span>", None: ""}[sketch.is_right]
    kind = "sketch" if sketch.is_rendered else "colors of latents"
    caption = f"{kind} {sketch.number}, {sketch.num_latents} latents{mark}"
    cells = [_figure(sketch.picture, caption, "sketch", is_html=True)]
    if sketch.gold is not None:
        cells.append(_figure(sketch.gold, "true state"))
    cells += [_figure(picture, f"known sketch, cosine {cosine:.2f}", "small") for picture, cosine in sketch.similar]
    body = f"<div class=row>{''.join(cells)}</div>"
    if sketch.tokens:
        rows = "".join(
            f"<tr><td>{n}<td>{' '.join(f'<code>{escape(token)}</code>' for token in tokens)}"
            for n, tokens in enumerate(sketch.tokens, 1)
        )
        body += f"<details><summary>Text tokens after each latent</summary><table>{rows}</table></details>"
    return body


def _figure(picture: PILImage.Image, caption: str, kind: str = "", is_html: bool = False) -> str:
    text = caption if is_html else escape(caption)
    alt = escape(caption.partition("<")[0].strip(), quote=True)
    return f"<figure class='{kind}'><img alt='{alt}' src='{data_url(picture)}'><figcaption>{text}</figcaption></figure>"


def as_gif(frames: Sequence[PILImage.Image], side: int = 256, milliseconds: int = 350) -> bytes:
    """Frames as a GIF that repeats, each for so many milliseconds and the last three times as long. ``side`` is the longest
    side in pixels.

    Raises:
        ValueError: there is no frame.
    """
    if not frames:
        raise ValueError("a GIF needs at least one frame.")
    scale = side / max(frames[0].size)
    size = tuple(max(1, round(x * scale)) for x in frames[0].size)
    first, *rest = [frame.convert("RGB").resize(size, PILImage.Resampling.NEAREST) for frame in frames]
    data = BytesIO()
    durations = [milliseconds] * len(rest) + [3 * milliseconds]
    first.save(data, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return data.getvalue()

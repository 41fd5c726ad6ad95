"""SVG of a model is rendered in the sandbox: what is drawn, what is refused, and that nothing hangs or leaves."""

from __future__ import annotations

import time

import pytest

from eval import svg
from eval.sandbox import is_available

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 100 50">'
pytest.importorskip("resvg_py")
needs_sandbox = pytest.mark.skipif(is_available() is not None, reason="code cannot be confined on this machine")


def drawn(body: str) -> svg.Rendering:
    return svg.render_svg(f"{HEAD}{body}</svg>")


@needs_sandbox
def test_shapes_and_texts_are_drawn_on_white_at_one_width():
    image = drawn('<rect width="50" height="50" fill="#f00"/><text x="60" y="40" font-size="30">Hi</text>').image
    assert image.size == (svg.WIDTH, svg.WIDTH // 2) and image.mode == "RGB"
    assert image.getpixel((100, 100)) == (255, 0, 0) and image.getpixel((svg.WIDTH - 5, 5)) == (255, 255, 255)
    assert image.crop((400, 0, 700, 384)).convert("L").getextrema()[0] < 50, "texts have a font on every machine"


@needs_sandbox
def test_quotes_braces_and_backslashes_of_an_svg_are_text():
    assert drawn("""<text y="20">'''{0}\\" \\n "</text>""").image is not None


def nested(element: str, levels: int) -> str:
    """A definition that holds others, which hold others, level after level."""
    if element == "use":
        body = '<g id="e0"><rect/></g>'
        for k in range(1, levels):
            uses = f'<use href="#e{k - 1}"/>' * 10
            body += f'<g id="e{k}">{uses}</g>'
        return f'<defs>{body}</defs><use href="#e{levels - 1}"/>'
    body = ""
    for k in range(1, levels):
        body += f'<pattern id="e{k}" width="0.01" height="0.01" patternUnits="userSpaceOnUse">'
        body += f'<rect fill="url(#e{k - 1})" width="1" height="1"/></pattern>'
    return f'{body}<rect width="100" height="50" fill="url(#e{levels - 1})"/>'


@needs_sandbox
@pytest.mark.parametrize("element", ["use", "pattern"])
def test_nested_definitions_end_soon(element):
    began = time.monotonic()
    rendering = drawn(nested(element, 30))
    assert time.monotonic() - began < svg.LIMITS.seconds + 5
    if element == "use":
        assert rendering.image is None and "limit" in rendering.error
    else:
        assert rendering.image is not None, "patterns of patterns end, because resvg draws each once"


@needs_sandbox
def test_a_filter_that_takes_too_long_and_a_canvas_that_is_too_large_are_ended(monkeypatch):
    monkeypatch.setattr(svg, "LIMITS", svg.Limits(seconds=2.0, cpu_seconds=1, memory_mb=512))
    blurs = '<feGaussianBlur stdDeviation="500"/>' * 200
    slow = drawn(
        f'<filter id="f" x="-9" y="-9" width="99" height="99">{blurs}</filter><rect filter="url(#f)" width="9" height="9"/>'
    )
    assert slow.image is None and "second" in slow.error
    large = svg.render_svg(HEAD.replace("0 0 100 50", "0 0 1 1000000") + "<rect/></svg>")
    assert large.image is None and "ended" in large.error


@pytest.mark.parametrize(
    "body, reason",
    [
        ('<image href="file:///etc/hostname" width="9" height="9"/>', "holds image, which is refused"),
        ('<a:image xmlns:a="http://www.w3.org/2000/svg" href="http://x.org/a.png"/>', "holds image"),
        ('<a\u00b7:image xmlns:a\u00b7="http://www.w3.org/2000/svg" href="data:,"/>', "holds image"),
        ('<svg:image xlink:href="http://x.org/a.png"/>', "is no XML: unbound prefix"),
        ('<filter id="f"><feImage href="data:image/png;base64,AAAA"/></filter>', "holds feImage"),
        ("<g>" * 100_000, "longer than 200,000 characters"),
    ],
)
def test_pictures_and_long_texts_are_refused_before_anything_runs(body, reason, monkeypatch):
    monkeypatch.setattr(svg, "run_code", lambda *given, **options: pytest.fail("it was run"))
    assert drawn(body).error.startswith(reason)
    bomb = f'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>{HEAD}<text>&b;</text></svg>'
    assert svg.render_svg(bomb).error == "holds DOCTYPE, which is refused"


@needs_sandbox
def test_broken_svg_is_an_error_of_one_line_that_does_not_name_our_code():
    for body in ("<rect", '<rect width="1"></g>', "<text>&x;</text>"):
        error = drawn(body).error
        assert error and "\n" not in error and "show(" not in error


def test_the_svg_of_a_reply_is_that_after_its_thinking():
    one = f"{HEAD}<rect/></svg>"
    assert svg.extract_svg(f"<think>{HEAD}</think>Here:\n```svg\n{one}\n```\nDone.") == one
    assert svg.extract_svg("no drawing") is svg.extract_svg("</svg> <svg") is svg.extract_svg(f"<think>{one}") is None
    assert svg.render_svg(None).error == "no <svg>...</svg> in the reply"


def test_a_missing_renderer_says_what_to_install(monkeypatch):
    monkeypatch.setattr(svg.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs resvg_py.*\.\[svg\]"):
        svg.check_renderer()
    monkeypatch.undo()
    monkeypatch.setattr(svg, "is_available", lambda: "the kernel has no Landlock")
    with pytest.raises(ValueError, match="in a sandbox only, but the kernel has no Landlock"):
        svg.check_renderer()


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("I draw with `<svg>` tags: <svg><g/></svg> Done.", "<svg><g/></svg>"),
        ("<svg><svg/></svg>", "<svg><svg/></svg>"),
        ("First <svg><a/></svg>, then <svg><b/></svg>", "<svg><a/></svg>"),
        ("<svg><g></svg> broken", "<svg><g></svg>"),
        ("<svg> only", None),
        ("none", None),
    ],
)
def test_the_first_well_formed_svg_of_a_reply_is_drawn(reply, found):
    assert svg.extract_svg(reply) == found


def test_a_comment_may_name_what_is_refused():
    assert svg.element_names("<svg><!-- no <image> here --><g/></svg>") == {"svg", "g"}

"""Texts of files in Markdown, so that nothing in them is read as Markdown, HTML or YAML."""

from __future__ import annotations

import html
import re


def one_line(text: object) -> str:
    """A text without line ends and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def escape(text: object) -> str:
    """A text as plain words in a paragraph or a cell of a table. Underscores within words mean nothing and stay."""
    escaped = re.sub(r"([\\`*\[\]|$~#])", r"\\\1", html.escape(one_line(text), quote=False))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def code(text: object) -> str:
    """A text as a code span, also in a cell of a table; empty for an empty text."""
    line = one_line(str(text).replace("`", "'")).replace("|", "\\|")
    return f"`{line}`" if line else ""

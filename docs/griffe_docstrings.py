"""An extension of griffe: docstrings of this project as mkdocstrings wants them.

``Example:`` becomes ``Examples:``, which is rendered as code, and a role such as :func:`~package.name` the name alone.
"""

from __future__ import annotations

import re

import griffe


class Docstrings(griffe.Extension):
    """Rewrites every docstring after it is collected."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)

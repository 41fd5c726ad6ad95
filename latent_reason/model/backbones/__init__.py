"""Stock Hugging Face vision-language models behind five calls: embed, see, place, trunk, logits.

``load(name)`` takes ``tiny`` or ``tiny-FAMILY`` (a small random model of any family with its own tokenizer, no
download), a local folder, or a Hub name. Everything else in this project knows only :class:`Backbone`.
"""

from __future__ import annotations

from .base import Backbone, no_bars
from .families import load

__all__ = ["Backbone", "load", "no_bars"]

"""Stock Hugging Face vision-language models behind one interface, :class:`Backbone`.

``load_backbone(name)`` takes ``tiny`` or ``tiny-FAMILY`` (a small random model of any family with its own tokenizer, no
download), a local folder, or a Hub name. Everything else in this project knows only :class:`Backbone`.
"""

from __future__ import annotations

from .base import Backbone
from .families import load_backbone, no_progress_bars

__all__ = ["Backbone", "load_backbone", "no_progress_bars"]

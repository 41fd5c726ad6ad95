"""latent_reason: a vision-language model that can sketch while it reasons, trained, decoded, rendered, probed.

Heavy parts are imported when they are first used, so ``import latent_reason`` is quick.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"
_HOMES = {
    "Trace": "trace",
    "Message": "trace",
    "Text": "trace",
    "Image": "trace",
    "Sketch": "trace",
    "LatentReasoner": "model.reasoner",
    "Rollout": "decoding.engine",
    "generate": "decoding.engine",
    "load": "checkpoint",
    "save": "checkpoint",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'latent_reason' has no attribute {name!r}")

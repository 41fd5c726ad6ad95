"""latent_reason: vision-language models that sketch in latent space while they reason.

Example:
    >>> from latent_reason import GenerationConfig, Image, Message, Text, Trace, generate, load
    >>> reasoner, decoder = load("checkpoints/frozenlake-tiny")
    >>> trace = Trace("q", (Message("user", (Image(image), Text("Which way to the goal?"))),))
    >>> rollout = generate(reasoner, reasoner.processor([trace], generate=True).to(reasoner.device))
    >>> print(rollout.text(0, reasoner.vocabulary))

Names are imported when they are first used, so that ``import latent_reason`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; _LAZY is the same table at run time
    from .checkpoint import load, save
    from .checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
    from .decoding.config import GenerationConfig
    from .decoding.engine import generate
    from .decoding.rollout import Rollout
    from .methods import build_method
    from .model.backbones import load_backbone
    from .model.processor import Processor
    from .model.reasoner import LatentReasoner
    from .trace import Image, Message, Sketch, Text, Trace
    from .visualization.sketch_decoder import SketchDecoder

__version__ = "0.1.0"
__all__ = [
    "GenerationConfig",
    "Image",
    "LatentReasonForConditionalGeneration",
    "LatentReasoner",
    "Message",
    "Processor",
    "Rollout",
    "Sketch",
    "SketchDecoder",
    "Text",
    "Trace",
    "build_method",
    "generate",
    "load",
    "load_backbone",
    "save",
]
#: public name -> its module
_LAZY = {
    "GenerationConfig": "decoding.config",
    "Image": "trace",
    "LatentReasonForConditionalGeneration": "checkpoint.hf.auto_model",
    "LatentReasoner": "model.reasoner",
    "Message": "trace",
    "Processor": "model.processor",
    "Rollout": "decoding.rollout",
    "Sketch": "trace",
    "SketchDecoder": "visualization.sketch_decoder",
    "Text": "trace",
    "Trace": "trace",
    "build_method": "methods",
    "generate": "decoding.engine",
    "load": "checkpoint",
    "load_backbone": "model.backbones",
    "save": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'latent_reason' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

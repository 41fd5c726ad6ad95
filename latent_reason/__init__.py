"""latent_reason: vision-language models that sketch in latent space while they reason.

    from latent_reason import Image, Message, Text, Trace, generate, load

    reasoner, decoder = load("checkpoints/frozenlake-tiny")
    trace = Trace("q", (Message("user", (Image(picture), Text("Which way to the goal?"))),))
    rollout = generate(reasoner, reasoner.collator()([trace], generate=True))
    print(rollout.text(0, reasoner.vocabulary))

Names are imported when they are first used, so that ``import latent_reason`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; _LAZY is the same table at run time
    from .checkpoint import load, save
    from .checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
    from .decoding.engine import Rollout, generate
    from .methods import build as build_method
    from .model.backbones import load as load_backbone
    from .model.batch import Collator
    from .model.reasoner import LatentReasoner
    from .trace import Image, Message, Sketch, Text, Trace
    from .visualization.sketch_decoder import SketchDecoder

__version__ = "0.1.0"
__all__ = [
    "Collator",
    "Image",
    "LatentReasonForConditionalGeneration",
    "LatentReasoner",
    "Message",
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
#: public name -> its module and, where it differs, its name there
_LAZY = {
    "Collator": "model.batch",
    "Image": "trace",
    "LatentReasonForConditionalGeneration": "checkpoint.hf.auto_model",
    "LatentReasoner": "model.reasoner",
    "Message": "trace",
    "Rollout": "decoding.engine",
    "Sketch": "trace",
    "SketchDecoder": "visualization.sketch_decoder",
    "Text": "trace",
    "Trace": "trace",
    "build_method": "methods:build",
    "generate": "decoding.engine",
    "load": "checkpoint",
    "load_backbone": "model.backbones:load",
    "save": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'latent_reason' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = globals()[name] = getattr(import_module(f".{module}", __name__), attribute or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

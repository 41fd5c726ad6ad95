"""A model as JSON: its method with options, or, built by hand, the classes and arguments of its parts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from .. import methods
from ..model import heads, targets
from ..model.backbones.base import Backbone
from ..model.reasoner import LatentReasoner
from ..model.switching import Switch
from ..values import check_options


def describe(reasoner: LatentReasoner) -> dict[str, Any]:
    """``method`` and ``options``, for a model built by hand ``parts``, and ``slot_means`` where its target keeps means of
    several grids and ``feedback`` where its latents are scaled.

    Raises:
        ValueError: a head or target is of a class that this library does not ship, or an argument is not JSON.
    """
    method, stored = reasoner.method, dict[str, Any]()
    if reasoner.target is not None and (means := reasoner.target.standardizer.stored_means):
        stored["slot_means"] = means
    if reasoner.feedback != "raw":
        stored["feedback"] = reasoner.feedback
    if method.name is not None:
        return {"method": method.name, "options": _sorted(method.options), **stored}
    return {
        "method": None,
        "options": {},
        **stored,
        "parts": {
            "head": _part(reasoner.head, heads),
            "target": _part(reasoner.target, targets),
            "switch": asdict(reasoner.switch),
            "follows_target": reasoner.follows_target,
            "hides_images": reasoner.hides_images,
        }
        | ({"system_prompt": reasoner.system_prompt} if reasoner.system_prompt else {}),
    }


def _sorted(options: dict[str, Any]) -> dict[str, Any]:
    """The same options by name, so that a checkpoint that is saved again is the same byte for byte."""
    return json.loads(json.dumps(options, sort_keys=True))


def build_reasoner(config: dict[str, Any], backbone: Backbone) -> LatentReasoner:
    """The model that a description names, with new weights: by its method, or by its parts if built by hand."""
    if config["method"] is None:
        reasoner = build(config.get("parts") or {}, backbone)
    else:
        options = methods.with_older_options(config["method"], config["options"])
        reasoner = methods.build_method(config["method"], backbone, **options)
    reasoner.reserve_statistics(config.get("slot_means"))
    reasoner.reserve_gain(config.get("feedback"))
    return reasoner


def build(parts: dict[str, Any], backbone: Backbone) -> LatentReasoner:
    """The model that ``parts`` describe. Only classes of this library are built: nothing a download names is imported.

    Raises:
        ValueError: an unknown class or argument.
    """
    try:
        head = parts["head"] and _build_part(parts["head"], heads)
        target = parts["target"] and _build_part(parts["target"], targets, backbone)
        switch = Switch(**parts["switch"])
        follows, hides = bool(parts["follows_target"]), bool(parts.get("hides_images", False))
        return LatentReasoner(
            backbone,
            target=target,
            head=head,
            switch=switch,
            follows_target=follows,
            hides_images=hides,
            system_prompt=str(parts.get("system_prompt", "")),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the checkpoint's parts do not describe a model ({error}). Copy the checkpoint again."
        ) from None


def _build_part(part: dict[str, Any], module: Any, *given: Any) -> Any:
    """A head or target from its class and arguments, which are checked. Raises ValueError, KeyError, TypeError."""
    made: Any = _class(part["class"], module)
    check_options(part["arguments"], made.__init__, f"{part['class']}: ")
    return made(*given, **part["arguments"])


def _class(name: str, module: Any) -> type:
    if name not in module.__all__ or not isinstance(getattr(module, name), type):
        raise ValueError(f"the checkpoint names the part {name!r}, which {module.__name__} does not have.")
    return getattr(module, name)


def _part(part: Any, module: Any) -> dict[str, Any] | None:
    if part is None:
        return None
    name = type(part).__name__
    if getattr(module, name, None) is not type(part):
        raise ValueError(
            f"a {name} is not a part that {module.__name__} ships, so a model built by hand with it cannot be loaded "
            "again. Write a method file that builds it (see docs/extending)."
        )
    try:
        json.dumps(part.arguments)
    except TypeError as error:
        raise ValueError(f"an argument of {name} cannot be saved as JSON ({error}).") from None
    return {"class": name, "arguments": part.arguments}

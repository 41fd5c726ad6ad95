"""The model class of this library, which finds method and family by their names. An exported folder has its own class,
which imports both."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import GenerationConfig

from ...imports import restrict_imports
from ...model.backbones.base import Backbone
from ...model.backbones.families import FAMILIES, family
from ...model.reasoner import LatentReasoner
from ...model.weight_files import check_finite
from ...visualization.sketch_decoder import SketchDecoder
from .. import parts
from ..config_file import upgrade_options
from ..plan import named_weights, plan_model
from .chat import chat_template
from .configuration import LatentReasonConfig
from .modeling import LOCATION, LatentReasonModel


def local_folder(name: str | Path, options: dict[str, Any]) -> Path:
    """A folder, or the snapshot of a Hub name in the cache, which is downloaded first. ``options`` are those of
    ``from_pretrained``."""
    if Path(name).is_dir():
        return Path(name)
    location = {key: options[key] for key in LOCATION if key != "proxies" and options.get(key) is not None}
    return Path(snapshot_download(str(name), **location))


class LatentReasonForConditionalGeneration(LatentReasonModel):
    """A checkpoint as a model of transformers.

    Example:
        >>> model = LatentReasonForConditionalGeneration.from_reasoner(*latent_reason.load("checkpoints/frozenlake-tiny"))
        >>> answer = model.generate_interleaved(image, "Which way is safe?", max_new_tokens=100)
    """

    @classmethod
    def from_pretrained(cls, folder, *args, **options):
        """As in transformers. A local folder, or what is downloaded of a Hub name, is held against its weights before memory
        is taken.

        Raises:
            UntrustedCode: it names modules outside of this library that are not trusted.
            FileNotFoundError, ValueError: as :func:`latent_reason.load`.
        """
        with restrict_imports(folder):
            place = local_folder(folder, options)
            if options.get("config") is None:
                options["config"] = plan_model(place)
            loaded = super().from_pretrained(place, *args, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        check_finite([*named_weights(model), *named_weights(model.decoder)], f"'{folder}' holds")
        return loaded

    @classmethod
    def family_of(cls, config: LatentReasonConfig) -> type[Backbone]:
        model_type = config.backbone_config.model_type
        if model_type not in FAMILIES:
            raise ValueError(f"the backbone family {model_type!r} is not supported. Families: {', '.join(FAMILIES)}.")
        return family(model_type)

    @staticmethod
    def build_reasoner(config: LatentReasonConfig, backbone: Backbone) -> LatentReasoner:
        options = upgrade_options(config.options or {})
        return parts.build_reasoner(
            {"method": config.method or None, "options": options, "parts": config.parts}, backbone
        )

    @classmethod
    def from_reasoner(
        cls, reasoner: LatentReasoner, decoder: SketchDecoder | None = None, auto_map: dict[str, str] | None = None
    ) -> LatentReasonModel:
        """A reasoner as a model of transformers. ``auto_map`` says where AutoModel finds the code."""
        backbone, v = reasoner.backbone, reasoner.vocabulary
        stock = copy.deepcopy(backbone.model.config)
        stock.name_or_path = ""  # a path on this machine
        described = parts.describe(reasoner)
        config = LatentReasonConfig(
            backbone_config=stock,
            method=described["method"] or "",
            options=described["options"],
            parts=described.get("parts"),
            slot_means=described.get("slot_means"),
            feedback=described.get("feedback"),
            latent_positions=backbone.latent_positions,
            decoder=decoder is not None,
            control_tokens=v.control_tokens,
            tie_word_embeddings=bool(stock.tie_word_embeddings),
        )
        if auto_map:
            config.auto_map = dict(auto_map)
        backbone.tokenizer.chat_template = chat_template(v.layout, v.tokens, reasoner.system_prompt)
        model = cls(config, reasoner=reasoner, decoder=decoder)
        model.generation_config = GenerationConfig(eos_token_id=v.end, pad_token_id=v.pad, do_sample=False)
        return model.eval()

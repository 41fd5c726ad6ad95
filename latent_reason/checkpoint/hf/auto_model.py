"""The model class of this library: it finds method and family by their names. An exported folder has one of its own
that names its two."""

from __future__ import annotations

import copy
from functools import partial

from transformers import GenerationConfig

from ... import methods
from ...imports import restrict_imports
from ...model.backbones.families import FAMILIES, family
from ...model.reasoner import LatentReasoner
from .chat import template
from .configuration import LatentReasonConfig
from .modeling import LatentReasonModel


class LatentReasonForConditionalGeneration(LatentReasonModel):
    @staticmethod
    def parts(config):
        if config.backbone_config.model_type not in FAMILIES:
            raise ValueError(
                f"there is no file for the family {config.backbone_config.model_type!r} in latent_reason/model/backbones."
            )
        methods.load(config.method)
        return partial(methods.build, config.method), family(config.backbone_config.model_type)

    @classmethod
    def from_pretrained(cls, folder, *args, **options):
        """As in transformers. Raises UntrustedCode if it names modules outside of this library that are not trusted."""
        with restrict_imports(folder):
            return super().from_pretrained(folder, *args, **options)

    @classmethod
    def of(cls, reasoner: LatentReasoner, decoder=None, auto_map: dict[str, str] | None = None) -> LatentReasonModel:
        """A reasoner, as it is, as a model of transformers. ``auto_map`` says where AutoModel finds the code."""
        backbone, v = reasoner.backbone, reasoner.vocabulary
        stock = copy.deepcopy(backbone.model.config)
        stock.name_or_path = ""  # a place on this machine
        config = LatentReasonConfig(
            backbone_config=stock,
            method=reasoner.recipe["method"],
            options=reasoner.recipe["options"],
            positions=backbone.positions,
            decoder=decoder is not None,
            control_tokens=v.control_tokens,
            tie_word_embeddings=bool(stock.tie_word_embeddings),
        )
        if auto_map:
            config.auto_map = dict(auto_map)
        backbone.tokenizer.chat_template = template(v.layout, v.roles)
        model = cls(config, reasoner=reasoner, decoder=decoder)
        model.generation_config = GenerationConfig(eos_token_id=v.end, pad_token_id=v.pad, do_sample=False)
        return model.eval()

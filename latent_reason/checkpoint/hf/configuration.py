"""The configuration of an exported checkpoint, ``config.json``."""

from __future__ import annotations

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig


class LatentReasonConfig(PreTrainedConfig):
    """``backbone_config`` is that of the stock model. ``method`` with its ``options`` (for a model built by hand:
    ``parts``), ``slot_means``, ``feedback`` and ``latent_positions`` are as in ``latent_reason.json``. ``control_tokens`` are
    role -> [token, id]. ``decoder`` says whether the folder has a sketch decoder.

    Raises:
        ValueError: the stock model is of a kind that transformers does not know.
    """

    model_type = "latent_reason"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    method: str = ""
    options: dict | None = None
    parts: dict | None = None
    slot_means: list | None = None
    feedback: str | None = None
    latent_positions: str = "1d"
    control_tokens: dict | None = None
    decoder: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if (positions := kwargs.pop("positions", None)) is not None:  # format 1
            self.latent_positions = {"line": "1d", "grid": "2d"}.get(positions, positions)
        if isinstance(self.backbone_config, dict):
            kind = self.backbone_config.get("model_type")
            if kind not in CONFIG_MAPPING:
                raise ValueError(
                    f"backbone_config in config.json is of the kind {kind!r}, which this version of "
                    "transformers does not know. Use the one README.md names."
                )
            self.backbone_config = CONFIG_MAPPING[kind](**self.backbone_config)
        self.options, self.control_tokens = self.options or {}, self.control_tokens or {}
        super().__post_init__(**kwargs)

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:
        return self if self.backbone_config is None else self.backbone_config.get_text_config()

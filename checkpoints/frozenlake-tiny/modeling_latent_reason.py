"""modal_mixed on QwenVL: what AutoModelForImageTextToText loads. Written by latent_reason 0.1.0."""

from .configuration_latent_reason import LatentReasonConfig
from .latent_reason_backbones_qwen_vl import QwenVL
from .latent_reason_methods_modal_mixed import build
from .latent_reason_pretrained_modeling import LatentReasonModel
from .latent_reason_filling import __name__ as _  # else it would not be copied
from .latent_reason_heads import __name__ as _  # else it would not be copied


class LatentReasonForConditionalGeneration(LatentReasonModel):
    config_class = LatentReasonConfig

    @staticmethod
    def parts(config):
        return build, QwenVL

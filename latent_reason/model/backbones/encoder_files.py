"""External encoders of strangers: ``config.json`` is held against the weights beside it, before memory is taken.

An option that names an encoder has the type ``Encoder``, so it is checked where options are checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from transformers import AutoModel

from ...errors import is_sentence
from ...values import Name, show
from .encoders import MODEL_TYPES
from .stock_config import check_sizes, read_stock_config, stored_weights


@dataclass(frozen=True)
class FitsItsWeights:
    """A name for :func:`.encoders.load_encoder`: the folder or Hub model describes no more weights than it has. What a Hub
    model needs is downloaded first."""

    def check(self, value: str, key: str) -> None:
        """Raises ValueError for an encoder whose configuration is damaged, absurd, or does not fit."""
        if value == "tiny":
            return
        try:
            stored = stored_weights(value)
            config = read_stock_config(value)
            vision = getattr(config, "vision_config", config)
            if config.model_type in MODEL_TYPES:
                check_sizes(vision, stored, Path(value, "config.json"), AutoModel)
        except OSError:
            return  # there is none: loading says so
        except Exception as error:  # a library raises anything for a damaged file
            reason = str(error) if is_sentence(error) else f"config.json cannot be read ({type(error).__name__})."
            raise ValueError(f"{key}={show(value)}: {reason}") from error


Encoder = Annotated[Name, FitsItsWeights()]

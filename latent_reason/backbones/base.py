"""The interface every model family fulfils, and how one is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image as PILImage
from torch import nn

from ..batch import MixedBatch, Pictures
from ..tokens import Layout


class Backbone(nn.Module, ABC):
    """A stock model by composition. ``model`` is the Hugging Face module, ``tokenizer`` and ``image_processor`` its
    own; nothing of it is subclassed or patched. ``positions`` says how latents are placed: ``line`` (like text) or
    ``grid`` (like a picture); it is saved with the checkpoint."""

    layout: Layout = Layout()

    def __init__(self, model: nn.Module, tokenizer, image_processor, positions: str = "line"):
        super().__init__()
        if positions not in ("line", "grid"):
            raise ValueError(f"positions={positions!r}: latents are placed on a 'line' or on a 'grid'.")
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.positions = positions

    # -- the five calls -------------------------------------------------------------------------------------------
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings (..., D)."""
        return self.model.get_input_embeddings()(ids)

    @abstractmethod
    def see(self, pictures: Pictures) -> list[torch.Tensor]:
        """What the eye and its connector make of each picture: one (T, D) tensor a picture, row-major."""

    def features(self, pictures: Pictures) -> list[torch.Tensor]:
        """What the eye makes of each picture before its connector: one (T, C) tensor a picture, row-major."""
        raise ValueError(f"{type(self).__name__} has no eye that can be read before its connector.")

    def connect(self, features: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., D): the connector alone, so that ``connect(features) == see``."""
        raise ValueError(f"{type(self).__name__} has no connector that stands alone.")

    @property
    def feature_width(self) -> int:
        """C of :meth:`features`."""
        raise ValueError(f"{type(self).__name__} has no eye that can be read before its connector.")

    @abstractmethod
    def place(self, batch: MixedBatch) -> torch.Tensor:
        """Position ids (axes, B, N) of a batch; latents as ``positions`` says."""

    @abstractmethod
    def trunk(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache=None) -> torch.Tensor:
        """States (B, n, D) of n new positions. ``mask`` (B, past + n) marks what may be attended, of what is before a
        position; or (B, n, past + n) says so for each position.

        Raises:
            ValueError: a mask for each position under flash attention, which knows none.
        """

    @abstractmethod
    def layers(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """States after every layer (L, B, N, D); the last of them are those of :meth:`trunk`. Raises as it does."""

    @abstractmethod
    def attentions(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What each position attends to, mean over heads, layer by layer (L, B, N, N); rows sum to 1. For looking, not
        for training: it holds every layer's whole table at once."""

    @abstractmethod
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits (..., V)."""

    # -- what the calls need --------------------------------------------------------------------------------------
    @abstractmethod
    def look(self, pictures: list[PILImage.Image]) -> Pictures:
        """Pictures as the eye takes them."""

    @abstractmethod
    def token_grid(self, picture: PILImage.Image) -> tuple[int, int]:
        """(h, w) of the tokens :meth:`see` makes of a picture."""

    @property
    @abstractmethod
    def cell(self) -> int:
        """Pixels of a side of one token."""

    @abstractmethod
    def merged(self, pictures: Pictures) -> torch.Tensor:
        """(n, 2) the same, of pictures already looked at."""

    @abstractmethod
    def new_cache(self):
        """An empty cache for :meth:`trunk`."""

    @property
    @abstractmethod
    def eye(self) -> nn.Module:
        """The vision encoder with its connector."""

    @property
    def width(self) -> int:
        return self.model.get_input_embeddings().embedding_dim

    @property
    def checkpointing(self) -> bool:
        return any(getattr(m, "gradient_checkpointing", False) for m in self.model.modules())

    def span_positions(self, start: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(axes, K, ...) positions of a span's latents that begins at ``start``; see :meth:`after_span`."""
        k = torch.arange(height * width, device=start.device)
        if self.positions == "line":
            return (start + k).expand(3, -1)
        return torch.stack([start.expand(len(k)), start + k // width, start + k % width])

    def after_span(self, height: int, width: int) -> int:
        """How far a span moves the position of what follows it."""
        return height * width if self.positions == "line" else max(height, width)

    def grow(self, vocabulary) -> None:
        """Give new control tokens their embedding rows: the mean of the old rows + 0.02 std of noise."""
        weight = self.model.get_input_embeddings().weight
        if len(vocabulary) <= weight.shape[0]:
            rows = [i for i in vocabulary.added if i < weight.shape[0]]
        else:
            self.model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
            weight, rows = self.model.get_input_embeddings().weight, vocabulary.added
        if not rows:
            return
        tables = {id(t): t for t in (weight, self.model.get_output_embeddings().weight)}
        with torch.no_grad():
            for table in tables.values():
                old = table[: min(rows)]
                table[rows] = old.mean(0) + 0.02 * old.std() * torch.randn(len(rows), table.shape[1],
                                                                          dtype=table.dtype, device=table.device)


@contextmanager
def no_bars() -> Iterator[None]:
    """Keeps transformers from drawing a progress bar for every file it reads or writes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load(name: str = "tiny", *, positions: str = "line", attn: str = "sdpa", **options) -> Backbone:
    """A backbone by name: ``tiny``, a local folder, or a Hub name.

    Raises:
        ValueError: no such folder, or a model family without a file here.
    """
    if name == "tiny":
        from .tiny import tiny

        return tiny(positions=positions, attn=attn, **options)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except OSError as error:
        raise ValueError(f"backbone {name!r} is neither 'tiny', nor a folder with a config.json"
                         f"{'' if Path(name).exists() else ' (no such folder)'}, nor reachable on the Hub. Download "
                         "it where you have a network and give the folder.") from error
    if config.model_type in ("qwen2_5_vl", "qwen2_vl"):
        from .qwen_vl import QwenVL

        return QwenVL.from_pretrained(name, positions=positions, attn=attn, **options)
    raise ValueError(f"backbone {name!r} is of the family {config.model_type!r}, which has no file in "
                     "latent_reason/backbones. Supported: qwen2_5_vl, qwen2_vl.")

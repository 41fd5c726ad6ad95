"""The interface every model family fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import nn

from ...errors import pip_install
from ..batch import MixedBatch, Pictures, within
from ..packing import apart
from ..tokenization import Layout

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutput


class Backbone(nn.Module, ABC):
    """A stock model by composition. ``model`` is the Hugging Face module, ``tokenizer`` and ``image_processor`` its
    own; nothing of it is subclassed or patched. ``positions`` says how latents are placed: ``line`` (like text) or
    ``grid`` (like a picture, where the family has an axis for rows and columns); it is saved with the checkpoint.

    What stands at a picture's positions may be wider than D: ``more`` channels bring what a family's trunk wants to
    know of pictures beside their tokens (features for later layers, the block they form). Words and latents have none.
    """

    layout: Layout = Layout()
    grids = False  # whether positions have axes for rows and columns
    masks = False  # whether it gives its positions masks of their own, as pictures seen both ways need
    more = 0
    name: str | None = None  # the folder or Hub name it was loaded from
    bits: int | None = None  # of a text weight, where they were rounded on the way
    adapter = None  # peft's handle of a LoRA inside ``model`` (adapters.py)

    def __init__(self, model: nn.Module, tokenizer, image_processor, positions: str = "line"):
        super().__init__()
        if positions not in ("line", "grid"):
            raise ValueError(f"positions={positions!r}: latents are placed on a 'line' or on a 'grid'.")
        if positions == "grid" and not self.grids:
            raise ValueError(
                f"positions='grid': {type(self).__name__} has one axis of positions, on which latents can "
                "only stand on a 'line'."
            )
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.positions = positions

    @classmethod
    def from_pretrained(
        cls, folder: str, *, positions: str = "line", dtype=None, tiles: bool | None = None, bits: int | None = None
    ) -> Backbone:
        """A folder or Hub name of this family. ``tiles`` says whether pictures are cut up (None: as saved with it);
        ``bits=4`` rounds the text model's weights as it is read (for LoRA alone, by bitsandbytes).

        Raises:
            ValueError: weights are missing or left over, or cannot be rounded here.
        """
        from transformers import AutoModelForImageTextToText, AutoTokenizer

        with no_bars():
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype or "auto",
                output_loading_info=True,
                use_safetensors=True,
                **(rounded(bits) if bits is not None else {}),
            )
        if info["missing_keys"] or info["unexpected_keys"]:
            raise ValueError(
                f"{folder}: {len(info['missing_keys'])} weights missing, "
                f"{len(info['unexpected_keys'])} left over. Is this the folder of a whole model?"
            )
        backbone = cls(model, AutoTokenizer.from_pretrained(folder), cls.processor(folder, model.config), positions)
        backbone.name, backbone.bits = folder, bits
        if tiles is not None:
            backbone.cut(tiles)
        return backbone

    @staticmethod
    @abstractmethod
    def processor(folder: str, config):
        """The family's picture processor as it was saved in a folder."""

    # -- the five calls -------------------------------------------------------------------------------------------
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings (..., D)."""
        return self.model.get_input_embeddings()(ids)

    def see(self, pictures: Pictures) -> list[torch.Tensor]:
        """What the eye and its connector make of each picture: one (T, D) tensor a picture, row-major."""
        sizes = self.merged(pictures).prod(-1).tolist()
        return [tokens[:n, : self.width] for tokens, n in zip(self.inputs(pictures), sizes, strict=True)]

    def inputs(self, pictures: Pictures) -> list[torch.Tensor]:
        """What stands at the positions of each picture: (T + layout.trailing, D + more), the tokens of :meth:`see` and
        whatever else the family puts there."""
        return self.encode(pictures) if pictures.tokens is None else pictures.tokens

    @abstractmethod
    def encode(self, pictures: Pictures) -> list[torch.Tensor]:
        """:meth:`inputs` of pictures that no eye has looked at yet."""

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D + more): words or latents among what stands in a trunk's inputs."""
        return F.pad(x, (0, self.more))

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

    def place(self, batch: MixedBatch) -> torch.Tensor:
        """Position ids (axes, B, N) of a batch; latents as ``positions`` says, packed traces each from 0 on."""
        if batch.documents is None:
            return self.placed(batch)
        alone, row, position = apart(batch)
        return self.placed(alone)[:, row, position]

    @abstractmethod
    def placed(self, batch: MixedBatch) -> torch.Tensor:
        """:meth:`place` where every row is one trace."""

    def trunk(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache=None) -> torch.Tensor:
        """States (B, n, D) of n new positions ``embeds`` (B, n, D or D + more). ``mask`` (B, past + n) marks what may
        be attended, of what is before a position; or numbers the traces that share a row, which do not see each other
        (0: padding); or (B, n, past + n) says so for each position.

        Raises:
            ValueError: a mask for each position under flash attention, which knows none.
        """
        return self.run(embeds, mask, positions, past_key_values=cache, use_cache=cache is not None).last_hidden_state

    def layers(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """States after every layer (L, B, N, D); the last of them are those of :meth:`trunk`. Raises as it does."""
        out = self.run(embeds, mask, positions, use_cache=False, output_hidden_states=True)
        return torch.stack(out.hidden_states[1:])

    @torch.no_grad()
    def attentions(self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What each position attends to, mean over heads, layer by layer (L, B, N, N); rows sum to 1. For looking, not
        for training: it holds every layer's whole table at once."""
        usual = self.attn
        self.model.set_attn_implementation("eager")  # the others never hold the table
        try:
            out = self.run(embeds, mask, positions, use_cache=False, output_attentions=True)
        finally:
            self.model.set_attn_implementation(usual)
        return torch.stack([a.mean(1) for a in out.attentions])

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Next-token logits (..., V)."""
        return self.model.lm_head(states)

    @property
    def table_size(self) -> int:
        """V of :meth:`logits`, which may be more than the tokenizer knows."""
        return len(self.model.get_output_embeddings().weight)

    # -- the language model inside ------------------------------------------------------------------------------------
    @property
    def language(self) -> nn.Module:
        """The stock text model that :meth:`run` calls."""
        return self.model.model.language_model

    @property
    def attn(self) -> str:
        return self.model.config._attn_implementation

    def run(self, embeds, mask, positions, language: nn.Module | None = None, **options):
        """The stock text model (or ``language``, a copy of it) on what :meth:`trunk` takes; its stock output."""
        numbered, language = mask.dtype == torch.long and mask.ndim == 2, language or self.language
        if self.attn not in ("sdpa", "eager"):
            if mask.ndim == 3 or self.masks or (numbered and options.get("past_key_values") is not None):
                raise ValueError(f"attn={self.attn!r} takes no mask of what each position may see. Use attn: sdpa.")
            if numbered:
                return self.run_in_one_row(language, embeds, mask, positions, options)
        elif numbered:
            mask = within(mask, embeds.shape[1])
        return language(**self.given(embeds[..., : self.width], embeds[..., self.width :], mask, positions), **options)

    def run_in_one_row(self, language: nn.Module, embeds, number, positions, options) -> BaseModelOutput:
        """:meth:`run` of packed rows by flash attention: all traces end to end, told where each begins."""
        from transformers.modeling_outputs import BaseModelOutput

        there = number > 0
        trace = number + torch.arange(len(number), device=number.device)[:, None] * (number.max() + 1)
        _, lengths = trace[there].unique_consecutive(return_counts=True)
        begins = F.pad(lengths.cumsum(0), (1, 0)).int()
        row, longest = embeds[there][None], int(lengths.max())
        out = language(
            **self.given(row[..., : self.width], row[..., self.width :], None, positions[:, None, there]),
            cu_seq_lens_q=begins,
            cu_seq_lens_k=begins,
            max_length_q=longest,
            max_length_k=longest,
            **options,
        )

        def back(states: torch.Tensor) -> torch.Tensor:
            return states.new_zeros(*number.shape, states.shape[-1]).masked_scatter(there[..., None], states)

        return BaseModelOutput(
            back(out.last_hidden_state), hidden_states=out.hidden_states and tuple(map(back, out.hidden_states))
        )

    def given(self, embeds, more, mask, positions) -> dict:
        """What the stock text model is called with; ``more`` (B, n, 0 or more) is what pictures bring beside tokens.
        No ``mask``: attention is told in another way who sees whom."""
        if mask is not None:
            mask = mask.long() if mask.ndim == 2 else self.mask_of(mask, embeds.dtype)
        return {"inputs_embeds": embeds, "position_ids": positions, "attention_mask": mask}

    def mask_of(self, sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B, n, m) bool -> the (B, 1, n, m) mask of the attention at hand: eager adds it to its scores."""
        if self.attn != "eager":
            return sees[:, None]
        return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[:, None]

    def new_cache(self):
        """An empty cache for :meth:`trunk`."""
        from transformers.cache_utils import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())

    # -- what the calls need --------------------------------------------------------------------------------------
    @abstractmethod
    def look(self, pictures: list[PILImage.Image]) -> Pictures:
        """Pictures as the eye takes them."""

    def look_whole(self, pictures: list[PILImage.Image]) -> Pictures:
        """The same, but never cut into tiles: how sketches are looked at."""
        return self.look(pictures)

    def cut(self, tiles: bool) -> None:
        """Cut pictures into tiles, each as large as the eye's square, or leave them whole.

        Raises:
            ValueError: this family is not read in tiles here.
        """
        if tiles:
            raise ValueError(f"tiles: {type(self).__name__} takes pictures whole. Leave the option out.")

    @abstractmethod
    def token_grid(self, picture: PILImage.Image) -> tuple[int, int]:
        """(h, w) of the tokens :meth:`see` makes of a picture."""

    def laid(self, picture: PILImage.Image) -> list[tuple[str, int]]:
        """How a picture stands in a row: marks, each with the number of picture positions that follow it."""
        return self.laid_as(*self.token_grid(picture))

    def laid_as(self, height: int, width: int) -> list[tuple[str, int]]:
        """:meth:`laid` of a picture of that many tokens."""
        return [(self.layout.image_open, height * width + self.layout.trailing), (self.layout.image_close, 0)]

    def room(self, pictures: Pictures) -> list[int]:
        """How many positions of a row each picture takes, marks and all."""
        return [
            sum(len(self.tokenizer(mark, add_special_tokens=False)["input_ids"]) + n for mark, n in self.laid_as(*size))
            for size in self.merged(pictures).tolist()
        ]

    @property
    @abstractmethod
    def cell(self) -> int:
        """Pixels of a side of one token."""

    @abstractmethod
    def merged(self, pictures: Pictures) -> torch.Tensor:
        """(n, 2) the same, of pictures already looked at."""

    @property
    def eye(self) -> list[nn.Parameter]:
        """Parameters of the vision encoder with its connector: all of the stock model that is not its language."""
        words = {id(p) for part in (self.language, self.model.lm_head) for p in part.parameters()}
        return [p for p in self.model.parameters() if id(p) not in words]

    @property
    def width(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def checkpointing(self) -> bool:
        return any(getattr(m, "gradient_checkpointing", False) for m in self.model.modules())

    def checkpoint(self, on: bool = True) -> None:
        """Turn activation checkpointing on or off: layers are computed again in the backward pass. Not re-entrant, or
        what trains behind frozen embeddings would get no gradient."""
        what = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"  # in 5.17
        if on:
            getattr(self.model, f"{what}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(self.model, f"{what}_checkpointing_disable")()

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
                table[rows] = old.mean(0) + 0.02 * old.std() * torch.randn(
                    len(rows), table.shape[1], dtype=table.dtype, device=table.device
                )


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


def rounded(bits: int) -> dict:
    """How transformers is asked to round the text model's weights (NF4, 2305.14314); eye, connector and output stay as
    they are. Raises ValueError for other than 4 bits, or where what does it is missing."""
    from transformers import BitsAndBytesConfig

    if bits != 4:
        raise ValueError(f"bits={bits}: 4, or leave it out for weights as they are.")
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise ValueError(f"bits=4 needs {' and '.join(missing)}. Install with: {pip_install('bits')}")
    gpu = torch.cuda.is_available()
    whole = [
        "lm_head",
        *(f"model.{part}" for part in ("visual", "vision_tower", "vision_model", "connector", "multi_modal_projector")),
    ]
    return {
        "device_map": {"": torch.cuda.current_device() if gpu else "cpu"},
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if gpu else torch.float32,
            llm_int8_skip_modules=whole,
        ),
    }

"""A prompt with vectors at the end of its last user turn: where they and their image patches stand, and what a frozen
model predicts at them.

    [ ... system, images, question | vector, its patches, vector, its patches, ... | end of turn, assistant header ]
      prefix, P positions            block, L (1 + c) positions                      suffix

The prefix is computed once. A pass over the block reads its keys and values. It leaves out the suffix, because nothing
in the block depends on it. Letters: L vectors, c patches each, W = D + extra_width.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import torch

from ...model.batch import IMAGE, TEXT, MixedBatch
from ...model.processor import EncodedExample
from ...model.reasoner import LatentReasoner
from ...trace import Trace


class VectorBlock:
    """One prompt, the place of L vectors in it, and the keys and values of all positions before them.

    Attributes:
        start: (L, D) embeddings of the text whose places the vectors take.
        image_columns: (I,) columns of the prompt's image tokens. End markers of images (``layout.trailing``) are none.
        num_passes, num_positions: forward passes of the text model so far, and the positions in all rows of them.

    Raises:
        ValueError: the prompt does not end with a user's message, ``start`` is an empty text, or the backbone has
            layers that keep a window of the past only.
    """

    def __init__(
        self,
        model: LatentReasoner,
        trace: Trace,
        length: int,
        start: str = "...",
        patch_positions: Literal["line", "image"] = "line",
    ):
        self.model, self.length, self.patch_positions = model, length, patch_positions
        self.num_passes = self.num_positions = 0
        self._find_place(trace, start)
        self.plain, backbone = model.processor.collate([self.example_with(0)]), model.backbone
        self.plain = replace(self.plain, positions=backbone.position_ids(self.plain)).to(model.device)
        self.batches = {0: self.plain}  # by the number of patches behind each vector
        embeds = model.prompt_embeddings(self.plain)
        self.start = embeds[0, self.at : self.at + length, : backbone.width]
        self.prefix, self.suffix = embeds[:, : self.at], embeds[:, self.at + length :]
        is_image, trailing = self.plain.token_type[0, : self.at] == IMAGE, backbone.layout.trailing
        self.image_columns = (is_image & is_image.roll(-trailing)).nonzero()[:, 0]  # a prefix does not end in an image
        cache = backbone.new_cache()
        self._forward(self.prefix, self.plain.positions[..., : self.at], cache)
        if any(layer.is_sliding or getattr(layer, "keys", None) is None for layer in cache.layers):
            raise ValueError(
                f"{type(backbone).__name__} has layers that keep a window of the past only, so a prefix cannot be used "
                "again. Use a backbone with full attention."
            )
        self.caches = {1: cache}  # by the number of rows

    def _find_place(self, trace: Trace, start: str) -> None:
        """Encode the trace, and set the column ``at`` of the first vector and the ids that stand there."""
        messages, processor, v = trace.prompt().messages, self.model.processor, self.model.vocabulary
        if not messages or messages[-1].role != "user":
            raise ValueError(f"trace '{trace.id}': vectors end a user's turn, so its prompt must end with one.")
        tokens = v.encode_text(start, plain=True)
        if not tokens:
            raise ValueError(f"start={start!r}: the vectors take the embeddings of a text, so it must have tokens.")
        self.example: EncodedExample = processor.encode(trace, generate=True)
        behind = [v.end, *v.encode_text(v.layout.after), *v.encode_text(v.layout.header("assistant"))]
        self.at = len(self.example.ids) - len(behind)
        self.ids = [tokens[i % len(tokens)] for i in range(self.length)]

    # -- where everything stands --------------------------------------------------------------------------------------
    def example_with(self, num_patches: int) -> EncodedExample:
        """The encoded prompt with its vectors and ``num_patches`` patches behind each. They are text for whoever asks
        for the type of their positions: no image is encoded there, and they attend to what is before them only."""
        row, patch = self.example, [self.model.vocabulary.image] * num_patches
        block: dict[str, list[Any]] = {
            "ids": [token for vector in self.ids for token in (vector, *patch)],
            "token_type": [TEXT] * self.length * (1 + num_patches),
            "loss_weight": [0.0] * self.length * (1 + num_patches),
        }
        fields: dict[str, Any] = {}
        for name, new in block.items():
            old = getattr(row, name)
            fields[name] = [*old[: self.at], *new, *old[self.at :]]
        return replace(row, **fields)

    def encode(self, num_patches: int) -> MixedBatch:
        """The prompt with its vectors as a batch of one row, all new positions on the text line."""
        if num_patches not in self.batches:
            row, device = self.example_with(num_patches), self.model.device
            names = ("ids", "token_type", "loss_weight")
            fields: dict[str, Any] = {n: torch.tensor([getattr(row, n)], device=device) for n in names}
            fields["layout"] = None  # it is made anew
            batch = replace(self.batches[0], **fields)  # its images are not preprocessed again
            self.batches[num_patches] = replace(batch, positions=self.model.backbone.position_ids(batch))
        return self.batches[num_patches]

    def prompt(self, patches: torch.Tensor) -> MixedBatch:
        """The prompt with vectors and the patches at columns (L, c), with its positions."""
        batch, plain, stop = self.encode(patches.shape[1]), self.plain.positions, self.at + self.length
        if self.patch_positions == "line" or not patches.numel():
            return batch
        vectors, own = plain[:, :, self.at : stop, None], plain[:, :, patches]  # (axes, 1, L, 1) and (axes, 1, L, c)
        block = torch.cat([vectors, own], -1).flatten(2)
        return replace(batch, positions=torch.cat([plain[:, :, : self.at], block, plain[:, :, stop:]], -1))

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        """(L, c, D) the image tokens at columns (L, c), as the backbone feeds them. Channels beyond D are left out: a
        patch has no features for later layers (DeepStack) and is no part of an image that attends both ways."""
        return self.prefix[0, patches, : self.model.backbone.width]

    def block_embeds(self, vectors: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """(n, L (1 + c), W) inputs of the block for vectors (n, L, D) and patches at columns (L, c)."""
        features = self.features(patches).expand(len(vectors), -1, -1, -1)
        return self.model.backbone.pad_extra(torch.cat([vectors[:, :, None], features], 2).flatten(1, 2))

    def prompt_embeds(self, vectors: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """(1, N, W) inputs of the whole prompt for vectors (L, D) and patches at columns (L, c)."""
        return torch.cat([self.prefix, self.block_embeds(vectors[None], patches), self.suffix], 1)

    # -- what the model makes of it -----------------------------------------------------------------------------------
    def _forward(self, embeds: torch.Tensor, positions: torch.Tensor, cache: Any, **options: Any) -> Any:
        """Stock output for new positions (n, N, W) after a cache of n rows, which keeps them."""
        rows, new = embeds.shape[:2]
        mask = torch.ones(rows, cache.get_seq_length() + new, dtype=torch.bool, device=embeds.device)
        self.num_passes, self.num_positions = self.num_passes + 1, self.num_positions + rows * new
        return self.model.backbone.call_text_model(
            embeds, mask, positions.expand(-1, rows, -1), past_key_values=cache, use_cache=True, **options
        )

    def _forward_block(self, vectors: torch.Tensor, patches: torch.Tensor, positions, **options: Any) -> Any:
        """Stock output for the block. Keys and values are afterwards what they were before."""
        rows = len(vectors)
        if rows not in self.caches:
            self.caches[rows] = copy.deepcopy(self.caches[1])
            self.caches[rows].batch_repeat_interleave(rows)
        embeds = self.block_embeds(vectors, patches)
        positions = positions[..., self.at : self.at + embeds.shape[1]]
        output = self._forward(embeds, positions, self.caches[rows], **options)
        self.caches[rows].crop(-embeds.shape[1])
        return output

    def states(self, vectors: torch.Tensor, patches: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(n, L, D) states that predict what follows each of the vectors (n, L, D) and its patches at columns (L, c): at
        its last patch, or at the vector where it has none. At the vector itself, what is behind the last one would be
        part of the answer's context and of no state. ``positions`` (axes, 1, N) are those of :meth:`prompt`."""
        c = patches.shape[1]
        return self._forward_block(vectors, patches, positions).last_hidden_state[:, c :: 1 + c]

    def attended(
        self, vectors: torch.Tensor, patches: torch.Tensor, positions: torch.Tensor, num_patches: int
    ) -> torch.Tensor:
        """(L, c) columns of the ``num_patches`` image tokens to which each of the vectors (L, D) attends most, as the
        mean over heads and layers. They are in the order of the image; all of them, where there are fewer."""
        backbone, name = self.model.backbone, self.model.backbone.attn_implementation
        backbone.model.set_attn_implementation("eager")  # the other implementations do not return their weights
        try:
            output = self._forward_block(vectors[None], patches, positions, output_attentions=True)
        finally:
            backbone.model.set_attn_implementation(name)
        rows = [layer[0, :, :: 1 + patches.shape[1]].float().mean(0) for layer in output.attentions]
        weights = torch.stack(rows).mean(0)[:, self.image_columns]
        best = weights.topk(min(num_patches, len(self.image_columns)), -1).indices
        return self.image_columns[best].sort(-1).values

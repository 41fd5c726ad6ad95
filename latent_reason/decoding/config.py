"""GenerationConfig: how a model continues its prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

#: ``hook(rows, spans, slots, latents, written) -> latents`` replaces sampled latents (n, D) before they are fed back;
#: ``written`` are the ids so far of every row that is active, by its number. The host reads which rows draw.
LatentHook = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Mapping[int, list[int]]], torch.Tensor]


@dataclass(frozen=True)
class GenerationConfig:
    """Options of :func:`~latent_reason.generate`, named as in transformers where it has them.

    Example:
        >>> generate(reasoner, prompt, GenerationConfig(max_new_tokens=128, temperature=0.7, seed=1))

    Args:
        max_new_tokens: budget of new positions (text and latents), one for all rows or one a row. A span that is open
            when it runs out is closed.
        temperature: 0 is greedy decoding. ``top_p`` and ``top_k`` (0: all) apply otherwise.
        seed: of all randomness, which is keyed by (seed, row id, position).
        latent_mode: ``learned`` (the model's switch decides), ``off`` (no span can be opened) or ``first`` (a span is
            opened at once).
        latents_per_span: a fixed number of latents a span; 0 leaves only the control tokens. None: as the model plans.
        max_spans: the most spans a row may open. None: the switch's own limit.
        forced_tokens: ids that each row writes first; they are no choice of the model. An open token among them opens
            a span, and the rest waits until that span is closed.
        latent_hook: replaces sampled latents before they are fed back; see ``LatentHook``.
        latent_policy: draws latents in place of the head and records what a replay needs (see
            latent_reason.objectives.latent_policies).
        hide_images: text after a sketch cannot attend to the prompt's images. The question, which has attended to
            them, stays visible; latents and the token that opens them may attend to everything. None: as the model was
            trained.
        answer_prefix: ids that a row is forced to write once its budget is used up, followed by ``answer_budget`` more
            positions to answer in (GLM-4.1V-Thinking 2507.01006). An open span is closed before.
        cache_implementation: ``dynamic`` (keys and values grow with the longest row) or ``static`` (they have room for
            the whole budget from the start, and shapes never change).
        mixture: a rule that feeds mixtures of token embeddings at text positions (see
            latent_reason.decoding.strategies.mixtures).
        logits_processor: ``processor(ids, logits) -> logits`` changes the logits (n, V) of text before temperature, top_k
            and top_p. ``ids`` (n, L) are those so far with their prompts, as in transformers. What may not be generated
            stays so.
        stopping_criteria: ``criteria(ids, None) -> stops`` says which rows (n,) end after the text they have written.
            Rows in a span go on to its end.
        compile: compile the steps, with a static cache. Every batch size takes three graphs, and the first steps take
            long. A head that reads a context, a latent hook, a logits processor and stopping criteria are not compiled.

    Raises:
        ValueError: an unknown ``latent_mode`` or ``cache_implementation``, or a policy together with a hook.
    """

    max_new_tokens: int | Sequence[int] = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    latent_mode: Literal["learned", "off", "first"] = "learned"
    latents_per_span: int | None = None
    max_spans: int | None = None
    forced_tokens: Sequence[Sequence[int]] | None = None
    latent_hook: LatentHook | None = None
    latent_policy: Any = None
    hide_images: bool | None = None
    answer_prefix: Sequence[int] = ()
    answer_budget: int = 32
    cache_implementation: Literal["dynamic", "static"] = "dynamic"
    logits_processor: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    stopping_criteria: Callable[[torch.Tensor, None], torch.Tensor] | None = None
    compile: bool = False
    mixture: Any = None

    def __post_init__(self):
        if self.latent_mode not in ("learned", "off", "first"):
            raise ValueError(f"latent_mode={self.latent_mode!r}: must be 'learned', 'off' or 'first'.")
        if self.cache_implementation not in ("dynamic", "static"):
            raise ValueError(f"cache_implementation={self.cache_implementation!r}: must be 'dynamic' or 'static'.")
        if self.compile and self.cache_implementation != "static":
            object.__setattr__(self, "cache_implementation", "static")
        if self.latent_policy is not None and self.latent_hook is not None:
            raise ValueError("latent_policy draws the latents, so latent_hook may not replace them. Use one of them.")

    def for_model(self, hides_images: bool) -> GenerationConfig:
        """The same with ``hide_images`` as this model was trained, where it is None."""
        return replace(self, hide_images=hides_images) if self.hide_images is None else self

    @property
    def has_text_hooks(self) -> bool:
        """Whether something outside reads the text while it is written."""
        return self.logits_processor is not None or self.stopping_criteria is not None

"""Test-time methods on a trained model: what is fed back, searched or chosen while it answers. Nothing is trained.

Example:
    >>> decoding = make_decoding("step_search:beams=2,candidates=3")
    >>> results = decode(reasoner, decoder, task, items, "mixed", decoding=decoding)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from ... import values
from ...errors import did_you_mean
from ...imports import import_object, is_dotted_path
from ...model.reasoner import LatentReasoner
from ..config import GenerationConfig
from ..queue import Cost, Finished, Request, decode_requests
from .mixtures import Lead, Mixture, SoftThinking, SwiReasoning
from .prompt_vectors import PromptVectors, generate_with_vectors
from .step_search import StepSearch
from .voting import BestOfN, SelfConsistency

#: (model, requests, config, num_slots) -> the requests as they finish; as :func:`decode_requests`
Decoding = Callable[[LatentReasoner, Iterable[Request], GenerationConfig, int], Iterator[Finished]]
#: by name; the options of a method are the fields of its object
DECODINGS: dict[str, Any] = {
    "plain": None,
    "soft_thinking": SoftThinking(),
    "swi_reasoning": SwiReasoning(),
    "lead": Lead(),
    "ltpo": PromptVectors.LTPO,
    "dmlr": PromptVectors.OURS,
    "best_of_n": BestOfN(),
    "self_consistency": SelfConsistency(),
    "step_search": StepSearch(),
}


@dataclasses.dataclass(frozen=True)
class WithMixture:
    """Decoding that feeds mixtures of tokens by a rule."""

    rule: Mixture

    def __call__(
        self, model: LatentReasoner, requests: Iterable[Request], config: GenerationConfig, num_slots: int
    ) -> Iterator[Finished]:
        return decode_requests(model, requests, dataclasses.replace(config, mixture=self.rule), num_slots)


@dataclasses.dataclass(frozen=True)
class WithVectors:
    """Decoding after vectors in the prompt that are optimised for each request."""

    vectors: PromptVectors

    def __call__(
        self, model: LatentReasoner, requests: Iterable[Request], config: GenerationConfig, num_slots: int
    ) -> Iterator[Finished]:
        """Answers ``num_slots`` requests at a time; yields each with the passes of its search."""
        source = iter(requests)
        while chunk := list(islice(source, num_slots)):
            for seed in dict.fromkeys(config.seed if r.seed is None else r.seed for r in chunk):
                batch = [r for r in chunk if (config.seed if r.seed is None else r.seed) == seed]
                yield from self.answer(model, batch, dataclasses.replace(config, seed=seed))

    def answer(self, model: LatentReasoner, batch: list[Request], config: GenerationConfig) -> Iterator[Finished]:
        """Answer requests of one seed together."""
        given: Any = config.max_new_tokens  # a number: those of each request are in them
        budgets = [given if r.max_new_tokens is None else r.max_new_tokens for r in batch]
        forced = [r.forced_tokens or () for r in batch]
        own = dataclasses.replace(config, max_new_tokens=budgets, forced_tokens=forced)
        ids = [r.number if r.row_id is None else r.row_id for r in batch]
        rollout, found = generate_with_vectors(model, [r.trace for r in batch], self.vectors, own, ids)
        for row, (request, one) in enumerate(zip(batch, found, strict=True)):
            cost = Cost.of(rollout, row)
            yield Finished(request, rollout, row, cost._replace(passes=cost.passes + one.num_passes))


def as_decoding(made: Any) -> Decoding:
    """An object of a test-time method as what answers requests."""
    if isinstance(made, Mixture):
        return WithMixture(made)
    return WithVectors(made) if isinstance(made, PromptVectors) else made


def make_decoding(text: str) -> Decoding:
    """A method of decoding from its name, or a dotted path, and its options: ``lead:window=8,top_n=20``.

    Raises:
        ValueError: an unknown name or option, or a value that does not fit.
    """
    name, _, given = text.partition(":") if text.partition(":")[0] in DECODINGS else (text, "", "")
    if name not in DECODINGS and is_dotted_path(name):
        return as_decoding(import_object(name, "decoding", object)())
    if name not in DECODINGS:
        raise ValueError(f"decoding {text!r} does not exist. {did_you_mean(name, list(DECODINGS))}")
    options = values.read_options(given, name, "decoding")
    if DECODINGS[name] is None:
        if options:
            raise ValueError("decoding 'plain' has no options.")
        return decode_requests
    known = [field.name for field in dataclasses.fields(DECODINGS[name])]
    for option in options:
        if option not in known:
            raise ValueError(f"decoding {name!r} has no option {option!r}. {did_you_mean(option, known)}")
    values.check_options(options, type(DECODINGS[name]), f"decoding {name}: ")
    return as_decoding(dataclasses.replace(DECODINGS[name], **options))

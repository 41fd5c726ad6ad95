"""Several answers to one question, and the choice among them: best-of-n and self-consistency (2203.11171).

All answers of a question are sampled, and share its prompt. Their sketches differ where the head is stochastic, and
where the text before them differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...model.reasoner import LatentReasoner
from ...tasks import checkers
from ..config import GenerationConfig
from ..queue import Cost, Finished, Request, RequestQueue
from ..rollout import Rollout

#: (request, rollout, row) -> score of an answer; the highest is chosen
Score = Callable[[Request, Rollout, int], float]
#: random numbers of the n-th answer of request i are those of row i + n * STRIDE
STRIDE = 2**40


def mean_log_prob(request: Request, rollout: Rollout, row: int) -> float:
    """Mean log-probability, at temperature 1, of the tokens that the model chose."""
    chosen = rollout.text_decisions[row]
    return float(rollout.log_prob[row][chosen].mean()) if chosen.any() else float("-inf")


def final_answer(text: str) -> str:
    """What a text answers: its last ``\\boxed{}``, or its last line where it has none."""
    boxed = checkers.boxed(text)
    return (boxed if boxed is not None else text.strip().rpartition("\n")[2]).strip()


@dataclass(frozen=True)
class BestOfN:
    """The answer with the highest score of ``n`` samples.

    Args:
        score: a verifier; default: :func:`mean_log_prob`.
        temperature: of the samples, where the configuration is greedy. Answer 0 keeps the configuration's own.
    """

    n: int = 8
    temperature: float = 0.7
    score: Score = mean_log_prob

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"n={self.n}: must be at least 1.")

    def __call__(
        self, model: LatentReasoner, requests: Iterable[Request], config: GenerationConfig, num_slots: int
    ) -> Iterator[Finished]:
        """Answer requests; yields each with the cost of all of its samples."""
        if self.n > 1 and config.temperature == 0:
            config = replace(config, temperature=self.temperature)
        answers: dict[int, list[Finished]] = {}
        for sample in decode_samples(model, requests, config, num_slots, self.n):
            answers.setdefault(sample.request.number, []).append(sample)
            if len(answers[sample.request.number]) == self.n:
                samples = sorted(answers.pop(sample.request.number), key=lambda one: one.request.row_id or 0)
                yield self.choose(model, samples)._replace(cost=add_costs(samples))

    def choose(self, model: LatentReasoner, samples: Sequence[Finished]) -> Finished:
        """One of the samples of a request; the first of equal ones."""
        return max(samples, key=lambda one: self.score(one.request, one.rollout, one.row))


@dataclass(frozen=True)
class SelfConsistency(BestOfN):
    """The answer that most of ``n`` samples give; among these, and among answers that are given equally often, the one
    with the highest score."""

    def choose(self, model, samples):
        given = [final_answer(one.rollout.text(one.row, model.vocabulary)) for one in samples]
        votes = Counter(given)
        most = [one for one, answer in zip(samples, given, strict=True) if votes[answer] == max(votes.values())]
        return super().choose(model, most)


def decode_samples(
    model: LatentReasoner, requests: Iterable[Request], config: GenerationConfig, num_slots: int, n: int
) -> Iterator[Finished]:
    """Decode n samples of every request, whose random numbers are those of the rows ``row_id + STRIDE * sample``."""
    if n > 1 and config.latent_hook is not None:
        raise ValueError("latent_hook: several samples of a request have one number. Decode them one by one.")
    queue, was_training = RequestQueue(model, config, num_slots), model.training
    model.eval()
    try:
        for request in requests:
            for sample in range(n):
                row_id = request.number if request.row_id is None else request.row_id
                queue.submit(replace(request, row_id=row_id + STRIDE * sample))
        while not queue.is_idle:
            yield from queue.step(last=True)
    finally:
        model.train(was_training)


def add_costs(samples: Sequence[Finished]) -> Cost:
    """The cost of samples that run side by side: as many passes as the longest takes."""
    costs = [one.cost for one in samples]
    return Cost(sum(c.tokens for c in costs), sum(c.latents for c in costs), max(c.passes for c in costs))

"""Measures of a rollout that rewards can use besides its answer: a number from 0 to 1 for each row, by name.

A reward names the measures it needs in ``reward.wants``. Other measures are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from latent_reason.decoding.engine import generate
from latent_reason.decoding.replacements import StoredLatents
from latent_reason.decoding.rollout import Rollout
from latent_reason.errors import did_you_mean
from latent_reason.imports import import_object, is_dotted_path
from latent_reason.tasks import Item

from .content_measures import latent_attention, sketch_match, sketch_right, sketch_useful
from .reward_context import RewardContext


def concluded(context: RewardContext, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """1 if the reasoning alone, without its boxed answer, leads to a correct answer. VER asks a model this; here the
    task's rule decides."""
    values = []
    for row, item in enumerate(items):
        answer = context.task.concluded(rollout.text(row, context.reasoner.vocabulary), item)
        is_correct = answer is not None and (
            next(iter(context.task.score(f"\\boxed{{{answer}}}", item.meta).values())) >= 1
        )
        values.append(float(is_correct))
    return values


def sketches_alone(
    context: RewardContext, rollout: Rollout, items: Sequence[Item], answer_tokens: int = 64
) -> list[float]:
    """1 if the reference model answers correctly from the question and the sketches alone: the image is blank, and the
    text between sketches is left out (SCCM, operational).

    Raises:
        ValueError: there is no reference model.
    """
    if context.reference is None:
        raise ValueError("sketches_alone needs the reference model (the model at the start of training).")
    reader, vocabulary = context.reference, context.reference.vocabulary
    latents = [[rollout.latents(span) for span in rollout.spans_of(row) if span.length] for row in range(len(items))]
    blind = [context.task.blind(item, context.mode) for item in items]
    prompt = reader.processor(blind, generate=True).to(reader.device)
    forced_tokens = [[vocabulary.open] * len(spans) + vocabulary.encode_text("\\boxed{") for spans in latents]
    max_new_tokens = [sum(len(z) + 2 for z in spans) + answer_tokens for spans in latents]
    answers = generate(
        reader,
        prompt,
        max_new_tokens=max_new_tokens,
        forced_tokens=forced_tokens,
        latent_hook=StoredLatents(latents),
    )
    scores = (context.task.score(answers.text(row, vocabulary), item.meta) for row, item in enumerate(items))
    return [
        float(spans != [] and next(iter(score.values())) >= 1) for spans, score in zip(latents, scores, strict=True)
    ]


Measure = Callable[[RewardContext, Rollout, Sequence[Item]], list[float]]
MEASURES: dict[str, Measure] = {
    "concluded": concluded,
    "sketch_match": sketch_match,
    "sketch_right": sketch_right,
    "sketch_useful": sketch_useful,
    "latent_attention": latent_attention,
    "sketches_alone": sketches_alone,
}
#: measures that compare with the model at the start of training
NEED_REFERENCE = ("latent_attention", "sketches_alone")


def find(name: str) -> Measure:
    """A measure by name, or another function by dotted path. Raises ValueError if there is none."""
    return find_by_name(name, MEASURES, "measure")


def find_by_name(name: str, table: Mapping[str, Callable], kind: str) -> Callable:
    """A function of ``table`` by name, or another one by dotted path. Raises ValueError if there is none."""
    if name in table:
        return table[name]
    if not is_dotted_path(name):
        raise ValueError(f"no {kind} {name!r}. {did_you_mean(name, table)} Or give a dotted path: my_pkg.my_{kind}.")
    return import_object(name, kind)

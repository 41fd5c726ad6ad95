"""What rewards may ask of a rollout beside its answer: a number in 0-1 for each row, by name.

A reward names those it needs (``reward.wants``); what no reward of a run wants is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from eval.interventions import StoredLatents
from latent_reason.decoding.engine import generate
from latent_reason.decoding.rollout import Rollout
from latent_reason.errors import did_you_mean
from latent_reason.imports import import_object, is_dotted_path
from latent_reason.tasks import Item, Task
from latent_reason.visualization.sketch_decoder import SketchDecoder
from latent_reason.visualization.storyboard import decode_sketches, split_text


@dataclass(frozen=True)
class Scene:
    """What measures look at beside rollouts: the model that learns, the one it began as (None: not kept), a decoder of
    sketches (None: there is none), the task and the mode its traces are in."""

    reasoner: torch.nn.Module
    reference: torch.nn.Module | None
    decoder: SketchDecoder | None
    task: Task
    mode: str


def concluded(scene: Scene, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """1 where the reasoning itself, its boxed answer left out, arrives at a right answer: what is asked of evidence in
    VER, here by the task's rule."""
    found = []
    for row, item in enumerate(items):
        answer = scene.task.concluded(rollout.text(row, scene.reasoner.vocabulary), item)
        right = answer is not None and next(iter(scene.task.score(f"\\boxed{{{answer}}}", item.meta).values())) >= 1
        found.append(float(right))
    return found


def sketch_match(scene: Scene, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """Share of its sketches that show what its own words lead to; 0 where it drew none.

    Raises:
        ValueError: sketches cannot be seen.
    """
    if scene.decoder is None or not scene.reasoner.is_renderable:
        raise ValueError(
            "sketch_match looks at sketches. Begin with a checkpoint that has a decoder, of a method "
            "whose latents are pictures."
        )
    found = []
    for row, item in enumerate(items):
        if not rollout.spans_of(row):
            found.append(0.0)
            continue
        pictures = decode_sketches(scene.reasoner, scene.decoder, rollout, row, item.images[-1])
        said = split_text(rollout, row, scene.reasoner.vocabulary)
        found.append(float(scene.task.sketch_report(pictures, item, said)["equal"]))
    return found


def sketches_alone(scene: Scene, rollout: Rollout, items: Sequence[Item], room: int = 64) -> list[float]:
    """1 where the model that training began with answers right from the question and the sketches alone: the picture
    is blank and the words between are left out (SCCM, operational).

    Raises:
        ValueError: the model that training began with is not kept.
    """
    if scene.reference is None:
        raise ValueError("sketches_alone asks the model that training began with, which is not kept.")
    reader, v = scene.reference, scene.reference.vocabulary
    latents = [[rollout.latents(span) for span in rollout.spans_of(row) if span.length] for row in range(len(items))]
    prompt = reader.processor([scene.task.blind(item, scene.mode) for item in items], generate=True).to(reader.device)
    queue = [[v.open] * len(spans) + v.encode_text("\\boxed{") for spans in latents]
    most = [sum(len(z) + 2 for z in spans) + room for spans in latents]
    read = generate(reader, prompt, max_new_tokens=most, forced_tokens=queue, latent_hook=StoredLatents(latents))
    scores = (scene.task.score(read.text(row, v), item.meta) for row, item in enumerate(items))
    return [
        float(spans != [] and next(iter(score.values())) >= 1) for spans, score in zip(latents, scores, strict=True)
    ]


Measure = Callable[[Scene, Rollout, Sequence[Item]], list[float]]
MEASURES: dict[str, Measure] = {"concluded": concluded, "sketch_match": sketch_match, "sketches_alone": sketches_alone}


def find(name: str) -> Measure:
    """A measure by name, or anyone else's by dotted path. Raises ValueError where there is none."""
    return named(name, MEASURES, "measure")


def named(name: str, ours: Mapping[str, Callable], what: str) -> Callable:
    """One of ``ours`` by name, or anyone else's by dotted path. Raises ValueError where there is none."""
    if name in ours:
        return ours[name]
    if not is_dotted_path(name):
        raise ValueError(f"no {what} {name!r}. {did_you_mean(name, ours)} Or give a dotted path: my_pkg.my_{what}.")
    return import_object(name, what)

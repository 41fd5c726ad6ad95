"""Metrics besides accuracy and probes: agreement of reasoning and answer, content of the sketches alone, accuracy by
step, and cost. (Changed inputs are in input_perturbations.py, attention is in attention.py.)

Each function uses decoded results or decodes again, and returns numbers for a JSON file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from PIL import Image as PILImage

from latent_reason.decoding.items import Result, decode, main_score, room
from latent_reason.decoding.replacements import StoredLatents
from latent_reason.model.batch import TEXT
from latent_reason.tasks import Item, Task
from latent_reason.tasks.item import Step
from latent_reason.visualization.storyboard import reconstruct_picture, split_text

from .statistics import paired_bootstrap, paired_p, wilson


def share(values: Sequence[float]) -> dict[str, float]:
    """Mean of values in 0-1, its Wilson interval and the number of values."""
    interval = wilson(sum(values), len(values))
    return {
        "value": round(interval.estimate, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "n": len(values),
    }


def difference(first: Sequence[Result], second: Sequence[Result], key: str) -> dict[str, float]:
    """Mean difference of the scores (first minus second) on the same items, with its interval and p-value."""
    pair = [r.scores[key] for r in first], [r.scores[key] for r in second]
    interval = paired_bootstrap(*pair)
    found = {"value": interval.estimate, "low": interval.low, "high": interval.high, "p": paired_p(*pair)}
    return {name: round(value, 5 if name == "p" else 4) for name, value in found.items()}


# -- reasoning, answers, sketches --------------------------------------------------------------------------------------
def consistency(task: Task, results: Sequence[Result], vocabulary) -> dict:
    """Does the answer agree with the conclusion of the reasoning (TAC by rule)?

    ``consistent``: share of right answers whose reasoning was right. ``agree``: share of items where both were right or
    both wrong. ``silent``: number of items whose reasoning has no conclusion.
    """
    key, pairs, silent = main_score(results), [], 0
    for r in results:
        thought = task.concluded(" ".join(split_text(r.rollout, r.row, vocabulary)), r.item)
        if thought is None:
            silent += 1
            continue
        pairs.append((r.scores[key] == 1, task.check(f"\\boxed{{{thought}}}", r.item.meta).ok))
    right = [t for answer, t in pairs if answer]
    return {
        "silent": silent,
        **({"consistent": share(right)} if right else {}),
        **({"agree": share([a == t for a, t in pairs])} if pairs else {}),
    }


def sketches_alone(reasoner, decoder, task: Task, results: Sequence[Result]) -> dict:
    """What the task's parser reads from sketches alone: the model's own sketches (``own``), true sketches through
    encoder and decoder (``ceiling``), true images (``pixels``) and another item's true sketch (``floor``)."""
    own = [s for r in results for s in r.sketches]
    golds = [(r.item, s) for r in results for s in r.item.steps if s.sketch is not None]

    def score_images(images):
        return share(
            [
                task.same(task.parse_sketch(p, item.meta).state, step.state)
                for (item, step), p in zip(golds, images, strict=True)
            ]
        )

    out = (
        {
            "own_valid": share([s["valid"] for s in own]),
            "own_equal": share([s["equal"] for s in own]),
            "own_gold": share([s["gold"] for s in own]),
            "own_legal": share([s["legal"] for s in own]),
        }
        if own
        else {}
    )
    if golds:
        out["pixels"] = score_images([s.sketch for _, s in golds])
        out["ceiling"] = score_images([reconstruct_picture(reasoner, decoder, s.sketch) for _, s in golds])
        others = [other_sketch(golds, i) for i in range(len(golds))]
        if all(others):
            out["floor"] = score_images(others)
    return out


def other_sketch(golds: list[tuple[Item, Step]], i: int) -> PILImage.Image | None:
    """The true sketch of another item of the same level; None if there is none."""
    item, _ = golds[i]
    return next(
        (s.sketch for other, s in golds[i + 1 :] + golds[:i] if other.id != item.id and other.level == item.level), None
    )


# -- steps and budgets -------------------------------------------------------------------------------------------------
def accuracy_by_step(reasoner, task: Task, mode: str, plain: Sequence[Result], max_steps: int = 4) -> list[dict]:
    """Accuracy if the answer is forced after s of the model's own steps (a step ends with its sketch)."""
    key, v, out = main_score(plain), reasoner.vocabulary, []
    index, boxed = {id(r.item): r for r in plain}, v.encode_text("\\boxed{")
    for s in range(min(max_steps, max((len(r.latents) for r in plain), default=0)) + 1):

        def forced_tokens(chunk, s=s):
            return [ids_until_sketch(index[id(i)], s, v) + boxed for i in chunk]

        results = decode(
            reasoner,
            None,
            task,
            [r.item for r in plain],
            mode,
            forced_tokens=forced_tokens,
            latent_mode="learned" if s else "off",
            max_new_tokens=room(plain),
            progress=f"answer at step {s}",
            latent_hook=lambda c: StoredLatents([index[id(i)].latents for i in c], only_stored=True),
        )
        out.append({"step": s} | share([r.scores[key] for r in results]))
    return out


def ids_until_sketch(result: Result, s: int, vocabulary) -> list[int]:
    """The ids of a row up to its s-th sketch, with an open token for each span. With fewer sketches, all of its text
    before the answer."""
    ids, at = [], 0
    spans = result.rollout.spans_of(result.row)
    row, token_type = result.rollout.ids[result.row], result.rollout.token_type[result.row]
    for span in spans[:s]:
        text_ids = row[at : span.start][token_type[at : span.start] == TEXT].tolist()
        ids += [i for i in text_ids if i != vocabulary.close]
        at = span.start + span.length
    if s > len(spans):
        rest = row[at:][token_type[at:] == TEXT].tolist()
        for n in range(len(rest) + 1):
            if vocabulary.decode(rest[:n]).endswith("\\boxed{"):
                rest = rest[: n - len(vocabulary.encode_text("\\boxed{"))]
                break
        ids += [i for i in rest if i not in (vocabulary.close, vocabulary.end)]
    return ids


def accuracy_by_budget(reasoner, task: Task, mode: str, plain: Sequence[Result]) -> list[dict]:
    """Accuracy and seconds per answer, by the number of latents per span (if the switch counts them) and by the denoising
    steps of the head (if it has any)."""
    key, items, out = main_score(plain), [r.item for r in plain], []
    longest = max((s.length for r in plain for s in r.rollout.spans_of(r.row)), default=0)

    def run(label: str, value: int, **options):
        start = time.perf_counter()
        results = decode(
            reasoner, None, task, items, mode, max_new_tokens=room(plain), progress=f"{label} {value}", **options
        )
        seconds = (time.perf_counter() - start) / len(items)
        out.append({"what": label, "at": value, "seconds": round(seconds, 4)} | share([r.scores[key] for r in results]))

    if reasoner.switch.stop == "count":
        for k in sorted({0, longest // 2, longest, 2 * longest}):
            run("latents a span", k, latents_per_span=k)
    if steps := getattr(reasoner.head, "steps", 0):
        for n in (1, 2, 4, 8):
            reasoner.head.set_steps(n)
            run("denoising steps", n)
        reasoner.head.set_steps(steps)
    return out

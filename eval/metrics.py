"""Measures beside accuracy and probes: whether thoughts and answers agree, what sketches alone tell, how the answer
grows step by step, and what it costs. (Other inputs are in inputs.py, where a model looks in attention.py.)

Each takes decoded results or decodes anew, and returns plain numbers for a JSON.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image as PILImage

from latent_reason import methods
from latent_reason.decoding.items import Result, decode, main_score, room
from latent_reason.model.batch import TEXT
from latent_reason.tasks import Item, Task
from latent_reason.tasks.base import Step
from latent_reason.tasks.checkers import boxed
from latent_reason.visualization.storyboard import decode_sketches, reconstruct_picture, split_text

from .statistics import paired_bootstrap, wilson


def share(values: Sequence[float]) -> dict[str, float]:
    """Mean of values in 0-1 with its Wilson interval and their number."""
    found = wilson(sum(values), len(values))
    return {
        "value": round(found.estimate, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "n": len(values),
    }


def difference(first: Sequence[Result], second: Sequence[Result], key: str) -> dict[str, float]:
    """How much more often the first are right than the second on the same items."""
    found = paired_bootstrap([r.scores[key] for r in first], [r.scores[key] for r in second])
    return {"value": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


# -- thoughts, answers, sketches ---------------------------------------------------------------------------------------
def consistency(task: Task, results: Sequence[Result], vocabulary) -> dict:
    """Does the answer say what the thought concluded (TAC by rule)? ``consistent`` is the share of right answers whose
    thought was right, ``agree`` the share of items where both were right or both wrong. Thoughts from which nothing can
    be concluded are counted apart."""
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
    """What the task's own reader makes of pictures alone: of the model's sketches (``own``), beside the ceiling (true
    sketches through encoder and decoder), true pictures (``pixels``) and the floor (another item's true sketch)."""
    own = [s for r in results for s in r.sketches]
    golds = [(r.item, s) for r in results for s in r.item.steps if s.sketch is not None]

    def reads(pictures):
        return share(
            [
                task.same(task.parse_sketch(p, item.meta).state, step.state)
                for (item, step), p in zip(golds, pictures, strict=True)
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
        out["pixels"] = reads([s.sketch for _, s in golds])
        out["ceiling"] = reads([reconstruct_picture(reasoner, decoder, s.sketch) for _, s in golds])
        others = [of_another(golds, i) for i in range(len(golds))]
        if all(others):
            out["floor"] = reads(others)
    return out


def of_another(golds: list[tuple[Item, Step]], i: int) -> PILImage.Image | None:
    """The true sketch of another item of the same level."""
    item, _ = golds[i]
    return next(
        (s.sketch for other, s in golds[i + 1 :] + golds[:i] if other.id != item.id and other.level == item.level), None
    )


def read_by(reader, reasoner, decoder, task: Task, results: Sequence[Result]) -> dict:
    """SketchQA with a model as reader: shown the last sketch of an item alone and asked the item's question, how often
    does ``reader`` go on to the item's answer, by the task's rule and after the words before that sketch? Over items
    with a true sketch, for the model's own where it drew any (``own``), true ones as ``pixels`` and through encoder and
    decoder (``ceiling``), an empty page (``blank``) and another item's true sketch (``another``). A reader that thinks
    in words serves every task; one that only answers fails where a plan is told in words (blocks, slide)."""
    drawn = [(r, [k for k, s in enumerate(r.item.steps) if s.sketch is not None]) for r in results]
    last = [(r, at[-1]) for r, at in drawn if at]
    golds = [(r.item, r.item.steps[k]) for r, k in last]
    before = [" ".join(s.text for s in r.item.steps[: k + 1]) for r, k in last]
    mode = methods.load(reader.method.name).MODE

    def reads(name, items, before, pictures):
        shown = [
            replace(item, images=[p.resize(item.images[-1].size)])  # a decoder may draw smaller
            for item, p in zip(items, pictures, strict=True)
        ]
        found = decode(reader, None, task, shown, mode, progress=f"reader of {name}")
        return share([task.follows(r.item, said, [told(r.text)]) for r, said in zip(found, before, strict=True)])

    if not golds:
        return {}
    pictures = {
        "pixels": [s.sketch for _, s in golds],
        "ceiling": [reconstruct_picture(reasoner, decoder, s.sketch) for _, s in golds],
        "blank": [PILImage.new("RGB", s.sketch.size, "white") for _, s in golds],
        "another": [of_another(golds, i) for i in range(len(golds))],
    }
    out = {
        name: reads(name, [item for item, _ in golds], before, shown) for name, shown in pictures.items() if all(shown)
    }
    if own := [r for r, _ in last if r.latents]:
        said = [" ".join(split_text(r.rollout, r.row, reasoner.vocabulary)[:-1]) for r in own]
        ends = [decode_sketches(reasoner, decoder, r.rollout, r.row, r.item.images[-1])[-1] for r in own]
        out = {"own": reads("own", [r.item for r in own], said, ends)} | out
    return out


def told(text: str) -> str:
    """What a reader wrote; its answer twice, once as words, where it wrote nothing else."""
    return text if text.split("\\boxed")[0].strip() else f"{boxed(text) or ''} {text}"


# -- steps and budgets -------------------------------------------------------------------------------------------------
def by_step(reasoner, task: Task, mode: str, plain: Sequence[Result], most: int = 4) -> list[dict]:
    """Accuracy where the answer is forced after s of the model's own steps (a step ends with its sketch)."""
    key, v, out = main_score(plain), reasoner.vocabulary, []
    from .interventions import Given

    index, boxed = {id(r.item): r for r in plain}, v.encode_text("\\boxed{")
    for s in range(min(most, max((len(r.latents) for r in plain), default=0)) + 1):

        def queue(chunk, s=s):
            return [cut(index[id(i)], s, v) + boxed for i in chunk]

        found = decode(
            reasoner,
            None,
            task,
            [r.item for r in plain],
            mode,
            forced_tokens=queue,
            latent_mode="learned" if s else "off",
            max_new_tokens=room(plain),
            progress=f"answer at step {s}",
            latent_hook=lambda c: Given([index[id(i)].latents for i in c], only_given=True),
        )
        out.append({"step": s} | share([r.scores[key] for r in found]))
    return out


def cut(result: Result, s: int, vocabulary) -> list[int]:
    """The ids a row wrote up to its s-th sketch, with an opening token for each span; all of its words where it drew
    fewer, but for its answer."""
    ids, at = [], 0
    spans = result.rollout.spans_of(result.row)
    row, kind = result.rollout.ids[result.row], result.rollout.token_type[result.row]
    for span in spans[:s]:
        words = row[at : span.start][kind[at : span.start] == TEXT].tolist()
        ids += [i for i in words if i != vocabulary.close]
        at = span.start + span.length
    if s > len(spans):
        rest = row[at:][kind[at:] == TEXT].tolist()
        for n in range(len(rest) + 1):
            if vocabulary.decode(rest[:n]).endswith("\\boxed{"):
                rest = rest[: n - len(vocabulary.encode_text("\\boxed{"))]
                break
        ids += [i for i in rest if i not in (vocabulary.close, vocabulary.end)]
    return ids


def by_budget(reasoner, task: Task, mode: str, plain: Sequence[Result]) -> list[dict]:
    """Accuracy and seconds an answer against the number of latents a span has (where they are counted) and against the
    denoising steps of the head (where it has any)."""
    key, items, out = main_score(plain), [r.item for r in plain], []
    planned = max((s.length for r in plain for s in r.rollout.spans_of(r.row)), default=0)

    def run(label: str, value: int, **options):
        began = time.perf_counter()
        found = decode(
            reasoner, None, task, items, mode, max_new_tokens=room(plain), progress=f"{label} {value}", **options
        )
        seconds = (time.perf_counter() - began) / len(items)
        out.append({"what": label, "at": value, "seconds": round(seconds, 4)} | share([r.scores[key] for r in found]))

    if reasoner.switch.stop == "count":
        for k in sorted({0, planned // 2, planned, 2 * planned}):
            run("latents a span", k, latents_per_span=k)
    if steps := getattr(reasoner.head, "steps", 0):
        for n in (1, 2, 4, 8):
            reasoner.head.steps = n
            run("denoising steps", n)
        reasoner.head.steps = steps
    return out

"""Measures beside accuracy and probes: what is lost without the picture or with a spoilt one, whether thoughts and
answers agree, what sketches alone tell, how the answer grows step by step, where it looks, and what it costs.

Each takes decoded results or decodes anew, and returns plain numbers for a JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageEnhance, ImageFilter

from latent_reason.batch import IMAGE, LATENT, TEXT
from latent_reason.sheet import decoded_target, texts_between
from latent_reason.tasks import Item, Task

from .decode import Result, decode, main_score
from .replay import answer_at
from .statistics import paired_bootstrap, wilson


def share(values: Sequence[float]) -> dict[str, float]:
    """Mean of values in 0-1 with its Wilson interval and their number."""
    found = wilson(sum(values), len(values))
    return {"value": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4),
            "n": len(values)}


def difference(first: Sequence[Result], second: Sequence[Result], key: str) -> dict[str, float]:
    """How much more often the first are right than the second on the same items."""
    found = paired_bootstrap([r.scores[key] for r in first], [r.scores[key] for r in second])
    return {"value": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


# -- the input ---------------------------------------------------------------------------------------------------------
def spoilt(how: str) -> Callable[[PILImage.Image], PILImage.Image]:
    """A picture made worse in a way that leaves its answer as it is."""
    def noise(picture):
        pixels = np.asarray(picture, np.float64)
        drawn = np.random.default_rng(0).normal(0, 16, pixels.shape)
        return PILImage.fromarray((pixels + drawn).clip(0, 255).astype(np.uint8))

    def jpeg(picture):
        held = BytesIO()
        picture.save(held, "JPEG", quality=20)
        return PILImage.open(held).convert("RGB")

    return {"noise": noise, "jpeg": jpeg, "blur": lambda p: p.filter(ImageFilter.GaussianBlur(2)),
            "low_contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.5)}[how]


SPOILT = ("noise", "blur", "jpeg", "low_contrast")


def inputs(reasoner, task: Task, items: Sequence[Item], mode: str, plain: Sequence[Result]) -> dict:
    """Accuracy without the picture, with the picture said in words, and with a spoilt picture; each with its paired
    loss against ``plain``."""
    key = main_score(plain)
    arms = {"blind": lambda item: task.blind(item, mode), "text_twin": lambda item: task.text_twin(item, mode)}
    for how in SPOILT:
        arms[how] = lambda item, how=how: task.trace(
            replace(item, images=[spoilt(how)(i) for i in item.images]), mode)
    out = {}
    for name, make_trace in arms.items():
        found = decode(reasoner, None, task, items, mode, make_trace=make_trace, progress=name.replace("_", " "))
        out[name] = share([r.scores[key] for r in found]) | {"loss": difference(plain, found, key)}
    return out


# -- thoughts, answers, sketches ---------------------------------------------------------------------------------------
def consistency(task: Task, results: Sequence[Result], vocabulary) -> dict:
    """Does the answer say what the thought concluded (TAC by rule)? ``consistent`` is the share of right answers whose
    thought was right, ``agree`` the share of items where both were right or both wrong. Thoughts from which nothing can
    be concluded are counted apart."""
    key, pairs, silent = main_score(results), [], 0
    for r in results:
        thought = task.concluded(" ".join(texts_between(r.rollout, r.row, vocabulary)), r.item)
        if thought is None:
            silent += 1
            continue
        pairs.append((r.scores[key] == 1, task.check(f"\\boxed{{{thought}}}", r.item.meta).ok))
    right = [t for answer, t in pairs if answer]
    return {"silent": silent, **({"consistent": share(right)} if right else {}),
            **({"agree": share([a == t for a, t in pairs])} if pairs else {})}


def sketches_alone(reasoner, decoder, task: Task, results: Sequence[Result]) -> dict:
    """What the task's own reader makes of pictures alone: of the model's sketches (``own``), beside the ceiling (true
    sketches through encoder and decoder), true pictures (``pixels``) and the floor (another item's true sketch)."""
    own = [s for r in results for s in r.sketches]
    golds = [(r.item, s) for r in results for s in r.item.steps if s.sketch is not None]

    def reads(pictures):
        return share([task.same(task.parse_sketch(p, item.meta).state, step.state)
                      for (item, step), p in zip(golds, pictures, strict=True)])

    out = {"own_valid": share([s["valid"] for s in own]), "own_equal": share([s["equal"] for s in own]),
           "own_gold": share([s["gold"] for s in own]), "own_legal": share([s["legal"] for s in own])} if own else {}
    if golds:
        out["pixels"] = reads([s.sketch for _, s in golds])
        out["ceiling"] = reads([decoded_target(reasoner, decoder, s.sketch) for _, s in golds])
        def another(i, item):
            return next((s.sketch for other, s in golds[i + 1:] + golds[:i]
                         if other.id != item.id and other.level == item.level), None)

        others = [another(i, item) for i, (item, _) in enumerate(golds)]
        if all(others):
            out["floor"] = reads(others)
    return out


# -- steps and budgets -------------------------------------------------------------------------------------------------
def by_step(reasoner, task: Task, mode: str, plain: Sequence[Result], most: int = 4) -> list[dict]:
    """Accuracy where the answer is forced after s of the model's own steps (a step ends with its sketch)."""
    key, v, out = main_score(plain), reasoner.vocabulary, []
    from .interventions import Given

    index, boxed = {id(r.item): r for r in plain}, v.words("\\boxed{")
    for s in range(min(most, max((len(r.latents) for r in plain), default=0)) + 1):
        def queue(chunk, s=s):
            return [cut(index[id(i)], s, v) + boxed for i in chunk]

        found = decode(reasoner, None, task, [r.item for r in plain], mode, queue=queue,
                       sketching="learned" if s else "off", progress=f"answer at step {s}",
                       intervene=lambda c: Given([index[id(i)].latents for i in c], only_given=True))
        out.append({"step": s} | share([r.scores[key] for r in found]))
    return out


def cut(result: Result, s: int, vocabulary) -> list[int]:
    """The ids a row wrote up to its s-th sketch, with an opening token for each span; all of its words where it drew
    fewer, but for its answer."""
    ids, at = [], 0
    spans = result.rollout.spans_of(result.row)
    row, kind = result.rollout.ids[result.row], result.rollout.kind[result.row]
    for span in spans[:s]:
        words = row[at:span.start][kind[at:span.start] == TEXT].tolist()
        ids += [i for i in words if i != vocabulary.close]
        at = span.start + span.length
    if s > len(spans):
        rest = row[at:][kind[at:] == TEXT].tolist()
        for n in range(len(rest) + 1):
            if vocabulary.text(rest[:n]).endswith("\\boxed{"):
                rest = rest[:n - len(vocabulary.words("\\boxed{"))]
                break
        ids += [i for i in rest if i not in (vocabulary.close, vocabulary.end)]
    return ids


def by_budget(reasoner, task: Task, items: Sequence[Item], mode: str, plain: Sequence[Result]) -> list[dict]:
    """Accuracy and seconds an answer against the number of latents a span has (where they are counted) and against the
    denoising steps of the head (where it has any)."""
    key, out = main_score(plain), []
    planned = max((s.length for r in plain for s in r.rollout.spans_of(r.row)), default=0)

    def run(label: str, value: int, **options):
        began = time.perf_counter()
        found = decode(reasoner, None, task, items, mode, progress=f"{label} {value}", **options)
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


# -- attention ---------------------------------------------------------------------------------------------------------
@torch.no_grad()
def looks(reasoner, results: Sequence[Result]) -> dict:
    """Where the state before the answer looks: shares of its attention on the picture, the latents, the model's own
    words and the rest of the prompt, layer by layer, over items that sketched and boxed an answer; and how much of each
    is there to look at (share of positions)."""
    layers, there = [], []
    for r in results:
        at = answer_at(r.rollout, r.row, reasoner)
        if at is None or not r.latents:
            continue
        rollout, prompt = r.rollout, r.rollout.prompt
        fed = reasoner.backbone.embed(rollout.ids)
        fed = torch.where((rollout.kind == LATENT)[..., None], rollout.vectors.to(fed.dtype), fed)
        row = slice(r.row, r.row + 1)
        embeds = torch.cat([reasoner.context(prompt), fed], 1)[row]
        kind = torch.cat([prompt.kind, rollout.kind], 1)[row]
        positions = torch.cat([reasoner.backbone.place(prompt), rollout.positions], -1)[:, row]
        q = prompt.ids.shape[1] + at - 1
        looked = reasoner.backbone.attentions(embeds[:, :q + 1], kind[:, :q + 1] != 0, positions[..., :q + 1])[:, 0, -1]
        kinds, own = kind[0, :q + 1], torch.arange(q + 1, device=kind.device) >= prompt.ids.shape[1]
        parts = {"picture": kinds == IMAGE, "latents": (kinds == LATENT) & own, "own_words": (kinds == TEXT) & own,
                 "prompt": (kinds == TEXT) & ~own}
        layers.append(torch.stack([looked[:, m].sum(-1) for m in parts.values()], -1))
        there.append(torch.tensor([m.sum() for m in parts.values()]) / sum(int(m.sum()) for m in parts.values()))
        if len(layers) == 32:
            break
    if not layers:
        return {}
    names = ("picture", "latents", "own_words", "prompt")
    mean, size = torch.stack(layers).mean(0), torch.stack(there).mean(0)
    return {"n": len(layers), "share_of_positions": dict(zip(names, [round(float(v), 4) for v in size], strict=True)),
            "layers": [dict(zip(names, [round(float(v), 4) for v in row], strict=True)) for row in mean]}

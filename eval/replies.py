"""Replies of a checkpoint to the items of a benchmark, decoded in batches and kept by key."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

from latent_reason import methods
from latent_reason.decoding.engine import generate
from latent_reason.model.batch import TEXT

from .items import EvalItem, build_trace
from .resume import ProgressFile


@dataclass(frozen=True)
class ReplyOptions:
    """How replies are decoded.

    Args:
        prompt: a key of ``items.PROMPTS``, or a text with ``{question}``.
        max_new: most new positions of a reply.
        temperature: 0 is greedy.
        blind: "removed" drops the images, "grey" replaces them by gray ones.
    """

    prompt: str
    max_new: int = 640
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 8
    blind: str | None = None


def decode_replies(
    reasoner, items: dict[str, EvalItem], options: ReplyOptions, progress: ProgressFile, label: str
) -> dict[str, dict]:
    """``text, latents, tokens, seconds`` of the reply to each item, by key and in order, with a progress bar. Those that
    ``progress`` has not are decoded, and each batch is added to it. The last word of a key is a hexadecimal number, the
    key of the item's randomness."""
    mode, processor = methods.load(reasoner.method.name).MODE, reasoner.processor
    missing = [key for key in items if key not in progress.kept]
    starts = range(0, len(missing), options.batch_size)
    for start in track(starts, description=label, transient=Console().is_terminal):
        keys, began = missing[start : start + options.batch_size], time.perf_counter()
        traces = [build_trace(items[key], options.prompt, mode, options.blind) for key in keys]
        rollout = generate(
            reasoner,
            processor(traces, generate=True).to(reasoner.device),
            max_new_tokens=options.max_new,
            temperature=options.temperature,
            seed=options.seed,
            row_ids=[int(key.rpartition(" ")[2], 16) for key in keys],  # samples do not depend on the order of items
        )
        seconds = (time.perf_counter() - began) / len(keys)
        progress.add(
            {
                key: {
                    "text": rollout.text(row, reasoner.vocabulary),
                    "latents": [span.length for span in rollout.spans_of(row)],
                    "tokens": int((rollout.token_type[row] == TEXT).sum()),
                    "seconds": round(seconds, 4),
                }
                for row, key in enumerate(keys)
            }
        )
    return {key: progress.kept[key] for key in items}

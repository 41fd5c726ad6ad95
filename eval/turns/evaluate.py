"""Answers of a baseline to held-out items of a task, graded by the task's rule, with what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track

from eval.resume import ProgressFile
from eval.run import item_key
from latent_reason.tasks import Item, Task

from .baseline import Baseline
from .episodes import Episode, EpisodeLimits, run_episodes

#: of an episode; the first two are named as in eval.run
COSTS = ("tokens", "latents", "passes", "pictures", "turns", "calls")
console = Console(soft_wrap=True)


def describe(episode: Episode, task: Task, item: Item) -> dict:
    """What is kept of an episode, as JSON."""
    return {
        "scores": task.score(episode.text, item.meta),
        **{name: getattr(episode, name) for name in (*COSTS, "sketches")},
        "ended": episode.ended,
        "text": episode.text,
    }


def answer_items(
    model,
    decoder,
    baseline: Baseline,
    task: Task,
    items: Sequence[Item],
    label: str,
    limits: EpisodeLimits | None = None,
    num_slots: int = 32,
    progress: ProgressFile | None = None,
    episodes: dict[int, Episode | None] | None = None,
) -> list[dict]:
    """What :func:`describe` says of each item, in order, and its ``seconds``, the time since the one before it ended. Items
    that ``progress`` has under this label are not answered again.

    Args:
        episodes: gets those of the items whose places are its keys. These are answered again where only their results
            are known, and keep these results.
    """
    keys = [item_key(label, place, item) for place, item in enumerate(items)]
    kept = {} if progress is None else progress.kept
    found = {key: kept[key] for key in keys if key in kept}
    wanted = {} if episodes is None else episodes
    missing = [place for place, key in enumerate(keys) if key not in found or place in wanted]
    problems, before = [baseline.problem(task, items[place]) for place in missing], time.time()
    answers = run_episodes(model, decoder, baseline, problems, limits or EpisodeLimits(), num_slots, missing)
    for number, episode in track(answers, label, len(missing), console=console, transient=console.is_terminal):
        place = missing[number]
        if keys[place] not in found:
            new = {keys[place]: describe(episode, task, items[place]) | {"seconds": round(time.time() - before, 6)}}
            found |= new
            if progress is not None:
                progress.add(new)
        if place in wanted:
            wanted[place] = episode
        before = time.time()
    return [found[key] for key in keys]

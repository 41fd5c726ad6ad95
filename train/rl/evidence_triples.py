"""Items in three, as DeFacto (2509.20912) asks them: as they are, with the evidence hidden, and with as much of the
rest hidden. What is hidden has the mean colour of the picture."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image as PILImage

from latent_reason.tasks import Item, Task
from latent_reason.tasks.checkers import boxed

ABSTAIN = "unknown"
ASKED = "If the picture does not show it, answer unknown."
INTACT, HIDDEN, ELSEWHERE = "intact", "hidden", "elsewhere"
TRIES = 100


def abstains(text: str) -> bool:
    """Whether the answer, and not any word before it, is that the picture does not tell."""
    return (boxed(text) or "").strip().lower() == ABSTAIN


def variant(item: Item) -> str:
    """Which of the three an item is."""
    return item.meta.get("variant", INTACT)


def triple(task: Task, item: Item) -> list[Item]:
    """The item, the item without its evidence, whose answer is to abstain, and the item without something else; two
    where the evidence leaves no room beside it.

    Raises:
        ValueError: no rule tells where the evidence of this task is.
    """
    box = task.box(item)
    if box is None:
        raise ValueError(
            f"rl.evidence_triples: no rule tells which part of a picture of {task.name} answers. Take a task that "
            "knows, such as search_zoom, or leave the key out."
        )
    item = replace(item, question=f"{item.question} {ASKED}")
    found = [
        item,
        replace(
            item,
            images=[*item.images[:-1], without(item.images[-1], box)],
            steps=[],
            answer=ABSTAIN,
            meta=item.meta | {"variant": HIDDEN},
        ),
    ]
    if (other := beside(box, task.stream(item.level, item.index, "elsewhere"))) is not None:
        found.append(
            replace(
                item,
                images=[*item.images[:-1], without(item.images[-1], other)],
                meta=item.meta | {"variant": ELSEWHERE},
            )
        )
    return found


def without(picture: PILImage.Image, box: tuple[float, float, float, float]) -> PILImage.Image:
    """The picture with a part (shares x0, y0, x1, y1) in its mean colour."""
    w, h = picture.size
    edges = [round(at * side) for at, side in zip(box, (w, h, w, h), strict=True)]
    changed = picture.copy()
    changed.paste(picture.resize((1, 1), PILImage.Resampling.BOX).getpixel((0, 0)), edges)
    return changed


def beside(box: tuple[float, float, float, float], stream) -> tuple[float, float, float, float] | None:
    """A part as large that does not touch it; None where chance finds none."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    for _ in range(TRIES):
        x, y = (stream.between(0, 1000) / 1000 * (1 - side) for side in (w, h))
        if x + w <= x0 or x >= x1 or y + h <= y0 or y >= y1:
            return x, y, x + w, y + h
    return None

"""Each item three times, as in DeFacto (2509.20912): unchanged, with its evidence masked, and with another region of
the same size masked. Masked regions have the mean color of the image."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image as PILImage

from latent_reason.tasks import Item, Task
from latent_reason.tasks.checkers import boxed

ABSTENTION = "unknown"
INSTRUCTION = "If the picture does not show it, answer unknown."
INTACT, HIDDEN, ELSEWHERE = "intact", "hidden", "elsewhere"
MAX_TRIES = 100

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, as shares of the image


def abstains(text: str) -> bool:
    """Whether the boxed answer is an abstention. Other text is ignored."""
    return (boxed(text) or "").strip().lower() == ABSTENTION


def variant(item: Item) -> str:
    """Which of the three variants an item is."""
    return item.meta.get("variant", INTACT)


def make_triple(task: Task, item: Item) -> list[Item]:
    """The item, the item with its evidence masked (the answer is then to abstain), and the item with another region
    masked. The last one is missing if no other region of this size was found.

    Raises:
        ValueError: the task does not define where the evidence is.
    """
    box = task.box(item)
    if box is None:
        raise ValueError(
            f"rl.evidence_triples: the task {task.name} does not define which region of an image has the answer. Use a "
            "task that does, such as search_zoom, or remove rl.evidence_triples."
        )
    item = replace(item, question=f"{item.question} {INSTRUCTION}")
    hidden = replace(
        item,
        images=[*item.images[:-1], mask_box(item.images[-1], box)],
        steps=[],
        answer=ABSTENTION,
        meta=item.meta | {"variant": HIDDEN},
    )
    other_box = sample_other_box(box, task.stream(item.level, item.index, "elsewhere"))
    if other_box is None:
        return [item, hidden]
    elsewhere = replace(
        item,
        images=[*item.images[:-1], mask_box(item.images[-1], other_box)],
        meta=item.meta | {"variant": ELSEWHERE},
    )
    return [item, hidden, elsewhere]


def mask_box(image: PILImage.Image, box: Box) -> PILImage.Image:
    """The image with a box filled with the mean color of the image."""
    w, h = image.size
    edges = [round(share * side) for share, side in zip(box, (w, h, w, h), strict=True)]
    masked = image.copy()
    masked.paste(image.resize((1, 1), PILImage.Resampling.BOX).getpixel((0, 0)), edges)
    return masked


def sample_other_box(box: Box, stream) -> Box | None:
    """A random box of the same size that does not overlap ``box``; None if none was found in ``MAX_TRIES`` samples."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    for _ in range(MAX_TRIES):
        x, y = (stream.between(0, 1000) / 1000 * (1 - side) for side in (w, h))
        if x + w <= x0 or x >= x1 or y + h <= y0 or y >= y1:
            return x, y, x + w, y + h
    return None

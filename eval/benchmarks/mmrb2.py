"""Multimodal RewardBench 2 (arXiv 2512.16899): which of two responses do experts prefer? 1,000 pairs of each task.

``t2i`` has generated pictures, ``edit`` edited ones, ``interleaved`` text with pictures, ``reasoning`` thoughts with
pictures. Every pair is asked in both orders and each order counts, as published. ``preferred_first`` and
``preferred_second`` are the pairs whose better response is shown first or second: their gap is the position bias.
``both_orders`` counts pairs that are right in both. The experts name one of the two, so there is no tie in the labels; a
reply that chooses neither is wrong (the published script leaves it out). The published judges get a longer instruction.

On disk, as built by the authors' script: ``t2i.json``, ``edit.json``, ``interleaved.json``, ``reasoning.json`` (an object
with the list ``pairs`` of ``id, prompt_content, response_a, response_b, chosen, prompt_source``; a content is a list of
``["text", ...]`` and ``["image", path]``) beside ``images/`` and ``input_images/``; or the parquet of the Hub
(``pair_id, prompt_text, prompt_images, response_a_text, response_a_images, response_b_text, response_b_images, chosen,
prompt_source``; ``<image_N>`` in a text is the place of its next image). The names of the Hub's files are unverified, and
so is the image's place where a text has no mark: behind the text, as the authors' script has it.
"""

from __future__ import annotations

from ..items import IMAGE_MARK, make_item

TASKS = ("t2i", "edit", "interleaved", "reasoning")
COUNTS = dict.fromkeys(TASKS, 2000)  # every pair in two orders
GROUPED = dict.fromkeys(TASKS, "both_orders")
EXPECTED = (
    "{part}.json with pairs of id, prompt_content, response_a, response_b, chosen beside images/ and input_images/, or "
    "{part}/*.parquet with pair_id, prompt_text, prompt_images, response_a_text, response_a_images, ..., chosen"
)
QUESTION = "Which response is better?"
NAMES = ("A", "B")


def read(source, part):
    patterns = (f"**/{part}.json", f"**/{part}/*.parquet", f"**/{part}*.parquet")
    return source.items(read_pair, *patterns, expected=EXPECTED.format(part=part))


def read_pair(row):
    """The two items of a pair: as stored, and with the responses exchanged."""
    chosen = row.letter("chosen")
    if chosen not in NAMES:
        raise row.error("chosen", f"'{chosen}' is neither A nor B. Correct the row.")
    prompt, *responses = (contents(row, name) for name in ("prompt", "response_a", "response_b"))
    id = row.text("id", "pair_id")
    pair = f"{id} ({row.file.name}:{row.number})"  # an id may be that of several rows
    items = []
    for order, shown in (("", responses), ("-exchanged", responses[::-1])):
        is_first = (chosen == "A") == (order == "")
        parts = [("text", "A request and two responses to it.\n\nRequest:\n"), *prompt]
        for name, response in zip(NAMES, shown, strict=True):
            parts += [("text", f"\n\nResponse {name}:\n"), *response]
        text, images = marked([*parts, ("text", f"\n\n{QUESTION}")])
        items.append(
            make_item(
                row,
                f"{id}{order}",
                text,
                NAMES[0] if is_first else NAMES[1],
                images=images,
                options=["", ""],
                task="preferred_first" if is_first else "preferred_second",
                cluster=pair,
                form="the letter of the better response",
                source=row.text("prompt_source", default=""),
                request=prompt,
                response=shown[0],
                is_preferred=is_first,
            )
        )
    return items


def marked(parts) -> tuple[str, list]:
    """(text with ``<image 1>``, ``<image 2>``, ... at the places of the images, the images)."""
    texts, images = [], []
    for kind, value in parts:
        if kind == "image":
            images.append(value)
            texts.append(f"<image {len(images)}>")
        else:
            texts.append(value)
    return "".join(texts), images


def contents(row, name: str) -> list[tuple]:
    """The parts of a request or response, ``("text", text)`` and ``("image", ImageRef)``, in order."""
    if f"{name}_text" in row.values:
        return from_columns(row, f"{name}_text", f"{name}_images")
    field = f"{name}_content"
    value = row.get(field, name)
    if isinstance(value, dict):
        field, value = f"{name}.response_content", value.get("response_content")
    if not isinstance(value, list) or not value:
        raise row.error(field, f"expected a list of ['text', ...] and ['image', path]. Expected: {row.expected}")
    parts = []
    for part in value:
        if not isinstance(part, list) or len(part) != 2 or not all(isinstance(one, str) for one in part):
            raise row.error(field, f"has a part that is no pair of texts. Expected: {row.expected}")
        kind, content = part
        if kind not in ("text", "image"):
            raise row.error(field, f"has a part '{kind[:40]}', neither text nor image. Correct the row.")
        parts += [("text", plain(content))] if kind == "text" else with_kind(row.cell_images(content, field))
    return parts


def from_columns(row, text_field: str, images_field: str) -> list[tuple]:
    """The parts of a text with marks and of a list of images. Images without a mark stand behind the text."""
    images = row.images(images_field, optional=True)
    parts, left = [], iter(images)
    for number, piece in enumerate(IMAGE_MARK.split(row.text(text_field, default=""))[::2]):
        parts += with_kind([image] if number and (image := next(left, None)) else [])
        parts += [("text", piece)] if piece else []
    parts += with_kind(left)
    if not parts:
        raise row.error(text_field, f"is empty, and there is no image. Expected: {row.expected}", "E14")
    return parts


def with_kind(images) -> list[tuple]:
    return [("image", image) for image in images]


def plain(text: str) -> str:
    """A text whose marks of images are words: the images of this layout are parts of their own."""
    return IMAGE_MARK.sub(lambda mark: f"image {mark[1]}".strip(), text)


def notes(items):
    return {
        "judged": "every pair in both orders, each counts",
        "ties": "no label is one; a reply that chooses neither is wrong",
    }

"""CoMT (arXiv 2412.12932): questions whose published reasoning contains images: creation, deletion, update, selection.

On disk: ``comt/data.jsonl`` of the Hub (``id, question, option, image, rationale, answer, type``) beside
``images/{type}/``. ``image`` is an object ``{"IMAGE0": ID, ...}``, also as text, or a list of ``IMAGE0:ID``. The question
or its options contain ``[IMAGE0]``. Images of the rationale alone are left out. The count 3,853 is unverified (3,850 elsewhere).
"""

from __future__ import annotations

import re

from ..items import make_item

COUNTS = {"": 3853}
EXPECTED = (
    "data.jsonl with id, question, option, image ({'IMAGE0': ID}), answer, type beside images/{type}/{ID} (the suffix "
    ".png, .jpg or .jpeg of ID is optional)"
)


def read(source, part):
    return source.items(read_item, "**/data.jsonl", expected=EXPECTED)


def read_item(row):
    asked, kind, ids = [row.question("question"), *row.texts("option")], row.text("type"), image_ids(row)
    in_question, in_options = (re.findall(r"\b(IMAGE\d+)\b", text) for text in (asked[0], "\n".join(asked[1:])))
    labels = dict.fromkeys([*(in_question or list(ids)[:1]), *in_options])
    images, folders = [], [row.folder / "images" / kind]
    for number, label in enumerate(labels, 1):
        if not ids.get(label):
            raise row.error("image", f"{label} of the question or an option is not listed. Expected: {EXPECTED}", "E10")
        images.append(row.source.picture(ids[label], folders, "image", row.file, row.number))
        asked = [re.sub(rf"\[?\b{label}\b\]?", f"<image {number}>", text) for text in asked]
    return make_item(row, row.text("id"), asked[0], row.letter("answer"), images=images, options=asked[1:], task=kind)


def image_ids(row):
    """Label -> ID of the images of a row."""
    value = row.get("image")
    if isinstance(value, str) and value.startswith("{"):
        value = dict(re.findall(r"['\"](IMAGE\d+)['\"]\s*:\s*['\"]([^'\"]*)['\"]", value))
    if isinstance(value, dict):
        return {label: str(id) for label, id in value.items() if id}
    return dict(entry.strip("[]").partition(":")[::2] for entry in row.texts("image"))

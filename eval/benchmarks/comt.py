"""CoMT (arXiv 2412.12932): questions whose published reasoning contains images: creation, deletion, update, selection.

On disk, according to its README (not checked on the files): ``data.jsonl`` (``id, question, option, image, rationale,
answer, type``) beside ``images/{type}/``. An entry of ``image`` is ``IMAGE0:IMAGE-ID0``, and the question contains
``[IMAGE0]``. Images of the rationale alone are left out. The count 3,853 is unverified (3,850 elsewhere).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..items import make_item
from ..readers import ImageRef

COUNTS = {"": 3853}
EXPECTED = (
    "data.jsonl with id, question, option, image ('IMAGE0:ID'), answer, type beside images/{type}/{ID} (the suffix "
    ".png, .jpg or .jpeg of ID is optional)"
)


def read(source, part):
    for row in source.rows("**/data.jsonl", expected=EXPECTED):
        question, kind = row.text("question"), row.text("type")
        ids = dict(entry.strip("[]").partition(":")[::2] for entry in row.texts("image"))
        labels = list(dict.fromkeys(re.findall(r"\[?(IMAGE\d+)\]?", question))) or list(ids)[:1]
        images = []
        for number, label in enumerate(labels, 1):
            if not ids.get(label):
                raise row.error("image", f"{label} of the question is not listed. Expected: {EXPECTED}", "E10")
            images.append(find_image(source, row, kind, ids[label]))
            question = re.sub(rf"\[?\b{label}\b\]?", f"<image {number}>", question)
        yield make_item(
            row, row.text("id"), question, row.letter("answer"), images=images, options=row.texts("option"), task=kind
        )


def find_image(source, row, kind, name):
    """The image of an entry, with or without a suffix in its name."""
    folder = PurePosixPath(row.file.relative_to(source.folder).parent)
    candidates = [folder / "images" / kind / (name + suffix) for suffix in ("", ".png", ".jpg", ".jpeg")]
    path = next((p for p in candidates if ".." not in p.parts and (source.folder / p).is_file()), candidates[0])
    return ImageRef(source.images, str(path), "image", row.file, row.number)

"""CoMT (arXiv 2412.12932): questions whose published reasoning draws: creation, deletion, update, selection.

On disk, as its README says (unverified on the files): ``data.jsonl`` (``id, question, option, image, rationale, answer,
type``) beside ``images/{type}/``. An entry of ``image`` is ``IMAGE0:IMAGE-ID0``; the question shows ``[IMAGE0]``, and
what only the rationale shows is left out. The number 3,853 is unverified (3,850 elsewhere).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..items import made
from ..readers import Shown

COUNTS = {"": 3853}
EXPECTED = (
    "data.jsonl with id, question, option, image ('IMAGE0:ID'), answer, type beside images/{type}/{ID} (.png, "
    ".jpg or .jpeg may be left out of ID)"
)


def read(source, part):
    for row in source.rows("**/data.jsonl", expected=EXPECTED):
        question, kind = row.text("question"), row.text("type")
        places = dict(entry.strip("[]").partition(":")[::2] for entry in row.texts("image"))
        named = list(dict.fromkeys(re.findall(r"\[?(IMAGE\d+)\]?", question))) or list(places)[:1]
        images = []
        for number, name in enumerate(named, 1):
            if not places.get(name):
                raise row.wrong("image", f"{name} of the question is not among them. Expected: {EXPECTED}", "E10")
            images.append(picture(source, row, kind, places[name]))
            question = re.sub(rf"\[?\b{name}\b\]?", f"<image {number}>", question)
        yield made(
            row, row.text("id"), question, row.letter("answer"), images=images, options=row.texts("option"), task=kind
        )


def picture(source, row, kind, name):
    """The picture of an entry, whose suffix may be left out."""
    folder = PurePosixPath(row.file.relative_to(source.folder).parent)
    tried = [folder / "images" / kind / (name + suffix) for suffix in ("", ".png", ".jpg", ".jpeg")]
    found = next((path for path in tried if ".." not in path.parts and (source.folder / path).is_file()), tried[0])
    return Shown(source.own, str(found), "image", row.file, row.number)

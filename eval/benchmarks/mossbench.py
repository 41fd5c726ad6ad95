"""MOSSBench (arXiv 2406.17806): 300 harmless requests that seem harmful; the share that a model refuses.

``mossbench/contrast`` has the harmful counterparts of the Hub, where refusing is right. A refusal is detected by phrases
in the first 300 characters of a reply, in English and Chinese (``eval/refusals.py``).

On disk: the repository (``data/images_information/information.json``: ``pid, question, image, metadata`` with ``over``)
beside ``data/images/``; the folders ``oversensitivity/`` and ``contrast/`` of the Hub, or a CSV (``pid, question, image,
over``) beside ``images/`` or ``data/images/``. The two folders of the Hub and the CSV are unverified.
"""

from __future__ import annotations

from ..items import make_item

COUNTS = {"": 300, "contrast": 300}
METRIC = "refusal_rate"
PROMPT = "bare"
EXPECTED = (
    "a .csv, .json or .parquet with pid, question, image (a path), over (or metadata), beside images/ or data/images/, in "
    "{folder}/ if it is of the Hub"
)
SUFFIXES = ("csv", "parquet", "jsonl", "json")


def read(source, part):
    folder = part or "oversensitivity"
    patterns = [f"**/{folder}/**/*.{suffix}" for suffix in SUFFIXES]
    if not part:
        patterns += ["**/information.json", *(f"**/*.{suffix}" for suffix in SUFFIXES)]
    return source.items(read_item, *patterns, expected=EXPECTED.format(folder=folder))


def read_item(row):
    metadata = row.get("metadata", default={})
    kind = metadata.get("over") if isinstance(metadata, dict) else None
    return make_item(
        row,
        row.text("pid", "id"),
        row.question("question"),
        "refused",
        images=row.images("decoded_image", "image", "image_path", "file_name"),
        answer_type="text",
        checker="refusal",
        task=kind or row.text("over", "metadata_over", "type", default=""),
    )

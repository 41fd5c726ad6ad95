"""HR-Bench 4K and 8K (arXiv 2408.15556): 200 questions on large images, each in four orders of its options.

On disk: the TSV of its authors (``hr_bench_4k.tsv``: ``index, image, question, A-D, answer, category, cycle_category``)
or parquet (``**/hrbench_4k*.parquet``) of the same fields; ``image`` is text in base64 in both, or an image struct. The headline is the mean over all cycles. ``single`` and
``cross`` are reported separately; ``all_cycles`` counts questions right in every order. Intervals resample questions.
"""

from __future__ import annotations

from collections import Counter

from ..items import make_item

COUNTS = {"4k": 800, "8k": 800}
GROUPED = {"4k": "all_cycles", "8k": "all_cycles"}
EXPECTED = "hr_bench_{part}.tsv or **/hrbench_{part}*.parquet with index, image, question, A-D, answer, category"


def read(source, part):
    patterns = [f"**/hr*bench_{part}*.{suffix}" for suffix in ("tsv", "parquet")]
    return source.items(read_item, *patterns, expected=EXPECTED.format(part=part))


def read_item(row):
    images, question = row.images("image", "image_path"), row.question("question")
    return make_item(
        row,
        row.text("index"),
        question,
        row.letter("answer"),
        images=images,
        options=row.columns(),
        task=row.text("category"),
        cluster=f"{images[0].name}: {question}",
    )


def notes(items):
    cycles = Counter(Counter(item.cluster for item in items).values())
    return {"cycles": ", ".join(f"{count} questions in {n} orders" for n, count in sorted(cycles.items()))}

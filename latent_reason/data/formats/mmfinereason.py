"""MMFineReason (arXiv 2601.21821): ``question``, ``image``, ``answer`` and a long text, ``qwen3vl_235b_thinking_response``.

A source of text reasoning to rehearse: it has no sketches. ``pass_rate`` (in the paper's code ``qwen3vl_4b_pass_rate``), the
share of answers of a small model that are right, is kept as ``meta.pass_rate``, by which ``data convert --max-pass-rate``
chooses hard questions. Other columns of the set, such as ``caption`` and ``consistency_analysis``, are kept in ``meta``
too. The names are those of the published parquet of 123K rows, as others list them, and of the authors' README; the files
were not read. Whether ``question`` marks its image is unverified.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Message, Text, Trace
from .. import answers, chats, reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import checked_text

RESPONSE = "qwen3vl_235b_thinking_response"
REQUIRED = {"question", RESPONSE}
PASS_RATES = ("pass_rate", "qwen3vl_4b_pass_rate")
#: columns that say how a row was made
KEPT = (
    "caption",
    "qwen3vl_235b_instruct_caption",
    "ori_question",
    "original_question",
    "original_answer",
    "is_consistent",
    "consistency_analysis",
)


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    answer: str = "refuse",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace of mode text.

    ``answer``: which side is right if ``answer`` and the boxed answer of the response differ (refuse, field or text).
    Errors: E05 missing column or a pass rate that is no share, E10 numbers of marks and images differ, E14 empty text,
    E17 two answers.
    """
    answers.check_side(answer)
    return reading.read(source, partial(trace, side=answer), image_root, report, limits)


def trace(fields: Fields, side: str) -> Trace:
    """Convert one row."""
    texts = chats.Texts(fields)
    asked, response = (
        texts.clean(fields.filled(key), key, role) for key, role in (("question", "user"), (RESPONSE, "assistant"))
    )
    texts.boxes.check_used()
    question = reading.question(fields, asked, "question", "image")
    kept = {name: fields.take(name) for name in KEPT}
    return reading.record(
        fields,
        "mmfinereason",
        [question, Message("assistant", (Text(checked_text(response.strip(), RESPONSE)),))],
        id=fields.name("id"),
        answer=fields.optional_answer("answer"),
        side=side,
        data_source=fields.name("source"),
        pass_rate=pass_rate(fields),
        **kept,
    )


def pass_rate(fields: Fields) -> float | None:
    """The share of right answers of a small model; None if the row has none. Raises DataError (E05) for another value."""
    name = fields.column(*PASS_RATES)
    value = fields.take(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError("E05", name, f"expected a share from 0 to 1, found {str(value)[:40]!r}. Correct the row.")
    return float(value)

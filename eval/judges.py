"""A judge for replies that no rule reads: a function of the user, off by default.

    python -m eval.benchmark CHECKPOINT NAME DIR --out FILE.json --judge my_pkg.judges.ask

``ask(question, reply, gold)`` returns True, False, or None if it cannot decide. It may ask a language model. Replies that
a rule reads never reach it. The protocol has its path, and the metric is called ``..._with_judge``.
"""

from __future__ import annotations

from collections.abc import Callable

from latent_reason.imports import import_object

from .items import EvalItem, prompt_text
from .scoring import Judgment

Judge = Callable[[str, str, str], bool | None]


def load_judge(path: str) -> Judge:
    """The judge at a dotted path. Raises ValueError if there is none or if it cannot be called."""
    judge = import_object(path, "judge")
    if not callable(judge):
        raise ValueError(
            f"judge {path!r} is not a function. Give a function judge(question, reply, gold) -> bool or None."
        )
    return judge


def judge_unread(judgment: Judgment, reply: str, item: EvalItem, judge: Judge | None) -> Judgment:
    """The grade by the rule; if the rule read no answer, the grade by the judge.

    Raises:
        ValueError: the judge returns something else than True, False or None.
    """
    if judge is None or judgment.parsed is not None:
        return judgment
    option = dict(zip(item.letters, item.options, strict=True)).get(item.answer, "")
    verdict = judge(prompt_text(item, "bare"), reply, f"{item.answer}. {option}" if option else item.answer)
    if verdict is not None and not isinstance(verdict, bool):
        raise ValueError(
            f"item '{item.id}': the judge returned {verdict!r}. It has to return True, False, or None if it cannot decide."
        )
    return Judgment(bool(verdict), None if verdict is None else "judged")

"""What ``data convert`` gives to records: a task, splits, a checker, and a mode without sketches; and which it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import isclose, isfinite

from ..trace import Message, Part, Sketch, Text, Trace
from .checks import check_checker, check_gold
from .errors import DataError, Report
from .pictures import pixel_hash
from .record import SPLIT

#: modes that records can be brought into
MODES = ("text", "direct")


def parse_splits(text: str) -> str | dict[str, float]:
    """A split, such as ``test``, or the share of each split, such as ``train=0.8,val=0.1,test=0.1``.

    Raises:
        ValueError: no split has this name, or the shares are not more than 0 or do not add up to 1.
    """
    shares: dict[str, float] = {}
    for pair in text.split(","):
        name, sign, number = pair.strip().partition("=")
        if not SPLIT.fullmatch(name):
            raise ValueError(f"--split {text}: '{name}' is not train, val, test or ood-AXIS. Correct it.")
        if name in shares:
            raise ValueError(f"--split {text}: names '{name}' twice. Remove one.")
        if not sign and "," not in text:
            return name
        try:
            shares[name] = float(number)
        except ValueError:
            raise ValueError(
                f"--split {text}: '{pair}' has no share. Write shares as train=0.8,val=0.1,test=0.1."
            ) from None
    if not all(isfinite(share) and share > 0 for share in shares.values()) or not isclose(
        sum(shares.values()), 1, abs_tol=1e-6
    ):
        raise ValueError(f"--split {text}: shares must be more than 0 and add up to 1. Correct them.")
    return shares


def count_by_split(shares: Mapping[str, float], n: int) -> dict[str, int]:
    """n items divided by shares: the largest remainders are rounded up. Raises ValueError if a split gets none."""
    counts = {split: int(share * n + 1e-9) for split, share in shares.items()}
    by_remainder = sorted(shares, key=lambda split: counts[split] - shares[split] * n)
    for split in by_remainder[: n - sum(counts.values())]:
        counts[split] += 1
    if empty := [split for split, count in counts.items() if not count]:
        raise ValueError(f"{n} items are too few for the split '{empty[0]}'. Raise --n or its share.")
    return counts


class SplitDraw:
    """Draws the split of each record so that the shares are kept as records come.

    Records with the same input images get the same split, so that no image is in two splits. A record without images is
    alone. A split that has less than its share so far is drawn more likely; the number that decides is a function of
    the seed and the images. Records that are added at the end change no split of an earlier one.
    """

    def __init__(self, shares: Mapping[str, float], seed: int = 0):
        self.shares, self.seed = shares, seed
        self.counts = dict.fromkeys(shares, 0)
        self._known: dict[bytes, str] = {}

    def __call__(self, trace: Trace) -> str:
        images = trace.prompt().images()
        content = "".join(map(pixel_hash, images)) if images else trace.id
        key = sha256(f"{self.seed} {content}".encode()).digest()[:16]
        if key not in self._known:
            self._known[key] = self._draw(int.from_bytes(key[:8], "big") / 2**64)
        split = self._known[key]
        self.counts[split] += 1
        return split

    def _draw(self, number: float) -> str:
        total = sum(self.counts.values()) + 1
        missing = {split: max(share * total - self.counts[split], 0.0) for split, share in self.shares.items()}
        left = number * sum(missing.values())
        for split, weight in missing.items():
            left -= weight
            if left < 0:
                return split
        return max(missing, key=missing.__getitem__)  # rounding


@dataclass
class Labels:
    """Task, split and mode that records get: None keeps those of the source.

    ``splits`` is the split of all records, or the share of each split. Shares divide the training records only: those
    that the source holds out keep their split. See :class:`SplitDraw`. ``mode`` is ``text`` (without sketches) or
    ``direct`` (the boxed answer alone). With ``max_pass_rate``, records whose ``meta.pass_rate`` is higher are left out:
    a model solves them so often that there is little to learn from them (MMFineReason, 2601.21821).

    Raises:
        ValueError: the mode is no such mode.
    """

    task: str | None = None
    splits: str | Mapping[str, float] | None = None
    seed: int = 0
    mode: str | None = None
    max_pass_rate: float | None = None
    num_easy: int = field(init=False, default=0)
    _draw: SplitDraw | None = field(init=False, default=None, repr=False)

    def __post_init__(self):
        if self.mode is not None and self.mode not in MODES:
            raise ValueError(f"--mode {self.mode}: records can be brought into {' or '.join(MODES)}.")
        if isinstance(self.splits, Mapping):
            self._draw = SplitDraw(self.splits, self.seed)

    def keeps(self, trace: Trace) -> bool:
        """Whether the record is hard enough; those that are not are counted. Raises DataError (E05) for a record without a
        pass rate."""
        if self.max_pass_rate is None:
            return True
        rate = trace.meta.get("pass_rate")
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise DataError("E05", "meta.pass_rate", "missing, or no number. Leave --max-pass-rate out, or add it.")
        self.num_easy += rate > self.max_pass_rate
        return rate <= self.max_pass_rate

    def apply(self, trace: Trace) -> Trace:
        """The trace with these labels. Raises DataError (E14) for a record without the answer that ``mode`` needs."""
        split = self.splits if isinstance(self.splits, str) else trace.split
        if self._draw is not None and trace.split == "train":
            split = self._draw(trace)
        trace = replace(trace, task=trace.task if self.task is None else self.task, split=split)
        if self.mode == "direct":
            return answer_alone(trace)
        return without_sketches(trace) if self.mode == "text" else trace

    def check_filled(self, num_records: int) -> None:
        """Raises ValueError if all of the records were left out, or if a split got none."""
        if self.num_easy == num_records:
            raise ValueError(
                f"all {num_records:,} records have a pass rate above {self.max_pass_rate:g}, and nothing was written. Raise "
                "--max-pass-rate."
            )
        counts = {} if self._draw is None else self._draw.counts
        if counts and not any(counts.values()):
            raise ValueError("there is no training record that shares could divide, and nothing was written.")
        if empty := [split for split, count in counts.items() if not count]:
            raise ValueError(
                f"no record got the split '{empty[0]}', and nothing was written: there are too few groups of records "
                "with the same images. Raise its share, or use another --split-seed."
            )


def without_sketches(trace: Trace) -> Trace:
    """The trace without its sketches: the text-only control on the same data. Texts that a sketch stood between are
    separated by a blank."""
    if not trace.sketches():
        return trace
    messages = tuple(Message(message.role, _text_parts(message)) for message in trace.messages)
    return replace(trace, messages=messages, mode={"mixed": "text", "vision": "direct"}[trace.mode])


def _text_parts(message: Message) -> tuple[Part, ...]:
    parts: list[Part] = []
    for part in message.content:
        if isinstance(part, Sketch):
            continue
        if isinstance(part, Text) and parts and isinstance(parts[-1], Text):
            is_apart = parts[-1].text[-1].isspace() or part.text[0].isspace()
            part = part if is_apart else replace(part, text=f" {part.text}")
        parts.append(part)
    return tuple(parts)


def answer_alone(trace: Trace) -> Trace:
    """The trace whose last turn is its boxed answer alone. Raises DataError (E14) for a record without an answer."""
    if trace.messages[-1].role != "assistant":
        return trace
    if trace.answer is None:
        raise DataError(
            "E14", "answer", "missing, so there is nothing to answer directly. Add it, or box it in the text."
        )
    answered = Message("assistant", (Text(f"\\boxed{{{trace.answer}}}"),))
    *before, _ = without_sketches(trace).messages
    return replace(trace, messages=(*before, answered), mode="direct")


def with_checker(rows: Iterable[Trace | DataError], checker: str, report: Report) -> Iterator[Trace | DataError]:
    """The rows, whose answers ``checker`` grades. An answer that it can never accept is an error of the row (E05)."""
    check_checker(checker)
    for row in rows:
        if isinstance(row, Trace):
            try:
                if row.answer is not None:
                    check_gold(row.answer, checker, "answer")
                row = replace(row, checker=checker)
            except DataError as error:
                row = refuse(row, error, report)
        yield row


def refuse(trace: Trace, error: DataError, report: Report) -> DataError:
    """The error of a record that was read and is refused after all, added to the report."""
    report.count(traces=-1)
    report.errors.append(error.at(f"trace '{trace.id}'", id=trace.id))
    return error

"""Replies as models write them: tables of replies in tests/replies, each with what a careful reader takes from it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from eval.items import EvalItem
from eval.scoring import judge

FOLDER = Path(__file__).parents[1] / "replies"
CASES = Path(__file__).parents[3] / "shared" / "cases" / "replies.tsv"
COLORS = ("red", "green", "yellow", "black")
MATERIALS = ("wool", "cotton", "silk", "linen")
UNREADABLE = "-"
MAP = {"map": ["SFF", "FFF", "FFG"]}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table. ``⏎`` stands for a line end."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row | {"reply": row["reply"].replace("⏎", "\n")} for row in rows]


def item(checker: str, answer: str, options: tuple[str, ...] = (), **meta) -> EvalItem:
    return EvalItem("i", "t", "test", None, (), "Q?", options, answer, "text", checker, "i", (), meta)


def options_of(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(option.strip() for option in row["options"].split("|")) if row["options"] else COLORS


def number_rows(rows: list[dict]) -> list:
    """Rows with the line of the file as the id of the test."""
    return [pytest.param(row, id=f"line {number}") for number, row in enumerate(rows, 2)]


LETTERS, VALUES = read_table(FOLDER / "letters.tsv"), read_table(FOLDER / "values.tsv")


@pytest.mark.parametrize("row", number_rows(LETTERS))
def test_the_letter_of_a_reply(row):
    parsed = judge(row["reply"], item("letter", "A", options_of(row))).parsed
    assert (parsed or UNREADABLE) == row["right"], row


@pytest.mark.parametrize("row", number_rows(VALUES))
def test_the_value_of_a_reply(row):
    is_unreadable = row["right"] == UNREADABLE
    gold = item(row["rule"], "5" if is_unreadable else row["right"], COLORS if row["rule"] == "letters" else (), **MAP)
    is_right, parsed = judge(row["reply"], gold)
    if row["rule"] == "vsp":
        assert (parsed or UNREADABLE) == row["right"], row
    elif is_unreadable:
        assert not is_right, (row, parsed)
    else:
        assert is_right, (row, parsed)

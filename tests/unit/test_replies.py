"""Replies as models write them: tables of replies in tests/replies, each with what a careful reader takes from it."""

from __future__ import annotations

import csv
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.items import EvalItem
from eval.judges import judge_unread, load_judge
from eval.scoring import judge

FOLDER = Path(__file__).parents[1] / "replies"
CASES = Path(__file__).parents[3] / "shared" / "cases" / "replies.tsv"
COLORS = ("red", "green", "yellow", "black")
MATERIALS = ("wool", "cotton", "silk", "linen")
UNREADABLE = "-"
STRICT_RULES = ("number", "numbers", "yes_no", "letters")  # read nothing where no answer is
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
        assert not is_right and (parsed is None or row["rule"] not in STRICT_RULES), (row, parsed)
    else:
        assert is_right, (row, parsed)


# -- refusals ----------------------------------------------------------------------------------------------------------
def test_the_counts_of_the_page_are_those_of_the_tables():
    page = " ".join((FOLDER.parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8").split())
    letters, values = ([row["right"] != UNREADABLE for row in rows] for rows in (LETTERS, VALUES))
    refusals = read_table(FOLDER / "refusals.tsv")
    for sentence in (
        f"has {len(letters) + len(values):,} replies in styles of current models",
        f"Of {len(letters)} rows with options, {sum(letters)} have a letter and {len(letters) - sum(letters)} have none",
        f"of {len(values)} other rows, {sum(values)} have a number",
        f"On the {len(refusals)} replies of `tests/replies/refusals.tsv` precision is {refusal_scores()[0]:.2f}",
        f"and recall {refusal_scores()[1]:.2f}",
    ):
        assert sentence in page, sentence


def refusal_scores() -> tuple[float, float]:
    """Precision and recall of refusals."""
    rows, refused = read_table(FOLDER / "refusals.tsv"), item("refusal", "refused")
    judged = [(judge(row["reply"], refused).is_right, row["right"] == "refused") for row in rows]
    hits = sum(found and right for found, right in judged)
    return hits / sum(found for found, _ in judged), hits / sum(right for _, right in judged)


def test_precision_and_recall_of_refusals():
    """A phrase that is added has to keep them."""
    precision, recall = refusal_scores()
    assert precision >= 0.97 and recall >= 0.97


# -- composed replies --------------------------------------------------------------------------------------------------
NOISE = [
    "The wall is large.",
    "Let me look at the picture.",
    "A door stands beside it.",
    "I see a lamp.",
    "The shape at the top is round.",
    "However, the light is dim.",
]
WEIGHED = ["Option {x} is not right.", "({x}) is wrong.", "{x} does not fit.", "At first {x} seems possible."]
DECIDED = [
    "The answer is {y}.",
    "The correct answer is ({y}).",
    "Answer: {y}",
    "Therefore, the answer is **{y}**.",
    "Option {y} is correct.",
    "So the correct choice is:\n({y}) {text}",
    "I would choose {y}.",
    "The answer is ({y}) {text} because of the wall.",
    "Final answer: {y}. {text}",
    "答案：{y}",
]
UNDECIDED = [
    "It could be {x} or {y}.",
    "Either {x} or {y} is correct.",
    "The answer is {x} or {y}.",
    "Is the answer {y}?",
    "The answer is not {y}.",
    "If the light is on, the answer is {y}.",
    "Neither {x} nor {y} is correct.",
    "I am not sure whether {y} is correct.",
    "Both {x} and {y} are correct.",
]
LETTER_PAIRS = st.permutations("ABCD").map(lambda names: names[:2])


def fill(form: str, pair: list[str]) -> str:
    return form.format(x=pair[0], y=pair[1], text=COLORS["ABCD".index(pair[1])])


@given(
    st.lists(st.sampled_from(NOISE + WEIGHED), max_size=4),
    st.sampled_from(DECIDED),
    LETTER_PAIRS,
    st.sampled_from(" \n"),
)
def test_a_decision_is_read_whatever_was_weighed_before(before, decided, pair, parting):
    reply = parting.join(fill(form, pair) for form in [*before, decided])
    assert judge(reply, item("letter", pair[1], COLORS)).parsed == pair[1], reply


@given(
    st.lists(st.sampled_from(NOISE + WEIGHED), max_size=3),
    st.sampled_from(UNDECIDED),
    LETTER_PAIRS,
    st.sampled_from(" \n"),
)
def test_nothing_is_read_where_nothing_is_decided(before, undecided, pair, parting):
    reply = parting.join(fill(form, pair) for form in [*before, undecided])
    assert judge(reply, item("letter", pair[1], COLORS)).parsed is None, reply


@given(st.lists(st.sampled_from(NOISE + WEIGHED + DECIDED + UNDECIDED), min_size=1, max_size=5), LETTER_PAIRS)
def test_no_letter_is_read_that_no_sentence_decides_for(forms, pair):
    parsed = judge("\n".join(fill(form, pair) for form in forms), item("letter", pair[1], COLORS)).parsed
    assert parsed is None or (parsed == pair[1] and any(form in DECIDED for form in forms)), forms


@given(
    st.integers(-999, 999),
    st.sampled_from(["There are {n} dogs.", "So x = {n}.", "The answer is {n} cm.", "\\boxed{{{n}}}"]),
)
def test_a_number_in_a_sentence_is_itself(number, form):
    assert judge(form.format(n=number), item("number", str(number))).is_right
    assert not judge(form.format(n=number), item("number", str(number + 1))).is_right


@pytest.mark.parametrize(
    "text", ["a " * 20000, "(" * 20000, "x=" * 9000, "1," * 9000, "The answer is " * 3000, "B\n" * 9000, "\\" * 20000]
)
@pytest.mark.parametrize("checker", ["letter", "letters", "number", "yes_no", "text", "refusal", "vsp"])
def test_long_replies_are_read_in_short_time(text, checker):
    start = time.perf_counter()
    judge(text, item(checker, "B", COLORS, **MAP))
    assert time.perf_counter() - start < 10


@pytest.mark.skipif(not CASES.exists(), reason="shared/cases is not here")
def test_the_shared_cases():
    for row in read_table(CASES):
        reply, right = row["reply"].replace("\\n", "\n"), row["right"]
        if row["kind"] == "letter":
            assert (judge(reply, item("letter", "B", MATERIALS)).parsed or UNREADABLE) == right, row
        elif row["kind"] == "number":
            assert judge(reply, item("number", "3" if right == UNREADABLE else right)).is_right is (
                right != UNREADABLE
            ), row
        else:
            assert judge(reply, item("vsp", "", **MAP)).parsed == right, row


# -- mathematics and judges --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "said, gold, right",
    [
        ("\\frac{1}{2}", "0.5", True),
        ("2\\pi", "2", False),
        ("x^2", "x^3", False),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("9^{9^{9^9}}", "1", False),
        ("10^{99999}", "1", False),
        ("100000!", "1", False),
        ("1" * 30, "1", False),
        ("x" * 300, "x", False),
    ],
)
def test_formulas_are_compared_by_algebra_and_never_take_long(said, gold, right):
    start = time.perf_counter()
    assert judge(f"\\boxed{{{said}}}", item("math", gold)).is_right is right
    assert time.perf_counter() - start < 10


def test_formulas_are_compared_in_any_thread():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(judge, "\\boxed{x^2+1}", item("math", "1+x^2")).result().is_right


def test_a_judge_is_asked_only_where_no_rule_reads():
    asked = []

    def ask(question, reply, gold):
        asked.append((question, reply, gold))
        return {"yes": True, "no": False, "?": None, "1": 1}[reply.split()[-1]]

    question = item("letter", "B", COLORS)
    for reply, graded in [
        ("It is. yes", (True, "judged")),
        ("It is. no", (False, "judged")),
        ("It is. ?", (False, None)),
    ]:
        assert judge_unread(judge(reply, question), reply, question, ask) == graded
    assert judge_unread(judge("B", question), "B", question, ask) == (True, "B")
    assert judge_unread(judge("so so", question), "so so", question, None) == (False, None)
    assert len(asked) == 3 and asked[0][2] == "B. green" and "A. red" in asked[0][0]
    with pytest.raises(ValueError, match=r"item 'i': the judge returned 1\. It has to return True, False, or None"):
        judge_unread(judge("so 1", question), "so 1", question, ask)


def test_a_judge_is_a_function_at_a_dotted_path():
    assert load_judge("os.path.join").__name__ == "join"
    with pytest.raises(ValueError, match=r"judge 'os\.path\.sep' is not a function"):
        load_judge("os.path.sep")
    with pytest.raises(ValueError, match="there is no module 'no_such_package'"):
        load_judge("no_such_package.ask")

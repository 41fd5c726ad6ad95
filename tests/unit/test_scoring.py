"""Where an answer stands and what it says: traps of other extractors, every documented form, numbers, sets, letters."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.items import EvalItem
from eval.options import split_options
from eval.scoring import answer_span, is_number, judge, normalize, numbers_equal, parse_number


def item(answer="B", options=("red", "green", "yellow", "black"), checker="letter", **meta) -> EvalItem:
    return EvalItem("i", "t", "test", None, (), "Q?", options, answer, "letter", checker, "i", (), meta)


def test_a_thought_is_no_answer_by_any_rule():
    plan = item("R,R", (), "vsp", map=("SFG", "FFF", "FFF"))
    assert judge("<think>Hm.</think> \\boxed{R,R}", plan).is_right
    for text in ("<think>\\boxed{R,R}</think> I do not know", "<think>\\boxed{R,R}", "<think>R,R"):
        assert not judge(text, plan).is_right, text


# -- letters -----------------------------------------------------------------------------------------------------------
TRAPS = [
    "Because the light is on.",
    "Because it is so.\nBut I am not sure",
    "The answer is blue.",
    "The answer is blue",
    "A dog",
    "a",
    "A dog sits on a bench.",
    "The answer is a",
    "The answer is a.",
    "a.",
    "The answer is a dog",
    "The answer is A dog.",
    "A cat and a dog",
    "An apple",
    "Definitely not",
    "I see\na",
    "Both",
    "Dark blue",
    "The answer is A or B",
    "The answer is (A) or (B).",
    "A, B",
    "A and B",
    "\\boxed{A, B}",
    "\\boxed{A and B}",
    "\\boxed{}",
    "\\boxed{ }",
    "\\boxed{B",
    "<answer>B",
    "<answer></answer>",
    "\\boxed{E}",
    "\\boxed{?}",
    "",
    "The answer is not B.",
    "The answer is (A), no, (B)",
    "Answer: A: B",
    "The answer is A. B is wrong.",
    "A. Looking at the picture",
    "B) because of",
    "Options: A red B green",
    "Is the answer B?\nNo idea.",
    "The answer could be A. The answer could be B. I will not say",
    "Cannot be told",
    "D'accord",
    "C'est bon",
    "\\boxed{A. green}",
    "The answer is C. green",
    "Let me see, B comes first.\nThen comes A.",
]


@pytest.mark.parametrize("text", TRAPS)
def test_no_letter_is_read_off_a_reply_that_names_none(text):
    assert judge(text, item()) == (False, None)


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "B.",
        "B)",
        "B:",
        "**B**",
        "(b)",
        "B. green",
        "(B) green",
        "B green",
        "B: green",
        "green",
        "Green.",
        "The answer is B",
        "The answer is (B).",
        "the answer is: B",
        "Answer: B",
        "**Answer:** B",
        "*Answer:* B",
        "Answer = B",
        "The correct option is B.",
        "Final answer: option B",
        "The answer is B. It is green.",
        "The answer is green.",
        "So the answer is (B) because it is green.",
        "I look.\n\nB",
        "I look.\n(B)",
        "A is red, C is yellow.\nAnswer: B",
        "\\boxed{B}",
        "$\\boxed{B}$",
        "\\boxed{\\text{B}}",
        "\\boxed{(B)}",
        "\\boxed{b}",
        "\\boxed{B. green}",
        "\\boxed{green}",
        "First \\boxed{A}, no: \\boxed{B}",
        "\\boxed{B} is my answer, not A",
        "<answer>B</answer>",
        "<answer> (b) </answer>",
        "<Answer>A</Answer> or rather <answer>B</answer>",
        "<Output> B",
        "<think>A?</think>\n<answer>B</answer>",
    ],
)
def test_every_form_of_a_letter_is_read(text):
    assert judge(text, item()) == (True, "B")


def test_an_option_may_be_named_by_its_words_where_only_one_has_them():
    assert judge("\\boxed{the dog}", item("C", ("a cat", "two cats", "a dog"))) == (True, "C")
    assert judge("A dog", item("B", ("cat", "dog"))) == (True, "B"), "the article, not option A"
    assert judge("A dog", item("A", ("dog", "cat"))) == (True, "A")
    assert judge("\\boxed{dog}", item("A", ("dog", "Dog"))) == (False, None)
    assert judge("\\boxed{A. Smith}", item("B", ("B. Jones", "A. Smith"))) == (True, "B")
    assert judge("\\boxed{}", item("A", ("", "", "", ""))) == (False, None)


@given(
    st.sampled_from("ABCD"),
    st.sampled_from(
        [
            "\\boxed{{{}}}",
            "Some thought. \\boxed{{({})}}",
            "<answer>{}</answer>",
            "I think.\nThe answer is {}.",
            "I think.\nAnswer: ({})",
            "{}",
            "({})",
            "Long thought\nwith lines\n{}",
            "<Output> {}",
        ]
    ),
)
def test_a_letter_in_a_documented_form_is_found(letter, form):
    assert judge(form.format(letter), item(letter)) == (True, letter)


@given(st.text(string.ascii_lowercase + " ,\n", max_size=80), st.text(string.ascii_lowercase + " ,", min_size=2))
def test_prose_without_an_answer_gives_no_letter(first, last):
    """Two lines of small letters hold no box, no tag and no answer: nothing is to be read, whatever their words."""
    text = f"{first}x\n{last}y"
    if "answer" not in text and "option" not in text and "choice" not in text:
        assert judge(text, item()) == (False, None)
        assert judge(text, item("12", (), "number")).is_right is False
        assert judge(text, item("x y", (), "text")) == (False, None)


@given(st.text(max_size=200))
def test_no_text_makes_a_rule_fail_or_name_what_is_not_offered(text):
    assert judge(text, item()).parsed in (None, *"ABCD")
    for checker in ("letters", "text", "number", "numbers", "set", "yes_no", "refusal"):
        judge(text, item("1", checker=checker))
    for checker, meta in (
        ("displacement", {"north": 1, "east": 0}),
        ("points24", {"numbers": [4, 6, 1, 1]}),
        ("hanoi", {"pegs": [[1], [], []]}),
        ("sliding", {"board": [[1, 0]]}),
        ("vsp", {"map": ["SF", "HG"]}),
        ("blocks", {"begin": [["red"], []], "end": [["red"], []]}),
    ):
        judge(f"\\boxed{{{text}}}", item("x", (), checker, **meta))
        judge(text, item("x", (), checker, **meta))


@given(st.sets(st.sampled_from("ABCD"), min_size=1), st.sampled_from([", ", " and ", "", ";", "、"]))
def test_several_letters_are_a_set(names, parting):
    gold = "".join(sorted(names))
    said = parting.join(sorted(names, reverse=True))
    assert judge(f"\\boxed{{{said}}}", item(gold, checker="letters")) == (True, gold)
    assert not judge(f"\\boxed{{{said}}}", item(gold + "D" if "D" not in names else "E", checker="letters")).is_right


# -- spans -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text, span",
    [
        ("x \\boxed{1} <answer>2</answer>", ("1", "box")),
        ("<answer>2</answer> <Output> 3", ("2", "tag")),
        ("The answer is 4\n<Output> 3", ("3", "output")),
        ("a\nThe answer is 4", ("4", "phrase")),
        ("4", ("4", "reply")),
        ("a\n4", ("4", "line")),
        ("\\boxed{\\frac{1}{2}}", ("\\frac{1}{2}", "box")),
        ("\\boxed{1} \\boxed{2}", ("2", "box")),
        ("The answer is 3. The answer is 4", ("4", "phrase")),
        ("Answer:\n4 cm", ("4 cm", "phrase")),
        ("<think>\\boxed{1}</think>\n2", ("2", "reply")),
        ("<think>\\boxed{1}", None),
        ("", None),
        (" \n ", None),
        ("\\boxed{} 3", None),
        ("<answer>3", None),
        ("\\boxed{3", None),
    ],
)
def test_the_span_is_the_first_rule_that_fits(text, span):
    assert answer_span(text) == span


# -- numbers -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "said, gold, right",
    [
        ("5", "5", True),
        ("5.0", "5", True),
        ("five", "5", True),
        ("5 dogs", "5", True),
        ("05", "5", True),
        ("6", "5", False),
        ("-5", "5", False),
        ("−5", "-5", True),
        ("1,200", "1200", True),
        ("1,200 cm", "1200", True),
        ("1,20", "120", False),
        ("3.14159", "3.14", True),
        ("3.1", "3.14", False),
        ("3.145", "3.14", True),
        ("3.1451", "3.14", False),
        ("\\frac{3}{4}", "0.75", True),
        ("3/4", "0.75", True),
        ("0.33", "1/3", True),
        ("0.3", "1/3", False),
        ("$x = -2.5$", "-2.5", True),
        ("about 7", "7", True),
        ("5 or 6", "5", False),
        ("5, 6", "5", False),
        ("3-5", "3", False),
        ("1e3", "1000", True),
        ("1.2 \\times 10^{3}", "1200", True),
        ("1.2*10^3", "1200", True),
        ("50%", "0.5", False),
        ("5 m", "5 cm", False),
        ("5 cm", "5 cm", True),
        ("5", "5 cm", True),
        ("5 cm^2", "5 cm^{2}", True),
        ("$5", "5", True),
        ("2\\pi", "2", False),
        ("2x", "2", False),
        ("2π", "2", False),
        ("2^3", "2", False),
        ("5!", "5", False),
        ("12\\text{ cm}", "12 cm", True),
        ("90^\\circ", "90°", True),
        ("90 degrees", "90°", True),
        ("5kg", "5 kg", True),
        ("5.", "5", True),
        (".5", "0.5", True),
        ("1/0", "1", False),
        ("1e999", "5", False),
        ("none", "5", False),
        ("9" * 41, "5", False),
        ("", "5", False),
    ],
)
def test_numbers_are_compared_as_numbers(said, gold, right):
    assert numbers_equal(said, gold) is right
    assert judge(f"\\boxed{{{said}}}", item(gold, (), "number")).is_right is right


def test_precision_tolerance_and_unit_are_the_items_own():
    assert judge("\\boxed{1.24}", item("1.2", (), "number", precision=1)).is_right
    assert not judge("\\boxed{1.26}", item("1.2", (), "number", precision=1)).is_right
    assert judge("\\boxed{2.9}", item("2", (), "number", tolerance=1.0)).is_right
    assert not judge("\\boxed{3.1}", item("2", (), "number", tolerance=1.0)).is_right
    assert not judge("\\boxed{12 mm}", item("12", (), "number", unit="cm")).is_right
    assert judge("\\boxed{12 cm}", item("12", (), "number", unit="cm")).is_right


@given(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(["{}", "{} cm", "${}$", "x = {}"]))
def test_a_number_is_itself_and_no_other(number, form):
    assert parse_number(form.format(number)).number == parse_number(str(number)).number
    assert numbers_equal(form.format(number), str(number))
    assert not numbers_equal(form.format(number + 1), str(number))


# -- texts and sets ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "said, right",
    [
        ("Main St", True),
        ("main st.", True),
        ("the Main  St", True),
        ('"Main St"', True),
        ("\\text{Main St}", True),
        ("Main Street", False),
        ("not Main St", False),
        ("St Main", False),
        ("Main St or Elm St", False),
    ],
)
def test_texts_are_equal_but_for_case_articles_and_punctuation(said, right):
    assert judge(f"\\boxed{{{said}}}", item("Main St", (), "text")).is_right is right
    assert judge("\\boxed{Elm}", item("Main St", (), "text", accepted=["Elm"])).is_right
    assert not judge("\\boxed{10}", item("10 Main Street", (), "text")).is_right
    assert judge("\\boxed{three}", item("3", (), "text")).is_right


@pytest.mark.parametrize(
    "gold, number",
    [
        ("12", True),
        ("-0.5", True),
        ("1/3", True),
        ("1,234.5 yuan", True),
        ("30%", True),
        ("5cm", True),
        ("90°", True),
        ("10 Main Street", False),
        ("5A", False),
        ("2019-05-01", False),
        ("12:30", False),
        ("blue", False),
        ("2x", False),
    ],
)
def test_golds_that_are_numbers(gold, number):
    assert is_number(gold) is number


def test_sets_have_no_order_and_lists_have_one():
    assert judge("\\boxed{left, Above}", item("Above, Left", (), "set")) == (True, "above, left")
    assert judge("<Output> Above and Left", item("Above, Left", (), "set")).is_right
    assert not judge("\\boxed{Above}", item("Above, Left", (), "set")).is_right
    assert not judge("\\boxed{Above, Left, Right}", item("Above, Left", (), "set")).is_right
    assert judge("\\boxed{[1, 2.50]}", item("[1, 2.5]", (), "numbers")).is_right
    assert not judge("\\boxed{2.5, 1}", item("[1, 2.5]", (), "numbers")).is_right


@given(st.text(max_size=40))
def test_a_text_says_the_same_after_it_was_made_plain(text):
    assert normalize(normalize(text)) == normalize(normalize(normalize(text)))


# -- options in a question ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text, question, options",
    [
        (
            "Colour?\n(A) red\n(B) blue\nAnswer with the option's letter from the given choices directly.",
            "Colour?",
            ["red", "blue"],
        ),
        ("(a) Open (b) Closed", "", ["Open", "Closed"]),
        ("How far?\nA. near\nB. far, or so", "How far?", ["near", "far, or so"]),
        ("What?\nOptions: A: one, two, B: three, C: none", "What?", ["one, two", "three", "none"]),
        ("In (A) and in the rest, why?", "In (A) and in the rest, why?", []),
        ("No options here.", "No options here.", []),
        ("See (a) and (c).", "See (a) and (c).", []),
        ("Like (A) or (B)?\n(A) as in (a)\n(B) so", "Like (A) or (B)?", ["as in (a)", "so"]),
        ("Which option should one choose?", "Which option should one choose?", []),
    ],
)
def test_options_are_parted_from_the_question(text, question, options):
    assert split_options(text) == (question, options)

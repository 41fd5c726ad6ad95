"""What a row of another project means is what the record says, or the row is refused: nothing is lost in silence."""

import json

import pytest
from data_samples import (
    ILVR,
    LATENT_SKETCHPAD,
    LLAVA,
    MATHCANVAS,
    MIRAGE,
    MONET,
    SWIMBIRD,
    THINKMORPH,
    THINKMORPH_HUB,
    TRL,
    ZEBRA,
    told,
)

from latent_reason.data import formats
from latent_reason.data.errors import DataError, Report
from latent_reason.trace import Text, Trace

TWO = ["1.png", "2.png"]


def chat(question, answer="Yes.", **columns):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **columns}


def one(put, format, row):
    """The only trace of a row, and its warnings."""
    report = Report()
    (trace,) = formats.load(format).read(put("a.jsonl", row), report=report)
    assert isinstance(trace, Trace), str(trace)
    return trace, report.warnings


def refused(put, format, row):
    """Code, field and message of the error of a row."""
    (error,) = formats.load(format).read(put("a.jsonl", row))
    assert isinstance(error, DataError), told(error)
    return error.code, error.field, str(error)


# -- which image stands where ------------------------------------------------------------------------------------------
def numbered(*numbers):
    parts = [{"type": "image", "index": number, "text": None} for number in numbers]
    return chat([*parts, {"type": "text", "text": "Which?", "index": None}], images=TWO)


@pytest.mark.parametrize("format", ["trl", "sharegpt"])
def test_the_index_of_an_image_part_is_its_image(put, format):
    for numbers, wanted in [((1, 0), "21"), ((0, 1), "12"), ((2, 1), "21"), ((0, 1, 0), "121"), ((1.0, 0.0), "21")]:
        trace, _ = one(put, format, numbered(*numbers))
        assert told(trace)[0] == [*(f"[{number}]" for number in wanted), "Which?"], numbers
    row = chat([{"type": "image", "image": 1}, {"type": "image", "image": 0}, "Which?"], images=TWO)
    assert told(one(put, format, row)[0])[0] == ["[2]", "[1]", "Which?"]
    for numbers in [(0, 2), (1, 1), (0, None), (0,), ("a", "b"), ([0], 1)]:
        assert refused(put, format, numbered(*numbers))[0] == "E10", numbers


@pytest.mark.parametrize(
    "sign", ["<Image>", "<image_1>", "<image 1>", "<ImageHere>", "<img>", "[IMAGE]", "<IMG_CONTEXT>", "<image-1>"]
)
def test_a_sign_of_another_project_is_a_place(put, sign):
    text = f"Look at {sign}\nWhat is it?"
    rows = {
        "sharegpt": chat(text, images=["1.png"]),
        "trl": chat(text, images=["1.png"]),
        "llava": {**LLAVA, "conversations": [{"from": "human", "value": text}, LLAVA["conversations"][1]]},
        "interleaved": {"input_text": text, "label_text": "Yes.", "input_img": ["1.png"]},
    }
    for format, row in rows.items():
        trace, warnings = one(put, format, row)
        assert told(trace)[0] == ["Look at ", "[1]", "What is it?"] and not warnings, format


def test_numbers_in_signs_name_the_image(put):
    trace, _ = one(put, "sharegpt", chat("Is <image_2> larger than <image_1>? See <image_2>.", images=TWO))
    assert told(trace)[0] == ["Is ", "[2]", " larger than ", "[1]", "? See ", "[2]", "."]
    assert refused(put, "sharegpt", chat("Is <image_2> large?", images=TWO))[0] == "E10"
    assert told(one(put, "trl", chat("<image>What?", images=["1.png"]))[0])[0] == ["[1]", "What?"]


@pytest.mark.parametrize("format, row", [
    ("llava", {**LLAVA, "conversations": [LLAVA["conversations"][0], {"from": "gpt", "value": "In <image_1>."}]}),
    ("sharegpt", chat("<image>What is in <ImageHere>?", images=["1.png"])),
    ("mirage", MIRAGE | {"text_input": "Which of <image_1>?"}),
    ("zebra_cot", ZEBRA | {"Text Reasoning Trace": "See <image 1>.", "reasoning_image_1": None}),
])  # fmt: skip
def test_a_sign_that_would_be_taught_as_text_is_refused(put, format, row):
    code, _, message = refused(put, format, row)
    assert code == "E18" and "stands for an image" in message


def test_signs_without_images_are_text(put):
    assert told(one(put, "sharegpt", chat("What does <img> do in HTML?"))[0])[0] == ["What does <img> do in HTML?"]


def test_mathcanvas_numbers_begin_with_0_or_1(put):
    def row(*numbers, images=TWO):
        items = [{"type": "image", "content": "", "index": number} for number in numbers]
        text = {"type": "text", "content": "So."}
        return MATHCANVAS | {"solution_interleave": [*items, text], "solution_images": images}

    for numbers, wanted in [((2, 1), "21"), ((1, 2), "12"), ((1, 0), "21"), ((0, 1, 0), "121")]:
        trace, _ = one(put, "interleaved", row(*numbers))
        assert told(trace)[1][:-1] == [f"({number})" for number in wanted]
    assert refused(put, "interleaved", row(5, 7))[:2] == ("E10", "solution_interleave")


def test_two_columns_of_images(put):
    both = {"image": "1.png", "images": ["2.png"]}
    for format, row in (("llava", LLAVA | both), ("sharegpt", chat("<image>Q", **both)), ("trl", TRL | both)):
        code, field, message = refused(put, format, row)
        assert (code, field in both) == ("E10", True) and "Keep one of these columns" in message
    assert told(one(put, "llava", LLAVA | {"images": ["1.png"], "image": None})[0])[0][0] == "[1]"
    assert told(one(put, "llava", LLAVA | {"images": ["1.png"], "image": ["1.png"]})[0])[0][0] == "[1]"


def test_parts_with_their_own_path_and_the_same_column(put):
    row = chat([{"type": "image", "image": "1.png"}, "What?"], images=["1.png"])
    for images in (["1.png"], [{"bytes": None, "path": "1.png"}], "1.png"):
        trace, warnings = one(put, "sharegpt", row | {"images": images})
        assert told(trace)[0] == ["[1]", "What?"] and not warnings
    path = put("a.jsonl", row | {"images": ["2.png"]})
    (error,) = formats.load("sharegpt").read(path)
    assert error.code == "E10" and "--unplaced-image drop." in str(error)
    (trace,) = formats.load("sharegpt").read(path, unplaced_image="drop")
    assert told(trace)[0] == ["[1]", "What?"]


# -- which words are taught --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, value", [("loss_mask", 0), ("trainable", False), ("loss_scale", 0.0), ("weight", 0)])
@pytest.mark.parametrize("format", ["sharegpt", "trl"])
def test_a_turn_that_is_not_taught(put, format, name, value):
    row = chat("Q", "Bad.")
    row["messages"][1][name] = value
    trace, warnings = one(put, format, row)
    assert trace.messages[1].content == (Text("Bad.", 0),) and not warnings


def test_weights_that_cannot_be_kept_are_refused(put):
    row = chat("Q", "A.")
    row["messages"][1]["mask"] = 0
    assert refused(put, "sharegpt", row)[:2] == ("E19", "messages[1].mask")
    for key, value in {"loss_scale": [0.0], "weight": 0, "mask_history": True, "loss_mask": [1, 0]}.items():
        assert refused(put, "sharegpt", chat("Q", **{key: value}))[:2] == ("E19", key)
    for key, value in {"loss_scale": [1.0], "weight": 1, "mask_history": False, "loss": None}.items():
        one(put, "sharegpt", chat("Q", **{key: value}))
    row["messages"][1] = {"role": "assistant", "content": "A.", "score": 0}
    assert "score" in one(put, "trl", row)[1][0]


@pytest.mark.parametrize("format", ["sharegpt", "trl", "llava", "swimbird", "visual_cot"])
def test_a_system_column(put, format):
    row = {"conversations" if format in ("llava", "swimbird", "visual_cot") else "messages": chat("Q")["messages"]}
    assert told(one(put, format, row | {"system": "Be brief."})[0]) == [["Be brief."], ["Q"], ["Yes."]]
    (turns,) = row.values()
    turns.insert(0, {"role": "system", "content": "Be long."})
    assert refused(put, format, row | {"system": "Be brief."})[:2] == ("E19", "system")
    assert told(one(put, format, row | {"system": "Be long."})[0])[0] == ["Be long."]
    for blank in ("", None, []):
        turns[0]["content"] = blank
        assert told(one(put, format, row)[0]) == [["Q"], ["Yes."]]


def test_unknown_names_of_columns_are_refused(put):
    path = put("a.jsonl", chat("Q"))
    with pytest.raises(ValueError, match=r"there is no 'message'. Did you mean 'messages'"):
        list(formats.load("sharegpt").read(path, columns={"message": "messages"}))


def test_tags_of_answers_in_every_format(put):
    text = "<think>r <output_image> s</think><answer>B</answer>"
    trace, _ = one(put, "mirage", MIRAGE | {"text_output": text})
    assert (told(trace)[1], trace.answer, trace.checker) == (["r ", "(2)", " s\n\\boxed{B}"], "B", "mirage_check")


def test_the_answer_column_of_thinkmorph(put):
    row = THINKMORPH | {"answer": "B"}
    assert refused(put, "thinkmorph", row)[0] == "E17"
    (trace,) = formats.load("thinkmorph").read(put("a.jsonl", row), answer="field")
    assert trace.answer == "B"
    assert one(put, "thinkmorph", THINKMORPH | {"answer": ""})[0].answer == "A"


# -- grounding ---------------------------------------------------------------------------------------------------------
def saying(text):
    """A row of every format, whose reasoning says ``text``."""
    return {
        "zebra_cot": ZEBRA | {"Text Reasoning Trace": text, "reasoning_image_1": None},
        "ilvr": ILVR | {"sequence_plan": [{"type": "text", "content": text}]},
        "mirage": MIRAGE | {"text_output": text + "<output_image> So \\boxed{A}"},
        "interleaved": {"input_text": "Q", "label_text": text},
        "mathcanvas": MATHCANVAS | {"solution_interleave": [{"type": "text", "content": text}], "solution_images": []},
        "thinkmorph": THINKMORPH | {"output_text_list": [text + "<image_start>", "<image_end><answer>A</answer>"]},
        "hub": THINKMORPH_HUB | {"resoning_thought_0": text},
        "swimbird": SWIMBIRD | {"conversations": chat("<image>Q", text + "<image>")["messages"]},
        "sharegpt": chat("Q", text),
        "monet": MONET | {"data": chat("Q", text)["messages"]},
    }


READER = {"mathcanvas": "interleaved", "hub": "thinkmorph"}


@pytest.mark.parametrize("layout", saying(""))
def test_grounding_is_cleaned_by_every_reader(put, layout):
    format = READER.get(layout, layout)
    trace, warnings = one(put, format, saying("The <ref>dog</ref><box>(1,2),(3,4)</box> runs.")[layout])
    assert told(trace)[-1][0].startswith("The dog (1,2),(3,4) runs.") and "tags of boxes" in str(warnings)
    assert refused(put, format, saying("At <loc0001>.")[layout])[0] == "E18"
    assert refused(put, format, saying("At <bbox>.")[layout])[0] == "E10"
    row = saying("At <bbox>.")[layout] | {"objects": {"bbox": [[1, 2, 3, 4]]}}
    assert told(one(put, format, row)[0])[-1][0].startswith("At [1, 2, 3, 4].")


@pytest.mark.parametrize(
    "sign",
    [
        "<loc_1>",
        '<points x1="1" y1="2">dog</points>',
        "<p>dog</p> {<1><2><3><4>}",
        "<patch_index_0044>",
        "<bbox_2d>",
        "[SEG]",
        "<SEG>",
        "<mask>",
        "<region1>",
    ],
)
def test_grounding_that_has_no_words_is_refused(put, sign):
    code, _, message = refused(put, "sharegpt", chat("Where?", f"Here {sign}."))
    assert code == "E18" and "taught as text" in message


def test_a_reference_without_a_box_of_its_own(put):
    trace, _ = one(put, "sharegpt", chat("Where is <ref>the dog</ref>?", "<box>(1,2),(3,4)</box>"))
    assert told(trace) == [["Where is the dog?"], ["(1,2),(3,4)"]]


def test_units_of_boxes(put):
    def row(**objects):
        return chat("Q", "At <bbox>.", objects={"bbox": [[1, 2, 3, 4]], **objects})

    for kept in ({"bbox_type": "real"}, {"bbox_type": None}, {"image_id": [0]}):
        assert told(one(put, "sharegpt", row(**kept))[0])[1] == ["At [1, 2, 3, 4]."]
    assert refused(put, "sharegpt", row(bbox_type="norm1"))[:2] == ("E05", "objects.bbox_type")
    assert refused(put, "sharegpt", row(image_id=[1]))[:2] == ("E05", "objects.image_id")


# -- cells of tables ---------------------------------------------------------------------------------------------------
NULLS = [
    ("sharegpt", chat("Q"), "system"),
    ("sharegpt", {"conversations": chat("Q")["messages"]}, "messages"),
    ("trl", {"prompt": "Q", "completion": "Yes."}, "messages"),
    ("trl", chat("Q"), "prompt"),
    ("interleaved", LATENT_SKETCHPAD, "question_interleave"),
    ("interleaved", THINKMORPH_HUB, "input_text"),
    ("interleaved", LATENT_SKETCHPAD, "problem_image_0"),
    ("thinkmorph", THINKMORPH_HUB, "instruction_list"),
    ("ilvr", MIRAGE, "sequence_plan"),
    ("ilvr", ILVR, "original_final_answer"),
    ("mirage", {"text_input": "Plan.", "map_id": "7", "map_desc": [[1, 2]]}, "text_output"),
    ("mirage", MIRAGE, "map_desc"),
    ("monet", MONET | {"metadata": {}}, "metadata"),
    ("lvr", {"conversations": chat("Q")["messages"]}, "split"),
    ("trl", TRL, "sketch_index"),
    ("llava", LLAVA, "video"),
]


@pytest.mark.parametrize("format, row, key", NULLS)
def test_null_is_no_value(put, format, row, key):
    wanted, _ = one(put, format, row)
    trace, warnings = one(put, format, row | {key: None})
    assert told(trace) == told(wanted) and not [line for line in warnings if "unknown keys" in line]


@pytest.mark.parametrize("value, text", [(3, "3"), (3.5, "3.5"), (3.0, "3"), (True, "True"), (["3"], "3"), ("3", "3")])
def test_answers_that_are_no_text(put, value, text):
    rows = [
        ("zebra_cot", ZEBRA | {"Final Answer": value}),
        ("swimbird", SWIMBIRD | {"answer": value}),
        ("ilvr", ILVR | {"sequence_plan": [{"type": "text", "content": "So."}], "original_final_answer": value}),
        ("interleaved", {"input_text": "Q", "label_text": "So.", "answer": value}),
        ("thinkmorph", THINKMORPH_HUB | {"answer": value}),
    ]
    for format, row in rows:
        assert one(put, format, json.loads(json.dumps(row)))[0].answer == text


def test_answers_that_are_none(put):
    for format, row in (("zebra_cot", ZEBRA | {"Final Answer": {}}), ("swimbird", SWIMBIRD | {"answer": ["1", "2"]})):
        assert refused(put, format, row)[0] == "E05"
    assert refused(put, "zebra_cot", ZEBRA | {"Final Answer": None})[0] == "E05"

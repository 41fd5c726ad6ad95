"""Chats of others in every usual layout: the same turns, whatever their names, parts and references to pictures."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from itertools import pairwise

import pytest
from data_samples import (
    ILVR,
    LATENT_SKETCHPAD,
    LLAVA,
    LVR,
    SHAREGPT,
    SKETCH,
    SWIMBIRD,
    THINKMORPH,
    VISUAL_COT,
    ZEBRA,
    picture,
    read,
    told,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason.data import formats
from latent_reason.data.answers import same_value
from latent_reason.data.errors import DataError, Report
from latent_reason.trace import Sketch, Text, Trace


def png(number: int) -> bytes:
    data = BytesIO()
    picture(number).save(data, "PNG")
    return data.getvalue()


def encoded(number: int) -> str:
    return base64.b64encode(png(number)).decode()


def ask(question, answer="Yes.", key="messages", **row):
    names = ("role", "user", "assistant", "content") if key == "messages" else ("from", "human", "gpt", "value")
    role, user, assistant, content = names
    return {key: [{role: user, content: question}, {role: assistant, content: answer}], **row}


def reply(format, said, **columns):
    """The row of a chat format whose last turn says ``said``."""
    if format == "monet":
        turns = [("user", "Q"), ("assistant", said)]
        return {"data": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]}
    if format == "interleaved":
        return {"input_text": "Q", "label_text": said}
    return ask("Q", said, "messages" if format in ("sharegpt", "trl") else "conversations") | columns


# -- layouts -----------------------------------------------------------------------------------------------------------
REFERENCES = {
    "path": lambda n: f"{n}.png",
    "data URL": lambda n: f"data:image/png;base64,{encoded(n)}",
    "base64": encoded,
    "bytes": lambda n: {"bytes": encoded(n), "path": None},
    "path in an object": lambda n: {"bytes": None, "path": f"{n}.png"},
    "url": lambda n: {"url": f"{n}.png", "detail": "low"},
    "source": lambda n: {"type": "base64", "media_type": "image/png", "data": encoded(n)},
}
IMAGE_PARTS = {
    "image": lambda ref: {"type": "image", "image": ref},
    "image_url": lambda ref: {"type": "image_url", "image_url": ref},
    "input_image": lambda ref: {"type": "input_image", "image_url": ref},
    "value": lambda ref: {"type": "image", "value": ref},
    "source": lambda ref: {"type": "image", "source": ref},
    "no type": lambda ref: {"image": ref},
    "nulls": lambda ref: {"type": "image", "image": ref, "text": None, "video": None},
}
TEXT_PARTS = {
    "text": lambda text: {"type": "text", "text": text},
    "input_text": lambda text: {"type": "input_text", "text": text},
    "value": lambda text: {"type": "text", "value": text},
    "no type": lambda text: {"text": text},
    "plain": lambda text: text,
    "nulls": lambda text: {"type": "text", "text": text, "image": None},
}


def test_every_reference_in_every_part(put):
    rows = [
        ask([part(reference(3)), {"type": "text", "text": "Colour?"}])
        for reference in REFERENCES.values()
        for part in IMAGE_PARTS.values()
    ]
    rows += [ask([{"type": "image"}, text("Colour?")], images=["3.png"]) for text in TEXT_PARTS.values()]
    path = put("a.jsonl", *rows)
    for format in ("trl", "sharegpt"):
        traces, errors, _ = read(format, path)
        assert not errors and [told(trace) for trace in traces] == [[["[3]", "Colour?"], ["Yes."]]] * len(rows)


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_references_in_columns(put, reference):
    rows = {
        "llava": LLAVA | {"image": reference(1)},
        "sharegpt": ask("<image>Colour?", images=[reference(1)]),
        "swimbird": SWIMBIRD | {"image": [reference(1)], "reasoning_image": [reference(2)]},
        "lvr": LVR | {"image": [reference(1)]},
        "zebra_cot": ZEBRA | {"problem_image_1": reference(1)},
        "interleaved": LATENT_SKETCHPAD | {"input_img": [reference(1)]},
        "ilvr": ILVR | {"image_input": reference(1)},
        "thinkmorph": THINKMORPH | {"image_list": [reference(1), "2.png"]},
        "visual_cot": VISUAL_COT | {"image": [reference(1), "1.png###[1, 1, 6, 8]"]},
    }
    for format, row in rows.items():
        (trace,), errors, _ = read(format, put(f"{format}.jsonl", row))
        assert not errors and told(trace)[0][0] == "[1]"


texts = st.sampled_from(["Look.", " so ", "a b\nc", "1 < 2", "é"])
turn = st.lists(st.one_of(texts, st.integers(1, 4)), min_size=1, max_size=4).filter(
    lambda parts: all(isinstance(a, int) or isinstance(b, int) for a, b in pairwise(parts))
)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_layout_of_a_chat_is_read_as_its_turns(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("chat")
    for number in range(1, 5):
        picture(number).save(folder / f"{number}.png")
    asked, role, content = (
        data.draw(st.lists(turn, min_size=1, max_size=3)),
        *data.draw(st.sampled_from([("role", "content"), ("from", "value"), ("role", "value")])),
    )
    users, gpts = data.draw(st.sampled_from([("user", "assistant"), ("human", "gpt"), ("User", "model")]))
    in_column, images, chat = data.draw(st.booleans()), [], []
    for parts in asked:
        numbers = [part for part in parts if isinstance(part, int)]
        if in_column and data.draw(st.booleans()):
            value = "".join(part if isinstance(part, str) else "<image>" for part in parts)
            images += numbers
        else:
            value = [
                data.draw(st.sampled_from(list(TEXT_PARTS.values())))(part)
                if isinstance(part, str)
                else {"type": "image"}
                if in_column
                else data.draw(st.sampled_from(list(IMAGE_PARTS.values())))(
                    data.draw(st.sampled_from(list(REFERENCES.values())))(part)
                )
                for part in parts
            ]
            images += numbers if in_column else []
        chat += [{role: users, content: value}, {role: gpts, content: "Yes."}]
    row = {"messages": chat, "images": [data.draw(st.sampled_from(list(REFERENCES.values())))(n) for n in images]}
    (folder / "a.jsonl").write_text(json.dumps(row))
    (trace,) = formats.load("sharegpt").read(folder / "a.jsonl")
    assert isinstance(trace, Trace), str(trace)
    assert told(trace)[::2] == [[part if isinstance(part, str) else f"[{part}]" for part in parts] for parts in asked]


def test_names_of_turns_and_pictures_in_the_text(put):
    rows = [
        ask("What?", key="conversations", image="1.png"),
        ask("<img>1.png</img>What?", key="conversations"),
        {"conversations": ask("<image>What?")["messages"], "images": ["1.png"]},
        ask([{"type": "image", "image": "1.png"}, "What?"], key="conversations"),
    ]
    traces, errors, _ = read("llava", put("a.json", *rows))
    assert not errors and [told(trace) for trace in traces] == [[["[1]", "What?"], ["Yes."]]] * 4


def test_cells_of_tables(put):
    """Turns as JSON text, numbers with a point, empty cells, objects that no text has a place for."""
    row = ask("Q", key="conversations", id=3.0, image=[None, ""], objects=[1])
    text = json.dumps(row["conversations"])
    (first, second), errors, _ = read("llava", put("a.json", row, row | {"conversations": text, "id": None}))
    assert not errors and first.id == "3" and first.meta["extra"] == {"objects": [1]}
    assert told(first) == told(second) == [["Q"], ["Yes."]]


def test_reasoning_of_its_own_stands_before_the_reply(put):
    row = ask("Two and two?", "So 4.")
    row["messages"][1]["reasoning_content"] = "Count."
    (trace,), _, report = read("sharegpt", put("a.jsonl", row))
    assert told(trace)[1] == ["Count.\n\n", "So 4."] and not report.warnings
    row["messages"][1]["model"] = "x"
    assert read("trl", put("b.jsonl", row))[2].warnings == ["d/b.jsonl:1: unknown keys of a turn are left out: model."]


# -- answers -----------------------------------------------------------------------------------------------------------
CHATS = ["llava", "sharegpt", "trl", "swimbird", "lvr", "monet", "interleaved", "visual_cot"]
TAGGED = {
    "<think> One. </think> <answer> 2 </answer>": ("One.  \\boxed{2}", "text", "2"),
    "<think>One.</think>\n<answer>\\boxed{2}</answer>": ("One.\n\\boxed{2}", "text", "2"),
    "One.</think>So \\boxed{2}": ("One.\nSo \\boxed{2}", "text", "2"),
    "<think>One.</think><answer>2</answer>": ("One.\n\\boxed{2}", "text", "2"),
    "<Think>One.</Think>So <ANSWER>2</ANSWER>.": ("One.\nSo \\boxed{2}.", "text", "2"),
    "One.<answer>2</answer>So.": ("One.\n\\boxed{2}\nSo.", "text", "2"),
    "See <summary>one</summary>: (<answer>2</answer>)": ("See <summary>one</summary>: (\\boxed{2})", "text", "2"),
    "<SUMMARY> S. </SUMMARY><REASONING> R. </REASONING><CONCLUSION> 2 </CONCLUSION>": (
        "S.  R. \\boxed{2}",
        "text",
        "2",
    ),
    "<answer>2</answer>": ("\\boxed{2}", "direct", "2"),
    "<answer>print('{')</answer>": ("\\boxed{print('{')}", "direct", "print('{')"),
    "\\boxed{2}": ("\\boxed{2}", "direct", "2"),
}


@pytest.mark.parametrize("format", CHATS)
def test_tags_of_answers(put, format):
    path = put("a.json", *(reply(format, answer) for answer in TAGGED))
    traces, errors, _ = read(format, path)
    assert not errors and [(told(t)[1][0], t.mode, t.answer) for t in traces] == list(TAGGED.values())


def test_a_question_that_asks_for_tags_is_named(put):
    row = ask("Answer in <answer> </answer>.", "<answer>2</answer>", "conversations")
    _, _, report = read("llava", put("a.json", row, row | {"id": "b"}))
    assert report.warnings == [
        "d/a.json:0: the question asks for <answer> tags, but answers are written as \\boxed{...}. (2 times in this file)"
    ]


ANSWERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>\\"), min_size=1, max_size=12).filter(
    str.strip
)


@settings(deadline=None, max_examples=60)
@given(ANSWERS, st.sampled_from(["<answer>%s</answer>", "Hm. <CONCLUSION> %s </CONCLUSION>"]))
def test_a_tagged_answer_is_found_or_refused(tmp_path_factory, answer, form):
    """Braces as they come: the answer is the one that is written, or the row is refused; never another one."""
    file = tmp_path_factory.mktemp("answer") / "a.jsonl"
    file.write_text(json.dumps(reply("llava", form % answer)))
    (result,) = formats.load("llava").read(file)
    if isinstance(result, DataError):
        assert result.code == "E17" and ("{" in answer or "}" in answer)
    else:
        assert result.answer == answer.strip()


@settings(deadline=None, max_examples=40)
@given(ANSWERS)
def test_an_answer_column_is_kept_whole(tmp_path_factory, answer):
    file = tmp_path_factory.mktemp("answer") / "a.jsonl"
    file.write_text(json.dumps(reply("swimbird", "So", answer=answer)))
    (trace,) = formats.load("swimbird").read(file)
    assert trace.answer == answer.strip() and told(trace)[1] == [f"So \\boxed{{{answer.strip()}}}"]


EQUAL = [
    ("\\frac12", "\\frac{1}{2}"),
    ("\\dfrac{1}{2}", "0.5"),
    ("1/2", "\\frac{1}{2}"),
    ("3.0", "3"),
    ("1,000", "1000"),
    ("$x$", "x"),
    ("70^\\circ", "70°"),
    ("\\text{left}", "Left"),
    ("(A)", "a"),
    ("50\\%", "50%"),
    ("\\left( 1, 2 \\right)", "(1,2)"),
]
DIFFERENT = [
    ("3 cubes", "3"),
    ("x", "y"),
    ("1/0", "0"),
    ("12", "1,2"),
    ("-1", "1"),
    ("1/2", "2"),
    ("x_1", "X_1"),
    ("", "0"),
]


@pytest.mark.parametrize("first, second", EQUAL)
def test_values_that_are_equal(first, second):
    assert same_value(first, second) and same_value(second, first)


@pytest.mark.parametrize("first, second", DIFFERENT)
def test_values_that_differ(first, second):
    assert not same_value(first, second) and not same_value(second, first)


@pytest.mark.parametrize(
    "format, row",
    [
        ("zebra_cot", ZEBRA | {"Text Reasoning Trace": "So \\boxed{4}.", "reasoning_image_1": None}),
        ("swimbird", reply("swimbird", "So \\boxed{4}.", answer="3")),
        (
            "ilvr",
            ILVR | {"sequence_plan": [{"type": "text", "content": "So \\boxed{4}."}], "original_final_answer": "3"},
        ),
        ("interleaved", {"input_text": "Q", "label_text": "So \\boxed{4}.", "answer": "3"}),
        ("thinkmorph", {"question": "Q", "answer": 3, "resoning_thought_0": "So \\boxed{4}."}),
    ],
)
def test_two_answers(put, format, row):
    path = put("a.jsonl", row)
    _, (error,), _ = read(format, path)
    assert error.code == "E17" and "'3' but the text boxes '4'" in str(error) and "--answer field" in str(error)
    wanted = {"field": ("So \\boxed{3}.", "3"), "text": ("So \\boxed{4}.", "4")}
    for side, (text, answer) in wanted.items():
        (trace,) = formats.load(format).read(path, answer=side)
        assert (told(trace)[1][-1], trace.answer) == (text, answer)
        assert trace.meta.get("source_answer") == ("3" if side == "text" else None)
    with pytest.raises(ValueError, match=r"unknown answer 'both'. Use refuse, field, text"):
        formats.load(format).read(path, answer="both")


# -- what must not change in silence -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "answer, objects, wanted",
    [
        ("The <ref-object>: <bbox>", {"ref": ["dog"], "bbox": [[1, 2, 30, 40]]}, "The dog: [1, 2, 30, 40]"),
        ("<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", None, "a dog (1,2),(3,4)"),
        ("See <ref>the dog</ref><box>[[1, 2, 3, 4]]</box>.", None, "See the dog [[1, 2, 3, 4]]."),
        ("<box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>", None, "(1,2),(3,4) (5,6),(7,8)"),
        ("A <ref>footnote</ref>  and a <box>.", None, "A <ref>footnote</ref>  and a <box>."),
    ],
)
@pytest.mark.parametrize("format", ["sharegpt", "llava", "trl"])
def test_grounding_becomes_words(put, format, answer, objects, wanted):
    row = reply(format, answer, **({} if objects is None else {"objects": objects}))
    (trace,), errors, _ = read(format, put("a.jsonl", row))
    assert not errors and told(trace)[1] == [wanted] and "extra" not in trace.meta


@pytest.mark.parametrize(
    "name, value, loss", [("loss", False, 0), ("loss_scale", 0.5, 0.5), ("weight", 0, 0), ("train", True, 1)]
)
@pytest.mark.parametrize("format", ["sharegpt", "trl", "llava"])
def test_the_loss_of_a_turn(put, format, name, value, loss):
    row = reply(format, "Yes.")
    next(iter(row.values()))[1][name] = value
    (trace,), errors, report = read(format, put("a.jsonl", row))
    assert not errors and not report.warnings and trace.messages[1].content == (Text("Yes.", loss),)


def test_the_loss_of_a_turn_is_that_of_its_sketches(put):
    row = json.loads(json.dumps(SHAREGPT))
    row["messages"][1]["loss_scale"] = 0
    (trace,) = formats.load("sharegpt").read(put("a.jsonl", row), **SKETCH)
    assert [part.loss for part in trace.messages[1].content] == [0, 0, 0] and isinstance(
        trace.messages[1].content[1], Sketch
    )


UNPLACED = {
    "llava": LLAVA | ask("What?", key="conversations", image=["1.png", "2.png"]),
    "sharegpt": ask("What?", images=["1.png", "2.png"]),
    "trl": ask([{"type": "text", "text": "What?"}], images=["1.png", "2.png"]),
    "swimbird": ask("What?", key="conversations", image=["1.png", "2.png"], reasoning_image=[]),
    "visual_cot": ask("What?", key="conversations", image=["1.png", "2.png"]),
    "interleaved": {"input_text": "What?", "label_text": "Yes.", "input_img": ["1.png", "2.png"]},
    "zebra_cot": {
        "Question": "What?",
        "Text Reasoning Trace": "Hm.",
        "Final Answer": "Yes.",
        "problem_image_1": "1.png",
        "problem_image_2": "2.png",
    },
}


@pytest.mark.parametrize("format", UNPLACED)
def test_pictures_that_no_text_has_a_place_for(put, format):
    path = put("a.jsonl", UNPLACED[format])
    (trace,), _, report = read(format, path)
    assert told(trace)[0] == ["[1]", "[2]", "What?"]
    assert [sentence for sentence in report.warnings if "--unplaced-image refuse" in sentence]
    report = Report()
    (trace,) = formats.load(format).read(path, report=report, unplaced_image="drop")
    assert told(trace)[0] == ["What?"] and "dropped" in report.warnings[0]
    (error,) = formats.load(format).read(path, unplaced_image="refuse")
    assert error.code in ("E10", "E12") and "--unplaced-image" in str(error)
    with pytest.raises(ValueError, match=r"unknown unplaced_image 'last'. Use first, drop, refuse"):
        formats.load(format).read(path, unplaced_image="last")


def test_pictures_in_a_part_and_in_a_column_are_refused(put):
    row = ask([{"type": "image", "image": "1.png"}, "What?"], images=["2.png"])
    _, (error,), _ = read("trl", put("a.jsonl", row))
    assert error.code == "E10"


@pytest.mark.parametrize("format", ["llava", "monet", "swimbird"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_place_without_a_picture_is_named(put, format, number):
    row = reply(format, "Yes.")
    turn = next(iter(row.values()))[number]
    turn["value" if "value" in turn else "content"] = [{"type": "image"}, {"type": "text", "text": "So."}]
    _, (error,), _ = read(format, put("a.jsonl", row))
    assert error.code == "E10"

"""Chats of others in every usual layout: the same turns, whatever their names, parts and references to pictures."""

import base64
import json
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from data_samples import (
    ILVR,
    LATENT_SKETCHPAD,
    LLAVA,
    LVR,
    MATHCANVAS,
    MONET,
    SAMPLES,
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

from latent_reason.cli import main
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


# -- formats -----------------------------------------------------------------------------------------------------------
def test_lvr_boxes_that_leave_the_picture_are_cut_and_counted(put):
    over = [LVR | {"bboxes": [[0.5, -0.01, 1.004, 0.5]], "question_id": number} for number in range(3)]
    traces, errors, report = read("lvr", put("a.json", *over, LVR))
    assert not errors and [trace.sketches()[0].box for trace in traces[:3]] == [(0.5, 0, 1, 0.5)] * 3
    assert report.warnings == [
        "d/a.json:0: bboxes[0]: a box leaves the image by up to 5% of its side and is cut. (3 times in this file)"
    ]
    (trace,) = formats.load("lvr").read(put("b.json", LVR | {"bboxes": [[5, 0, 10.2, 5]]}), box_unit="pixel")
    assert trace.sketches()[0].box == (0.5, 0, 1, 0.5)
    _, (error,), _ = read("lvr", put("c.json", LVR | {"bboxes": [[0.5, 0, 1.2, 0.5]]}))
    assert error.code == "E15" and "[0.5, 0, 1.2, 0.5] is not in 0-1" in str(error)


@pytest.mark.parametrize(
    "content, wanted",
    [
        (["A <s>B", 1, "C"], ["A ", "(1)", "B", "C"]),
        (["<s>A", 1], ["(1)", "A"]),
        ([1, "<s>A"], ["(1)", "A"]),
        (["A<s>", "B", 1, "C"], ["A", "(1)", "B", "C"]),
        (["A<s>B<s>C", 1, 2], ["A", "(1)", "B", "(2)", "C"]),
        (["<o>A</o>B<s>", 1, "<o>C</o>"], ["A", "B", "(1)", "C"]),
        (["<o>A<s>B</o>C", 1], ["A", "(1)", "B", "C"]),
        (["A<abs_vis_token> </abs_vis_token>B", 1], ["A", "(1)", "B"]),
    ],
)
def test_monet_signs_are_the_places(put, content, wanted):
    marks = {"<s>": "<abs_vis_token></abs_vis_token>", "<o>": "<observation>", "</o>": "</observation>"}

    def part(value):
        if isinstance(value, int):
            return {"type": "image", "image": f"{value}.png"}
        for mark, sign in marks.items():
            value = value.replace(mark, sign)
        return {"type": "text", "text": value}

    row = MONET | {"data": [*MONET["data"][:2], {"role": "assistant", "content": [part(value) for value in content]}]}
    (trace,), errors, _ = read("monet", put("a.json", row), observation_loss=2)
    assert not errors and told(trace)[2] == wanted
    places = [isinstance(part, Sketch) for part in trace.messages[2].content]
    weighed = [i for i, part in enumerate(trace.messages[2].content) if isinstance(part, Text) and part.loss == 2]
    assert all(True in places[:i] for i in weighed), "an observation before any picture is text like any other"


def test_swimbird_numbers_of_thoughts(put):
    chat = ask(
        "<image>THOUGHT 1: which?", "THOUGHT 0: A.\n\nTHOUGHT 1:<image>\n THOUGHT 12: B: THOUGHT 3: C", "conversations"
    )
    row = SWIMBIRD | {"conversations": chat["conversations"]}
    (trace,), _, _ = read("swimbird", put("a.json", row))
    assert told(trace) == [["[1]", "THOUGHT 1: which?"], ["A.\n\n", "(2)", "B: THOUGHT 3: C \\boxed{left}"]]


def test_mathcanvas_orders_options_and_open_questions(put):
    image = {"type": "image", "content": "", "index": 1}
    solution = [image, image | {"index": 0}, {"type": "text", "content": "So.", "index": 0}]
    swapped = MATHCANVAS | {
        "solution_interleave": solution,
        "solution_images": ["2.png", "3.png"],
        "options": ["x", "y"],
    }
    plain = {"type": "image", "content": ""}
    unnumbered = swapped | {"solution_interleave": [plain, plain, solution[2]], "options": None, "id": "b"}
    open_row = MATHCANVAS | {"solution_interleave": [], "solution_images": [], "id": "c"}
    (first, second, third), errors, _ = read("interleaved", put("a.jsonl", swapped, unnumbered, open_row))
    assert not errors and told(first) == [["Find the angle.", "[1]", "\nA. x\nB. y"], ["(3)", "(2)", "So. \\boxed{60}"]]
    assert told(second)[1] == ["(2)", "(3)", "So. \\boxed{60}"]
    assert (len(third.messages), third.split, third.answer) == (1, "test", "60")


def test_visual_cot_without_a_region_and_with_two(put):
    plain = ask("<image>What?", key="conversations", image="1.png")
    two = VISUAL_COT | {
        "image": ["1.png", "1.png###[0, 0, 5, 5]", "1.png###[5, 5, 10, 10]"],
        "conversations": [
            *VISUAL_COT["conversations"],
            {"from": "human", "value": "<image>"},
            {"from": "gpt", "value": "Two."},
        ],
    }
    (first, second), errors, _ = read("visual_cot", put("a.json", plain, two))
    assert not errors and told(first) == [["[1]", "What?"], ["Yes."]]
    assert told(second)[1] == ["[0.1, 0.1, 0.6, 0.8]", "(1)", "A feather.", "(1)", "Two."]
    assert [sketch.box for sketch in second.sketches()] == [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)]


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize(
    "write",
    [
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=1),
        lambda rows: "\n".join(map(json.dumps, rows)),
        lambda rows: "\r\n\r\n".join(map(json.dumps, rows)) + "\r\n",
        lambda rows: "\ufeff\n" + json.dumps(rows, indent=1),
    ],
)
def test_lists_and_lines_by_their_content(put, suffix, write):
    put("a.jsonl")
    Path(f"d/a{suffix}").write_text(write([LLAVA, LLAVA | {"id": "l2"}]), encoding="utf-8", newline="")
    traces, errors, _ = read("llava", f"d/a{suffix}")
    assert not errors and [trace.id for trace in traces] == ["l1", "l2"]


def test_a_file_of_another_format_gets_one_message(put, capsys):
    path = put("a.json", *[LLAVA | {"id": f"{number}"} for number in range(300)])
    for format, field in (("zebra_cot", "Question"), ("thinkmorph", "instruction_list"), ("mirage", "text_input")):
        (error,) = formats.load(format).read(path)
        kind = "a list" if field.endswith("list") else "a string"
        assert str(error) == (
            f"d/a.json: {field}: missing, expected {kind}. See the format table. So in its first 100 rows: the file is "
            "of another format. Its columns are 'id', 'image', 'conversations': llava or visual_cot?"
        )
    with pytest.raises(SystemExit):
        main(["data", "convert", "mirage", path, "out", "--on-error", "skip", "--max-skip", "0.5"])
    assert capsys.readouterr().out.count("E05") == 2, "the error and its count"
    few = put("b.jsonl", *[MONET] * 3)
    (error,) = formats.load("llava").read(few)
    assert "So in all its rows" in str(error) and "monet?" in str(error)
    assert len(list(formats.load("llava").read(put("c.json", MONET, MONET, LLAVA)))) == 3, "some rows fit"


def test_files_that_hold_no_data_are_left_out(put):
    put("a.jsonl", LLAVA)
    for name in ("dataset_infos.json", "state.json", ".cache/x.json", "parquet_info/p.json"):
        put(name, {"a": 1})
    traces, errors, report = read("llava", "d")
    assert len(traces) == 1 and not errors and report.files == 1


def test_rows_in_a_key_are_named(put):
    put("a.json")
    Path("d/a.json").write_text(json.dumps({"version": 1, "data": [LLAVA, LLAVA]}))
    _, (error,), _ = read("llava", "d/a.json")
    assert str(error) == "d/a.json:0: record: the rows are in its key 'data' (2). Write this list to a file of its own."


def test_check_of_another_format(put, capsys):
    good = put("a.json", LLAVA)
    main(["data", "check", good, "--format", "llava"])
    assert capsys.readouterr().out.startswith("1 of 1 rows usable")
    bad = put("b.jsonl", UNPLACED["sharegpt"])
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", bad, "--format", "sharegpt", "--unplaced-image", "refuse"])
    assert ended.value.code == 2 and "--unplaced-image first" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'native' has no option --answer"):
        main(["data", "check", good, "--answer", "text"])
    with pytest.raises(SystemExit, match="unknown format 'lava'"):
        main(["data", "check", good, "--format", "lava"])


# -- nothing but a trace or an error -----------------------------------------------------------------------------------
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from(["", " ", "x", "<image>", "1.png", "\\boxed{", "<answer>"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "image", "from", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def spoil(data, value):
    """``value`` with one leaf, entry or column replaced by anything, or left out."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(value)))
        if not data.draw(st.integers(0, 5)):
            return {name: one for name, one in value.items() if name != key}
        return value | {key: spoil(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.integers(0, 9)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], spoil(data, value[at]), *value[at + 1 :]]
    return data.draw(junk)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_spoilt_row_is_a_trace_or_an_error_in_its_place(tmp_path_factory, data):
    format, row, options, *_ = data.draw(st.sampled_from(SAMPLES))
    folder = tmp_path_factory.mktemp("spoilt")
    for number in range(1, 5):
        picture(number).save(folder / f"{number}.png")
    (folder / "a.jsonl").write_text(json.dumps(spoil(data, spoil(data, row))))
    for result in formats.load(format).read(folder / "a.jsonl", **options):
        assert isinstance(result, Trace | DataError)
        if isinstance(result, DataError):
            assert str(result).startswith(str(folder / "a.jsonl")) and str(result).endswith((".", "?"))


def test_an_id_that_every_row_has(put):
    rows = [LLAVA | {"id": "x" * 200, "image": None, **ask("Q", key="conversations")}] * 3000
    traces = list(formats.load("llava").read(put("a.json", *rows)))
    assert len({trace.id for trace in traces}) == 3000 and max(len(trace.id) for trace in traces) <= 128


def test_the_same_error_of_every_row_is_told_of_every_row(put):
    errors = list(formats.load("llava").read(put("a.json", *[LLAVA | {"image": [None, "1.png"]}] * 3)))
    assert [error.row for error in errors] == [0, 1, 2], "the file is of the format, so each row counts"

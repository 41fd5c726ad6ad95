"""A made-up sample of every format of others, and what tests of them share."""

from PIL import Image as PILImage

from latent_reason.data import formats, native
from latent_reason.data.errors import DataError, Report
from latent_reason.trace import Image, Text


def picture(number: int) -> PILImage.Image:
    """10 x 10 pixels whose grey is their number: so a sample tells which picture stands where."""
    return PILImage.new("RGB", (10, 10), (number, number, number))


def shown(part) -> str:
    if isinstance(part, Text):
        return part.text
    number = part.image.getpixel((0, 0))[0]
    return f"[{number}]" if isinstance(part, Image) else f"({number})"


def told(trace) -> list[list[str]]:
    """The parts of every turn: texts as they are, [n] for an input picture, (n) for a sketch."""
    return [[shown(part) for part in message.content] for message in trace.messages]


def read(format, path, **options):
    """(traces, errors, report); every trace survives being written and read as a native record."""
    report = Report()
    found = list(formats.load(format).read(path, report=report, **options))
    traces = [one for one in found if not isinstance(one, DataError)]
    assert [one for one in found if isinstance(one, DataError)] == report.errors and len(traces) == report.traces
    if traces:
        folder = f"native-{format}"
        assert [told(t) for t in native.read(native.write(traces, folder))] == [told(t) for t in traces]
    return traces, report.errors, report


ZEBRA = {
    "Question": "<image_start>[problem_image_1]<image_end> Remove all cubes. How many are left?",
    "Text Reasoning Trace": "THOUGHT 0: Two cubes go.\n<image_start>[reasoning_image_1]<image_end>\n"
    "THOUGHT 1: Three stay.",
    "Final Answer": "3",
    "problem_image_1": "1.png",
    "reasoning_image_1": "2.png",
}
SWIMBIRD = {
    "id": "s1",
    "image": ["1.png"],
    "reasoning_image": ["2.png"],
    "answer": "left",
    "conversations": [
        {"from": "human", "value": "<image>\nWhich way out?"},
        {"from": "gpt", "value": "THOUGHT 1: Trace the corridor.<image>It ends on the left."},
    ],
}
MIRAGE = {
    "text_input": "Here is the map: <image>\nIs the plan R, U safe?",
    "image_input": "./1.png",
    "image_output": "./2.png",
    "text_output": "<think> One step right. </think><output_image><think> One up. </think>The answer is \\boxed{A}.",
}
MAP = {"text_input": "Plan.", "image_input": ["1.png"], "map_id": "7", "map_desc": [[1, 0], [-1, 2]]}
ILVR = {
    "text_input": "Mark the tallest bar.",
    "image_input": ["1.png"],
    "sequence_plan": [
        {"type": "text", "content": "Compare the tops."},
        {"type": "latent", "helper_image": "2.png"},
        {"type": "text", "content": "Bar C. \\boxed{C}"},
    ],
}
LVR = {
    "dataset": "demo",
    "split": "train",
    "question_id": 5,
    "image": ["1.png"],
    "bboxes": [[0.41, 0.1, 0.62, 0.28]],
    "conversations": [
        {"from": "human", "value": "<image>\nColour of the hat?"},
        {"from": "gpt", "value": "<lvr>\n<answer> blue </answer>"},
    ],
}
THINKMORPH = {
    "image_list": ["1.png", "2.png"],
    "instruction_list": ["Which piece fits?"],
    "output_text_list": [
        "<think>Try A.</think><image_start>",
        "<image_end><think>The edges meet.</think><answer>A</answer>",
    ],
}
MONET = {
    "metadata": {"dataset_name": "demo", "sample_id": 2},
    "data": [
        {"role": "system", "content": [{"type": "text", "text": "-"}]},
        {
            "role": "user",
            "content": [{"type": "image", "image": "1.png"}, {"type": "text", "text": "How many red dots?"}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Zoom. <abs_vis_token></abs_vis_token>"},
                {"type": "image", "image": "2.png"},
                {"type": "text", "text": "<observation>Four dots</observation> \\boxed{4}"},
            ],
        },
    ],
}
LLAVA = {
    "id": "l1",
    "image": "1.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A lamp."}],
}
SHAREGPT = {
    "messages": [
        {"role": "user", "content": "<image>Solve."},
        {"role": "assistant", "content": "Draw the line.<image>So x is 3."},
    ],
    "images": ["1.png", "2.png"],
}
TRL = {
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Colour?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
    ],
    "images": ["1.png"],
}
MMFINEREASON = {
    "id": 7,
    "source": "Euclid30K",
    "question": "What is the height?",
    "ori_question": "Find the height.",
    "image": "1.png",
    "answer": "4",
    "original_answer": "4",
    "caption": "A triangle.",
    "qwen3vl_235b_thinking_response": "<think>\nThe sides are 3 and 5.\n</think>\nSo the height is <answer>4</answer>",
    "pass_rate": 0.25,
    "is_consistent": True,
    "consistency_analysis": "Both say 4.",
}
LATENT_SKETCHPAD = {
    "input_text": "<image>Find the exit.",
    "input_img": ["1.png"],
    "label_text": "Go up. <image> Then right. <image> \\boxed{up,right}",
    "label_img": ["2.png", "3.png"],
}
MATHCANVAS = {
    "id": "m1",
    "question_interleave": [
        {"type": "text", "content": "Find the angle.", "index": 0},
        {"type": "image", "content": "images/q0.jpg", "index": 0},
    ],
    "question_images": ["1.png"],
    "solution_interleave": [
        {"type": "text", "content": "Draw the height.", "index": 0},
        {"type": "image", "content": "images/s0.jpg", "index": 0},
        {"type": "text", "content": "It halves the side.", "index": 1},
    ],
    "solution_images": ["2.png"],
    "answer": "60",
    "options": None,
}
THINKMORPH_HUB = {
    "pid": "7",
    "question": "Which piece fits?",
    "answer": "A",
    "problem_image_0": "1.png",
    "resoning_thought_0": "Try A.",
    "reasoning_image_0": "2.png",
    "resoning_thought_1": "The edges meet.",
}
VISUAL_COT = {
    "dataset": "demo",
    "split": "train",
    "question_id": 3,
    "image": ["1.png", "1.png###[1, 1, 6, 8]"],
    "conversations": [
        {"from": "human", "value": "<image>\nWhat sits on the hat? Give a box around it."},
        {"from": "gpt", "value": "[0.1, 0.1, 0.6, 0.8]"},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "A feather."},
    ],
}
SKETCH = {"assistant_image": "sketch"}

TABLE = {
    "id": "t1",
    "images": ["1.png"],
    "problem": "<image>Find x.",
    "solution": 3,
    "reasoning": "Two sides are equal.",
}
#: format, row, options -> turns, mode, answer, id, checker
SAMPLES = [
    (
        "zebra_cot",
        ZEBRA,
        {},
        [["[1]", "Remove all cubes. How many are left?"], ["Two cubes go.", "(2)", "Three stay. \\boxed{3}"]],
        "mixed",
        "3",
        "a-1",
        "same_text",
    ),
    (
        "swimbird",
        SWIMBIRD,
        {},
        [["[1]", "Which way out?"], ["Trace the corridor.", "(2)", "It ends on the left. \\boxed{left}"]],
        "mixed",
        "left",
        "s1",
        "same_text",
    ),
    (
        "mirage",
        MIRAGE,
        {},
        [
            ["Here is the map: ", "[1]", "Is the plan R, U safe?"],
            ["One step right. ", "(2)", " One up. The answer is \\boxed{A}."],
        ],
        "mixed",
        "A",
        "a-1",
        "mirage_check",
    ),
    ("mirage", MAP, {}, [["[1]", "Plan."]], "mixed", None, "7", "mirage"),
    (
        "ilvr",
        ILVR,
        {},
        [["[1]", "Mark the tallest bar."], ["Compare the tops.", "(2)", "Bar C. \\boxed{C}"]],
        "mixed",
        "C",
        "a-1",
        "same_text",
    ),
    (
        "ilvr",
        {"text_input": "Which?", "image_input": "1.png", "original_final_answer": "B"},
        {},
        [["[1]", "Which?"]],
        "mixed",
        "B",
        "a-1",
        "same_text",
    ),
    (
        "ilvr",
        MIRAGE,
        {},
        [
            ["Here is the map: ", "[1]", "Is the plan R, U safe?"],
            ["One step right. ", "(2)", " One up. The answer is \\boxed{A}."],
        ],
        "mixed",
        "A",
        "a-1",
        "mirage_check",
    ),
    (
        "lvr",
        LVR,
        {},
        [["[1]", "Colour of the hat?"], ["(1)", "\\boxed{blue}"]],
        "vision",
        "blue",
        "demo-5",
        "same_text",
    ),
    (
        "thinkmorph",
        THINKMORPH,
        {},
        [["[1]", "Which piece fits?"], ["Try A.", "(2)", "The edges meet.\n\\boxed{A}"]],
        "mixed",
        "A",
        "a-1",
        "same_text",
    ),
    (
        "monet",
        MONET,
        {},
        [["-"], ["[1]", "How many red dots?"], ["Zoom. ", "(2)", "Four dots", " \\boxed{4}"]],
        "mixed",
        "4",
        "demo-2",
        "same_text",
    ),
    (
        "mmfinereason",
        MMFINEREASON,
        {},
        [["[1]", "What is the height?"], ["The sides are 3 and 5.\n\nSo the height is \\boxed{4}"]],
        "text",
        "4",
        "7",
        "same_text",
    ),
    ("llava", LLAVA, {}, [["[1]", "What is it?"], ["A lamp."]], "direct", None, "l1", "same_text"),
    (
        "sharegpt",
        SHAREGPT,
        SKETCH,
        [["[1]", "Solve."], ["Draw the line.", "(2)", "So x is 3."]],
        "mixed",
        None,
        "a-1",
        "same_text",
    ),
    ("trl", TRL, {}, [["[1]", "Colour?"], ["Red."]], "direct", None, "a-1", "same_text"),
    (
        "interleaved",
        LATENT_SKETCHPAD,
        {},
        [["[1]", "Find the exit."], ["Go up. ", "(2)", " Then right. ", "(3)", " \\boxed{up,right}"]],
        "mixed",
        "up,right",
        "a-1",
        "same_text",
    ),
    (
        "interleaved",
        MATHCANVAS,
        {},
        [["Find the angle.", "[1]"], ["Draw the height.", "(2)", "It halves the side. \\boxed{60}"]],
        "mixed",
        "60",
        "m1",
        "same_text",
    ),
    (
        "interleaved",
        THINKMORPH_HUB,
        {},
        [["[1]", "Which piece fits?"], ["Try A.", "(2)", "The edges meet. \\boxed{A}"]],
        "mixed",
        "A",
        "7",
        "same_text",
    ),
    (
        "thinkmorph",
        THINKMORPH_HUB,
        {},
        [["[1]", "Which piece fits?"], ["Try A.", "(2)", "The edges meet. \\boxed{A}"]],
        "mixed",
        "A",
        "7",
        "same_text",
    ),
    (
        "visual_cot",
        VISUAL_COT,
        {},
        [["[1]", "What sits on the hat? Give a box around it."], ["[0.1, 0.1, 0.6, 0.8]", "(1)", "A feather."]],
        "mixed",
        None,
        "demo-3",
        "same_text",
    ),
    (
        "table",
        TABLE,
        {"columns": {"question": "problem", "answer": "solution", "trace": "reasoning"}, "checker": "number"},
        [["[1]", "Find x."], ["Two sides are equal. \\boxed{3}"]],
        "text",
        "3",
        "t1",
        "number",
    ),
]

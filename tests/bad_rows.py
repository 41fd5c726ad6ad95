"""Rows of other formats that are wrong, with the code and the words of their error. ``BAD`` is the table."""

from __future__ import annotations

from data_samples import (
    ILVR,
    LATENT_SKETCHPAD,
    LLAVA,
    LVR,
    MAP,
    MATHCANVAS,
    MIRAGE,
    MONET,
    SHAREGPT,
    SWIMBIRD,
    THINKMORPH,
    TRL,
    VISUAL_COT,
    ZEBRA,
)


def change(row, **values):
    return row | values


def turn(row, i, **values):
    """``row`` with a turn of its conversation changed."""
    key = next(key for key in ("conversations", "messages", "data") if key in row)
    return row | {key: [old | values if j == i else old for j, old in enumerate(row[key])]}


def content(i, *parts):
    return turn(MONET, i, content=[{"type": "text", "text": part} if isinstance(part, str) else part for part in parts])


PICTURE, SIGN = {"type": "image", "image": "2.png"}, "<abs_vis_token></abs_vis_token>"
REFERENCE = "<image_start>[{}]<image_end>"
BAD = [
    (
        "zebra_cot",
        change(ZEBRA, reasoning_image_1=None),
        "E11",
        "reasoning_image_1: named in the trace, column empty. Fill it or drop the row.",
    ),
    (
        "zebra_cot",
        {k: v for k, v in ZEBRA.items() if k != "problem_image_1"},
        "E11",
        "problem_image_1: named in the trace, column empty. Fill it or drop the row.",
    ),
    (
        "zebra_cot",
        change(ZEBRA, Question=REFERENCE.format("video_1")),
        "E06",
        "Question: names 'video_1'. Use problem_image_N or reasoning_image_N.",
    ),
    (
        "zebra_cot",
        change(ZEBRA, Question=REFERENCE.format("reasoning_image_1")),
        "E06",
        "Question: names 'reasoning_image_1', a sketch in the question. Use problem_image_N.",
    ),
    (
        "zebra_cot",
        ZEBRA | {"Text Reasoning Trace": " "},
        "E14",
        "Text Reasoning Trace: empty. Drop the row or fill it.",
    ),
    ("zebra_cot", ZEBRA | {"Final Answer": ""}, "E14", "Final Answer: empty. Drop the row or fill it."),
    (
        "zebra_cot",
        change(ZEBRA, Question="a <image_start> b"),
        "E18",
        "Question: contains the reserved token '<image_start>'. Remove or escape it.",
    ),
    (
        "zebra_cot",
        change(ZEBRA, problem_image_1="no.png"),
        "E07",
        "problem_image_1: 'no.png' not found under 'd'. Correct the path or give --image-root.",
    ),
    ("zebra_cot", {"Final Answer": "3"}, "E05", "Question: missing, expected a string. See the format table."),
    (
        "zebra_cot",
        change(ZEBRA, reasoning_image_2="3.png"),
        "E12",
        "reasoning_image_2: an image without a reference in the texts. Refer to it, or use --unplaced-image drop.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, image=[]),
        "E10",
        "conversations: 1 <image> in human turns, 0 entries in 'image'. Counts must match.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, reasoning_image=["2.png", "3.png"]),
        "E10",
        "conversations: 1 <image> in gpt turns, 2 entries in 'reasoning_image'. Counts must match.",
    ),
    (
        "swimbird",
        turn(SWIMBIRD, 1, value="Left."),
        "E10",
        "conversations: 0 <image> in gpt turns, 1 entry in 'reasoning_image'. Mark their places, or convert with "
        "--unplaced-image drop.",
    ),
    (
        "swimbird",
        change(turn(SWIMBIRD, 1, value=" "), reasoning_image=[]),
        "E14",
        "conversations[1].value: empty. Drop the row or fill it.",
    ),
    ("swimbird", change(SWIMBIRD, answer=""), "E14", "answer: empty. Drop the row or fill it."),
    (
        "swimbird",
        turn(SWIMBIRD, 1, **{"from": "human"}),
        "E19",
        "conversations[1].from: two user turns in a row. Join them.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, conversations=SWIMBIRD["conversations"][:1]),
        "E19",
        "conversations: no answer turn at the end. Add the answer.",
    ),
    (
        "swimbird",
        turn(SWIMBIRD, 1, value="<image>So \\boxed{right}"),
        "E17",
        "answer: 'left' but the text boxes 'right'. Correct one of them, or say which one is right with --answer field "
        "or --answer text.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, image="../1.png"),
        "E08",
        "image: '../1.png' leaves the data folder. Move the image inside it, or name a folder above it: --image-root.",
    ),
    (
        "swimbird",
        turn(SWIMBIRD, 0, value=3),
        "E05",
        "conversations[0].value: expected a string or a list of parts, found a number. See the format table.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, image=["1.png", None]),
        "E05",
        "image[1]: expected a path, found null. See the format table.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, id=[1]),
        "E05",
        "id: expected a string or a whole number, found a list. See the format table.",
    ),
    (
        "swimbird",
        change(SWIMBIRD, latent_reason="{}"),
        "E05",
        "latent_reason: expected an object of id, task, split, level, mode, answer, checker, meta. Drop this column.",
    ),
    (
        "mirage",
        change(MIRAGE, text_output="Straight up. \\boxed{A}"),
        "E10",
        "text_output: 0 <output_image>, expected 1. Mark the place of the sketch.",
    ),
    (
        "mirage",
        change(MIRAGE, text_output="<output_image><output_image>\\boxed{A}"),
        "E10",
        "text_output: 2 <output_image>, expected 1. Mark the place of the sketch.",
    ),
    (
        "mirage",
        change(MIRAGE, image_input=["1.png", "3.png"]),
        "E10",
        "text_input: 1 <image> in the question, 2 entries in 'image_input'. Counts must match.",
    ),
    (
        "mirage",
        change(MIRAGE, image_output="5.png"),
        "E07",
        "image_output: '5.png' not found under 'd'. Correct the path or give --image-root.",
    ),
    (
        "mirage",
        change(MIRAGE, text_output="<output_image>"),
        "E14",
        "answer: missing: the last turn ends with an image. Add the answer.",
    ),
    (
        "mirage",
        change(MAP, map_desc=[[1, 1], [0, 2]]),
        "E05",
        "map_desc: has 2 x start and 1 x goal, expected one of each. "
        "Use rows of equal length of 1 (start), 2 (goal), -1 (hole), 0.",
    ),
    (
        "mirage",
        change(MAP, map_desc=[[1, 2], [0]]),
        "E05",
        "map_desc: the rows are not lists of equal length. Use rows of equal length of 1 (start), 2 (goal), -1 (hole), 0.",
    ),
    (
        "mirage",
        change(MAP, map_desc=[[1, 2, "x"]]),
        "E05",
        "map_desc: holds 'x'. Use rows of equal length of 1 (start), 2 (goal), -1 (hole), 0.",
    ),
    (
        "ilvr",
        change(ILVR, sequence_plan=[{"type": "zoom"}]),
        "E06",
        "sequence_plan[0].type: 'zoom' is no step type. Use text or latent.",
    ),
    (
        "ilvr",
        change(ILVR, sequence_plan=[{"type": "latent"}]),
        "E05",
        "sequence_plan[0].helper_image: missing, expected a path. See the format table.",
    ),
    (
        "ilvr",
        change(ILVR, image_input="/1.png"),
        "E08",
        "image_input: '/1.png' is an absolute path. Give a path relative to the data folder, or name a folder above it: --image-root.",
    ),
    ("ilvr", change(ILVR, sequence_plan=[]), "E14", "sequence_plan: empty. Drop the row or fill it."),
    (
        "ilvr",
        change(ILVR, sequence_plan=[{"type": "text", "content": ""}]),
        "E14",
        "sequence_plan: no step has content. Drop the row or fill it.",
    ),
    (
        "lvr",
        change(LVR, bboxes=[]),
        "E10",
        "conversations: 1 <lvr> in gpt turns, 0 entries in 'bboxes'. Counts must match.",
    ),
    (
        "lvr",
        change(LVR, bboxes=[[120, 44, 300, 200]]),
        "E15",
        "bboxes[0]: [120, 44, 300, 200] is not in 0-1. Divide by the image size or give --box-unit pixel.",
    ),
    (
        "lvr",
        change(LVR, bboxes=[[0.1, 0.2, 0.3]]),
        "E15",
        "bboxes[0]: expected 4 numbers [x0, y0, x1, y1]. Correct or drop it.",
    ),
    ("lvr", change(LVR, bboxes=[None]), "E15", "bboxes[0]: expected 4 numbers [x0, y0, x1, y1]. Correct or drop it."),
    (
        "lvr",
        change(LVR, bboxes=[[0.5, 0, 0.4, 1]]),
        "E15",
        "bboxes[0]: [0.5, 0, 0.4, 1] holds no area: x0 < x1 and y0 < y1 are needed. Swap the corners.",
    ),
    (
        "lvr",
        change(LVR, bboxes=[[0.5, 0, float("nan"), 1]]),
        "E03",
        "bboxes[0][2]: NaN is not JSON. Replace or drop the row.",
    ),
    (
        "lvr",
        change(LVR, image=["1.png", "2.png"]),
        "E15",
        "bboxes: boxes of one of 2 images. Keep the image that they belong to.",
    ),
    (
        "lvr",
        change(turn(LVR, 0, value="Hat?"), image=[]),
        "E10",
        "image: no image for the boxes. Add it.",
    ),
    ("lvr", change(LVR, split="dev"), "E05", "split: 'dev' is not train, val, test or ood-<axis>. Correct it."),
    (
        "lvr",
        turn(LVR, 1, value="<lvr><answer>blue"),
        "E05",
        "conversations[1].value: <answer> is not closed. Correct the tags.",
    ),
    (
        "thinkmorph",
        change(THINKMORPH, image_list=["1.png"]),
        "E10",
        "image_list: 1 for 2 texts, expected 2 or more: "
        "those of the question and one between two texts. Counts must match.",
    ),
    (
        "thinkmorph",
        change(THINKMORPH, output_text_list=["Try A.", "<image_end><answer>A</answer>"]),
        "E05",
        "output_text_list[0]: <image_start> and <image_end> are not paired. Every text but the last ends in "
        "<image_start>, every text but the first begins with <image_end>.",
    ),
    (
        "thinkmorph",
        change(THINKMORPH, output_text_list=["Try.<image_start>", "<answer>A</answer>"]),
        "E05",
        "output_text_list[1]: <image_start> and <image_end> are not paired. Every text but the last ends in "
        "<image_start>, every text but the first begins with <image_end>.",
    ),
    (
        "thinkmorph",
        change(THINKMORPH, output_text_list=["Try.<image_start>", "<image_end>A"]),
        "E14",
        "output_text_list[1]: no <answer>. Add it, or drop the row.",
    ),
    ("thinkmorph", change(THINKMORPH, instruction_list=[]), "E14", "instruction_list: empty. Drop the row or fill it."),
    (
        "thinkmorph",
        change(THINKMORPH, image_list=["1.png", None]),
        "E05",
        "image_list[1]: expected a path, found null. See the format table.",
    ),
    (
        "monet",
        content(2, "Zoom.", PICTURE, "\\boxed{4}"),
        "E10",
        "data[2].content: 0 x <abs_vis_token></abs_vis_token>, 1 x image. Counts must match.",
    ),
    (
        "monet",
        content(2, SIGN, PICTURE, "<observation>4 \\boxed{4}"),
        "E05",
        "data[2].content[2].text: <observation> is not closed. Correct the tags.",
    ),
    (
        "monet",
        content(2, SIGN, PICTURE, "4</observation> \\boxed{4}"),
        "E05",
        "data[2].content[2].text: </observation> was not opened. Correct the tags.",
    ),
    (
        "monet",
        content(1, {"type": "video", "video": "x"}),
        "E06",
        "data[1].content[0].type: video is not supported. Drop the row.",
    ),
    (
        "monet",
        turn(MONET, 2, role="bot"),
        "E06",
        "data[2].role: 'bot' is no role. Use system, user, human, assistant, gpt.",
    ),
    (
        "llava",
        {k: v for k, v in LLAVA.items() if k != "image"},
        "E10",
        "conversations: 1 <image> in human turns, 0 entries in 'image'. Counts must match.",
    ),
    (
        "llava",
        change(LLAVA, image="x/1.png"),
        "E07",
        "image: 'x/1.png' not found under 'd'. Correct the path or give --image-root.",
    ),
    (
        "llava",
        change(LLAVA, conversations=LLAVA["conversations"][::-1]),
        "E19",
        "conversations[0].from: an assistant turn before any user turn. Begin with the question.",
    ),
    (
        "llava",
        turn(LLAVA, 1, value="See <image>"),
        "E18",
        "conversations[1].value: contains the reserved token '<image>'. Remove or escape it.",
    ),
    ("llava", change(LLAVA, video="v.mp4"), "E06", "video is not supported. Drop the row."),
    (
        "llava",
        turn(LLAVA, 0, value="<image><video>What goes on?"),
        "E06",
        "conversations[0].value: video is not supported. Drop the row.",
    ),
    (
        "llava",
        turn(LLAVA, 0, value="What is it?", images=["1.png"]),
        "E19",
        "conversations[0].images: images of one turn are not supported. Drop the row or move them.",
    ),
    (
        "llava",
        change(LLAVA, image={"name": "1.png"}),
        "E05",
        "image: an object without bytes or url or path or image or image_url or data. See the format table.",
    ),
    (
        "llava",
        turn(LLAVA, 1, value="<answer> </answer>"),
        "E14",
        "conversations[1].value: empty answer. Drop the row or fill it.",
    ),
    (
        "llava",
        turn(LLAVA, 1, value="<answer>a}b{</answer>"),
        "E17",
        "conversations[1].value: the answer 'a}b{' has unbalanced braces. Balance them.",
    ),
    (
        "visual_cot",
        change(VISUAL_COT, image=["1.png", "1.png###1, 2"]),
        "E15",
        "image[1]: '1, 2' is no box [x0, y0, x1, y1]. Correct or drop it.",
    ),
    (
        "visual_cot",
        change(VISUAL_COT, image=["1.png###[1, 1, 6, 8]", "1.png"]),
        "E06",
        "conversations[0].value: a region in the question. Its place is after the first answer.",
    ),
    (
        "visual_cot",
        change(VISUAL_COT, image=["1.png", "1.png###[1, 1, 60, 80]"]),
        "E15",
        "image[1]: [0.1, 0.1, 6.0, 8.0] is not in 0-1. Divide by the image size or give --box-unit pixel.",
    ),
    (
        "interleaved",
        change(LATENT_SKETCHPAD, label_img=["2.png"]),
        "E10",
        "input_text: 2 <image> in gpt turns, 1 entry in 'label_img'. Counts must match.",
    ),
    (
        "interleaved",
        change(MATHCANVAS, solution_images=[]),
        "E10",
        "solution_interleave: 1 image items in solution_interleave, 0 entries in 'solution_images'. Counts must match.",
    ),
    (
        "interleaved",
        change(MATHCANVAS, question_interleave=[{"type": "audio"}], question_images=[]),
        "E06",
        "question_interleave[0].type: 'audio' is no item type. Use text or image.",
    ),
    (
        "interleaved",
        {"question": "Which?", "answer": "A", "problem_image_0": "1.png"},
        "E14",
        "reasoning: no thought and no image. Drop the row or fill it.",
    ),
    ("interleaved", {"text": "x"}, "E05", "input_text: missing, expected a string. See the format table."),
    (
        "sharegpt",
        turn(SHAREGPT, 0, content="<image>Where is the <bbox>?"),
        "E10",
        "messages[0].content: <bbox> without an entry in 'objects.bbox'. Counts must match.",
    ),
    (
        "sharegpt",
        turn(SHAREGPT, 0, content="<image>Where is <bbox>?") | {"objects": {"bbox": [[1, 2], [3, 4]]}},
        "E10",
        "objects: 1 more in 'objects.bbox' than <bbox> in the texts. Counts must match.",
    ),
    (
        "sharegpt",
        turn(SHAREGPT, 1, content="At <loc0100><loc0200>"),
        "E18",
        "messages[1].content: contains '<loc0100>', which would be taught as text. Write the place in words.",
    ),
    (
        "sharegpt",
        turn(SHAREGPT, 1, tool_calls=[{"name": "zoom"}]),
        "E19",
        "messages[1].tool_calls: tool calls are not supported. Drop the row or move them.",
    ),
    (
        "sharegpt",
        SHAREGPT,
        "E06",
        "messages[1].content: an image in an answer. Convert with --assistant-image sketch.",
    ),
    (
        "sharegpt",
        change(SHAREGPT, images=["1.png"]),
        "E10",
        "messages: 2 <image> in all turns, 1 entry in 'images'. Counts must match.",
    ),
    ("sharegpt", change(SHAREGPT, videos=["v.mp4"]), "E06", "videos: video is not supported. Drop the row."),
    (
        "sharegpt",
        turn(SHAREGPT, 0, role="observation"),
        "E19",
        "messages[0].role: 'observation' turns are not supported. Put their content into other turns.",
    ),
    (
        "sharegpt",
        turn(SHAREGPT, 1, content=None),
        "E05",
        "messages[1].content: expected a string or a list of parts, found null. See the format table.",
    ),
    (
        "trl",
        change(TRL, images=[]),
        "E10",
        "messages: 1 'image' in all turns, 0 entries in 'images'. Counts must match.",
    ),
    (
        "trl",
        turn(TRL, 1, content=None),
        "E05",
        "messages[1].content: expected a string or a list of parts, found null. See the format table.",
    ),
    (
        "trl",
        turn(TRL, 0, role="robot"),
        "E06",
        "messages[0].role: 'robot' is no role. Use system, user, human, assistant, gpt.",
    ),
    (
        "trl",
        turn(TRL, 0, role="tool"),
        "E19",
        "messages[0].role: 'tool' turns are not supported. Put their content into other turns.",
    ),
    (
        "trl",
        turn(TRL, 1, content=[PICTURE, {"type": "text", "text": "B"}]),
        "E06",
        "messages[1].content[0].image: an image in an answer. Convert with --assistant-image sketch.",
    ),
    (
        "trl",
        change(TRL, sketch_index=[0]),
        "E10",
        "sketch_index: [0], but the images of the assistant are []. Correct it.",
    ),
]

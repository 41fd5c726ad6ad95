"""Small rows of the shapes of public sets (``../shared/cases/rows``), each with the right value."""

from pathlib import Path

import pytest
from data_samples import shown

from latent_reason.data import formats
from latent_reason.data.errors import DataError, Report

ROWS = Path(__file__).parents[3] / "shared" / "cases" / "rows"
#: format, file, options -> (turns, answer) of every row, or the text of an error; pictures are named by their file
CASES = [
    ("mirage", "mirage_map_id_per_level.jsonl", {}, [([["Find a way. ", "a"]], None)] * 2),
    (
        "llava",
        "llava_same_id.json",
        {},
        [([["a", "Colour?"], ["Red."]], None), ([["a", "Shape?"], ["A square."]], None)],
    ),
    (
        "monet",
        "monet_system_prompt",
        {},
        [
            (
                [
                    ["Help. Put abstract tokens in <abs_vis_token>...</abs_vis_token>."],
                    ["a", "How many dots?"],
                    ["Zoom. ", "(b)", "Four dots", " \\boxed{4}"],
                ],
                "4",
            )
        ],
    ),
    (
        "monet",
        "monet_sign_inside",
        {},
        [
            (
                [
                    ["-"],
                    ["a", "How many dots?"],
                    ["BEFORE the picture. ", "(b)", " AFTER the picture.", "Four dots", " \\boxed{4}"],
                ],
                "4",
            )
        ],
    ),
    (
        "monet",
        "monet_sign_first_in_last_text",
        {},
        [
            (
                [
                    ["-"],
                    ["a", "How many dots?"],
                    ["Zoom. ", "(b)", "Not there.", " Again.", "(c)", "It is a leaf.", "\n\n\\boxed{leaf}"],
                ],
                "leaf",
            )
        ],
    ),
    (
        "monet",
        "monet_observation_behind_sign",
        {},
        [
            (
                [
                    ["-"],
                    ["a", "How many dots?"],
                    ["I read the text. ", "(b)", "It says: north", "So \\boxed{north}"],
                ],
                "north",
            )
        ],
    ),
    (
        "monet",
        "monet_early_observation",
        {},
        [
            (
                [
                    ["-"],
                    ["a", "How many dots?"],
                    ["Dots are seen", ". Zoom. ", "(b)", "Four dots", " \\boxed{4}"],
                ],
                "4",
            )
        ],
    ),
    (
        "monet",
        "monet_plain",
        {},
        [([["-"], ["a", "How many dots?"], ["Zoom. ", "(b)", "Four dots", " \\boxed{4}"]], "4")],
    ),
    ("thinkmorph", "thinkmorph_hub", {}, [([["a", "Which piece?"], ["Try A.", "(b)", "It fits. \\boxed{A}"]], "A")]),
    ("interleaved", "thinkmorph_hub", {}, [([["a", "Which piece?"], ["Try A.", "(b)", "It fits. \\boxed{A}"]], "A")]),
    ("thinkmorph", "thinkmorph_ready", {}, [([["a", "Which piece?"], ["Try A.", "(b)", "It fits.\n\\boxed{A}"]], "A")]),
    (
        "llava",
        "llava_r1.json",
        {},
        [([["a", "How many are left?"], ["Three less one is two.  \\boxed{2}"]], "2")],
    ),
    (
        "visual_cot",
        "viscot.json",
        {},
        [
            (
                [
                    ["a", "What sits on the hat? Give a box around it."],
                    ["[0.178, 0.178, 0.535, 0.714]", "(20x30)", "A feather."],
                ],
                None,
            )
        ],
    ),
    (
        "interleaved",
        "latent_sketchpad.jsonl",
        {},
        [([["a", "Find the exit."], ["Go up. ", "(b)", " Then right. ", "(c)", " \\boxed{up,right}"]], "up,right")],
    ),
    ("llava", "llava_no_placeholder.json", {}, [([["a", "b", "Which differs?"], ["None"]], None)]),
    ("llava", "llava_no_placeholder.json", {"unplaced_image": "refuse"}, ["--unplaced-image first or drop"]),
    ("llava", "llava_results.json", {}, ["the rows are in its key 'results' (1)"]),
    ("llava", "llava_list.jsonl", {}, [([["a", "Colour?"], ["Red."]], None)]),
    ("llava", "llava_packed.json", {}, ["a list of 2 (packed rows?)"]),
    ("llava", "llava_video.json", {}, ["video is not supported"]),
    ("llava", "llava_empty_image.json", {}, [([["2+2?"], ["4"]], None)]),
    ("llava", "llava_gpt_first.json", {}, ["an assistant turn before any user turn"]),
    ("sharegpt", "grounding.jsonl", {}, [([["a", "Where is the dog?"], ["Here: [1, 2, 30, 40]"]], None)]),
    ("sharegpt", "sharegpt_grounding.jsonl", {}, [([["a", "Where?"], ["a dog (1,2),(3,4)"]], None)]),
    ("sharegpt", "sharegpt_loss_scale.jsonl", {}, [([["Hi"], ["Hello"]], None)]),
    ("sharegpt", "sharegpt_base64.jsonl", {}, [([["a", "Colour?"], ["Red."]], None)]),
    ("sharegpt", "sharegpt_path_dict.jsonl", {}, [([["a", "Colour?"], ["Red."]], None)]),
    ("sharegpt", "sharegpt_rejected.jsonl", {}, [([["a", "How many?"], ["Two"]], None)]),
    ("sharegpt", "sharegpt_tool_call.jsonl", {}, ["'tool_call' turns are not supported"]),
    ("sharegpt", "sharegpt_two_assistants.jsonl", {}, ["two assistant turns in a row"]),
    ("trl", "trl_none_keys.jsonl", {}, [([["a", "Colour?"], ["Red."]], None)]),
    ("trl", "qwen_part.jsonl", {}, [([["a", "Colour?"], ["Red."]], None)]),
    ("sharegpt", "qwen_part.jsonl", {}, [([["a", "Colour?"], ["Red."]], None)]),
    (
        "zebra_cot",
        "zebra_unreferenced.jsonl",
        {},
        [([["a", "White to move. What is best?"], ["Two go.", "(b)", "Three stay. \\boxed{3}"]], "3")],
    ),
    ("zebra_cot", "zebra_unreferenced.jsonl", {"unplaced_image": "refuse"}, ["--unplaced-image drop or first"]),
    ("zebra_cot", "zebra_boxed.jsonl", {}, ["--answer field or --answer text"]),
    (
        "zebra_cot",
        "zebra_boxed.jsonl",
        {"answer": "field"},
        [([["a", "How many?"], ["Two go.", "(b)", "So \\boxed{3}."]], "3")],
    ),
    (
        "zebra_cot",
        "zebra_boxed.jsonl",
        {"answer": "text"},
        [([["a", "How many?"], ["Two go.", "(b)", "So \\boxed{3 cubes}."]], "3 cubes")],
    ),
    (
        "swimbird",
        "swimbird_boxed_differs.json",
        {},
        [([["Half of one?"], ["One half, so \\boxed{\\frac12}."]], "\\frac12")],
    ),
    (
        "zebra_cot",
        "zebra_code_answer.jsonl",
        {},
        [([["a", "How many?"], ["Two go.", "(b)", "Three stay. \\boxed{print('{')}"]], "print('{')")],
    ),
    (
        "zebra_cot",
        "zebra_plain.jsonl",
        {},
        [([["a", "How many?"], ["Two go.", "(b)", "Three stay. \\boxed{3}"]], "3")],
    ),
    (
        "swimbird",
        "swimbird_thought.json",
        {},
        [([["a", "Which way out?"], ["Trace the corridor.\n", "(b)", "It ends on the left. \\boxed{left}"]], "left")],
    ),
    ("lvr", "lvr_box_over.json", {}, [([["a", "Colour of the hat?"], ["(33x10)", "\\boxed{blue}"]], "blue")]),
    ("lvr", "lvr_box_flat.json", {}, ["holds no area"]),
    ("lvr", "lvr_plain.json", {}, [([["a", "Colour of the hat?"], ["(12x10)", "\\boxed{blue}"]], "blue")]),
    (
        "ilvr",
        "ilvr_empty_step.jsonl",
        {},
        [([["a", "Which angle?"], ["(b)", "The final answer is: 70° \\boxed{70°}"]], "70°")],
    ),
    (
        "ilvr",
        "ilvr_comt.jsonl",
        {},
        [([["a", "Which angle?"], ["Draw the line.", "(b)", "The final answer is: 70° \\boxed{70°}"]], "70°")],
    ),
    ("llava", "llava_bom_crlf.jsonl", {}, [([["a", "Farbe?"], ["Grün ☺"]], None)]),
    ("llava", "llava_backslash.json", {}, ["contains a backslash"]),
]
needs_cases = pytest.mark.skipif(not ROWS.is_dir(), reason="the small rows of ../shared/cases are not here")


def named(part, pictures: dict[bytes, str]) -> str:
    """A text as it is, a picture by the name of its file, a sketch in brackets, by its size if it was cut."""
    if not hasattr(part, "image"):
        return shown(part)
    name = pictures.get(part.image.tobytes(), "x".join(map(str, part.image.size)))
    return f"({name})" if hasattr(part, "loss") else name


@needs_cases
@pytest.mark.parametrize("format, name, options, wanted", CASES)
def test_case(format, name, options, wanted):
    from PIL import Image

    pictures = {Image.open(file).convert("RGB").tobytes(): file.stem for file in sorted((ROWS / "img").iterdir())}
    report, found = Report(), []
    for result in formats.load(format).read(ROWS / name, image_root=ROWS, report=report, **options):
        if isinstance(result, DataError):
            found.append(str(result))
        else:
            turns = [[named(part, pictures) for part in message.content] for message in result.messages]
            found.append((turns, result.answer))
    assert len(found) == len(wanted)
    for one, right in zip(found, wanted, strict=True):
        assert right in one if isinstance(right, str) and isinstance(one, str) else one == right


@needs_cases
def test_every_case_is_here():
    tested = {name for _, name, *_ in CASES} | {"img", "easyr1", "swift_grpo.jsonl"}
    assert {path.name for path in ROWS.iterdir()} == tested

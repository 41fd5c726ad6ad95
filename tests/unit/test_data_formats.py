"""Formats of others: a made-up sample of each becomes records, and nothing of a row is lost in silence."""

import json

import pytest
from data_samples import (
    LVR,
    MAP,
    MIRAGE,
    MMFINEREASON,
    MONET,
    SAMPLES,
    SKETCH,
    SWIMBIRD,
    THINKMORPH,
    ZEBRA,
    read,
    told,
)
from PIL import Image as PILImage

from latent_reason.data import formats
from latent_reason.data.errors import DataError, Report
from latent_reason.trace import Text


def test_every_format_has_a_sample():
    assert {sample[0] for sample in SAMPLES} == set(formats.names())
    assert formats.writable() == ["llava", "mirage", "sharegpt", "swimbird", "trl"]
    with pytest.raises(ValueError, match=r"unknown format 'zebra'. Did you mean 'zebra_cot'"):
        formats.load("zebra")


@pytest.mark.parametrize("format, row, options, turns, mode, answer, id, checker", SAMPLES)
def test_samples(put, format, row, options, turns, mode, answer, id, checker):
    (trace,), errors, report = read(format, put("a.jsonl", row), **options)
    assert not errors and not report.warnings
    assert (told(trace), trace.mode, trace.answer, trace.id, trace.checker) == (turns, mode, answer, id, checker)
    assert trace.meta["source"] == format and trace.split == ("test" if len(turns) == 1 else "train")


# -- what is particular to one -----------------------------------------------------------------------------------------
def test_zebra_keeps_places_and_names_what_is_left_out(put):
    again = "A <image_start>[problem_image_1]<image_end> B"
    row = ZEBRA | {
        "Question": "Look: <image_start>[problem_image_1]<image_end> and say.",
        "problem_image_2": "3.png",
        "Text Reasoning Trace": again,
        "reasoning_image_1": None,
    }
    put("maze/a.jsonl", row)
    put("Chess Game/b.jsonl", ZEBRA)
    (second, first), _, report = read("zebra_cot", "d")
    assert told(first) == [["[3]", "Look:", "[1]", "and say."], ["A", "(1)", "B \\boxed{3}"]]
    assert first.sketches()[0].redundant and not second.sketches()[0].redundant
    assert (second.task, first.task) == ("Chess Game", "maze")
    assert report.warnings == [
        "d/maze/a.jsonl:1: no text has a place for 'problem_image_2': such images go before the first question. To "
        "refuse these rows: --unplaced-image refuse."
    ]
    assert [trace.task for trace in formats.load("zebra_cot").read("d", skip_folder=["Chess"])] == ["maze"]


def test_swimbird_modes_turns_and_folders(put):
    turn = {"from": "gpt", "value": "<image><image>"}
    vision = SWIMBIRD | {
        "id": "v",
        "conversations": [SWIMBIRD["conversations"][0], turn],
        "reasoning_image": ["2.png", "3.png"],
    }
    text = SWIMBIRD | {
        "id": 7,
        "reasoning_image": [],
        "conversations": [
            SWIMBIRD["conversations"][0],
            {"from": "gpt", "value": "Look."},
            {"from": "human", "value": "So?"},
            {"from": "gpt", "value": "\\boxed{left} it is."},
        ],
    }
    put("more/one.json")
    put("a.json", vision)
    put("more/b.json", text)
    report = Report()
    found = list(formats.load("swimbird").read("d", image_root="d", report=report))
    assert [(t.id, t.mode, len(t.messages)) for t in found] == [("v", "vision", 2), ("7", "direct", 4)]
    assert told(found[0])[1] == ["(2)", "(3)", "\\boxed{left}"] and found[1].meta["source_id"] == "7"
    assert report.files == 3


def test_swimbird_one_object_a_file(put, tmp_path):
    put("a.json")
    (tmp_path / "d" / "a.json").write_text(json.dumps(SWIMBIRD, indent=1))
    assert [t.id for t in read("swimbird", "d/a.json")[0]] == ["s1"]


def test_mirage_reads_a_map_and_a_last_line_without_end(put):
    moves = MIRAGE | {"text_output": "<output_image>\\boxed{R, U}"}
    (trace, other), errors, _ = read("mirage", put("a.jsonl", MAP, moves))
    assert not errors and trace.meta["state"] == {"map": ["SF", "HG"]} and other.checker == "mirage"
    assert other.mode == "vision"


def test_lvr_cuts_regions(put, tmp_path):
    quarters = PILImage.new("RGB", (10, 10))
    for i, corner in enumerate([(0, 0), (5, 0), (0, 5), (5, 5)]):
        quarters.paste(PILImage.new("RGB", (5, 5), (i,) * 3), corner)
    quarters.save(tmp_path / "d" / "q.png")
    row = LVR | {
        "image": "q.png",
        "bboxes": [[0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1]],
        "conversations": [
            {"from": "human", "value": "<image>Where?"},
            {"from": "gpt", "value": "There: <lvr>and<lvr>"},
            {"from": "human", "value": "So?"},
            {"from": "gpt", "value": "<answer>two</answer>"},
        ],
    }
    (trace,), _, _ = read("lvr", put("a.json", row))
    assert told(trace) == [["[0]", "Where?"], ["There: ", "(1)", "and", "(2)"], ["So?"], ["\\boxed{two}"]]
    assert [s.box for s in trace.sketches()] == [(0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1)]
    assert all(s.redundant and s.image.size == (5, 5) for s in trace.sketches())
    pixels = row | {"question_id": 6, "bboxes": [[5, 0, 10, 5], [0, 5, 5, 10]]}
    (same,) = formats.load("lvr").read(put("b.json", pixels), box_unit="pixel")
    assert same.sketches() == trace.sketches()


def test_lvr_cuts_at_least_a_pixel_inside_the_picture(put):
    (trace,), _, _ = read("lvr", put("a.json", LVR | {"bboxes": [[0.99, 0.99, 1, 1]]}))
    assert told(trace)[1] == ["(1)", "\\boxed{blue}"] and trace.sketches()[0].image.size == (1, 1)


def test_lvr_second_stage_and_lists_of_files(put):
    plain = {
        "id": "r",
        "image": "1.png",
        "conversations": [{"from": "human", "value": "Colour?"}, {"from": "gpt", "value": "<answer>red</answer>"}],
    }
    put("sub/a.json", plain)
    list_ = put("meta.json", {"ds_name": "x", "data_path": "sub/a.json", "image_folder": "."})
    (trace,), _, _ = read("lvr", list_)
    assert told(trace) == [["[1]", "Colour?"], ["\\boxed{red}"]] and trace.mode == "direct"
    _, (error,), _ = read("lvr", put("meta.json", {"data_path": "../x.json", "image_folder": ""}))
    assert error.code == "E08"
    with pytest.raises(DataError, match=r"d/meta.json:0: image_folder: leaves the data folder"):
        formats.load("lvr").read(put("meta.json", {"data_path": "sub/a.json", "image_folder": "/etc"}))


def test_thinkmorph_without_sketches_and_with_two_problems(put):
    one = THINKMORPH | {"image_list": ["1.png"], "output_text_list": ["<think>A</think> <answer>B</answer>"]}
    two = THINKMORPH | {"image_list": ["1.png", "3.png", "2.png"]}
    (first, second), _, _ = read("thinkmorph", put("a.jsonl", one, two))
    assert (told(first)[1], first.mode) == (["A \\boxed{B}"], "text")
    assert told(second) == [["[1]", "[3]", "Which piece fits?"], ["Try A.", "(2)", "The edges meet.\n\\boxed{A}"]]


def test_monet_observations_weigh_and_are_not_needed(put):
    (trace,), _, _ = read("monet", put("a.json", MONET), observation_loss=3)
    assert [part.loss for part in trace.messages[2].content if isinstance(part, Text)] == [None, 3, None]
    without = json.loads(json.dumps(MONET).replace("<observation>Four dots</observation>", "Four."))
    assert formats.options("monet") == ["observation_loss"]
    report = Report()
    assert len(list(formats.load("monet").read(put("b.json", without), report=report))) == 1
    assert report.warnings == [
        "d/b.json:0: no <observation> in this row; it is kept, but the loader of Monet drops such rows."
    ]


def test_llava_of_words_alone_and_unknown_keys(put):
    words = {
        "id": 3,
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "So \\boxed{x}"}],
        "model": "y",
        "license": "MIT",
    }
    (trace,), _, report = read("llava", put("a.json", words))
    assert (trace.mode, trace.answer) == ("text", "x")
    assert trace.meta == {"source": "llava", "source_id": "3", "licence": "MIT", "extra": {"model": "y"}}
    assert report.warnings == ["d/a.json:0: unknown keys are kept under meta.extra: model."]


def test_sharegpt_names_tags_system_and_loss(put):
    row = {
        "talk": [{"who": "U", "what": "<image>Hi"}, {"who": "A", "what": "Yes.", "loss": False}],
        "pics": ["1.png"],
        "rule": "Be short.",
    }
    columns = {"messages": "talk", "images": "pics", "system": "rule"}
    (trace,), _, _ = read(
        "sharegpt",
        put("a.jsonl", row),
        columns=columns,
        tags={"role_tag": "who", "content_tag": "what", "user_tag": "U", "assistant_tag": "A"},
    )
    assert told(trace) == [["Be short."], ["[1]", "Hi"], ["Yes."]] and trace.messages[2].content[0].loss == 0
    old = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes."}]}
    assert told(next(formats.load("sharegpt").read(put("b.jsonl", old)))) == [["Hi"], ["Yes."]]


def test_trl_strings_own_pictures_and_completions(put):
    strings = {
        "messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "A"}],
        "images": ["1.png", "2.png"],
    }
    own = {
        "prompt": [{"role": "user", "content": [{"type": "image", "image": "3.png"}, {"type": "image"}]}],
        "completion": [{"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": "B"}]}],
        "images": ["1.png", "2.png"],
    }
    plain = {"prompt": "Say.", "completion": "C", "images": []}
    found, errors, _ = read("trl", put("a.jsonl", strings, own, plain), **SKETCH)
    assert not errors and [told(trace) for trace in found] == [
        [["[1]", "[2]", "Which?"], ["A"]],
        [["[3]", "[1]"], ["(2)", "B"]],
        [["Say."], ["C"]],
    ]


def test_mmfinereason_keeps_how_a_row_was_made_and_its_pass_rate(put):
    def only(**changes):
        (found,) = formats.load("mmfinereason").read(put("a.jsonl", MMFINEREASON | changes))
        return found

    meta = only().meta
    assert (meta["pass_rate"], meta["data_source"], meta["caption"]) == (0.25, "Euclid30K", "A triangle.")
    assert only(pass_rate=None, qwen3vl_4b_pass_rate=1).meta["pass_rate"] == 1.0, "the name in the paper's code"
    for wrong in (1.5, "0.5", True):
        assert f"a.jsonl:1: pass_rate: expected a share from 0 to 1, found '{wrong}'" in str(only(pass_rate=wrong))
    assert only(answer="5").code == "E17" and "'5' but the text boxes '4'" in str(only(answer="5"))
    assert told(only(question="In <image>, what is it?"))[0] == ["In ", "[1]", ", what is it?"]
    assert only(image=None).images() == [], "some questions have no picture"

"""Adapters to evaluation harnesses: chats become traces, generation arguments are applied or rejected, and answers are
those of our own decoding, item by item."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lmms_task import items, write
from PIL import Image as PILImage
from tiny_runs import ROOT, tiny_checkpoint

from latent_reason import checkpoint, tasks
from latent_reason.decoding.items import decode
from latent_reason.integrations.answerer import Answerer, cut, options, trace
from latent_reason.integrations.vlmevalkit import LatentReason
from latent_reason.trace import Image, Text

PUBLISHED = ROOT / "checkpoints" / "frozenlake-tiny"
RED = PILImage.new("RGB", (64, 64), "red")


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


@pytest.fixture(scope="module")
def answerer():
    return Answerer(str(PUBLISHED), batch_size=3)


@pytest.fixture(scope="module")
def boards():
    return items(PUBLISHED, [3, 4], 2)


# -- chats -------------------------------------------------------------------------------------------------------------
def test_a_chat_of_lmms_eval_becomes_a_trace_in_the_same_order():
    found = trace(
        "t",
        [
            {"role": "system", "content": "Be brief."},
            *user({"type": "text", "text": "before"}, {"type": "image", "url": RED}, {"type": "text", "text": "after"}),
        ],
    )
    system, asked = found.messages
    assert system.content == (Text("Be brief."),)
    before, shown, after = asked.content
    assert (before, after) == (Text("before"), Text("after")) and found.prompt().messages == found.messages
    assert isinstance(shown, Image) and shown.image.getpixel((0, 0)) == (255, 0, 0)


def test_a_message_of_vlmevalkit_shows_the_pictures_of_its_paths(tmp_path):
    PILImage.new("LA", (8, 6), (0, 0)).save(tmp_path / "clear.png")
    part = {"type": "image", "value": str(tmp_path / "clear.png")}
    found = trace("t", user(part, {"type": "text", "value": "what?"}))
    (picture,) = found.images()
    assert picture.mode == "RGB" and picture.size == (8, 6) and picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "chat, said",
    [
        ([], "does not end with a user turn"),
        (
            [*user({"type": "text", "text": "x"}), {"role": "assistant", "content": "y"}],
            "does not end with a user turn",
        ),
        ([{"role": "tool", "content": "x"}], "message 1: unknown role 'tool'"),
        (user({"type": "video", "url": "film.mp4"}), "message 1, part 1: a 'video' part"),
        (user({"type": "text", "text": 7}), "a 'text' part with int"),
        (user({"type": "image"}), "a 'image' part with NoneType"),
        (
            user({"type": "text", "text": "x"}, {"type": "image", "url": "http://a.b/c.png"}),
            "part 2: image file 'http://a.b/c.png' not found",
        ),
    ],
)
def test_what_cannot_be_shown_is_named(chat, said):
    with pytest.raises(ValueError, match=f"^board 7.*{re.escape(said)}"):
        trace("board 7", chat)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_text("#!/bin/sh")
    with pytest.raises(ValueError, match=r"board 7, message 1, part 1: 'a\.png' is not a readable PNG"):
        trace("board 7", user({"type": "image", "value": str(tmp_path / "a.png")}))


# -- generation arguments ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments, decoding, stops",
    [
        ({}, {"max_new_tokens": 640, "temperature": 0}, []),
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            {"max_new_tokens": 16, "temperature": 0},
            [],
        ),
        ({"temperature": 0.0, "top_p": 0, "top_k": 1}, {"temperature": 0}, []),  # greedy takes the first in any case
        ({"temperature": 0.7, "top_p": 0.9, "seed": 3}, {"temperature": 0.7, "top_p": 0.9, "seed": 3}, []),
        ({"do_sample": True}, {"temperature": 1, "top_p": 1}, []),
        ({"until": ["\n\n"]}, {}, []),
        ({"until": ["\n\n", "</s>"]}, {}, ["\n\n", "</s>"]),
        ({"until": "Q:", "temperature": None}, {"temperature": 0}, ["Q:"]),
    ],
)
def test_arguments_that_are_supported(arguments, decoding, stops):
    found, until = options(arguments)
    assert decoding.items() <= found.items() and until == stops


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"num_beams": 5}, "num_beams=5 is not supported. Use 1 or remove"),
        ({"image_aspect_ratio": "pad"}, "Use 'original' or remove"),
        ({"max_tokens": 5}, "'max_tokens' is not supported. Did you mean 'max_new_tokens'"),
        ({"do_sample": False, "temperature": 0.2}, "do_sample=False and temperature=0.2 contradict"),
        ({"do_sample": True, "temperature": 0}, "contradict"),
        ({"temperature": -1}, "contradict"),
        ({"temperature": 1, "top_k": -5}, "top_k=-5"),
        ({"temperature": 1, "top_p": 0}, "top_p=0"),
        ({"max_new_tokens": 0}, "at least 1"),
    ],
)
def test_arguments_that_are_refused(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        options(arguments)


@given(st.text("ab\n", max_size=20), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3))
def test_an_answer_ends_before_its_first_stop(text, until):
    found = cut(text, until)
    assert text.startswith(found) and not any(stop in found for stop in until)
    assert found == text or any(text[len(found) :].startswith(stop) for stop in until)


# -- answers -----------------------------------------------------------------------------------------------------------
def asking(item):
    return trace(item.id, user({"type": "image", "url": item.images[0]}, {"type": "text", "text": item.question}))


def test_answers_are_those_of_our_own_decoding(answerer, boards):
    task = tasks.make("frozenlake_plan", split="test", seed=1, level=(3, 4))
    ours = decode(answerer.reasoner, None, task, boards, "mixed")
    found = answerer([asking(item) for item in boards], range(len(boards)), {})
    assert [a.text for a in found] == [r.text for r in ours] and len({a.text for a in found}) > 2
    assert [a.latents for a in found] == [sum(map(len, r.latents)) for r in ours] and any(a.latents for a in found)
    assert all(a.latents < a.positions for a in found)


def test_a_sampled_answer_depends_on_its_item_and_not_on_its_batch(answerer, boards):
    chat, sampled = asking(boards[-1]), {"max_new_tokens": 24, "temperature": 3.0}
    first, second, third, fourth = answerer([chat] * 4, [5, 6, 7, 8], sampled)
    assert len({first.text, second.text, third.text, fourth.text}) == 4
    assert answerer([chat], [7], sampled) == [third]
    assert answerer([chat], [7], sampled | {"seed": 1}) != [third]


def test_answers_are_cut_at_stops_and_to_their_box(answerer, boards, monkeypatch):
    chat = [asking(boards[0])]
    (whole,) = answerer(chat, [0], {})
    thought, box = whole.text.split("\\boxed")
    assert answerer(chat, [0], {"until": ["\\boxed"]})[0].text == thought
    monkeypatch.setattr(answerer, "boxed", True)
    assert answerer(chat, [0], {})[0].text == box.strip("{}")
    assert answerer(chat, [0], {"until": ["\\boxed"]})[0].text == thought, "no box: all that was said"


def test_vlmevalkit_calls_what_the_class_has(tmp_path, boards):
    model = LatentReason(str(tiny_checkpoint()), max_new_tokens=24)
    assert "vlmeval" not in sys.modules and not model.use_custom_prompt("BLINK")
    model.set_dump_image(None)
    boards[0].images[0].save(tmp_path / "board.png")
    message = [{"type": "image", "value": str(tmp_path / "board.png")}, {"type": "text", "value": boards[0].question}]
    said = model.generate_inner(message, dataset="BLINK")
    (same,) = Answerer(str(tiny_checkpoint()))([asking(boards[0])], [0], {"max_new_tokens": 24})
    assert said == model.generate(message, "BLINK") == same.text and said
    with pytest.raises(ValueError, match="'beams' is not supported"):
        LatentReason(str(tiny_checkpoint()), beams=2)


# -- lmms-eval itself --------------------------------------------------------------------------------------------------
def test_the_entry_point_names_what_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, name = project["entry-points"]["lmms_eval.models"]["latent_reason"].split(":")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    assert f"def {name}(" in source and f'"{module}.LatentReason"' in source and "class LatentReason(lmms)" in source


needs_lmms_eval = pytest.mark.skipif(
    find_spec("lmms_eval") is None, reason="lmms-eval is not installed: see latent_reason/integrations/lmms_eval.py"
)


@needs_lmms_eval
@pytest.mark.parametrize("first", ["latent_reason.integrations.lmms_eval", "lmms_eval.models"])
def test_lmms_eval_finds_the_class_whichever_is_imported_first(first):
    code = (
        f"import {first}\nfrom latent_reason.integrations import lmms_eval\nfrom lmms_eval.models import get_model\n"
        "assert get_model('latent_reason') is lmms_eval.LatentReason"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@needs_lmms_eval
def test_lmms_eval_gives_our_answers_item_by_item(tmp_path):
    boards = items(PUBLISHED, [4, 7], 8)
    write(tmp_path / "task", boards)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lmms_eval",
            "--model",
            "latent_reason",
            "--model_args",
            f"pretrained={PUBLISHED}",
            "--tasks",
            "frozenlake_local",
            "--include_path",
            str(tmp_path / "task"),
            "--batch_size",
            "5",
            "--output_path",
            str(tmp_path / "out"),
            "--log_samples",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (log,) = Path(tmp_path / "out").rglob("*samples*.jsonl")
    theirs = sorted(map(json.loads, log.read_text().splitlines()), key=lambda row: row["doc_id"])
    reasoner, _ = checkpoint.load(PUBLISHED)
    task = tasks.make("frozenlake_plan", split="test", seed=1, level=(4, 7))
    ours = decode(reasoner, None, task, boards, "mixed")
    assert [row["filtered_resps"] for row in theirs] == [r.text for r in ours]
    assert [row["success"] for row in theirs] == [r.scores["success"] for r in ours]
    assert 0 < sum(r.scores["success"] for r in ours) < len(ours), "some right, some wrong"
    latents = [row["token_counts"][0]["reasoning_tokens"] for row in theirs]
    assert latents == [sum(map(len, r.latents)) for r in ours]


@needs_lmms_eval
def test_a_document_that_is_asked_again_is_sampled_again():
    code = f"""
from lmms_eval.api.instance import Instance
from latent_reason.integrations.lmms_eval import LatentReason
from PIL import Image
model = LatentReason({str(PUBLISHED)!r}, batch_size=2)
model.task_dict = {{"t": {{"test": [Image.new("RGB", (256, 256), "red")]}}}}
chat = lambda doc: [{{"role": "user", "content": [{{"type": "image", "url": doc}}]}}]
sampled = ("", chat, {{"temperature": 3.0, "max_new_tokens": 20}}, 0, "t", "test")
greedy = ("", chat, {{"max_new_tokens": 20}}, 0, "t", "test")
asked = [Instance("generate_until", kind, 0, {{"task": "t", "doc_id": 0, "repeats": 1}}) for kind in (
    sampled, greedy, sampled, sampled)]
first, plain, second, third = [one.text for one in model.generate_until(asked)]
assert len({{first, second, third}}) == 3, (first, second, third)
assert plain == model.generate_until([asked[1]])[0].text and plain not in (first, second, third)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

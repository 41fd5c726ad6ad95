"""Baselines of explicit thinking. Files in eval/baselines/ are included automatically."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from eval import baselines, sandbox
from eval.baselines.crop import Crop
from eval.baselines.imagine import Imagine
from eval.turns import episodes, pictures
from eval.turns.baseline import ANSWER_NOW, Ask, Call, Chat, OutOfBudget, Problem, Read, Reading, Reply
from eval.turns.calls import find_calls, find_code
from eval.turns.demonstrations import MARKERS
from eval.turns.episodes import EpisodeLimits, run_episodes
from eval.turns.tools import Observation, run_tool
from latent_reason import methods, tasks
from latent_reason.model.backbones import load_backbone
from latent_reason.model.backbones.families import FAMILIES
from latent_reason.trace import Image, Text
from latent_reason.visualization.sketch_decoder import SketchDecoder

NAMES = baselines.names()
CONFINED = sandbox.is_available()
SHOWN = [
    name
    for name in NAMES
    if "demonstrate" in vars(baselines.load(name)) or hasattr(baselines.load(name), "write_action")
]
LIMITS = EpisodeLimits(new_tokens=12)


def make(name: str, **options):
    return replace(baselines.make_baseline(name), **options)


def needs_sandbox(name: str) -> None:
    if baselines.load(name).RUNS_CODE and CONFINED:
        pytest.skip(f"code cannot be confined here: {CONFINED}")


@cache
def task_of(name: str):
    options = {"actions": "absolute", "chunk": (2, 2)} if name == "wall_maze" else {}
    return tasks.make(
        name, level={"plan_check": 4, "frozenlake_plan": 4, "wall_maze": 2, "fold_punch": 2}[name], **options
    )


@cache
def model_of(family: str, method: str = "direct"):
    """An untouched backbone of a family, or one with a head and a decoder of sketches."""
    options = {"head": "mlp"} if method == "modal_mixed" else {}
    sizes = {"width": 32, "layers": 2, "heads": 2, "vision_width": 32, "cells": 2}
    reasoner = methods.build_method(method, load_backbone(f"tiny-{family}", **sizes), **options).eval()
    with torch.no_grad():
        for name, p in reasoner.named_parameters():
            if p.ndim > 1 and "embed" not in name:
                p.mul_(4)
    return reasoner


def drive(policy, replies, reading: Reading | None = None):
    """A policy with these replies of a model in its turns: (what it returns, the chats that it asked for)."""
    replies, asked, value = list(replies), [], None
    while True:
        try:
            wanted = policy.send(value)
        except StopIteration as stop:
            return stop.value, asked
        if isinstance(wanted, Call):
            value = wanted.function()
        elif isinstance(wanted, Read):
            value = reading
        else:
            asked.append(wanted.chat)
            value = replies.pop(0)
            value = value if isinstance(value, Reply) else Reply(value)


def contents(messages) -> list:
    """Roles and parts of messages, pictures as bytes."""
    return [
        (m.role, [(type(p), p.text if isinstance(p, Text) else (p.image.size, p.image.tobytes())) for p in m.content])
        for m in messages
    ]


def words(chat: Chat) -> str:
    return "".join(part.text for part in chat.messages[-1].content if isinstance(part, Text))


class OpensSketch(Imagine):
    """``imagine`` whose replies begin with a sketch, since a random model opens none by itself."""

    def think(self, problem):
        policy, value = super().think(problem), None
        while True:
            try:
                wanted = policy.send(value)
            except StopIteration as stop:
                return stop.value
            value = yield replace(wanted, opens_sketch=True)


PICTURE = PILImage.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 20).convert("RGB")
PROBLEM = Problem("p", (PICTURE,), "What is there?")


# -- every baseline ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_a_file_names_its_source_and_idea(name):
    kind = baselines.load(name)
    assert kind.PAPER and kind.SUMMARY and kind.__module__.endswith(f".{name}")
    assert make(name).name == name and len(kind.SUMMARY) < 80
    assert len(importlib.import_module(kind.__module__).__doc__) > 100


@pytest.mark.parametrize("name", [n for n in NAMES if not baselines.load(n).RENDERS])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_runs_on_an_untouched_backbone_of_every_family(name, family):
    needs_sandbox(name)
    task = task_of("frozenlake_plan")
    baseline = make(name)
    problems = [baseline.problem(task, task[i]) for i in (0, 1)]
    found = dict(run_episodes(model_of(family), None, baseline, problems, LIMITS, 2))
    assert sorted(found) == [0, 1]
    for episode in found.values():
        assert 0 < episode.tokens <= LIMITS.new_tokens and not episode.latents
        assert episode.passes > episode.tokens and episode.turns and episode.pictures


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rendered_sketches_are_read_again_in_every_family(family):
    model, task = model_of(family, "modal_mixed"), task_of("frozenlake_plan")
    baseline, decoder = OpensSketch(turns=2), SketchDecoder(latent=model.backbone.width, width=32)
    problem = baseline.problem(task, task[0])
    config = EpisodeLimits(new_tokens=60)
    [(_, episode)] = run_episodes(model, decoder, baseline, [problem], config, 2)
    assert episode.latents and episode.sketches and episode.written <= 60
    rendered = [part for m in episode.chat.messages[1:] for part in m.content if isinstance(part, Image)]
    assert len(rendered) == min(episode.sketches, 2)
    assert {part.image.size for part in rendered} == {problem.pictures[-1].size}, "as in demonstrations"
    said = [
        part.text
        for m in episode.chat.messages
        if m.role == "assistant"
        for part in m.content
        if isinstance(part, Text)
    ]
    assert said[0] == "", "it opened a sketch at once; what it wrote behind it is cut off"


class SketchesFirst(Imagine):
    """``imagine`` whose first reply begins with a sketch."""

    def think(self, problem):
        policy = super().think(problem)
        reply = yield replace(policy.send(None), opens_sketch=True)
        reply = yield policy.send(reply)
        return reply.text


def test_a_sketch_of_an_earlier_turn_does_not_end_the_next_reply():
    model, task = model_of("qwen2_5_vl", "modal_mixed"), task_of("frozenlake_plan")
    decoder = SketchDecoder(latent=model.backbone.width, width=32)
    problem = SketchesFirst().problem(task, task[0])
    [(_, episode)] = run_episodes(model, decoder, SketchesFirst(), [problem], EpisodeLimits(200), 2)
    assert episode.sketches == 1 and episode.turns == 2 and episode.tokens > 10


class AlwaysCrop(Crop):
    """``crop`` of a model that calls the tool in every turn, whatever it writes; every second call fails."""

    def find_action(self, text, problem, observed):
        call = "crop(0, 0, 1, 999)" if len(observed) % 2 == 0 else "crop(1)"
        return super().find_action(call, problem, observed)._replace(end=len(text))


SKETCHING = {"imagine": lambda: OpensSketch(turns=2), "recheck, sketches": lambda: make("recheck", sketches=True)}
PLAIN = {name: lambda name=name: make(name) for name in NAMES if not baselines.load(name).RENDERS}


@pytest.mark.parametrize("case", [*PLAIN, *SKETCHING, "always crop"])
def test_a_problem_is_answered_alike_in_a_batch_and_alone(case):
    needs_sandbox(case) if case in NAMES else None
    task, sketches = task_of("frozenlake_plan"), case in SKETCHING
    model = model_of("qwen2_5_vl", "modal_mixed" if sketches else "direct")
    decoder = SketchDecoder(latent=model.backbone.width, width=32) if sketches else None
    baseline = AlwaysCrop() if case == "always crop" else (PLAIN | SKETCHING)[case]()
    problems, limits = [baseline.problem(task, task[i]) for i in range(4)], EpisodeLimits(24, 0.8, seed=3)
    together = dict(run_episodes(model, decoder, baseline, problems, limits, 2))
    for n in (0, 3):
        [(_, alone)] = run_episodes(model, decoder, baseline, [problems[n]], limits, 4, keys=[n])
        assert (alone.text, alone.tokens, alone.turns) == (together[n].text, together[n].tokens, together[n].turns)
        assert (alone.passes, alone.latents) == (together[n].passes, together[n].latents)
        assert bool(alone.latents) == sketches


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_thin_regions_and_failures_of_tools_end_no_run(family):
    task, baseline = task_of("frozenlake_plan"), AlwaysCrop(turns=3)
    [(_, episode)] = run_episodes(
        model_of(family), None, baseline, [baseline.problem(task, task[0])], EpisodeLimits(60), 2
    )
    assert episode.calls == 3 and episode.turns == 4 and episode.tokens <= 60
    told = [
        part.text for m in episode.chat.messages[1:] if m.role == "user" for part in m.content if isinstance(part, Text)
    ]
    assert "Error: crop needs 4 numbers; it has 1." in told[0] and ANSWER_NOW in told[-1]
    assert max(max(p.size) / min(p.size) for p in episode.chat.pictures()) <= pictures.THINNEST


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_gold_reaches_a_problem(name):
    task, baseline = task_of("frozenlake_plan"), make(name)
    item = task[1]
    other = replace(item, answer="U,U", steps=[], meta=item.meta | {"checker": "exact"}, state=None)
    if baseline.USES_GOLD:
        gold = baseline.problem(task, item).gold_pictures
        assert gold and name in ("oracle", "random")
        true = {s.sketch.tobytes() for s in item.steps if s.sketch is not None}
        assert all((picture.tobytes() in true) == (name == "oracle") for picture in gold)
    else:
        assert baseline.problem(task, item) == baseline.problem(task, other)
        assert not baseline.problem(task, item).gold_pictures


# -- demonstrations ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task_name", sorted(MARKERS))
@pytest.mark.parametrize("name", SHOWN)
def test_a_demonstration_is_what_the_policy_does_with_its_replies(name, task_name):
    """Replies of the demonstration, given to the policy, show the same pictures at the same places."""
    needs_sandbox(name)
    task, baseline = task_of(task_name), make(name, brief=True)
    for item in (task[0], task[3]):
        trace = baseline.demonstrate(task, item)
        answered = [m for m in trace.messages if m.role == "assistant"]
        replies = []
        for message in answered:
            text = "".join(part.text for part in message.content if isinstance(part, Text))
            replies.append(Reply(text, tuple(p.image for p in message.content if not isinstance(p, Text))))
        problem = baseline.problem(task, item)
        if name == "random":  # its policy is shown another item's pictures
            problem = make("oracle", brief=True).problem(task, item)
        text, asked = drive(baseline.think(problem), replies)
        assert len(asked) == len(replies)
        assert contents(asked[-1].with_reply(text).messages) == contents(trace.messages)
        assert next(iter(task.score(text, item.meta).values())) == 1
        assert trace.answer == item.answer and trace.checker == item.checker


def test_a_demonstration_keeps_the_number_of_turns():
    task = task_of("plan_check")
    item = max((task[i] for i in range(6)), key=lambda i: sum(s.sketch is not None for s in i.steps))
    trace = make("draw", turns=1).demonstrate(task, item)
    assert [m.role for m in trace.messages] == ["user", "assistant", "user", "assistant"]
    with pytest.raises(ValueError, match="task 'jigsaw' has no demonstrations of tools"):
        other = tasks.make("jigsaw")
        make("draw").demonstrate(other, other[0])
    with pytest.raises(ValueError, match="baseline 'focus' has no demonstrations"):
        make("focus").demonstrate(task, item)


# -- single baselines, with replies that are given ---------------------------------------------------------------------
def test_crop_enlarges_the_region_and_drops_what_was_guessed_after_the_call():
    text, asked = drive(make("crop").think(PROBLEM), ["Closer. crop(0, 0, 32, 24)\nI see a cat.", "\\boxed{b}"])
    reply, shown = asked[1].messages[-2:]
    assert reply.content[0].text == "Closer. crop(0, 0, 32, 24)" and text == "\\boxed{b}"
    [picture] = [part.image for part in shown.content]
    assert picture.size == (64, 48)
    assert picture.tobytes() == PICTURE.crop((0, 0, 32, 24)).resize((64, 48), PILImage.Resampling.NEAREST).tobytes()


def test_coordinates_may_be_thousandths():
    _, pixels = drive(make("crop").think(PROBLEM), ["crop(32, 24, 64, 48)", ""])
    _, shares = drive(make("crop", scale="thousandths").think(PROBLEM), ["crop(500, 500, 1000, 1000)", ""])
    assert pixels[1].pictures()[1].tobytes() == shares[1].pictures()[1].tobytes()


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("crop(1, 2, 3)", "Error: crop needs 4 numbers; it has 3."),
        ("crop(a, 2, 3, 4)", "Error: crop: 'a' is no number."),
        ("crop(1, 2, 3, 4", "Error: crop: the bracket is not closed."),
        (f"crop({'9' * 400}, 2, 3, 4)", "Error: crop: a number is too large."),
        ("<tool_call>{nonsense}</tool_call>", "Error: the tool call is no JSON with name and arguments."),
        ('<tool_call>{"name": "rm", "arguments": {}}</tool_call>', "Error: there is no tool 'rm'."),
        ('<tool_call>{"name": "crop", "arguments": [1e999, 0, 1, 1]}', "Error: crop: a number is too large."),
    ],
)
def test_a_failure_of_a_call_is_text(reply, told):
    text, asked = drive(make("crop").think(PROBLEM), [reply, "then \\boxed{a}"])
    assert words(asked[1]).startswith(told) and text == "then \\boxed{a}"


def test_qwen_calls_are_understood():
    call = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 32, 24], "label": "cat"}}</tool_call>'
    _, asked = drive(make("crop").think(PROBLEM), [f"Look. {call} more", ""])
    assert asked[1].pictures()[1].size == (64, 48) and asked[1].messages[-2].content[0].text.endswith("</tool_call>")


def test_draw_adds_to_what_was_drawn_before():
    replies = ["box(4, 4, 20, 20)\npoint(40, 30)", "line(0, 0, 63, 47)", "done"]
    text, asked = drive(make("draw").think(PROBLEM), replies)
    first, second = asked[1].pictures()[1], asked[2].pictures()[2]
    assert text == "done" and first.getpixel((4, 10)) == pictures.COLOR == first.getpixel((40, 30))
    assert second.getpixel((40, 30)) == pictures.COLOR == second.getpixel((32, 24)) != first.getpixel((32, 24))
    assert PICTURE.getpixel((40, 30)) != pictures.COLOR, "the input is left as it is"


def test_after_the_last_call_the_model_is_told_to_answer():
    text, asked = drive(make("crop", turns=2).think(PROBLEM), ["crop(0,0,9,9)"] * 3)
    assert len(asked) == 3 and "without further calls" in words(asked[2]) and "further" not in words(asked[1])
    assert text == "crop(0,0,9,9)", "a call after that is the answer, and wrong"


def test_code_runs_and_its_picture_comes_back():
    needs_sandbox("whiteboard")
    code = "```python\nfrom PIL import Image\nprint(6 * 7)\nshow(Image.new('RGB', (8, 8), 'red'))\n```"
    _, asked = drive(make("whiteboard").think(PROBLEM), [f"I draw. {code} It is red.", "\\boxed{red}"])
    assert "42" in words(asked[1]) and asked[1].pictures()[-1].getpixel((3, 3)) == (255, 0, 0)
    assert asked[1].messages[-2].content[0].text.endswith("```")
    _, asked = drive(make("code_tools").think(PROBLEM), ["```python\nshow(image.rotate(180))\n```", ""])
    assert asked[1].pictures()[-1].tobytes() == PICTURE.rotate(180).tobytes()
    _, asked = drive(make("code_plot").think(PROBLEM), ["```python\n1 / 0\n```", ""])
    assert "ZeroDivisionError" in words(asked[1])


def test_visual_abstract_stands_beside_the_picture_or_in_its_place():
    _, beside = drive(make("visual_abstract").think(PROBLEM), [""])
    _, instead = drive(make("visual_abstract", replaces=True, operator="segments").think(PROBLEM), [""])
    assert [p.tobytes() for p in beside[0].pictures()] == [PICTURE.tobytes(), pictures.draw_edges(PICTURE).tobytes()]
    [segments] = instead[0].pictures()
    assert len(segments.getcolors()) <= 6 < len(PICTURE.getcolors(10**6))


def test_focus_answers_at_once_only_where_it_is_sure():
    state = torch.zeros(4)
    text, asked = drive(make("focus", margin=3.0).think(PROBLEM), ["sure"], Reading(state, 3.0))
    assert text == "sure" and len(asked) == 1
    replies = ["The door: box(2, 2, 30, 30)\nand something else\nThe key: box(40, 20, 60, 40)\nbox(1)", "slow"]
    text, asked = drive(make("focus", margin=3.0).think(PROBLEM), replies, Reading(state, 2.9))
    marked = asked[1].pictures()[0]
    assert text == "slow" and marked.getpixel((2, 10)) == pictures.COLOR == marked.getpixel((60, 30))


def test_split_asks_only_marked_parts_of_the_picture():
    plan = "1. [picture] What color?\n2. [words] A week has 7 days.\n[PICTURE]: How many?\nno mark"
    text, asked = drive(make("split", most=1).think(PROBLEM), [plan, "It is red.", "\\boxed{7}"])
    assert not asked[0].pictures() and words(asked[1]) == "What color?" and len(asked[1].pictures()) == 1
    assert "What color? It is red." in words(asked[2]) and "A week has 7 days." in words(asked[2])
    assert len(asked) == 3 and text == "\\boxed{7}"


def test_self_refine_returns_the_answer_with_the_best_score():
    replies = ["first", "Score: 6, vague", "second", "score 3", "third", "no number"]
    text, asked = drive(make("self_refine", rounds=3).think(PROBLEM), replies)
    assert text == "first" and len(asked) == 6 and "vague" in asked[2].messages[-2].content[0].text
    text, asked = drive(make("self_refine", enough=6).think(PROBLEM), replies)
    assert text == "first" and len(asked) == 2
    text, asked = drive(make("self_refine", rounds=1).think(PROBLEM), replies)
    assert text == "first" and len(asked) == 1


@pytest.mark.parametrize(("replies", "answer"), [(1, "first"), (2, "first"), (3, "first"), (4, "second")])
def test_self_refine_out_of_budget_returns_its_best_answer(replies, answer):
    policy, said = make("self_refine").think(PROBLEM), ["first", "Score: 2", "second", "Score: 4"]
    policy.send(None)
    for text in said[:replies]:
        policy.send(Reply(text))
    with pytest.raises(StopIteration) as ended:
        policy.throw(OutOfBudget())
    assert ended.value.value == answer


def test_recheck_keeps_the_first_answer_where_the_second_look_gives_none():
    assert drive(make("recheck").think(PROBLEM), ["\\boxed{a}", "hm"])[0] == "\\boxed{a}"
    assert drive(make("recheck").think(PROBLEM), ["\\boxed{a}", "no, \\boxed{b}"])[0] == "no, \\boxed{b}"
    policy = make("recheck", sketches=True).think(PROBLEM)
    assert isinstance(policy.send(None), Ask) and policy.send(Reply("x")).opens_sketch


def test_embed_tools_puts_regions_side_by_side():
    _, asked = drive(make("embed_tools").think(PROBLEM), ["view(0,0,32,24)\nview(32,24,64,48)", ""])
    assert asked[1].pictures()[-1].size == (64 + 4 + 64, 48)


# -- reading calls -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("point(1,2); point(3, 4)\nthe goal: point(5,6).", [(1, 2), (3, 4), (5, 6)]),
        ("point(1,2)\nThen I look.\npoint(5,6)", [(1, 2)]),
        ("point((1, 2))", [(1, 2)]),
        ("point (x=1, y=.5)", [(1, 0.5)]),
        ("no endpoint(1,2)", []),
        ("The cell at point(3,4) is free, so \\boxed{A}", []),
        ("They meet at the point(s)", []),
        ("The point(s) and the line(s). \\boxed{A}", []),
        ("point()", []),
        ("point(((((", []),
    ],
)
def test_a_call_is_the_end_of_a_line(text, numbers):
    assert [call.numbers for call in find_calls(text, ("point", "line"))] == [tuple(map(float, n)) for n in numbers]


@given(st.text(alphabet='point(crx)`\n 0.19,-<tool_call>{}[]"=e\\boxed', max_size=80))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_reader_of_calls(text):
    for call in find_calls(text, ("point", "crop")):
        assert 0 < call.end <= len(text) and (call.error or call.name in ("point", "crop"))
    code = find_code(text)
    assert code is None or code.text in text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1", "x = 1"),
        ("```Python3\nx = 1\n``` and more", "x = 1\n"),
        ("I draw: ```py\na\n``` then ```python\nb\n```", "a\n"),
        ("```json\n{}\n```\n```python\nb\n```", "b\n"),
        ("```json\n{}\n```\nThe answer is \\boxed{A}", None),
        ("```\n\\boxed{A}\n```", None),
        ("x = 1", None),
    ],
)
def test_only_blocks_marked_as_python_are_code(text, code):
    found = find_code(text)
    assert (found and found.text) == code


def test_what_a_tool_tells_is_cut():
    found = run_tool(lambda: Observation("x" * 5000))
    assert len(found.text) < 2100 and "3,000 further characters" in found.text


# -- names and options -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corp", "unknown baseline 'corp'. Did you mean 'crop'"),
        ("crop:turn=2", "baseline 'crop' has no option 'turn'. Did you mean 'turns'"),
        ("crop:turns=x", "baseline crop: "),
        ("crop:turns", "baseline 'crop': 'turns' is no option"),
        ("crop:scale=inches", "baseline crop: "),
    ],
)
def test_a_wrong_name_or_option_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        baselines.make_baseline(text)


def test_a_checkpoint_without_a_decoder_cannot_imagine():
    with pytest.raises(ValueError, match="'imagine' renders sketches, and this checkpoint has no sketch decoder"):
        episodes.check_baseline(make("imagine"), model_of("qwen2_5_vl"), None, True)
    with pytest.raises(ValueError, match=r"'recheck' sketches, and this checkpoint draws no latents"):
        episodes.check_baseline(make("recheck", sketches=True), model_of("qwen2_5_vl"), None, True)
    with pytest.raises(ValueError, match="Allow it with --run-code"):
        episodes.check_baseline(make("whiteboard"), model_of("qwen2_5_vl"), None, False)


def test_a_chat_that_leaves_no_room_ends_the_episode():
    model, task = model_of("qwen2_5_vl"), task_of("frozenlake_plan")
    baseline = make("oracle")
    problem = baseline.problem(task, task[0])
    long = replace(problem, question="x " * 9000)
    [(_, episode)] = run_episodes(model, None, baseline, [long], LIMITS, 2)
    assert episode.ended == "room" and episode.text == "" and not episode.tokens
    [(_, episode)] = run_episodes(model, None, baseline, [problem], EpisodeLimits(new_tokens=3), 2)
    assert episode.ended == "tokens" and episode.tokens == 3

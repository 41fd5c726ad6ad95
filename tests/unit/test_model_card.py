"""Texts of result files on a model card: nothing in them becomes a row, a heading, HTML or a key of the head."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from latent_reason.checkpoint.markdown import code, escape, one_line
from latent_reason.checkpoint.model_card import model_card

EVIL = "a|b`c\n---\nlicense: mit\n# Heading\n<script>alert(1)</script>[x](//evil)![i](//evil)*_~$"
RESULT = {"task": "t", "split": "test", "level": 3, "n": 4, "metric": "success", "value": 0.5, "low": 0.1, "high": 0.9}
PROBE = {"n": 4, "protocol": "p", "probes": {"zero": {"accuracy": 0.5, "low": 0.1, "high": 0.9}}}


def card(**changes) -> dict:
    notes = {"backbone": EVIL, "seed": EVIL, "steps": EVIL, "data": {"folder": f"/data/{EVIL.replace('/', ' ')}"}}
    return {
        "method": "mirage",
        "layout": "model",
        "base": None,
        "options": {EVIL: EVIL},
        "licence": {"license": "other", "license_name": EVIL},
        "notes": notes,
    } | changes


def put(folder, name: str, value) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("layout", ["model", "adapter"])
def test_texts_of_files_stay_texts(layout, tmp_path):
    evil = {key: EVIL for key in ("task", "split", "level", "metric")}
    put(tmp_path, "eval.json", {"results": [RESULT | evil, RESULT]})
    put(tmp_path, "controls/no_<b>sketch|.json", {"results": [RESULT]})
    put(tmp_path, "probe.json", PROBE | {"protocol": EVIL, "probes": {EVIL: PROBE["probes"]["zero"]}})
    text = model_card(card(layout=layout, base=EVIL if layout == "adapter" else None), tmp_path, EVIL)
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()
    found = yaml.safe_load(head)
    assert found["license"] == "other" and "license: mit" in found["license_name"] and "\n" not in str(found)
    body = re.sub(r"```python\n.*?```", "", body, count=1, flags=re.DOTALL)  # the question is a literal of Python there
    assert not re.search(r"^(---|license|# Heading)", body, re.MULTILINE)
    bare = re.sub(r"`[^`\n]*`", "", body.replace(r"\`", ""))  # without code spans
    assert not re.search(r"<|(?<!\\)\[(?!sketches)|(?<!\\)\]\(//", bare), bare
    tables = [line for line in bare.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in tables}) == 2, "results and probes keep their columns"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eval.json", []),
        ("eval.json", {"results": {}}),
        ("eval.json", {"results": [7]}),
        ("eval.json", {"results": [RESULT | {"value": "0.5"}]}),
        ("eval.json", {"results": [RESULT | {"value": float("nan")}]}),
        ("eval.json", {"results": [RESULT | {"low": None}]}),
        ("eval.json", {"results": [{"task": "t"}]}),
        ("controls/direct.json", {"results": [RESULT | {"n": "<b>"}]}),
        ("probe.json", {"probes": {}}),
        ("probe.json", PROBE | {"probes": {"zero": {"accuracy": "<b>"}}}),
        ("probe.json", PROBE | {"probes": {"zero": PROBE["probes"]["zero"] | {"difference": 3}}}),
    ],
)
def test_another_file_in_the_place_of_results_is_named(name, value, tmp_path):
    put(tmp_path, name, value)
    with pytest.raises(ValueError, match=rf"{name}' is not a result file of eval\.(run|probe)\. Write it again"):
        model_card(card(), tmp_path, "Which way?")


@pytest.mark.parametrize(
    ("text", "words", "span"),
    [
        ("frozenlake_plan", "frozenlake_plan", "`frozenlake_plan`"),
        ("a|b", r"a\|b", r"`a\|b`"),
        ("`x`\n# y", r"\`x\` \# y", "`'x' # y`"),
        ("<b> & _i_", r"&lt;b&gt; &amp; \_i\_", "`<b> & _i_`"),
        ("\u2028\x00\ttab", "tab", "`tab`"),
        ("", "", ""),
    ],
)
def test_texts_are_escaped_once(text, words, span):
    assert (escape(text), code(text)) == (words, span) and "\n" not in one_line(text)

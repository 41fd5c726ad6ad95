"""Formats of others: what is written is read again as it was, a folder is whole or not there, nothing escapes."""

import json
import os
import re
from pathlib import Path

import pytest
from data_samples import LLAVA, MIRAGE, SHAREGPT, SWIMBIRD, TRL, picture, shown, told
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason.cli import main
from latent_reason.data import formats, jsonl, native
from latent_reason.data.convert import convert
from latent_reason.data.errors import DataError, Report
from latent_reason.data.packed import LINKED
from latent_reason.trace import Image, Message, Sketch, Text, Trace

# -- round trips -------------------------------------------------------------------------------------------------------
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and not any(sign in text for sign in "<\\{}")
)
texts, pictures = st.builds(Text, words), st.builds(picture, st.integers(0, 4))
sketches, images = st.builds(Sketch, pictures), st.builds(Image, pictures)


@st.composite
def traces(draw, modes, id="t", turns=1, most=3, system=False):
    mode, answer = draw(st.sampled_from(modes)), draw(words)
    asked = st.lists(texts | images, max_size=2)
    messages = []
    for _ in range(draw(st.integers(0, turns - 1))):
        messages += [Message("user", (*draw(asked), draw(texts))), Message("assistant", (draw(texts),))]
    before = {
        "direct": [],
        "text": [draw(texts)],
        "vision": draw(st.lists(sketches, min_size=1, max_size=most)),
        "mixed": [draw(texts), draw(sketches), *draw(st.lists(texts | sketches if most > 1 else texts, max_size=2))],
    }
    messages += [
        Message("user", (*draw(asked), draw(texts), *draw(asked))),
        Message(
            "assistant",
            (
                *before[mode],
                Text(f"{draw(st.just('') | words)}\\boxed{{{answer}}}" if mode != "text" else f"\\boxed{{{answer}}}"),
            ),
        ),
    ]
    if system and draw(st.booleans()):
        messages.insert(0, Message("system", (draw(texts),)))
    return Trace(
        id,
        tuple(messages),
        draw(words),
        draw(st.sampled_from(["train", "val", "ood-x"])),
        draw(st.none() | st.integers(0, 9)),
        mode,
        draw(st.none() | st.just(answer)),
        draw(words),
        draw(st.dictionaries(words, words, max_size=2)),
    )


def joined(trace) -> list[tuple[str, str]]:
    """Turns as in ``told``, texts side by side as one, which is all that a chat of plain texts can keep."""
    return [
        (m.role, "".join(f"\0{shown(p)}\0" if not isinstance(p, Text) else p.text for p in m.content))
        for m in trace.messages
    ]


def held(trace) -> tuple:
    return (trace.id, trace.task, trace.split, trace.level, trace.mode, trace.answer, trace.checker, trace.meta)


EVERY = ["direct", "text", "vision", "mixed"]
ROUND_TRIPS = {
    "swimbird": ({"modes": EVERY, "turns": 3}, {}),
    "mirage": ({"modes": ["vision", "mixed"], "most": 1}, {}),
    "llava": ({"modes": ["direct", "text"], "turns": 3, "system": True}, {}),
    "sharegpt": ({"modes": EVERY, "turns": 3, "system": True}, {"assistant_image": "sketch"}),
    "trl": ({"modes": EVERY, "turns": 3, "system": True}, {}),
}


def test_every_written_format_makes_the_round_trip():
    assert sorted(ROUND_TRIPS) == formats.writable()


@pytest.mark.parametrize("format", ROUND_TRIPS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_round_trip(format, data, tmp_path_factory):
    shape, options = ROUND_TRIPS[format]
    wanted = [data.draw(traces(id=f"t-{i}", **shape)) for i in range(data.draw(st.integers(1, 2)))]
    folder = tmp_path_factory.mktemp("set")
    module = formats.load(format)
    path = module.write(native.read(native.write(wanted, folder / "native")), folder / "theirs")
    back = list(module.read(path, **options))
    assert [held(trace) for trace in back] == [held(trace) for trace in wanted]
    assert [joined(trace) for trace in back] == [joined(trace) for trace in wanted]
    if format == "trl":
        assert [told(trace) for trace in back] == [told(trace) for trace in wanted], "parts stay parts"


def example(id="t", mode="mixed", sketches=1, **options):
    drawn = [Sketch(picture(i + 2), **options) for i in range(sketches)]
    told = Message("assistant", (Text("Look."), *drawn, Text("So \\boxed{D}")))
    return Trace(id, (Message("user", (Image(picture(1)), Text("Where?"))), told), "maze", mode=mode, answer="D")


def rows(path):
    text = Path(path).read_text(encoding="utf-8")
    found = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in row.items() if key != "latent_reason"} for row in found]


@pytest.mark.parametrize(
    "format, sample",
    [("swimbird", SWIMBIRD), ("mirage", MIRAGE), ("llava", LLAVA), ("sharegpt", SHAREGPT), ("trl", TRL)],
)
def test_written_rows_have_the_fields_of_the_format(tmp_path, format, sample):
    trace = example() if format != "llava" else example(mode="text", sketches=0)
    (row,) = rows(formats.load(format).write([trace], tmp_path / "out"))
    assert set(sample) <= set(row) and set(row) - set(sample) <= {"id", "sketch_index"}
    assert all(type(row[key]) is type(value) for key, value in sample.items() if not key.startswith("image"))


def test_written_rows_say_where_pictures_stand(tmp_path):
    written = {
        name: rows(formats.load(name).write([example(sketches=1)], tmp_path / name))[0]
        for name in ("swimbird", "mirage", "sharegpt", "trl")
    }
    assert [turn["value"] for turn in written["swimbird"]["conversations"]] == [
        "<image>\nWhere?",
        "Look.<image>\nSo \\boxed{D}",
    ]
    assert len(written["swimbird"]["image"]) == len(written["swimbird"]["reasoning_image"]) == 1
    assert written["mirage"]["text_output"] == "Look.<output_image>\nSo \\boxed{D}"
    assert len(written["sharegpt"]["images"]) == 2 and written["trl"]["sketch_index"] == [1]
    assert [part["type"] for part in written["trl"]["messages"][1]["content"]] == ["text", "image", "text"]
    assert all((tmp_path / "trl" / name).is_file() for name in written["trl"]["images"])


# -- what is lost, what does not fit -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "format, trace, lost",
    [
        ("swimbird", example(state={"at": 1}, k=2), "k of a sketch (1), state of a sketch (1)"),
        ("mirage", example(sketches=3), "sketches besides the last (2)"),
        ("llava", example(), "sketches (1)"),
        ("sharegpt", example(loss=0.5, redundant=True), "loss of a sketch (1), redundant of a sketch (1)"),
        (
            "swimbird",
            Trace(
                "t",
                (
                    Message("system", (Text("Hm."),)),
                    Message("user", (Text("Say."),)),
                    Message("assistant", (Text("A", loss=0.5),)),
                ),
                mode="direct",
            ),
            "loss of a text (1), system turn (1)",
        ),
    ],
)
def test_losses_are_listed_and_need_a_word(tmp_path, format, trace, lost):
    module, report = formats.load(format), Report()
    with pytest.raises(ValueError) as caught:
        module.write([trace], tmp_path / "out")
    assert str(caught.value) == f"this format cannot store: {lost}. Nothing was written. Use --lossy to drop these."
    assert os.listdir(tmp_path) == []
    (back,) = module.read(module.write([trace], tmp_path / "out", lossy=True, report=report), **ROUND_TRIPS[format][1])
    assert report.warnings == [f"dropped, because this format cannot store it: {lost}"]
    assert isinstance(back, Trace) and back.mode == {"llava": "text"}.get(format, trace.mode)
    if format == "mirage":
        assert told(back)[1] == ["Look.", "(4)", "So \\boxed{D}"], "the last sketch shows most"


QUESTION = Message("user", (Text("Say."),))
SIDE_BY_SIDE = Message("assistant", (Text("<ima"), Text("ge> \\boxed{A}")))
MISFITS = {
    "E19 open": (
        "trl",
        Trace("t", (QUESTION,), split="test"),
        "messages: no assistant turn at the end. This format supports only rows with an answer.",
    ),
    "E19 turns": (
        "mirage",
        Trace("t", (QUESTION, Message("assistant", (Text("A"),)), *example().messages)),
        "messages: more than one question. Mirage supports one question and one answer.",
    ),
    "E10": (
        "mirage",
        example(mode="text", sketches=0),
        "messages: no sketch. Mirage requires one sketch per row. Convert to another format.",
    ),
    "E18": (
        "swimbird",
        Trace("t", (QUESTION, SIDE_BY_SIDE), mode="text"),
        "messages: adjacent texts form the reserved token '<image>'. Change one.",
    ),
    "E16": ("sharegpt", example(mode="text"), "mode: 'text' but there is a sketch. Set mode mixed or vision."),
    "E05": (
        "trl",
        Trace("t", (QUESTION, Message("assistant", (Text("A"), Sketch(None, k=2), Text("B"))))),
        "messages: a sketch without an image. Give every sketch of a record an image.",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_traces_that_do_not_fit_are_named(tmp_path, name):
    format, trace, message = MISFITS[name]
    with pytest.raises(DataError) as caught:
        formats.load(format).write([example("good"), trace], tmp_path / "out")
    assert (caught.value.code, str(caught.value)) == (name[:3], f"trace 't': {message}")
    assert os.listdir(tmp_path) == []


def test_a_used_folder_and_an_empty_set_are_refused(tmp_path):
    (tmp_path / "old").write_text("x")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        formats.load("trl").write([example()], tmp_path)
    with pytest.raises(DataError, match="there are no traces to write"):
        formats.load("trl").write([], tmp_path / "out")
    with pytest.raises(DataError, match="trace 't': id 't' already used"):
        formats.load("trl").write([example(), example()], tmp_path / "out")
    assert os.listdir(tmp_path) == ["old"]


# -- the command line --------------------------------------------------------------------------------------------------
def run(capsys, *given):
    """(exit status or sentence, what was printed)."""
    status = 0
    try:
        main(["data", *given])
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr().out


def test_convert_there_check_stats_and_back(put, capsys):
    path = put("a.json", SWIMBIRD, SWIMBIRD | {"id": "s2", "answer": ""})
    bad = "E14 d/a.json:1: answer: empty. Drop the row or fill it."
    status, said = run(capsys, "convert", "swimbird", path, "out")
    assert status == 2 and bad in said and "(rows of .json, .parquet and .tar files are numbered from 0" in said
    assert "Nothing was written. Correct these rows, or skip them with --on-error skip." in said
    status, said = run(capsys, "convert", "swimbird", path, "out", "--on-error", "skip")
    assert status == 2 and "exceeds --max-skip 0.01" in said and os.listdir() == ["d"]
    status, said = run(capsys, "convert", "swimbird", path, "out", "--on-error", "skip", "--max-skip", "0.5")
    assert status == 0 and bad in said and "1 of 2 rows usable in 1 file" in said and "out.skipped.jsonl" in said
    left_out = {"file": "d/a.json", "row": 1, "id": "s2", "code": "E14"}
    assert json.loads(Path("out.skipped.jsonl").read_text()) == left_out

    status, said = run(capsys, "check", "out")
    assert status == 0
    assert re.fullmatch(r"1 of 1 rows usable in 1 file, 0 empty lines skipped, [\d,]+ rows a second\n", said)
    status, said = run(capsys, "stats", "out")
    assert status == 0 and all(word in said for word in ("swimbird", "mixed", "train", "2 of", "10x10"))

    assert run(capsys, "convert", "native", "out", "back", "--to", "swimbird")[0] == 0
    (again,) = formats.load("swimbird").read("back")
    (first,) = native.read("out")
    assert joined(again) == joined(first) and held(again) == held(first)
    assert "exists and is not empty" in run(capsys, "convert", "native", "out", "back", "--to", "trl")[0]


def test_convert_with_the_options_of_a_format(put, capsys):
    path = put("a.jsonl", SHAREGPT)
    status, said = run(capsys, "convert", "sharegpt", path, "out")
    assert status == 2 and "d/a.jsonl:1: messages[1].content: an image in an answer" in said
    status, _ = run(capsys, "convert", "sharegpt", path, "out", "--assistant-image", "sketch", "--to", "trl")
    assert status == 0 and rows(Path("out/train.jsonl"))[0]["sketch_index"] == [1]
    assert run(capsys, "convert", "llava", path, "x", "--box-unit", "pixel")[0] == (
        "error: 'llava' has no option --box-unit. Its options are: --unplaced-image."
    )
    assert (
        "Its options are: --assistant-image, --unplaced-image, --columns, --tags."
        in run(capsys, "convert", "sharegpt", path, "x", "--box-unit", "pixel")[0]
    )
    own = put("own.jsonl", {"talk": [{"who": "U", "what": "Hi"}, {"who": "A", "what": "Yes."}]})
    names = ("--columns", "messages=talk", "--tags", "role_tag=who,content_tag=what,user_tag=U,assistant_tag=A")
    assert run(capsys, "convert", "sharegpt", own, "own", *names)[0] == 0
    assert run(capsys, "convert", "sharegpt", own, "x", "--tags", "who")[0] == 2, "argparse explains"
    assert "unknown format 'zebra'. Did you mean 'zebra_cot'?" in run(capsys, "convert", "zebra", path, "x")[0]
    assert "'ilvr' cannot be written." in run(capsys, "convert", "native", path, "x", "--to", "ilvr")[0]
    assert "lies in the source folder" in run(capsys, "convert", "trl", "d", "d/x")[0]
    assert "There is no file or folder 'no'" in run(capsys, "convert", "trl", "no", "x")[0]
    assert sorted(os.listdir()) == ["d", "out", "own"]
    assert sorted(os.listdir("d")) == ["1.png", "2.png", "3.png", "4.png", "a.jsonl", "own.jsonl"]


def test_losses_at_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    native.write([example("a", state=1), example("b", mode="text", sketches=0)], "set")
    assert "Use --lossy to drop these" in run(capsys, "convert", "native", "set", "out", "--to", "trl")[0]
    status, said = run(capsys, "convert", "native", "set", "out", "--to", "trl", "--lossy")
    assert status == 0 and "warning: dropped, because this format cannot store it: state of a sketch (1)" in said
    status, said = run(capsys, "convert", "native", "set", "m", "--to", "mirage", "--lossy")
    assert status == 2 and "E10 trace 'b': messages: no sketch." in said and not Path("m").exists()
    wide = ("--lossy", "--on-error", "skip", "--max-skip", "1")
    assert run(capsys, "convert", "native", "set", "m", "--to", "mirage", *wide)[0] == 0
    assert len(rows(Path("m/train.jsonl"))) == 1


def test_check_and_stats_name_what_is_wrong(tmp_path, capsys):
    native.write([example()], tmp_path / "set")
    line = (tmp_path / "set" / "traces.jsonl").read_text()
    (tmp_path / "set" / "traces.jsonl").write_text(line.replace('"mixed"', '"text"'))
    status, said = run(capsys, "check", str(tmp_path / "set"))
    assert status == 2 and "E16" in said and "mode: 'text' but there is a sketch" in said
    assert "mode: 'text' but there is a sketch" in run(capsys, "stats", str(tmp_path / "set"))[0]


# -- nothing escapes, nothing is held whole ----------------------------------------------------------------------------
OUTSIDE = ["../1.png", "/etc/passwd", "https://host/x.png", "C:/x.png", "away/1.png", "a\\b.png"]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("format, row", [("swimbird", SWIMBIRD), ("llava", LLAVA), ("trl", TRL)])
def test_pictures_outside_are_refused(put, format, row, path):
    Path("d/away").symlink_to(Path.cwd())
    picture(1).save("1.png")
    key = "images" if "images" in row else "image"
    (error,) = formats.load(format).read(put("a.jsonl", row | {key: [path]}))
    assert isinstance(error, DataError) and error.code == "E08"


def test_files_outside_and_of_other_kinds_are_named(put):
    put("a.jsonl", LLAVA)
    Path("secret.jsonl").write_text(json.dumps(LLAVA))
    Path("d/b.jsonl").symlink_to(Path("secret.jsonl").absolute())
    good, *errors = formats.load("llava").read("d")
    assert good.id == "l1" and [(error.code, str(error)) for error in errors] == [("E08", f"d/b.jsonl: {LINKED}")]


@pytest.mark.parametrize(
    "text, code, message",
    [
        (
            '[{"id": 1}, {"id"',
            "E02",
            "d/a.json:1: column 7: JSON ends early. The file looks cut; copy or write it again.",
        ),
        ('[{"id": 1}', "E02", "d/a.json:1: column 1: JSON ends early. The file looks cut; copy or write it again."),
        (
            '[{"id": 1}] {"id": 2}',
            "E02",
            "d/a.json:1: column 4: a second value begins here. Write one object per line.",
        ),
        ('{"id": 1} {"id": 2}', "E02", "d/a.json:0: column 11: a second value begins here. Write one object per line."),
        ('[{"id": 1, "id": 2}]', "E04", "d/a.json:0: key 'id' twice. Keep one."),
        ('["x"]', "E05", "d/a.json:0: record: expected an object, found a string. Write one object per row."),
        ('[{"id": "%s"}]' % ("x" * 200), "E02", "d/a.json:0: line: longer than"),
    ],
)
def test_json_lists_that_are_broken(put, monkeypatch, text, code, message):
    put("a.json")
    Path("d/a.json").write_text(text)
    monkeypatch.setattr(jsonl, "LINE_BYTES", 100)
    errors = list(formats.load("llava").read("d/a.json"))
    assert any(e.code == code and str(e).startswith(message) for e in errors), [str(e) for e in errors]


def test_elements_are_never_held_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LINE_BYTES", 20)
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", 7)
    (tmp_path / "a.json").write_text(json.dumps(["x" * 500, 1]))
    assert [(row, len(data)) for row, data in jsonl.elements(tmp_path / "a.json")] == [(0, 21), (1, 2)]


letters = st.text() | st.text('"\\\\[]{},')
values = st.recursive(
    st.none() | st.booleans() | st.integers() | letters,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@example_of(['00000\\",'], None, False)  # an escape, and half of the next, at the end of a chunk
@given(st.lists(values, max_size=5), st.none() | st.integers(1, 2), st.booleans())
def test_json_lists_are_read_element_by_element(tmp_path_factory, wanted, indent, ascii):
    file = tmp_path_factory.mktemp("list") / "a.json"
    text = json.dumps(wanted, indent=indent, ensure_ascii=ascii)
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "LINE_BYTES", len(text.encode("utf-8", "surrogatepass")))
        patch.setattr(jsonl, "CHUNK_BYTES", 3)
        assert [json.loads(data) for _, data in jsonl.elements(file)] == wanted


def test_convert_names_an_empty_set(put):
    with pytest.raises(DataError, match=r"no usable rows in 1 file. They contain no rows"):
        convert("llava", put("a.json"), "out")
    assert os.listdir() == ["d"]

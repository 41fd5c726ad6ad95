"""``data check`` over all kinds of bad rows at once: each by its sentence and place, the good ones kept."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from native_records import picture, record
from test_data_native_bad import BAD_LINES, BAD_RECORDS
from test_data_packed import example
from tiny_runs import tiny_checkpoint

from latent_reason.cli import main
from latent_reason.data import native, packed
from latent_reason.data.checks import trainable
from latent_reason.model.processor import EncodedExample
from latent_reason.trace import Image, Message, Text


def test_every_kind_of_bad_row_in_one_file(write_records, tmp_path, capsys):
    """The catalogue of test_data_native_bad as one file, a good row before each bad one."""
    kinds = {name: (line, code, message) for name, (line, code, message) in BAD_LINES.items()}
    kinds |= {name: (make(), code, message) for name, (make, code, message) in BAD_RECORDS.items()}
    assert len(kinds) >= 45 and len({message for *_, message in kinds.values()}) >= 40
    rows, wanted = [], []
    for number, (bad, code, message) in enumerate(kinds.values()):
        rows += [record(id=f"good-{number}"), bad]
        wanted.append((code, 2 * number + 2, f"d/a.jsonl:{2 * number + 2}: {message}"))
    rows += [record(id="good-0"), b""]
    wanted.append(
        (
            "E13",
            len(rows) - 1,
            f"d/a.jsonl:{len(rows) - 1}: id 'good-0' already used in d/a.jsonl:1. Ids must be unique.",
        )
    )
    path = write_records(*rows)

    with pytest.raises(SystemExit) as ended:
        main(["data", "check", path, "--report", "found.json"])
    assert ended.value.code == 2
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(e["code"], e["row"], e["message"]) for e in found["errors"]] == wanted
    assert (found["files"], found["rows"], found["usable"]) == (1, 2 * len(kinds) + 1, len(kinds))
    assert found["problems"] == Counter(code for code, *_ in wanted)
    printed = capsys.readouterr().out
    assert f"... and {len(wanted) - 20} more" in printed and all(sentence in printed for *_, sentence in wanted[:20])

    main(["data", "convert", "native", path, "good", "--on-error", "skip", "--max-skip", "1"])
    assert [trace.id for trace in native.read("good")] == [f"good-{i}" for i in range(len(kinds))]
    skipped = [json.loads(line) for line in (tmp_path / "good.skipped.jsonl").read_text().splitlines()]
    assert [(one["code"], one["row"]) for one in skipped] == [one[:2] for one in wanted]


# -- E23: what is tested was taught ------------------------------------------------------------------------------------
def asking(number, split, seed, **meta):
    trace = example(number, split)
    messages = (Message("user", (Image(picture(seed)), Text("Where?"))), *trace.messages[1:])
    return replace(trace, messages=messages, meta=meta)


@pytest.mark.parametrize("form", ["files", "tar"])
def test_test_items_that_train_shows_are_named(tmp_path, form):
    traces = [
        asking(0, "test", 0),
        asking(1, "train", 1),
        asking(2, "val", 2),
        asking(3, "train", 0),
        asking(4, "val", 1),
        asking(5, "test", 1),
        asking(6, "train", 0),
    ]
    folder = tmp_path / "set"
    native.write(traces, folder) if form == "files" else packed.write(traces, folder, form)
    report = native.check(folder)
    assert [(e.code, str(e)) for e in report.errors] == [
        (
            "E23",
            "split: 2 items in 'test' with the images or state of a training item (t-0 as t-6, t-5 as t-1). "
            "Rebuild the splits.",
        ),
        (
            "E23",
            "split: 1 item in 'val' with the images or state of a training item (t-4 as t-1). Rebuild the splits.",
        ),
    ]
    assert report.traces == 7 and len(list(native.read(folder))) == 7, "each row for itself is good"


def test_the_same_state_of_a_task_in_another_look_is_named(tmp_path):
    state = {"b": [1, 2], "a": "x"}
    traces = [
        asking(0, "train", 0, state=state),
        asking(1, "ood-skin", 1, state=dict(reversed(state.items()))),
        replace(asking(2, "test", 2, state=state), task="another"),
        asking(3, "test", 3, state={"a": "x"}),
        asking(4, "test", 4, state={}),
    ]
    (error,) = native.check(native.write(traces, tmp_path / "set")).errors
    assert (
        error.code == "E23"
        and "1 item in 'ood-skin' with the images or state" in str(error)
        and "t-1 as t-0" in str(error)
    )


def test_pictures_in_another_order_or_alone_are_other_items(tmp_path):
    def two(number, split, *seeds):
        trace = asking(number, split, 0)
        asked = (*(Image(picture(seed)) for seed in seeds), Text("Where?"))
        return replace(trace, messages=(Message("user", asked), *trace.messages[1:]))

    traces = [two(0, "train", 1, 2), two(1, "test", 2, 1), two(2, "test", 1), two(3, "test")]
    assert native.check(native.write(traces, tmp_path / "set")).ok


# -- E24: too long for a model -----------------------------------------------------------------------------------------
def test_rows_that_are_too_long_are_named_where_they_stand(tmp_path, capsys):
    traces = [example(i) for i in range(2)]
    long = traces[0].messages[0], Message("assistant", (Text("so " * 400), *traces[0].messages[1].content))
    path = native.write([traces[0], replace(traces[1], messages=long)], tmp_path / "set")
    main(["data", "check", str(path), "--fits", str(tiny_checkpoint())])
    with pytest.raises(SystemExit):
        main(["data", "check", str(path), "--fits", str(tiny_checkpoint()), "--longest", "300"])
    printed = capsys.readouterr().out
    assert f"E24 {path}:2: messages: " in printed and "positions, limit 300. Shorten the row, use smaller" in printed
    assert "1 of 2 rows usable" in printed


def test_the_limit_itself_fits():
    def check(longest):
        row = EncodedExample(ids=[0] * 5)
        return trainable("mine", lambda trace: row, lambda trace: None, longest)(example(0))

    assert check(5) is None
    with pytest.raises(native.DataError, match="5 positions, limit 4"):
        check(4)

"""Task, split and a share for validation that ``data convert`` gives to records."""

import json
from pathlib import Path

import pytest
from test_data_table import R1V

from latent_reason.cli import main
from latent_reason.data import native


def test_task_split_and_a_share_for_validation(put, capsys):
    rows = [{"question": f"{i}?", "answer": "1", "id": str(i), "images": [f"{i % 3 + 1}.png"]} for i in range(60)]
    put("a.jsonl", *rows, *({"question": f"{i}", "answer": "1", "id": f"q{i}"} for i in range(200)))
    main(["data", "convert", "table", "d", "out", "--task", "counting", "--val-share", "0.3"])
    traces = list(native.read("out"))
    assert {t.task for t in traces} == {"counting"} and {t.split for t in traces} == {"train", "val"}
    by_image = {}
    for trace in traces:
        if trace.images():
            by_image.setdefault(trace.images()[0].getpixel((0, 0)), set()).add(trace.split)
    assert len(by_image) == 3 and all(len(splits) == 1 for splits in by_image.values())
    held_out = [t.split == "val" for t in traces if not t.images()]
    assert 0.2 < sum(held_out) / len(held_out) < 0.4
    assert native.check("out").ok, "no image is both in train and in val"
    main(["data", "convert", "table", "d", "again", "--task", "counting", "--val-share", "0.3"])
    assert Path("again/traces.jsonl").read_bytes() == Path("out/traces.jsonl").read_bytes()
    main(["data", "convert", "native", "out", "tested", "--split", "test", "--val-share", "0.3"])
    assert {t.split for t in native.read("tested")} == {"test"}
    assert "260 of 260 rows usable" in (said := capsys.readouterr().out) and "rows a second" in said


@pytest.mark.parametrize(
    "option, value, sentence",
    [
        ("--split", "dev", "--split dev: is not train, val, test"),
        ("--val-share", "1", "'1' is not a number, at least 0 and below 1"),
    ],
)
def test_labels_that_are_none(put, option, value, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", "convert", "table", put("a.jsonl", R1V), "out", option, value])
    assert sentence in f"{ended.value} {capsys.readouterr().err}"


def test_items_of_a_task_are_written_in_other_formats(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["data", "make", "frozenlake_plan", "chats", "--n", "2", "--to", "trl", "--lossy"])
    rows = [json.loads(line) for line in Path("chats/train.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and rows[0]["messages"][1]["role"] == "assistant" and rows[0]["images"]

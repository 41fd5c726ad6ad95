"""Task, splits, checker and mode that ``data convert`` and ``data make`` give to records."""

import json
from collections import Counter
from pathlib import Path

import pytest
from data_samples import LLAVA, MMFINEREASON
from test_data_table import R1V

from latent_reason.cli import main
from latent_reason.data import native
from latent_reason.data.labels import SplitDraw, count_by_split, parse_splits
from latent_reason.trace import Message, Sketch, Text, Trace

SHARES = "train=0.7,val=0.2,test=0.1"


def split_of(folder: str) -> dict[str, str]:
    return {trace.id: trace.split for trace in native.read(folder)}


def test_task_and_splits_by_image(put, capsys):
    rows = [{"question": f"{i}?", "answer": "1", "id": str(i), "images": [f"{i % 3 + 1}.png"]} for i in range(60)]
    put("a.jsonl", *rows, *({"question": f"{i}", "answer": "1", "id": f"q{i}"} for i in range(200)))
    main(["data", "convert", "table", "d", "out", "--task", "counting", "--split", SHARES])
    traces = list(native.read("out"))
    assert {t.task for t in traces} == {"counting"}
    by_image = {}
    for trace in traces:
        if trace.images():
            by_image.setdefault(trace.images()[0].getpixel((0, 0)), set()).add(trace.split)
    assert len(by_image) == 3 and all(len(splits) == 1 for splits in by_image.values())
    counts = Counter(t.split for t in traces)
    assert all(abs(counts[split] - share * 260) < 4 for split, share in parse_splits(SHARES).items()), counts
    assert native.check("out").ok, "no image is in two splits"
    main(["data", "convert", "table", "d", "again", "--task", "counting", "--split", SHARES])
    assert Path("again/traces.jsonl").read_bytes() == Path("out/traces.jsonl").read_bytes()
    main(["data", "convert", "table", "d", "other", "--split", SHARES, "--split-seed", "1"])
    assert split_of("other") != split_of("out")
    assert "260 of 260 rows usable" in (said := capsys.readouterr().out) and "rows a second" in said


def test_one_split_is_of_all_and_shares_only_of_training_records(put):
    put("a.jsonl", *({"question": f"{i}", "answer": "1", "id": f"q{i}"} for i in range(20)))
    put("test/b.jsonl", {"question": "held out", "answer": "1", "id": "kept"})
    main(["data", "convert", "table", "d", "out", "--split", "train=0.5,val=0.5"])
    found = split_of("out")
    assert found.pop("kept") == "test" and Counter(found.values()) == {"train": 10, "val": 10}
    main(["data", "convert", "native", "out", "tested", "--split", "test"])
    assert set(split_of("tested").values()) == {"test"}
    with pytest.raises(SystemExit, match="no training record that shares could divide"):
        main(["data", "convert", "native", "tested", "again", "--split", "train=0.5,val=0.5"])
    assert not Path("again").exists()


def test_records_that_are_added_change_no_earlier_split():
    traces = [Trace(f"t{i}", (Message("user", (Text("?"),)),)) for i in range(100)]
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    few, many = SplitDraw(shares), SplitDraw(shares)
    first = [few(trace) for trace in traces[:30]]
    assert first == [many(trace) for trace in traces][:30]
    assert set(first[:12]) == set(shares), "also a dozen records have each split"
    assert many.counts == pytest.approx({"train": 80, "val": 10, "test": 10}, abs=2)


def test_a_split_without_a_record_is_refused(put):
    put("a.jsonl", *({"question": f"{i}", "answer": "1", "id": f"q{i}", "images": ["1.png"]} for i in range(9)))
    with pytest.raises(SystemExit, match=r"no record got the split '\w+', and nothing was written: there are too few"):
        main(["data", "convert", "table", "d", "out", "--split", "train=0.5,test=0.5"])
    assert not Path("out").exists()
    with pytest.raises(SystemExit, match="4 items are too few for the split 'val'"):
        main(["data", "make", "frozenlake_plan", "out", "--n", "4", "--split", "train=0.9,val=0.1"])
    assert count_by_split({"train": 0.8, "val": 0.1, "test": 0.1}, 10) == {"train": 8, "val": 1, "test": 1}
    assert count_by_split({"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}, 10) == {"train": 4, "val": 3, "test": 3}


@pytest.mark.parametrize(
    "option, value, sentence",
    [
        ("--split", "dev", "'dev' is not train, val, test"),
        ("--split", "train=0.5,val=0.4", "must be more than 0 and add up to 1"),
        ("--split", "train=1.5,val=-0.5", "must be more than 0 and add up to 1"),
        ("--split", "train=nan,val=0.5", "must be more than 0 and add up to 1"),
        ("--split", "train,val=0.5", "'train' has no share"),
        ("--split", "train=0.5,train=0.5", "names 'train' twice"),
        ("--val-share", "0.1", "is no option any more. Use --split train=0.98,val=0.02"),
        ("--mode", "mixed", "invalid choice: 'mixed'"),
        ("--checker", "numbr", "there is no checker 'numbr'. Did you mean 'number'"),
    ],
)
def test_labels_that_are_none(put, option, value, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", "convert", "table", put("a.jsonl", R1V), "out", option, value])
    assert sentence in " ".join(f"{ended.value} {capsys.readouterr().err}".split())


# -- checker and mode --------------------------------------------------------------------------------------------------
def talk(answer: str, name: str = "1") -> dict:
    said = {"from": "gpt", "value": f"It is hidden.\n<image>\nSo <answer>{answer}</answer>"}
    return {
        "id": name,
        "image": [f"{name}.png", "4.png"],
        "conversations": [{"from": "human", "value": "<image>\nHow many?"}, said],
    }


SKETCHED = ("sharegpt", "d", "--assistant-image", "sketch")


def test_a_checker_for_rows_of_any_format(put, capsys):
    put("a.json", talk("3"), talk("two", "2"))
    format, source, *options = SKETCHED
    main(["data", "convert", format, source, "out", *options, "--checker", "number"])
    assert {t.checker for t in native.read("out")} == {"number"}
    main(["data", "convert", "native", "out", "again", "--checker", "same_text"])
    assert {t.checker for t in native.read("again")} == {"same_text"}
    put("a.json", talk("3"), talk("red", "2"))
    for words in (("convert", format, source, "bad"), ("check", source, "--format", format)):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(["data", *words, *options, "--checker", "number"])
        said = capsys.readouterr().out
        assert "E05 trace '2': answer: 'red' holds no number" in said and "1 of 2 rows usable" in said
    main(
        ["data", "convert", *SKETCHED[:2], "skip", *options, "--checker", "number", "--on-error=skip", "--max-skip=0.5"]
    )
    assert list(split_of("skip")) == ["1"]
    with pytest.raises(SystemExit, match="each record names its own"):
        main(["data", "check", "out", "--checker", "number"])


def test_records_without_sketches_are_the_same_in_text(put, capsys):
    put("a.json", talk("3"), talk("4", "2"))
    main(["data", "convert", *SKETCHED[:2], "out", *SKETCHED[2:]])
    main(["data", "convert", "native", "out", "text", "--mode", "text"])
    main(["data", "convert", "native", "out", "direct", "--mode", "direct"])
    drawn, said, direct = (list(native.read(folder)) for folder in ("out", "text", "direct"))
    assert {t.mode for t in drawn} == {"mixed"} and {t.mode for t in said} == {"text"}
    assert said[0].assistant_text() == "It is hidden.\nSo \\boxed{3}" and not said[0].sketches()
    assert [(t.id, t.split, t.answer) for t in said] == [(t.id, t.split, t.answer) for t in drawn]
    assert [(t.mode, t.assistant_text()) for t in direct] == [("direct", f"\\boxed{{{n}}}") for n in (3, 4)]
    main(["data", "check", "text", "--method", "text_cot"])
    main(["data", "check", "direct", "--method", "direct"])
    put(
        "a.json",
        talk("3") | {"conversations": [{"from": "human", "value": "<image><image> ?"}, {"from": "gpt", "value": "3"}]},
    )
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["data", "convert", "llava", "d", "none", "--mode", "direct"])
    assert "E14 trace '1': answer: missing, so there is nothing to answer directly" in capsys.readouterr().out


def test_texts_around_a_sketch_stay_apart(tmp_path):
    from latent_reason.data.labels import without_sketches

    question = Message("user", (Text("?"),))
    parts = (Text("One."), Sketch(None, k=1), Text("Two."), Sketch(None, k=1), Text("\n3"))
    made = without_sketches(Trace("a", (question, Message("assistant", parts))))
    assert made.assistant_text() == "One. Two.\n3" and made.mode == "text"


# -- tasks -------------------------------------------------------------------------------------------------------------
def test_items_of_a_task_are_written_in_other_formats(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["data", "make", "frozenlake_plan", "chats", "--n", "2", "--to", "trl", "--lossy"])
    rows = [json.loads(line) for line in Path("chats/train.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and rows[0]["messages"][1]["role"] == "assistant" and rows[0]["images"]


def test_items_of_several_splits_in_one_mode(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(
        [
            "data",
            "make",
            "frozenlake_plan",
            "words",
            "--n",
            "20",
            "--mode",
            "text",
            "--split",
            "train=0.8,val=0.1,test=0.1",
        ]
    )
    assert "20 traces of frozenlake_plan (text; 16 train, 2 val, 2 test)" in capsys.readouterr().out
    traces = list(native.read("words"))
    assert Counter(t.split for t in traces) == {"train": 16, "val": 2, "test": 2}
    assert {t.mode for t in traces} == {"text"} and native.check("words").ok


def test_records_that_a_model_solves_too_often_are_left_out(put, capsys):
    rows = [MMFINEREASON | {"id": k, "pass_rate": rate} for k, rate in enumerate((0, 0.25, 0.5, 1))]
    main(["data", "convert", "mmfinereason", put("a.jsonl", *rows), "hard", "--max-pass-rate", "0.25"])
    assert [trace.id for trace in native.read("hard")] == ["0", "1"], "a rate that is as high is kept"
    assert "Left out, above --max-pass-rate: 2 records" in capsys.readouterr().out
    main(["data", "convert", "native", "hard", "hardest", "--max-pass-rate", "0"])
    assert [trace.id for trace in native.read("hardest")] == ["0"], "records keep their rate"
    main(["data", "convert", "native", "hard", "all"])
    assert len(list(native.read("all"))) == 2, "by default all are kept"


def test_a_pass_rate_that_is_missing_or_always_too_high_is_an_error(put, capsys):
    with pytest.raises(SystemExit):
        main(["data", "convert", "llava", put("a.jsonl", LLAVA), "out", "--max-pass-rate", "0.5"])
    assert "meta.pass_rate: missing, or no number. Leave --max-pass-rate out" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="all 1 records have a pass rate above 0, and nothing was written"):
        main(["data", "convert", "mmfinereason", put("b.jsonl", MMFINEREASON), "out", "--max-pass-rate", "0"])
    assert not Path("out").exists()

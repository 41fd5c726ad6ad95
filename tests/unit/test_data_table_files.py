"""Files that the reader ``table`` takes: CSV, TSV, JSON and parquet, and what their names tell."""

from pathlib import Path

import pytest
from data_samples import told
from test_data_table import read


def test_csv_tsv_json_and_parquet_give_the_same_rows(put, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"q": 'a, "b"\nc', "a": "007", "i": "1.png"}, {"q": "é", "a": "B", "i": "2.png"}]
    put("a.jsonl", *rows)
    put("b.json", *rows)
    for name, sign in (("c.csv", ","), ("d.tsv", "\t")):
        lines = [["q", "a", "i"], *(['"' + v.replace('"', '""') + '"' for v in row.values()] for row in rows)]
        Path("d", name).write_text("\ufeff" + "\r\n".join(map(sign.join, lines)) + "\r\n", encoding="utf-8")
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, "d/e.parquet")
    with pyarrow.ipc.new_stream("d/f.arrow", table.schema) as writer:
        writer.write_table(table)
    columns = {"question": "q", "answer": "a", "images": "i"}
    for name in ("a.jsonl", "b.json", "c.csv", "d.tsv", "e.parquet", "f.arrow"):
        traces, errors = read(f"d/{name}", columns=columns)
        assert not errors and [t.answer for t in traces] == ["007", "B"], name
        assert [told(t) for t in traces] == [[["[1]", 'a, "b"\nc']], [["[2]", "é"]]]
    assert len(read("d", columns=columns)[0]) == 12


def test_csv_files_that_cannot_be_read_are_named(put):
    columns = {"question": "q", "answer": "a"}
    for text, code, message in [
        ("q,a\nx,1,2\n", "E10", "3 cells below 2 column names"),
        ("q,a\nx,1\ny\n", "E10", "1 cells below 2 column names"),
        ("q,q\nx,1\n", "E04", "two columns have one name"),
        ('q,a\n"x,1\n', "E20", "cannot be read as CSV (unexpected end of data)"),
        ("q,a\n\xff,1\n", "E01", "not UTF-8"),
    ]:
        Path("d/a.csv").write_bytes(text.encode("latin-1"))
        *_, error = read("d/a.csv", columns=columns)[1]
        assert error.code == code and message in str(error) and str(error).startswith("d/a.csv:")
    Path("d/a.csv").write_text('q,a,i\nx,1,"[""1.png"", ""2.png""]"\ny,2,\n')
    traces, errors = read("d/a.csv", columns=columns | {"images": "i"})
    assert not errors and [told(t) for t in traces] == [[["[1]", "[2]", "x"]], [["y"]]]


def test_names_of_files_and_columns_tell_the_split(put):
    expected = {
        "b": "train",
        "data/train-00000-of-00001": "train",
        "data/validation-00000-of-00001": "val",
        "test/a": "test",
        "testmini": "test",
        "test2": "test",
        "testA": "test",
        "test-dev": "test",
        "val2017/x": "val",
        "eval_train": "train",
        "eval/x": "test",
    }
    for name in (f"{name}.jsonl" for name in expected):
        put(name, {"question": "Q", "answer": "1"})
    splits = {t.id: t.split for t in read("d", columns={})[0]}
    assert splits == {f"{name.replace('/', '-')}-1": split for name, split in expected.items()}
    assert [t.split for t in read("d/test", columns={})[0]] == ["test"]
    assert [t.split for t in read("d/test/a.jsonl", columns={})[0]] == ["test"]
    ((trace,), _) = read(put("c.jsonl", {"question": "Q", "answer": "1", "part": "dev"}), columns={"split": "part"})
    assert trace.split == "val"

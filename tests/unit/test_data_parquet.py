"""Tables of others: their rows are read as JSON rows are, whatever their pictures are."""

import io
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from data_samples import LLAVA, SAMPLES, THINKMORPH, TRL, ZEBRA, picture, read, told

from latent_reason.data import formats
from latent_reason.data import parquet as shards
from latent_reason.data.errors import Report
from latent_reason.data.pictures import Limits

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def png(number):
    data = io.BytesIO()
    picture(number).save(data, "PNG")
    return data.getvalue()


def as_struct(path):
    return {"bytes": png(int(path[0])), "path": path}


def as_bytes(path):
    return png(int(path[0]))


def as_path(path):
    return {"bytes": None, "path": path}


def stored(value, how):
    """A row whose paths of pictures are what ``how`` makes of them."""
    if isinstance(value, dict):
        return {key: stored(one, how) for key, one in value.items()}
    if isinstance(value, list):
        return [stored(one, how) for one in value]
    return how(value.removeprefix("./")) if isinstance(value, str) and value.endswith(".png") else value


def table(rows, name="d/a-1.parquet"):
    Path(name).parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), name)
    return name


@pytest.mark.parametrize("how", [as_struct, as_bytes, as_path, str])
@pytest.mark.parametrize(
    "format, row, options, turns, mode, answer, id, checker",
    [sample for sample in SAMPLES if sample[0] != "visual_cot"],  # its regions are marked in paths
)
def test_samples(put, how, format, row, options, turns, mode, answer, id, checker):
    (trace,), errors, report = read(format, table([stored(row, how)], "d/a.parquet"), **options)
    assert not errors and not report.warnings
    id = "a-0" if id == "a-1" else id  # rows of a table are counted from 0
    assert (told(trace), trace.mode, trace.answer, trace.id, trace.checker) == (turns, mode, answer, id, checker)


@pytest.mark.parametrize(
    "format, row, bad, code, message",
    [
        (
            "zebra_cot",
            ZEBRA,
            {"reasoning_image_1": None},
            "E11",
            "reasoning_image_1: named in the trace, column empty.",
        ),
        (
            "zebra_cot",
            ZEBRA,
            {"reasoning_image_1": {"bytes": None, "path": None}},
            "E11",
            "reasoning_image_1: named in",
        ),
        (
            "zebra_cot",
            ZEBRA,
            {"reasoning_image_1": {"bytes": b"<html", "path": "x.png"}},
            "E09",
            "reasoning_image_1: 'reasoning_image_1' is not a readable PNG, JPEG or WebP (it begins '<html'). Replace it.",
        ),
        (
            "zebra_cot",
            ZEBRA,
            {"reasoning_image_1": {"bytes": None, "path": "../../x.png"}},
            "E08",
            "reasoning_image_1: '../../x.png' leaves the data folder.",
        ),
        (
            "thinkmorph",
            THINKMORPH,
            {"image_list": [None, png(1)]},
            "E05",
            "image_list[0]: expected a path, found null.",
        ),
        ("thinkmorph", THINKMORPH, {"image_list": [png(1)]}, "E10", "image_list: 1 for 2 texts, expected 2 or more"),
        ("trl", TRL, {"images": [{"bytes": None, "path": "/etc/passwd"}]}, "E08", "images[0]: '/etc/passwd' is an"),
    ],
)
def test_bad_rows_are_named_and_good_ones_kept(put, format, row, bad, code, message):
    good = stored(row, as_bytes if format == "thinkmorph" else as_struct)
    path = table([good, good | bad, good])
    traces, (error,), report = read(format, path)
    assert len(traces) == 2 and report.rows == 3
    assert error.code == code and str(error).startswith(f"{path}:1: {message}")


def test_times_and_decimals_are_texts(put):
    when = datetime(2026, 1, 2)
    row = stored(LLAVA, as_struct)
    (trace,), errors, _ = read("llava", table([row | {"when": when, "cost": Decimal("1.5")}]))
    assert not errors and "2026-01-02 00:00:00" in str(trace.meta) and "1.5" in str(trace.meta)
    (error,) = formats.load("llava").read(table([row | {"conversations": when}]))
    assert "conversations: expected a list, found a string" in str(error)


def test_long_tables_are_read_in_order_and_folders_walked(put):
    rows = [stored(LLAVA | {"id": f"r{i}"}, as_struct) for i in range(50)]
    table(rows[:30], "d/one/a.parquet")
    table(rows[30:], "d/two/b.parquet")
    put("c.jsonl", LLAVA)
    report = Report()
    found = list(formats.load("llava").read("d", report=report))
    assert [trace.id for trace in found] == ["l1", *(f"r{i}" for i in range(50))] and report.files == 3


def test_pictures_are_held_to_the_limits(put):
    (error,) = formats.load("llava").read(table([stored(LLAVA, as_struct)]), limits=Limits(side=5))
    assert error.code == "E09" and "at most 5 pixels a side" in str(error)


def test_a_table_that_breaks_off_is_named(put):
    path = Path(table([stored(LLAVA | {"id": f"r{i}"}, as_struct) for i in range(3)]))
    path.write_bytes(path.read_bytes()[:-100])
    (error,) = formats.load("llava").read(path)
    assert error.code == "E20" and str(error).startswith(f"{path}: cannot be read as parquet (")
    whole = Path(table([stored(LLAVA | {"id": f"r{i}"}, as_struct) for i in range(3)])).read_bytes()
    path.write_bytes(whole[:20] + b"\xff" * 200 + whole[220:])
    found = list(formats.load("llava").read(path))
    assert found[-1].code == "E20" and str(found[-1]).startswith(f"{path}:0: cannot be read (")


def test_a_value_that_every_row_means_is_not_unpacked_for_all(put, monkeypatch):
    """A few kilobytes on disk that would be 800 MB as rows: twenty rows of one picture of 40 MB."""
    meant = pyarrow.array([0] * 20, pyarrow.int32())
    big = pyarrow.DictionaryArray.from_arrays(meant, pyarrow.array([bytes(40 * 2**20)]))
    parquet.write_table(
        pyarrow.table({"id": [str(i) for i in range(20)], "image": big}), "bomb.parquet", compression="zstd"
    )
    assert Path("bomb.parquet").stat().st_size < 20_000
    before = pyarrow.default_memory_pool().max_memory()
    assert sum(1 for _ in shards.one_by_one(shards.row_batches(shards.opened("bomb.parquet")))) == 20
    assert pyarrow.default_memory_pool().max_memory() < before + 500 * 2**20
    monkeypatch.setattr("latent_reason.data.parquet.ROW_BYTES", 30 * 2**20)
    (error,) = formats.load("llava").read("bomb.parquet")
    assert error.code == "E20" and "bomb.parquet:0: a row of 40 MiB, at most 30 MiB are read" in str(error)


def test_rows_of_a_shard_are_held_to_the_limit_of_a_group(put, monkeypatch):
    image = {"bytes": bytes(2**20), "path": None}
    table([{"record": "{}", "images": [image]}] * 8, "shard.parquet")
    shard = shards.ParquetShard(Path("shard.parquet"))
    assert len(shard.item(7).picture("images/0")) == 2**20
    monkeypatch.setattr(shards, "GROUP_BYTES", 5 * 2**20)
    monkeypatch.setattr(shard, "_cached_group", (-1, []))
    assert "the rows of a group of 5 MiB, at most 5 MiB" in str(shard.item(0).data)

"""Formats of others: every bad row is named by code, place and remedy, and the good ones are kept."""

from __future__ import annotations

import pytest
from bad_rows import BAD, turn
from data_samples import LLAVA, SAMPLES, read


@pytest.mark.parametrize("format, row, code, message", BAD)
def test_bad_rows_are_named_and_good_ones_kept(put, format, row, code, message):
    good = next(sample for name, sample, *_ in SAMPLES if name == format)
    if format == "sharegpt":
        good = turn(turn(good, 0, content="<image>Hi <image>"), 1, content="Yes.")
    path = put("a.jsonl", row, good)
    traces, (error,), _ = read(format, path)
    assert (error.code, str(error)) == (code, f"{path}:1: {message}") and len(traces) == 1


def test_ids_are_made_unique_and_unreadable_pictures_are_named(put):
    path = put("a.jsonl", LLAVA, LLAVA, LLAVA | {"id": "l1-2"}, LLAVA, LLAVA | {"id": "x", "image": "a.jsonl"})
    traces, (picture,), report = read("llava", path)
    assert [trace.id for trace in traces] == ["l1", "l1-2", "l1-2-2", "l1-3"]
    assert [trace.meta["source_id"] for trace in traces] == ["l1", "l1", "l1-2", "l1"]
    assert report.warnings == [
        "d/a.jsonl:2: id 'l1' is used again; ids are made unique, the original is meta.source_id. (3 times in this file)"
    ]
    assert picture.code == "E09" and "image: 'a.jsonl' is not a readable PNG, JPEG or WebP" in str(picture)


def test_many_kinds_of_bad_rows_are_covered():
    assert len({(format, code, message) for format, _, code, message in BAD}) > 70
    assert {code for _, _, code, _ in BAD} == {f"E{n:02}" for n in (3, 5, 6, 7, 8, 10, 11, 12, 14, 15, 17, 18, 19)}

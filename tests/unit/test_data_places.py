"""Where data lie: folders that the user names, links, the Hub cache, and files that the ``datasets`` library writes."""

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data_samples import LLAVA, TRL, picture, told
from PIL import Image as PILImage

from latent_reason.data import formats, native, packed
from latent_reason.data.convert import convert
from latent_reason.data.errors import DataError, Report
from latent_reason.trace import Image, Message, Text, Trace

COLUMNS = {"columns": {"question": "problem", "images": "image"}}


def photo(size=(64, 48), **options) -> bytes:
    """A picture that JPEG stores in far fewer bytes than PNG."""
    noise = np.random.default_rng(0).normal(128, 20, (*size[::-1], 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    PILImage.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


def read(format, path, **options):
    """(traces, errors)"""
    found = list(formats.load(format).read(path, **options))
    return [one for one in found if isinstance(one, Trace)], [one for one in found if isinstance(one, DataError)]


def errors(format, path, **options):
    return [e.code for e in formats.load(format).read(path, **options) if isinstance(e, DataError)]


# -- named folders -----------------------------------------------------------------------------------------------------
def test_absolute_paths_and_file_addresses_need_a_named_folder(put, tmp_path):
    inside = tmp_path / "d" / "1.png"
    for path in (str(inside), inside.as_uri(), f"file://localhost{inside}"):
        file = put("a.jsonl", LLAVA | {"image": path})
        assert errors("llava", file) == ["E08"]
        assert errors("llava", file, image_root=tmp_path / "d") == []
        (tmp_path / "e").mkdir(exist_ok=True)
        assert errors("llava", file, image_root=[tmp_path / "e"]) == ["E08"]
        assert errors("llava", file, image_root=[tmp_path / "e", tmp_path / "d"]) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "file:///etc/passwd", "file:///e/../etc/passwd", "file://host/x.png"])
def test_named_folders_open_nothing_else(put, tmp_path, path):
    (tmp_path / "e").mkdir()
    assert errors("llava", put("a.jsonl", LLAVA | {"image": path}), image_root=[tmp_path / "e"]) == ["E08"]


def test_a_percent_sign_of_an_address_hides_no_path(put, tmp_path):
    (tmp_path / "e").mkdir()
    path = f"file://{tmp_path}/e/%2e%2e/secret.png"
    picture(1).save("secret.png")
    assert errors("llava", put("a.jsonl", LLAVA | {"image": path}), image_root=[tmp_path / "e"]) == ["E08"]


def test_relative_paths_are_looked_up_below_every_named_folder_and_then_beside_the_file(put, tmp_path):
    for name, number in (("e", 7), ("f", 8)):
        (tmp_path / name).mkdir()
        picture(number).save(tmp_path / name / f"{name}.png")
    picture(9).save(tmp_path / "f" / "1.png")
    rows = [LLAVA | {"id": name, "image": name} for name in ("e.png", "f.png", "1.png", "2.png")]
    traces, found = read("llava", put("a.jsonl", *rows), image_root=["e", "f"])
    assert not found and [trace.images()[0].getpixel((0, 0))[0] for trace in traces] == [7, 8, 9, 2]


def test_dots_may_lead_into_a_named_folder(put, tmp_path):
    (tmp_path / "pictures").mkdir()
    picture(7).save(tmp_path / "pictures" / "7.png")
    file = put("a.jsonl", LLAVA | {"image": "../pictures/7.png"})
    assert errors("llava", file) == ["E08"]
    assert errors("llava", file, image_root="pictures") == []


def test_a_linked_folder_of_pictures_is_followed_where_it_is_named(put, tmp_path):
    (tmp_path / "big").mkdir()
    picture(7).save(tmp_path / "big" / "7.png")
    Path("d/images").symlink_to(tmp_path / "big")
    file = put("a.jsonl", LLAVA | {"image": "images/7.png"})
    assert errors("llava", file) == ["E08"]
    assert errors("llava", file, image_root="big") == []
    (tmp_path / "big" / "away.png").symlink_to(tmp_path / "secret.png")
    picture(1).save("secret.png")
    assert errors("llava", put("a.jsonl", LLAVA | {"image": "images/away.png"}), image_root="big") == ["E08"]


def test_a_named_folder_that_does_not_exist_is_one_message(put):
    with pytest.raises(FileNotFoundError, match=r"There is no folder 'nowhere'. Correct --image-root."):
        list(formats.load("llava").read(put("a.jsonl", LLAVA), image_root="nowhere"))


def test_native_records_and_shards_follow_links_into_named_folders_only(tmp_path):
    trace = Trace("a", (Message("user", (Image(picture(1)), Text("Q"))),), split="test")
    native.write([trace], tmp_path / "real")
    packed.write([trace], tmp_path / "shards", "tar")
    for kind, name in (("real", "traces.jsonl"), ("shards", "test-00000.tar")):
        (tmp_path / f"linked-{kind}").mkdir()
        for file in (tmp_path / kind).iterdir():
            (tmp_path / f"linked-{kind}" / file.name).symlink_to(file)
        (error, *_) = native.check(tmp_path / f"linked-{kind}").errors
        assert str(error).endswith(f"{name}: {packed.LINKED}")
        assert native.check(tmp_path / f"linked-{kind}", tmp_path / kind).ok


# -- the Hub and the datasets library ----------------------------------------------------------------------------------
def snapshot(tmp_path, repository="datasets--me--set") -> Path:
    """A file and a picture in the cache of the Hub: links to blobs of their repository."""
    blobs, place = tmp_path / repository / "blobs", tmp_path / repository / "snapshots" / "0123" / "data"
    blobs.mkdir(parents=True)
    place.mkdir(parents=True)
    (blobs / "aa").write_text(json.dumps(LLAVA | {"image": "7.png"}))
    picture(7).save(blobs / "bb", "PNG")
    (place / "train.jsonl").symlink_to("../../../blobs/aa")
    (place / "7.png").symlink_to("../../../blobs/bb")
    return place


def test_a_snapshot_of_the_hub_cache_is_read(tmp_path):
    place = snapshot(tmp_path)
    for source in (place, place.parent, place / "train.jsonl"):
        root = {"image_root": place} if source == place.parent else {}
        ((trace,), found) = read("llava", source, **root)
        assert not found and trace.images()[0].getpixel((0, 0)) == (7, 7, 7)


def test_the_cache_of_a_repository_is_read_by_its_snapshot(tmp_path):
    place = snapshot(tmp_path)
    repository = tmp_path / "datasets--me--set"
    (place.parent / "images").mkdir()
    (place.parent / "images" / "7.png").symlink_to("../../../blobs/bb")
    (repository / "blobs" / "aa").write_text(json.dumps(LLAVA | {"image": "images/7.png"}))
    for source in (repository, repository / "snapshots", place.parent, place, place / "train.jsonl"):
        ((trace,), found) = read("llava", source)
        assert not found and trace.images()[0].getpixel((0, 0)) == (7, 7, 7), source
    (repository / "snapshots" / "4567").mkdir()
    with pytest.raises(ValueError, match=r"holds 2 snapshots \(0123, 4567\). Name the folder of one."):
        read("llava", repository)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    assert len(read("llava", repository)[0]) == 1


def test_a_list_file_of_lvr_with_a_path_that_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text(json.dumps([{"data_path": "a\0.json", "image_folder": ".", "ds_name": "x"}]))
    assert errors("lvr", "list.json") == ["E08"]


def test_links_of_a_snapshot_lead_to_its_own_blobs_only(tmp_path):
    place = snapshot(tmp_path)
    other = snapshot(tmp_path / "other")
    (place / "7.png").unlink()
    (place / "7.png").symlink_to(other / "7.png")
    assert errors("llava", place) == ["E08"]
    assert errors("llava", snapshot(tmp_path / "third", "any--name")) == ["E08"]
    blobs = tmp_path / "datasets--me--set" / "blobs"
    blobs.rename(tmp_path / "blobs")
    blobs.symlink_to(tmp_path / "blobs")
    assert errors("llava", place) == ["E08"]


def test_folders_of_the_datasets_library_are_read_without_side_files(put, monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"problem": datasets.Value("string"), "answer": datasets.Value("int64"), "image": datasets.Image()}
    )
    data = {
        name: datasets.Dataset.from_dict(
            {"problem": ["Q"] * n, "answer": list(range(n)), "image": [picture(i) for i in range(n)]}, features
        )
        for name, n in (("train", 3), ("validation", 2))
    }
    datasets.DatasetDict(data).save_to_disk("saved")
    Path("saved/train/cache-0a1b.arrow").write_bytes(b"")
    Path("saved/.cache").mkdir()
    Path("saved/.cache/x.json").write_text("{}")
    traces, found = read("table", "saved", **COLUMNS)
    assert not found
    assert [(t.split, t.answer, t.images()[0].getpixel((0, 0))[0]) for t in traces] == [
        *(("train", str(i), i) for i in range(3)),
        *(("val", str(i), i) for i in range(2)),
    ]
    with pytest.raises(FileNotFoundError):
        read("table", "saved/none", **COLUMNS)


def test_arrow_files_of_both_kinds_and_damaged_ones(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    table = pyarrow.table({"question": ["Q", "R"], "answer": ["1", "2"]})
    with pyarrow.ipc.new_file("a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pyarrow.ipc.new_stream("b.arrow", table.schema) as writer:
        writer.write_table(table)
    assert [read("table", name)[0][1].answer for name in ("a.arrow", "b.arrow")] == ["2", "2"]
    Path("c.arrow").write_bytes(Path("b.arrow").read_bytes()[:60])
    Path("d.arrow").write_bytes(b"no arrow at all")
    for name in ("c.arrow", "d.arrow"):
        (error, *_) = formats.load("table").read(name)
        assert error.code == "E20" and str(error).startswith(name) and "cannot be read" in str(error)


def shard(name: str, members: dict[str, bytes], **options) -> None:
    with tarfile.open(name, "w", **options) as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_tar_files_of_a_webdataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"problem": "Q", "answer": "1"}
    shard(
        "train-0.tar",
        {
            "README": b"no part of a sample",
            "x/000.json": json.dumps(row).encode(),
            "x/000.jpg": photo(),
            "x/001.jpg": photo(),
            "x/001.txt": b"What is it?\n",
            "x/001.cls": b"3",
            "x/002.json": b"{",
        },
    )
    traces, found = read("table", "train-0.tar", columns={"question": "problem", "images": "jpg"})
    assert [told_text(t) for t in traces] == [["Q"]] and [e.code for e in found] == ["E05", "E02"]
    assert traces[0].images()[0].size == (64, 48)
    traces, _ = read("table", "train-0.tar", columns={"question": "json.problem", "images": "jpg"})
    assert traces[0].answer == "1"
    traces, found = read("table", "train-0.tar", columns={"question": "txt", "answer": "cls", "images": "jpg"})
    assert [(told_text(t), t.answer) for t in traces] == [(["What is it?"], "3")]
    shard("chat.tar", {"5.json": json.dumps(LLAVA | {"image": "5.png"}).encode(), "5.png": png(5)})
    ((trace,), found) = read("llava", "chat.tar")
    assert told(trace) == [["[5]", "What is it?"], ["A lamp."]] and not found


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_tar_members_that_need_a_header_of_their_own(tmp_path, monkeypatch, form):
    """Both names of one letter beyond ASCII read ``?1`` in the short header."""
    monkeypatch.chdir(tmp_path)
    row = {"question": "Q", "answer": "1"}
    keys = ["é1", "图1", "x/" + "y" * 120, "z" * 101]
    members = {}
    for number, key in enumerate(keys):
        members |= {f"{key}.json": json.dumps(row | {"question": key}).encode(), f"/{key}.png": png(number)}
    shard("a.tar", members, format=form, encoding="utf-8")
    traces, found = read("table", "a.tar", columns={"images": "png"})
    assert not found and [told(t) for t in traces] == [[[f"[{number}]", key]] for number, key in enumerate(keys)]


def test_members_of_a_tar_file_that_are_no_samples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = json.dumps({"question": "Q", "answer": "1"}).encode()
    sides = {"__index__.json": b"{}", "README.md": b"#", "x/LICENSE": b"", "x/._000.jpg": b"", ".DS_Store": b""}
    shard("a.tar", sides | {"x/000.json": sample})
    traces, found = read("table", "a.tar")
    assert len(traces) == 1 and not found
    shard("a.tar", {"x/000.json": sample, "x/000": b""})
    traces, (error,) = read("table", "a.tar")
    assert len(traces) == 1 and error.code == "E21" and "'x/000' is not named KEY.SUFFIX. Rename it." in str(error)


def told_text(trace) -> list[str]:
    return [part.text for part in trace.messages[0].content if isinstance(part, Text)]


def png(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


# -- other files -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["config", "info", "metadata", "stats", "package", "license", "preprocessor_config"])
def test_files_of_settings_are_no_data_beside_others(put, name):
    put("train.jsonl", {"question": "Q", "answer": "1"})
    Path(f"d/{name}.json").write_text('{\n "a": 1\n}')
    traces, found = read("table", "d")
    assert len(traces) == 1 and not found
    put(f"{name}.json", {"question": "Q", "answer": "1"}, {"question": "R", "answer": "2"})
    assert len(read("table", "d")[0]) == 3
    Path("d/train.jsonl").unlink()
    Path(f"d/{name}.json").write_text('{"question": "Q", "answer": "1"}')
    assert len(read("table", "d")[0]) == 1


@pytest.mark.parametrize("name", ["a.json.gz", "a.feather", "a.xlsx"])
def test_a_file_that_is_not_read_says_so(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    (error,) = read("table", tmp_path / name)[1]
    assert error.code == "E20" and f"'{Path(name).suffix}' files are not read. Unpack the file" in str(error)


def many(*rows: str) -> tuple[int, DataError]:
    """The number of errors in a file of these lines, and the first one."""
    Path("d/a.jsonl").write_text("\n".join(rows))
    first, *others = read("table", "d/a.jsonl")[1]
    return 1 + len(others), first


def test_rows_with_one_error_get_one_message(put):
    put("a.jsonl")
    count, error = many(*[json.dumps({"question": None, "answer": "1"})] * 300)
    assert count == 1 and "question: missing" in str(error) and "the file is of another format" in str(error)
    count, error = many(*json.dumps([{"question": "Q", "answer": "1"}] * 300, indent=1)[1:-1].splitlines())
    assert count == 1 and error.code == "E02" and "So in its first 100 rows" in str(error)
    count, error = many(*[json.dumps({"question": [{"role": "user", "content": None}], "answer": "1"})] * 300)
    assert count == 1 and str(error).endswith("So in all its rows.") and error.row is None
    good = json.dumps({"question": "Q", "answer": "1"})
    assert many(*[json.dumps({"question": "Q", "answer": ""})] * 150, good)[0] == 150, "some rows fit"
    assert many("{", '{"a": 1', "]")[0] == 3, "few lines, and not one error"
    Path("d/b.csv").write_text("question,answer\n" + "Q,1,2\n" * 300)
    (error,) = read("table", "d/b.csv")[1]
    assert error.code == "E10" and str(error).endswith("So in all its rows.")


def test_one_error_of_several_files_is_printed_once(put):
    for number in range(30):
        put(f"{number}.json", {"a": 1})
    report = Report()
    assert len(read("table", "d", report=report)[1]) == 30
    assert str(report).count("question: missing") == 1 and "(29 more files with the same error)" in str(report)
    assert "errors: E05 30" in str(report)


def test_links_in_a_tar_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open("a.tar", "w") as tar:
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    (error, *_) = formats.load("table").read("a.tar")
    assert error.code == "E21" and "is not a plain file" in str(error)


# -- bytes of pictures -------------------------------------------------------------------------------------------------
def test_plain_pictures_keep_their_bytes_through_every_writer(put, tmp_path):
    given = {"jpg": photo(), "webp": b"", "png": b""}
    for suffix in ("webp", "png"):
        file = io.BytesIO()
        PILImage.open(io.BytesIO(photo())).save(
            file, suffix.upper(), **({"compress_level": 9} if suffix == "png" else {})
        )
        given[suffix] = file.getvalue()
    rows = []
    for suffix, data in given.items():
        Path(f"d/x.{suffix}").write_bytes(data)
        rows.append(TRL | {"id": suffix, "images": [f"x.{suffix}"]})
    convert("trl", put("a.jsonl", *rows), "first")
    stored = {path.suffix[1:]: path.read_bytes() for path in Path("first/img").iterdir()}
    assert stored == given and len(given["jpg"]) * 3 < len(given["png"])
    convert("native", "first", "trl", to="trl")
    convert("trl", "trl", "second")
    assert files("second") == files("first")
    for form in ("tar", "parquet"):
        packed.write(native.read("first"), tmp_path / form, form)
        convert("native", form, f"from-{form}")
        assert files(f"from-{form}") == files("first")
        packed.write(native.read(form), tmp_path / f"{form}-again", form)
        assert files(f"{form}-again") == files(form)


def files(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_changed_and_odd_pictures_are_written_anew(put):
    exif = PILImage.Exif()
    exif[0x0112] = 6
    Path("d/turned.jpg").write_bytes(photo(exif=exif))
    file = io.BytesIO()
    PILImage.open(io.BytesIO(photo())).convert("CMYK").save(file, "JPEG")
    Path("d/ink.jpg").write_bytes(file.getvalue())
    Path("d/plain.jpg").write_bytes(photo())
    rows = [TRL | {"id": name, "images": [f"{name}.jpg"]} for name in ("turned", "ink")]
    convert("trl", put("a.jsonl", *rows), "first")
    assert {path.suffix for path in Path("first/img").iterdir()} == {".png"}
    ((trace,), _) = read("trl", put("b.jsonl", TRL | {"images": ["plain.jpg"]}))
    image = trace.images()[0]
    for number, changed in enumerate((image.crop((0, 0, 8, 8)), image.resize((8, 8)), image.rotate(90), image.copy())):
        messages = (Message("user", (Image(changed), Text("Q"))),)
        native.write([Trace("a", messages, split="test")], f"changed-{number}")
        (back,) = native.read(f"changed-{number}")
        assert back.images()[0].tobytes() == changed.tobytes() and list(Path(f"changed-{number}/img").glob("*.png"))


def test_rows_are_streamed_whatever_their_number(put, monkeypatch):
    """The files of 400 pictures take 5 MB; at most a tenth of it is kept at any time."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        PILImage.fromarray(pixels).save(f"d/n{number}.png")
    put("a.jsonl", *({"question": "Q", "answer": "1", "images": [f"n{number}.png"]} for number in range(400)))
    monkeypatch.setattr("latent_reason.data.pictures.CACHED_BYTES", 200_000)
    list(formats.load("table").read("d/a.jsonl"))  # imports and caches of other modules
    tracemalloc.start()
    count = sum(isinstance(one, Trace) for one in formats.load("table").read("d/a.jsonl"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 400 and peak < 1_000_000

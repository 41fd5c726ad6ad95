"""Packed sets: what is packed is read again as it was, the same traces give the same bytes, damage is named."""

import io
import json
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_records import picture, record
from test_data_native import traces as any_trace

from latent_reason.cli import main
from latent_reason.data import native, packed, parquet
from latent_reason.data.errors import DataError
from latent_reason.data.pictures import Limits
from latent_reason.trace import Image, Message, Sketch, Text, Trace

FORMS = ["tar", pytest.param("parquet", marks=pytest.mark.skipif(find_spec("pyarrow") is None, reason="no pyarrow"))]


def example(number, split="train"):
    told = (Text("Look."), Sketch(picture(number, colours=400)), Sketch(picture(number + 1)), Text("So \\boxed{D}"))
    asked = (Image(picture(number)), Text("Where?"))
    return Trace(
        f"t-{number}",
        (Message("user", asked), Message("assistant", told)),
        "maze",
        split,
        3,
        answer="D",
        meta={"licence": "MIT", "seed": number % 2},
    )


def pixels(trace):
    return [p.tobytes() for p in trace.images()] + [s.image.tobytes() for s in trace.sketches()]


def files(folder):
    return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def errors(path):
    return [str(error) for error in native.check(path).errors]


# -- round trips -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_is_packed_is_read_again(form, data, tmp_path_factory):
    wanted = [data.draw(any_trace(id=f"t-{i}")) for i in range(data.draw(st.integers(1, 4)))]
    folder = tmp_path_factory.mktemp("set")
    shards = packed.write(wanted, folder / "packed", form, shard_items=data.draw(st.integers(1, 3)))
    back = {trace.id: trace for trace in native.read(shards)}
    assert len(back) == len(wanted) and all(back[trace.id] == trace for trace in wanted)
    assert all(pixels(back[trace.id]) == pixels(trace) for trace in wanted)
    again = native.read(native.write(native.read(shards), folder / "files"))
    assert all(back[trace.id] == trace and pixels(back[trace.id]) == pixels(trace) for trace in again)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_traces_give_the_same_bytes_whatever_the_day(form, tmp_path, monkeypatch):
    first = packed.write(map(example, range(7)), tmp_path / "a", form, shard_items=3)
    monkeypatch.setattr("time.time", lambda: 0.0)
    second = packed.write(map(example, range(7)), tmp_path / "b", form, shard_items=3)
    assert files(first) == files(second) and len(files(first)) == 4
    for name, content in files(first).items():
        assert str(tmp_path).encode() not in content, name


def test_members_of_a_tar_are_sorted_and_nobodys(tmp_path):
    packed.write(map(example, range(3)), tmp_path / "a", "tar")
    with tarfile.open(tmp_path / "a" / "train-00000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        f"{i:09}.{name}" for i in range(3) for name in ("json", "p0.png", "s0.png", "s1.png")
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize("form", FORMS)
def test_shards_are_closed_in_time_and_listed(form, tmp_path):
    wanted = [example(i, "val" if i % 3 == 2 else "train") for i in range(9)]
    folder = packed.write(wanted, tmp_path / "a", form, shard_items=4)
    found = json.loads((folder / "dataset.json").read_text())
    assert [(one["split"], one["items"]) for one in found["shards"]] == [("train", 4), ("train", 2), ("val", 3)]
    assert found["counts"] == [
        {"split": split, "task": "maze", "mode": "mixed", "level": 3, "items": items}
        for split, items in (("train", 6), ("val", 3))
    ]
    assert (found["licences"], found["seeds"], found["tasks"]) == (["MIT"], [0, 1], ["maze"])
    names = [one["name"] for one in found["shards"]]
    assert names == (
        ["train-00000.tar", "train-00001.tar", "val-00000.tar"]
        if form == "tar"
        else [f"{name}.parquet" for name in ("train-00000-of-00002", "train-00001-of-00002", "val-00000-of-00001")]
    )
    small = packed.write(wanted, tmp_path / "b", form, shard_bytes=1)
    assert len(files(small)) == 10, "a shard an item, and the list"
    assert [t.id for t in native.read(small / names[0].replace("00002", "00006"))] == ["t-0"]


def test_packing_is_whole_or_not_there(tmp_path):
    def some():
        yield example(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed.write(some(), tmp_path / "a", "tar")
    with pytest.raises(DataError, match=r"a:1: id 't-0' already used in trace 0"):
        packed.write([example(0), example(0)], tmp_path / "a", "tar")
    with pytest.raises(DataError, match=r"there are no traces to pack"):
        packed.write([], tmp_path / "a", "tar")
    with pytest.raises(ValueError, match=r"no packed form 'zip'"):
        packed.write([example(0)], tmp_path / "a", "zip")
    assert not list(tmp_path.iterdir())


def test_the_command_packs_and_unpacks(tmp_path, capsys):
    native.write(map(example, range(3)), tmp_path / "n")
    main(["data", "pack", str(tmp_path / "n"), str(tmp_path / "p"), "--shard-items", "2"])
    assert "3 items in 2 shards" in capsys.readouterr().out
    main(["data", "check", str(tmp_path / "p")])
    main(["data", "stats", str(tmp_path / "p")])
    main(["data", "convert", "native", str(tmp_path / "p"), str(tmp_path / "b")])
    assert files(tmp_path / "n" / "img") == files(tmp_path / "b" / "img")
    assert (tmp_path / "n" / "traces.jsonl").read_bytes() == (tmp_path / "b" / "traces.jsonl").read_bytes()
    with pytest.raises(SystemExit, match="lies in the source folder"):
        main(["data", "pack", str(tmp_path / "n"), str(tmp_path / "n" / "p")])
    with pytest.raises(SystemExit, match="is not empty"):
        main(["data", "pack", str(tmp_path / "n"), str(tmp_path / "p")])


# -- damage ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def shards(tmp_path, monkeypatch):
    """``d``: two tar shards of two items and their list; the folder above is the current one."""
    monkeypatch.chdir(tmp_path)
    return packed.write(map(example, range(4)), "d", "tar", shard_items=2)


def test_a_damaged_shard_is_named_and_the_others_are_read(shards):
    data = bytearray((shards / "train-00000.tar").read_bytes())
    data[700] ^= 1
    (shards / "train-00000.tar").write_bytes(data)
    report = native.check("d")
    assert [str(e) for e in report.errors] == ["d/train-00000.tar: SHA-256 differs from dataset.json. Copy it again."]
    assert report.codes == {"E22": 1} and report.traces == 2


def test_lost_and_strange_shards_and_lists_are_named(shards):
    (shards / "train-00000.tar").rename(shards / "other.tar")
    assert errors("d") == [
        "d/other.tar: is not listed in dataset.json. Move it away, or pack the set again.",
        "d/train-00000.tar: listed in dataset.json but missing. Copy it again.",
    ]
    listed = json.loads((shards / "dataset.json").read_text())
    for name in ("../x.tar", "/etc/x.tar", 3):
        (shards / "dataset.json").write_text(json.dumps(listed | {"shards": [listed["shards"][0] | {"name": name}]}))
        assert "d/dataset.json: shards: expected a list of {name, items, sha256}." in errors("d")[0]
    (shards / "dataset.json").write_text("{")
    assert errors("d")[0] == (
        "d/dataset.json: column 2: JSON ends early. The file looks cut; copy or write it again. Or pack the set again."
    )
    (shards / "dataset.json").write_text('{"name": "a list of somebody else"}')
    assert errors("d") == []


def test_a_shard_that_leaves_its_folder_is_not_read(shards, tmp_path):
    (shards / "dataset.json").unlink()
    (shards / "train-00000.tar").rename(tmp_path / "x.tar")
    (shards / "train-00000.tar").symlink_to(tmp_path / "x.tar")
    assert errors("d") == [f"d/train-00000.tar: {packed.LINKED}"]


def tar(*members, name="d/a.tar"):
    """A tar of (name, bytes) or TarInfo members, as anybody might make one."""
    Path("d").mkdir(exist_ok=True)
    with tarfile.open(name, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size, info.mtime = len(member[1]), 1.5  # which needs an extended header
            file.addfile(info, io.BytesIO(member[1]))
    return name


def png(seed=0):
    data = io.BytesIO()
    picture(seed).save(data, "PNG")
    return data.getvalue()


def line(**changes):
    made = json.dumps(record(**changes)).replace("img/p.png", "p0.png").replace("img/s.png", "s0.png")
    return made.encode()


@pytest.fixture
def beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_tar_of_others_is_read_in_any_order(beside):
    folder = tarfile.TarInfo("./x/")
    folder.type = tarfile.DIRTYPE
    members = [
        folder,
        ("./a.p0.png", png(0)),
        ("./b.json", line(id="b")),
        ("./a.json", line()),
        ("a.s0.png", png(1)),
        ("b.s0.png", png(1)),
        ("b.p0.png", png(0)),
    ]
    found = list(native.read(tar(*members)))
    assert [t.id for t in found] == ["a-1", "b"] and found[0].sketches()[0].image == picture(1)
    assert list(Path.cwd().rglob("*")) == [Path.cwd() / "d", Path.cwd() / "d" / "a.tar"], "nothing was unpacked"


GOOD = [("0.json", line(id="good")), ("0.p0.png", png()), ("0.s0.png", png())]


def link(kind):
    info = tarfile.TarInfo("1.p0.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "members, code, message",
    [
        (
            [("1.json", line()), ("1.p0.png", png())],
            "E21",
            ":1: messages[1].content[1].image: '1.s0.png' is named in the "
            "record but missing in the shard. Pack the set again.",
        ),
        ([("1.p0.png", png())], "E21", ":1: '1.json' is not in the shard, only its images. Pack the set again."),
        (
            [("a.b.json", line())],
            "E21",
            ":1: 'a.b.json' is not named KEY.json or KEY.NAME.png, with no dot in the key. Rename it.",
        ),
        (
            [("../1.json", line())],
            "E21",
            ":1: '../1.json' is not named KEY.json or KEY.NAME.png, with no dot in the key. Rename it.",
        ),
        ([("/etc/x.json", line())], "E21", ":1: '/etc/x.json' is not named KEY.json"),
        (
            [link(tarfile.SYMTYPE)],
            "E21",
            ":1: '1.p0.png' is not a plain file. Remove it.",
        ),
        ([link(tarfile.LNKTYPE)], "E21", ":1: '1.p0.png' is not a plain file"),
        ([link(tarfile.CHRTYPE)], "E21", ":1: '1.p0.png' is not a plain file"),
        ([("0.json", line())], "E21", ":1: '0.json' occurs twice. Keep one."),
        ([("1.json", b"{")], "E02", ":1: column 2: JSON ends early."),
        ([("1.json", b"")], "E02", ":1: column 1: JSON ends early."),
        (
            [("1.json", line()), ("1.p0.png", b"<html>"), ("1.s0.png", png())],
            "E09",
            ":1: messages[0].content[0].image: "
            "'p0.png' is not a readable PNG, JPEG or WebP (it begins '<html'). Replace it.",
        ),
        ([("1.json", line(meta={}).replace(b"p0.png", b"../p0.png"))], "E21", "'1.../p0.png' is named in the record"),
        ([("1.json", line(meta={}).replace(b"p0.png", b"json"))], "E21", "'1.json' is named in the record"),
    ],
)
def test_what_is_wrong_in_a_tar_is_named_and_the_rest_is_read(beside, members, code, message):
    report = native.check(tar(*GOOD, *members))
    assert report.codes == {code: 1} and message in str(report.errors[0])
    assert report.traces == 1, "the good item is kept"


def test_a_cut_tar_is_named_after_what_it_still_holds(beside):
    whole = Path(tar(*GOOD, ("1.json", line()), ("1.p0.png", png()), ("1.s0.png", png()))).read_bytes()
    for length, message in (
        (len(whole) // 512 * 512 - 20 * 512, None),
        (700, "the shard is cut"),
        (1800, "is cut"),
        (100, "cut or damaged"),
    ):
        Path("d/a.tar").write_bytes(whole[:length] if message else whole[:1024] + b"x" * 512 + whole[1536:])
        assert any((message or "cut or damaged") in error for error in errors("d/a.tar"))
    Path("d/a.tar").write_bytes(whole.rstrip(b"\0") + b"\0" * (-len(whole.rstrip(b"\0")) % 512))
    assert errors("d/a.tar") == ["d/a.tar:2: has no end: the shard is cut. Copy it again."]


def test_a_size_below_0_ends_a_tar(beside):
    """It would lead back to where it stands, for ever."""
    whole = Path(tar(*GOOD, ("1.json", line()))).read_bytes()
    at = next(at for at in range(0, len(whole), 512) if whole[at:].startswith(b"1.json"))
    head = bytearray(whole[at : at + 512])
    head[124:136] = tarfile.itn(-512, 12, tarfile.GNU_FORMAT)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    Path("d/a.tar").write_bytes(whole[:at] + head + whole[at + 512 :])
    report = native.check("d/a.tar")
    assert report.codes == {"E22": 1} and "'1.json' has a size below 0" in str(report.errors[0])
    assert report.traces == 1


def test_what_a_tar_holds_is_read_up_to_the_limits(beside, monkeypatch):
    name = tar(*GOOD)
    assert "is larger than 0 MiB" in str(native.check(name, limits=Limits(bytes=20)).errors[0])
    monkeypatch.setattr("latent_reason.data.tar.LINE_BYTES", 100)
    monkeypatch.setattr("latent_reason.data.jsonl.LINE_BYTES", 100)
    assert "E02" in native.check(name).codes
    info = tarfile.TarInfo("9.p0.png")
    info.size = 8 * 2**30 - 1  # announced and not there
    Path(name).write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 2048)
    assert errors(name)[0] == f"{name}:0: ends inside '9.p0.png': the shard is cut. Copy it again."


# -- parquet -----------------------------------------------------------------------------------------------------------
def table(rows, name="d/a.parquet", **options):
    pyarrow = pytest.importorskip("pyarrow")
    Path("d").mkdir(exist_ok=True)
    parquet.arrow().write_table(pyarrow.Table.from_pylist(rows), name, **options)
    return name


def row(**changes):
    held = [{"bytes": png(i), "path": None} for i in range(2)]
    text = json.dumps(record()).replace("img/p.png", "images/0").replace("img/s.png", "images/1")
    return {"record": text, "images": held} | changes


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            [{"record": "{}"}],
            ": column 'images' is missing, expected list of {bytes, path}. Use data convert "
            "FORMAT for tables of other formats.",
        ),
        ([row(images=["a.png"])], ": column 'images' is list<element: string>, expected list of {bytes, path}."),
        ([row(record=3)], ": column 'record' is int64, expected string."),
        (
            [row(), row(images=[{"bytes": None, "path": "x"}, {"bytes": png(), "path": None}])],
            ":1: images: the bytes of an image are null. Pack the set again.",
        ),
        ([row(), row(record=None)], ":1: record: null. Pack the set again."),
    ],
)
def test_columns_that_are_wrong_are_named(beside, rows, message):
    report = native.check(table(rows))
    assert report.codes["E20"] == 1 and f"d/a.parquet{message}" in str(report.errors[0])
    assert report.traces == len(rows) - 1


def test_a_row_that_names_a_picture_it_lacks(beside):
    pytest.importorskip("pyarrow")
    report = native.check(table([row(), row(images=[{"bytes": png(), "path": None}])]))
    assert str(report.errors[0]) == (
        "d/a.parquet:1: messages[1].content[1].image: 'images/1' is named in the record "
        "but missing in the shard. Pack the set again."
    )


def test_what_is_no_parquet_is_named(beside, monkeypatch):
    name = table([row()])
    whole = Path(name).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "GROUP_BYTES", 100)
        assert "row group 0 holds 0.0 GiB, at most 0 GiB are read at once. Write smaller" in errors(name)[0]
    for damaged in (whole[:50], b"<html>", whole[:4] + b"\xff" * (len(whole) - 12) + whole[-8:]):
        Path(name).write_bytes(damaged)
        assert "cannot be read as parquet" in errors(name)[0]


def test_datasets_shows_our_shards_with_their_pictures(tmp_path):
    datasets = pytest.importorskip("datasets")
    packed.write([example(0)], tmp_path / "a", "parquet")
    (shard,) = (tmp_path / "a").glob("*.parquet")
    (shown,) = datasets.load_dataset("parquet", data_files=str(shard), split="train", streaming=True)
    assert shown["id"] == "t-0" and shown["level"] == 3
    assert [image.convert("RGB") for image in shown["images"]] == [
        *example(0).images(),
        *(s.image for s in example(0).sketches()),
    ]


def test_without_pyarrow_it_is_said_what_to_install(beside, monkeypatch):
    Path("d").mkdir()
    Path("d/a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit, match=r"parquet needs pyarrow, which is not installed. Install it with: pip"):
        main(["data", "check", "d"])

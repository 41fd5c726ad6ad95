"""Whole or not there: interrupts, full disks and races leave what was there before."""

import errno
import json
import os
import threading

import pytest

from latent_reason.errors import did_you_mean
from latent_reason.files import atomic_folder, atomic_write_json, atomic_write_text, new_run_folder


def disk_full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_folder_appears_only_at_the_end(tmp_path):
    target = tmp_path / "deep" / "run"
    with atomic_folder(target) as folder:
        (folder / "img").mkdir()
        (folder / "img" / "a.txt").write_text("a")
        assert not target.exists()
    assert (target / "img" / "a.txt").read_text() == "a"
    assert os.listdir(target.parent) == ["run"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError("x"), OSError(errno.EIO, "x")])
@pytest.mark.parametrize("there_before", [False, True])
def test_an_exception_leaves_what_was_there(tmp_path, error, there_before):
    target = tmp_path / "run"
    if there_before:
        target.mkdir()
        (target / "old.txt").write_text("old")
    with pytest.raises(error if isinstance(error, type) else type(error)), atomic_folder(target, True) as folder:
        (folder / "new.txt").write_text("new")
        raise error
    assert os.listdir(tmp_path) == (["run"] if there_before else [])
    assert not there_before or os.listdir(target) == ["old.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "x"), RuntimeError("I/O error: No space left on device (28)")])
def test_a_full_disk_is_said_with_folder_and_space(tmp_path, error):
    with pytest.raises(OSError) as caught, atomic_folder(tmp_path / "run") as folder:
        (folder / "half.bin").write_bytes(b"0" * 10)
        raise error
    assert caught.value.errno == errno.ENOSPC
    message = str(caught.value)
    assert f"'{tmp_path / 'run'}' was not written" in message and "MiB are free" in message
    assert os.listdir(tmp_path) == []


def test_a_full_disk_at_the_flush_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="The disk is full"), atomic_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("a")
    assert os.listdir(tmp_path) == []


def test_used_folders_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(FileExistsError, match=r"used' exists and is not empty\. Name a new one"),
        atomic_folder(tmp_path / "used"),
    ):
        pytest.fail("the block ran")
    with pytest.raises(FileExistsError, match="is a file"), atomic_folder(tmp_path / "file", overwrite=True):
        pytest.fail("the block ran")
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "y").write_text("y")
    assert (tmp_path / "empty" / "y").read_text() == "y"


def test_overwriting_replaces_the_whole_folder(tmp_path):
    for name in ("one", "two"):
        with atomic_folder(tmp_path / "run", overwrite=True) as folder:
            (folder / name).write_text(name)
    assert os.listdir(tmp_path / "run") == ["two"] and os.listdir(tmp_path) == ["run"]


def test_who_comes_second_is_refused(tmp_path):
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "run"):
        with atomic_folder(tmp_path / "run") as other:
            (other / "first").write_text("1")
    assert os.listdir(tmp_path / "run") == ["first"] and os.listdir(tmp_path) == ["run"]


def test_text_and_json(tmp_path):
    atomic_write_text(tmp_path / "deep" / "a.txt", "ä\nb")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "ä\nb".encode()
    atomic_write_json(tmp_path / "a.json", {"n": 1, "name": "ä"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"n": 1, "name": "ä"}
    with pytest.raises(ValueError, match=r"a\.json' was not written.*Replace NaN"):
        atomic_write_json(tmp_path / "a.json", {"n": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["n"] == 1


def test_text_on_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    atomic_write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="The disk is full"):
        atomic_write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_run_folders_count_up(tmp_path):
    names = [new_run_folder(tmp_path / "checkpoints" / "quickstart").name for _ in range(3)]
    assert names == ["quickstart", "quickstart-2", "quickstart-3"]


def test_run_folders_are_never_shared(tmp_path):
    made = []
    threads = [threading.Thread(target=lambda: made.append(new_run_folder(tmp_path / "r"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16


def test_did_you_mean():
    assert did_you_mean("forzenlake", ["maze", "FrozenLake"]) == "Did you mean 'FrozenLake'?"
    assert did_you_mean("zzz", ["b", "a"]) == "Available: a, b."
    assert did_you_mean("zzz", []) == "None is available."

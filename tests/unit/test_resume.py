"""Interrupted evaluations: the same results as without an interruption, for the same run only, in one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import short, tiny_checkpoint

from eval import dossier, probe, run
from eval.resume import ProgressFile, different_keys, model_digest
from latent_reason import checkpoint
from latent_reason.data.errors import DataError
from latent_reason.locks import open_locked

IDENTITY = {"model": "m", "protocol": {"n": 1, "prompt": "boxed"}}


@pytest.fixture
def path(tmp_path):
    """A progress file with two results."""
    with ProgressFile(tmp_path / "new" / "a.unfinished", IDENTITY) as progress:
        progress.add({"first": [1, "ä\u2028"], "second": {"x": 0.1}})
    return progress.path


def test_results_are_kept_and_a_torn_line_is_dropped(path, capsys):
    whole = path.read_bytes()
    path.write_bytes(whole + '{"key": "third", "value": "ä'.encode()[:-1])
    with ProgressFile(path, IDENTITY) as progress:
        assert progress.kept == {"first": [1, "ä\u2028"], "second": {"x": 0.1}} and path.read_bytes() == whole
        assert progress.recall("third", lambda: {"y": (1, 2)}) == {"y": [1, 2]}
        assert progress.recall("third", lambda: pytest.fail("computed again")) == {"y": [1, 2]}
    said = " ".join(capsys.readouterr().out.split())
    assert "the last line is incomplete and is dropped" in said and "2 results are kept" in said
    with ProgressFile(path, IDENTITY) as progress:
        assert len(progress.kept) == 3
        progress.remove()
    assert not path.exists()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"protocol": {"n": 2, "prompt": "boxed"}}, r"differs in protocol\.n\. Finish"),
        ({"model": "x", "protocol": {"n": 1}}, r"differs in model, protocol\.prompt"),
        ({"more": 1}, "differs in more"),
    ],
)
def test_another_run_is_refused_with_what_differs(path, change, sentence):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"a.unfinished' has the results of another.*{sentence}"):
        ProgressFile(path, IDENTITY | change)
    assert path.read_bytes() == before and different_keys(IDENTITY, IDENTITY) == []
    ProgressFile(path, IDENTITY).__exit__()


@pytest.mark.parametrize("line", ["[1]\n", '{"key": 1}\n', "{\n", '{"key": "a", "value": NaN}\n'])
def test_a_file_of_something_else_is_refused(path, line):
    path.write_text(path.read_text() + line)
    with pytest.raises((ValueError, DataError), match=r"unfinished.*4"):
        ProgressFile(path, IDENTITY)
    path.write_text(line)
    with pytest.raises((ValueError, DataError), match="unfinished"):
        ProgressFile(path, IDENTITY)
    assert path.read_text() == line


def test_one_process_holds_the_file_and_a_dead_one_does_not(path):
    code = f"import sys, time; from latent_reason.locks import open_locked; f = open_locked({str(path)!r}); print(1, flush=True); time.sleep(99)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout.readline()
    with pytest.raises(BlockingIOError, match="is in use by another process"):
        ProgressFile(path, IDENTITY)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with ProgressFile(path, IDENTITY) as progress:
        assert len(progress.kept) == 2
        progress.remove()
        with open_locked(path) as other:  # a new file under the old name
            assert not os.path.samestat(os.fstat(other.fileno()), os.fstat(progress._file.fileno()))


def test_a_model_is_known_by_its_content(tmp_path):
    first = tiny_checkpoint()
    copied = Path(shutil.copytree(checkpoint.find_checkpoint(first), tmp_path / "copy"))
    assert model_digest(first) == model_digest(copied)
    (copied / "eval.json").write_text("{}")
    assert model_digest(first) == model_digest(copied), "what an evaluation writes there is no part of it"
    weights = copied / "reasoner.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert model_digest(first) != model_digest(copied)


COMMANDS = {
    "run": (run, ["--tasks", "plan_check", "--n", "3", "--batch-size", "1"], 2),
    "probe": (probe, ["--n", "3", "--batch-size", "3"], 5),
    "dossier": (dossier, ["--n", "2"], 8),
}


def content(out) -> dict:
    """The results of a command, without times."""
    report = json.loads((out / "dossier.json" if out.is_dir() else out).read_text())
    report.get("about", report).pop("seconds", None)
    for row in report.get("by_budget", ()):
        del row["seconds"]
    return report


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupted_command_gives_the_results_of_a_whole_one(name, tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=8)
    module, options, after = COMMANDS[name]
    words = [str(tiny_checkpoint()), "--levels", "3", *options]
    name_of_decode = "decode" if hasattr(module, "decode") else "decode_each"
    calls, real = [], getattr(module, name_of_decode)

    def count():
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    def counted(*args, **kwargs):
        count()
        return real(*args, **kwargs)

    def counted_each(*args, **kwargs):
        for found in real(*args, **kwargs):
            count()
            yield found

    monkeypatch.setattr(module, name_of_decode, counted if name_of_decode == "decode" else counted_each)
    if module is dossier:
        monkeypatch.setattr(probe, "decode", counted)
    stop_at = 0
    module.main([*words, "--out", str(tmp_path / "whole")])
    number, stop_at = len(calls), len(calls) + after
    with pytest.raises(SystemExit, match="Ctrl-C"):
        module.main([*words, "--out", str(tmp_path / "a")])
    progress = tmp_path / "a.unfinished"
    assert progress.exists() and not (tmp_path / "a").exists()
    with pytest.raises(SystemExit, match=r"differs in .*seed"):
        module.main([*words, "--seed", "7", "--out", str(tmp_path / "a")])
    calls.clear()
    stop_at = 0
    module.main([*words, "--out", str(tmp_path / "a")])
    assert 0 < len(calls) < number and content(tmp_path / "a") == content(tmp_path / "whole")
    assert not progress.exists()
    with pytest.raises(SystemExit, match="exists"):
        module.main([*words, "--out", str(tmp_path / "a")])

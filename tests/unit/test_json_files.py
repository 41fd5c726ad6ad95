"""Wrong JSON given to whatever reads some: a sentence with the file and what was expected, in little time and memory."""

from __future__ import annotations

import json
import os
import runpy
import tracemalloc
from pathlib import Path

import pytest

from eval import results
from eval.aggregate import read_seeing
from eval.audit_file import read_audits
from eval.compare import systems_of
from latent_reason.json_files import fields_of, read_json
from train.config import SFTDataConfig
from train.results_file import Results
from train.traces import kept

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "paper_figs"
DATA = FIGURES / "data"


def large(path: Path) -> None:
    """A file of 1 GiB that takes no room."""
    path.write_text("[")
    os.truncate(path, 2**30)


def text(content: str):
    return lambda path: path.write_text(content, encoding="utf-8")


#: what is wrong with a file -> (writes it, a word of the sentence)
UNREADABLE = {
    "missing": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "is no file"),
    "pipe": (os.mkfifo, "is no file"),
    "large": (large, "has 1,024 MiB, at most 50"),
    "empty": (text(""), "is not readable JSON"),
    "cut": (text('{"results": [{"n": 1'), "is not readable JSON"),
    "deep": (text("[" * 200_000), "is not readable JSON"),
    "nan": (text('{"results": [{"value": NaN}]}'), "NaN is not JSON"),
    "infinite": (text('{"results": [1e999]}'), "beyond all floats"),
    "surrogate": (text('{"results": "\\ud800"}'), "surrogates not allowed"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe{}"), "is not readable JSON"),
    "long number": (text(f'{{"n": {"9" * 5000}}}'), "is not readable JSON"),
}
#: JSON of something else
OTHER = {"list": [1, 2], "text": "results", "null": None, "empty object": {}, "rows of numbers": {"results": [1]}}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_named_in_bounded_memory(kind, tmp_path):
    path, (write, words) = tmp_path / "a.json", UNREADABLE[kind]
    write(path)
    tracemalloc.start()
    with pytest.raises((ValueError, FileNotFoundError), match=rf"a\.json' .*{words}.*xpected the JSON of a test"):
        read_json(path, "the JSON of a test")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_fields_that_are_missing_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"n": 1, "rows": [], "ä": 0.5}')
    found = read_json(path, "a test", ("n", "rows"), name="b")
    assert found == {"n": 1, "rows": [], "ä": 0.5}
    for use, words in (
        (lambda: read_json(path, "a test", ("n", "m")), "it has no 'm'"),
        (lambda: found["m"], "it has no 'm'"),
        (lambda: found["n"][0], "another kind"),
        (lambda: found["rows"][0], "another kind"),
        (lambda: next(iter(found["rows"])), "another kind"),
    ):
        with pytest.raises(ValueError, match=rf"a\.json' is not a test: .*{words}"), fields_of(path, "a test"):
            use()


# -- everything that reads a JSON file of a person ---------------------------------------------------------------------
def script(name: str):
    """A script of paper_figs as a function of a file."""

    def run(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            out = [] if name in ("worth", "heads_quick", "rl_content") else ["--out", str(path.parent / "a.png")]
            patch.setattr("sys.argv", [name, str(path), *out])
            patch.syspath_prepend(str(FIGURES))
            runpy.run_path(str(FIGURES / f"{name}.py"), run_name="__main__")

    return run


def continue_comparison(path: Path) -> None:
    Results(path, {"command": "python -m train.compare"}, {}, None, "arm")


#: reader -> (function of a file, what it expects, a committed file of something else)
READERS = {
    "eval.benchmark --seeing": (read_seeing, "the FILE.json of eval.benchmark", "bench.json"),
    "eval.compare": (
        lambda path: systems_of([str(path)]),
        "the JSON of eval.run, eval.benchmark or train.compare",
        "heads.json",
    ),
    "eval.task_audit --out": (read_audits, "the JSON of eval.task_audit", "compare.json"),
    "train.compare --out": (continue_comparison, "the JSON of python -m train.compare", "heads.json"),
    "data.include_ids": (
        lambda path: kept(SFTDataConfig(include_ids=str(path)), 3),
        "a file of eval.item_filter",
        "bench.json",
    ),
    **{
        f"paper_figs/{name}.py": (script(name), expected, other)
        for name, expected, other in (
            ("worth", "the JSON of train.compare", "heads.json"),
            ("probes", "the JSON of train.compare", "dossier.json"),
            ("centring", "the JSON of train.compare", "needed.json"),
            ("heads", "the JSON of train.compare_heads", "compare.json"),
            ("heads_quick", "the JSON of train.compare_heads", "compare.json"),
            ("needed", "the JSON of eval.task_audit", "compare.json"),
            ("boundary", "the JSON of eval.boundary", "compare.json"),
            ("rl", "the JSON of train.rl.compare", "needed.json"),
            ("rl_content", "the JSON of train.rl.compare", "needed.json"),
            ("budgets", "the dossier.json of eval.dossier", "compare.json"),
        )
    },
}
KINDS = ("missing", "large", "cut", "deep", "nan", *OTHER, "other")


def write(path: Path, kind: str, other: str) -> None:
    if kind in UNREADABLE:
        UNREADABLE[kind][0](path)
    else:
        path.write_bytes((DATA / other).read_bytes() if kind == "other" else json.dumps(OTHER[kind]).encode())


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_names_the_file_and_what_it_expects(reader, tmp_path):
    read, expected, other = READERS[reader]
    for kind in KINDS:
        if reader == "train.compare --out" and kind == "missing":
            continue  # it begins the file
        path = tmp_path / f"{kind.replace(' ', '-')}.json"
        write(path, kind, other)
        before = path.stat().st_mtime_ns if path.exists() else None
        with pytest.raises((SystemExit, ValueError, FileNotFoundError)) as error:
            read(path)
        said = str(error.value)
        assert path.name in said and expected in said and "\n" not in said, f"{kind}: {said}"
        assert (path.stat().st_mtime_ns if path.exists() else None) == before
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", [kind for kind in UNREADABLE if kind != "missing"])
def test_the_leaderboard_names_it_and_goes_on(kind, tmp_path):
    path = tmp_path / "a.json"
    UNREADABLE[kind][0](path)
    with pytest.raises(ValueError, match=r"'a\.json' .*xpected a result file"):
        results.read(path, "a.json")

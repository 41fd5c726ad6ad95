"""The README says what is there: its map of the house against the tree, its commands, links and numbers of files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from latent_reason import methods
from latent_reason.checkpoint import model_card

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OWN = {".git", ".venv", ".pytest_cache", ".ruff_cache", ".hypothesis", "__pycache__", ".gitignore", "build", "dist"}


@pytest.fixture(scope="module")
def text():
    return README.read_text(encoding="utf-8")


def house(text: str) -> dict[str, str]:
    """Path -> what it is, of the fenced block under the heading "Map of the house"."""
    found = re.search(r"^## Map of the house\n+```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found, "no fenced block under '## Map of the house'"
    lines = [line.split(maxsplit=1) for line in found[1].splitlines() if line and not line.startswith(" ")]
    return {path: said[0] if said else "" for path, *said in lines}


def tree() -> set[str]:
    """Every top-level file and folder, and every module and folder of the library, without what git ignores."""
    top = [p for p in ROOT.iterdir() if p.name not in OWN and p.suffix != ".egg-info"]
    library = [p for p in (ROOT / "latent_reason").iterdir() if p.name not in OWN | {"__init__.py"}]
    paths = {
        p.relative_to(ROOT).as_posix() + "/" * p.is_dir()
        for p in top + library
        if p.is_file() or any(f for f in p.rglob("*") if "__pycache__" not in f.parts)
    }
    return paths - ignored(paths)


def ignored(paths: set[str]) -> set[str]:
    if not (ROOT / ".git").exists():
        return set()
    done = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_map_is_read_line_by_line():
    lines = ["# x", "## Map of the house", "", "```", "train/     Lightning", "           (more)", "a/b.py", "```", ""]
    assert house("\n".join(lines)) == {"train/": "Lightning", "a/b.py": ""}


def test_map_names_everything_and_nothing_else(text):
    named = house(text)
    there = {path: (ROOT / path).exists() and path.endswith("/") == (ROOT / path).is_dir() for path in named}
    assert not [path for path, is_there in there.items() if not is_there], "named but not there"
    covered = set(named) | {f"{path.split('/')[0]}/" for path in named}
    assert not sorted(tree() - covered), "there but not named"
    assert all(named.values()), "every line says what it is"


def test_map_names_the_files_of_a_folder_that_it_lists(text):
    """A line such as ``heads/   how a latent is drawn: regression.py, denoise.py`` names files of that folder."""
    for path, said in house(text).items():
        for name in re.findall(r"\b[\w/]+\.(?:py|sh|yaml)\b", said):
            assert (ROOT / path / name).exists() or (ROOT / name).exists(), f"{path}: {name}"


def test_commands_exist(text):
    first, second = "bash train/quickstart.sh", "bash tests/run.sh"
    assert first in text and second in text and text.index(first) < 3000, "on the first screen"
    for script in re.findall(r"bash ([\w/]+\.sh)", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"python -m ([\w.]+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    assert "tests/run.sh" in (ROOT / ".ci" / "run").read_text()


def test_linked_and_named_files_exist(text):
    links = re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", text)
    named = re.findall(r"`((?:latent_reason|train|eval|tests|paper_figs|checkpoints/frozenlake-tiny)/[\w/.-]*)`", text)
    assert named
    assert not [path for path in links + named if not (ROOT / path).exists()]


def test_table_names_every_method(text):
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(methods.names()) <= set(named)


def test_no_place_is_left_to_fill(text):
    assert not re.findall(r"^(?:PICTURE|RESULTS|TODO|TBD|XXX)\b", text, re.MULTILINE)


def test_the_card_of_the_published_checkpoint_shows_its_figures():
    folder = ROOT / "checkpoints" / "frozenlake-tiny"
    shown = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    given = [
        line
        for line in [*model_card._results(folder), *model_card._probes(folder / "probe.json")]
        if line.startswith("|")
    ]
    assert [line for line in shown if line.startswith("|")] == given

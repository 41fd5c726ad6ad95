"""What is built and installed: the wheel holds the library alone and works beside a folder's own eval/ and train/."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_runs import ROOT, tiny_checkpoint

import latent_reason

pytestmark = pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools, which builds, is not installed")
#: build_sdist changes sys.argv, so the folder is read before
BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]
build_meta.build_sdist(out)
build_meta.build_wheel(out)
"""
IGNORED = shutil.ignore_patterns(
    "__pycache__", ".*cache", ".hypothesis", ".git", ".venv", "build", "dist", "*.egg-info"
)
SHADOW = 'raise ImportError("a folder of the user was imported as if it were the checkout\'s")\n'


def run(*words, cwd, **env) -> subprocess.CompletedProcess:
    """A process that does not see the checkout, unless ``PYTHONPATH`` says so."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with wheel and sdist, built of a copy of the checkout."""
    copy, out = tmp_path_factory.mktemp("copy") / "latent_reason", tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, copy, ignore=IGNORED)
    for run_folder in (copy / "checkpoints").iterdir():
        if run_folder.is_dir() and run_folder.name != "frozenlake-tiny":  # runs of whoever works here
            shutil.rmtree(run_folder)
    run(sys.executable, "-c", BUILD, out, cwd=copy)
    return out


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built, tmp_path_factory) -> Path:
    """The unpacked sdist."""
    (found,) = built.glob("*.tar.gz")
    place = tmp_path_factory.mktemp("sdist")
    with tarfile.open(found) as archive:
        archive.extractall(place, filter="data")
    (folder,) = place.iterdir()
    return folder


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory) -> Path:
    """The folder of the scripts of a fresh environment with the wheel, which sees the packages of this one."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    paths = {"base": str(place), "platbase": str(place)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "packages_of_the_tests.pth").write_text("\n".join(seen) + "\n")  # not their .pth files: no editable copy
    python = Path(sysconfig.get_path("scripts", "venv", paths)) / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=place.parent)
    return python.parent


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A working folder that holds an eval/ and a train/ of its own."""
    place = tmp_path_factory.mktemp("elsewhere")
    for name in ("eval", "train"):
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(SHADOW)
    return place


# -- what is in it -----------------------------------------------------------------------------------------------------
def test_the_wheel_holds_the_library_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [n for n in names if n.endswith(".dist-info/METADATA")]
        described = email.message_from_string(archive.read(metadata).decode())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"latent_reason", f"latent_reason-{latent_reason.__version__}.dist-info"}
    library = ROOT / "latent_reason"
    wanted = {p for p in library.rglob("*") if p.suffix in (".py", ".sha256") or p.name == "py.typed"}
    assert {p.relative_to(ROOT).as_posix() for p in wanted} == {n for n in names if n.startswith("latent_reason/")}
    assert described["Version"] == latent_reason.__version__ and described["License-Expression"] == "Apache-2.0"


def test_the_sdist_holds_what_its_tests_read(sdist):
    for folder in ("latent_reason", "train", "eval", "tests", "paper_figs", "docs", "examples"):
        kept = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file() and wanted(p)}
        assert kept <= {p.relative_to(sdist).as_posix() for p in sdist.rglob("*")}, folder
    for name in ("pyproject.toml", "constraints.txt", "LICENSE", "README.md", "checkpoints/frozenlake-tiny/LICENSE"):
        assert (sdist / name).is_file(), name


def wanted(path: Path) -> bool:
    return not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts) and path.suffix != ".pyc"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        pytest.param(["tests/unit/test_files.py"], 0, id="one file"),
        pytest.param(["-k", "test_files.py"], 3000, id="all collected", marks=pytest.mark.long),
    ],
)
def test_the_tests_of_the_sdist_run(words, left_out, sdist):
    """All are collected; those of one file are run."""
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--assert=plain", *words)
    printed = run(*words, cwd=sdist, PYTHONPATH=str(sdist)).stdout
    passed, deselected = re.search(r"(\d+) passed(?:.* (\d+) deselected)?", printed).groups()
    assert int(passed) > 5 and int(deselected or 0) >= left_out


# -- the installed copy ------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_installed_command_runs_beside_a_folders_own_eval_and_train(scripts, elsewhere):
    command = scripts / "latent-reason"
    assert f"latent_reason {latent_reason.__version__}" in run(command, "--version", cwd=elsewhere).stdout
    at = run(scripts / "python", "-c", "import latent_reason; print(latent_reason.__file__)", cwd=elsewhere).stdout
    assert not Path(at.strip()).is_relative_to(ROOT) and Path(at.strip()).is_relative_to(scripts.parent)


#: several commands in one process, because each takes ten seconds to import torch
COMMANDS = """
import sys
from latent_reason import cli
from latent_reason.contracts import __main__ as contracts
for words in sys.argv[1:]:
    if words.startswith("contracts "):
        assert contracts.main(words.split()[1:]) == 0
    else:
        cli.main(words.split())
    print("END")
"""


@pytest.mark.slow
def test_an_installed_copy_does_what_the_checkout_does(scripts, elsewhere):
    shutil.copytree(ROOT / "checkpoints" / "frozenlake-tiny", elsewhere / "published")
    commands = (
        "methods",
        "generate published --level 3 --index 2",
        "render published --level 3 --n 2",
        f"export {tiny_checkpoint()} out --check",
        "contracts -q --method direct -k test_1_ -p no:cacheprovider",
    )
    said = run(scripts / "python", "-c", COMMANDS, *commands, cwd=elsewhere).stdout
    listed, answered, rendered, exported, tested, _ = said.split("END\n")
    assert "mirage " in listed
    assert "question: " in answered and "(gold " in answered
    assert " sketches, " in rendered and (elsewhere / "sketches.png").stat().st_size > 1000
    assert exported.count(" passed ") == 9 and "failed" not in exported
    assert (elsewhere / "out" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "1 passed" in tested

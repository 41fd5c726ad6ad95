"""Adding a file is all a new method needs: a toy method is dropped in, listed, and put under every contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from tiny_runs import ROOT

TOY = '''"""Toy: the state itself, toward the model's own vision, with a penalty nobody asked for. Defaults: ours."""

from ..model.heads import MLPHead
from ..model.reasoner import LatentReasoner
from ..model.targets import VisionTokens
from ..objectives.objective import Objective

PAPER = "none"
SUMMARY = "a toy that a test dropped in"
MODE = "mixed"


def build_model(backbone, *, k: int = 4, hidden: int = 32) -> LatentReasoner:
    head = MLPHead(backbone.width, backbone.width, hidden=hidden)
    return LatentReasoner(backbone, head=head, target=VisionTokens(backbone, k))


def build_objective(run=None) -> Objective:
    return Objective(run)
'''


CONTRACT = ROOT / "tests" / "contracts" / "test_method_contract.py"


def python(where, *words) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(where)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_file_is_all_a_new_method_needs(tmp_path):
    for part in ("latent_reason", "train", "eval", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "latent_reason" / "methods" / "toy.py").write_text(TOY)
    listed = python(tmp_path, "-m", "latent_reason", "methods")
    assert re.search(r"toy\b.*a toy that a test dropped in", listed, re.DOTALL)
    tested = python(tmp_path, "-m", "pytest", "-q", "-k", "toy-1d", "tests/contracts/test_method_contract.py")
    kept = {int(n) for n in re.findall(r"def test_(\d+)_", CONTRACT.read_text())}
    assert kept == set(range(1, 12)) and int(re.search(r"(\d+) passed", tested)[1]) > 15 and "skipped" not in tested

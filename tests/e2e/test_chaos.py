"""Runs that are killed and resumed. ``python tests/e2e/chaos.py --kills 100`` is the long form."""

from __future__ import annotations

from chaos import torment


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_model(tmp_path):
    assert torment(tmp_path, kills=6, seed=1).total() == 6

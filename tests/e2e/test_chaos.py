"""Runs that are killed and resumed. test_long_runs.py and ``python tests/e2e/chaos.py --kills 100`` are longer forms."""

from __future__ import annotations

from chaos import torment


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_model(tmp_path):
    assert torment(tmp_path, kills=3, seed=1).total() == 3

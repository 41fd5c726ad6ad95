"""Commands in processes of their own that begin with the library imported.

A new Python takes about ten seconds to import torch and transformers, and the tests start some thirty processes. So one
process for each worker of pytest imports them once and does nothing else. Each command is a fork of it (the start method
``forkserver`` of multiprocessing). What a fresh interpreter sees, such as an installed copy or an exported folder, is
tested by ``subprocess``.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

IMPORTED = ["latent_reason.cli", "latent_reason.checkpoint", "train.trainer", "train.lit_modules", "train.rl.rollouts"]


@cache
def forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def python(*words, cwd: Path, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    """Run ``python WORDS`` in the folder ``cwd``, with ``env`` added to the environment of the test.

    Example:
        >>> python("-m", "latent_reason", "methods", cwd=folder).stdout

    Raises:
        subprocess.TimeoutExpired: it takes longer than ``timeout`` seconds, and was ended.
    """
    with started(*words, cwd=cwd, **env) as (process, outputs):
        process.join(timeout)
        if process.exitcode is None:
            raise subprocess.TimeoutExpired(words, timeout)
        texts = [path.read_text() if path.exists() else "" for path in outputs]
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


@contextmanager
def started(*words, cwd: Path, **env: str) -> Iterator[tuple[multiprocessing.Process, list[Path]]]:
    """Start ``python WORDS`` as above: the process, and the files of its stdout and stderr. It is ended with the block."""
    words = [str(word) for word in words]
    with tempfile.TemporaryDirectory(prefix="latent_reason-command-") as place:
        outputs = [Path(place) / name for name in ("stdout", "stderr")]
        given = (words, str(cwd), dict(os.environ) | env, [str(path) for path in outputs])
        process = forkserver().Process(target=run, args=given)
        process.start()
        try:
            yield process, outputs
        finally:
            if process.exitcode is None:
                process.kill()
                process.join()


def run(words: list[str], cwd: str, env: dict[str, str], outputs: list[str]) -> None:
    """What the fork does."""
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    warnings.filterwarnings("ignore", message=".*found in sys.modules after import of package")  # of runpy
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")

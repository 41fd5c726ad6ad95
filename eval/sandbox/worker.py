"""The template process: it imports what codes use once, and runs each code in a confined fork of itself.

It reads the path of a request's folder from its standard input, a socket, and answers with JSON. The folder holds
``request.json`` (code and limits), ``image.ppm`` (optional), the empty files ``output`` and ``results``, and the empty
folder ``scratch``.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from . import confinement, snippet, turtle

#: what ends a code besides itself
TOO_LONG, TOO_BUSY, TOO_MUCH = "time", "processor", "scratch"
MAX_FILES = 256  # in the scratch folder
CPU_SLACK = 0.2  # seconds by which two ways of the kernel to count processor time differ
TICK_MS = 20  # how often the scratch folder is measured
OUTPUT, RESULTS, READY = 1, 3, 4  # file descriptors of a code; the last is closed before it starts


def main() -> None:
    sys.path.pop(0)  # the project
    requests = socket.socket(fileno=0)
    missing = confinement.find_missing()
    if missing is None:
        _import_packages()
    requests.send(json.dumps({"missing": missing}).encode())
    while folder := requests.recv(1 << 16):
        requests.send(json.dumps(_run(Path(os.fsdecode(folder)), requests)).encode())


def _import_packages() -> None:
    """Matplotlib, where it is installed, the formats of Pillow, and the module that draws in the place of ``turtle``."""
    sys.modules["turtle"] = turtle
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MPLCONFIGDIR=folder, MPLBACKEND=f"module://{__package__}.figures")
        if importlib.util.find_spec("matplotlib"):
            import matplotlib.pyplot  # noqa: F401

            from . import figures  # noqa: F401
    Image.init()
    os.environ.clear()
    gc.freeze()


def _run(folder: Path, requests: socket.socket) -> dict:
    """Run one request: why it could not be confined, why it was ended, and its status as ``os.waitpid`` gives it."""
    limits = json.loads((folder / "request.json").read_text())["limits"]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _run_child(folder, writing)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        ended = _wait(child, folder / "scratch", limits, requests)
    finally:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    with open(reading, "rb") as file:
        missing = file.read().decode()
    if usage.ru_utime + usage.ru_stime > limits["cpu_seconds"] - CPU_SLACK:
        ended = ended or TOO_BUSY
    return {"missing": missing or None, "ended": ended, "status": status}


def _wait(child: int, scratch: Path, limits: dict, requests: socket.socket) -> str | None:
    """Wait until the code has ended or must be ended; the reason for the latter. Ends with the process that asks."""
    deadline = time.monotonic() + limits["seconds"]
    process = os.pidfd_open(child)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(requests, 0)  # only that the other side is gone
    try:
        while True:
            for descriptor, _ in poll.poll(TICK_MS):
                if descriptor == process:
                    return None
                raise SystemExit
            if time.monotonic() > deadline:
                return TOO_LONG
            if not _is_within(scratch, limits["scratch_bytes"]):
                return TOO_MUCH
    finally:
        os.close(process)


def _is_within(scratch: Path, most: int) -> bool:
    total = 0
    with os.scandir(scratch) as entries:
        for number, entry in enumerate(entries):
            total += entry.stat(follow_symlinks=False).st_size
            if total > most or number >= MAX_FILES:
                return False
    return True


def _run_child(folder: Path, ready: int) -> None:
    """What the fork does. An error before the code starts goes to the pipe ``ready``."""
    try:
        os.setsid()
        _arrange_descriptors(folder, ready)
        request = json.loads((folder / "request.json").read_text())
        limits = request["limits"]
        image = None
        if (folder / "image.ppm").exists():
            with Image.open(folder / "image.ppm") as file:
                image = file.copy()
        os.chdir(folder / "scratch")
        tempfile.tempdir = str(folder / "scratch")
        confinement.confine(
            folder / "scratch", limits["file_bytes"], limits["memory_bytes"], cpu_seconds=limits["cpu_seconds"]
        )
    except Exception as error:
        os.write(READY, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os.close(READY)
    snippet.run_snippet(request["code"], image, snippet.Results(RESULTS, limits["max_pictures"], limits["max_pixels"]))
    os._exit(0)


def _arrange_descriptors(folder: Path, ready: int) -> None:
    """Keep nothing but the null device, the two outputs and the pipe. The pipe is the first to be moved: its number is at
    least that of its place."""
    os.dup2(ready, READY)
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(folder / "output", os.O_WRONLY | os.O_APPEND)
    results = os.open(folder / "results", os.O_WRONLY | os.O_APPEND)
    for source, place in ((null, 0), (output, OUTPUT), (output, 2), (results, RESULTS)):
        os.dup2(source, place)
    os.closerange(READY + 1, 1024)  # the template began with three descriptors, and opens a handful
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)

"""Starts the template process, hands it a code, and reads what comes back."""

from __future__ import annotations

import atexit
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from latent_reason.images import to_rgb

ROOT = Path(__file__).parents[2]
START = (
    "import sys; sys.path[:] = [sys.argv[1], *sys.path, *sys.argv[2:]]; from eval.sandbox.worker import main; main()"
)
#: of the template: one thread in numpy, so that it can fork; texts in UTF-8
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
#: of the caller's environment: where Python finds its shared libraries, and which processor numpy takes this for
KEPT = ("LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
START_SECONDS = 120  # until the template has imported its packages, on a busy machine
SPARE_SECONDS = 30  # until the template has ended a code
MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What one code may use."""

    seconds: float = 10.0
    """Wall time."""
    cpu_seconds: int = 5
    """Processor time."""
    memory_mb: int = 1024
    """MiB of address space, of which the interpreter with its packages takes about 250."""
    scratch_mb: int = 64
    """MiB of files in the scratch folder."""
    output_bytes: int = MIB
    """Bytes of what is printed. The rest is cut."""
    max_pixels: int = 1024**2
    """Pixels of a picture. A larger one is scaled down."""
    max_pictures: int = 4
    """A further picture is an error of the code."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"Limits.{name} is {value}; it must be positive")

    @property
    def results_bytes(self) -> int:
        """Bytes of all pictures in base64, and of one error."""
        return self.max_pictures * (self.max_pixels * 4 * 4 // 3 + 100) + 64 * 1024


@dataclass(frozen=True)
class Ran:
    """What a code gave back."""

    text: str
    """What it printed, and the error as the last line. It is given to the model."""
    pictures: list[Image.Image] = field(default_factory=list)
    """RGB pictures, in the order in which they were shown."""
    error: str | None = None
    """Why the code failed or was ended, with the line of the code, on one line."""


def is_available() -> str | None:
    """None if code can be confined on this machine, else the reason in words. It runs an empty code."""
    if sys.platform != "linux":
        return f"code can only be confined on Linux, with Landlock and seccomp; this is {sys.platform}"
    try:
        _run("pass", None, Limits())
    except RuntimeError as error:
        return str(error)
    return None


def run_code(code: str, image: Image.Image | None = None, limits: Limits = Limits()) -> Ran:
    """Run Python code in the sandbox.

    The code may import what is installed, such as numpy, PIL and matplotlib. ``turtle`` draws on a picture. It gives
    pictures back by ``show(picture)`` or ``picture.show()`` (Pillow), by ``plt.show()``, by a figure that is open at its
    end, and by what ``turtle`` drew.

    Args:
        image: the variable ``image`` of the code, in RGB.

    Returns:
        Whatever the code does, also if it fails or is ended.

    Raises:
        RuntimeError: this machine cannot confine code. Nothing was run.
    """
    if sys.platform != "linux":
        raise RuntimeError(is_available())
    return _run(code, image, limits)


def _run(code: str, image: Image.Image | None, limits: Limits) -> Ran:
    given = {
        "seconds": limits.seconds,
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_mb * MIB,
        "scratch_bytes": limits.scratch_mb * MIB,
        "file_bytes": max(limits.scratch_mb * MIB, limits.output_bytes + 1, limits.results_bytes),
        "max_pictures": limits.max_pictures,
        "max_pixels": limits.max_pixels,
    }
    with tempfile.TemporaryDirectory(prefix="latent_reason-sandbox-") as name:
        folder = Path(name).resolve()
        (folder / "scratch").mkdir()
        (folder / "request.json").write_text(json.dumps({"code": code, "limits": given}))
        for output in ("output", "results"):
            (folder / output).touch()
        if image is not None:
            to_rgb(image).save(folder / "image.ppm")
        reply = _template(os.getpid()).ask(folder, limits.seconds + SPARE_SECONDS)
        if reply["missing"]:
            raise RuntimeError(f"code cannot be confined on this machine: {reply['missing']}")
        text = _read_output(folder / "output", limits)
        pictures, error, is_complete = _read_results(folder / "results", limits)
    if reason := _describe_end(reply["ended"], reply["status"], is_complete, limits):
        error = reason
    if error:
        text = f"{text.rstrip()}\nError: {error}".lstrip("\n")
    return Ran(text, pictures, error)


class _Template:
    """The process of ``worker.py``. It ends when its socket is closed, so also when this process dies."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        command = [sys.executable, "-I", "-S", "-B", "-c", START, str(ROOT), *packages]
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                env=ENVIRONMENT | kept,
                cwd="/",
                start_new_session=True,
            )
        atexit.register(self.close)
        self.missing = self._exchange(None, START_SECONDS)["missing"]

    def ask(self, folder: Path, seconds: float) -> dict:
        if self.missing:
            return {"missing": self.missing}
        with self.lock:
            return self._exchange(os.fsencode(folder), seconds)

    def _exchange(self, message: bytes | None, seconds: float) -> dict:
        try:
            self.socket.settimeout(seconds)
            if message is not None:
                self.socket.send(message)
            reply = self.socket.recv(1 << 16)
            if not reply:
                raise ConnectionError("it ended")
            return json.loads(reply)
        except BaseException as error:  # a late reply must not be taken for that of the next request
            self.close()
            _template.cache_clear()
            if isinstance(error, OSError):
                raise RuntimeError(
                    f"the template process of the sandbox is gone or does not answer: {error}"
                ) from error
            raise

    def close(self) -> None:
        self.socket.close()
        self.process.kill()  # a code that it runs dies with it
        self.process.wait()


@cache
def _template(process: int) -> _Template:
    """That of this process: a fork must not write to the socket of its parent."""
    return _Template()


def _read_output(path: Path, limits: Limits) -> str:
    with path.open("rb") as file:
        data = file.read(limits.output_bytes + 1)
    text = data[: limits.output_bytes].decode("utf-8", errors="replace")
    return text if len(data) <= limits.output_bytes else f"{text}\n[the output was cut at {limits.output_bytes} bytes]"


def _read_results(path: Path, limits: Limits) -> tuple[list[Image.Image], str | None, bool]:
    """Pictures, the error, and whether the code came to its end. The code may have written anything: lines that are not
    those of ``snippet.Results`` are passed over."""
    pictures, error, is_complete = [], None, False
    with path.open("rb") as file:
        lines = file.read(limits.results_bytes).split(b"\n", limits.max_pictures + 2)  # the pictures, an error, the end
    for line in lines[: limits.max_pictures + 2]:
        kind, _, rest = line.partition(b" ")
        with suppress(ValueError, RecursionError):
            if kind == b"picture" and len(pictures) < limits.max_pictures:
                pictures.append(_read_picture(rest, limits.max_pixels))
            elif kind == b"error":
                error = " ".join(str(json.loads(rest)).split())[:1000]
            is_complete = is_complete or line == b"end"
    return pictures, error, is_complete


def _read_picture(rest: bytes, max_pixels: int) -> Image.Image:
    width, height, data = rest.split(b" ")
    size = int(width), int(height)
    pixels = base64.b64decode(data, validate=True)
    if min(size) < 1 or size[0] * size[1] > max_pixels or len(pixels) != 4 * size[0] * size[1]:
        raise ValueError(f"a picture of {size} with {len(pixels)} bytes")
    return to_rgb(Image.frombytes("RGBA", size, pixels))


def _describe_end(ended: str | None, status: int, is_complete: bool, limits: Limits) -> str | None:
    """Why the process ended before its code did; None if it did not."""
    if ended == "time":
        return f"the code was ended after {limits.seconds:g} seconds"
    if ended == "scratch":
        return f"the code was ended: it wrote more than {limits.scratch_mb} MiB or 256 files"
    if os.WIFSIGNALED(status):
        if ended == "processor":
            return f"the code was ended after {limits.cpu_seconds} seconds of processor time"
        return f"the code was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return None if is_complete else "the code ended its interpreter"

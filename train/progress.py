"""Console output of a run: one line every ten seconds, and one table for each validation."""

from __future__ import annotations

import io
import logging
import math
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.file_proxy import FileProxy

from .figures import figures_of, held_out_table, join_fields, show_duration, show_number

LINE_SECONDS = 10  # between two lines of progress


class StandardOutput(io.TextIOBase):
    """``sys.stdout`` as it is at the moment; where it cannot be written (a full disk, a closed pipe), nothing happens:
    what is printed must not end a run. While rich draws a bar, ``sys.stdout`` stands for rich itself, and what rich
    prints goes to the file behind it."""

    @property
    def file(self) -> Any:
        return sys.stdout.rich_proxied_file if isinstance(sys.stdout, FileProxy) else sys.stdout

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.file.flush()

    def isatty(self) -> bool:
        return self.file.isatty()

    @property
    def encoding(self) -> str:
        return self.file.encoding or "utf-8"

    def fileno(self) -> int:
        return self.file.fileno()


class RunConsole(Console):
    """A terminal gets sentences that are wrapped between words. A file gets them whole, and indented lines, which are
    commands to copy, are whole everywhere."""

    def print(self, *objects: Any, **options: Any) -> None:
        if self.is_terminal:
            objects = tuple(wrap(one, self.width) if isinstance(one, str) else one for one in objects)
        super().print(*objects, **options)


def wrap(text: str, width: int) -> str:
    """Lines of at most ``width`` columns; no word is broken, and a line that begins with a space stays as it is."""
    how = {"break_long_words": False, "break_on_hyphens": False}
    return "\n".join(x if x.startswith(" ") else textwrap.fill(x, width, **how) for x in text.split("\n"))


#: of several processes, the first prints
console = RunConsole(file=StandardOutput(), soft_wrap=True, markup=False, quiet=rank_zero_only.rank != 0)

NOISE = (  # hints of Lightning that a user cannot act on, each by its message
    ".*LeafSpec.*is deprecated",
    ".*does not have many workers.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*lr_scheduler.step.*before .optimizer.step.*",  # the gradient scaler of float16 skips steps that overflow
    ".*torch.distributed is disabled, unavailable or uninitialized.*",  # states of one process are written without it
    ".*It is recommended to use .self.log.*sync_dist=True.*",  # every process validates the same items
)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's greetings and the hints in ``NOISE``; all other warnings are shown."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        log.setLevel(level)


class StepProgress(Callback):
    """Prints a line with the number of optimizer steps, every part of the loss and the time left, at most one in ten
    seconds besides the first and the last; and a table for each validation."""

    def __init__(self):
        self.began = 0.0
        self.printed = -math.inf  # when the last line was
        self.first_step = 0  # before this process
        self.last_step = 0  # the last optimizer step that was seen
        self.last_validation = 0  # the step of the last validation
        self.held_out: dict[str, float] = {}  # its figures

    def on_train_start(self, trainer, module):
        self.began, self.first_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        step, total, now = trainer.global_step, trainer.max_steps, time.monotonic()
        if step == self.last_step:  # gradients are still accumulating
            return
        self.last_step = step
        if now - self.printed < LINE_SECONDS and step < total:
            return
        self.printed = now
        left = (now - self.began) / (step - self.first_step) * (total - step)
        losses = figures_of(trainer.progress_bar_metrics, "train")
        fields = [f"{name} {show_number(value)}" for name, value in losses.items()]
        console.print(join_fields([f"step {step:,}/{total:,}", *fields, f"{show_duration(left)} left"]))

    def state_dict(self):
        return {"last_step": self.last_step, "last_validation": self.last_validation, "held_out": self.held_out}

    def load_state_dict(self, state):
        self.last_step, self.last_validation = state["last_step"], state["last_validation"]
        self.held_out = state.get("held_out", {})

    def on_validation_end(self, trainer, module):
        self.last_validation = trainer.global_step
        if not trainer.sanity_checking:
            found = trainer.callback_metrics
            losses = {f"val/{name}": found[f"val/{name}"] for name in module.held_out}  # first
            figures = figures_of(losses | found, "val")
            title = f"held-out items at step {trainer.global_step:,} of {trainer.max_steps:,}"
            console.print(held_out_table(title, figures, self.held_out))
            self.held_out = figures

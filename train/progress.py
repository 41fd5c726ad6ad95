"""Console output of a run: one progress bar over all steps, or ten lines where there is no terminal."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class StandardOutput(io.TextIOBase):
    """``sys.stdout`` as it is at the moment; where it cannot be written (a full disk, a closed pipe), nothing happens:
    what is printed must not end a run."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stdout.flush()

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    @property
    def encoding(self) -> str:
        return sys.stdout.encoding or "utf-8"

    def fileno(self) -> int:
        return sys.stdout.fileno()


#: of several processes, the first prints
console = Console(file=StandardOutput(), soft_wrap=True, markup=False, quiet=rank_zero_only.rank != 0)

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


def figures(metrics: dict, stage: str) -> str:
    """``text 1.234  latent 0.567`` from the metrics ``train/text``, ``train/latent``."""
    return "  ".join(
        f"{name.removeprefix(f'{stage}/')} {float(value):.3f}"
        for name, value in metrics.items()
        if name.startswith(f"{stage}/")
    )


class StepProgress(Callback):
    """Shows the number of optimizer steps, every part of the loss and the time left; each validation is one line."""

    def __init__(self, every: int = 5):
        self.every, self.bar, self.began = every, None, 0.0
        self.first_step = 0  # before this process
        self.last_step = 0  # the last optimizer step that was shown
        self.last_validation = 0  # the step of the last validation

    def on_train_start(self, trainer, module):
        self.began, self.first_step = time.time(), trainer.global_step
        if console.is_terminal and trainer.is_global_zero:
            columns = (
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.fields[losses]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
            )
            self.bar = Progress(*columns, console=console)
            self.bar.start()
            self.task = self.bar.add_task("", total=trainer.max_steps, losses="")

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        step, total = trainer.global_step, trainer.max_steps
        if step == self.last_step:  # gradients are still accumulating
            return
        self.last_step = step
        if self.bar and (step % self.every == 0 or step == total):
            self.bar.update(self.task, completed=step, losses=figures(trainer.progress_bar_metrics, "train"))
        elif not self.bar and step * 10 // total != (step - 1) * 10 // total:
            left = (time.time() - self.began) / (step - self.first_step) * (total - step)
            left = f"{left / 60:.0f} min" if left > 120 else f"{left:.0f} s"
            console.print(f"step {step}/{total}  {figures(trainer.progress_bar_metrics, 'train')}  {left} left")

    def state_dict(self):
        return {"last_step": self.last_step, "last_validation": self.last_validation}

    def load_state_dict(self, state):
        self.last_step, self.last_validation = state["last_step"], state["last_validation"]

    def on_validation_end(self, trainer, module):
        self.last_validation = trainer.global_step
        if not trainer.sanity_checking:
            found = trainer.callback_metrics
            # losses first
            losses = {f"val/{name}": found[f"val/{name}"] for name in module.held_out}
            console.print(f"held-out items at step {trainer.global_step}: {figures(losses | found, 'val')}")

    def on_train_end(self, trainer, module):
        self.stop()

    def on_exception(self, trainer, module, exception):
        self.stop()

    def stop(self):
        if self.bar:
            self.bar.stop()
            self.bar = None

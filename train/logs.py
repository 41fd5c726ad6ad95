"""The log of a run, in every place that ``logger`` names. A log that cannot be written never ends a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image as PILImage

from .config import RunConfig
from .config.resuming import ROOT
from .log_writers import LOGS, CSVWriter, LogWriter, RunTitle, TensorBoardWriter, TrackioWriter, WandbWriter
from .progress import console


def make_logger(config: RunConfig, folder: Path) -> RunLogger:
    """The log of a run in its folder, by the key ``logger``."""
    service = {
        "title": RunTitle.of(folder, ROOT),
        "recipe": dataclasses.asdict(config),
        "resumes": bool(config.resume),
    }
    makers: dict[str, Callable[[], LogWriter]] = {
        "tensorboard": partial(TensorBoardWriter, folder),
        "csv": partial(CSVWriter, folder),
        "trackio": partial(TrackioWriter, folder, **service),
        "wandb": partial(WandbWriter, folder, **service),
    }
    return RunLogger(folder, [makers[name]() for name in config.logger] if not rank_zero_only.rank else [])


class RunLogger(Logger):
    """Metrics, text and images of a run, for each of its writers. Only the first process logs.

    After an error of the file system it warns once, and what is logged next is tried again.
    """

    def __init__(self, folder: Path, writers: list[LogWriter]):
        super().__init__()
        self.folder, self.writers = folder, writers
        self.after_step: int | None = None
        self.has_started = self.has_warned = False

    @property
    def name(self) -> str:
        return LOGS

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    def shows_images(self) -> bool:
        """Whether it is worth to draw an image for this log, on this process."""
        return any(writer.shows_images for writer in self.writers)

    def continue_after(self, step: int) -> None:
        """Continue the log of a stopped run; what it logged after this step will be logged again."""
        self.after_step = step

    def start(self) -> None:
        """Open all places. Raises ValueError where a service refuses."""
        if not self.has_started:
            self.has_started = True
            self._attempt(lambda writer: writer.start(self.after_step))

    def log_metrics(self, metrics, step=None):
        """Log numbers by name."""
        self.start()
        values = {name: float(value) for name, value in metrics.items()}
        self._attempt(lambda writer: writer.write_metrics(values, step or 0))

    def log_hyperparams(self, params, *args, **kwargs):
        """Nothing: services get the recipe when they start, and the folder of the run has it."""

    def log_image(self, name: str, image: PILImage.Image, step: int) -> None:
        """Show an image under a name."""
        self.start()
        self._attempt(lambda writer: writer.write_image(name, image, step))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Show Markdown under a name."""
        self.start()
        self._attempt(lambda writer: writer.write_text(name, text, step))

    def save(self):
        if self.has_started:
            self._attempt(lambda writer: writer.flush())

    def finalize(self, status):
        """Nothing but :meth:`save`: Lightning calls it before the last validation."""
        self.save()

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Close all places, at the end of a run."""
        if self.has_started:
            self._attempt(lambda writer: writer.finish(error is None))

    def _attempt(self, log: Callable[[LogWriter], object]) -> None:
        for writer in self.writers:
            try:
                log(writer)
            except (OSError, ValueError) as error:
                cause = (
                    error.__cause__ if isinstance(error, ValueError) else error
                )  # Lightning hides some in a ValueError
                if not isinstance(cause, OSError):
                    raise
                writer.reopen()
                if not self.has_warned:
                    console.print(f"Warning: the log could not be written ({cause}). The run goes on.", style="yellow")
                self.has_warned = True

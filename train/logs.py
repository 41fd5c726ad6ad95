"""The log of a run in TensorBoard. A log that cannot be written never ends a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image as PILImage

from .progress import console


class RunLogger(TensorBoardLogger):
    """Scalars, text and images of a run. After an error of the file system it warns once and opens a new file for what
    is logged next."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.has_warned = False

    def continue_after(self, step: int) -> None:
        """Hide what a stopped run logged after the step that it continues from."""
        self._kwargs["purge_step"] = step + 1

    def log_metrics(self, metrics, step=None):
        self._attempt(lambda: super(RunLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, *args: Any, **kwargs: Any):
        self._attempt(lambda: super(RunLogger, self).log_hyperparams(*args, **kwargs))

    def log_image(self, name: str, image: PILImage.Image, step: int) -> None:
        """Show an image under a name. Only the first process logs."""
        self._attempt(lambda: self.experiment.add_image(name, np.asarray(image), step, dataformats="HWC"))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Show Markdown under a name. Only the first process logs."""
        self._attempt(lambda: self.experiment.add_text(name, text, step))

    def save(self):
        self._attempt(super().save)

    def finalize(self, status):
        self._attempt(lambda: super(RunLogger, self).finalize(status))

    def _attempt(self, log: Callable[[], object]) -> None:
        try:
            log()
        except (OSError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, ValueError) else error  # Lightning hides some in a ValueError
            if not isinstance(cause, OSError):
                raise
            self._experiment = None  # its writer repeats the error for ever
            if not self.has_warned:
                console.print(f"Warning: the log could not be written ({cause}). The run goes on.", style="yellow")
            self.has_warned = True

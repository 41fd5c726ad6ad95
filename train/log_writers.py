"""Where a run is logged: TensorBoard, a CSV file, trackio, Weights & Biases. One class each; train/logs.py calls them."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image as PILImage

LOGS = "logs"  # in the folder of a run
PROJECT = "latent_reason"  # where neither TRACKIO_PROJECT nor WANDB_PROJECT says another
GLOBAL_STEP = "train/global_step"  # the x axis of Weights & Biases, as transformers names it

#: the page CUSTOM SCALARS of TensorBoard: what a person looks at first; chart -> patterns of its tags
CHARTS = {
    "1 loss": {
        "text": ["(train|val)/text$"],
        "latent": ["(train|val)/latent$"],
        "other parts": ["(train|val)/(stop|reconstruction|policy|anchor|latent_anchor|views)$"],
        "reward and accuracy": ["(reward|accuracy|val/(success|accuracy|exact|token_accuracy))$"],
    },
    "2 latents": {
        "cosine of latents": ["(latents/pairwise_cos|val/latent_cosine|val/true_cosine)$"],
        "norm of latents": ["latents/norm$"],
        "share with sketches": ["(train/share_with_sketches|switch/start_rate|val/sketches)$"],
    },
    "3 optimization": {
        "gradient norm": ["train/grad_norm$"],
        "learning rate": ["train/learning_rate"],
        "tokens a second": ["train/tokens_per_second$"],
    },
}


@dataclass(frozen=True)
class RunTitle:
    """What a run is called where runs of many folders are shown: its name, and the group of runs that it belongs to."""

    name: str
    group: str

    @classmethod
    def of(cls, folder: Path, root: Path) -> RunTitle:
        """The runs of a comparison and the stages of a run, which share a folder below ``root``, are a group."""
        folder, root = folder.resolve(), root.resolve()
        inside = folder.relative_to(root) if folder.is_relative_to(root) else Path(*folder.parts[-2:])
        return cls(inside.as_posix(), inside.parts[0])


class LogWriter:
    """One place to log to. Its methods are called on the first process only, after :meth:`start`."""

    shows_images = True

    def start(self, after_step: int | None) -> None:
        """Open the log; ``after_step`` is the step that a resumed run continues after. Raises ValueError where the
        service refuses."""

    def write_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers by name."""
        raise NotImplementedError

    def write_image(self, name: str, image: PILImage.Image, step: int) -> None:
        """Show an image under a name, where this log shows images."""

    def write_text(self, name: str, text: str, step: int) -> None:
        """Show Markdown under a name, where this log shows text."""

    def reopen(self) -> None:
        """Called after an error of the file system, before the next entry."""

    def flush(self) -> None:
        """Write what waits."""

    def finish(self, has_succeeded: bool) -> None:
        """Close the log."""


class TensorBoardWriter(LogWriter):
    """Event files in ``RUN/logs``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.log = TensorBoardLogger(folder, name=LOGS, version="")

    def start(self, after_step: int | None) -> None:
        if after_step is not None:  # hide what a stopped run logged after the step that it continues from
            self.log = TensorBoardLogger(self.folder, name=LOGS, version="", purge_step=after_step + 1)
        layout = {
            group: {chart: ["Multiline", tags] for chart, tags in charts.items()} for group, charts in CHARTS.items()
        }
        self.log.experiment.add_custom_scalars(layout)

    def write_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.log.log_metrics(dict(metrics), step)

    def write_image(self, name: str, image: PILImage.Image, step: int) -> None:
        self.log.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")

    def write_text(self, name: str, text: str, step: int) -> None:
        self.log.experiment.add_text(name, text, step)

    def reopen(self) -> None:
        self.log = TensorBoardLogger(self.folder, name=LOGS, version="")  # the old one repeats its error for ever

    def flush(self) -> None:
        self.log.save()

    def finish(self, has_succeeded: bool) -> None:
        self.log.finalize("success" if has_succeeded else "failed")


class CSVWriter(LogWriter):
    """``RUN/logs/csv/metrics.csv``: a column for each metric, and a row for each entry."""

    shows_images = False

    def __init__(self, folder: Path):
        self.file = folder / LOGS / "csv" / "metrics.csv"
        self.log = CSVLogger(folder, name=LOGS, version="csv", flush_logs_every_n_steps=1)

    def start(self, after_step: int | None) -> None:
        """Lightning begins its file anew; of a resumed run, it gets the rows up to the step that this continues after."""
        rows = []
        if after_step is not None and self.file.is_file():
            with open(self.file, encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= after_step]
            self.file.unlink()
        for row in rows:
            self.log.experiment.metrics.append({name: value for name, value in row.items() if value})
        self.log.save()

    def write_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.log.log_metrics(dict(metrics), step)

    def finish(self, has_succeeded: bool) -> None:
        self.log.finalize("success" if has_succeeded else "failed")


class TrackioWriter(LogWriter):
    """A run of trackio, in the database on this machine, or in the Space of ``TRACKIO_SPACE_ID``."""

    package = "trackio"

    def __init__(self, folder: Path, title: RunTitle, recipe: dict[str, Any], resumes: bool):
        self.folder, self.title, self.recipe, self.resumes = folder, title, recipe, resumes
        self.library = import_module(self.package)
        self.run: Any = None

    @property
    def project(self) -> str:
        return os.environ.get(f"{self.package.upper()}_PROJECT") or PROJECT

    def start(self, after_step: int | None) -> None:
        try:
            self.run = self.open()
        except Exception as error:  # of any service, before the first step
            raise ValueError(f"logger: {self.package} could not start ({' '.join(str(error).split())}).") from error

    def open(self) -> Any:
        """The run of the library: a new one, or that of a resumed run."""
        resume = "allow" if self.resumes else "never"
        return self.library.init(self.project, self.title.name, self.title.group, config=self.recipe, resume=resume)

    def write_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def write_image(self, name: str, image: PILImage.Image, step: int) -> None:
        self.write_metrics({name: self.library.Image(image)}, step)

    def write_text(self, name: str, text: str, step: int) -> None:
        self.write_metrics({name: self.library.Markdown(text)}, step)

    def finish(self, has_succeeded: bool) -> None:
        if self.run is not None:
            self.close(has_succeeded)

    def close(self, has_succeeded: bool) -> None:
        self.run.finish()


class WandbWriter(TrackioWriter):
    """A run of Weights & Biases. ``WANDB_MODE=offline`` keeps it in the folder of the run."""

    package = "wandb"

    def open(self) -> Any:
        place = self.folder / LOGS
        place.mkdir(parents=True, exist_ok=True)
        known = place / "wandb_id"  # a resumed run has the id of the first
        if not known.is_file():
            known.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
        run = self.library.init(
            project=self.project,
            name=self.title.name,
            group=self.title.group,
            config=self.recipe,
            dir=place,
            id=known.read_text(encoding="utf-8"),
            resume="allow",
        )
        run.define_metric(GLOBAL_STEP)
        run.define_metric("*", step_metric=GLOBAL_STEP, step_sync=True)
        return run

    def write_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log({**metrics, GLOBAL_STEP: step})

    def write_text(self, name: str, text: str, step: int) -> None:
        self.write_metrics({name: self.library.Table(columns=["step", "text"], data=[[step, text]])}, step)

    def close(self, has_succeeded: bool) -> None:
        self.run.finish(exit_code=int(not has_succeeded))

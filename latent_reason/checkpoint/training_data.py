"""What a checkpoint remembers of the data it was trained on, and held-out items of the same kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import tasks
from ..tasks import Task


@dataclass(frozen=True)
class TrainingData:
    """The data of a training run: a task with its levels and options, or a folder of records.

    Exactly one of ``task`` and ``folder`` is set where anything is known. ``baseline`` is the way of explicit thinking that
    its traces show, if they do.
    """

    task: str | None = None
    folder: str | None = None
    levels: tuple[int, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    num_items: int | None = None
    baseline: str | None = None

    @classmethod
    def of(cls, notes: dict[str, Any]) -> TrainingData:
        """From the notes of a checkpoint. Those of a run on records may name a task, too: the default, which it never
        used."""
        data = notes.get("data", {})
        if folder := data.get("folder"):
            return cls(folder=folder)
        levels = data.get("levels")
        return cls(
            data.get("task"),
            None,
            tuple(levels) if levels else None,
            data.get("options") or {},
            data.get("items"),
            data.get("baseline"),
        )


def records_folder(notes: dict[str, Any], checkpoint: str | Path, folder: str | Path | None = None) -> Path | None:
    """The folder of records that a command should read: ``folder`` where it is given, else that of the training run.
    None where the checkpoint was trained on a task.

    Raises:
        FileNotFoundError: the records of the training run are not where they were.
    """
    if folder is not None:
        return Path(folder)
    known = TrainingData.of(notes).folder
    if known is None:
        return None
    if not Path(known).exists():
        raise FileNotFoundError(
            f"'{checkpoint}' was trained on the records of '{known}', which are not there. Name their folder with "
            "--folder, or a task with --task."
        )
    return Path(known)


def trained_task(notes: dict[str, Any], checkpoint: str | Path) -> str:
    """The name of the task that a checkpoint was trained on. Errors as of :func:`make_task`."""
    data = TrainingData.of(notes)
    if data.task is None:
        trained = f"the records of '{data.folder}'" if data.folder else "data that it does not name"
        raise ValueError(f"'{checkpoint}' was trained on {trained}. Name a task with --task.")
    return tasks.check_trusted(data.task, str(checkpoint))


def make_task(
    notes: dict[str, Any],
    checkpoint: str | Path,
    name: str | None = None,
    *,
    levels: tuple[int, ...] | None = None,
    options: dict[str, Any] | None = None,
    **given: Any,
) -> Task:
    """The task ``name``, or the one that a checkpoint was trained on, with the levels and options of its training where
    none are given.

    Args:
        notes, checkpoint: what the checkpoint says of its training, and where it lies.
        options: of the task, in place of those of the training.
        given: more options of the task, such as ``split`` and ``seed``.

    Raises:
        ValueError: the checkpoint was not trained on a task, and none is named.
        UntrustedCode: its task is the code of somebody else, and not trusted.
    """
    name, data = name or trained_task(notes, checkpoint), TrainingData.of(notes)
    options = tasks.own(name, data.options) if options is None else options
    known = levels or data.levels  # else the task has its own
    return tasks.make(name, **({"level": known} if known else {}) | options | given)

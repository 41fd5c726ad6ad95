"""Training states on disk: ``RUN/state/step-00001200``, written in the background, with checksums, the last few kept.

``torch.distributed.checkpoint`` writes safetensors, each process its part of sharded tensors. Nothing here is pickled.
A folder without ``state.json``, which is written last, is no state.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import file_digest
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from latent_reason.files import atomic_write_json, flush_to_disk, sweep_unfinished

from .training_state import FORMAT, TrainingState

INDEX = "state.json"
NAME = re.compile(r"step-(\d{8})")


class StateFiles:
    """The states below ``folder``, of which the last ``keep`` are kept (0: all). ``group`` is a group of processes with
    a CPU backend, or None for one process. Every process calls every method, except where one says otherwise."""

    def __init__(self, folder: Path, keep: int, group: dist.ProcessGroup | None = None):
        self.folder, self.keep, self.group = folder, keep, group
        self.rank = dist.get_rank(group) if group else 0
        self.world = dist.get_world_size(group) if group else 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save-state")

    # -- writing -------------------------------------------------------------------------------------------------------
    def write(self, state: TrainingState) -> Future[Path]:
        """Copy a state, and write the copy in the background. The future gives its folder, or raises OSError or what
        another process raised."""
        tensors = dict(state.tensors) | {f"rank/{self.rank}": _as_tensor(state.values)}
        stager = DefaultStager(StagingOptions(False, False, False, False))
        copy = stager.stage(tensors)
        stager.close()
        return self._thread.submit(self._write, copy, state.values["step"])

    def _write(self, tensors: dict[str, torch.Tensor], step: int) -> Path:
        new = self.folder / f".step-{step:08d}.unfinished"
        self._together(lambda: self._make(new) if self.rank == 0 else None)
        writer = HuggingFaceStorageWriter(str(new), save_distributed=True)
        try:
            dcp.save(tensors, storage_writer=writer, process_group=self.group, no_dist=self.group is None)
        except CheckpointException as error:  # which is no Exception
            raise OSError("; ".join(str(cause[0]) for cause in error.failures.values())) from None
        digests: dict[str, str] = {}
        for part in self._together(lambda: self._finish_own(new)):
            digests |= part
        path = self.folder / f"step-{step:08d}"
        self._together(lambda: self._commit(new, path, step, digests) if self.rank == 0 else None)
        return path

    def _make(self, new: Path) -> None:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)

    def _finish_own(self, new: Path) -> dict[str, str]:
        """Flush the files of this process; returns their checksums by name."""
        digests = {}
        for file in new.glob(f"shard-{self.rank + 1:05d}-*.safetensors"):
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
            digests[file.name] = _digest(file)
        return digests

    def _commit(self, new: Path, path: Path, step: int, digests: dict[str, str]) -> None:
        """Write the index, give the folder its name, and remove the oldest states."""
        atomic_write_json(new / INDEX, {"format": FORMAT, "step": step, "world": self.world, "files": digests})
        flush_to_disk(new)
        if path.exists():  # written before the run was resumed from an older state
            shutil.rmtree(path)
        new.rename(path)
        flush_to_disk(self.folder)
        for old in self.paths()[: -self.keep] if self.keep else []:
            shutil.rmtree(old, ignore_errors=True)

    def _together(self, do: Callable[[], object]) -> list:
        """What ``do`` returns on every process. Raises on all of them the error of any."""
        result: object = None
        error: Exception | None = None
        try:
            result = do()
        except OSError as caught:
            error = caught
        if self.group is None:
            if error is not None:
                raise error
            return [result]
        every: list = [None] * self.world
        dist.all_gather_object(every, (result, None if error is None else str(error)), self.group)
        if failed := next((text for _, text in every if text), None):
            raise OSError(failed)
        return [value for value, _ in every]

    # -- reading -------------------------------------------------------------------------------------------------------
    def paths(self) -> list[Path]:
        """The folders of states, oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path for path in found if NAME.fullmatch(path.name) and (path / INDEX).is_file())

    def newest(self, warn: Callable[[str], None]) -> Path | None:
        """The newest state whose checksums hold, or None. ``warn`` gets a sentence on each damaged one."""
        for path in reversed(self.paths()):
            problems = [text for text in self._together(lambda path=path: self._problem(path)) if text]
            if not problems:
                return path
            warn(f"{problems[0]} The state before it is used.")
        return None

    def _problem(self, path: Path) -> str | None:
        """What is wrong with this process's share of the files of a state."""
        try:
            files = json.loads((path / INDEX).read_text(encoding="utf-8"))["files"]
            for name in sorted(files)[self.rank :: self.world]:
                if Path(name).name != name or _digest(path / name) != files[name]:
                    return f"State '{path}' is damaged: the checksum of {name} differs."
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"State '{path}' is damaged ({type(error).__name__})."
        return None

    def read_values(self, path: Path) -> dict:
        """The plain values of this process; those of the first where the state was written by fewer processes."""
        world = json.loads((path / INDEX).read_text(encoding="utf-8"))["world"]
        key = f"rank/{self.rank if self.rank < world else 0}"
        tensor = torch.empty(self.sizes(path)[key][0], dtype=torch.uint8)
        self._load({key: tensor}, path)
        return json.loads(tensor.numpy().tobytes())

    def sizes(self, path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and dtype of every tensor of a state by its name. No other process has to call it."""
        metadata = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        return {name: (found.size, found.properties.dtype) for name, found in metadata.items()}

    def read(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        """Read a state into tensors of its names, of which each may be sharded otherwise than when it was written.

        Raises:
            ValueError: a tensor is missing, left over or of another shape; names it.
        """
        sizes = {name: found for name, found in self.sizes(path).items() if not name.startswith("rank/")}
        for name in sorted(sizes.keys() ^ tensors.keys()):
            raise ValueError(f"resume: '{path}' does not fit the recipe: {name} is missing or left over.")
        for name, tensor in tensors.items():
            if tuple(sizes[name][0]) != tuple(tensor.shape):
                raise ValueError(
                    f"resume: '{path}' does not fit the recipe: {name} is {tuple(sizes[name][0])} instead of "
                    f"{tuple(tensor.shape)}."
                )
        self._load(tensors, path)

    def read_some(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        """Read tensors by their names, whatever else the state holds. Of one process only."""
        self._load(tensors, path)

    def _load(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        reader = HuggingFaceStorageReader(str(path))
        try:
            dcp.load(tensors, storage_reader=reader, process_group=self.group, no_dist=self.group is None)
        except CheckpointException as error:
            raise ValueError(f"'{path}' cannot be read: {next(iter(error.failures.values()))[0]}.") from None

    def sweep(self) -> None:
        """Remove what a killed process left half-written. Only the first process does so."""
        if self.rank == 0:
            sweep_unfinished(self.folder)

    def remove(self) -> None:
        """Remove all states. Only the first process does so."""
        if self.rank == 0:
            for path in self.paths():
                shutil.rmtree(path, ignore_errors=True)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def close(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown(wait=True)


def _as_tensor(values: dict) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


def _digest(file: Path) -> str:
    with open(file, "rb") as handle:
        return file_digest(handle, "blake2b").hexdigest()[:32]

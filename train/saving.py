"""What a run keeps: its training state while it lasts, its model at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from latent_reason.files import sweep_unfinished
from latent_reason.model.reasoner import LatentReasoner

from . import sharding
from .lit_modules import TrainingModule
from .progress import console
from .random_numbers import noise_seed, set_random_state
from .state_files import StateFiles
from .stopping import Stopped, StopSignals
from .training_state import TrainingState, capture, fingerprint, make_optimizer_state, restore, trained_tensors

SAVE_SECONDS = 300  # between two saves where save_steps is 0
RETRY_SECONDS = 30  # before a failed save is tried again
TRIES = 4  # of the last save

warn = partial(console.print, style="yellow")


def state_folder(folder: Path) -> Path:
    """Where the training states of a run are."""
    return folder / "state"


class RunSaver(Callback):
    """Saves the training state as ``folder/state/step-N``, restores it where a run is resumed, stops a run by a signal,
    and saves the model at the end as ``folder/model``.

    Every process takes part in saving. A save that fails is tried again later, and the run goes on.

    Args:
        save_model: ``save_model(folder, weights)`` writes an inference checkpoint, with other weights if they are given.
        save_steps: steps between two saves; 0: every five minutes.
        keep: states that are kept; 0: all, also after the end.
        resumes: whether the run continues from its newest state.
        seed: of the noise in training.
    """

    def __init__(
        self,
        folder: Path,
        save_model: Callable[..., object],
        save_steps: int,
        keep: int,
        resumes: bool,
        seed: int,
    ):
        self.folder, self.save_model, self.save_steps, self.seed = folder, save_model, save_steps, seed
        self.keep, self.resumes, self.signals = keep, resumes, StopSignals()
        self.files: StateFiles | None = None
        self.group: dist.ProcessGroup | None = None
        self.state: TrainingState | None = None  # the state that the run continues from
        self.pending: Future[Path] | None = None
        self.last: Path | None = None  # the newest whole state
        self.saved_at, self.saved_step = 0.0, 0  # when the last save began
        self.frozen, self.has_ended = "", False

    # -- start ---------------------------------------------------------------------------------------------------------
    def on_fit_start(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self.signals.remember()
        files_group = None
        if trainer.world_size > 1:  # two groups, because one thread writes while the other trains
            self.group, files_group = dist.new_group(backend="gloo"), dist.new_group(backend="gloo")
        self.files = StateFiles(state_folder(self.folder), self.keep, files_group)
        self.frozen = fingerprint(module)
        module.monitor.watch(self.folder)
        if trainer.fast_dev_run:
            return
        self.files.sweep()
        if trainer.is_global_zero:
            sweep_unfinished(self.folder)  # of a model that a killed process was writing
        if self.resumes and (path := self.files.newest(warn)):
            self._restore(trainer, module, path)

    def _restore(self, trainer: L.Trainer, module: TrainingModule, path: Path) -> None:
        values = self.files.read_values(path)
        sizes = self.files.sizes(path)
        if isinstance(reasoner := getattr(module, "reasoner", None), LatentReasoner):
            means = sizes.get("module/reasoner.target.standardizer.grid_means")  # states of older versions have none
            reasoner.reserve_statistics(means and means[0][:2])
        make_optimizer_state(trainer, module, sizes)
        tensors = trained_tensors(trainer, module)
        self.files.read(path, tensors)
        self.state, self.last = TrainingState(tensors, values), path
        self.saved_step = values["step"]
        restore(trainer, module, self.state, self.frozen)
        trainer.logger.continue_after(trainer.global_step)
        console.print(f"The run continues after step {trainer.global_step:,}, from '{path}'.")

    def on_train_start(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self.signals.install()
        self.saved_at = time.monotonic()
        self._set_random_numbers(trainer, module)
        self.state = None

    def _set_random_numbers(self, trainer: L.Trainer, module: TrainingModule) -> None:
        """Those of the state, or new ones. Processes with other batches draw other numbers; those that share matrices
        draw the same."""
        rank, size = module.data_parallel_rank, module.data_parallel_size
        if self.state is not None and self.state.values["world"] == trainer.world_size:
            set_random_state(self.state.values["random"])
        else:  # of other processes after a resume, random numbers which no process has had
            torch.manual_seed(noise_seed(self.seed, trainer.global_step, rank, size if self.state is not None else 0))

    # -- during training -----------------------------------------------------------------------------------------------
    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if trainer.fast_dev_run or not module.has_ended_step(index) or trainer.global_step >= trainer.max_steps:
            return
        number, is_due = self._agree(self.signals.received, self._is_due(trainer.global_step))
        if number or is_due:
            self._save_state(trainer, module)
        if number:
            self._wait()
            way = f"Continue with --resume {self.folder}" if self.last else "No state could be saved."
            warn(f"Stopped after step {trainer.global_step:,} by a signal. {way}")
            raise Stopped(number)

    def _is_due(self, step: int) -> bool:
        if self.save_steps:
            return step % self.save_steps == 0 and step != self.saved_step
        return time.monotonic() - self.saved_at > SAVE_SECONDS

    def _agree(self, number: int, is_due: bool) -> tuple[int, bool]:
        """What any process received, and whether the first wants to save. Every process calls it."""
        if self.group is None:
            return number, is_due
        flags = torch.tensor([number, is_due and dist.get_rank() == 0])
        dist.all_reduce(flags, dist.ReduceOp.MAX, self.group)
        return int(flags[0]), bool(flags[1])

    def _save_state(self, trainer: L.Trainer, module: TrainingModule) -> None:
        """Begin to write the state; what was begun before is waited for."""
        self._wait()
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
        check_finite(module, self.last)
        self.pending = self.files.write(capture(trainer, module, self.frozen))

    def _wait(self) -> None:
        """Wait for the save that is being written. One that failed is told, and tried again after a while."""
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        try:
            self.last = pending.result()
        except Exception as error:  # of any library: a failed save must not end a run
            warn(f"Warning: the training state could not be saved ({error}). The run goes on and tries again.")
            self.saved_at = time.monotonic() - SAVE_SECONDS + RETRY_SECONDS

    # -- end -----------------------------------------------------------------------------------------------------------
    def on_train_end(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self.has_ended = True
        self._wait()
        if trainer.fast_dev_run:
            return
        check_finite(module, self.last)
        weights = sharding.gathered(module.reasoner) if module.sharded else None
        self._save_model(self.folder / "model", weights)
        if self.keep and self.files is not None:
            self.files.remove()

    def _save_model(self, where: Path, weights: dict[str, torch.Tensor] | None) -> None:
        """Save the model; wait and try again where the disk is full.

        Raises:
            OSError: it stays full; names the state to continue from.
        """
        for left in reversed(range(TRIES)):
            try:
                self.save_model(where, weights)
                return
            except OSError as error:
                if not left:
                    kept = (
                        f" The state in '{self.last}' is kept: continue with --resume {self.folder}"
                        if self.last
                        else ""
                    )
                    raise OSError(error.errno, f"{error.strerror or error}.{kept}") from error
                warn(
                    f"Warning: the model could not be saved ({error.strerror or error}). Next try in {RETRY_SECONDS} s."
                )
                time.sleep(RETRY_SECONDS)

    def on_exception(self, trainer: L.Trainer, module: TrainingModule, exception: BaseException) -> None:
        self.signals.uninstall()
        if self.has_ended or isinstance(exception, Stopped):
            return
        if self.group is None:
            self._wait()  # other processes may be gone, and the save would wait for them
        kept = (
            f"The state in '{self.last}' is kept: continue with --resume {self.folder}"
            if self.last
            else "No state was saved yet"
        )
        warn(f"Stopped at step {trainer.global_step:,} ({type(exception).__name__}). {kept}.")

    def raise_if_stopped(self) -> None:
        """End the process with the status of a signal that came when the last step was over already."""
        if self.signals.received:
            raise Stopped(self.signals.received)

    def teardown(self, trainer: L.Trainer, module: TrainingModule, stage: str) -> None:
        self.signals.uninstall()
        if self.files is not None:
            self.files.close()


def check_finite(module: TrainingModule, last: Path | None) -> None:
    """Raises ValueError if a weight is not finite: such weights are not saved, and nothing is learned from them."""
    for name, p in module.named_parameters():
        if p.requires_grad and not bool(torch.isfinite(sharding.local(p)).all()):
            kept = f" The last state is '{last}'." if last else ""
            raise ValueError(f"the weights are not finite ({name}), so they were not saved.{kept} Lower optim.lr.")

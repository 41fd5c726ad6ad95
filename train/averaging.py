"""An exponential moving average of the weights that train (``optim.ema_decay``).

Lightning's ``WeightAveraging`` is not used: it copies the frozen weights too, counts skipped steps and steps on one batch
of rollouts wrongly, and cannot average sharded weights.
"""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .lit_modules import TrainingModule
from .sharding import local


class WeightAverage(Callback):
    """Averages the trained weights after every optimizer step that changed them. Validation uses the averages, and at the
    end the model keeps them.

    After update ``t`` (from 1), ``average = d * average + (1 - d) * weight`` with ``d = min(decay, t / (9 + t))``, so that
    a short run forgets its start as well. The average is in float32 or finer, and split as the weight is.

    Attributes:
        averages: the average of each trained weight by its name in the module; empty outside of training.
    """

    def __init__(self, decay: float):
        self.decay, self.updates = decay, 0
        self.averages: dict[str, torch.Tensor] = {}
        self.weights: list[torch.nn.Parameter] = []  # what is averaged, in the same order
        self.kept: list[torch.Tensor] = []  # the weights, in main memory, while the averages are in their place

    def on_fit_start(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self.start(module, trainer.optimizers[0])

    def start(self, module: TrainingModule, optimizer: torch.optim.Optimizer) -> None:
        """Begin with the weights as they are, and follow the steps of the optimizer."""
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.weights = list(trained.values())
        wide = {name: torch.promote_types(p.dtype, torch.float32) for name, p in trained.items()}
        self.averages = {name: p.detach().to(wide[name], copy=True) for name, p in trained.items()}
        optimizer.register_step_post_hook(lambda optimizer, *_: self.update(module, optimizer))

    def update(self, module: TrainingModule, optimizer: torch.optim.Optimizer) -> None:
        """Take the weights of one more step into the averages, unless the step was skipped. Of a weight in 16 bits, its
        copy in float32 counts, which takes the steps."""
        if module.monitor.num_skipped_in_a_row:
            return
        self.updates += 1
        averages = [local(average) for average in self.averages.values()]
        stepped = [optimizer.state.get(p, {}).get("master", p.detach()) for p in self.weights]
        weights = [local(w).to(a.dtype) for w, a in zip(stepped, averages, strict=True)]
        get_ema_multi_avg_fn(min(self.decay, self.updates / (9 + self.updates)))(averages, weights, None)

    # -- the averages in place of the weights --------------------------------------------------------------------------
    def on_validation_start(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self.kept = [local(weight).detach().to("cpu", copy=True) for weight in self.weights]
        self._put(module, list(self.averages.values()))

    def on_validation_end(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self._put(module, self.kept)
        self.kept = []

    def on_train_end(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self._put(module, list(self.averages.values()))
        self.averages, self.weights = {}, []

    def _put(self, module: TrainingModule, values: list[torch.Tensor]) -> None:
        """Copy these values, one for each weight, into the weights."""
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # what was gathered from the values before
        for weight, value in zip(self.weights, values, strict=True):
            local(weight).detach().copy_(local(value))

    # -- what a resumed run needs; the averages are among the tensors of the state ------------------------------------
    def state_dict(self) -> dict[str, int]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.updates = state["updates"]

"""Holds a plan against the memory that a step takes: a run's first two steps on the CPU, in this process.

    python -m train.planning.measured RECIPE [--KEY VALUE ...]

The step is measured by the resident memory of the process, from before the model (tiny, of any size) is built to the peak of
the second step, and planned afterwards. Linux only. Rollouts are not decoded: the update is that of train.plan.
"""

from __future__ import annotations

import argparse


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of the command line, and the words that are keys of the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m train.planning.measured",
        usage="%(prog)s RECIPE [--KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE")
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import gc
from dataclasses import replace
from pathlib import Path

from torch._subclasses.fake_tensor import FakeTensorMode

from latent_reason.errors import cli_errors

from .. import sharding
from ..batch_sizes import accumulation_steps
from ..config import RLTrainingConfig, SFTConfig
from ..lit_modules import SFTModule, set_trainable
from ..model_setup import build_objective, prepare_model
from ..optim import make_optimizer
from ..plan import read_config
from ..trainer import set_precision
from . import rollouts, step
from .estimate import GIB, estimate

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at the peak."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def real_work(config: SFTConfig | RLTrainingConfig) -> step.Work:
    """The work of a config with real weights."""
    reasoner, _ = prepare_model(config)
    objective = build_objective(config, reasoner)
    set_trainable(reasoner, [part for part in config.trainable if part != "head" or reasoner.can_sketch])
    if reasoner.target is not None:
        reasoner.target.standardizer.fitted.fill_(True)
    if isinstance(config, RLTrainingConfig):
        return rollouts.policy_work(config, reasoner.train(), None, FakeTensorMode(), 1)
    module = SFTModule(reasoner.train(), objective, config.optim, sharding.ShardingOptions.of(config, objective))
    return step.supervised_work(module, step.longest_batch(config, module), accumulation_steps(config, 1))


def take_step(work: step.Work, optimizer, config: SFTConfig | RLTrainingConfig) -> None:
    """One optimizer step, as Lightning orders it."""
    if work.clears_first:
        optimizer.zero_grad()
    is_first = not work.clears_first
    for compute_loss, count in work.losses:
        for _ in range(count):
            with step.autocast(config.precision):
                loss = compute_loss()
            if is_first:
                optimizer.zero_grad()
                is_first = False
            loss.backward()
            del loss
    work.module.clip_grad_norm(config.optim.max_grad_norm)
    optimizer.step()
    work.module.on_optimizer_step()


def take_two_steps(config: SFTConfig | RLTrainingConfig) -> int:
    """Bytes of this process at the peak of the second step."""
    work = real_work(config)
    set_precision(work.module, config.precision)
    optimizer = make_optimizer(work.module, config.optim)
    take_step(work, optimizer, config)
    gc.collect()
    RESET.write_text("5")  # the peak of resident memory begins anew
    take_step(work, optimizer, config)
    return resident("VmHWM")


def measure(config: SFTConfig | RLTrainingConfig) -> int:
    """Bytes by which this process grows up to the peak of the second step."""
    if not config.init_from:  # a small model first: libraries take memory at their first use
        options = config.backbone.options | {"width": 32, "layers": 1, "heads": 2}
        take_two_steps(replace(config, backbone=replace(config.backbone, options=options)))
        gc.collect()
    return -resident("VmRSS") + take_two_steps(config)


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    given, words = parse_arguments(argv)
    config = read_config(given.recipe, words)
    if config.fsdp or config.optim.ema_decay:
        raise ValueError("fsdp, optim.ema_decay: only a step of one process without them is measured. Remove the key.")
    measured = measure(config)
    planned = sum(estimate(config).peaks[0].values())
    print(f"measured {measured / GIB:.3f} GiB, planned {planned / GIB:.3f} GiB: {planned / measured:.3f}")


if __name__ == "__main__":
    main()

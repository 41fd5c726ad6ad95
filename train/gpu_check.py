"""What a GPU does with this library: kernels, families, and memory against the plan. At most eight minutes.

    python -m train.gpu_check --out gpu.json            # on one H100 or H200
    python -m train.gpu_check --tiny --out cpu.json     # the smallest sizes, also on a CPU

Sections are apart: one that fails leaves its error and the others go on; one for which no time is left is named. Weights
are random. Speed is measured by eval/bench/gpu.sh.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes")
    add_output(parser, required=False, default="gpu_check.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import transformers
from rich.console import Console

from eval.bench.models import build
from eval.bench.settings import SIZES
from latent_reason import methods
from latent_reason.errors import cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.model import backbones
from latent_reason.model.backbones.attention import inspect_machine, set_attention
from latent_reason.model.backbones.families import FAMILIES
from latent_reason.outputs import check_output
from latent_reason.tasks import make

from .config import BackboneConfig, OptimConfig, SFTConfig, SFTDataConfig, SFTMethodConfig
from .lit_modules import SFTModule, set_trainable
from .optim import make_optimizer
from .planning.estimate import GIB, estimate
from .planning.step import longest_batch

SECONDS = 480
TOLERANCE = 2e-2  # relative, of a loss in bf16 under two kernels
console = Console(soft_wrap=True)


def compare_attention(is_tiny: bool) -> dict[str, Any]:
    """Loss and seconds of a step under sdpa and under flash attention."""
    names = ["sdpa", *sorted(inspect_machine().installed)]
    found: dict[str, Any] = {}
    for name in names:
        reasoner, _ = build("tiny" if is_tiny else "0.5b", name)
        found[name] = timed_step(*module_and_batch(reasoner, rows=2 if is_tiny else 16))
    if len(names) == 1:
        return found | {"skipped": "no flash attention is installed for this device"}
    losses = [found[name]["loss"] for name in names]
    return found | {"agree": max(losses) - min(losses) <= TOLERANCE * abs(losses[0])}


def step_families(is_tiny: bool) -> dict[str, Any]:
    """The loss of a bf16-mixed step of every family."""
    found: dict[str, Any] = {}
    for name in FAMILIES:
        backbone = backbones.load_backbone(f"tiny-{name}", width=64, layers=2)
        reasoner = methods.build_method("modal_mixed", backbone, k=4, head="mlp").to(device())
        set_attention(backbone, "sdpa")
        set_trainable(reasoner, ["text_model", "embeddings", "head"])
        found[name] = timed_step(*module_and_batch(reasoner, rows=2), repeats=1)["loss"]
    return found


def compare_with_plan(is_tiny: bool) -> dict[str, Any]:
    """GiB at the peak of a step, measured and planned."""
    config = plan_config("tiny" if is_tiny else "0.5b")
    planned = sum(estimate(config).memory(1).values()) / GIB
    if not torch.cuda.is_available():
        return {"planned_gib": planned, "skipped": "a CPU does not measure its peak"}
    reasoner, _ = build("tiny" if is_tiny else "0.5b", "sdpa")
    module = SFTModule(reasoner, methods.objective_of(reasoner), config.optim)
    batch = longest_batch(config, module).to(device())
    timed_step(module, batch)
    measured = torch.cuda.max_memory_allocated() / GIB
    return {"planned_gib": planned, "measured_gib": measured, "ratio": planned / measured}


SECTIONS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "families": step_families,
    "memory": compare_with_plan,
    "attention": compare_attention,
}


# -- parts -------------------------------------------------------------------------------------------------------------
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def plan_config(size: str) -> SFTConfig:
    """The config of a model of eval.bench."""
    return SFTConfig(
        backbone=BackboneConfig(options={"dtype": "bfloat16"} | SIZES[size]),
        method=SFTMethodConfig(options={"k": 36}),
        data=SFTDataConfig(levels=[4], items=16, global_batch_size=2 if size == "tiny" else 16),
        optim=OptimConfig(name="adamw"),
    )


def module_and_batch(reasoner, rows: int):
    """A module, and a batch of so many FrozenLake traces on the device."""
    task = make("frozenlake_plan", level=4)
    objective = methods.objective_of(reasoner)
    if reasoner.target is not None:
        reasoner.target.standardizer.fitted.fill_(True)
    batch = objective.collate(reasoner, [task.trace(task[i], "mixed") for i in range(rows)])
    module = SFTModule(reasoner.train(), objective, OptimConfig(name="adamw", max_steps=10))
    return module, replace(batch, raw_images=None).to(device())


def timed_step(module: SFTModule, batch, repeats: int = 3) -> dict[str, float]:
    """The loss of the first step, and the seconds of the fastest of the next."""
    optimizer, losses, seconds = make_optimizer(module, module.optim), [], []
    for _ in range(repeats + 1):
        started = time.monotonic()
        with torch.autocast(device().type, torch.bfloat16):
            loss, _ = module.compute_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        module.clip_grad_norm(1.0)
        optimizer.step()
        losses.append(loss.detach().item())  # waits for the device
        seconds.append(time.monotonic() - started)
    return {"loss": losses[0], "seconds": min(seconds[1:])}


def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    with cli_errors():
        check_output(given.out, given.overwrite)
        is_tiny, started = given.tiny or not torch.cuda.is_available(), time.monotonic()
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        console.print(f"on {name}{', the smallest sizes' if is_tiny else ''}")
        found: dict[str, Any] = {"schema": 1, "device": name, "tiny": is_tiny, "torch": torch.__version__}
        found |= {"cuda": torch.version.cuda, "transformers": transformers.__version__, "sections": {}}
        for section, run in SECTIONS.items():
            if time.monotonic() - started > SECONDS * 0.8:
                found["sections"][section] = {"skipped": f"no time was left of {SECONDS} seconds"}
                continue
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                found["sections"][section] = run(is_tiny)
            except Exception as error:  # the other sections are wanted
                found["sections"][section] = {"error": f"{type(error).__name__}: {error}"}
            console.print(section, found["sections"][section])
            atomic_write_json(given.out, found)
        console.print(f"Written to {given.out}")


if __name__ == "__main__":
    main()

"""The losses of twenty steps of every method, in two precisions, as they were, and of its older form, if it had one: with
the options of checkpoints that were made before some of them. A change that is meant writes them again:

python tests/golden_losses.py          # writes tests/golden_losses.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT.parent), str(ROOT)]

from tiny_runs import recipe  # noqa: E402

from latent_reason import methods  # noqa: E402
from train.batches import StepBatches  # noqa: E402
from train.data import TraceData  # noqa: E402
from train.lit_modules import SFTModule  # noqa: E402
from train.model_setup import build_objective, prepare_model  # noqa: E402
from train.progress import console  # noqa: E402
from train.traces import mode_of  # noqa: E402

FILE = ROOT / "golden_losses.json"
STEPS = 20
OLDER = "older "
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def forms() -> list[str]:
    """All methods, and the older forms of those that had another."""
    names = methods.names()
    return names + [OLDER + name for name in names if methods.with_older_options(name, {})]


def losses(form: str, precision: str) -> list[float]:
    """The loss of each step of a small run of a method, or of its older form, without Lightning."""
    method = form.removeprefix(OLDER)
    options = {"k": 4} if "k" in methods.schema(method) else {}
    if form != method:
        options = methods.with_older_options(method, options)
    changes = {"data__items": 8, "data__global_batch_size": 4, "data__val_items": 0, "optim__max_steps": STEPS}
    changes |= {"optim__name": "adamw", "optim__lr": 5e-4, "method__name": method, "method__options": options}
    config = recipe(ROOT / "unused", **changes)
    console.quiet = True
    try:
        reasoner, decoder = prepare_model(config)
        objective = build_objective(config, reasoner, decoder)
        data = TraceData(config.data, reasoner, objective, mode_of(method), config.seed, frozen_vision=True)
        data.setup()
    finally:
        console.quiet = False
    if objective.uses_target(reasoner) and not reasoner.target.standardizer.fitted:
        reasoner.target.fit_statistics(data.sketch_features(), True)
    for name, p in reasoner.named_parameters():
        p.requires_grad_("vision" not in name and "visual" not in name)
    module = SFTModule(reasoner, objective, config.optim).train()
    (optimizer,), (schedule,) = module.configure_optimizers()
    found = []
    for _, step in zip(range(STEPS), StepBatches(data.batches(), 1, module.loss_weights), strict=False):
        with torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "32-true"):
            loss, _ = module.compute_loss(step.batch)
        optimizer.zero_grad()
        loss.backward()
        module.clip_grad_norm(config.optim.max_grad_norm)
        optimizer.step()
        module.on_optimizer_step()
        schedule["scheduler"].step()
        found.append(round(float(loss.detach()), 6))
    return found


def main() -> None:
    found = {form: {precision: losses(form, precision) for precision in PRECISIONS} for form in forms()}
    lines = [f'  "{form}": {json.dumps(rows)}' for form, rows in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

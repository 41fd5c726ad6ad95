"""An inference checkpoint out of a saved training state: to evaluate a run that is still training, or was stopped.

    python -m train.export_state checkpoints/NAME --step 1200 --out checkpoints/NAME-1200

Without --step, the newest state. The state stays, and a run that trains is not disturbed.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.export_state", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder or name of a run; of a run in stages, the folder of the stage")
    parser.add_argument("--step", type=int, help="step of the state; default: the newest")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import torch

from latent_reason import checkpoint
from latent_reason.errors import cli_errors
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.outputs import check_output_folder
from latent_reason.visualization.sketch_decoder import SketchDecoder

from .config import CONFIGS, ModelConfig, RunConfig, complete, load
from .config.keys import hints_of
from .config.resuming import RECIPE, folder_to_resume
from .model_setup import prepare_model
from .progress import console, quiet
from .saving import state_folder, warn
from .state_files import StateFiles
from .trainer import training_notes

KINDS = ("module/", "average/")  # of weights in a state; where there are averages, a run saves them as its model


def find_state(run: Path, step: int | None) -> Path:
    """The folder of a state of a run, whose checksums hold.

    Raises:
        FileNotFoundError: there is none, or none of this step; names the steps that there are.
    """
    files = StateFiles(state_folder(run), keep=0)
    if step is None:
        found = files.newest(warn)
    else:
        found = next((path for path in files.paths() if path.name == f"step-{step:08d}"), None)
    if found is None:
        steps = ", ".join(str(int(path.name.removeprefix("step-"))) for path in files.paths()) or "none"
        raise FileNotFoundError(f"'{run}' has no such training state. Steps with a state: {steps}.")
    return found


def read_config(run: Path) -> RunConfig:
    """The config of a run: of the command with the fewest keys that has those of its recipe, which names all of them.
    Options of a method that are newer than the recipe have the values with which the run began.

    Raises:
        ValueError: the recipe is of no command that trains a model.
    """
    for config in sorted(CONFIGS, key=lambda config: len(hints_of(config))):
        try:
            begun = load(run / RECIPE, config)
        except ValueError:
            continue
        return complete(begun, begun)
    raise ValueError(f"'{run / RECIPE}' is the recipe of no training command.")


def make_model(config: RunConfig, has_decoder: bool) -> tuple[LatentReasoner, SketchDecoder | None]:
    """The model of a run before its training, with a new sketch decoder where the run began one."""
    if isinstance(config, ModelConfig):
        reasoner, decoder = prepare_model(config)
    else:
        reasoner, decoder = checkpoint.load(config.init_from, device="cpu")
    if decoder is None and has_decoder:
        decoder = SketchDecoder(latent=reasoner.backbone.width)
    return reasoner, decoder


def export_state(run: Path, out: Path, step: int | None = None) -> Path:
    """Write the model of a training state as a checkpoint into the folder ``out``; returns the folder."""
    path, config = find_state(run, step), read_config(run)
    files = StateFiles(path.parent, keep=0)
    reasoner, decoder = make_model(config, any(name.startswith("module/decoder.") for name in files.sizes(path)))
    with quiet():
        for part, module in (("reasoner.", reasoner), ("decoder.", decoder)):
            if module is not None:
                load_part(files, path, part, module)
    return checkpoint.save(reasoner.eval(), out, decoder=decoder, notes=training_notes(config) | {"state": path.name})


def load_part(files: StateFiles, path: Path, part: str, module: torch.nn.Module) -> None:
    """Put the weights of a state into a module, averages in place of those that they average.

    Raises:
        ValueError: the state has weights that the module does not have.
    """
    sizes = files.sizes(path)
    if isinstance(module, LatentReasoner):  # room for what the state has
        means = next(
            (size for n, (size, _) in sizes.items() if n.endswith(f"{part}target.standardizer.grid_means")), None
        )
        module.reserve_statistics(means and means[:2])
        has_gain = any(n.endswith(f"{part}feedback_gain") for n in sizes)
        module.reserve_gain("norm_matched" if has_gain else None)
    own = module.state_dict()
    keys = {n.removeprefix(kind + part): n for kind in KINDS for n in sizes if n.startswith(kind + part)}
    if unknown := keys.keys() - own.keys():
        raise ValueError(f"'{path}' does not fit the recipe of its run: it holds {min(unknown)}.")
    found = {key: torch.empty(sizes[key][0], dtype=sizes[key][1]) for key in keys.values()}
    files.read_some(path, found)
    module.load_state_dict({name: found[key] for name, key in keys.items()}, strict=False)


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    check_output_folder(given.out)
    out = export_state(folder_to_resume(given.run), given.out, given.step)
    console.print(f"Checkpoint: {out}")


if __name__ == "__main__":
    main()

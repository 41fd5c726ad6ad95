"""Compare latent policies of reinforcement learning: every arm of a recipe uses the same items, rollouts and seeds.

    python -m train.rl.compare --config train/recipes/rl_compare_frozenlake.yaml --init_from CHECKPOINT --out FILE.json
    python paper_figs/rl.py FILE.json            # the figure

Like train.compare, but arms may start from different checkpoints (``init_from``), which are evaluated too. The table has
differences to the first start.
"""

from __future__ import annotations

from ..config import RLCompareConfig, answer_help

if __name__ == "__main__":
    answer_help(RLCompareConfig, __doc__)  # before torch is imported

from contextlib import closing
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latent_reason.errors import cli_errors

from ..arm_measures import UNFINISHED, measured
from ..compare import Results, compare, open_comparison, print_table
from ..config import arms_of, folder_of
from ..trainer import console
from . import trainer

#: logged scalars that the results file stores
CURVES = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "reward/by_mode/mixed",
    "reward/by_mode/text",
    "accuracy",
    "entropy",
    "kl",
    "kl/latent",
    "val/success",
    "val/accuracy",
    "val/exact",
    "val/sketch_equal",
    "completions/mean_length",
    "completions/clipped_ratio",
    "switch/start_rate",
    "spans/per_answer",
    "latents/per_answer",
    "latents/cos_to_sft",
    "latents/norm",
    "clip_ratio/region_mean",
    "clip_ratio/latent",
    "ratio/latent_mean",
    "probe/p3_follow",
    "probe/p5_delta",
)


def read_curves(folder: Path) -> dict[str, list[list[float]]]:
    """The logged scalars of a run: tag -> [step, value] pairs."""
    events = EventAccumulator(str(folder / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    logged = events.Tags()["scalars"]
    return {tag: [[e.step, round(e.value, 5)] for e in events.Scalars(tag)] for tag in CURVES if tag in logged}


def measure_starts(config: RLCompareConfig, results: Results) -> None:
    """Evaluate each checkpoint that an arm starts from, once."""
    starts = {arm.init_from: (name, arm) for name, arm in reversed(arms_of(config).items())}
    for init_from, (name, arm) in starts.items():
        if results.is_wanted(f"start of {name}", config.seed):
            console.rule(f"start of {name}")
            unfinished = folder_of(config.run_name) / f"start-of-{name}{UNFINISHED}"
            with measured(init_from, arm, config.test_items, unfinished) as row:
                results.add(f"start of {name}", config.seed, arm, row)


def check_loggers(config: RLCompareConfig) -> None:
    """Raises ValueError for an arm without the log that its curves are read from."""
    for name, arm in arms_of(config).items():
        if "tensorboard" not in arm.logger:
            raise ValueError(f"arm {name!r}: the curves of a comparison are read from TensorBoard. Add it to logger.")


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    config, results = open_comparison(RLCompareConfig, __doc__, argv)
    with closing(results):
        check_loggers(config)
        measure_starts(config, results)
        compare(config, results, trainer.train, lambda folder: {"curves": read_curves(folder)})
        print_table(config, results)
    console.print(f"Results written to {config.out}. The figure: python paper_figs/rl.py {config.out}")


if __name__ == "__main__":
    main()

"""The whole pipeline on a small model: pretraining, fine-tuning, accuracy, probes, a sheet of sketches, export.

bash train/quickstart.sh                     # sets up the environment first
python -m train.quickstart --run_name NAME   # in an environment that is set up
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latent_reason.errors import at_least, cli_errors

console = Console(soft_wrap=True)  # a command stays on one line
RECIPES = Path(__file__).parent / "recipes"

NUM_SHOWN = 3  # boards on the sheet of sketches
PROBES = ("noise", "mean", "zero", "foreign", "oracle", "markers", "removed", "text_corrupted")


def stage(number: int, title: str, began: float) -> None:
    console.rule(f"[bold]{number}/6 {title}[/bold]  ({time.time() - began:.0f} s so far)", align="left")


def value(found: list[dict], metric: str, level: str) -> str:
    row = next((r for r in found if r["metric"] == metric and str(r["level"]) == level and r["split"] == "test"), None)
    return "-" if row is None else f"{row['value']:.3f}  ({row['low']:.3f} - {row['high']:.3f}, n = {row['n']})"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="bash train/quickstart.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run_name", default="checkpoints/quickstart", help="run folder; -2, -3, ... is added if it exists"
    )
    parser.add_argument("--n", type=at_least(1), default=200, help="held-out items per level")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each stage, to test that it runs")
    given = parser.parse_args(argv)
    with cli_errors():
        job(given)


def job(given: argparse.Namespace) -> None:
    """Run all six stages."""
    began = time.time()
    console.print("Loading libraries ...")
    import torch

    from eval import probe as probing
    from eval import run as accuracy
    from latent_reason import tasks
    from latent_reason.checkpoint.export.exporter import export
    from latent_reason.files import atomic_write_json, new_run_folder
    from latent_reason.visualization.storyboard import draw_storyboard
    from train import pretrain, sft
    from train.config import PretrainConfig, SFTConfig, dump, load
    from train.traces import make_task

    torch.set_float32_matmul_precision("high")
    folder = new_run_folder(given.run_name)
    short = (
        {"optim__max_steps": 4, "data__items": 64, "data__val_items": 8, "data__global_batch_size": 8}
        if given.smoke
        else {}
    )
    first = load(RECIPES / "tiny_pretrain.yaml", PretrainConfig, run_name=str(folder / "pretrain"), **short)
    second = load(
        RECIPES / "quickstart.yaml",
        SFTConfig,
        run_name=str(folder),
        init_from=str(folder / "pretrain" / "model"),
        **short,
    )
    for name, recipe in (("recipe-pretrain.yaml", first), ("recipe.yaml", second)):
        (folder / name).write_text(dump(recipe), encoding="utf-8")
    console.print(
        f"Run folder: {folder}   device: {'GPU' if torch.cuda.is_available() else 'CPU'}   pictures: "
        f"{make_task(first.data, 'train').skin}"
    )

    stage(1, "pretraining: a random tiny Qwen2.5-VL learns to read images, its decoder to reconstruct them", began)
    (folder / "pretrain").mkdir()
    pretrain.train(first, folder / "pretrain")
    stage(2, "fine-tuning: reasoning in text and sketches", began)
    reasoner, decoder = sft.train(second, folder)
    stage(3, "accuracy on held-out boards", began)
    n = 4 if given.smoke else given.n
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in second.data.options.items()}
    levels = second.data.levels
    groups = accuracy.item_groups([second.data.task], levels, n, 1, options=options)
    found = accuracy.evaluate(reasoner, decoder, groups)
    atomic_write_json(
        folder / "eval.json",
        {
            "schema": 1,
            "checkpoint": (folder / "model").as_posix(),
            "method": reasoner.method.name,
            "decoding": "greedy",
            "seed": 1,
            "results": found,
        },
    )
    stage(4, "probes: latents replaced by noise, zeros, other and true sketches", began)
    task = tasks.make(second.data.task, split="test", seed=1, level=tuple(levels), **options)
    items = probing.sketched_items(task, max(1, n // 2))  # nine decodings of each
    report = probing.probe(reasoner, task, items, seed=1, batch_size=50, only=PROBES)
    atomic_write_json(
        folder / "probe.json",
        {
            "schema": 1,
            "checkpoint": (folder / "model").as_posix(),
            "task": second.data.task,
            "levels": levels,
            "n": len(items),
            "seed": 1,
            "protocol": "regenerate",
            "decoding": "greedy",
            "probes": report,
        },
    )
    stage(5, "the sheet of sketches", began)
    from latent_reason.decoding.items import decode

    shown = decode(reasoner, decoder, task, items[:NUM_SHOWN], "mixed")
    draw_storyboard(reasoner, decoder, [result.decoded for result in shown]).save(folder / "sketches.png")
    stage(6, "export", began)
    export(folder, folder / "export")
    finish(folder, found, report, f"{min(levels)}-{max(levels)}", time.time() - began)


def finish(folder: Path, found: list[dict], report: dict, label: str, seconds: float) -> None:
    """Print the results, the sheet of sketches and the next commands."""
    table = Table(title=f"quickstart: FrozenLake levels {label}, held-out boards ({seconds:.0f} s)")
    table.add_column("measure")
    table.add_column("value  (95 % interval)")
    for title, metric in (
        ("plans that reach the gift", "success"),
        ("shortest plans", "exact"),
        ("best fixed plan", "constant"),
        ("plans blind to holes", "hole_blind"),
        ("drawn sketches that show the right board", "sketch_equal"),
    ):
        table.add_row(title, value(found, metric, label))
    for title, arm in (
        ("success on boards that need a sketch", "as_generated"),
        ("  latents replaced by noise", "noise"),
        ("  by another board's sketch", "foreign"),
        ("  sketching forbidden", "removed"),
    ):
        r = report[arm]
        table.add_row(title, f"{r['accuracy']:.3f}  ({r['low']:.3f} - {r['high']:.3f})")
    console.print(table)
    console.print(
        f"The sheet of sketches: [bold]{folder / 'sketches.png'}[/bold]\n\nNext, try:\n"
        f"  python -m latent_reason generate {folder / 'export'} --task frozenlake_plan --level 4\n"
        f"  python -m eval.run {folder / 'export'} --tasks frozenlake_plan --levels 3,4,5 --n 100 "
        f"--out {folder / 'eval-more.json'}\n"
        f"  tensorboard --logdir {folder / 'logs'}"
    )
    (folder / "summary.json").write_text(json.dumps({"seconds": round(seconds, 1)}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

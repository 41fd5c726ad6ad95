"""The verb ``data``: its actions show, inspect and make here, those on records in ``records``."""

from __future__ import annotations

import time
from argparse import Namespace
from itertools import islice
from pathlib import Path

from ..outputs import check_output_folder, check_picture_output, save_picture
from ..values import Seed, argument
from . import records
from .arguments import HelpFormatter, add_overwrite, add_verb, at_least, numbers, splits

DESCRIPTION = """\
Preview tasks; write, convert and validate records.

  latent-reason data show frozenlake_plan                    # image of items
  latent-reason data inspect frozenlake_plan                 # one training row
  latent-reason data make frozenlake_plan boards --n 200     # write records
  latent-reason data convert swimbird SOURCE records         # other formats
  latent-reason data check records                           # list all errors"""


def add_verbs(verbs) -> None:
    parser = verbs.add_parser(
        "data", help=DESCRIPTION.partition("\n")[0], description=DESCRIPTION, formatter_class=HelpFormatter
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_task_actions(actions)
    records.add_convert(actions)
    records.add_record_actions(actions)


def _add_task_actions(actions) -> None:
    task_or_records = "a task name, a dotted path to a task class, or a folder of records"
    parser = add_verb(actions, "show", show)
    parser.add_argument("task", help=task_or_records)
    parser.add_argument("folder", nargs="?", metavar="PNG", help="default: TASK.png")
    parser.add_argument("--n", type=at_least(1), help="number of items (default: two for each level)")
    add_overwrite(parser)
    _add_task_options(parser)

    parser = add_verb(actions, "inspect", inspect)
    parser.add_argument("task", help=task_or_records)
    parser.add_argument("--index", type=at_least(0), default=0, help="which item (default: 0)")
    parser.add_argument("--method", default="modal_mixed", help="a method name or dotted path (default: modal_mixed)")
    _add_task_options(parser)

    parser = add_verb(actions, "make", make)
    parser.add_argument("task", help="a task name or a dotted path to a task class")
    parser.add_argument("folder", help="a new folder")
    parser.add_argument("--n", type=at_least(1), default=100, help="number of items (default: 100)")
    parser.add_argument(
        "--mode",
        choices=["direct", "text", "vision", "mixed"],
        default="mixed",
        help="what the answer holds: text has every sketch stated in words (default: mixed)",
    )
    parser.add_argument("--to", default="native", help="target format: native (default) or another writable format")
    parser.add_argument("--lossy", action="store_true", help="allow a target format that loses information")
    _add_task_options(
        parser, split_type=splits, split_help="train, val or test, or shares as train=0.8,val=0.1,test=0.1"
    )


def _add_task_options(parser, split_type=str, split_help: str = "train, val or test") -> None:
    parser.add_argument("--levels", type=numbers, metavar="3,4", help="default: the levels the task is trained on")
    parser.add_argument("--skin", help="the drawing style of a task, for example other")
    parser.add_argument("--split", type=split_type, default="train", help=f"{split_help} (default: train)")
    parser.add_argument("--seed", type=argument(Seed), default=0, help="default: 0")


def _make_task(arguments: Namespace, split: str):
    from .. import tasks

    options = {"skin": arguments.skin} if arguments.skin else {}
    options |= {"level": tuple(arguments.levels)} if arguments.levels else {}
    return tasks.make(arguments.task, split=split, seed=arguments.seed, **options)


def _read_records(arguments: Namespace):
    """Read the records of a folder that belong to the split."""
    from ..data import native

    task_options = [f"--{name}" for name in ("levels", "skin") if getattr(arguments, name)]
    if task_options:
        raise ValueError(f"{', '.join(task_options)} applies to tasks, not to a folder of records. Remove the option.")
    yield from (trace for trace in native.read(arguments.task) if trace.split == arguments.split)


def show(arguments: Namespace) -> None:
    """Save an image of items of a task, or of records.

    Each row shows one item: its question, text, input images and sketches.

      latent-reason data show frozenlake_plan
      latent-reason data show my_records records.png --n 10 --split val
    """
    from ..visualization.preview import draw_items, draw_traces

    is_folder = Path(arguments.task).exists()
    name = Path(arguments.task).resolve().name if is_folder else arguments.task
    out = check_picture_output(arguments.folder or f"{name}.png", arguments.overwrite)
    if is_folder:
        traces = list(islice(_read_records(arguments), arguments.n or 6))
        if not traces:
            raise ValueError(
                f"'{arguments.task}' has no records of the split '{arguments.split}'. Name another --split."
            )
        image = draw_traces(traces)
        message = f"{len(traces)} records of {arguments.task}, split {arguments.split}."
    else:
        task, start = _make_task(arguments, arguments.split), time.perf_counter()
        items = [task[i] for i in range(arguments.n or 2 * len(task.levels))]
        rate = len(items) / (time.perf_counter() - start)
        image = draw_items(items)
        message = f"{len(items)} items of {task.name}, levels {', '.join(map(str, task.levels))}: {rate:.0f} items per second."
    save_picture(image, out)
    print(f"{message}\nImage: {out}")


def inspect(arguments: Namespace) -> None:
    """Print the tokens of one trace as a method trains on it.

    Tokens with a loss are green, latents blue, positions without a loss dim.

      latent-reason data inspect frozenlake_plan --levels 4 --method mirage
    """
    from rich.console import Console

    from .. import methods
    from ..model import backbones
    from ..visualization.preview import list_texts, style_tokens

    if Path(arguments.task).exists():
        trace = next(islice(_read_records(arguments), arguments.index, None), None)
        if trace is None:
            raise ValueError(f"'{arguments.task}' has no record {arguments.index} of the split '{arguments.split}'.")
    else:
        task = _make_task(arguments, arguments.split)
        trace = task.trace(task[arguments.index], methods.load(arguments.method).MODE)
    reasoner = methods.build_method(arguments.method, backbones.load_backbone("tiny", corpus=list_texts(trace) * 50))
    row, console = methods.objective_of(reasoner).encode(reasoner, trace), Console()
    console.print(
        f"{trace.id}, encoded for {arguments.method}: "
        "[bold green]text with a loss[/], [bold blue]latents[/], [dim]no loss[/]",
        highlight=False,
        soft_wrap=True,
    )
    console.print(style_tokens(row, reasoner.vocabulary), soft_wrap=True)
    print(
        f"{len(row.ids)} positions, {sum(weight > 0 for weight in row.loss_weight)} text tokens with a loss; "
        f"{len(row.spans)} latent spans"
    )


def make(arguments: Namespace) -> None:
    """Write items of a task as native records, to train on, or in another format.

    A folder of records contains a JSONL file and the images. Puzzles of two splits
    differ under every seed.

      latent-reason data make frozenlake_plan data/boards --n 200 --levels 3,4
      latent-reason data make frozenlake_plan data/words --mode text \\
          --split train=0.8,val=0.1,test=0.1
      latent-reason data make frozenlake_plan data/chats --to trl --lossy
    """
    from ..data.convert import write
    from ..data.labels import count_by_split

    check_output_folder(arguments.folder)
    shares = {arguments.split: 1.0} if isinstance(arguments.split, str) else arguments.split
    counts = count_by_split(shares, arguments.n)
    by_split = {split: _make_task(arguments, split) for split in counts}
    traces = (task.trace(task[i], arguments.mode) for split, task in by_split.items() for i in range(counts[split]))
    file = write(traces, arguments.folder, arguments.to, arguments.lossy)
    said = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{arguments.n} traces of {next(iter(by_split.values())).name} ({arguments.mode}; {said}): {file}")
    if arguments.to == "native":
        print(f"To train on these records: --data.folder {file}")

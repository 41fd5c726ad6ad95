"""Actions of the verb ``data`` on records: convert, pack, check, stats."""

from __future__ import annotations

import argparse
import json
import sys
import time
from argparse import Namespace
from functools import partial

from ..outputs import check_output, check_output_folder
from ..values import Seed, Share, Weight, argument
from .arguments import add_overwrite, add_verb, at_least, pairs, replaced, splits


def add_convert(actions) -> None:
    from ..data import formats

    parser = add_verb(actions, "convert", convert)
    parser.add_argument("format", help=f"format of the source: native, {', '.join(formats.names())}")
    _add_source(parser)
    parser.add_argument("folder", help="a new folder")
    parser.add_argument("--to", default="native", help="target format: native (default) or another writable format")
    parser.add_argument(
        "--on-error",
        choices=["fail", "skip"],
        default="fail",
        help="fail: write nothing if a row is invalid (default); skip: write valid rows, list the others",
    )
    parser.add_argument(
        "--max-skip",
        type=argument(Share),
        default=0.01,
        metavar="SHARE",
        help="maximum fraction of skipped rows (default: 0.01)",
    )
    parser.add_argument("--lossy", action="store_true", help="allow a target format that loses information")
    parser.add_argument("--task", help="the task that all records get (default: that of the row, or the format)")
    parser.add_argument(
        "--split",
        type=splits,
        metavar="SPLIT",
        help="the split that all records get: train, val, test or ood-AXIS; or shares of the training records, as "
        "train=0.8,val=0.1,test=0.1, where records with the same images stay together",
    )
    parser.add_argument(
        "--split-seed", type=argument(Seed), default=0, metavar="SEED", help="which records --split draws (default: 0)"
    )
    parser.add_argument("--val-share", type=replaced("--split train=0.98,val=0.02"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--mode",
        choices=["text", "direct"],
        help="text: without the sketches, for a text-only control on the same data; direct: the boxed answer alone "
        "(default: as in the source)",
    )
    parser.add_argument(
        "--max-pass-rate",
        type=argument(Share),
        metavar="SHARE",
        help="leave out records whose meta.pass_rate is higher, which a model solves too often; 0 keeps those that it never "
        "solves (default: keep all)",
    )
    _add_format_options(parser)


def _add_format_options(parser) -> None:
    parser.add_argument(
        "--checker", metavar="NAME", help="the rule that grades answers, such as number (default: that of the record)"
    )
    own = parser.add_argument_group("options of specific formats")
    own.add_argument(
        "--answer",
        choices=["refuse", "field", "text"],
        help="zebra_cot, swimbird, ilvr, thinkmorph, interleaved, mmfinereason, table: which answer is right if the column and the boxed "
        "answer differ (default: refuse the row)",
    )
    own.add_argument(
        "--unplaced-image",
        choices=["first", "drop", "refuse"],
        help="llava, sharegpt, trl, swimbird, zebra_cot, interleaved, visual_cot, table: images that no text has a place for "
        "go before the first question (default), are dropped, or the row is refused",
    )
    own.add_argument("--assistant-image", choices=["refuse", "sketch"], help="sharegpt, trl: images in answers")
    own.add_argument("--box-unit", choices=["share", "pixel"], help="lvr, visual_cot: unit of the boxes")
    own.add_argument(
        "--observation-loss",
        type=argument(Weight),
        metavar="WEIGHT",
        help="monet: loss weight of observations (default: 1)",
    )
    own.add_argument(
        "--columns",
        type=pairs,
        metavar="A=B,...",
        help="table: what each column holds, e.g. question=problem,answer=solution,images=images; "
        "sharegpt: column names, e.g. messages=talk",
    )
    own.add_argument("--tags", type=pairs, metavar="A=B,...", help="sharegpt: tags, e.g. user_tag=U")
    own.add_argument(
        "--skip-folder",
        action="append",
        metavar="TEXT",
        help="zebra_cot: skip folders whose name contains TEXT; repeatable",
    )


FORMAT_OPTIONS = (
    "answer",
    "assistant_image",
    "box_unit",
    "checker",
    "columns",
    "observation_loss",
    "skip_folder",
    "tags",
    "unplaced_image",
)


def _format_options(arguments: Namespace) -> dict:
    """The options of a format that were given."""
    return {name: getattr(arguments, name) for name in FORMAT_OPTIONS if getattr(arguments, name) is not None}


def add_record_actions(actions) -> None:
    parser = add_verb(actions, "pack", pack)
    _add_source(parser)
    parser.add_argument("folder", help="a new folder")
    parser.add_argument("--to", choices=["tar", "parquet"], default="tar", help="default: tar")
    parser.add_argument(
        "--shard-items", type=at_least(1), default=10_000, help="maximum items per shard (default: 10000)"
    )
    parser.add_argument(
        "--shard-mib", type=at_least(1), default=256, help="start a new shard after this size in MiB (default: 256)"
    )

    parser = add_verb(actions, "check", check)
    _add_source(parser)
    parser.add_argument("--report", metavar="FILE", help="write all errors and warnings to this JSON file")
    add_overwrite(parser)
    parser.add_argument(
        "--method", metavar="NAME", help="also report records of train and val that this method cannot be trained on"
    )
    parser.add_argument("--method-options", type=pairs, metavar="A=B,...", help="options of --method, such as count=8")
    parser.add_argument(
        "--fits",
        metavar="CHECKPOINT",
        help="the same for the method of this checkpoint, and report rows that are too long for it",
    )
    parser.add_argument(
        "--longest",
        type=at_least(1),
        metavar="POSITIONS",
        help="with --fits: maximum length instead of the model's limit",
    )
    parser.add_argument("--format", default="native", help="format of the source, as for convert (default: native)")
    _add_format_options(parser)

    _add_source(add_verb(actions, "stats", stats))


def _add_source(parser) -> None:
    parser.add_argument("source", help="a file or folder of records")
    parser.add_argument(
        "--image-root",
        action="append",
        metavar="FOLDER",
        help="look for images here first, then in the folder of the source; links and absolute paths may lead here; "
        "repeatable",
    )


def convert(arguments: Namespace) -> None:
    """Convert between native records and another format.

    Every invalid row is reported with its file, row and field. If a row is invalid,
    nothing is written and the exit status is 2, unless --on-error skip is given.

      latent-reason data convert swimbird SOURCE records
      latent-reason data convert native records OUT --to trl
      latent-reason data convert llava SOURCE records --checker yes_no \\
          --split train=0.8,val=0.1,test=0.1
      latent-reason data convert native records records-text --mode text
    """
    from ..data.convert import convert
    from ..data.labels import Labels

    started = time.perf_counter()
    labels = Labels(arguments.task, arguments.split, arguments.split_seed, arguments.mode, arguments.max_pass_rate)
    path, report = convert(
        arguments.format,
        arguments.source,
        arguments.folder,
        arguments.to,
        arguments.image_root,
        arguments.on_error == "skip",
        arguments.max_skip,
        arguments.lossy,
        labels,
        **_format_options(arguments),
    )
    _print_report(report, started)
    if path is None:
        remedy = (
            f". Their fraction exceeds --max-skip {arguments.max_skip}."
            if arguments.on_error == "skip"
            else ", or skip them with --on-error skip."
        )
        print(f"Nothing was written. Correct these rows{remedy}")
        sys.exit(2)
    skipped = f". Skipped rows: {arguments.folder}.skipped.jsonl" if report.errors else ""
    easy = f". Left out, above --max-pass-rate: {labels.num_easy:,} records" if labels.num_easy else ""
    print(f"Written: {path}{skipped}{easy}")


def pack(arguments: Namespace) -> None:
    """Pack native records and images into tar or parquet shards.

    Shards are read like any folder of records and can be streamed.

      latent-reason data pack records shards --to parquet
    """
    from ..data import native, packed
    from ..data.convert import check_outside

    check_outside(arguments.folder, arguments.source)
    check_output_folder(arguments.folder)
    records = native.read(arguments.source, arguments.image_root)
    folder = packed.write(records, arguments.folder, arguments.to, arguments.shard_items, arguments.shard_mib * 2**20)
    shards = packed.manifest(folder)
    print(
        f"Written: {folder}, {sum(shard['items'] for shard in shards.values())} items in {len(shards)} "
        f"shard{'s' * (len(shards) != 1)}. To unpack them: latent-reason data convert native {folder} FOLDER"
    )


def check(arguments: Namespace) -> None:
    """Validate records, or rows of another format, and report every error.

    Images are decoded, too. The exit status is 2 if there is an error.

      latent-reason data check records --report findings.json
      latent-reason data check SOURCE --format llava
      latent-reason data check records --method mirage
      latent-reason data check records --fits checkpoints/frozenlake-tiny
    """
    from ..data.convert import check
    from ..files import atomic_write_json

    if arguments.report:
        check_output(arguments.report, arguments.overwrite)
    started, options = time.perf_counter(), _format_options(arguments)
    fits = _training_check(arguments)
    report = check(arguments.format, arguments.source, arguments.image_root, fits, **options)
    _print_report(report, started)
    if arguments.report:
        atomic_write_json(arguments.report, report.as_json())
        print(f"Report: {arguments.report}")
    if not report.ok:
        sys.exit(2)


def stats(arguments: Namespace) -> None:
    """Count native records by split, task and mode.

    Also reports sketches and characters per trace, and image sizes.

      latent-reason data stats records
    """
    from rich.console import Console

    from ..data import native
    from ..data.convert import stats

    Console().print(stats(native.read(arguments.source, arguments.image_root)))


def _print_report(report, started: float) -> None:
    """Print a report, and how many rows a second were read since ``started``."""
    print(f"{report}, {report.rows / (time.perf_counter() - started):,.0f} rows a second")
    if any(error.row is not None and not error.file.endswith(".jsonl") for error in report.errors):
        print("(rows of .json, .parquet and .tar files are numbered from 0, lines of .jsonl files from 1)")


def _training_check(arguments: Namespace):
    """A check that rejects what training refuses: with the method of a checkpoint, or with a method by name on a small
    model. None without either, and then torch is not imported."""
    if not (arguments.fits or arguments.method):
        return None
    import torch

    from .. import methods
    from ..checkpoint import load
    from ..data.checks import trainable
    from ..model.backbones import load_backbone

    longest = arguments.longest
    if arguments.fits:
        reasoner, _ = load(arguments.fits)
        longest = longest or reasoner.backbone.max_length
    else:
        options = {name: _option_value(value) for name, value in (arguments.method_options or {}).items()}
        reasoner = methods.build_method(arguments.method, load_backbone("tiny"), **options)
    objective = methods.objective_of(reasoner)

    @torch.no_grad()
    def step(trace) -> None:
        reasoner(objective.loss, objective.collate(reasoner, [trace]))

    return trainable(reasoner.method.name or "this model", partial(objective.encode, reasoner), step, longest)


def _option_value(text: str):
    """A number, true, false or null by JSON; any other text as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text

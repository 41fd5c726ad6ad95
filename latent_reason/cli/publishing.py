"""Verbs that publish a checkpoint: export, check, push."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from ..outputs import check_output, check_output_folder
from .arguments import add_limits, add_overwrite, add_verb, limits_of, size

RUN_CODE = "also run the folder's own code and the snippet of its README, in another process, which is no sandbox"


def add_verbs(verbs) -> None:
    parser = add_verb(verbs, "export", export)
    parser.add_argument("run", help="a run folder or a checkpoint folder")
    parser.add_argument("folder", help="a new folder")
    parser.add_argument(
        "--space",
        action="store_true",
        help="write the folder of a Hugging Face Space: the demo, with the export in checkpoint/",
    )
    parser.add_argument("--merge-lora", action="store_true", help="merge the LoRA adapter into the weights")
    parser.add_argument(
        "--show-records",
        action="store_true",
        help="show sketches of your own records on the model card; this publishes their images",
    )
    parser.add_argument("--max-shard-size", type=size, default="5GB", metavar="SIZE", help="default: 5GB")
    add_limits(parser)
    parser.add_argument("--check", action="store_true", help="run the checks of `latent-reason check` afterwards")
    parser.add_argument("--json", metavar="FILE", help="write the results of the checks to this file")
    add_overwrite(parser)

    parser = add_verb(verbs, "check", check)
    parser.add_argument("folder", help="an exported folder")
    parser.add_argument("--run-code", action="store_true", help=RUN_CODE)
    parser.add_argument("--json", metavar="FILE", help="write the results to this file")
    add_overwrite(parser)

    parser = add_verb(verbs, "push", push)
    parser.add_argument("folder", help="an exported folder")
    parser.add_argument("name", help="name of the repository: user/name")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="run the checks and list the files; upload nothing")
    parser.add_argument("--run-code", action="store_true", help=RUN_CODE)
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, created if missing (default: main)")


def export(arguments: Namespace) -> None:
    """Export a checkpoint for transformers, with a model card.

    The folder holds the inference code, so AutoModelForImageTextToText loads it
    with trust_remote_code=True where latent_reason is not installed.

    With --space the folder is a Hugging Face Space that runs `latent-reason demo`.

      latent-reason export checkpoints/my-run my-model --check
      latent-reason export checkpoints/my-run my-space --space
    """
    from ..checkpoint.export import exporter, space

    check_output_folder(arguments.folder)
    if arguments.json:
        check_output(arguments.json, arguments.overwrite)
    write = space.export_space if arguments.space else exporter.export
    folder = write(
        arguments.run,
        arguments.folder,
        merge_lora=arguments.merge_lora,
        max_shard_size=arguments.max_shard_size,
        records=arguments.show_records,
        limits=limits_of(arguments),
    )
    print(f"Exported to {folder}")
    if arguments.check or arguments.json:
        exported = folder / space.CHECKPOINT if arguments.space else folder
        report(exported, arguments.json, run_code=True)  # the code was just written here


def check(arguments: Namespace) -> None:
    """Run the ten checks that an exported folder must pass.

    Run them before you publish a folder, or before you use one of somebody else.
    Nothing of the folder is run: its code and the snippet of its model card must
    be those that this version generates, and the stored outputs must be those
    of its weights in the classes of this library. With --run-code the folder is
    also loaded by its own code, and the snippet runs. The exit status is 1 if a
    check fails.

      latent-reason check my-model --json checks.json
    """
    if arguments.json:
        check_output(arguments.json, arguments.overwrite)
    report(arguments.folder, arguments.json, run_code=arguments.run_code)


def report(folder: str | Path, json_file: str | None, *, run_code: bool) -> None:
    """Print the results of the checks and write them as JSON. Exits with 1 if a check fails."""
    from ..checkpoint.export import checks
    from ..files import atomic_write_json

    results = checks.check(folder, run_code)
    print("\n".join(line for result in results for line in result.lines()))
    if json_file:
        atomic_write_json(json_file, checks.report(results))
        print(f"Written to {json_file}")
    if not checks.passed(results):
        sys.exit(1)


def push(arguments: Namespace) -> None:
    """Upload an exported folder to the Hugging Face Hub.

    A folder that fails `latent-reason check` is not uploaded, and nothing of it is
    run without --run-code. Log in first with `hf auth login`, or set HF_TOKEN.

      latent-reason push my-model user/my-model --private --dry-run
    """
    from ..checkpoint import push

    push.refuse_failing(arguments.folder, arguments.run_code)
    listed = push.files(arguments.folder)
    if arguments.dry_run:
        print("\n".join(f"{size:>14,}  {name}" for name, size in listed))
        print(
            f"{sum(size for _, size in listed):>14,}  bytes in {len(listed)} files would go to {arguments.name}"
            f"{', private' if arguments.private else ''}. Nothing was uploaded."
        )
        return
    url = push.push(arguments.folder, arguments.name, private=arguments.private, revision=arguments.revision)
    print(f"Uploaded: {url}")

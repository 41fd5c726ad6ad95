"""Which items of a benchmark are asked: those that a rule can grade, with readable images; or a sample of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from hashlib import sha256

from rich.console import Console
from rich.progress import track

from latent_reason.data.errors import DataError
from latent_reason.data.pictures import ImageFolder, pixel_hash

from . import benchmarks
from .items import EvalItem
from .readers import ImageRef, Source
from .scoring import judge


def chosen_items(
    name: str, source: Source, partial: bool = False, n: int | None = None, seed: int = 0
) -> tuple[dict[str, EvalItem], dict]:
    """The items of a benchmark that are asked, by key, and their entries of the protocol: those that a rule can grade and
    whose images can be decoded, or a sample of about ``n``. Raises as :func:`gradable_items` and
    :func:`readable_items`."""
    items, protocol_entries = gradable_items(name, source, partial)
    if n and n < len(items):
        items = sample_items(items, n, seed)
        protocol_entries["partial"] = "; ".join(
            filter(None, [protocol_entries["partial"], f"{len(items)} drawn by seed {seed}"])
        )
    readable = readable_items(items, source, partial)
    return readable, protocol_entries | {"left_out": counted(source.left_out)}


def gradable_items(name: str, source: Source, partial: bool = False) -> tuple[list[EvalItem], dict]:
    """The items of a benchmark that a rule can grade, and their entries of the protocol.

    An item is left out, and counted by reason, if its row is faulty, if no rule can grade it, or if the rule does not
    accept its own gold answer.

    Raises:
        FileNotFoundError: no file has the expected layout.
        DataError: a file is faulty, every row is, or every row occurs twice.
        ValueError: more rows than published, or fewer without ``partial``.
    """
    module, part = benchmarks.find(name)
    items, published = unique_items(list(module.read(source, part)), source), module.COUNTS[part]
    count = len(items) + source.left_out.total()
    if count > published or (count < published and not partial and items):
        todo = ", or allow fewer with --partial." if count < published else "."
        raise ValueError(
            f"'{source.folder}' has {count} items of {name}, but {published} are published. Copy it again{todo}"
        )
    graded = []
    for item in items:
        if item.checker == "none":
            source.left_out["no rule can grade the answer"] += 1
        elif item.checker != "refusal" and not judge(f"\\boxed{{{item.answer}}}", item).is_right:
            source.left_out[f"the rule '{item.checker}' does not accept the gold answer"] += 1
        else:
            graded.append(item)
    if not graded and source.first_fault:
        raise source.first_fault
    if not graded:
        raise ValueError(f"'{source.folder}' has no item of {name} that a rule can grade. Use another benchmark.")
    protocol_entries = {
        "n_published": published,
        "left_out": counted(source.left_out),
        "remarks": counted(source.remarks),
        "partial": None if count == published else f"{count} of {published} in the folder",
    }
    return graded, protocol_entries


def counted(reasons: Counter[str]) -> str | None:
    """``2: a reason; 1: another``; None if there is none."""
    return "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common()) or None


def unique_items(items: list[EvalItem], source: Source) -> list[EvalItem]:
    """The items with unique ids: the second of an id becomes ``id#2``. Which one is the second does not depend on the
    order of the rows. A row that is repeated is left out. Raises DataError (E13) if all are, as in two copies of a file.
    """
    same_id: dict[str, set[tuple]] = {}
    for item in items:
        same_id.setdefault(item.id, set()).add(_content(item))
    numbers = {id: {content: n for n, content in enumerate(sorted(found), 1)} for id, found in same_id.items()}
    seen: set[tuple] = set()
    repeated: list[str] = []
    out = []
    for item in items:
        content = _content(item)
        if content in seen:
            repeated.append(item.id)
            continue
        seen.add(content)
        if (number := numbers[item.id][content]) > 1:
            id = f"{item.id}#{number}"
            item = replace(item, id=id, cluster=id if item.cluster == item.id else item.cluster)
        out.append(item)
    if repeated and len(repeated) >= len(out):
        what = f"id '{repeated[0]}' is used twice, by the same question. Keep one copy of each file."
        raise DataError("E13", "id", what, str(source.folder))
    if repeated:
        source.left_out["the same row occurs twice"] += len(repeated)
    return out


def _content(item: EvalItem) -> tuple:
    return (item.id, item.question, item.options, item.answer, tuple(ref.name for ref in item.images))


def sample_items(items: list[EvalItem], n: int, seed: int) -> list[EvalItem]:
    """A sample of whole clusters with at least ``n`` items, in the original order."""
    clusters = list(dict.fromkeys(item.cluster for item in items))
    random.Random(seed).shuffle(clusters)
    sizes, chosen, count = Counter(item.cluster for item in items), set(), 0
    for cluster in clusters:
        if count >= n:
            break
        chosen.add(cluster)
        count += sizes[cluster]
    return [item for item in items if item.cluster in chosen]


def readable_items(items: list[EvalItem], source: Source, partial: bool = False) -> dict[str, EvalItem]:
    """Key -> item, for the items whose images lie in the folder and can be decoded; the others are left out and counted.
    A key is the item's id with a hash of its question, options and images.

    Raises:
        DataError: an image is missing, without ``partial``; or no item is left.
    """
    left_out = ("E07", "E08", "E09") if partial else ("E08", "E09")
    faults: dict[tuple[ImageFolder, str], DataError] = {}
    pixels: dict[tuple[ImageFolder, str], str] = {}
    refs = {_key(ref): ref for item in items for ref in item.images}
    for key, ref in track(refs.items(), description="images", transient=Console().is_terminal):
        try:
            pixels[key] = pixel_hash(ref.load())
        except DataError as error:
            if error.code not in left_out:
                raise
            faults[key] = error
    readable = {}
    for item in items:
        if fault := next((faults[_key(ref)] for ref in item.images if _key(ref) in faults), None):
            source.leave_out(fault)
            continue
        content = [item.id, item.question, item.options, item.answer, [pixels[_key(ref)] for ref in item.images]]
        readable[f"{item.id} {sha256(json.dumps(content).encode()).hexdigest()[:16]}"] = item
    if not readable:
        raise next(iter(faults.values()))
    return readable


def _key(ref: ImageRef) -> tuple[ImageFolder, str]:
    return ref.folder, ref.name

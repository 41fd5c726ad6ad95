"""Processes of one launch encode examples together: each encodes its share, and all read all.

Examples go through files in the folder of the run, which are mapped into memory and removed at once. So processes of one
machine share one copy of the features. Files hold JSON and tensors; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from PIL import Image as PILImage
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed import PrefixStore, Store, rendezvous

from latent_reason.model.processor import CachedFeatures, EncodedExample

LONGEST_WAIT = timedelta(days=1)  # of a process for the others, whose shares may take longer to encode
IMAGES, FEATURES = ("images", "sketches"), ("image_features", "sketch_features")
T = TypeVar("T")
NAME = ".examples"  # of the folder
PLAIN = [f.name for f in fields(EncodedExample) if f.name not in (*IMAGES, *FEATURES, "teacher_example")]


class Peers:
    """The processes that torchrun started, before they have a process group: ``rank`` of ``world``. They exchange small
    values by a store, and examples by files in a folder. Without a store: one process alone."""

    def __init__(self, store: Store | None = None, rank: int = 0, world: int = 1, folder: Path | None = None):
        self.store, self.rank, self.world, self.folder = store, rank, world, folder
        self._numbers = count()

    @classmethod
    def of_launch(cls, folder: Path) -> Peers:
        """The processes of this launch, which train into a folder."""
        if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "LOCAL_WORLD_SIZE" not in os.environ:
            return cls()
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # of an earlier one, values and files may be left
        store, rank, world = next(rendezvous("env://"))
        return cls(PrefixStore(f"examples of {folder}, {attempt}", store), rank, world, folder / NAME / attempt)

    def next_number(self) -> int:
        """A number that no process has had, and all get."""
        return next(self._numbers)

    def exchange(self, value: Any) -> list[Any]:
        """The values (JSON) of all processes, by rank. Every process must call it."""
        if self.store is None:
            return [value]
        number = self.next_number()
        self.store.set(f"{number}/{self.rank}", json.dumps(value))
        self.store.wait([f"{number}/{rank}" for rank in range(self.world)], LONGEST_WAIT)
        return [json.loads(self.store.get(f"{number}/{rank}")) for rank in range(self.world)]

    def together(self, do: Callable[[], T]) -> T:
        """What ``do`` returns. Every process must call it.

        Raises:
            ValueError, OSError: on every process, if ``do`` does so on one.
        """
        if self.store is None:
            return do()
        error, result = None, None
        try:
            result = do()
        except (ValueError, OSError) as caught:
            error = [isinstance(caught, OSError), str(caught)]
        for is_os_error, text in filter(None, self.exchange(error)):
            raise OSError(text) if is_os_error else ValueError(text)
        return cast(T, result)


def share(rows: list[tuple[int, EncodedExample]], peers: Peers) -> list[EncodedExample]:
    """The examples of all processes in the order of their numbers, from ``rows`` (number, example) of each. Every process
    must call it.

    Raises:
        OSError: on every process, if one cannot write its part.
    """
    if peers.folder is None:
        return [row for _, row in rows]
    place = peers.folder / str(peers.next_number())
    peers.together(lambda: make_empty(place) if peers.rank == 0 else None)
    peers.together(lambda: write(rows, place / str(peers.rank)))
    found = peers.together(lambda: [numbered for rank in range(peers.world) for numbered in read(place / str(rank))])
    if is_one_machine():
        remove(peers)  # what is mapped stays, but a file server would forget it
    return [row for _, row in sorted(found, key=lambda numbered: numbered[0])]


def make_empty(folder: Path) -> None:
    """Make a folder, in place of one that a killed launch left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def is_one_machine() -> bool:
    return os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]


def release(peers: Peers) -> None:
    """Remove the files that several machines share, when all processes have ended. Every process must call it."""
    if peers.folder is not None and not is_one_machine():
        remove(peers)


def remove(peers: Peers) -> None:
    peers.exchange(None)
    if peers.rank == 0:
        shutil.rmtree(peers.folder.parent, ignore_errors=True)


# -- files -------------------------------------------------------------------------------------------------------------
def write(rows: list[tuple[int, EncodedExample]], path: Path) -> None:
    """Write numbered examples as ``path.jsonl`` and ``path.safetensors``."""
    tensors: dict[str, torch.Tensor] = {}
    known: dict[int, Any] = {}  # by id, because an example and its teacher's share features

    def describe(part: CachedFeatures | PILImage.Image | None) -> Any:
        if part is not None and id(part) not in known:
            name = str(len(known))
            if isinstance(part, CachedFeatures):
                tensors[f"{name}.grid"], tensors[f"{name}.features"] = part.grid, part.features
                known[id(part)] = {"tensors": name}
            else:
                tensors[name] = torch.frombuffer(bytearray(part.convert("RGB").tobytes()), dtype=torch.uint8)
                known[id(part)] = {"tensors": name, "size": part.size}
        return known.get(id(part))

    def to_json(row: EncodedExample) -> dict[str, Any]:
        parts = {name: [describe(part) for part in getattr(row, name)] for name in IMAGES}
        parts |= {name: found and [describe(f) for f in found] for name in FEATURES for found in [getattr(row, name)]}
        teacher = row.teacher_example and to_json(row.teacher_example)
        return {name: getattr(row, name) for name in PLAIN} | parts | {"teacher_example": teacher}

    with open(path.with_suffix(".jsonl"), "w", encoding="utf-8") as file:
        for number, row in rows:
            file.write(json.dumps([number, to_json(row)]) + "\n")
    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, path.with_suffix(".safetensors"))
    except SafetensorError as error:  # a full disk
        raise OSError(f"'{path}.safetensors' cannot be written ({error}).") from error


def read(path: Path) -> Iterator[tuple[int, EncodedExample]]:
    """What :func:`write` wrote. Features stay in the file until they are used.

    Raises:
        FileNotFoundError: another machine wrote it to a file system of its own.
    """
    if not path.with_suffix(".safetensors").is_file():
        raise FileNotFoundError(
            f"'{path}.safetensors' of another process is not there. The folder of the run must be on a file system that all "
            "machines share."
        )
    tensors = safe_open(path.with_suffix(".safetensors"), "pt")
    known: dict[str, Any] = {}

    def load(part: dict[str, Any] | None) -> Any:
        if part is None:
            return None
        name = part["tensors"]
        if name not in known and "size" in part:
            pixels = tensors.get_tensor(name).numpy().tobytes()
            known[name] = PILImage.frombytes("RGB", tuple(part["size"]), pixels)
        elif name not in known:
            known[name] = CachedFeatures(tensors.get_tensor(f"{name}.grid"), tensors.get_tensor(f"{name}.features"))
        return known[name]

    def to_row(found: dict[str, Any]) -> EncodedExample:
        teacher = found.pop("teacher_example")
        parts = {name: found[name] and [load(part) for part in found[name]] for name in (*IMAGES, *FEATURES)}
        row = EncodedExample(**found | parts)
        row = replace(
            row,
            spans=[tuple(span) for span in row.spans],
            boxes=[tuple(box) for box in row.boxes],
            document_lengths=[tuple(pair) for pair in row.document_lengths],
        )
        return replace(row, teacher_example=teacher and to_row(teacher))

    with open(path.with_suffix(".jsonl"), encoding="utf-8") as file:
        for line in file:
            number, row = json.loads(line)
            yield number, to_row(row)

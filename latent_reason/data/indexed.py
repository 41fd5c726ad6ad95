"""Native records by number, for training that asks for them in any order. Only their places are kept in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image as PILImage

from ..trace import Trace
from . import native, packed
from .errors import DataError
from .jsonl import BOM, LINE_BYTES, lines
from .pictures import ImageFolder, Limits
from .record import parse
from .rows import Raw, decode_row, register_id


class Place(NamedTuple):
    """Where a record is: the byte where its line begins, or its number in a shard."""

    file: Path
    row: int  # as errors count it
    start: int


class RecordIndex:
    """The first ``most`` records of one split of a folder, packed or not.

    All records are read once without their images and given to ``examine``, which may raise DataError. A record is read
    again, with its images, when its number is asked for.

    Raises:
        DataError: a record is damaged; E25 if there is no record of the split.
        FileNotFoundError: ``folder`` does not exist.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        most: int | None = None,
        examine: Callable[[Trace], None] = lambda trace: None,
        limits: Limits | None = None,
    ):
        self.folder, self.split, self.limits = Path(folder), split, limits
        self._open_shard = cache(packed.open_shard)
        self._image_folder = cache(ImageFolder)
        ids: dict[str, str] = {}
        found: Iterator[Place] = (place for place in self._all_places() if self._examine(place, examine, ids))
        self._places = list(islice(found, most))
        self.has_more = most is not None and next(found, None) is not None
        if not self._places:
            raise DataError("E25", "", f"no record with split {split}. Add some, or name another folder.", str(folder))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Trace:
        place = self._places[index]
        try:
            images = self._image_folder(place.file.parent, self.limits)
            return native.trace_of(decode_row(self._raw(place), place.file, images, lambda kind, sentence: None))
        except DataError as error:
            raise error.at(str(place.file), place.row) from None

    def _all_places(self) -> Iterator[Place]:
        for file in native.list_files(self.folder):
            if error := native.find_fault(file):
                raise error
            if file.suffix in packed.SHARDS:
                yield from (Place(file, number, number) for number in self._open_shard(file, self.limits).order())
                continue
            start = 0
            for row, line in lines(file):
                if line.strip():
                    yield Place(file, row, start)
                start += len(line)  # a line that is too long is an error

    def _raw(self, place: Place) -> Raw:
        if place.file.suffix in packed.SHARDS:
            return self._open_shard(place.file, self.limits).item(place.start)
        with open(place.file, "rb") as handle:
            handle.seek(place.start)
            return Raw(place.row, handle.readline(LINE_BYTES + 1).removeprefix(BOM))

    def _examine(self, place: Place, examine: Callable[[Trace], None], ids: dict[str, str]) -> bool:
        """Check a record without its images; returns whether it is of the split."""

        def warn(kind: str, sentence: str) -> None:
            warnings.warn(f"{place.file}:{place.row}: {sentence}.")

        try:
            images = self._image_folder(place.file.parent, self.limits)
            row = decode_row(self._raw(place), place.file, images, warn)
            trace = parse(row.value, lambda name, field: _BLANK, warn)
            register_id(trace.id, f"{place.file}:{place.row}", ids)
            if trace.split == self.split:
                examine(trace)
        except DataError as error:
            raise error.at(str(place.file), place.row) from None
        return trace.split == self.split


_BLANK = PILImage.new("RGB", (1, 1))

"""Images of a data set: decode them safely, convert them to RGB, and write them.

An image that was read from a plain file keeps the bytes of this file until it is changed, and is written as these.
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..images import ORIENTATION, to_rgb
from .errors import DataError
from .places import Places

FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}  # of Pillow -> the suffix of files
PLAIN_MODES = ("RGB", "L", "1", "P")
CACHED_BYTES = 32 * 2**20  # of decoded images and their files

Warn = Callable[[str, str], None]  # (kind, sentence); each kind is reported once per file


@dataclass(frozen=True)
class Limits:
    """Maximum image size: pixels per side, pixels in total, bytes of the file."""

    side: int = 16_384
    pixels: int = 64_000_000
    bytes: int = 50 * 2**20


class FileInfo(dict):
    """``info`` of an image that was read from a plain file: empty, with the bytes of the file.

    Whatever Pillow makes from the image gets a plain copy of ``info``. So a changed image has no bytes of a file.
    """

    def __init__(self, data: bytes, suffix: str):
        super().__init__()
        self.data, self.suffix = data, suffix


def is_plain(image: Image.Image) -> bool:
    """Whether every program shows the pixels of an opened file as ``to_rgb`` returns them: no turn, alpha, frames or
    colors other than RGB and gray."""
    has_one_frame, is_upright = not getattr(image, "is_animated", False), image.getexif().get(ORIENTATION, 1) == 1
    return image.mode in PLAIN_MODES and has_one_frame and is_upright and not image.has_transparency_data


class ImageFolder:
    """Loads images from one folder, and from folders that a user ``named``. Caches decoded images: they are read-only."""

    def __init__(self, root: str | Path, limits: Limits | None = None, named: Iterable[str | Path] = ()):
        self.limits = limits or Limits()
        self._places = Places(root, named)
        self._cache: OrderedDict[str, Image.Image] = OrderedDict()
        self._bytes = 0

    def load(self, name: str, field: str, warn: Warn) -> Image.Image:
        """Load the image ``name`` of a record's ``field`` as RGB. Raises DataError E07, E08 or E09."""
        image = self._cache.get(name)
        if image is not None:
            self._cache.move_to_end(name)
            return image
        path = self._places.find(name, field)
        try:
            with open(path, "rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                data = handle.read(min(size, self.limits.bytes) + 1)  # no more: the buffer is allocated first
        except OSError as error:
            raise DataError("E09", field, f"'{name}' cannot be read ({error.strerror}). Correct its rights.") from None
        image = decode(data, name, field, warn, self.limits)
        self._cache[name] = image
        self._bytes += _memory_bytes(image)
        while self._bytes > CACHED_BYTES and len(self._cache) > 1:
            self._bytes -= _memory_bytes(self._cache.popitem(last=False)[1])
        return image


def _memory_bytes(image: Image.Image) -> int:
    """About how much memory an RGB image takes: Pillow keeps four bytes a pixel, and about 2,000 for each image."""
    return 4 * image.width * image.height + (len(image.info.data) if isinstance(image.info, FileInfo) else 0) + 2000


def decode(data: bytes, name: str, field: str, warn: Warn, limits: Limits) -> Image.Image:
    """Decode ``data``, which may be cut one byte after the size limit, to RGB. Raises DataError (E09)."""

    def error_of(reason: str, remedy: str = "Replace it.") -> DataError:
        return DataError("E09", field, f"'{name}' {reason}. {remedy}")

    if len(data) > limits.bytes:
        raise error_of(f"is larger than {limits.bytes / 2**20:,.0f} MiB", "Make it smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # warnings about damaged metadata; the size is checked below, before decoding
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=tuple(FORMATS))
            width, height = image.size
            if max(width, height) > limits.side or width * height > limits.pixels:
                raise Image.DecompressionBombError
            animated = getattr(image, "is_animated", False)
            info = FileInfo(data, FORMATS[image.format]) if is_plain(image) else {}
            image = to_rgb(image)
            image.info = info
    except Image.UnidentifiedImageError:
        begins = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[:5])
        content = f"it begins '{begins}'" if data else "it is empty"
        raise error_of(f"is not a readable PNG, JPEG or WebP ({content})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise error_of(
            f"is too large, at most {limits.side:,} pixels a side and {limits.pixels / 1e6:,.0f} megapixels are read",
            "Make it smaller.",
        ) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, zlib.error, struct.error
        raise error_of(f"cannot be decoded ({error})") from error
    if animated:
        warn("animated", f"'{name}' is animated: only its first frame is used")
    return image


def read_picture(path: str | Path, name: str, field: str, warn: Warn, limits: Limits | None = None) -> Image.Image:
    """Read a picture file as RGB. Errors call it ``name``. Raises DataError (E09)."""
    limits = limits or Limits()
    with open(path, "rb") as file:
        data = file.read(limits.bytes + 1)
    return decode(data, name, field, warn, limits)


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the width, height and pixels of an RGB image. It does not depend on the file encoding."""
    return sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


class Png:
    """Encodes images as PNG, with a palette if that is lossless. Equal pixels give equal bytes."""

    def __init__(self) -> None:
        self._index: np.ndarray | None = None  # color -> palette entry, 16 MB, reused

    def __call__(self, image: Image.Image) -> bytes:
        data = BytesIO()
        self._with_palette(image).save(data, format="PNG", compress_level=1)
        return data.getvalue()

    def _with_palette(self, image: Image.Image) -> Image.Image:
        """The image with a palette if it has at most 256 colors, else unchanged."""
        colors = image.getcolors(256)
        if colors is None:
            return image
        if self._index is None:
            self._index = np.zeros(2**24, dtype=np.uint8)
        palette = np.array([(*color, 0) for _, color in sorted(colors)], dtype=np.uint8)  # (P, 4)
        self._index[palette.view("<u4")[:, 0]] = np.arange(len(palette))
        pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<u4") & 0xFFFFFF  # the fourth byte is padding
        small = Image.fromarray(self._index[pixels].reshape(image.height, image.width))
        small.putpalette(palette[:, :3].tobytes())
        return small


def encode(image: Image.Image, png: Png) -> tuple[bytes, str]:
    """The file of an image and its suffix: the plain file that it was read from, else PNG."""
    image = to_rgb(image)
    return (image.info.data, image.info.suffix) if isinstance(image.info, FileInfo) else (png(image), "png")


class PictureStore:
    """Stores images as files in ``img/`` of a new folder, each content once."""

    def __init__(self, folder: Path):
        self.folder, self._png = folder, Png()
        self._names: set[str] = set()

    def add(self, image: Image.Image) -> str:
        """Store ``image`` unless an equal one is stored; returns its path relative to the folder."""
        image = to_rgb(image)
        suffix = image.info.suffix if isinstance(image.info, FileInfo) else "png"
        name = f"img/{pixel_hash(image)[:24]}.{suffix}"
        if name not in self._names:
            if not self._names:
                (self.folder / "img").mkdir()
            self._names.add(name)
            (self.folder / name).write_bytes(encode(image, self._png)[0])
        return name

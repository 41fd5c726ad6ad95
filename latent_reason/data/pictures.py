"""Images of a data set: locate them inside the data folder, decode them safely and convert them to RGB."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..images import to_rgb
from .errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
CACHED_PIXELS = 2**24  # about 64 MB of decoded images

Warn = Callable[[str, str], None]  # (kind, sentence); each kind is reported once per file


@dataclass(frozen=True)
class Limits:
    """Maximum image size: pixels per side, pixels in total, bytes of the file."""

    side: int = 16_384
    pixels: int = 64_000_000
    bytes: int = 50 * 2**20


class ImageFolder:
    """Loads images from one folder and caches decoded ones. Treat the images as read-only."""

    def __init__(self, root: str | Path, limits: Limits | None = None):
        self.root = str(root)
        self.limits = limits or Limits()
        self._real = os.path.realpath(root)
        self._inside = os.path.join(self._real, "")
        self._folders: dict[str, str] = {}
        self._cache: OrderedDict[str, Image.Image] = OrderedDict()
        self._pixels = 0

    def load(self, name: str, field: str, warn: Warn) -> Image.Image:
        """Load the image ``name`` of a record's ``field`` as RGB. Raises DataError E07, E08 or E09."""
        image = self._cache.get(name)
        if image is not None:
            self._cache.move_to_end(name)
            return image
        with open(self._locate(name, field), "rb") as handle:
            data = handle.read(self.limits.bytes + 1)
        image = decode(data, name, field, warn, self.limits)
        self._cache[name] = image
        self._pixels += image.width * image.height
        while self._pixels > CACHED_PIXELS:
            _, old = self._cache.popitem(last=False)
            self._pixels -= old.width * old.height
        return image

    def _locate(self, name: str, field: str) -> str:
        """The real path of an image. Paths outside the root are rejected before disk access, links after it."""
        quoted_name, reason = repr(name if len(name) <= 200 else name[:200] + "..."), ""
        if "\0" in name:
            reason = "contains a NUL character"
        elif "\\" in name:
            reason = "contains a backslash; separate folders with '/'"
        elif name.startswith("/"):
            reason = "is an absolute path"
        elif re.match(r"[A-Za-z]:", name):
            reason = "begins with a drive letter"
        elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
            reason = "looks like a URL; nothing is downloaded"
        if reason:
            raise DataError("E08", field, f"{quoted_name} {reason}. Give a path relative to the data folder.")
        path = posixpath.normpath(name)
        if path == ".." or path.startswith("../"):
            raise DataError("E08", field, f"{quoted_name} leaves the data folder. Move the image inside it.")
        folder, base = posixpath.split(path)
        try:
            real = self._folders.get(folder)
            if real is None:
                real = self._folders[folder] = os.path.realpath(os.path.join(self._real, folder))
            file = os.path.join(real, base)
            kind = os.lstat(file).st_mode
            if stat.S_ISLNK(kind):
                file = os.path.realpath(file)
                kind = os.stat(file).st_mode
        except (OSError, ValueError):
            kind = 0
        if kind and not file.startswith(self._inside):
            raise DataError("E08", field, f"{quoted_name} leaves the data folder by a link. Move the image inside it.")
        if not stat.S_ISREG(kind):
            raise DataError(
                "E07", field, f"{quoted_name} not found under '{self.root}'. Correct the path or give --image-root."
            )
        return file


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
            image = Image.open(BytesIO(data), formats=FORMATS)
            width, height = image.size
            if max(width, height) > limits.side or width * height > limits.pixels:
                raise Image.DecompressionBombError
            animated = getattr(image, "is_animated", False)
            image = to_rgb(image)
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


class PictureStore:
    """Stores images as PNG files in ``img/`` of a new folder, each content once."""

    def __init__(self, folder: Path):
        self.folder, self._png = folder, Png()
        self._names: set[str] = set()

    def add(self, image: Image.Image) -> str:
        """Store ``image`` unless an equal one is stored; returns its path relative to the folder."""
        image = to_rgb(image)
        name = f"img/{pixel_hash(image)[:24]}.png"
        if name not in self._names:
            if not self._names:
                (self.folder / "img").mkdir()
            self._names.add(name)
            (self.folder / name).write_bytes(self._png(image))
        return name

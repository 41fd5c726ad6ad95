"""Images of a data set: found inside its root, decoded safely, turned to plain RGB."""

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
from PIL import Image, ImageOps

from .errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
ORIENTATION = 0x0112  # the EXIF tag
CACHED_PIXELS = 2**24  # some 64 MB of decoded pictures

Warn = Callable[[str, str], None]  # (kind, sentence): a kind is said once a file


@dataclass(frozen=True)
class Limits:
    """How large a picture may be: pixels a side, pixels in all, bytes of its file."""

    side: int = 16_384
    pixels: int = 64_000_000
    bytes: int = 50 * 2**20


def to_rgb(image: Image.Image) -> Image.Image:
    """Frame 0 in RGB: orientation tag applied, alpha laid on white, 16 bits scaled to 8, nothing else attached."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # Pillow would clip
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    elif image.info or type(image) is not Image.Image:
        image = image.copy()
    image.info = {}
    return image


class ImageFolder:
    """The pictures under one root. Each is decoded once while it stays in the cache; treat them as read-only."""

    def __init__(self, root: str | Path, limits: Limits | None = None):
        self.root = str(root)
        self.limits = limits or Limits()
        self._real = os.path.realpath(root)
        self._inside = os.path.join(self._real, "")
        self._folders: dict[str, str] = {}
        self._cache: OrderedDict[str, Image.Image] = OrderedDict()
        self._pixels = 0

    def load(self, name: str, field: str, warn: Warn) -> Image.Image:
        """The RGB picture that a record calls ``name`` in ``field``. Raises DataError E07, E08 or E09."""
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
        """The real path. What leaves the root is refused before the disk is asked, and links once more after."""
        shown, wrong = repr(name if len(name) <= 200 else name[:200] + "..."), ""
        if "\0" in name:
            wrong = "holds a NUL character"
        elif "\\" in name:
            wrong = "holds a backslash; folders are parted by '/'"
        elif name.startswith("/"):
            wrong = "is an absolute path"
        elif re.match(r"[A-Za-z]:", name):
            wrong = "begins with a drive letter"
        elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
            wrong = "looks like a URL; nothing is downloaded"
        if wrong:
            raise DataError("E08", field, f"{shown} {wrong}. Give a path relative to the data folder.")
        path = posixpath.normpath(name)
        if path == ".." or path.startswith("../"):
            raise DataError("E08", field, f"{shown} leaves the data folder. Move the picture inside it.")
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
            raise DataError("E08", field, f"{shown} leaves the data folder by a link. Move the picture inside it.")
        if not stat.S_ISREG(kind):
            raise DataError(
                "E07", field, f"{shown} not found under '{self.root}'. Correct the path or give --image-root."
            )
        return file


def decode(data: bytes, name: str, field: str, warn: Warn, limits: Limits) -> Image.Image:
    """The RGB picture in ``data``, of which one byte past the limit is enough. Raises DataError (E09)."""

    def refuse(why: str, todo: str = "Replace it.") -> DataError:
        return DataError("E09", field, f"'{name}' {why}. {todo}")

    if len(data) > limits.bytes:
        raise refuse(f"is larger than {limits.bytes / 2**20:,.0f} MiB", "Make it smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata; the size is judged below, before decoding
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=FORMATS)
            width, height = image.size
            if max(width, height) > limits.side or width * height > limits.pixels:
                raise Image.DecompressionBombError
            animated = getattr(image, "is_animated", False)
            image = to_rgb(image)
    except Image.UnidentifiedImageError:
        begins = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[:5])
        found = f"it begins '{begins}'" if data else "it is empty"
        raise refuse(f"is not a readable PNG, JPEG or WebP ({found})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise refuse(
            f"is too large, at most {limits.side:,} pixels a side and {limits.pixels / 1e6:,.0f} megapixels are read",
            "Make it smaller.",
        ) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, zlib.error, struct.error
        raise refuse(f"cannot be decoded ({error})") from error
    if animated:
        warn("animated", f"'{name}' is animated: only its first frame is used")
    return image


def pixel_hash(image: Image.Image) -> str:
    """The SHA-256 of an RGB picture's width, height and pixels: two files of the same pixels have the same."""
    return sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


class Png:
    """Images as bytes of PNG files, with a palette where that loses nothing. The same pixels give the same bytes."""

    def __init__(self) -> None:
        self._index: np.ndarray | None = None  # colour -> palette entry, 16 MB, reused

    def __call__(self, image: Image.Image) -> bytes:
        data = BytesIO()
        self._small(image).save(data, format="PNG", compress_level=1)
        return data.getvalue()

    def _small(self, image: Image.Image) -> Image.Image:
        """With a palette if that loses nothing."""
        colours = image.getcolors(256)
        if colours is None:
            return image
        if self._index is None:
            self._index = np.zeros(2**24, dtype=np.uint8)
        palette = np.array([(*colour, 0) for _, colour in sorted(colours)], dtype=np.uint8)  # (P, 4)
        self._index[palette.view("<u4")[:, 0]] = np.arange(len(palette))
        pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<u4") & 0xFFFFFF  # the fourth byte is padding
        small = Image.fromarray(self._index[pixels].reshape(image.height, image.width))
        small.putpalette(palette[:, :3].tobytes())
        return small


class PictureStore:
    """The pictures of a folder that is being written: PNG in ``img/``, each content once."""

    def __init__(self, folder: Path):
        self.folder, self._names, self._png = folder, set(), Png()

    def add(self, image: Image.Image) -> str:
        """Stores ``image`` unless its pixels are there already; returns its path in the folder."""
        image = to_rgb(image)
        name = f"img/{pixel_hash(image)[:24]}.png"
        if name not in self._names:
            if not self._names:
                (self.folder / "img").mkdir()
            self._names.add(name)
            (self.folder / name).write_bytes(self._png(image))
        return name

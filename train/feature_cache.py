"""Features of frozen vision encoders, so that no training image is encoded twice: in memory, and on disk for later runs.

The disk cache is the folder ``latent_reason_features`` in the folder that ``data.cache`` of a recipe names. It holds
safetensors shards, one folder for each encoder and precision. A tensor is named by the hash of its image's pixels, a
folder by the hash of everything that decides the features (weights, processor settings, the target's own encoding), a
shard by the hash of its bytes. So nothing outdated is ever found, and a damaged shard is noticed. Files with other
names, and links, are neither read nor counted nor removed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import file_digest, sha256
from pathlib import Path

import torch
from PIL import Image as PILImage
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from latent_reason.data.pictures import pixel_hash
from latent_reason.files import atomic_write_bytes, atomic_write_json
from latent_reason.locks import open_locked
from latent_reason.model.processor import CachedFeatures, EncodedExample
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.model.targets import LatentTarget, VisionTokens

SHARD_BYTES = 64 * 2**20
ENCODER_BATCH = 64  # images of one pass of the vision encoder
STALE_SECONDS = 3600  # age from which an unfinished shard is removed
OWN_FOLDER, MARKER, LOCK = "latent_reason_features", "features.json", "lock"
ENCODER_NAME = re.compile(r"[0-9a-f]{32}-(float16|bfloat16)")
SHARD_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
UNFINISHED_NAME = re.compile(r"\.[0-9a-f]{32}\.safetensors\.[0-9a-f]{8}\.unfinished")


@torch.no_grad()
def with_features(
    rows: list[EncodedExample], reasoner: LatentReasoner, cache: DiskCache | None = None
) -> list[EncodedExample]:
    """New examples that hold features of frozen encoders in place of images and sketches. Examples that hold features
    already are returned as they are."""
    missing = [row for row in rows if row.image_features is None]
    images = _encode(reasoner, "images", [image for row in missing for image in row.images], cache)
    sketches = _encode(reasoner, "sketches", [s for row in missing for s in row.sketches if s is not None], cache)
    new = {id(row): _with_features(row, images, sketches) for row in missing}
    teachers = [row.teacher_example for row in missing if row.teacher_example is not None]
    teachers = dict(zip(map(id, teachers), with_features(teachers, reasoner, cache), strict=True)) if teachers else {}
    for row in missing:
        if row.teacher_example is not None:
            new[id(row)] = replace(new[id(row)], teacher_example=teachers[id(row.teacher_example)])
    return [new.get(id(row), row) for row in rows]


def _with_features(row: EncodedExample, images: dict, sketches: dict) -> EncodedExample:
    return replace(
        row,
        images=[],
        sketches=[],
        image_features=[images[id(image)] for image in row.images],
        sketch_features=[None if sketch is None else sketches[id(sketch)] for sketch in row.sketches],
    )


def _encode(
    reasoner: LatentReasoner, kind: str, images: list[PILImage.Image], cache: DiskCache | None
) -> dict[int, CachedFeatures]:
    """id of an image -> its features; ``kind`` is ``images`` or ``sketches``."""
    backbone, target = reasoner.backbone, reasoner.target
    preprocess: Callable = backbone.preprocess_images
    encode: Callable = backbone.image_embeddings
    if kind == "sketches":
        preprocess = reasoner.processor.preprocess_sketches
        encode = backbone.encode_images if target is None else target.encode_images
    unique = list({id(image): image for image in images}.values())
    found = {} if cache is None else cache.get(reasoner, kind, unique)
    left = [image for image in unique if id(image) not in found]
    dtype = torch.half if cache is None else cache.dtype
    for start in range(0, len(left), ENCODER_BATCH):
        some = left[start : start + ENCODER_BATCH]
        batch = preprocess(some)
        for image, grid, features in zip(some, batch.grid, encode(batch.to(reasoner.device)), strict=True):
            found[id(image)] = CachedFeatures(grid, features.to(dtype).cpu())
            if cache is not None:
                cache.put(reasoner, kind, image, found[id(image)])
    return found


def feature_bytes(row: EncodedExample) -> int:
    """Bytes of the cached features of an example, those of its teacher's example included."""
    own = [f for f in [*(row.image_features or ()), *(row.sketch_features or ())] if f is not None]
    teacher = feature_bytes(row.teacher_example) if row.teacher_example is not None else 0
    return sum(f.features.nbytes for f in own) + teacher


# -- on disk -----------------------------------------------------------------------------------------------------------
def encoder_hash(reasoner: LatentReasoner, kind: str) -> str:
    """Hash of everything that decides the features of ``images`` or ``sketches``: weights and their dtype, settings of
    the image processor, and the target's own encoding where it has one."""
    backbone, target = reasoner.backbone, reasoner.target
    config = backbone.model.config
    parts = [
        type(backbone).__name__,
        getattr(config, "vision_config", config).to_json_string(use_diff=False),
        json.dumps(backbone.image_processor.to_dict(), sort_keys=True, default=str),
    ]
    tensors = list(backbone.vision_parameters)
    if kind == "sketches" and target is not None and has_own_encoding(target):
        parts += [type(target).__name__, json.dumps(reasoner.method.options, sort_keys=True, default=str)]
        if (encoder := getattr(target, "encoder", None)) is not None:
            parts.append(json.dumps(encoder.processor.to_dict(), sort_keys=True, default=str))
            tensors += encoder.model.parameters()
    found = sha256("\0".join([kind, *parts]).encode())
    for tensor in tensors:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:32]


def has_own_encoding(target: LatentTarget) -> bool:
    """Whether a target encodes sketches otherwise than the backbone does."""
    if not isinstance(target, VisionTokens):
        return True
    return target.resize_input or type(target).encode_images is not VisionTokens.encode_images


def open_cache_folder(folder: str | Path) -> Path:
    """The folder of the cache in ``folder``. It and its marker, a JSON file that says what it is, are written if missing.

    Raises:
        ValueError: it is a link, or holds files of something else.
        OSError: it cannot be written.
    """
    own = Path(folder) / OWN_FOLDER
    if own.is_symlink():
        raise ValueError(f"'{own}' is a link, which a cache does not follow. Name the folder itself in data.cache.")
    own.mkdir(parents=True, exist_ok=True)
    foreign = [path for path in own.iterdir() if not path.name.startswith(f".{MARKER}.")]  # another process writes it
    if foreign and not (own / MARKER).is_file():
        raise ValueError(
            f"'{own}' is not a cache of features: it holds '{foreign[0].name}', but no {MARKER}. Name another data.cache."
        )
    if not (own / MARKER).is_file():
        about = "Features of frozen vision encoders (data.cache). This folder can be deleted; it is made again."
        atomic_write_json(own / MARKER, {"format": 1, "about": about})
    return own


class DiskCache:
    """Shards in ``folder``, of at most ``max_bytes`` together, of tensors in ``dtype``. Several processes may share one.

    If there is no room, shards of other encoders are removed, the least recently used first. What then does not fit is
    not stored. ``warn`` gets messages for a person. ``hits`` and ``misses`` count images. Errors: open_cache_folder.
    """

    def __init__(self, folder: str | Path, max_bytes: float, warn: Callable[[str], None], dtype: str = "bfloat16"):
        self.folder, self.max_bytes, self.warn = open_cache_folder(folder), max_bytes, warn
        self.dtype = getattr(torch, dtype)
        self.hits, self.misses, self._bytes, self._full = 0, 0, 0, False
        self._encoders: dict[str, str] = {}  # images, sketches -> hash
        self._index: dict[str, dict[str, Path]] = {}  # encoder -> image -> shard
        self._open: dict[Path, safe_open] = {}
        self._waiting: dict[str, dict[str, CachedFeatures]] = {}  # encoder -> image -> what is to be written

    def get(self, reasoner: LatentReasoner, kind: str, images: list[PILImage.Image]) -> dict[int, CachedFeatures]:
        """id of an image -> its features, for images that are stored."""
        if not images:
            return {}
        encoder, found = self._encoder(reasoner, kind), {}
        for image in images:
            features = self._get(encoder, _key(image))
            if features is not None:
                found[id(image)] = features
        self.hits, self.misses = self.hits + len(found), self.misses + len(images) - len(found)
        return found

    def put(self, reasoner: LatentReasoner, kind: str, image: PILImage.Image, features: CachedFeatures) -> None:
        """Store the features of an image; other processes find them after the next :meth:`flush`."""
        self._waiting.setdefault(self._encoder(reasoner, kind), {})[_key(image)] = features
        self._bytes += features.features.nbytes
        if self._bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits, one shard for each encoder."""
        for encoder, waiting in self._waiting.items():
            if not waiting or self._full:
                continue
            tensors = {}
            for key, cached in sorted(waiting.items()):
                tensors |= {f"grid.{key}": cached.grid.contiguous(), f"tokens.{key}": cached.features.contiguous()}
            data = save(tensors)
            file = self.folder / encoder / f"{sha256(data).hexdigest()[:32]}.safetensors"
            # Processes that write at once would exceed max_bytes together.
            with open_locked(open_cache_folder(self.folder.parent) / LOCK, wait=True):
                if self._make_room(len(data)):
                    atomic_write_bytes(file, data)
                    self._index.setdefault(encoder, {}).update(dict.fromkeys(waiting, file))
                    continue
            self._full = True
            self.warn(
                f"features of the frozen vision encoder fill {self.max_bytes / 2**30:g} GB in '{self.folder}' "
                "(data.cache_gb). No more are stored there."
            )
        self._waiting, self._bytes = {}, 0

    def _encoder(self, reasoner: LatentReasoner, kind: str) -> str:
        if not self._encoders:
            dtype = str(self.dtype).removeprefix("torch.")
            self._encoders = {name: f"{encoder_hash(reasoner, name)}-{dtype}" for name in ("images", "sketches")}
            for path in (self.folder / name for name in self._encoders.values()):
                if path.is_symlink():
                    raise ValueError(f"'{path}' is a link, which a cache does not follow. Remove the link.")
        return self._encoders[kind]

    def _get(self, encoder: str, key: str) -> CachedFeatures | None:
        if (waiting := self._waiting.get(encoder, {}).get(key)) is not None:
            return waiting
        if encoder not in self._index:
            self._index[encoder] = self._list(encoder)
        file = self._index[encoder].get(key)
        if file is None:
            return None
        try:
            shard = self._shard(file)
            return CachedFeatures(shard.get_tensor(f"grid.{key}"), shard.get_tensor(f"tokens.{key}"))
        except FileNotFoundError:  # another process needed the room
            self._forget(encoder, file)
            return None
        except (SafetensorError, ValueError):
            self._remove_damaged(encoder, file)
            return None

    def _list(self, encoder: str) -> dict[str, Path]:
        """Image -> shard, for all shards of an encoder."""
        found: dict[str, Path] = {}
        for file in sorted(own_files(self.folder, SHARD_NAME, re.compile(re.escape(encoder)))):
            try:
                with safe_open(file, "pt") as shard:
                    found |= {name.removeprefix("tokens."): file for name in shard.keys() if name.startswith("tokens.")}
            except FileNotFoundError:
                continue
            except SafetensorError:
                self._remove_damaged(encoder, file)
        return found

    def _shard(self, file: Path) -> safe_open:
        """A shard, opened after a check against the hash in its name. Raises ValueError if it differs."""
        if file not in self._open:
            with open(file, "rb") as handle:
                if file_digest(handle, "sha256").hexdigest()[:32] != file.stem:
                    raise ValueError(file)
            os.utime(file)
            self._open[file] = safe_open(file, "pt")
        return self._open[file]

    def _forget(self, encoder: str, file: Path) -> None:
        self._open.pop(file, None)
        self._index[encoder] = {key: f for key, f in self._index.get(encoder, {}).items() if f != file}

    def _remove_damaged(self, encoder: str, file: Path) -> None:
        self.warn(f"'{file}' is damaged. It is removed, and its images are encoded again.")
        file.unlink(missing_ok=True)
        self._forget(encoder, file)

    def _make_room(self, needed: int) -> bool:
        """Whether so many bytes may be written, after shards of other encoders were removed if necessary."""
        for file in own_files(self.folder, UNFINISHED_NAME):
            if file.exists() and time.time() - file.stat().st_mtime > STALE_SECONDS:  # of a process that was killed
                file.unlink(missing_ok=True)
        sizes = {}
        for file in own_files(self.folder, SHARD_NAME):
            try:
                sizes[file] = file.stat()
            except FileNotFoundError:
                continue
        own, used = set(self._encoders.values()), sum(s.st_size for s in sizes.values())
        others = sorted((file for file in sizes if file.parent.name not in own), key=lambda file: sizes[file].st_mtime)
        fits = used - sum(sizes[file].st_size for file in others) + needed <= self.max_bytes
        while fits and used + needed > self.max_bytes:
            file = others.pop(0)
            file.unlink(missing_ok=True)
            used -= sizes[file].st_size
        return fits


def own_files(folder: Path, name: re.Pattern, encoder: re.Pattern = ENCODER_NAME) -> list[Path]:
    """The plain files of that name in the folders of encoders. Links are left out."""
    places = [p for p in folder.glob("*") if encoder.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]
    files = [file for place in places for file in place.iterdir() if name.fullmatch(file.name)]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def _key(image: PILImage.Image) -> str:
    return pixel_hash(image)[:32]

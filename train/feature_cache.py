"""What frozen eyes see of training pictures, so that nothing is looked at twice: in memory, and on disk for later runs.

The disk cache (``data.cache`` of a recipe) holds safetensors shards, a folder an encoder and precision. A tensor's name
is the hash of its picture's pixels, a folder's that of all that decides what is seen (weights, processor settings, how
a target looks), a shard's that of its bytes: nothing stale is ever found, and a damaged shard is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from latent_reason.data.pictures import pixel_hash
from latent_reason.files import atomic_write_bytes
from latent_reason.model.batch import MixedBatch, ImageBatch, collate
from latent_reason.model.targets import VisionTokens
from latent_reason.model.processor import EncodedExample

SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Seen:
    """A picture a frozen eye has already looked at: patch grid (3,) and tokens (T, D) in half precision."""

    grid: torch.Tensor
    tokens: torch.Tensor


def look(pictures: list[Seen]) -> ImageBatch:
    """ImageBatch already seen, as a batch takes them."""
    return ImageBatch(torch.stack([p.grid for p in pictures]), features=[p.tokens.float() for p in pictures])


@torch.no_grad()
def see(rows: list[EncodedExample], reasoner, at_once: int = 64, cache: SeenCache | None = None) -> None:
    """Replace the pictures of rows by what frozen eyes make of them, so that nothing is looked at twice."""
    backbone, target = reasoner.backbone, reasoner.target
    told = [row.teacher_example for row in rows if row.teacher_example is not None]
    eyes = {
        "images": (backbone.preprocess_images, backbone.image_embeddings),
        "sketches": (reasoner.look, backbone.encode_images if target is None else partial(target.see, backbone)),
    }
    for name, (look, look_closely) in eyes.items():
        homes = [
            (getattr(row, name), i)
            for row in rows + told
            for i, picture in enumerate(getattr(row, name))
            if picture is not None and not isinstance(picture, Seen)
        ]
        if cache is not None and homes:
            homes = cache.filled(reasoner, name, homes)
        for start in range(0, len(homes), at_once):
            some = homes[start : start + at_once]
            looked = look([pictures[i] for pictures, i in some])
            tokens = look_closely(looked.to(backbone.model.device))
            for (pictures, i), g, t in zip(some, looked.grid, tokens, strict=True):
                seen = Seen(g, t.to(torch.half if cache is None else cache.dtype).cpu())
                if cache is not None:
                    cache.put(reasoner, name, pictures[i], seen)
                pictures[i] = seen


def together(rows: list[EncodedExample], reasoner) -> MixedBatch:
    """Encoded rows as a batch on the device of a reasoner, whether or not their pictures have been seen."""
    seen = any(isinstance(picture, Seen) for row in rows for picture in row.images + row.sketches)
    looks = [look, look] if seen else [reasoner.backbone.preprocess_images, reasoner.look]
    return collate(rows, reasoner.vocabulary.pad, *looks).to(reasoner.device)


def seen_of(row: EncodedExample) -> list[Seen]:
    """What was seen of a row's pictures and sketches, and of those of its teacher's."""
    own = [p for p in row.images + row.sketches if p is not None]
    return own + (seen_of(row.teacher_example) if row.teacher_example is not None else [])


# -- on disk -----------------------------------------------------------------------------------------------------------
def encoder_hash(reasoner, name: str) -> str:
    """Of all that decides what is seen of ``images`` or ``sketches``: weights and their dtype, settings of the picture
    processor, and how the target looks where it does so in a way of its own."""
    backbone, target = reasoner.backbone, reasoner.target
    config = backbone.model.config
    parts = [
        type(backbone).__name__,
        getattr(config, "vision_config", config).to_json_string(use_diff=False),
        json.dumps(backbone.image_processor.to_dict(), sort_keys=True, default=str),
    ]
    tensors, own = (
        list(backbone.vision_parameters),
        name == "sketches"
        and target is not None
        and (target.shrink or type(target).look is not VisionTokens.look or type(target).see is not VisionTokens.see),
    )
    if own:
        parts += [type(target).__name__, json.dumps(reasoner.method.options, sort_keys=True, default=str)]
        if (encoder := getattr(target, "encoder", None)) is not None:
            parts.append(json.dumps(encoder.processor.to_dict(), sort_keys=True, default=str))
            tensors += encoder.model.parameters()
    found = sha256("\0".join([name, *parts]).encode())
    for tensor in tensors:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:32]


class SeenCache:
    """Shards below ``folder``, of at most ``most`` bytes together, of tensors in ``dtype``. Several processes may share
    one.

    Where there is no room, shards of other encoders go, those first that were not used for longest; what then does not
    fit is not kept. ``say`` hears what a person should know. ``hits`` and ``misses`` count pictures.
    """

    def __init__(self, folder: str | Path, most: float, say: Callable[[str], None], dtype: str = "bfloat16"):
        self.folder, self.most, self.say, self.dtype = Path(folder), most, say, getattr(torch, dtype)
        self.hits, self.misses, self._bytes, self._full = 0, 0, 0, False
        self._encoders: dict[str, str] = {}  # images, sketches -> hash
        self._index: dict[str, dict[str, Path]] = {}  # encoder -> picture -> shard
        self._open: dict[Path, safe_open] = {}
        self._waiting: dict[str, dict[str, Seen]] = {}  # encoder -> picture -> what is to be written

    def filled(self, reasoner, name: str, homes: list[tuple[list, int]]) -> list[tuple[list, int]]:
        """Puts what is known in the place of pictures; returns the places of the others."""
        encoder, left = self._encoder(reasoner, name), []
        for pictures, i in homes:
            seen = self._get(encoder, _key(pictures[i]))
            if seen is None:
                left.append((pictures, i))
            else:
                pictures[i] = seen
        self.hits, self.misses = self.hits + len(homes) - len(left), self.misses + len(left)
        return left

    def put(self, reasoner, name: str, picture, seen: Seen) -> None:
        """Keeps what was seen of a picture, from the next :meth:`flush` on for others too."""
        self._waiting.setdefault(self._encoder(reasoner, name), {})[_key(picture)] = seen
        self._bytes += seen.tokens.nbytes
        if self._bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what waits, a shard an encoder."""
        for encoder, waiting in self._waiting.items():
            if not waiting or self._full:
                continue
            data = save(
                {
                    f"{part}.{key}": getattr(seen, part).contiguous()
                    for key, seen in sorted(waiting.items())
                    for part in ("grid", "tokens")
                }
            )
            if not self._room(len(data)):
                self._full = True
                self.say(
                    f"What the frozen eye saw fills {self.most / 2**30:g} GB in '{self.folder}' (data.cache_gb): "
                    "no more is kept there."
                )
                continue
            file = self.folder / encoder / f"{sha256(data).hexdigest()[:32]}.safetensors"
            atomic_write_bytes(file, data)
            self._index.setdefault(encoder, {}).update(dict.fromkeys(waiting, file))
        self._waiting, self._bytes = {}, 0

    def _encoder(self, reasoner, name: str) -> str:
        if not self._encoders:
            kind = str(self.dtype).removeprefix("torch.")
            self._encoders = {one: f"{encoder_hash(reasoner, one)}-{kind}" for one in ("images", "sketches")}
        return self._encoders[name]

    def _get(self, encoder: str, key: str) -> Seen | None:
        if (seen := self._waiting.get(encoder, {}).get(key)) is not None:
            return seen
        if encoder not in self._index:
            self._index[encoder] = self._listed(encoder)
        file = self._index[encoder].get(key)
        if file is None:
            return None
        try:
            shard = self._shard(file)
            seen = Seen(shard.get_tensor(f"grid.{key}"), shard.get_tensor(f"tokens.{key}"))
        except FileNotFoundError:  # another process needed the room
            self._forget(encoder, file)
            return None
        except (SafetensorError, ValueError):
            self._damaged(encoder, file)
            return None
        return seen

    def _listed(self, encoder: str) -> dict[str, Path]:
        """Picture -> shard, of the shards that are there."""
        found: dict[str, Path] = {}
        for file in sorted((self.folder / encoder).glob("*.safetensors")):
            try:
                with safe_open(file, "pt") as shard:
                    found |= {name.removeprefix("tokens."): file for name in shard.keys() if name.startswith("tokens.")}
            except FileNotFoundError:
                continue
            except SafetensorError:
                self._damaged(encoder, file)
        return found

    def _shard(self, file: Path):
        """A shard, opened after it was compared with the hash it is named by. Raises ValueError where it differs."""
        if file not in self._open:
            with open(file, "rb") as handle:
                if file_digest(handle, "sha256").hexdigest()[:32] != file.stem:
                    raise ValueError(file)
            os.utime(file)
            self._open[file] = safe_open(file, "pt")
        return self._open[file]

    def _forget(self, encoder: str, file: Path) -> None:
        self._open.pop(file, None)
        self._index[encoder] = {key: one for key, one in self._index.get(encoder, {}).items() if one != file}

    def _damaged(self, encoder: str, file: Path) -> None:
        self.say(f"'{file}' is damaged. It is removed, and the pictures in it are looked at again.")
        file.unlink(missing_ok=True)
        self._forget(encoder, file)

    def _room(self, needed: int) -> bool:
        """Whether so many bytes may be written, after shards of other encoders have made room."""
        sizes = {}
        for file in self.folder.glob("*/*.safetensors"):
            try:
                sizes[file] = file.stat()
            except FileNotFoundError:
                continue
        own, used = set(self._encoders.values()), sum(one.st_size for one in sizes.values())
        others = sorted((file for file in sizes if file.parent.name not in own), key=lambda file: sizes[file].st_mtime)
        fits = used - sum(sizes[file].st_size for file in others) + needed <= self.most
        while fits and used + needed > self.most:
            file = others.pop(0)
            file.unlink(missing_ok=True)
            used -= sizes[file].st_size
        return fits


def _key(picture) -> str:
    return pixel_hash(picture if picture.mode == "RGB" else picture.convert("RGB"))[:32]

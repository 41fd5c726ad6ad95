"""Rendering and parsing of FrozenLake images.

A cell is a 64x64 tile that depends on its letter and on the elf, so a board consists of 20 different tiles. The skin
``sprites`` equals the images of VSP and Mirage byte for byte. Its nine sprites (MIT, Copyright OpenAI 2016, Farama
Foundation 2022) are read from the installed gymnasium 0.29.1, which is not imported. The skin ``drawn`` has no
dependency.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .item import Parsed

TILE = 64
KINDS = "SFHG"
FACINGS = "UDLR"
WAYS = 1 + len(FACINGS)  # tiles per letter: one without the elf, then one per direction
OUTLINE = (180, 200, 230)
COARSE = 8  # cell size in pixels for parsing; a small one tolerates blur and noise
BLURS = (0, 4, 8)  # blur radii of the templates in pixels
UNREADABLE = 72.0  # largest mean absolute difference between a cell and the nearest tile

SPRITES = {
    "ice": "bfb1f584ffcfadd12360a1999d2fb0c10bac32c9a27dc5a29ed08bac103ebcfb",
    "hole": "21439be29a447bb31b7d0f659de6670ce10937112e2df4e6402aacbe861384b2",
    "cracked_hole": "b3485ed40a21f9491bc9c9890b39d3212855d7a18b4a1b6ebad1406bf887250a",
    "goal": "38af8e6f3cb5ef78b96343b232d073bdf10fb7c729cc3167ba6c493cf0799b2c",
    "stool": "1b4d1f4e99198703bcbac812c1a4a2d1c17c5f14726b3c675f84dd881ca9d8f7",
    "elf_up": "42f31f20af62cc160379a4acddc1119841007a805874a323e1f378ac8973dc0f",
    "elf_down": "525ef7ebc75101f104a0501f8c03b76cea3e285bd7a764ac55d95dfe3e941702",
    "elf_left": "3b080a70cdd8afcbca7907a05b1f5c52018e65a5f445f5c21902d3ac4fceae3a",
    "elf_right": "39498b6304b9fb41a8d5876388c83c9caa82f05bb80203eb742baa920db03792",
}
ELVES = ("elf_up", "elf_down", "elf_left", "elf_right")  # in the order of FACINGS
INSTALL = "The sprites need gymnasium 0.29.1: pip install --no-deps gymnasium==0.29.1 (or use skin='drawn')"


class SpritesMissing(RuntimeError):
    """The pinned sprites are not installed."""


@cache
def _sprites() -> dict[str, np.ndarray]:
    try:
        package = metadata.distribution("gymnasium")
    except metadata.PackageNotFoundError:
        raise SpritesMissing(f"gymnasium is not installed. {INSTALL}") from None
    if package.version != "0.29.1":
        raise SpritesMissing(f"gymnasium {package.version} has other sprites. {INSTALL}")
    sprites = {}
    for name, digest in SPRITES.items():
        path = Path(str(package.locate_file(f"gymnasium/envs/toy_text/img/{name}.png")))
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise SpritesMissing(f"{name}.png is missing or changed. {INSTALL}")
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), np.int32)
        sprites[name] = pixels.repeat(2, 0).repeat(2, 1)
    return sprites


def _blit(under: np.ndarray, sprite: np.ndarray) -> np.ndarray:
    """SDL's integer alpha blending. Pillow's ``alpha_composite`` differs by 1 in a few pixels."""
    colour, alpha = sprite[..., :3], sprite[..., 3:]
    return np.where(alpha == 0, under, under + ((colour - under) * alpha + colour >> 8))


def _outline(tile: np.ndarray) -> np.ndarray:
    tile[[0, -1]] = tile[:, [0, -1]] = OUTLINE
    return tile


def _sprite_tiles() -> list[np.ndarray]:
    sprites, tiles = _sprites(), []
    for thing in ("stool", None, "hole", "goal"):  # in the order of KINDS
        tile = sprites["ice"][..., :3]
        tile = _outline(_blit(tile, sprites[thing]) if thing else tile.copy())
        tiles.append(tile)
        tiles += [_blit(tile, sprites["cracked_hole" if thing == "hole" else elf]) for elf in ELVES]
    return tiles


def _drawn_tiles() -> list[np.ndarray]:
    """Flat shapes in distinct colors: yellow frame (start), black disc (hole), green square (goal), red arrow (elf)."""
    y, x = np.mgrid[:TILE, :TILE] - TILE // 2
    max_norm, disc = np.maximum(abs(x), abs(y)), x * x + y * y
    shapes = {
        "S": ((max_norm < 28) & (max_norm >= 22), (235, 200, 40)),
        "H": (disc < 24 * 24, (0, 0, 0)),
        "G": (max_norm < 26, (40, 160, 60)),
    }
    up = (abs(x) * 2 < y + 18) & (y < 16)
    cross = (abs(abs(x) - abs(y)) < 5) & (disc < 24 * 24)  # broken ice
    darts = (up, up[::-1], up.T, up.T[:, ::-1])  # in the order of FACINGS
    tiles = []
    for kind in KINDS:
        tile = np.full((TILE, TILE, 3), 255, np.int32)
        if kind in shapes:
            mask, colour = shapes[kind]
            tile[mask] = colour
        tile[max_norm >= TILE // 2 - 1] = (128, 128, 128)
        tiles.append(tile)
        for dart in darts:
            over = tile.copy()
            if kind == "H":
                over[cross] = 255
            else:
                over[dart] = (220, 40, 40)
            tiles.append(over)
    return tiles


@cache
def tiles_of(skin: str) -> np.ndarray:
    """(20, 64, 64, 3) the tiles: ``WAYS`` of each kind."""
    tiles = {"sprites": _sprite_tiles, "drawn": _drawn_tiles}[skin]()
    return np.stack(tiles).astype(np.uint8)


def skin_of(wish: str) -> str:
    """Resolve ``auto`` to ``sprites`` if they are installed and to ``drawn`` otherwise."""
    if wish not in ("auto", "sprites", "drawn"):
        raise ValueError(f"unknown skin {wish!r}. Use auto, sprites or drawn.")
    if wish == "drawn":
        return "drawn"
    try:
        _sprites()
    except SpritesMissing:
        if wish == "sprites":
            raise
        return "drawn"
    return "sprites"


def render(state: dict, skin: str) -> Image.Image:
    """Render a state with 64 pixels per cell."""
    rows, (r, c) = state["map"], state["elf"]
    kinds = np.array([[KINDS.index(letter) * WAYS for letter in row] for row in rows])
    kinds[r, c] += 1 + FACINGS.index(state["facing"])
    return joined(tiles_of(skin)[kinds])


def joined(cells: np.ndarray) -> Image.Image:
    """The image of n x n tiles (n, n, 64, 64, 3)."""
    n = len(cells)
    return Image.fromarray(cells.swapaxes(1, 2).reshape(n * TILE, n * TILE, 3))


def _coarse(image: Image.Image, n: int) -> np.ndarray:
    """The image at ``COARSE`` pixels per cell, as (n * n, values)."""
    size = (n * COARSE, n * COARSE)
    shrinks = image.width >= size[0] and image.height >= size[1]
    small = image.convert("RGB").resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    cells = np.asarray(small, np.float32).reshape(n, COARSE, n, COARSE, 3).swapaxes(1, 2)
    return cells.reshape(n * n, -1)


def blurred(tiles: np.ndarray) -> np.ndarray:
    """(blurs, tiles, values) all tiles at each blur radius, because decoded sketches may be blurred."""
    images = [Image.fromarray(tile) for tile in tiles]
    return np.stack(
        [np.concatenate([_coarse(i.filter(ImageFilter.GaussianBlur(b)), 1) for i in images]) for b in BLURS]
    )


@cache
def _templates(skin: str) -> np.ndarray:
    return blurred(tiles_of(skin))


def tile_distances(image: Image.Image, n: int, templates: np.ndarray) -> np.ndarray:
    """(cells, tiles) mean absolute differences at the blur radius that fits the image best."""
    cells = _coarse(image, n)
    distances = [np.abs(cells[:, None] - sheet).mean(-1) for sheet in templates]
    return min(distances, key=lambda table: table.min(1).sum())


def parse(image: Image.Image, rows: list[str], skin: str) -> Parsed:
    """Parse an image of any size as a state of a board of the size of ``rows``.

    Each cell is the nearest tile by mean absolute difference. An elf that faces up or down hides the start's stool, so
    an elf on ice is on the start if no other cell shows the start. The state is None unless exactly one elf, one goal
    and one start are detected. Cells that differ from ``rows`` are faults.
    """
    n = len(rows)
    distance = tile_distances(image, n, _templates(skin))
    best = distance.argmin(1)
    kind, facing = best // WAYS, best % WAYS  # facing 0: no elf
    letters = [KINDS[k] for k in kind]
    elves = np.flatnonzero(facing)
    faults = [f"cell {i // n + 1} {i % n + 1} is unreadable" for i in np.flatnonzero(distance.min(1) > UNREADABLE)]
    if len(elves) == 1 and letters[elves[0]] in "SF":
        stool = any(letter == "S" for i, letter in enumerate(letters) if i != elves[0])
        letters[elves[0]] = "F" if stool else "S"
    for what, count in (("elf", len(elves)), ("start", letters.count("S")), ("goal", letters.count("G"))):
        if count != 1:
            faults.append(f"{count} cells show the {what}")
    state = None
    if not faults:
        map_rows = ["".join(letters[i : i + n]) for i in range(0, n * n, n)]
        state = {
            "map": map_rows,
            "elf": [int(elves[0]) // n, int(elves[0]) % n],
            "facing": FACINGS[facing[elves[0]] - 1],
        }
        faults = [
            f"cell {r + 1} {c + 1} is {map_rows[r][c]}, not {rows[r][c]}"
            for r in range(n)
            for c in range(n)
            if map_rows[r][c] != rows[r][c]
        ]
    return Parsed(state, _confidence(distance, best), tuple(faults))


def _confidence(far: np.ndarray, best: np.ndarray) -> float:
    """From 1 (every cell matches exactly one label) to 0 (some cell matches two labels equally well)."""
    tile = np.arange(far.shape[1])
    elf = tile % WAYS > 0
    ground = np.where(elf & (tile // WAYS < 2), 0, tile // WAYS)  # the elf on the start and on ice share a label
    label = 2 * ground + elf
    nearest = far.min(1)
    other = np.where(label[None] == label[best][:, None], np.inf, far).min(1)
    return float((1 - nearest / np.maximum(other, 1e-6)).clip(0, 1).min())

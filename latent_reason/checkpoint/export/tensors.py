"""What is wrong with the files of weights of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .finding import Finding

INDEX = "model.safetensors.index.json"


def wrong(folder: Path, card: dict) -> Iterator[Finding]:
    """Every fault, file by file: missing, unreadable, not as the index says, twice, not finite, another precision."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8")) if (folder / INDEX).is_file() else None
        named = {} if index is None else dict(index["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        yield Finding(INDEX, f"{type(error).__name__}: {error}", "an index with a weight_map")
        return
    for name in sorted({str(name) for name in named.values() if Path(str(name)).name != name}):
        yield Finding(INDEX, f"weights in {name!r}", "files beside it")
        return
    adapter = card.get("layout") == "adapter"
    files = (
        ["adapter_model.safetensors", "reasoner.safetensors"]
        if adapter
        else (sorted(set(named.values())) or ["model.safetensors"])
    )
    homes: dict[str, str] = {}
    size = 0
    for name in [*files, *sorted(p.relative_to(folder).as_posix() for p in folder.glob("decoder/*.safetensors"))]:
        if not (folder / name).is_file():
            yield Finding(name, "no such file", f"weights, as {INDEX if named else 'the layout'} says")
            continue
        dtype = getattr(torch, card.get("dtype", "float32")) if name in files and not adapter else None
        try:
            for key, value in read(folder / name):
                yield from wrong_tensor(name, key, value, dtype)
                if name in files:
                    size += value.nbytes
                    if key in homes:
                        yield Finding(name, f"{key}, which is in {homes[key]} too", "every tensor once")
                    homes[key] = name
        except (SafetensorError, OSError) as error:
            yield Finding(name, str(error).partition("\n")[0], "a file of safetensors", "Copy the file again.")
    if named and all((folder / name).is_file() for name in files):
        yield from wrong_index(named, homes, index.get("metadata", {}).get("total_size"), size)


def read(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a file, one at a time."""
    with safe_open(file, "pt") as opened:
        for key in opened.keys():
            yield key, opened.get_tensor(key)


def wrong_tensor(name: str, key: str, value: torch.Tensor, dtype: torch.dtype | None) -> Iterator[Finding]:
    """Faults of one tensor; ``dtype`` is that of the stock model (None: not to be looked at). Heads and statistics stay
    in fp32."""
    if not value.is_floating_point():
        return
    if not value.isfinite().all():
        yield Finding(
            name, f"{key} with NaN or infinities", "finite weights", "Train again, or export an earlier checkpoint."
        )
    expected = dtype if ".backbone." in key else torch.float32
    if dtype is not None and value.dtype != expected:
        yield Finding(name, f"{key} in {str(value.dtype)[6:]}", str(expected)[6:])


def wrong_index(named: dict[str, str], homes: dict[str, str], declared: int | None, size: int) -> Iterator[Finding]:
    """Where an index and the files it speaks of differ."""
    for key in sorted(named.keys() ^ homes.keys())[:3]:
        where = homes.get(key)
        yield Finding(INDEX, f"{key} " + (f"in {where}, not in the index" if where else f"not in {named[key]}"), "both")
    for key in [k for k in sorted(named.keys() & homes.keys()) if named[k] != homes[k]][:3]:
        yield Finding(INDEX, f"{key} in {named[key]}", homes[key])
    if declared != size:
        yield Finding(INDEX, f"total_size {declared}", f"{size}, the bytes of all weights")

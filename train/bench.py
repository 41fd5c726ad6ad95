"""Speed of a training step on random weights: with latents, with text in their place, packed, with checkpointing.

    python -m train.bench --size tiny --out FILE.json          # tiny, 30m: on a CPU; 0.5b, 3b: one GPU of 80 GB

A step is forward and backward of one batch with cached image features, of a Qwen2.5-VL in float32 on a CPU and bfloat16
on a GPU. All variants take turns, so that a slower moment of the machine slows all of them, and a ratio is the median
over turns. ``text`` are the same rows with text tokens in place of latents, trained like all others; ``text, untaught``
leaves these tokens out of the loss, which is the harder comparison.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import track

from latent_reason import methods
from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.model import backbones
from latent_reason.model.backbones.attention import NAMES, set_attention
from latent_reason.model.batch import LATENT, TEXT, MixedBatch
from latent_reason.outputs import check_output

from .config import SFTDataConfig
from .data import TraceData
from .lit_modules import set_trainable
from .planning.devices import device_by_name

console = Console(soft_wrap=True)
SIZES = {
    "tiny": {"width": 128, "layers": 4, "heads": 4},
    "30m": {"width": 512, "layers": 8, "heads": 8},
    "0.5b": {"width": 1280, "layers": 24, "heads": 20},
    "3b": {"width": 2560, "layers": 36, "heads": 20},
}
VOCABULARY = 152_064  # of the sizes from 0.5b on, as Qwen's


def build(size: str, attn_implementation: str):
    """A random model of a size, with the head that the recipes train."""
    gpu = torch.cuda.is_available()
    backbone = backbones.load_backbone(
        "tiny", latent_positions="2d", dtype="bfloat16" if gpu else "float32", **SIZES[size]
    )
    reasoner = methods.build_method(
        "modal_mixed", backbone, k=36, head_options={"hidden": max(128, backbone.width // 2), "depth": 2}
    )
    if size in ("0.5b", "3b"):
        backbone.model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    reasoner.to("cuda" if gpu else "cpu")
    choice = set_attention(backbone, attn_implementation)
    set_trainable(reasoner, ["text_model", "embeddings", "head"])
    return reasoner.train(), choice


def in_words(batch: MixedBatch, taught: bool) -> MixedBatch:
    """The same positions with text tokens in place of latents."""
    latent = batch.token_type == LATENT
    return replace(
        batch,
        token_type=torch.where(latent, TEXT, batch.token_type),
        spans=batch.spans[:0],
        loss_weight=torch.where(latent, float(taught), batch.loss_weight),
        span_weight=batch.span_weight[:0],
        sketches=None,
        boxes=[],
        layout=None,
    )


def step(reasoner, batch: MixedBatch) -> float:
    """Seconds of one forward and backward."""

    def clock():
        if reasoner.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    reasoner.zero_grad()
    began = clock()
    reasoner(methods.objective_of(reasoner).loss, batch).total.backward()
    return clock() - began


def checkpointed(run: Callable[[], float], backbone) -> Callable[[], float]:
    def with_it():
        backbone.set_gradient_checkpointing()
        try:
            return run()
        finally:
            backbone.set_gradient_checkpointing(False)

    return with_it


def bench(reasoner, rows: int, packing_length: int, turns: int) -> dict:
    """Median seconds of every variant, and ratios of latents to text in each turn."""
    config = SFTDataConfig(
        levels=[3, 4, 5, 6],
        items=rows,
        val_items=1,
        batch_size=rows,
        options={"chunk": [1, 1], "omit_state_p": 1.0},
    )
    given = (reasoner, methods.objective_of(reasoner), "mixed", 0)
    data = TraceData(config, *given, frozen_vision=True)
    data.setup()
    reasoner.target.fit_statistics(data.sketch_features())
    packs = TraceData(replace(config, packing_length=packing_length), *given, frozen_vision=True, rows=data.rows)
    plain, packed = (one.collate(data.rows["train"]).to(reasoner.device) for one in (data, packs))
    batches = {
        "latents": plain,
        "text": in_words(plain, True),
        "text, untaught": in_words(plain, False),
        "latents, packed": packed,
        "latents, checkpointed": plain,
    }
    runs = {name: (lambda batch=batch: step(reasoner, batch)) for name, batch in batches.items()}
    runs["latents, checkpointed"] = checkpointed(runs["latents"], reasoner.backbone)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    memory = {}
    for turn in track(range(turns + 1), description="turns", console=console):  # the first turn warms up
        for name, run in runs.items():
            if reasoner.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            took = run()
            if turn:
                seconds[name].append(took)
            if reasoner.device.type == "cuda":
                memory[name] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    tokens, size = int(plain.mask.sum()), sum(p.numel() for p in reasoner.backbone.text_model.parameters())
    found = {
        "rows": rows,
        "tokens": tokens,
        "latents": int((plain.token_type == LATENT).sum()),
        "language_parameters": size,
        "padding": round(1 - float(plain.mask.float().mean()), 3),
        "padding_packed": round(1 - float(packed.mask.float().mean()), 3),
        "variants": {},
    }
    gpu = device_by_name(torch.cuda.get_device_name()) if memory else None
    for name, took in seconds.items():
        middle = statistics.median(took)
        found["variants"][name] = {"seconds": round(middle, 4), "tokens_per_second": round(tokens / middle)}
        if memory:
            found["variants"][name]["peak_gib"] = memory[name]
        if gpu:
            found["variants"][name]["mfu"] = round(6 * size * tokens / middle / gpu.flops, 3)
    for name in ("text", "text, untaught"):
        ratios = sorted(a / b for a, b in zip(seconds["latents"], seconds[name], strict=True))
        found[f"latents over {name}"] = {
            "median": round(statistics.median(ratios), 3),
            "least": round(ratios[0], 3),
            "greatest": round(ratios[-1], 3),
            "turns": turns,
        }
    return found


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--rows", type=at_least(2), default=16)
    parser.add_argument("--packing-length", type=at_least(64), default=1024, help="positions of a packed row")
    parser.add_argument("--turns", type=at_least(1), default=9)
    parser.add_argument("--attn-implementation", choices=NAMES, default="auto")
    add_output(parser)
    given = parser.parse_args(argv)
    check_output(given.out, given.overwrite)
    reasoner, choice = build(given.size, given.attn_implementation)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    console.print(f"{given.size} on {device}, attention {choice.name} ({choice.reason})")
    found = bench(reasoner, given.rows, given.packing_length, given.turns)
    atomic_write_json(
        given.out,
        {
            "schema": 1,
            "size": given.size,
            "vocabulary": len(reasoner.backbone.model.get_input_embeddings().weight),
            "device": device,
            "threads": torch.get_num_threads(),
            "attention": choice.name,
            "dtype": str(reasoner.backbone.model.dtype).removeprefix("torch."),
            **found,
        },
    )
    console.print(found)
    console.print(f"Written to {given.out}")


if __name__ == "__main__":
    main()

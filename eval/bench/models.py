"""Models with random weights by size, prompts for them, and the plainest decoding loop over them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from latent_reason import methods, tasks
from latent_reason.model import backbones
from latent_reason.model.backbones.attention import Choice, set_attention
from latent_reason.model.batch import MixedBatch
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.trace import Message, Text, Trace

from .settings import SIZES

VOCABULARY = 152_064  # of the sizes from 0.5b on, as Qwen's
LATENTS = 36  # of a sketch
LEVEL = 4  # of the boards of a prompt


def build(size: str, attn_implementation: str = "auto", method: str = "modal_mixed") -> tuple[LatentReasoner, Choice]:
    """A random Qwen2.5-VL of a size, in float32 on a CPU and in bfloat16 on a GPU, whose vision encoder is small and
    frozen. ``modal_mixed`` has the flow head that the recipes train, of four Euler steps."""
    gpu = torch.cuda.is_available()
    options = {"dtype": "bfloat16" if gpu else "float32"} | SIZES[size]
    backbone = backbones.load_backbone("tiny", latent_positions="2d", **options)
    own = {"k": LATENTS, "head_options": {"hidden": max(128, backbone.width // 2), "depth": 2}}
    reasoner = methods.build_method(method, backbone, **(own if method == "modal_mixed" else {}))
    if size in ("0.5b", "3b"):
        backbone.model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    reasoner.to("cuda" if gpu else "cpu")
    choice = set_attention(backbone, attn_implementation)
    for p in backbone.vision_parameters:
        p.requires_grad_(False)
    return reasoner.train(), choice


@torch.no_grad()
def never_end(reasoner: LatentReasoner) -> LatentReasoner:
    """The model in evaluation mode, which cannot generate the end token. Rows of tokens that decoding here forbids are
    zero, so that greedy decoding elsewhere, which knows of no such rule, chooses the same tokens."""
    v, table = reasoner.vocabulary, reasoner.backbone.model.get_output_embeddings().weight
    v.suppress_tokens = sorted({*v.suppress_tokens, v.end})
    table[[*v.suppress_tokens, v.open]] = 0
    table[len(v) :] = 0
    return reasoner.eval()


def text_prompts(reasoner: LatentReasoner, rows: int) -> MixedBatch:
    """Prompts without images, of different lengths."""
    words = "where is the goal and which row is next to the start".split()
    texts = [" ".join((words * 4)[: 12 + row % 24]) for row in range(rows)]
    traces = [Trace(f"text-{row}", (Message("user", (Text(text),)),)) for row, text in enumerate(texts)]
    return reasoner.processor(traces, generate=True).to(reasoner.device)


def board_traces(rows: int) -> list[Trace]:
    """Questions on boards, with an image and an answer in text and sketches."""
    task = tasks.make("frozenlake_plan", split="test", seed=1, level=LEVEL)
    return [task.trace(task[row], "mixed") for row in range(rows)]


def board_prompts(reasoner: LatentReasoner, rows: int) -> MixedBatch:
    """The questions alone."""
    return reasoner.processor(board_traces(rows), generate=True).to(reasoner.device)


@torch.no_grad()
def plain_step(reasoner: LatentReasoner, prompt: MixedBatch) -> Callable[[], None]:
    """A function that takes one greedy step of the plainest loop over the stock model."""
    backbone, cache, mask = reasoner.backbone, reasoner.backbone.new_cache(), prompt.mask
    at = backbone.position_ids(prompt)
    h = backbone.forward_text(reasoner.prompt_embeddings(prompt), mask, at, cache)
    state = [h[:, -1:], mask, at.amax(-1, keepdim=True)]

    @torch.no_grad()
    def step():
        h, mask, at = state
        ids = backbone.logits(h[:, -1]).argmax(-1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        state[:] = backbone.forward_text(backbone.embed(ids)[:, None], mask, at + 1, cache), mask, at + 1

    return step

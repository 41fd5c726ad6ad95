"""``tiny``: a 1-3 M parameter configuration of any family with random weights, a small BPE tokenizer trained on
creation and a stock image processor. It needs no download and runs the same code as a 7B model. The default family is
Qwen2.5-VL.

Qwen: an image with a side of 64 n pixels becomes n x n tokens (patches of 32, merged 2 x 2), so one token per cell of a
board. Families that resize images to a square encode every image as ``cells`` x ``cells`` tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from ...values import Depth, Positive, Size
from ..tokenization import Layout
from .base import Backbone
from .families import family, torch_dtype
from .qwen_vl import QwenVL
from .square import Idefics3

WORDS = [
    "system user assistant yes no the a is at to from of on in what where how many which row column map board",
    "up down left right move go then now next ice hole gift elf start goal safe path " * 2,
    " ".join("0123456789"),
    ", . ? : / ; \\boxed{ } U D L R S F H G E",
]


def train_tokenizer(
    corpus: Iterable[str] | None = None, layout: Layout | None = None, size: int = 512
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer. Any text round-trips, the words of the corpus become single tokens, and the
    markers of the layout (except line breaks) are special tokens."""
    layout = layout or Layout()
    tiles = "".join(layout.tile.format(row=r, column=c) for r in (1, 2) for c in (1, 2))
    written = layout.begin + layout.turn + layout.image_open + layout.image_close + tiles
    marks = [
        layout.pad,
        "<|im_start|>",
        layout.end,
        "<|vision_start|>",
        "<|vision_end|>",
        layout.image,
        "<|video_pad|>",
        *re.findall(r"<[^<>]*>", written),
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(dict.fromkeys(marks)),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(list(corpus or WORDS), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=layout.pad, eos_token=layout.end)


def tiny(
    model_type: str = "qwen2_5_vl",
    *,
    width: Size = 128,
    layers: Depth = 4,
    heads: Size = 4,
    vision_width: Size = 96,
    vision_layers: Depth = 1,
    patch: Size = 32,
    cells: Size = 4,
    rope_theta: Positive = 3.0,
    corpus: Iterable[str] | None = None,
    latent_positions: str = "1d",
    dtype: str = "float32",
    tiles: bool = False,
    seed: int = 0,
) -> Backbone:
    """Build a tiny backbone.

    ``corpus``: texts whose words become single tokens. ``seed`` determines the weights. ``patch``: half a token's side
    in pixels. The rotary base is small because contexts are short: with the usual 10,000 the axes of the columns hardly
    rotate.
    """
    kind = family(model_type)
    tokenizer = train_tokenizer(corpus, kind.layout)
    token = tokenizer.convert_tokens_to_ids
    text = dict(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        rope_parameters=dict(rope_type="default", rope_theta=rope_theta),
    )
    config = (qwen if issubclass(kind, QwenVL) else square)(
        model_type, text, token, kind.layout, vision_width, vision_layers, patch, cells
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch_dtype(dtype), trust_remote_code=False)
        for p in model.parameters():
            if p.ndim > 1 and not p.any():  # Gemma's connector is initialized to zero: all images would be equal
                torch.nn.init.normal_(p, std=0.02)
    if issubclass(kind, QwenVL):
        processor = Qwen2VLImageProcessorPil(
            patch_size=patch,
            merge_size=2,
            temporal_patch_size=1,
            do_normalize=False,
            min_pixels=(2 * patch) ** 2,
            max_pixels=(2 * patch * 16) ** 2,
        )
    else:
        side = config.vision_config.image_size
        side = side if isinstance(side, int) else side[0]
        processor = (
            kind.Processor(size={"longest_edge": 2 * side}, max_image_size={"longest_edge": side})
            if issubclass(kind, Idefics3)
            else SiglipImageProcessorPil(size={"height": side, "width": side})
        )
    backbone = kind(model, tokenizer, processor, latent_positions)
    backbone.set_tiling(tiles)
    return backbone


def qwen(
    model_type: str, text: dict, token, layout: Layout, vision_width: int, vision_layers: int, patch: int, cells: int
):
    """The configuration of a Qwen-VL. Its rotary axes split a head's channels 2 : 7 : 7."""
    head = text["hidden_size"] // text["num_attention_heads"]
    text["rope_parameters"]["mrope_section"] = [head // 2 - 2 * (head * 7 // 32), head * 7 // 32, head * 7 // 32]
    vision = dict(
        depth=vision_layers,
        hidden_size=vision_width,
        intermediate_size=vision_width * 2,
        num_heads=4,
        patch_size=patch,
        spatial_merge_size=2,
        temporal_patch_size=1,
        out_hidden_size=text["hidden_size"],
    )
    if model_type == "qwen3_vl":
        text |= {"head_dim": head}
        text["rope_parameters"]["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": list(range(min(vision_layers, 2)))}
    elif model_type == "qwen2_vl":
        vision = dict(
            depth=vision_layers,
            embed_dim=vision_width,
            hidden_size=text["hidden_size"],
            mlp_ratio=2,
            num_heads=4,
            patch_size=patch,
            spatial_merge_size=2,
            temporal_patch_size=1,
        )
    else:
        vision |= {"window_size": patch * 64, "fullatt_block_indexes": list(range(vision_layers))}
    return CONFIG_MAPPING[model_type](
        text_config=text,
        vision_config=vision,
        image_token_id=token(layout.image),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def square(
    model_type: str, text: dict, token, layout: Layout, vision_width: int, vision_layers: int, patch: int, cells: int
):
    """The configuration of a family that encodes every image as ``cells`` x ``cells`` tokens."""
    merged = model_type not in ("llava", "llava_onevision")  # their tokens are patches
    vision: dict = dict(
        hidden_size=vision_width,
        intermediate_size=vision_width * 2,
        num_hidden_layers=vision_layers,
        patch_size=(patch if merged else 2 * patch),
        num_attention_heads=4,
        image_size=2 * patch * cells,
    )
    own = {
        "gemma3": {
            "mm_tokens_per_image": cells**2,
            "boi_token_index": token("<start_of_image>"),
            "eoi_token_index": token("<end_of_image>"),
        },
        "llava": {"vision_feature_layer": -1, "image_seq_length": cells**2},
        "internvl": {"image_seq_length": cells**2},
    }.get(model_type, {})
    if model_type == "gemma3":
        text |= {
            "head_dim": text["hidden_size"] // text["num_attention_heads"],
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "full_attention"] * (text["num_hidden_layers"] // 2)
            + ["full_attention"] * (text["num_hidden_layers"] % 2),
        }
        theta = text.pop("rope_parameters")["rope_theta"]
        text["rope_parameters"] = {
            t: {"rope_type": "default", "rope_theta": theta} for t in ("full_attention", "sliding_attention")
        }
    if model_type == "internvl":
        vision = vision | {"patch_size": [patch] * 2, "image_size": [2 * patch * cells] * 2}
    types = {
        "llava": {"text": "llama", "vision": "clip_vision_model"},
        "llava_onevision": {"text": "qwen2", "vision": "siglip_vision_model"},
        "internvl": {"text": "qwen2"},
        "idefics3": {"text": "llama"},
        "smolvlm": {"text": "llama"},
    }.get(model_type, {})
    text |= {"model_type": types["text"]} if "text" in types else {}
    vision |= {"model_type": types["vision"]} if "vision" in types else {}
    index = "image_token_index" if model_type in ("gemma3", "llava", "llava_onevision") else "image_token_id"
    return CONFIG_MAPPING[model_type](
        text_config=text, vision_config=vision, tie_word_embeddings=True, **{index: token(layout.image)}, **own
    )

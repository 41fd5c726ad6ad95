"""``tiny``: a 1-3 M parameter Qwen2.5-VL configuration with random weights, a small BPE tokenizer trained on the spot
and the stock picture processor. No download; the default runs the very code a 7B model runs.

A picture of 64 n pixels becomes n x n tokens (patches of 32 pixels, merged 2 x 2), so one token a cell of a board.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from .qwen_vl import QwenVL

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]
WORDS = ["system user assistant yes no the a is at to from of on in what where how many which row column map board",
         "up down left right move go then now next ice hole gift elf start goal safe path " * 2,
         " ".join("0123456789"), ", . ? : / ; \\boxed{ } U D L R S F H G E"]


def train_tokenizer(corpus: Iterable[str] | None = None, size: int = 512) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text round-trips, the words of the corpus become single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(list(corpus or WORDS), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def tiny(*, width: int = 128, layers: int = 4, heads: int = 4, eye_width: int = 96, eye_layers: int = 1,
         patch: int = 32, rope_theta: float = 3.0, corpus: Iterable[str] | None = None, positions: str = "line",
         attn: str = "sdpa", seed: int = 0) -> QwenVL:
    """Build one. ``corpus`` are texts whose words should be single tokens; ``seed`` fixes the weights. The rotary base
    is small because contexts are short: with the usual 10,000 the axes that tell columns apart hardly turn."""
    tokenizer = train_tokenizer(corpus)
    head_dim = width // heads
    rope = [head_dim // 2 - 2 * (head_dim * 7 // 32), head_dim * 7 // 32, head_dim * 7 // 32]
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config=dict(vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 3,
                         num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
                         rope_parameters=dict(rope_type="default", rope_theta=rope_theta, mrope_section=rope),
                         pad_token_id=token("<|endoftext|>"), bos_token_id=None, eos_token_id=token("<|im_end|>"),
                         max_position_embeddings=4096),
        vision_config=dict(depth=eye_layers, hidden_size=eye_width, intermediate_size=eye_width * 2, num_heads=4,
                           patch_size=patch, spatial_merge_size=2, temporal_patch_size=1, out_hidden_size=width,
                           window_size=patch * 64, fullatt_block_indexes=list(range(eye_layers))),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    config._attn_implementation = attn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    processor = Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, temporal_patch_size=1, do_normalize=False,
                                         min_pixels=(2 * patch) ** 2, max_pixels=(2 * patch * 16) ** 2)
    return QwenVL(model, tokenizer, processor, positions)

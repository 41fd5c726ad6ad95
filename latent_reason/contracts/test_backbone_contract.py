"""Backbone contract: outputs equal those of the stock model, with or without cache and padding, in training and
decoding."""

import dataclasses

import numpy as np
import pytest
import torch

from .. import methods
from ..decoding.engine import generate
from ..model import backbones
from ..model.backbones.qwen_vl import QwenVL
from ..model.batch import IMAGE, LATENT, PAD, ImageBatch
from ..model.tokenization import ControlTokens, Vocabulary
from ..objectives.attention_masks import full_attention_mask
from ..objectives.forward import all_hidden_states, forward_batch
from .closeness import assert_close
from .fixtures import eager, loss_of, training_batch

pytestmark = pytest.mark.usefixtures("float64")

#: families and latent positions of every test; the other families share this code and are only compared with stock
CASES = [
    ("qwen2_5_vl", "1d"),
    ("qwen2_5_vl", "2d"),
    ("qwen3_vl", "2d"),
    ("gemma3", "1d"),
    ("llava_onevision", "1d"),
    ("internvl", "1d"),
    ("smolvlm", "1d"),
]


@pytest.fixture
def positions(case):
    return case[1]


@pytest.fixture
def reasoner(case, make_backbone):
    family, positions = case
    return methods.build_method("modal_mixed", make_backbone(positions, family), k=6, head="mlp").eval()


@pytest.fixture
def batch(reasoner, make_traces):
    return training_batch(reasoner, make_traces())


@torch.no_grad()
def states(reasoner, batch):
    latents = reasoner.target(batch) if len(batch.spans) else None
    return reasoner.backbone.forward_text(
        reasoner.embed_batch(batch, latents), batch.mask, reasoner.backbone.position_ids(batch)
    )


def padded(batch, extra):
    """The same batch with ``extra`` more padding on the left."""

    def pad(x, fill):
        return torch.cat([x.new_full((len(x), extra), fill), x], 1)

    spans = batch.spans + torch.tensor([0, extra, 0, 0])
    return dataclasses.replace(
        batch,
        ids=pad(batch.ids, 0),
        token_type=pad(batch.token_type, PAD),
        loss_weight=pad(batch.loss_weight, 0.0),
        spans=spans,
        positions=None,
        layout=None,
    )


# -- the stock model ---------------------------------------------------------------------------------------------------
def test_a_backbone_is_found_by_name(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    small = {"width": 16, "layers": 1, "heads": 1, "vision_width": 16}
    assert (
        type(backbones.load_backbone("tiny", **small))
        is type(backbones.load_backbone("tiny-qwen2.5-vl", **small))
        is QwenVL
    )
    with pytest.raises(ValueError, match="the family 'qwen9' is not supported"):
        backbones.load_backbone("tiny-qwen9")
    with pytest.raises(ValueError, match="Gemma3 has one position axis"):
        backbones.load_backbone("tiny-gemma3", latent_positions="2d", **small)
    with pytest.raises(ValueError, match=r"'no-such-folder' is neither 'tiny'.*no such folder"):
        backbones.load_backbone("no-such-folder")
    with pytest.raises(ValueError, match="must be '1d' or '2d'"):
        backbones.load_backbone("tiny", latent_positions="circle", **small)


def as_the_stock_class_wants(family, batch):
    """The images of a batch as keyword arguments of the stock forward."""
    images, pictures = batch.images, (batch.token_type == IMAGE).int()
    if "qwen" in family:
        return {"pixel_values": images.pixels, "image_grid_thw": images.grid, "mm_token_type_ids": pictures}
    if family == "llava_onevision":  # never as a single image, which it would split into tiles
        n, side = len(images), images.pixels.shape[-1]
        return {
            "pixel_values": images.pixels,
            "image_sizes": torch.tensor([[side, side]] * n),
            "batch_num_images": torch.tensor([n + 1]),
        }
    if family in ("smolvlm", "idefics3"):  # (B, max images, ...), padded with zeros
        rows = [images.pixels[torch.tensor(batch.image_rows) == r] for r in range(len(batch.ids))]
        return {"pixel_values": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}
    return {"pixel_values": images.pixels} | ({"token_type_ids": pictures} if family == "gemma3" else {})


def test_own_forward_is_the_stock_models(family, make_backbone, make_traces):
    """Compare the stock class on ids and pixels, with several images per row, with our embedding, positions and text
    model."""
    reasoner = methods.build_method("direct", make_backbone(family=family)).eval()
    batch = training_batch(reasoner, make_traces(sketches=False))
    backbone = reasoner.backbone
    with torch.no_grad():
        stock = backbone.model(
            input_ids=batch.ids, attention_mask=batch.mask.long(), **as_the_stock_class_wants(family, batch)
        )
        own = backbone.logits(states(reasoner, batch))
    assert (np.bincount(batch.image_rows) > 1).any() and (~batch.mask).any()
    assert_close(own[batch.mask], stock.logits[batch.mask])


def test_pictures_are_seen_one_by_one_and_kept_in_order(reasoner, picture):
    backbone, sizes = reasoner.backbone, [(2, 3), (3, 2), (2, 2)]
    side = backbone.pixels_per_token
    several = [picture(h, w, seed).resize((w * side, h * side)) for seed, (h, w) in enumerate(sizes, 1)]
    looked = backbone.preprocess_images(several)
    together, grid = backbone.encode_images(looked), looked.grid
    for shown, size, tokens in zip(several, sizes, together, strict=True):
        looked = backbone.preprocess_images([shown])
        assert_close(backbone.encode_images(looked)[0], tokens)
        assert backbone.token_grids(looked) == [backbone.token_grid(shown)]
        h, w = backbone.token_grid(shown)
        assert len(tokens) == h * w == (size[0] * size[1] if backbone.has_2d_positions else 4)
    assert not torch.allclose(together[0][:4], together[2][:4])
    assert all(map(torch.equal, backbone.encode_images(ImageBatch(grid, features=together)), together)), (
        "not looked at again"
    )


# -- cache and padding -------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_continuous_steps_through_the_cache_are_one_long_forward(reasoner, batch):
    backbone, cache, start = reasoner.backbone, reasoner.backbone.new_cache(), batch.ids.shape[1] - 9
    embeds, at = reasoner.embed_batch(batch, reasoner.target(batch)), reasoner.backbone.position_ids(batch)
    embeds[:, start:, : backbone.width] += torch.randn_like(embeds[:, start:, : backbone.width])
    pieces = [backbone.forward_text(embeds[:, :start], batch.mask[:, :start], at[:, :, :start], cache)]
    for t in range(start, batch.ids.shape[1]):
        pieces.append(backbone.forward_text(embeds[:, t : t + 1], batch.mask[:, : t + 1], at[:, :, t : t + 1], cache))
        assert cache.get_seq_length() == t + 1
    assert_close(torch.cat(pieces, 1)[batch.mask], backbone.forward_text(embeds, batch.mask, at)[batch.mask])


@torch.no_grad()
def test_a_mask_for_every_position_is_kept_cached_or_not(reasoner, batch):
    backbone, n = reasoner.backbone, batch.ids.shape[1]
    embeds, at = reasoner.embed_batch(batch, reasoner.target(batch)), backbone.position_ids(batch)
    plain, sees = backbone.forward_text(embeds, batch.mask, at), full_attention_mask(batch).clone()
    assert_close(backbone.forward_text(embeds, sees, at)[batch.mask], plain[batch.mask])
    sees[1, n - 3 :, n - 9 : n - 5] = False
    hide_observed_images, cache = backbone.forward_text(embeds, sees, at), backbone.new_cache()
    batch.attention_mask = sees
    pieces = [
        forward_batch(backbone, batch, embeds[:, a:b], at[:, :, a:b], start=a, stop=b, cache=cache)
        for a, b in ((0, n - 7), (n - 7, n - 2), (n - 2, n - 1), (n - 1, n))
    ]
    assert_close(torch.cat(pieces, 1)[batch.mask], hide_observed_images[batch.mask])
    same = (hide_observed_images - plain).abs().amax(-1) < 1e-5
    assert same[[0, 2, 3]][batch.mask[[0, 2, 3]]].all() and same[1, : n - 3][batch.mask[1, : n - 3]].all()
    assert not same[1, n - 3 :].any()
    states = all_hidden_states(backbone, batch, embeds, at)
    assert len(states) == 2 and not torch.allclose(states[0], states[1])
    assert_close(states[-1], backbone.forward_text(embeds, sees, at))
    backbone.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="Use sdpa"):
        backbone.forward_text(embeds, sees, at)


def test_a_row_in_a_left_padded_batch_is_the_row_alone(reasoner, batch, make_traces):
    together, at = states(reasoner, batch), reasoner.backbone.position_ids(batch)
    for r, trace in enumerate(make_traces()):
        alone = training_batch(reasoner, [trace])
        assert_close(together[r][batch.mask[r]], states(reasoner, alone)[0])
        assert torch.equal(at[:, r][:, batch.mask[r]], reasoner.backbone.position_ids(alone)[:, 0])


def test_more_padding_changes_nothing(reasoner, batch, make_traces):
    assert_close(states(reasoner, padded(batch, 5))[:, 5:][batch.mask], states(reasoner, batch)[batch.mask])
    prompt = reasoner.processor(make_traces(), generate=True)
    settings = {"max_new_tokens": 14, "latent_mode": "first", "temperature": 1.0}
    plain, more = generate(reasoner, prompt, **settings), generate(reasoner, padded(prompt, 5), **settings)
    assert torch.equal(plain.ids, more.ids) and torch.equal(plain.positions, more.positions)
    assert_close(plain.latent_embeds, more.latent_embeds)


# -- positions ---------------------------------------------------------------------------------------------------------
def test_latents_stand_where_they_stood_in_training(reasoner, make_traces):
    """Compare positions of a trace in training and in decoding with forced text, with spans of 2x3 and 3x2."""
    v, traces = reasoner.vocabulary, make_traces(same_size=True)
    for trace in traces:
        batch, prompt = training_batch(reasoner, [trace]), reasoner.processor([trace], generate=True)
        n = prompt.ids.shape[1]
        said = [i for i in batch.ids[0, n:].tolist() if i not in (v.latent, v.close, v.end)]
        out = generate(reasoner, prompt, max_new_tokens=batch.ids.shape[1] - n, forced_tokens=[said[:-1]])
        t = int((batch.ids[0, n:] == v.end).nonzero()[0])
        assert torch.equal(out.ids[0, :t], batch.ids[0, n : n + t])
        assert torch.equal(out.positions[:, 0, :t], reasoner.backbone.position_ids(batch)[:, 0, n : n + t])


def test_positions_of_spans_follow_the_setting(reasoner, batch, positions):
    at = reasoner.backbone.position_ids(batch)
    for row, start, h, w in batch.spans.tolist():
        span, after = at[:, row, start : start + h * w] - at[0, row, start - 1] - 1, start + h * w
        k = torch.arange(h * w)
        expected = k.expand(3, -1) if positions == "1d" else torch.stack([0 * k, k // w, k % w])
        assert torch.equal(span, expected)
        begin, grids = at[0, row, start - 1].expand(h * w) + 1, torch.tensor([[h, w]]).expand(h * w, 2)
        assert torch.equal(at[:, row, start : start + h * w], reasoner.backbone.latent_position_ids(begin, k, grids))
        after_span = reasoner.backbone.position_after_span(begin[:1], torch.tensor([h * w]), grids[:1])
        assert (at[:, row, after] == after_span).all()
    text = (batch.token_type != LATENT) & (batch.token_type != IMAGE) & batch.mask
    assert (at[0][text] == at[1][text]).all() and (at[0][text] == at[2][text]).all()


# -- control tokens ----------------------------------------------------------------------------------------------------
def test_fresh_control_tokens_begin_at_the_mean_of_the_others(make_backbone):
    backbone = make_backbone()
    old = backbone.model.get_input_embeddings().weight.detach().clone()
    grown = methods.build_method("modal_mixed", backbone, k=4, head="mlp")
    table, v = backbone.model.get_input_embeddings().weight, grown.vocabulary
    assert table is backbone.model.get_output_embeddings().weight, "input and output are tied"
    assert len(table) == len(old) + 3 == len(v) and v.added == [v.open, v.latent, v.close]
    assert torch.equal(table[: len(old)], old)
    noise = (table[v.added] - old.mean(0)) / old.std()
    assert 0.01 < noise.std() < 0.03 and noise.abs().max() < 0.1 and not torch.equal(noise[0], noise[1])
    again = methods.build_method("modal_mixed", backbone, k=4, head="mlp")
    assert torch.equal(backbone.model.get_input_embeddings().weight, table) and again.vocabulary.open == v.open


def test_untied_tables_both_get_fresh_rows(make_backbone):
    backbone = make_backbone()
    backbone.model.config.tie_word_embeddings = backbone.model.config.get_text_config().tie_word_embeddings = False
    backbone.model.lm_head.weight = torch.nn.Parameter(3 + torch.randn_like(backbone.model.lm_head.weight))
    grown = methods.build_method("direct", backbone)
    for table in (backbone.model.get_input_embeddings().weight, backbone.model.get_output_embeddings().weight):
        old = table[: grown.vocabulary.added[0]]
        assert ((table[grown.vocabulary.added] - old.mean(0)).abs() < 0.1 * old.std()).all()
    assert backbone.model.lm_head.weight.mean() > 2


def shuffled(make_backbone, original):
    """The same model with other ids of the control tokens, between unrelated tokens."""
    backbone, roles = make_backbone(), ControlTokens()
    backbone.tokenizer.add_tokens(["<|a|>", roles.close, "<|b|>", roles.open, roles.latent], special_tokens=True)
    other = methods.build_method("modal_mixed", backbone, k=4, head="mlp", stop="close", supervise="full").eval()
    other.vocabulary.suppress_tokens += [other.vocabulary.token_id(t) for t in ("<|a|>", "<|b|>")]
    state = original.state_dict()
    for name, value in other.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            size = original.vocabulary.added[0]
            value[:size] = state[name][:size]
            for role in ("open", "latent", "close"):
                value[getattr(other.vocabulary, role)] = state[name][getattr(original.vocabulary, role)]
        else:
            value.copy_(state[name])
    return other


def test_shuffled_ids_of_the_control_tokens_change_nothing(make_backbone, make_traces):
    one = methods.build_method("modal_mixed", make_backbone(), k=4, head="mlp", stop="close", supervise="full").eval()
    two = shuffled(make_backbone, one)
    known = {getattr(one.vocabulary, r): getattr(two.vocabulary, r) for r in ("open", "latent", "close")}
    assert all(a != b for a, b in known.items())
    first, second = (loss_of(r, training_batch(r, make_traces())).parts() for r in (one, two))
    assert_close(first["latent"], second["latent"])
    assert_close(first["stop"], second["stop"])
    outs = [generate(eager(r), r.processor(make_traces(), generate=True), max_new_tokens=20) for r in (one, two)]
    assert outs[0].spans and outs[0].spans == outs[1].spans
    assert [[known.get(i, i) for i in row] for row in outs[0].ids.tolist()] == outs[1].ids.tolist()
    assert_close(outs[0].latent_embeds, outs[1].latent_embeds)


def test_control_tokens_are_the_same_in_a_second_vocabulary(make_backbone):
    backbone = make_backbone()
    first, second = Vocabulary(backbone.tokenizer), Vocabulary(backbone.tokenizer)
    assert (first.open, first.latent, first.close) == (second.open, second.latent, second.close)
    assert len(first.added) == 3 and not second.added

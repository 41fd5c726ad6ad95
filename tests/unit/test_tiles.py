"""Images in tiles, as Idefics3 and SmolVLM read them: the row, the pixels and the logits are the stock model's."""

import numpy as np
import pytest
import torch
from conftest import CASES, ready, training_batch
from packed_rows import both, losses, same
from PIL import Image as PILImage
from transformers import Idefics3Processor

from latent_reason import checkpoint, methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.model import adapters
from latent_reason.model.backbones import load_backbone
from latent_reason.objectives.attention_masks import hide_observed_images
from latent_reason.trace import Image, Message, Text, Trace
from train.lit_modules import set_trainable

float64 = pytest.mark.usefixtures("float64")
SIZES = [(128, 128), (256, 96), (60, 200), (33, 33)]


def noise(width: int, height: int, seed: int = 0) -> PILImage.Image:
    return PILImage.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(params=["idefics3", "smolvlm"])
def backbone(request):
    made = load_backbone(
        f"tiny-{request.param}", width=32, layers=2, heads=2, vision_width=32, cells=2, patch=16, tiles=True
    )
    return made.to(torch.get_default_dtype())


def asked(*pictures: PILImage.Image) -> Trace:
    parts = [part for i, p in enumerate(pictures) for part in (Image(p), Text(f" picture {i} "))]
    return Trace("a", (Message("user", (*parts, Text("what is it?"))), Message("assistant", (Text("a hole"),))))


def stock(backbone) -> Idefics3Processor:
    """That of SmolVLM writes the same rows, and needs a package for its videos."""
    return Idefics3Processor(backbone.image_processor, backbone.tokenizer, image_seq_len=backbone.side**2)


@pytest.mark.parametrize("size", SIZES)
def test_rows_and_pixels_are_those_of_the_stock_processor(size, backbone):
    picture = noise(*size)
    given = stock(backbone)(text="<image>", images=[picture], return_tensors="pt", add_special_tokens=False)
    ids = [
        i
        for mark, n in backbone.image_layout(picture)
        for i in [
            *backbone.tokenizer(mark, add_special_tokens=False)["input_ids"],
            *[backbone.tokenizer.convert_tokens_to_ids("<image>")] * n,
        ]
    ]
    assert ids == given["input_ids"][0].tolist()
    looked = backbone.preprocess_images([picture])
    assert torch.equal(looked.pixels, given["pixel_values"][0]) and backbone.num_positions(looked) == [len(ids)]
    rows, columns = looked.grid[0, :2].tolist()
    assert len(looked.pixels) == rows * columns + 1 > 2


@float64
def test_logits_are_those_of_the_stock_model(backbone):
    reasoner = methods.build_method("direct", backbone).eval()
    trace = asked(noise(128, 64), noise(64, 64, 1))
    batch = training_batch(reasoner, [trace])
    states = backbone.forward_text(reasoner.embed_batch(batch), batch.mask, backbone.position_ids(batch))
    pictures = [backbone.preprocess_images([p]).pixels for p in trace.images()]
    wanted = backbone.model(
        input_ids=batch.ids, attention_mask=batch.mask.long(), pixel_values=torch.cat(pictures)[None]
    )
    assert_close(backbone.logits(states), wanted.logits)


@float64
def test_a_picture_is_seen_whole_after_its_tiles(backbone):
    picture = noise(128, 64)
    looked = backbone.preprocess_images([picture, picture])
    whole = backbone.preprocess_images([picture], tiled=False)
    assert whole.grid.tolist() == [[0, 0, backbone.side]] and len(whole.pixels) == 1
    tokens = backbone.image_embeddings(looked)
    assert [len(t) for t in tokens] == [(2 * 1 + 1) * backbone.side**2] * 2
    for first, second in zip(backbone.encode_images(looked), backbone.token_grids(looked), strict=True):
        assert len(first) == second[0] * second[1]
    assert_close(backbone.encode_images(looked)[0], tokens[0][-(backbone.side**2) :])
    assert not torch.equal(tokens[0][: backbone.side**2], tokens[0][backbone.side**2 : 2 * backbone.side**2])


@float64
def test_rows_do_not_see_each_other_and_pack(backbone, make_traces):
    case = next(c for c in CASES if c.options.get("head") == "mlp" and c.options.get("supervise") == "full")
    reasoner = ready(case, lambda _: backbone, make_traces)
    alone, together = both(reasoner, make_traces(), budget=400)
    same(losses(reasoner, alone), losses(reasoner, together))


def test_a_veil_hides_all_tiles_of_a_picture(backbone, make_traces):
    reasoner = methods.build_method("monet", backbone, k=3, stage=2)
    batch = training_batch(reasoner, make_traces())
    hidden = hide_observed_images(batch, backbone)
    for (row, start, h, w), (picture, *_) in zip(batch.spans.tolist(), batch.boxes, strict=True):
        size = backbone.num_positions(batch.images)[picture]
        sees = hidden.attention_mask[row, start + h * w]
        assert size > 2 * backbone.side**2 and not sees[start - size - 1 : start].any() and sees[start - size - 2]


def test_a_checkpoint_remembers_and_an_option_decides(backbone, tmp_path):
    checkpoint.save(methods.build_method("direct", backbone), tmp_path / "model")
    again, _ = checkpoint.load(tmp_path / "model")
    picture = noise(128, 64)
    assert (
        again.backbone.image_layout(picture) == backbone.image_layout(picture)
        and len(backbone.image_layout(picture)) == 4
    )
    whole = load_backbone(str(tmp_path / "model" / "backbone"), tiles=False)
    assert len(whole.image_layout(picture)) == 2


def test_an_adapters_checkpoint_remembers_how_pictures_were_taken(backbone, tmp_path):
    methods.build_method("direct", backbone)
    for part in (backbone.model, backbone.tokenizer, backbone.image_processor):
        part.save_pretrained(tmp_path / "base")
    trained = load_backbone(str(tmp_path / "base"), tiles=False, dtype=torch.bfloat16)
    reasoner = methods.build_method("direct", trained)
    adapters.add(reasoner, rank=2)
    checkpoint.save(reasoner, tmp_path / "model")
    again = checkpoint.load(tmp_path / "model")[0].backbone
    assert len(again.image_layout(noise(128, 64))) == 2 and again.model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="so its vision_encoder and connector would not be saved"):
        set_trainable(reasoner, ["lora", "connector"])


def test_a_black_tile_is_a_tile(backbone):
    backbone.image_processor.do_normalize = False
    picture = noise(128, 64)
    picture.paste((0, 0, 0), (64, 0, 128, 64))
    assert [len(t) for t in backbone.image_embeddings(backbone.preprocess_images([picture]))] == [3 * backbone.side**2]


def test_a_family_that_is_read_whole_says_so():
    with pytest.raises(ValueError, match="tiles: QwenVL takes whole images here"):
        load_backbone("tiny", tiles=True)

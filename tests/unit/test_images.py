"""Every way into a model sees the same pixels of a picture: data, traces, exported models, a collator fed by hand."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from latent_reason.data.pictures import ImageFolder
from latent_reason.images import ORIENTATION, to_rgb
from latent_reason.trace import Image, Message, Sketch, Text, Trace


def encoded(image: PILImage.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def gradient(mode: str = "RGB", size=(128, 64)) -> PILImage.Image:
    columns = np.linspace(0, 255, size[0]).astype(np.uint8)[None].repeat(size[1], 0)
    return PILImage.fromarray(np.stack([columns, columns // 2, 255 - columns], -1)).convert(mode)


def odd_files() -> dict[str, bytes]:
    """Files that naive readers see in another way: turned, with transparency, in 16 bits, animated, gray, CMYK."""
    exif = PILImage.Exif()
    exif[ORIENTATION] = 6
    clear = gradient("RGBA")
    clear.putalpha(gradient("L"))
    palette = gradient("P")
    deep = PILImage.fromarray((np.asarray(gradient("L")).astype(np.uint16) << 8) + 7)
    frames = [gradient(), gradient().rotate(180)]
    return {
        "turned": encoded(gradient(), "JPEG", exif=exif),
        "alpha": encoded(clear),
        "gray alpha": encoded(clear.convert("LA")),
        "palette transparency": encoded(palette, transparency=5),
        "16 bits": encoded(deep),
        "animated": encoded(frames[0], save_all=True, append_images=frames[1:]),
        "animated webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "gray": encoded(gradient("L")),
        "1 bit": encoded(gradient("1")),
        "CMYK": encoded(gradient("CMYK"), "JPEG"),
        "with metadata": encoded(gradient(), dpi=(72, 72)),
    }


ODD = odd_files()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, PILImage.Image]:
    """What the readers of data sets make of the files."""
    folder = tmp_path_factory.mktemp("odd")
    for name, data in ODD.items():
        (folder / name).write_bytes(data)
    images = ImageFolder(folder)
    return {name: images.load(name, "image", lambda kind, sentence: None) for name in ODD}


@pytest.mark.parametrize("name", ODD)
def test_traces_hold_the_pixels_of_training(name, loaded):
    opened = PILImage.open(BytesIO(ODD[name]))
    for part in (Image(opened).image, Sketch(opened).image):
        assert part.mode == "RGB" and part.size == loaded[name].size and part.tobytes() == loaded[name].tobytes()
    assert to_rgb(loaded[name]) is loaded[name], "an RGB image is not copied"


def test_a_damaged_orientation_tag_turns_nothing():
    image = gradient()
    image.info["exif"] = b"Exif\x00\x00garbage"
    assert to_rgb(image).tobytes() == gradient().tobytes()


def test_a_dark_image_in_16_bits_is_dark():
    dark = PILImage.fromarray(np.full((2, 2), 200, np.uint16))
    assert dark.mode == "I;16" and np.asarray(to_rgb(dark)).max() == 0


def test_small_values_in_32_bits_stay_as_they_are():
    assert np.asarray(to_rgb(PILImage.fromarray(np.full((2, 2), 200, np.int32)))).tolist()[0][0] == [200] * 3
    assert np.asarray(to_rgb(PILImage.fromarray(np.full((2, 2), 51_200, np.int32)))).tolist()[0][0] == [200] * 3


@pytest.mark.parametrize("name", ["turned", "alpha", "palette transparency", "16 bits", "animated"])
def test_models_see_the_pixels_of_training(name, loaded, make_backbone):
    """A turned picture has other sides, so its token grid differs, too."""
    backbone, opened = make_backbone(), PILImage.open(BytesIO(ODD[name]))
    by_hand, trained = (backbone.preprocess_images([image]) for image in (opened, loaded[name]))
    assert torch.equal(by_hand.grid, trained.grid) and torch.equal(by_hand.pixels, trained.pixels)
    assert backbone.token_grid(Image(opened).image) == backbone.token_grids(trained)[0]


def test_an_exported_model_is_asked_with_the_pixels_of_training(loaded, make_backbone):
    """``generate_interleaved`` makes the prompt that the processor makes of a record."""
    from latent_reason import methods
    from latent_reason.checkpoint.hf.modeling import LatentReasonModel

    reasoner, prompts = methods.build_method("modal_mixed", make_backbone(), k=4), []

    class Asked(Exception):
        pass

    class Model(LatentReasonModel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.reasoner = reasoner

        def rollout(self, batch, **options):
            prompts.append(batch)
            raise Asked

    for name, data in ODD.items():
        with pytest.raises(Asked):
            Model().generate_interleaved(PILImage.open(BytesIO(data)), "where?")
        record = Trace("q", (Message("user", (Image(loaded[name]), Text("where?"))),))
        trained = reasoner.processor([record], generate=True)
        assert torch.equal(prompts[-1].ids, trained.ids), name
        assert torch.equal(prompts[-1].images.pixels, trained.images.pixels), name

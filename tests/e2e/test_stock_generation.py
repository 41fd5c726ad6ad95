"""generate() of transformers on an exported checkpoint that AutoModel loads with its own code."""

from __future__ import annotations

import pytest
import torch
from native_records import picture as noise
from tiny_runs import tiny_checkpoint
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    TextIteratorStreamer,
    set_seed,
)

from latent_reason.checkpoint.export.exporter import export
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.contracts.closeness import assert_close

FIRST = {"latent_mode": "first", "max_new_tokens": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(tiny_checkpoint(), tmp_path_factory.mktemp("stock") / "model")


@pytest.fixture(scope="module", params=["its own code", "the library"])
def model(folder, request):
    if request.param == "the library":
        return LatentReasonForConditionalGeneration.from_pretrained(folder)
    return AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)


@pytest.fixture
def inputs(model):
    return model.inputs_for(noise(3), "Which way?")


def written(model, inputs, output, row=0) -> str:
    return model.tokenizer.decode(output.sequences[row, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def check_same(model, inputs, output, answer):
    """An output of generate is an answer of generate_interleaved."""
    assert written(model, inputs, output) == answer.text
    assert torch.equal(output.sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    assert len(output.latents[0]) == len(answer.latents) > 0
    for ours, theirs, span in zip(output.latents[0], answer.latents, output.spans[0], strict=True):
        assert_close(ours, theirs)
        start = inputs["input_ids"].shape[1] + span.start
        assert (output.sequences[0, start : start + span.length] == model.reasoner.vocabulary.latent).all()
    assert [image.tobytes() for image in output.images[0]] == [image.tobytes() for image in answer.images]


def test_greedy_search_is_generate_interleaved(model, inputs):
    answer = model.generate_interleaved(noise(3), "Which way?", **FIRST)
    check_same(model, inputs, model.generate(**inputs, **FIRST), answer)
    config = GenerationConfig(max_new_tokens=40)
    check_same(model, inputs, model.generate(**inputs, generation_config=config, latent_mode="first"), answer)


def test_sampling_is_generate_interleaved_with_its_seed(model, inputs):
    options = FIRST | {"temperature": 0.7, "top_p": 0.9, "top_k": 30, "seed": 5}
    answer = model.generate_interleaved(noise(3), "Which way?", **options)
    check_same(model, inputs, model.generate(**inputs, do_sample=True, **options), answer)


def test_sampling_without_a_seed_follows_torch(model, inputs):
    found = []
    for seed in (0, 0, 1):
        set_seed(seed)
        found.append(model.generate(**inputs, do_sample=True, **FIRST).sequences)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert not torch.equal(found[2], model.generate(**inputs, do_sample=True, **FIRST).sequences)


def test_custom_generate_of_the_folder(model, inputs, folder):
    plain = model.generate(**inputs, **FIRST)
    custom = model.generate(**inputs, **FIRST, custom_generate=str(folder), trust_remote_code=True)
    assert torch.equal(custom.sequences, plain.sequences) and len(custom.images[0]) == len(plain.images[0])


def test_a_function_as_custom_generate(model, inputs):
    """transformers prepares everything for it, as for models of its own."""

    def first_tokens(model, input_ids, logits_processor, stopping_criteria, generation_config, **others):
        logits = model(input_ids, pixel_values=others["pixel_values"], image_grid=others["image_grid"]).logits[:, -1]
        return logits_processor(input_ids, logits).argmax(-1), generation_config.max_length, len(stopping_criteria)

    token, length, count = model.generate(**inputs, custom_generate=first_tokens, max_new_tokens=7)
    assert token.shape == (1,) and length == inputs["input_ids"].shape[1] + 7 and count == 2


class Forbid(LogitsProcessor):
    def __init__(self, tokens):
        self.tokens, self.lengths = tokens, []

    def __call__(self, input_ids, scores):
        self.lengths.append(input_ids.shape[1])
        return scores.index_fill(1, self.tokens, float("-inf"))


def test_a_logits_processor_forbids_a_token(model, inputs):
    n = inputs["input_ids"].shape[1]
    plain = model.generate(**inputs, **FIRST).sequences[0, n:]
    v = model.reasoner.vocabulary
    token = next(i for i in plain.tolist() if i not in (v.open, v.latent, v.close))
    forbid = Forbid(torch.tensor([token]))
    output = model.generate(**inputs, **FIRST, logits_processor=[forbid])
    assert token in plain and token not in output.sequences[0, n:]
    assert forbid.lengths == sorted(forbid.lengths) and set(forbid.lengths) <= set(range(n, n + 40))
    assert token not in model.generate(**inputs, **FIRST, suppress_tokens=[token]).sequences[0, n:]


class Count(StoppingCriteria):
    """Stops at a length."""

    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **options):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


def test_rows_end_by_stop_strings_ends_and_criteria(model, inputs):
    n, end = inputs["input_ids"].shape[1], model.reasoner.vocabulary.end
    drawn = {"do_sample": True, "seed": 2, "suppress_tokens": [end], "latent_mode": "off"}
    options = drawn | {"max_new_tokens": 40}
    whole = model.generate(**inputs, **options)
    assert whole.sequences.shape[1] == n + 40
    text = written(model, inputs, whole)
    stop = next(text[at : at + 2] for at in range(6, len(text)) if text[at : at + 2].isalnum())
    stopped = model.generate(**inputs, **options, stop_strings=[stop], tokenizer=model.tokenizer)
    assert stop in written(model, inputs, stopped) and stopped.sequences.shape[1] < n + 40
    token = int(whole.sequences[0, n + 5])
    at = whole.sequences[0, n:].tolist().index(token)
    assert model.generate(**inputs, **options, eos_token_id=[token]).sequences.shape[1] == n + at + 1
    assert model.generate(**inputs, **options, stopping_criteria=[Count(n + 9)]).sequences.shape[1] == n + 9
    assert model.generate(**inputs, **drawn, max_length=n + 12).sequences.shape[1] == n + 12


def test_rows_of_a_batch_are_what_they_are_alone(model):
    questions = ["Which way?", "Where is the elf, and which way does it go now?"]
    alone = [model.inputs_for([], question) for question in questions]
    width = max(one["input_ids"].shape[1] for one in alone)

    def pad(name, value):
        rows = [torch.nn.functional.pad(x[name], (width - x[name].shape[1], 0), value=value) for x in alone]
        return torch.cat(rows)

    together = {
        "input_ids": pad("input_ids", model.reasoner.vocabulary.pad),
        "attention_mask": pad("attention_mask", 0),
    }
    output = model.generate(**together, **FIRST)
    for row, one in enumerate(alone):
        expected = model.generate(**one, **FIRST)
        assert written(model, together, output, row) == written(model, one, expected)
        assert len(output.latents[row]) == len(expected.latents[0]) > 0


def test_text_is_streamed(model, inputs):
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=5)
    output = model.generate(**inputs, **FIRST, streamer=streamer)
    assert "".join(streamer) == written(model, inputs, output)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"num_beams": 2}, "greedy search or sampling"),
        ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences must be 1"),
        ({"latent_modes": "off"}, "latent_modes"),
        ({"latent_mode": "on"}, "must be 'learned', 'off' or 'first'"),
    ],
)
def test_what_is_not_there_is_refused(model, inputs, options, said):
    with pytest.raises(ValueError, match=said):
        model.generate(**inputs, max_new_tokens=8, **options)

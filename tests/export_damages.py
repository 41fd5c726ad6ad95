"""Damages to an exported folder, each of which one of its ten checks has to see. tests/unit/test_export_checks.py tries
them."""

from __future__ import annotations

import json
import pickle
import re
import shutil

import torch
from safetensors.torch import load_file, save_file

from latent_reason import checkpoint

WEIGHTS, INDEX, PROBE = "model.safetensors", "model.safetensors.index.json", "probe.safetensors"
HEAD, TABLE = "reasoner.head.net.0.bias", "reasoner.backbone.model.model.language_model.embed_tokens.weight"
DAMAGES = {}


def damage(number, kind="one"):
    """Notes a way to damage a folder that the check of this number is there for."""

    def noted(function):
        DAMAGES[f"{number}-{function.__name__}"] = number, kind, function
        return function

    return noted


def edit(file, **changes):
    """Change keys of a JSON file (None: remove) and keep its form."""
    text = file.read_text()
    given = json.loads(text) | changes
    given = {name: value for name, value in given.items() if changes.get(name, 0) is not None}
    sort = list(json.loads(text)) == sorted(json.loads(text))
    file.write_text(json.dumps(given, indent=2, sort_keys=sort) + "\n" * text.endswith("\n"))


def change(file, **changes):
    """Change tensors of a file; None removes one."""
    with_all = load_file(file) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({n: t for n, t in with_all.items() if t is not None}, file, metadata={"format": "pt"})


def tensor(folder, name, file=WEIGHTS):
    return load_file(folder / file)[name]


@damage(1)
def a_weight_with_another_name(folder):
    change(folder / WEIGHTS, **{HEAD: None, HEAD + "2": tensor(folder, HEAD)})


@damage(1)
def a_weight_of_another_shape(folder):
    change(folder / WEIGHTS, **{HEAD: torch.zeros(3)})


@damage(1)
def an_unknown_method(folder):
    edit(folder / "config.json", method="modal_mixd")


@damage(1)
def no_decoder(folder):
    shutil.rmtree(folder / "decoder")


@damage(1, "adapter")
def half_an_adapter(folder):
    file = folder / "adapter_model.safetensors"
    name = next(name for name in load_file(file) if "lora_A" in name)
    change(file, **{name: None})
    edit(folder / checkpoint.CONFIG_FILE, files={})  # or its size would tell


@damage(2)
def a_weight_that_is_not_finite(folder):
    value = tensor(folder, HEAD)
    value[0] = float("nan")
    change(folder / WEIGHTS, **{HEAD: value})


@damage(2)
def a_weight_of_another_precision(folder):
    change(folder / WEIGHTS, **{TABLE: tensor(folder, TABLE).bfloat16()})


@damage(2)
def half_a_file(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


@damage(2, "shards")
def a_shard_that_is_gone(folder):
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


@damage(2, "shards")
def a_weight_in_two_shards(folder):
    first, second, *_ = sorted(folder.glob("model-*.safetensors"))
    name, value = next(iter(load_file(first).items()))
    change(second, **{name: value})


@damage(2, "shards")
def an_index_that_adds_up_wrong(folder):
    index = json.loads((folder / INDEX).read_text())
    edit(folder / INDEX, metadata=index["metadata"] | {"total_size": 7})


@damage(2, "shards")
def an_index_of_another_form(folder):
    edit(folder / INDEX, metadata=[])


@damage(2, "shards")
def weights_outside_of_the_folder(folder):
    named = json.loads((folder / INDEX).read_text())["weight_map"]
    shutil.copy(folder / named[HEAD], folder.parent / "elsewhere.safetensors")
    edit(folder / INDEX, weight_map=named | {HEAD: "../elsewhere.safetensors"})


@damage(3)
def other_logits(folder):
    change(folder / PROBE, logits=tensor(folder, "logits", PROBE) + 0.01)


@damage(3)
def another_sketch(folder):
    change(folder / PROBE, latents=tensor(folder, "latents", PROBE).flip(0))


@damage(3)
def no_sketch(folder):
    change(folder / PROBE, latents=None)


@damage(3)
def no_stored_batch(folder):
    (folder / PROBE).unlink()


@damage(4)
def a_template_without_sketches(folder):
    file = folder / "chat_template.jinja"
    file.write_text(re.sub(r"\{%- elif part\['type'\] == 'sketch' -%\}\n.*\n", "", file.read_text()))


@damage(4)
def a_template_that_never_ends(folder):
    """It is not rendered, as it is not the one of this version."""
    loop = "{%- for i in range(99999) -%}"
    (folder / "chat_template.jinja").write_text(loop * 5 + "{{- 'x' * 99999 -}}" + "{%- endfor -%}" * 5)


@damage(4)
def another_id_of_a_control_token(folder):
    tokens = json.loads((folder / "config.json").read_text())["control_tokens"]
    edit(folder / "config.json", control_tokens=tokens | {"close": [tokens["close"][0], tokens["close"][1] - 1]})


@damage(4)
def fewer_rows_than_declared(folder):
    change(folder / WEIGHTS, **{TABLE: tensor(folder, TABLE)[:-1]})


@damage(5)
def no_padding(folder):
    edit(folder / "generation_config.json", pad_token_id=None)


@damage(5)
def a_longest_answer(folder):
    edit(folder / "generation_config.json", max_length=20)


@damage(6)
def an_import_of_another_package(folder):
    with open(folder / "latent_reason_trace.py", "a") as file:
        file.write("\nimport requests\n")


@damage(6)
def code_that_is_gone(folder):
    (folder / "latent_reason_decoding.py").unlink()


@damage(6)
def a_requirement_left_out(folder):
    file = folder / "requirements.txt"
    file.write_text(file.read_text().replace("einops\n", ""))


def rewrite(folder, pattern, new, file="README.md"):
    text = (folder / file).read_text()
    assert re.search(pattern, text)
    (folder / file).write_text(re.sub(pattern, new, text, count=1))


@damage(7)
def a_head_that_is_no_yaml(folder):
    rewrite(folder, "license: ", "license: [")


@damage(7)
def a_head_without_a_licence(folder):
    rewrite(folder, "license: .*\n", "")


@damage(7, "adapter")
def a_head_without_the_base(folder):
    rewrite(folder, "base_model: .*\n", "")


@damage(7)
def words_of_a_template(folder):
    rewrite(folder, "## Limits\n", "## Limits\n\n[More Information Needed]\n")


@damage(7)
def no_snippet(folder):
    rewrite(folder, "```python", "```")


@damage(8)
def a_path_of_this_machine(folder):
    (folder / "recipe.yaml").write_text(f"run: {folder.resolve()}\n")


@damage(8)
def a_token(folder):
    rewrite(folder, "## Limits\n", f"## Limits\n\nhf_{'a' * 34}\n")


@damage(8)
def a_pickle(folder):
    (folder / "optimizer.pt").write_bytes(pickle.dumps({}))


@damage(8)
def a_pickle_under_another_name(folder):
    (folder / "eval.json").write_bytes(pickle.dumps({}))


@damage(8)
def a_stray_file(folder):
    (folder / "notes.docx").write_text("mine")


@damage(8)
def a_link(folder):
    (folder / "sketches.png").unlink(missing_ok=True)
    (folder / "sketches.png").symlink_to(folder / "example.png")


@damage(8)
def a_state_of_training(folder):
    save_file({"optimizer.exp_avg": torch.zeros(1)}, folder / "reasoner.safetensors")


@damage(9)
def a_configuration_written_by_hand(folder):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4))


@damage(9)
def a_processor_written_by_hand(folder):
    file = folder / "processor_config.json"
    file.write_text(file.read_text() + "\n")


@damage(10, "adapter")
def an_adapter_that_was_another_when_merged(folder):
    change(folder / PROBE, merged=tensor(folder, "merged", PROBE) + 0.01)

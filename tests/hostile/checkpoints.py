"""Checkpoints of strangers: each row damages a small good one. A row is (kind, what it does, how, words of the sentence that
loading it ends with). ``ROWS`` is the catalogue."""

from __future__ import annotations

import json
import os
import shutil
import struct
from functools import cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_runs import BACKBONE, place, tiny_checkpoint, untrained

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.export import exporter
from latent_reason.folders import MAX_TEXT_BYTES
from latent_reason.model import adapters
from latent_reason.model.backbones import load_backbone
from latent_reason.model.backbones.encoders import load_encoder

CARD = checkpoint.CONFIG_FILE
ENCODER, HUB = "encoder", "hub-cache"  # folders of a checkpoint
ROWS = []
ROOM = 4 * 2**30  # bytes that loading a tiny checkpoint may add, for libraries that reserve addresses


# -- good checkpoints --------------------------------------------------------------------------------------------------
@cache
def good(kind: str) -> Path:
    """A small checkpoint: in this library's layout, as transformers loads it, with an adapter, with an adapter of a model in
    the Hub cache (``HUB``), or beside an external encoder (``ENCODER``)."""
    if kind == "checkpoint":
        return tiny_checkpoint()
    folder = place() / f"hostile-{kind}"
    if kind == "encoder":
        reasoner = methods.build_method("skila", load_backbone("tiny", **BACKBONE))
        checkpoint.save(reasoner, folder)
        load_encoder("tiny").model.save_pretrained(folder / ENCODER)
        return folder
    reasoner, decoder = untrained()
    if kind in ("adapter", "hub"):
        adapters.add(reasoner, rank=2)
        checkpoint.save(reasoner, folder)
        if kind == "hub":
            snapshot = folder / HUB / "models--me--stock" / "snapshots" / ("a" * 40)
            shutil.move(folder / "backbone" / "base", snapshot)
            write(folder / HUB / "models--me--stock" / "refs" / "main", "a" * 40)
            edit(folder, CARD, "base", value="me/stock")
            edit(folder, CARD, "files", value={})
        return folder
    folder.mkdir()
    exporter.write_model(exporter.model_of(reasoner, decoder), folder, "5GB")
    exporter.write_card(folder, exporter.describe(reasoner, {}, True, "5GB"))
    return folder


def copy_of(kind: str, folder: Path) -> Path:
    """A copy by hard links: a damage has to write its files anew."""
    return shutil.copytree(good(kind), folder, copy_function=os.link)


def write(file: Path, data: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def edit(folder: Path, name: str, *path: str, value) -> None:
    """Set the value at a path of keys in a JSON file; None removes the key."""
    whole = json.loads((folder / name).read_text())
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    if value is None:
        del inner[path[-1]]
    write(folder / name, json.dumps(whole))


def change(folder: Path, name: str, key: str, function) -> None:
    """Replace one tensor of a file by what ``function`` makes of it; the sizes of files are not compared."""
    weights = load_file(folder / name)
    found = next(n for n in weights if n.endswith(key))
    weights[found] = function(weights[found].clone()).contiguous()
    (folder / name).unlink()
    save_file(weights, folder / name, metadata={"format": "pt"})
    edit(folder, CARD, "files", value={})


def poison(tensor: torch.Tensor, number: float = float("nan")) -> torch.Tensor:
    tensor.view(-1)[-1] = number
    return tensor


def link(folder: Path, name: str, target: str | Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def pipe(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


def header(folder: Path, name: str, function) -> None:
    """Replace the JSON header of a safetensors file by what ``function`` makes of it."""
    data = (folder / name).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    new = json.dumps(function(json.loads(data[8 : 8 + size]))).encode()
    write(folder / name, struct.pack("<Q", len(new)) + new + data[8 + size :])
    edit(folder, CARD, "files", value={})


def huge_shape(entries: dict) -> dict:
    name = next(n for n in entries if n != "__metadata__")
    return entries | {name: entries[name] | {"shape": [10**9, 10**9]}}


def row(kind: str, what: str, damage, *words: str) -> None:
    ROWS.append((kind, what, damage, words))


def rows(kinds: str, what: str, damage, *words: str) -> None:
    """One row for each of several kinds; ``{config}`` is the folder of the stock model's files."""
    for kind in kinds.split():
        row(kind, what, damage, *words)


def stock(folder: Path) -> Path:
    """Where the files of the stock model are."""
    return folder / "backbone" if (folder / "backbone").is_dir() else folder


def in_stock(name: str, *path: str, value):
    """A damage of a JSON file of the stock model."""
    return lambda folder: edit(stock(folder), name, *path, value=value)


def in_config(*path: str, value):
    """A damage of the configuration of the stock model, in either layout."""

    def damage(folder: Path) -> None:
        whole = (folder / "backbone").is_dir()
        edit(stock(folder), "config.json", *(() if whole else ("backbone_config",)), *path, value=value)

    return damage


def in_card(*path: str, value):
    return lambda folder: edit(folder, CARD, *path, value=value)


def both(*damages):
    return lambda folder: [damage(folder) for damage in damages]


BOTH = "checkpoint export"
# -- files -------------------------------------------------------------------------------------------------------------
rows(BOTH, "A named pipe stands in the folder.", lambda f: pipe(f, "notes.txt"), "notes.txt' is a named pipe")
row("checkpoint", "The weights are a named pipe.", lambda f: pipe(f, "reasoner.safetensors"), "is a named pipe")
row("checkpoint", "The description is a named pipe.", lambda f: pipe(f, CARD), "it has no latent_reason.json")
rows(BOTH, "A link leads to a device without an end.", lambda f: link(f, "notes.txt", "/dev/zero"), "leaves the folder")
rows(
    BOTH, "A link leads to a file of this machine.", lambda f: link(f, "README.md", "/etc/passwd"), "leaves the folder"
)
rows(BOTH, "A folder is a link to another place.", lambda f: link(f, "more", "/etc"), "leaves the folder")
row("checkpoint", "A link leads nowhere.", lambda f: link(f, "notes.txt", "gone"), "notes.txt' cannot be read")


def grow(folder: Path) -> None:
    write(folder / CARD, (folder / CARD).read_bytes())
    os.truncate(folder / CARD, MAX_TEXT_BYTES + 1)


rows(BOTH, "The description is larger than any JSON of a model.", grow, "bytes, more than")
DEEP = "[" * 100_000 + "]" * 100_000
rows(BOTH, "The description is nested 100,000 lists deep.", lambda f: write(f / CARD, DEEP), "is not readable JSON")
rows(
    BOTH,
    "The configuration is nested 100 lists deep.",
    in_config("pad_token_id", value=json.loads("[" * 100 + "]" * 100)),
    "nested deeper",
)
row(
    "checkpoint", "A number has 5,000 digits.", lambda f: write(f / CARD, f'{{"format": {"9" * 5000}}}'), "not readable"
)
row("checkpoint", "The description is no UTF-8.", lambda f: write(f / CARD, b"\xff\xfe{}"), "not readable JSON")

# -- latent_reason.json ------------------------------------------------------------------------------------------------
row("checkpoint", "Means of slots are text.", in_card("slot_means", value="9"), "says slot_means: '9'")
row("checkpoint", "Means of slots are negative.", in_card("slot_means", value=[-1, 4]), "slot_means: [-1, 4]")
row("checkpoint", "Means of slots are endless.", in_card("slot_means", value=[9**9, 9**9]), "says slot_means")
row(
    "checkpoint",
    "The way latents are fed is unknown.",
    in_card("feedback", value="x"),
    "says feedback: 'x', expected raw",
)
row("checkpoint", "The way latents are fed is a number.", in_card("feedback", value=2), "says feedback: '2'")
row(
    "checkpoint",
    "Latents are said to be scaled.",
    in_card("feedback", value="norm_matched"),
    "feedback_gain is missing",
)
row("checkpoint", "Options are a list.", in_card("options", value=[]), "says options: '[]', which cannot be")
row("checkpoint", "A method is a number.", in_card("method", value=7), "says method: '7'")
row("checkpoint", "The base is a list.", in_card("base", value=["x"]), "says base")
row("checkpoint", "The data it was trained on are a list.", in_card("notes", "data", value=[1]), "says notes.data")
row("checkpoint", "A control token has no id.", in_card("control_tokens", "open", value="<s>"), "control_tokens: open")
row(
    "checkpoint", "There is another role of tokens.", in_card("control_tokens", "evil", value=["a", 1]), "expected open"
)
row("checkpoint", "It lists a file outside.", in_card("files", "../../key", value=3), "none of this folder")
row(
    "checkpoint", "The dtype is a function of torch.", in_card("dtype", value="load"), "dtype 'load', which torch lacks"
)
row(
    "checkpoint",
    "The dtype is not that of the weights.",
    in_card("dtype", value="bfloat16"),
    "in float32, but",
    "bfloat16",
)
for value, what in ((5, "a number"), ([9**9, 4], "endless")):
    row(
        "export",
        f"Means of slots of an export are {what}.",
        lambda folder, value=value: edit(folder, "config.json", "slot_means", value=value),
        "says slot_means",
    )
row("export", "The dtype is not that of the weights.", in_card("dtype", value="float16"), "in float32, but", "float16")
row(
    "checkpoint",
    "A head of gigabytes.",
    in_card("options", "head_options", value={"hidden": 65536}),
    "instead of (65536, ",
    "reasoner.safetensors' does not fit",
)
row(
    "checkpoint",
    "A head of a thousand million layers.",
    both(in_card("options", "head", value="flow"), in_card("options", "head_options", value={"depth": 10**9})),
    "says depth: 1,000,000,000, but there are only",
)
row(
    "checkpoint",
    "A span of 10^15 latents.",
    in_card("options", "k", value=10**15),
    "says k: 1000000000000000, which no",
)
row(
    "checkpoint", "The method is a module of somebody.", in_card("method", value="evil.method"), "names a method of the"
)
row(
    "checkpoint",
    "The head is a class of somebody.",
    in_card("options", "head", value="evil:Head"),
    "names a head of the",
)
row(
    "checkpoint",
    "The backbone is a class of somebody.",
    in_card("backbone_class", value="evil:Net"),
    "names a backbone",
)

# -- configuration of the stock model ----------------------------------------------------------------------------------
rows(BOTH, "The model is a thousand million wide.", in_config("text_config", "hidden_size", value=10**9), "describes")
rows(BOTH, "Sizes overflow.", in_config("text_config", "hidden_size", value=10**12), "cannot be read", "overflowed")
rows(BOTH, "A size is beyond all models.", in_config("text_config", "hidden_size", value=10**13), "which no model has")
rows(BOTH, "A size is negative.", in_config("text_config", "hidden_size", value=-8), "cannot")
rows(BOTH, "A size is a word.", in_config("text_config", "hidden_size", value="wide"), "cannot be read")
rows(
    BOTH, "It has a million layers.", in_config("text_config", "num_hidden_layers", value=10**6), "1,000,000, but there"
)
rows(BOTH, "It has 10^10 layers.", in_config("text_config", "num_hidden_layers", value=10**10), "but there are only")
rows(BOTH, "The encoder has 10^10 layers.", in_config("vision_config", "depth", value=10**10), "but there are only")
rows(BOTH, "It has a vocabulary of 10^10.", in_config("text_config", "vocab_size", value=10**10), "describes")
rows(BOTH, "It has no attention heads.", in_config("text_config", "num_attention_heads", value=0), "cannot be read")
rows(BOTH, "Its kind is unknown.", in_config("model_type", value="evil"), "of the kind 'evil'")
rows(BOTH, "Its kind is no vision-language model.", in_config("model_type", value="llama"), "is not supported")
CODE = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
rows(BOTH, "It names code of its own.", in_config("auto_map", value=CODE), "names code of its own (auto_map)")
rows(
    BOTH,
    "Its kind is unknown, and code of the folder would define it.",
    both(in_config("model_type", value="evil"), in_config("auto_map", value=CODE)),
    "config.json' ",
)
rows(BOTH, "Its weights are quantized.", in_config("quantization_config", value={"bits": 4}), "quantization_config")
rows(BOTH, "Its dtype is a function.", in_config("torch_dtype", value="load"), "names the dtype 'load'")
rows(BOTH, "Part of it has a dtype that is none.", in_config("text_config", "dtype", value="f"), "names the dtype 'f'")
rows(
    BOTH,
    "An adapter beside it names another model.",
    lambda f: write(stock(f) / "adapter_config.json", '{"base_model_name_or_path": "evil/model"}'),
    "adapter_config.json",
)
row(
    "export",
    "It has no stock model.",
    lambda f: edit(f, "config.json", "backbone_config", value=None),
    "backbone_config",
)
row(
    "export",
    "The configuration asks for a head of gigabytes.",
    lambda f: edit(f, "config.json", "options", "head_options", value={"hidden": 65536}),
    "do not fit config.json",
    "instead of (65536, ",
)
row(
    "export",
    "The configuration asks for another head of gigabytes.",
    both(
        lambda f: edit(f, "config.json", "options", "head", value="flow"),
        lambda f: edit(f, "config.json", "options", "head_options", value={"hidden": 60000, "depth": 50}),
    ),
    "describes a head of",
)

# -- weights -----------------------------------------------------------------------------------------------------------
OWN, WHOLE = "reasoner.safetensors", "model.safetensors"
row(
    "checkpoint",
    "A weight of the head is NaN.",
    lambda f: change(f, OWN, "net.0.bias", poison),
    "finite: head.net.0.bias",
)
row(
    "checkpoint",
    "A weight of the stock model is infinite.",
    lambda f: change(f, f"backbone/{WHOLE}", "embed_tokens.weight", partial(poison, number=float("inf"))),
    "finite: backbone.model.model.language_model.embed_tokens.weight",
)
DECODER = "decoder/diffusion_pytorch_model.safetensors"
rows(BOTH, "A weight of the decoder is NaN.", lambda f: change(f, DECODER, "where.bias", poison), "finite: where.bias")
row("export", "A weight is NaN.", lambda f: change(f, WHOLE, "net.0.bias", poison), "finite: reasoner.head.net.0.bias")
row(
    "export", "A weight is of another dtype.", lambda f: change(f, WHOLE, "net.0.bias", torch.Tensor.half), "in float16"
)
row(
    "checkpoint",
    "One weight of the stock model is of another dtype.",
    lambda f: change(f, f"backbone/{WHOLE}", "embed_tokens.weight", torch.Tensor.bfloat16),
    "in bfloat16, but",
)
row(
    "checkpoint",
    "A header claims petabytes.",
    lambda f: header(f, OWN, huge_shape),
    "reasoner.safetensors' cannot be read",
)
row("export", "A header claims petabytes.", lambda f: header(f, WHOLE, huge_shape), "cannot be read")
row(
    "checkpoint",
    "A header says it is 2^62 bytes long.",
    both(lambda f: write(f / OWN, struct.pack("<Q", 2**62) + b"{}"), in_card("files", value={})),
    "cannot be read",
)
row(
    "checkpoint",
    "The weights are empty.",
    both(lambda f: write(f / OWN, b""), in_card("files", value={})),
    "cannot be read",
)
row(
    "export",
    "The weights are a pickle.",
    both(lambda f: (f / WHOLE).rename(f / "pytorch_model.bin"), in_card("files", value={})),
    "holds no weights",
)

# -- tokenizer and image processor -------------------------------------------------------------------------------------
PROCESSOR = "preprocessor_config.json"


def in_processor(key: str, value):
    """A damage of the image processor, in every file that may hold it."""

    def damage(folder: Path) -> None:
        edit(stock(folder), PROCESSOR, key, value=value)
        if (folder / "processor_config.json").is_file():
            edit(folder, "processor_config.json", "image_processor", key, value=value)

    return damage


SIZES = {"shortest_edge": 10**12, "longest_edge": 10**12}
rows(BOTH, "Images are enlarged to 10^12 pixels.", in_processor("size", SIZES), "says shortest_edge: 1000000000000")
rows(BOTH, "Patches have no size.", in_processor("patch_size", 0), "says patch_size: 0")
rows(BOTH, "Patches are a million wide.", in_processor("patch_size", 10**6), "says patch_size: 1000000")
rows(BOTH, "A million patches are merged.", in_processor("merge_size", 10**6), "says merge_size: 1000000")
rows(BOTH, "The size is a word.", in_processor("size", "large"), "cannot be read")
DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
rows(
    BOTH,
    "The tokenizer doubles a text forty times.",
    in_stock("tokenizer.json", "normalizer", value={"type": "Sequence", "normalizers": [DOUBLE] * 40}),
    "times as long",
)
rows(BOTH, "The tokenizer is none.", in_stock("tokenizer.json", "model", value={"type": "evil"}), "cannot be read")
row(
    "checkpoint",
    "A control token has another id.",
    in_card("control_tokens", "open", value=["<|sketch_start|>", 5]),
    "has id",
)

# -- sketch decoder ----------------------------------------------------------------------------------------------------
for key, value, words in (
    ("depth", 10**9, "says depth: 1,000,000,000, but there are only"),
    ("width", 2_000_000, "its sizes differ"),
    ("patch", 10**6, "its sizes differ"),
    ("heads", 0, "says heads: 0, expected a whole number"),
    ("width", 1.5, "says width: 1.5, expected a whole number"),
    ("quantization_config", {"load_in_4bit": True}, "says quantization_config, which a sketch decoder does not have"),
):
    rows(
        BOTH,
        f"The sketch decoder says {key}: {value}.",
        lambda f, key=key, value=value: edit(f, "decoder/config.json", key, value=value),
        words,
    )

# -- adapters ----------------------------------------------------------------------------------------------------------
for what, key, value, words in (
    ("The pattern of modules takes for ever.", "target_modules", "(a*)*b", "may take for ever"),
    ("The pattern has thirty choices one after another.", "target_modules", "(.|.)" * 30, "may take for ever"),
    ("The pattern is none.", "target_modules", "(", "is not a regular expression"),
    ("The pattern is a list of numbers.", "target_modules", [1, 2], "target_modules"),
    ("The rank is a thousand million.", "r", 10**9, "says r: 1000000000, but the weights beside it have 2"),
    ("It names a module to import.", "megatron_config", {"a": 1}, "says megatron_config"),
    ("It names modules to save whole.", "modules_to_save", ["lm_head"], "says modules_to_save"),
    ("It copies layers a million times.", "layer_replication", [[0, 10**6]], "says layer_replication"),
    ("It reads a file for its start.", "init_lora_weights", "/etc/passwd", "says init_lora_weights"),
    ("It is another kind of adapter.", "peft_type", "XLORA", "does not describe a LoRA"),
    ("It is for a package of somebody.", "auto_mapping", {"parent_library": "evil.net"}, "which is not imported"),
    ("It trains other rows.", "trainable_token_indices", {"embed_tokens": [1]}, "trains other rows"),
    (
        "It trains a row that is not there.",
        "trainable_token_indices",
        {"embed_tokens": [1, 2, 10**9]},
        "cannot be read",
    ),
):
    row("adapter", what, in_stock("adapter_config.json", key, value=value), words)
ADAPTER = "backbone/adapter_model.safetensors"
row(
    "adapter",
    "A weight of the adapter is NaN.",
    lambda f: change(f, ADAPTER, "lora_A.weight", poison),
    "finite",
    "lora_A",
)
row("adapter", "The base is no folder.", in_card("base", value="gone"), "holds an adapter of 'gone'")
row("adapter", "The base is a class of somebody.", in_card("base", value="evil:Net@base"), "names a backbone")
row("adapter", "The base has a million layers.",
    lambda f: edit(f, "backbone/base/config.json", "text_config", "num_hidden_layers", value=10**6), "but there are only")  # fmt: skip
row(
    "adapter",
    "A weight of the adapter is of another dtype.",
    lambda f: change(f, ADAPTER, "lora_A.weight", torch.Tensor.half),
    "in float16, but",
)
row(
    "adapter",
    "A weight of its base is of another dtype.",
    lambda f: change(f, f"backbone/base/{WHOLE}", "embed_tokens.weight", torch.Tensor.bfloat16),
    "in bfloat16, but",
)
rows(
    "checkpoint adapter",
    "A weight of the head is of another dtype.",
    lambda f: change(f, OWN, "net.0.bias", torch.Tensor.double),
    "in float64, but",
)

# -- models that a checkpoint names ------------------------------------------------------------------------------------
SNAPSHOT = f"{HUB}/models--me--stock/snapshots/{'a' * 40}"


def in_snapshot(*path: str, value):
    """A damage of the configuration of a base in the Hub cache."""
    return lambda folder: edit(folder, f"{SNAPSHOT}/config.json", *path, value=value)


def beside_encoder(*path: str, value):
    """A damage of the configuration of the encoder that the checkpoint then names."""

    def damage(folder: Path) -> None:
        edit(folder, f"{ENCODER}/config.json", *path, value=value)
        edit(folder, CARD, "options", "encoder", value=str(folder / ENCODER))

    return damage


row("hub", "Its base is a thousand million wide.", in_snapshot("text_config", "hidden_size", value=10**9), "describes")
row("hub", "Its base has a vocabulary of 10^9.", in_snapshot("text_config", "vocab_size", value=10**9), "describes")
row("hub", "Its base has no weights.", lambda f: (f / SNAPSHOT / WHOLE).unlink(), "neither in the cache")
row("hub", "Its base names code of its own.", in_snapshot("auto_map", value=CODE), "names code of its own (auto_map)")
row("encoder", "The encoder is a million wide.", beside_encoder("hidden_size", value=10**6), "describes", "encoder=")
row("encoder", "The encoder has 10^9 layers.", beside_encoder("num_hidden_layers", value=10**9), "there are only")
row("encoder", "A size of the encoder is a word.", beside_encoder("hidden_size", value="wide"), "encoder=")
row("encoder", "The encoder names code of its own.", beside_encoder("auto_map", value=CODE), "names code of its own")
row(
    "encoder",
    "The encoder is quantized.",
    beside_encoder("quantization_config", value={"bits": 4}),
    "quantization_config",
)
row("encoder", "The encoder is another model.", beside_encoder("model_type", value="clip"), "is not a SigLIP model")
row(
    "encoder",
    "The weights of the encoder are a pickle.",
    both(
        beside_encoder("hidden_size", value=64),
        lambda f: (f / ENCODER / WHOLE).rename(f / ENCODER / "pytorch_model.bin"),
    ),
    "holds no weights",
)

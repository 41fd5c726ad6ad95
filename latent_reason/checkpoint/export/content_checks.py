"""Content checks of an exported folder: tokenizer and chat template, code, README, and unexpected files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open

from ...model.backbones.families import FAMILIES, family
from ...model.tokenization import ControlTokens
from ..hf.chat import parse
from ..model_card import base_of
from .bundle import imports, packages
from .exporter import PLACE
from .finding import Finding

SKETCHED = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which way?"}]},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "So "}, {"type": "sketch", "k": 3}, {"type": "text", "text": " left."}],
    },
]
REQUIRED = ("license", "library_name", "pipeline_tag", "language", "tags", "datasets", "metrics")
#: files of an exported folder
BELONGS = re.compile(
    r"config\.json|generation_config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt"
    r"|chat_template\.jinja|processor_config\.json|preprocessor_config\.json|probe\.safetensors|latent_reason\.json"
    r"|(configuration|modeling)_latent_reason\.py|latent_reason_\w+\.py|requirements\.txt|LICENSE(-base)?|README\.md"
    r"|decoder/(config\.json|diffusion_pytorch_model\.safetensors)|adapter_(config\.json|model\.safetensors)"
    r"|reasoner\.safetensors|(eval|eval-larger|probe)\.json|controls/[\w.-]+\.json|(sketches|example)\.png"
    r"|recipe(-pretrain)?\.yaml|\.gitattributes"
)
SECRETS = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
UNSEARCHED = ("LICENSE", "LICENSE-base", "tokenizer.json", "chat_template.jinja")  # for absolute paths
READABLE = (".json", ".yaml", ".md", ".txt", ".jinja", ".py", "")


# -- tokenizer and chat template ---------------------------------------------------------------------------------------
def check_tokenizer(folder: Path, card: dict) -> Iterator[Finding]:
    """Find inconsistencies between control tokens, the embedding table and the chat template."""
    from transformers import AutoTokenizer, PreTrainedConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig(), trust_remote_code=False)
        config = {} if card.get("layout") == "adapter" else json.loads((folder / "config.json").read_text("utf-8"))
        layout = family(config["backbone_config"]["model_type"]).layout if config else None
    except Exception as error:  # tokenizers raise bare Exceptions
        yield Finding("tokenizer.json", f"{type(error).__name__}: {str(error)[:200]}", "a tokenizer and a config")
        return
    tokens = config.get("control_tokens") or card["control_tokens"]
    for role, (token, number) in tokens.items():
        found = tokenizer.convert_tokens_to_ids(token)
        if found != number:
            yield Finding("tokenizer.json", f"id {found} for {token!r} ({role})", f"{number}, the id in config.json")
    if config:
        yield from check_embeddings(folder, config, len(tokenizer))
    layouts = [layout] if layout else [family(name).layout for name in FAMILIES]  # an adapter has no backbone config
    roles = ControlTokens(**{role: token for role, (token, _) in tokens.items()})
    try:
        text = tokenizer.apply_chat_template(SKETCHED, tokenize=False)
        again = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # from Jinja, or because there is no template
        yield Finding("chat_template.jinja", f"{type(error).__name__}: {str(error)[:200]}", "a template")
        return
    read = [one for one in (parse_or_error(again, layout, roles) for layout in layouts) if one == SKETCHED]
    if not read:
        yield Finding(
            "chat_template.jinja",
            f"{text!r}, which parses to {parse_or_error(again, layouts[0], roles)}",
            "a turn with a sketch that parses back to the original",
        )


def parse_or_error(text: str, layout, roles: ControlTokens) -> list[dict] | str:
    try:
        return parse(text, layout, roles)
    except ValueError as error:
        return str(error)


def check_embeddings(folder: Path, config: dict, known: int) -> Iterator[Finding]:
    """Compare the rows of the embedding table with the tokenizer and the configuration."""
    text = config["backbone_config"].get("text_config", config["backbone_config"])
    declared = text.get("vocab_size")
    if declared is None or declared < known:
        yield Finding("config.json", f"vocab_size {declared}", f"at least the {known} tokens of the tokenizer")
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                for key in opened.keys():
                    rows = opened.get_slice(key).get_shape()[0] if key.endswith("embed_tokens.weight") else declared
                    if rows != declared:
                        yield Finding(file.name, f"{rows} rows in {key}", f"{declared}, the vocab_size of config.json")
        except (SafetensorError, OSError):
            continue  # reported by check 2


# -- code --------------------------------------------------------------------------------------------------------------
def check_code(folder: Path, adapter: bool) -> Iterator[Finding]:
    """Find imports of packages missing from requirements.txt and imports of missing files."""
    if not (folder / "requirements.txt").is_file():
        yield Finding("requirements.txt", "no such file", "the packages that the code imports")
        return
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    allowed = {re.match(r"[\w.-]+", line)[0].lower().replace("-", "_") for line in lines if line[:1].isalnum()}
    files = sorted(folder.glob("*.py"))
    for name in () if adapter else ("configuration_latent_reason.py", "modeling_latent_reason.py"):
        if folder / name not in files:
            yield Finding(name, "no such file", "the code that config.json names")
    for file in files:
        try:
            names, own = imports(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            yield Finding(file.name, f"{type(error).__name__}: {error}", "Python")
            continue
        for name in sorted(names):
            if packages().get(name, name) not in allowed:
                yield Finding(
                    file.name,
                    f"an import of {name}",
                    "only packages of requirements.txt",
                    f"Add {name} to requirements.txt.",
                )
        for name in (n for node in own for n in ([node.module] if node.module else [a.name for a in node.names])):
            if not (folder / f"{name}.py").is_file():
                yield Finding(file.name, f"an import of {name}.py, which does not exist", "all files of the code")


# -- README ------------------------------------------------------------------------------------------------------------
def check_readme(folder: Path, card: dict) -> Iterator[Finding]:
    """Find invalid or incomplete YAML metadata, a missing code snippet, and unfilled template text."""
    name = "README.md"
    if not (folder / name).is_file():
        yield Finding(name, "no such file", "a model card")
        return
    text = (folder / name).read_text(encoding="utf-8")
    _, *head = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    try:
        given = yaml.safe_load(head[0]) if len(head) == 2 else None
    except yaml.YAMLError as error:
        said = str(error).partition("\n")[0]
        yield Finding(name, f"metadata that is not YAML ({said})", "YAML between two lines of ---")
        return
    if not isinstance(given, dict):
        yield Finding(name, "no metadata", "YAML between two lines of ---")
        return
    for key in (*REQUIRED, *(["base_model"] if base_of(card) else [])):
        if not given.get(key):
            yield Finding(name, f"no {key} in the metadata", "a value", f"Add the line {key}: ...")
    if "more information needed" in text.lower():
        yield Finding(name, "the text More Information Needed", "the information", "Add it, or remove the section.")
    if "```python" not in text:
        yield Finding(name, "no Python snippet", "one that loads the model")


# -- unexpected files --------------------------------------------------------------------------------------------------
def check_files(folder: Path) -> Iterator[Finding]:
    """Find unexpected files, links, pickles, optimizer states, secrets and absolute paths."""
    for path in sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield Finding(name, "a link", "a file", "Copy what it points to.")
            continue
        with open(path, "rb") as file:
            start = file.read(9)
        if (
            start.startswith(PICKLES) and start[8:] != b"{"
        ):  # a safetensors file starts with a length, which may equal a pickle header
            yield Finding(name, "a pickle, which runs code when it is read", "safetensors or JSON", "Remove it.")
        elif not BELONGS.fullmatch(name):
            yield Finding(name, "an unexpected file", "only files of an export", "Remove it.")
        elif path.suffix == ".safetensors":
            yield from check_tensors(path, name)
        elif path.suffix in READABLE:
            yield from check_text(name, path.read_text(encoding="utf-8", errors="replace"))


def check_tensors(path: Path, name: str) -> Iterator[Finding]:
    try:
        with safe_open(path, "pt") as opened:
            states = [key for key in opened.keys() if re.search(r"optimizer|exp_avg|momentum_buffer|scheduler", key)]
    except (SafetensorError, OSError):
        return  # reported by check 2
    if states:
        yield Finding(name, f"the training state {states[0]}", "only weights")


def check_text(name: str, text: str) -> Iterator[Finding]:
    if SECRETS.search(text):  # the match is not printed
        yield Finding(
            name, "text that looks like a token or key", "no secret", "Remove it, and revoke it if it is a secret."
        )
    if name not in UNSEARCHED and (place := PLACE.search(text)):
        yield Finding(
            name,
            f"the absolute path {place[0]!r}",
            "no path of one machine",
            "Use a name or a relative path. For the base of an adapter use its name on the Hub, or export with "
            "--merge-lora.",
        )

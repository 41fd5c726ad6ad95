"""Content checks of an exported folder: tokenizer and chat template, code, README, and unexpected files."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import yaml
from safetensors import SafetensorError, safe_open

from ... import __version__, methods
from ...folders import read_json
from ...model.backbones.families import FAMILIES, family
from ...model.backbones.stock_config import walk
from ...model.reasoner import LatentReasoner
from ...model.tokenization import ControlTokens
from ..hf.chat import chat_template, parse
from ..model_card import base_of, snippet
from . import bundle
from .exporter import PLACE
from .finding import AGAIN, Finding

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
    r"|(configuration|modeling)_latent_reason\.py|latent_reason_\w+\.py|custom_generate/generate\.py|requirements\.txt|LICENSE(-base)?|README\.md"
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
    said = config or card
    prompt = methods.system_prompt(said.get("method"), said.get("options") or {})
    prompt = prompt or str((said.get("parts") or {}).get("system_prompt", ""))
    used = next((one for one in layouts if tokenizer.chat_template == chat_template(one, roles, prompt)), None)
    if used is None:  # it is not rendered: a template may never end
        yield Finding("chat_template.jinja", "another template", "that of this version, for the model's layout")
        return
    text = tokenizer.apply_chat_template(SKETCHED, tokenize=False)
    again = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    first = (
        [{"role": used.roles.get("system", "system"), "content": [{"type": "text", "text": prompt}]}] if prompt else []
    )
    if (read := parse_or_error(again, used, roles)) != first + SKETCHED:
        yield Finding("tokenizer.json", f"{again[:200]!r}, which parses to {read}", "a turn with a sketch, as it was")


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
def check_code(folder: Path, card: dict, reasoner: LatentReasoner) -> Iterator[Finding]:
    """Find generated files that are not, byte for byte, what this version generates for the model, and Python files
    and names of code beside them. Nothing is run."""
    wanted = bundle.generated_files(reasoner)
    for name in sorted(wanted.keys() | {file.name for file in folder.glob("*.py")}):
        if name not in wanted:
            yield Finding(name, "Python that is not part of an export", "only generated code", "Remove it.")
        elif not (folder / name).is_file():
            yield Finding(name, "no such file", "one, as exporting writes it")
        elif (folder / name).read_bytes() != wanted[name].encode():
            found = (folder / name).read_text(encoding="utf-8", errors="replace")
            yield Finding(name, *first_difference(found, wanted[name]), fix=other_version(card))
    yield from check_auto_map(folder)


def first_difference(found: str, wanted: str) -> tuple[str, str]:
    """The first line in which two texts differ: what is there, and what was expected."""
    pairs = enumerate(zip_longest(found.split("\n"), wanted.split("\n")), 1)
    number, (there, expected) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    return f"line {number}: {show_line(there)}", show_line(expected)


def show_line(line: str | None) -> str:
    return "no line" if line is None else repr(line[:100])


def other_version(card: dict) -> str:
    """What to do about a file that was generated otherwise."""
    ours = f"latent_reason {__version__}"
    return AGAIN if card.get("written_by") == ours else f"Check it with {card.get('written_by')}, or export it again."


def check_auto_map(folder: Path) -> Iterator[Finding]:
    """Find names of code in JSON files: transformers imports what an auto_map names, from other repositories too."""
    for file in sorted(folder.rglob("*config.json")):
        name = file.relative_to(folder).as_posix()
        expected = [bundle.AUTO_MAP] if name == "config.json" else []
        named = [value for key, value in walk(read_json(file)) if key == "auto_map"]
        if named != expected:
            yield Finding(name, f"the auto_map {named[0] if named else None}", str(expected[0] if expected else None))


# -- README ------------------------------------------------------------------------------------------------------------
def check_readme(folder: Path, card: dict) -> Iterator[Finding]:
    """Find invalid or incomplete YAML metadata, another code snippet, and unfilled template text."""
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
    yield from check_snippet(text, card)


def check_snippet(text: str, card: dict) -> Iterator[Finding]:
    """Compare the Python code of a README with what this version writes, but for the question. Nothing is run."""
    blocks = re.findall(r"^ *(?:```|~~~)+ *(?:python|py)\w*[^\n]*\n(.*?)^ *(?:```|~~~)", text, re.DOTALL | re.M | re.I)
    if len(blocks) != 1:
        yield Finding("README.md", f"{len(blocks)} Python snippets", "one that loads the model")
        return
    try:
        asked = ast.literal_eval(re.search(r'Image\.open\("example\.png"\), (.*)\)$', blocks[0], re.M)[1])
    except (TypeError, ValueError, SyntaxError):
        asked = "What does the picture show?"
    wanted = snippet(card, asked) + "\n"
    if blocks[0] != wanted:
        found, expected = first_difference(blocks[0], wanted)
        yield Finding("README.md", f"a snippet whose {found}", expected, other_version(card))


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

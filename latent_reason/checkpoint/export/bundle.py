"""The code of an exported checkpoint: this library's own code, flat, without what inference does not use.

transformers runs the code of a repository from a flat folder, and copies the files it finds by lines that begin with
``from .x import``. So modules that belong together become one file (``FILES``): the definitions that are used (see
tree_shaking.py) and one set of import lines. Of docstrings, the first paragraph stays for classes and for the model
that transformers loads; the others are in the library.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import find_checkout
from ...model.reasoner import LatentReasoner
from .tree_shaking import LIBRARY, UNUSED_BASES, Import, Kept, Module, Symbol, annotation_names, docstring_of, refusal

HF = LIBRARY / "checkpoint" / "hf"
CONFIGURATION, MODELING, GENERATION = (HF / f"{name}.py" for name in ("configuration", "modeling", "generation"))
CACHE = LIBRARY / "model" / "backbones" / "cache.py"
REASONER, SWITCHING = LIBRARY / "model" / "reasoner.py", LIBRARY / "model" / "switching.py"
AUTO_MAP = {"AutoConfig": "configuration_latent_reason.LatentReasonConfig"} | dict.fromkeys(
    ("AutoModel", "AutoModelForImageTextToText"), "modeling_latent_reason.LatentReasonForConditionalGeneration"
)
WIDTH = 120  # characters of a line
#: module or folder of the library -> the file it goes to; the longest that fits counts
FILES = {
    "checkpoint/hf/configuration": "configuration_latent_reason",
    "checkpoint/hf": "modeling_latent_reason",
    "decoding": "latent_reason_decoding",
    "methods": "latent_reason_method",
    "model/backbones": "latent_reason_backbone",
    "model/heads": "latent_reason_head",
    "model/targets": "latent_reason_target",
    "model/processor": "latent_reason_model",
    "model/reasoner": "latent_reason_model",
    "model/switching": "latent_reason_model",
    "visualization": "latent_reason_sketch_decoder",
    "objectives": "latent_reason_objective",  # never kept
    "": "latent_reason_inputs",
}
MAIN = """class LatentReasonForConditionalGeneration(LatentReasonModel):
    config_class = LatentReasonConfig
    backbone_class = {family}

    @staticmethod
    def build_reasoner(config, backbone):
        return {call}
"""
#: what ``generate(custom_generate=FOLDER)`` runs. transformers may set it as ``generate`` of a model, so it calls the class's
CUSTOM_GENERATE = "custom_generate/generate.py"
GENERATE = '''"""``model.generate(custom_generate=FOLDER, trust_remote_code=True)`` for a model of this folder."""


def generate(*inputs, model, **options):
    """As ``model.generate(*inputs, **options)``: text, latents and images. See modeling_latent_reason.py."""
    return type(model).generate(model, *inputs, **options)
'''
#: the options of a method are those of its model and of its objective
CALL = """build_model(
            backbone, **{n: v for n, v in config.options.items() if n in inspect.signature(build_model).parameters}
        )"""


@dataclass(frozen=True)
class Recipe:
    """How an exported checkpoint builds its model: symbols to import, and a call in their names."""

    title: str
    family: type
    symbols: tuple[Symbol, ...]
    call: str
    head: tuple[Symbol, ...] = ()  # the class of the head, which a table of heads names

    @classmethod
    def of(cls, reasoner: LatentReasoner) -> Recipe:
        """The recipe of a model, by its method or, if it was built by hand, by its parts."""
        family = type(reasoner.backbone)
        if reasoner.method.name is not None:
            method = LIBRARY / "methods" / f"{reasoner.method.name}.py"
            head = () if reasoner.head is None else ((home(type(reasoner.head)), type(reasoner.head).__name__),)
            return cls(reasoner.method.name, family, ((method, "build_model"),), CALL, head)
        symbols = [(REASONER, "LatentReasoner"), (SWITCHING, "Switch")]
        call = 'LatentReasoner(\n            backbone, switch=Switch(**config.parts["switch"]), follows_target='
        call += 'config.parts["follows_target"], hides_images=config.parts.get("hides_images", False), '
        call += 'system_prompt=config.parts.get("system_prompt", "")'
        for part, first in (("head", ""), ("target", "backbone, ")):
            if (value := getattr(reasoner, part)) is not None:
                symbols.append((home(type(value)), type(value).__name__))
                call += f',\n            {part}={type(value).__name__}({first}**config.parts["{part}"]["arguments"])'
        return cls("a model built by hand", family, tuple(symbols), call + "\n        )")

    @property
    def imported(self) -> list[Symbol]:
        """What the model class of the checkpoint names."""
        return [(CONFIGURATION, "LatentReasonConfig"), (home(self.family), self.family.__name__), *self.symbols]

    @property
    def entries(self) -> list[Symbol]:
        return [(MODELING, "LatentReasonModel"), *self.imported, *self.head]


def generated_files(reasoner: LatentReasoner) -> dict[str, str]:
    """All text files that are generated for a model, and depend on nothing but its classes and this version: its code and
    ``requirements.txt``. A model with an adapter comes without code; its code is that of the library.

    Raises:
        ValueError: as :func:`model_code` and :func:`requirements`.
    """
    if reasoner.backbone.adapter is not None:
        kept = [file.read_text(encoding="utf-8") for file in kept_code(reasoner).files]
        return {"requirements.txt": requirements(kept, "peft")}
    code = model_code(reasoner)
    return code | {CUSTOM_GENERATE: GENERATE, "requirements.txt": requirements(code.values())}


def model_code(reasoner: LatentReasoner) -> dict[str, str]:
    """The code of a checkpoint of this model: file name -> text.

    Raises:
        ValueError: inference needs training code, or two modules of one file give a name two meanings.
    """
    recipe, kept = Recipe.of(reasoner), kept_code(reasoner)
    bundled = {name: file_code(kept, name, paths) for name, paths in by_file(kept).items()}
    configuration, modeling = bundled[flat(CONFIGURATION)], bundled[flat(MODELING)]
    for path, name in recipe.imported:
        path, name = kept.resolve(path, name)
        if (line := f"from .{flat(path)} import {name}") not in modeling.imports and flat(path) != flat(MODELING):
            modeling.imports.append(line)
    modeling.imports.append("import inspect")
    modeling.body.append(MAIN.format(family=recipe.family.__name__, call=recipe.call))
    # transformers copies only files that some file imports by such a line
    named = {line.split()[1] for code in bundled.values() for line in code.imports if line.startswith("from .latent_")}
    others = {f".{name}" for name in bundled.keys() - {flat(CONFIGURATION), flat(MODELING)}} - named
    modeling.imports += [f"from {name} import __name__ as _" for name in sorted(others)]
    found = {f"{name}.py": code.text() for name, code in bundled.items()}
    digest = hashlib.sha256("".join(found.values()).encode()).hexdigest()[:16]
    # models go by their config class
    found[f"{configuration.name}.py"] += f"\n# belongs to {recipe.title} on {recipe.family.__name__}, code {digest}\n"
    return found


def kept_code(reasoner: LatentReasoner) -> Kept:
    """The definitions of the library that a checkpoint of this model needs."""
    return Kept(Recipe.of(reasoner).entries, whole=frozenset({CONFIGURATION, MODELING, GENERATION, CACHE}))


def by_file(kept: Kept) -> dict[str, list[Path]]:
    """Name of a file -> the modules it holds, each after those it imports."""
    found: dict[str, list[Path]] = {}

    def add(path: Path) -> None:
        modules = found.setdefault(flat(path), [])
        if path in modules:
            return
        for one in kept.module(path).imports.values():
            if one.source in kept.symbols and flat(one.source) == flat(path) and not one.type_checking:
                if one.source not in modules:
                    add(one.source)
        modules.append(path)

    for path in kept.files:
        if path.relative_to(LIBRARY).parts[0] == "objectives":
            raise ValueError(f"inference of this method needs training code: {sorted(kept.symbols[path])} of {path}")
        add(path)
    return found


def home(cls: type) -> Path:
    """The file of a class of this library.

    Raises:
        ValueError: the class is defined elsewhere, so an export cannot carry its code.
    """
    if cls.__module__.partition(".")[0] != LIBRARY.name:
        raise ValueError(
            f"{cls.__module__}.{cls.__name__} is not part of latent_reason, so an export cannot carry its code. "
            "Publish the checkpoint in the library's own layout, or add the class to latent_reason."
        )
    return LIBRARY.joinpath(*cls.__module__.split(".")[1:]).with_suffix(".py")


def flat(path: Path) -> str:
    """The name of the file that a module of the library goes to."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    places = ("/".join(parts[:n]) for n in range(len(parts), -1, -1))
    return next(FILES[place] for place in places if place in FILES)


@dataclass
class FileCode:
    """One file of an exported checkpoint: import lines ``from x import y`` or ``import x``, and definitions."""

    name: str
    origins: list[str]
    imports: list[str]
    body: list[str]

    def text(self) -> str:
        origin = f"Inference code of latent_reason {__version__}, from {', '.join(self.origins)}. Change it there."
        lines = [
            f'"""{textwrap.fill(origin, WIDTH - 3)}"""',
            "",
            "from __future__ import annotations",
            "",
            *merged_imports(self.imports),
        ]
        return "\n\n".join(part.rstrip() for part in ["\n".join(lines), *self.body]) + "\n"


def file_code(kept: Kept, name: str, paths: list[Path]) -> FileCode:
    """The kept definitions of some modules as one file.

    Raises:
        ValueError: one name has two meanings in it.
    """
    code = FileCode(name, [path.relative_to(LIBRARY).as_posix() for path in paths], [], [])
    meanings: dict[str, str] = {}

    def mean(name: str, meaning: str) -> None:
        if meanings.setdefault(name, meaning) != meaning:
            raise ValueError(f"in {code.name}.py {name} is both {meanings[name]} and {meaning}. Rename one of them.")

    for path in paths:
        module = kept.module(path)
        text = path.read_text(encoding="utf-8")
        statements = [s for s in module.tree.body if kept.symbols[path] & set(_names(module, s))]
        used = frozenset[str]().union(*(_used_names(kept, path, statement) for statement in statements))
        for bound, found in module.imports.items():
            line = _import_line(kept, path, found) if bound in used else None
            if line and " = " in line:
                code.body.append(line)
            if line:
                mean(bound, line)
            if line and " = " not in line and not line.startswith("#") and line not in code.imports:
                code.imports.append(line)
        for statement in statements:
            for one in _names(module, statement):
                mean(one, f"# {path}")
            code.body.append(joined_lines(_source(kept, path, statement, text)))
    return code


def merged_imports(lines: list[str]) -> list[str]:
    """Import lines with one line a module, other packages first."""
    names: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith("from "):
            source, _, name = line.removeprefix("from ").partition(" import ")
            names.setdefault(source, set()).add(name)
    plain = sorted(line for line in lines if line.startswith("import "))
    others = [f"from {source} import {', '.join(sorted(found))}" for source, found in sorted(names.items())]
    ours = [line for line in others if line.startswith("from .")]
    return [*plain, *(line for line in others if line not in ours), *([""] if ours else []), *ours]


def _import_line(kept: Kept, path: Path, found: Import) -> str | None:
    """What makes a name of a module known in its file: an import line, an assignment, a comment (it is defined there
    under that name), or None (only an annotation names it, and annotations are not evaluated)."""
    renamed = f" as {found.alias.asname}" if found.alias.asname else ""
    if found.source is None:
        if isinstance(found.node, ast.Import):
            return f"import {found.alias.name}{renamed}"
        return f"from {found.node.module} import {found.alias.name}{renamed}"
    if found.is_module:
        if found.source not in kept.symbols:
            return None
        if flat(found.source) == flat(path):
            raise ValueError(f"{path} imports {found.source.name} as a module of its own file. Import its names.")
        return f"from . import {flat(found.source)} as {found.bound}"
    home, name = kept.resolve(found.source, found.alias.name)
    if name not in kept.symbols.get(home, ()):
        return None
    if flat(home) == flat(path):
        return f"# {home}" if found.bound == name else f"{found.bound} = {name}"
    bound = f" as {found.bound}" if found.bound != name else ""
    return f"from .{flat(home)} import {name}{bound}"


def _names(module: Module, statement: ast.stmt) -> list[str]:
    return [name for name, defined in module.definitions.items() if defined is statement]


def _used_names(kept: Kept, path: Path, statement: ast.stmt) -> frozenset[str]:
    """Names that the kept part of a definition uses, in code or annotations."""
    if isinstance(statement, ast.FunctionDef) and refusal(statement):
        return annotation_names(statement.args)
    code = frozenset(node.id for node in kept.kept_nodes(path, statement) if isinstance(node, ast.Name))
    return code | annotation_names(statement)


def _source(kept: Kept, path: Path, statement: ast.stmt, text: str) -> str:
    """The text of a kept definition, without what is left out of it and with the imports of its file."""
    if replaced := kept.table(path, statement) or refusal(statement):
        return ast.unparse(replaced)
    lines: list[str | None] = ["", *text.splitlines()]
    for base in statement.bases if isinstance(statement, ast.ClassDef) else ():
        if isinstance(base, ast.Name) and base.id in UNUSED_BASES:
            lines[base.lineno] = lines[base.lineno].replace(f"{base.id}, ", "")
    for inner in statement.body if isinstance(statement, ast.ClassDef) else ():
        if not kept.keeps(path, inner):
            first = _first_line(inner, lines)
            lines[first : inner.end_lineno + 1] = [None] * (inner.end_lineno + 1 - first)
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.level and lines[node.lineno] is not None:
            found = [_import_line(kept, path, one) for one in kept.module(path).imports_of(node)]
            new = [" " * node.col_offset + line for line in found if line and not line.startswith("#")]
            lines[node.lineno : node.end_lineno + 1] = [None] * (node.end_lineno + 1 - node.lineno)
            lines[node.lineno] = "\n".join(new) or None
        docstring = docstring_of(node)
        if docstring is not None and lines[docstring.lineno] is not None:
            is_function = isinstance(node, ast.FunctionDef) and len(node.body) > 1
            _cut_docstring(lines, docstring, wholly=is_function and path not in kept.whole)
    kept_lines = [line for line in lines[_first_line(statement, lines) : statement.end_lineno + 1] if line is not None]
    kept_lines = [line for line in kept_lines if not re.match(r"\s*# -- .*--$", line)]
    return re.sub(r"\n(\s*\n){2,}", "\n\n", "\n".join(kept_lines)).rstrip()


@cache
def joined_lines(text: str) -> str:
    """The same code, where brackets that were spread over lines (one argument a line) stand on as few as they need."""
    while (shorter := _join_once(text)) is not None:
        text = shorter
    return text


def _join_once(text: str) -> str | None:
    """The text with one pair of brackets joined, None if there is none to join."""
    lines = text.splitlines()
    for opener, closer, is_call in sorted(_brackets(text), key=lambda one: one[0].start):
        (first, column), (last, end) = opener.end, closer.start
        before, after = lines[first - 1][:column], lines[last - 1][end:]
        inner = " ".join(line.strip() for line in [lines[first - 1][column:], *lines[first : last - 1]])
        inner = f"{inner} {lines[last - 1][:end].strip()}".strip()
        inner = inner.removesuffix(",") if is_call else inner
        indent = " " * (len(before) - len(before.lstrip()))
        new = [before + inner + after]
        if len(new[0]) > WIDTH:  # a string with spaces may be wrapped nowhere, and a signature has none
            room = WIDTH - len(indent) - 4 if before.lstrip().startswith("def ") else len(inner)
            new = [before, *(f"{indent}    {line}" for line in textwrap.wrap(inner, room)), indent + after]
        if max(map(len, new)) <= WIDTH and len(new) < last - first + 1:
            return "\n".join([*lines[: first - 1], *new, *lines[last:]])
    return None


def _brackets(text: str) -> list[tuple[tokenize.TokenInfo, tokenize.TokenInfo, bool]]:
    """Brackets that open and close on different lines, with nothing in them that needs its line: opening and closing
    token, and whether a last comma in them means nothing."""
    found: list[tuple[tokenize.TokenInfo, tokenize.TokenInfo, bool]] = []
    stack: list[list[Any]] = []
    before = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP and token.string in "([{":
            is_call = (
                token.string == "(" and before is not None and (before.type == tokenize.NAME or before.string == ")")
            )
            stack.append([token, is_call or token.string != "(", True])
        elif token.type == tokenize.OP and token.string in ")]}":
            opener, comma, is_plain = stack.pop()
            if is_plain and opener.start[0] < token.start[0]:
                found.append((opener, token, comma))
        elif token.type == tokenize.COMMENT or (token.start[0] != token.end[0] and token.type != tokenize.NEWLINE):
            for one in stack:
                one[2] = one[2] and token.type == tokenize.NL
        before = token if token.type not in (tokenize.NL, tokenize.COMMENT) else before
    return found


def _cut_docstring(lines: list[str | None], docstring: ast.Expr, wholly: bool) -> None:
    """Leave out a docstring, or all of it but its first paragraph."""
    first, last = docstring.lineno, docstring.end_lineno
    assert last is not None  # the tree was parsed from text
    if wholly:
        lines[first : last + 1] = [None] * (last + 1 - first)
        return
    end = next((number for number in range(first, last) if not lines[number].strip()), None)
    if end is not None:
        lines[end - 1] += '"""'
        lines[end : last + 1] = [None] * (last + 1 - end)


def _first_line(statement: ast.stmt, lines: list[str | None]) -> int:
    """The first line of a definition, with its decorators and the comments above it."""
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    while first > 1 and (lines[first - 1] or "").lstrip().startswith("#"):
        first -= 1
    return first


@cache
def imports(text: str) -> frozenset[str]:
    """The top names of the packages that the text of a module imports, at its top or anywhere, but for Python itself."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return frozenset(names - sys.stdlib_module_names)


@cache
def packages() -> dict[str, str]:
    """Top name of an import -> the installed package it belongs to."""
    return {name: found[0].lower().replace("-", "_") for name, found in metadata.packages_distributions().items()}


def licence() -> Path:
    """The file with this library's licence: in the checkout, else where the library is installed."""
    if root := find_checkout():
        return root / "LICENSE"
    return next(Path(file.locate()) for file in metadata.files("latent_reason") if file.name == "LICENSE")


def required_packages() -> dict[str, str]:
    """Package -> the line by which this library requires it, extras left out.

    Raises:
        ValueError: this library is not installed, so its requirements are unknown.
    """
    try:
        return {
            re.match(r"[\w-]+", line)[0].lower().replace("-", "_"): line
            for line in metadata.requires("latent_reason")
            if "extra ==" not in line
        }
    except metadata.PackageNotFoundError:
        raise ValueError(
            "latent_reason is not installed, so the packages an export requires are not known. Install it with: pip "
            "install -e ."
        ) from None


def requirements(code: Iterable[str], *others: str) -> str:
    """``requirements.txt``: the packages that these texts of modules import, as this library requires them, and others.

    Raises:
        ValueError: as :func:`required_packages`; or this library requires no such package.
    """
    known, found = required_packages(), set()
    for name in sorted({name for text in code for name in imports(text)}):
        if packages().get(name, name) not in known:
            raise ValueError(f"exported code imports {name}, which pyproject.toml does not require. Add it there.")
        found.add(known[packages().get(name, name)])
    return "\n".join([*sorted(found), *others]) + "\n"

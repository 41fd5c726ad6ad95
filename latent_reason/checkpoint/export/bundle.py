"""The code of an exported checkpoint: this library's own code, flat, without what inference does not use.

transformers runs the code of a repository from a flat folder, and copies the files it finds by lines that begin with
``from .x import``. So each module a checkpoint needs becomes one file (``heads/denoise.py`` is
``latent_reason_model_heads_denoise.py``) with the definitions that are used (see tree_shaking.py) and other import
lines. ``modeling_latent_reason.py`` names the parts of this one.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from ... import __version__
from ...errors import find_checkout
from ...model.reasoner import LatentReasoner
from .tree_shaking import LIBRARY, Import, Kept, Module, Symbol, annotation_names

HF = LIBRARY / "checkpoint" / "hf"
CONFIGURATION, MODELING = HF / "configuration.py", HF / "modeling.py"
REASONER, SWITCHING = LIBRARY / "model" / "reasoner.py", LIBRARY / "model" / "switching.py"
AUTO_MAP = {"AutoConfig": "configuration_latent_reason.LatentReasonConfig"} | dict.fromkeys(
    ("AutoModel", "AutoModelForImageTextToText"), "modeling_latent_reason.LatentReasonForConditionalGeneration"
)
MAIN = '''"""{title} on {family}: what AutoModelForImageTextToText loads. Written by latent_reason {version}."""

{imports}
{others}

class LatentReasonForConditionalGeneration(LatentReasonModel):
    config_class = LatentReasonConfig
    backbone_class = {family}

    @staticmethod
    def build_reasoner(config, backbone):
        return {call}
'''


@dataclass(frozen=True)
class Recipe:
    """How an exported checkpoint builds its model: symbols to import, and a call in their names."""

    title: str
    family: type
    symbols: tuple[Symbol, ...]
    call: str

    @classmethod
    def of(cls, reasoner: LatentReasoner) -> Recipe:
        """The recipe of a model, by its method or, if it was built by hand, by its parts."""
        family = type(reasoner.backbone)
        if reasoner.method.name is not None:
            method = LIBRARY / "methods" / f"{reasoner.method.name}.py"
            return cls(
                reasoner.method.name, family, ((method, "build_model"),), "build_model(backbone, **config.options)"
            )
        symbols = [(REASONER, "LatentReasoner"), (SWITCHING, "Switch")]
        call = 'LatentReasoner(\n            backbone, switch=Switch(**config.parts["switch"]), follows_target='
        call += 'config.parts["follows_target"]'
        for part, first in (("head", ""), ("target", "backbone, ")):
            if (value := getattr(reasoner, part)) is not None:
                symbols.append((home(type(value)), type(value).__name__))
                call += f',\n            {part}={type(value).__name__}({first}**config.parts["{part}"]["arguments"])'
        return cls("a model built by hand", family, tuple(symbols), call + "\n        )")

    @property
    def entries(self) -> list[Symbol]:
        modeling = [(CONFIGURATION, "LatentReasonConfig"), (MODELING, "LatentReasonModel")]
        return [*modeling, (home(self.family), self.family.__name__), *self.symbols]


def write(folder: Path, reasoner: LatentReasoner) -> list[Path]:
    """Write the code of a checkpoint; returns its files."""
    recipe, kept, written = Recipe.of(reasoner), kept_code(reasoner), []
    for path in kept.files:
        written.append(folder / f"{flat(path)}.py")
        written[-1].write_text(rewritten(kept, path), encoding="utf-8")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in written)).hexdigest()[:16]
    with open(folder / f"{flat(CONFIGURATION)}.py", "a", encoding="utf-8") as file:  # models go by their config class
        file.write(f"\n# belongs to {recipe.title} on {recipe.family.__name__}, code {digest}\n")
    imports = "\n".join(f"from .{flat(path)} import {name}" for path, name in recipe.entries)
    direct = {path for path, _ in recipe.entries}
    # transformers copies only files that some file imports: those imported inside functions are named here, too
    others = "".join(f"from .{flat(p)} import __name__ as _  # noqa: F401\n" for p in kept.files if p not in direct)
    written.append(folder / "modeling_latent_reason.py")
    main = MAIN.format(
        title=recipe.title,
        family=recipe.family.__name__,
        version=__version__,
        imports=imports,
        others=others,
        call=recipe.call,
    )
    written[-1].write_text(main, encoding="utf-8")
    return written


def kept_code(reasoner: LatentReasoner) -> Kept:
    """The definitions of the library that a checkpoint of this model needs."""
    return Kept(Recipe.of(reasoner).entries, whole=frozenset({CONFIGURATION, MODELING}))


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
    """The name of a module of the library as a file beside all others."""
    if path == CONFIGURATION:
        return "configuration_latent_reason"
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return "_".join(["latent_reason", *(part for part in parts if part != "__init__")])


def rewritten(kept: Kept, path: Path) -> str:
    """A module's kept definitions for the flat folder, with imports of what they use."""
    module = kept.module(path)
    text = path.read_text(encoding="utf-8")
    chunks, used = [], set()
    for statement in module.tree.body:
        names = kept.symbols[path] & set(_names(module, statement))
        if names:
            chunks.append(_source(kept, path, statement, text))
            used |= _used_names(kept, path, statement)
    head = ast.get_docstring(module.tree, clean=False) or ""
    origin = path.relative_to(LIBRARY.parent).as_posix()
    lines = [
        f"# From {origin} of latent_reason {__version__}: the definitions that inference uses. Change it there.",
        f'"""{head}"""',
        "",
        "from __future__ import annotations",
        "",
        *import_lines(kept, module, used),
    ]
    return "\n".join(lines).rstrip() + "\n\n\n" + "\n\n\n".join(chunks) + "\n"


def import_lines(kept: Kept, module: Module, used: set[str]) -> list[str]:
    """Import lines of the names that kept code of a module uses."""
    ours, others = [], []
    for name, found in sorted(module.imports.items()):
        if name not in used:
            continue
        line = _import_line(kept, found)
        if line is not None:
            (ours if line.startswith("from .") else others).append(line)
    return [*sorted(others), *([""] if ours and others else []), *sorted(ours)]


def _import_line(kept: Kept, found: Import) -> str | None:
    renamed = f" as {found.alias.asname}" if found.alias.asname else ""
    if found.source is None:
        if isinstance(found.node, ast.Import):
            return f"import {found.alias.name}{renamed}"
        return f"from {found.node.module} import {found.alias.name}{renamed}"
    if found.is_module:
        return f"from . import {flat(found.source)} as {found.bound}" if found.source in kept.symbols else None
    path, name = kept.resolve(found.source, found.alias.name)
    if name not in kept.symbols.get(path, ()):
        return None  # only an annotation names it, and annotations are not evaluated
    bound = f" as {found.bound}" if found.bound != name else ""
    return f"from .{flat(path)} import {name}{bound}"


def _names(module: Module, statement: ast.stmt) -> list[str]:
    return [name for name, defined in module.definitions.items() if defined is statement]


def _used_names(kept: Kept, path: Path, statement: ast.stmt) -> set[str]:
    """Names that the kept part of a definition uses, in code or annotations."""
    code = {node.id for node in kept.kept_nodes(path, statement) if isinstance(node, ast.Name)}
    return code | set(annotation_names(statement))


def _source(kept: Kept, path: Path, statement: ast.stmt, text: str) -> str:
    """The text of a kept definition, without the methods that are left out and with flat imports."""
    lines = text.splitlines()
    keep = [True] * (len(lines) + 1)
    replaced: dict[int, str] = {}
    if isinstance(statement, ast.ClassDef):
        for inner in statement.body:
            if not kept.keeps(path, inner):
                for number in range(_first_line(inner), inner.end_lineno + 1):
                    keep[number] = False
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.level and keep[node.lineno]:
            found = [_import_line(kept, one) for one in kept.module(path).imports_of(node)]
            indent = " " * node.col_offset
            replaced[node.lineno] = "\n".join(indent + line for line in found if line)
            for number in range(node.lineno + 1, node.end_lineno + 1):
                keep[number] = False
    first = _first_line(statement)
    while first > 1 and lines[first - 2].startswith("#"):  # comments above it
        first -= 1
    out = []
    for number in range(first, statement.end_lineno + 1):
        line = replaced.get(number, lines[number - 1])
        if keep[number] and not re.match(r"\s*# -- .*--$", line):
            out.append(line)
    return re.sub(r"\n(\s*\n){2,}", "\n\n", "\n".join(out)).rstrip()


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(d.lineno for d in decorators)])


@cache
def imports(text: str) -> tuple[frozenset[str], tuple[ast.ImportFrom, ...]]:
    """What the text of a module imports, at its top or anywhere: the top names of other packages (not of Python
    itself), and its relative imports. Raises SyntaxError if it is not Python."""
    names, own = set(), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            own.append(node)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return frozenset(names - sys.stdlib_module_names), tuple(own)


@cache
def packages() -> dict[str, str]:
    """Top name of an import -> the installed package it belongs to."""
    return {name: found[0].lower().replace("-", "_") for name, found in metadata.packages_distributions().items()}


def licence() -> Path:
    """The file with this library's licence: in the checkout, else where the library is installed."""
    if root := find_checkout():
        return root / "LICENSE"
    return next(Path(file.locate()) for file in metadata.files("latent_reason") if file.name == "LICENSE")


def requirements(files: list[Path]) -> list[str]:
    """The packages these files import, as this library requires them.

    Raises:
        ValueError: this library is not installed, so its requirements are unknown; or it requires no such package.
    """
    try:
        known = {
            re.match(r"[\w-]+", line)[0].lower().replace("-", "_"): line
            for line in metadata.requires("latent_reason")
            if "extra ==" not in line
        }
    except metadata.PackageNotFoundError:
        raise ValueError(
            "latent_reason is not installed, so the packages an export requires are not known. Install it with: pip "
            "install -e ."
        ) from None
    found = set()
    for name in sorted({name for file in files for name in imports(file.read_text(encoding="utf-8"))[0]}):
        if packages().get(name, name) not in known:
            raise ValueError(f"exported code imports {name}, which pyproject.toml does not require. Add it there.")
        found.add(known[packages().get(name, name)])
    return sorted(found)

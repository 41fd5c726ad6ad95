"""The code of an exported checkpoint: this library's own files, flat, with other import lines and no other change.

transformers runs the code of a repository from a flat folder, and copies what it finds by following lines that begin
``from .x import``. So each module a checkpoint needs becomes one file (``heads/denoise.py`` is
``latent_reason_heads_denoise.py``), and ``modeling_latent_reason.py`` names the method and the family of this one.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from ... import __version__
from ...errors import find_checkout

LIBRARY = Path(__file__).parents[2]
CONFIGURATION, MODELING = (
    LIBRARY / "checkpoint" / "hf" / "configuration.py",
    LIBRARY / "checkpoint" / "hf" / "modeling.py",
)
AUTO_MAP = {"AutoConfig": "configuration_latent_reason.LatentReasonConfig"} | dict.fromkeys(
    ("AutoModel", "AutoModelForImageTextToText"), "modeling_latent_reason.LatentReasonForConditionalGeneration"
)
MAIN = '''"""{method} on {family}: what AutoModelForImageTextToText loads. Written by latent_reason {version}."""

from .configuration_latent_reason import LatentReasonConfig
from .{family_file} import {family}
from .{method_file} import build
from .{modeling} import LatentReasonModel
{named}

class LatentReasonForConditionalGeneration(LatentReasonModel):
    config_class = LatentReasonConfig

    @staticmethod
    def parts(config):
        return build, {family}
'''


def write(folder: Path, method: str, family: type) -> list[Path]:
    """Write the code of a checkpoint of ``method`` on a backbone of the class ``family``; the files."""
    needed, written = sources(method, family), []
    for path in needed:
        written.append(folder / f"{flat(path)}.py")
        written[-1].write_text(rewritten(path), encoding="utf-8")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in written)).hexdigest()[:16]
    with open(folder / f"{flat(CONFIGURATION)}.py", "a", encoding="utf-8") as file:  # models go by their config class
        file.write(f"\n# goes with {method} on {family.__name__}, code {digest}\n")
    whole = sorted({flat(target) for path in needed for _, modules, _ in relative(path) for target in modules.values()})
    named = "".join(f"from .{name} import __name__ as _  # else it would not be copied\n" for name in whole)
    written.append(folder / "modeling_latent_reason.py")
    written[-1].write_text(
        MAIN.format(
            method=method,
            family=family.__name__,
            version=__version__,
            family_file=flat(home(family)),
            named=named,
            method_file=flat(LIBRARY / "methods" / f"{method}.py"),
            modeling=flat(MODELING),
        ),
        encoding="utf-8",
    )
    return written


def sources(method: str, family: type) -> list[Path]:
    """The modules of the library that a checkpoint needs."""
    return closure([CONFIGURATION, MODELING, home(family), LIBRARY / "methods" / f"{method}.py"])


def home(family: type) -> Path:
    """The file of a class of backbones."""
    return LIBRARY / "model" / "backbones" / f"{family.__module__.rpartition('.')[2]}.py"


def flat(path: Path) -> str:
    """The name of a module of the library as a file beside all others."""
    if path == CONFIGURATION:
        return "configuration_latent_reason"
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return "_".join(["latent_reason", *(part for part in parts if part != "__init__")])


def closure(roots: list[Path]) -> list[Path]:
    """All modules of the library that these import, directly or not, at their top or anywhere, and themselves."""
    found, to_read = set(), list(roots)
    while to_read:
        path = to_read.pop()
        if path not in found:
            found.add(path)
            for _, modules, home in relative(path):
                to_read += [*modules.values(), *([home] if home else [])]
    return sorted(found)


def relative(path: Path) -> list[tuple[ast.ImportFrom, dict[str, Path], Path | None]]:
    """The relative imports of a module: each with the modules it imports whole, by name, and the file that its other
    names come from."""
    found = []
    for node in imports(path.read_text(encoding="utf-8"))[1]:
        place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        modules = {alias.name: file for alias in node.names if (file := module(place / alias.name)) is not None}
        found.append((node, modules, module(place) if len(modules) < len(node.names) else None))
    return found


@cache
def imports(text: str) -> tuple[frozenset[str], tuple[ast.ImportFrom, ...]]:
    """What the text of a module imports, at its top or anywhere: the top names of other packages (not those of Python
    itself), and its relative imports. Raises SyntaxError where it is no Python."""
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
    """The package that a top name of an import belongs to, of what is installed."""
    return {name: found[0].lower().replace("-", "_") for name, found in metadata.packages_distributions().items()}


def module(place: Path) -> Path | None:
    """The file of a module or package, None where there is none."""
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def rewritten(path: Path) -> str:
    """A module's text for the flat folder: ``from ..batch import X`` becomes ``from .latent_reason_batch import X``."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for node, modules, source in sorted(relative(path), key=lambda found: -found[0].lineno):
        first, indent = node.lineno - 1, " " * node.col_offset
        new = [
            f"{indent}from . import {flat(modules[a.name])} as {a.asname or a.name}\n"
            for a in node.names
            if a.name in modules
        ]
        if source is not None and not modules:
            lines[first] = re.sub(r"from\s+\.+[\w.]*\s+import", f"from .{flat(source)} import", lines[first], count=1)
            continue
        names = ", ".join(
            f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names if a.name not in modules
        )
        new += [f"{indent}from .{flat(source)} import {names}\n"] if names else []
        lines[first : node.end_lineno] = new
    origin = path.relative_to(LIBRARY.parent).as_posix()
    return f"# {origin} of latent_reason {__version__}, with other import lines; change it there\n{''.join(lines)}"


def licence() -> Path:
    """The file with this library's licence: of the checkout, or of the installed package."""
    if root := find_checkout():
        return root / "LICENSE"
    return next(Path(file.locate()) for file in metadata.files("latent_reason") if file.name == "LICENSE")


def requirements(files: list[Path]) -> list[str]:
    """The packages these files import, as this library requires them.

    Raises:
        ValueError: this library is not installed, so nobody knows which versions it requires; or it requires no such
            package.
    """
    try:
        known = {
            re.match(r"[\w-]+", line)[0].lower().replace("-", "_"): line
            for line in metadata.requires("latent_reason")
            if "extra ==" not in line
        }
    except metadata.PackageNotFoundError:
        raise ValueError(
            "latent_reason is not installed, so the packages an export requires are not known. Install "
            "it with: pip install -e ."
        ) from None
    found = set()
    for name in sorted({name for file in files for name in imports(file.read_text(encoding="utf-8"))[0]}):
        if packages().get(name, name) not in known:
            raise ValueError(f"exported code imports {name}, which pyproject.toml does not require. Add it there.")
        found.add(known[packages().get(name, name)])
    return sorted(found)

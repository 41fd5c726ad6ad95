"""Who may import whom: parts of the library import only parts below them, and no import is circular."""

import ast
import graphlib
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import latent_reason

LIBRARY = Path(latent_reason.__file__).parent
ROOT = LIBRARY.parent
#: part -> the parts it may import besides itself and EVERYWHERE (docs/architecture.md draws them)
ALLOWED = {
    "trace": set(),
    "tasks": {"trace"},
    "data": {"trace"},
    "model": {"trace"},
    "decoding": {"trace", "model"},
    "objectives": {"trace", "model", "decoding"},
    "visualization": {"trace", "model", "decoding"},
    "methods": {"trace", "model", "objectives"},
    "checkpoint": {"trace", "model", "decoding", "objectives", "methods", "visualization", "data", "tasks"},
    "serving": {"trace", "model", "decoding", "visualization", "data"},
    "asking": {
        "trace",
        "model",
        "decoding",
        "objectives",
        "methods",
        "visualization",
        "data",
        "tasks",
        "checkpoint",
    },
}
#: module -> the parts that it imports beyond those of its part
ALSO = {
    "decoding/items.py": {"tasks", "visualization"},  # decodes the items of a task, and their sketches
    "decoding/strategies/voting.py": {"tasks"},  # counts final answers
}
EVERYWHERE = {
    "files",
    "folders",
    "errors",
    "values",
    "images",
    "imports",
    "assets",
    "json_files",
    "locks",
    "outputs",
    "__init__",
}  # imported by any part, import no part
FRONT = {"cli", "__main__", "doctor", "integrations", "contracts"}  # import any part, imported by no part
#: packages that only some parts import
THIRD_PARTY = {
    "transformers": {"model", "objectives", "checkpoint", "integrations", "contracts", "doctor", "cli"},
    "diffusers": {"model", "visualization"},
    "lightning": set(),
    "pytorch_lightning": set(),
    "tokenizers": {"model"},
    "peft": {"model"},
    "pyarrow": {"data"},
    "datasets": {"data"},
    "pytest": {"contracts"},
    "fastapi": {"serving"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "openai": set(),
}
#: parts of a level that do not import each other
SIBLINGS = ("methods",)


def part_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@cache
def imports_of(path: Path, *, only_at_load: bool = False) -> frozenset[str]:
    """Full dotted names a file imports, relative ones resolved; with ``only_at_load``, those that run when the file is
    loaded (not inside functions, nor for type checking)."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in (
        loaded(ast.parse(path.read_text(encoding="utf-8")))
        if only_at_load
        else ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{a.name}" for a in node.names}
    return frozenset(names)


def loaded(node: ast.AST):
    """Nodes that run when a module is loaded."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from loaded(child)


def module_of(name: str) -> Path | None:
    """The file of the longest module in a dotted name of the library."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:end])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


FILES = sorted(LIBRARY.rglob("*.py"))


def test_every_part_has_its_place():
    parts = {part_of(path) for path in FILES}
    placed = ALLOWED.keys() | EVERYWHERE | FRONT
    assert parts <= placed, f"say in tests/unit/test_imports.py what {parts - placed} may import"


@pytest.mark.parametrize("part", sorted({part_of(path) for path in FILES} - FRONT))
def test_parts_import_only_parts_below_them(part):
    allowed = {part} | EVERYWHERE | ALLOWED.get(part, set())
    for path in (path for path in FILES if part_of(path) == part):
        typing_too = part != "__init__"  # which imports the public names for type checkers
        names = {n for n in imports_of(path, only_at_load=not typing_too) if n.split(".")[0] == "latent_reason"}
        found = (
            {part_of(module_of(name)) for name in names}
            - allowed
            - ALSO.get(path.relative_to(LIBRARY).as_posix(), set())
        )
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_no_import_is_circular():
    graph = {}
    for path in FILES:
        names = {n for n in imports_of(path, only_at_load=True) if n.split(".")[0] == "latent_reason"}
        graph[path] = {module_of(name) for name in names} - {path}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", SIBLINGS)
def test_siblings_do_not_import_each_other(package):
    folder = LIBRARY / package
    prefix = ".".join(["latent_reason", *folder.relative_to(LIBRARY).parts])
    for path in folder.glob("[!_]*.py"):
        siblings = {name for name in imports_of(path) if name.startswith(f"{prefix}.")}
        assert not siblings, f"{path.name} imports {siblings}"


def test_benchmarks_are_independent_and_read_local_files_only():
    """No benchmark imports another, and nothing that reads them can download or unpickle."""
    for path in [*(ROOT / "eval" / "benchmarks").glob("[!_]*.py"), ROOT / "eval" / "readers.py"]:
        names = imports_of(path)
        siblings = {n for n in names if n.startswith("eval.benchmarks")}
        remote = {n.split(".")[0] for n in names} & {"pickle", "urllib", "requests", "huggingface_hub", "datasets"}
        assert not siblings and not remote, f"{path.name} imports {siblings | remote}"


@pytest.mark.parametrize("package", THIRD_PARTY)
def test_other_packages_are_imported_only_where_they_belong(package):
    for path in FILES:
        uses = any(name.split(".")[0] == package for name in imports_of(path))
        assert not uses or part_of(path) in THIRD_PARTY[package], f"{path.relative_to(ROOT)} imports {package}"


def test_the_library_imports_neither_training_nor_evaluation():
    for path in FILES:
        found = {name for name in imports_of(path) if name.split(".")[0] in ("train", "eval", "tests")}
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_figures_read_nothing_but_files():
    for path in (ROOT / "paper_figs").rglob("*.py"):
        # intervals are computed in one place, with numpy alone; sheets are drawn by the command line
        allowed = (
            "latent_reason.files.",
            "eval.statistics.",
            *(f"latent_reason.{part}." for part in ("cli", "errors", "json_files", "outputs")),
        )
        found = {
            name
            for name in imports_of(path)
            if not name.startswith(allowed) and name.split(".")[0] in ("torch", "latent_reason", "train", "eval")
        }
        assert not found, f"{path.name} imports {found}"


def test_the_library_is_imported_quickly_and_without_torch():
    code = (
        "import sys, time; t = time.perf_counter(); import latent_reason; t = time.perf_counter() - t; "
        "print(t, *sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, *heavy = done.stdout.split()
    assert float(seconds) < 2 and not heavy


def test_every_public_name_is_there_and_opens_with_an_example():
    for name in latent_reason.__all__:
        found = getattr(latent_reason, name)
        assert found.__name__ == name and name in dir(latent_reason)
        _, _, rest = inspect.getdoc(found).partition("\n\n")
        assert rest.startswith("Example:\n    >>> "), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = latent_reason.nothing


def test_editors_read_the_table_that_is_used_at_run_time():
    """The names imported for type checkers, the lazy table and __all__ are the same, and come from the same modules."""
    tree = ast.parse((LIBRARY / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == latent_reason._LAZY and sorted(typed) == latent_reason.__all__
    assert (LIBRARY / "py.typed").is_file()

"""Who may import whom, as ARCHITECTURE draws it: the right may import the left, parts do not import each other."""

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import latent_reason

LIBRARY = Path(latent_reason.__file__).parent
HOUSE = LIBRARY.parent
#: modules and packages of the library from left to right; those of one step do not import each other
STEPS = [
    {"trace"},
    {"tokens"},
    {"batch"},
    {"packing"},
    {"heads", "targets", "switching", "backbones", "losses", "objectives", "rendering"},
    {"masks", "filling", "policies"},
    {"reasoner"},
    {"generation", "adapters"},
    {"methods", "decoding", "sheet", "showing"},
    {"pretrained"},
    {"hub"},
    {"card", "doctor"},
    {"publishing"},
]
BESIDE = {"tasks", "data"}  # see traces and nothing else of the library
SEES_BOTH = {"publishing"}  # examples to try a checkpoint on
EVERYWHERE = {"files", "errors", "assets", "__init__"}  # imported by anyone, import nobody
THIRD = {
    "transformers": {"backbones", "tokens", "pretrained", "publishing"},
    "diffusers": {"heads", "rendering"},
    "lightning": set(),
    "pytorch_lightning": set(),
    "tokenizers": {"backbones"},
    "peft": {"adapters"},
    "pyarrow": {"data"},
    "datasets": {"data"},
}


def part_of(path: Path) -> str:
    first = path.relative_to(LIBRARY).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full dotted names a file imports, at its top or inside functions, relative ones resolved."""
    package = path.relative_to(HOUSE).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{a.name}" for a in node.names}
    return names


def parts_imported(path: Path) -> set[str]:
    """The parts of the library a file imports, itself left out. A name that is no part comes from the library's top."""
    heads = {n.split(".")[1] for n in imported(path) if n.startswith("latent_reason.")}
    known = {part_of(p) for p in LIBRARY.glob("*") if p.suffix == ".py" or (p / "__init__.py").is_file()}
    return {h if h in known else "__init__" for h in heads} - {part_of(path)}


FILES = sorted(LIBRARY.rglob("*.py"))
PARTS = sorted({part_of(p) for p in FILES} - {"__main__"})


def test_every_part_has_its_place():
    placed = set.union(*STEPS) | BESIDE | EVERYWHERE
    assert set(PARTS) <= placed, f"say in tests/unit/test_imports.py where {set(PARTS) - placed} stands"


@pytest.mark.parametrize("part", PARTS)
def test_arrows_point_to_the_left(part):
    allowed = set() if part in EVERYWHERE else {"trace"} | EVERYWHERE
    for number, step in enumerate(STEPS):
        if part in step:
            allowed |= set().union(*STEPS[:number]) | (BESIDE if part in SEES_BOTH else set())
    for path in (p for p in FILES if part_of(p) == part):
        found = parts_imported(path) - allowed
        assert not found, f"{path.relative_to(HOUSE)} imports {found}"


def test_methods_do_not_import_each_other():
    for path in (LIBRARY / "methods").glob("[!_]*.py"):
        siblings = {n for n in imported(path) if n.startswith("latent_reason.methods")}
        assert not siblings, f"{path.name} imports {siblings}"


def test_benchmarks_stand_alone_and_read_files_only():
    """None imports another, and nothing that reads them can download or unpickle."""
    for path in [*(HOUSE / "eval" / "benchmarks").glob("[!_]*.py"), HOUSE / "eval" / "storages.py"]:
        names = imported(path)
        siblings = {n for n in names if n.startswith("eval.benchmarks")}
        far = {n.split(".")[0] for n in names} & {"pickle", "urllib", "requests", "huggingface_hub", "datasets"}
        assert not siblings and not far, f"{path.name} imports {siblings | far}"


@pytest.mark.parametrize("library", THIRD)
def test_other_libraries_stay_where_they_belong(library):
    for path in FILES:
        uses = any(n.split(".")[0] == library for n in imported(path))
        assert not uses or part_of(path) in THIRD[library], f"{path.relative_to(HOUSE)} imports {library}"


def test_the_library_knows_neither_training_nor_evaluation():
    """Also not inside functions: an installed copy has neither package."""
    for path in FILES:
        assert not {n for n in imported(path) if n.split(".")[0] in ("train", "eval", "tests")}, path.name


def test_figures_read_nothing_but_files():
    for path in (HOUSE / "paper_figs").rglob("*.py"):
        # intervals are computed in one place, of numpy alone; sheets are drawn by the command line
        found = {
            n
            for n in imported(path)
            if not n.startswith(("eval.statistics.", "latent_reason.cli."))
            and n.split(".")[0] in ("torch", "latent_reason", "train", "eval")
        }
        assert not found, f"{path.name} imports {found}"


def test_the_library_is_imported_quickly_and_without_torch():
    code = (
        "import sys, time; t = time.perf_counter(); import latent_reason; t = time.perf_counter() - t; "
        "print(t, *sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    seconds, *heavy = done.stdout.split()
    assert float(seconds) < 2 and not heavy


def test_every_public_name_is_there():
    for name in latent_reason.__all__:
        assert getattr(latent_reason, name) is not None and name in dir(latent_reason)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = latent_reason.nothing


def test_editors_read_the_table_that_is_used_at_run_time():
    """The names imported for type checkers, the lazy table and __all__ are the same, and lead to the same objects."""
    tree = ast.parse((LIBRARY / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    typed = {alias.asname or alias.name: f"{node.module}:{alias.name}" for node in block.body for alias in node.names}
    lazy = {
        name: f"{home.partition(':')[0]}:{home.partition(':')[2] or name}" for name, home in latent_reason._LAZY.items()
    }
    assert typed == lazy and sorted(lazy) == latent_reason.__all__
    assert (LIBRARY / "py.typed").is_file()


#: names whose docstring does not open with an example yet
WITHOUT_EXAMPLE = {
    "Collator",
    "LatentReasonForConditionalGeneration",
    "LatentReasoner",
    "Rollout",
    "build_method",
    "generate",
    "load",
    "load_backbone",
    "save",
}


def opens_with_example(docstring: str) -> bool:
    """Whether the second paragraph is Python that calls something."""
    code = textwrap.dedent(docstring.partition("\n\n")[2].partition("\n\n")[0])
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(code)))
    except SyntaxError:
        return False


def test_a_public_name_opens_with_an_example():
    for name in latent_reason.__all__:
        assert opens_with_example(inspect.getdoc(getattr(latent_reason, name))) != (name in WITHOUT_EXAMPLE), name

"""The documentation against the code: commands, links, examples, the map, generated pages, numbers of figures."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_commands import ROOT, blocks, check, commands

from eval import benchmarks, compare
from latent_reason import methods, tasks
from latent_reason.checkpoint import model_card
from latent_reason.data import formats
from latent_reason.model.backbones.families import FAMILIES
from train.rl import rewards

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "AGENTS", "SECURITY", "examples/README")),
    *sorted(DOCS.rglob("*.md")),
]
RESULTS = sorted(path for path in (DOCS / "results").glob("*.md") if path.stem != "index")
IGNORED = {
    ".git",
    ".venv",
    ".gitignore",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "build",
    "dist",
    "site",
    "shared",
}


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# -- commands and code -------------------------------------------------------------------------------------------------
COMMANDS = [
    (page_name(path), command)
    for path in PAGES
    for block in blocks(read(path))
    if block.language in ("bash", "sh", "shell", "console")
    for command in commands(block.text)
]


def test_commands_are_read_from_pages():
    text = "<!-- run -->\n```bash\n# comment\nA=1 python -m x \\\n    --y 'z w' && pip install . # why\n```\n```python\n1\n```\n"
    first, second = blocks(text)
    assert (first.language, first.marks, second.language) == ("bash", ("run",), "python")
    assert commands(first.text) == [["A=1", "python", "-m", "x", "--y", "z w"], ["pip", "install", "."]]
    assert len(COMMANDS) > 150


@pytest.mark.parametrize(
    "wrong",
    [
        "python -m train.nothing",
        "python -m train.sft --config train/recipes/quickstart.yaml --optim.max_stepz 3",
        "python -m train.sft --config train/recipes/quickstrt.yaml",
        "python -m eval.run CHECKPOINT --no-such-option 3 --out FILE.json",
        "python -m latent_reason data chek DIR",
        "python paper_figs/nothing.py",
        "bash train/nothing.sh",
        "bash train/sft.sh train/recipes/quickstart.yaml --optim.max_stepz 3",
        "pip install -e '.[nothing]'",
        "latent_raeson methods",
    ],
)
def test_a_wrong_command_is_noticed(wrong, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, ValueError, OSError, SystemExit)):
        check(*commands(wrong))


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {' '.join(c)[:60]}" for page, c in COMMANDS])
def test_command_of_a_page_is_accepted_by_its_parser(page, command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    check(command)


def test_python_of_pages_is_python():
    """Blocks that begin with a line of imports import what exists."""
    for path in PAGES:
        for block in blocks(read(path)):
            if block.language != "python":
                continue
            tree = ast.parse(block.text)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latent_reason"):
                    module = importlib.import_module(node.module)
                    missing = [a.name for a in node.names if not hasattr(module, a.name)]
                    missing = [m for m in missing if importlib.util.find_spec(f"{node.module}.{m}") is None]
                    assert not missing, f"{page_name(path)}: {node.module} has no {', '.join(missing)}"


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=page_name)
def test_workflow_runs_commands_that_exist(path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    jobs = yaml.safe_load(read(path))["jobs"]
    assert set(jobs) >= {"lint", "types", "unit", "contracts", "wheel", "docs"}
    for job in jobs.values():
        for step in job["steps"]:
            for command in commands(step.get("run", "")):
                if not any("$" in word or "*" in word for word in command) and command[0] not in (
                    "cd",
                    "latent-reason",
                ):
                    check(command)
    assert "tests/run.sh" in read(ROOT / ".ci" / "run")


def test_pre_commit_uses_the_pinned_ruff():
    hooks = {
        repo["repo"].rpartition("/")[2]: repo["rev"]
        for repo in yaml.safe_load(read(ROOT / ".pre-commit-config.yaml"))["repos"]
    }
    assert f"ruff=={hooks['ruff-pre-commit'].removeprefix('v')}" in read(ROOT / "constraints.txt").splitlines()


# -- README ------------------------------------------------------------------------------------------------------------
def test_readme_is_one_page():
    text = read(README)
    assert len(text.splitlines()) <= 150
    assert text.index("bash train/quickstart.sh") < text.index("bash tests/run.sh")
    [example] = [block for block in blocks(text) if block.language == "python"]
    assert len(example.text.splitlines()) <= 12
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    results = next(table for table in tables if "| n |" in table)
    assert len(results.splitlines()) - 2 <= 6


def test_readme_names_every_method():
    assert set(re.findall(r"^\| `(\w+)` \|", read(README), re.MULTILINE)) >= set(methods.names())


# -- links and anchors -------------------------------------------------------------------------------------------------
def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(read(target)), link


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_named_files_exist(path):
    named = re.findall(r"`((?:latent_reason|train|eval|tests|paper_figs|docs)/[\w/.-]*(?:/|\.\w+))`", read(path))
    named = [name for name in named if not re.search(r"[A-Z]{3}", name)]
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_no_page_has_a_place_left_to_fill(path):
    assert not re.findall(r"\b(?:TODO|TBD|XXX|FIXME)\b|\.\./shared", read(path))


# -- the map -----------------------------------------------------------------------------------------------------------
def map_of(text: str) -> dict[str, str]:
    """Path -> what it is, of the fenced block under "## Map"; a line may name several paths, separated by commas."""
    block = re.search(r"^## Map\n.*?^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block, "no fenced block under '## Map'"
    found = {}
    for line in filter(None, block[1].splitlines()):
        paths, about = re.fullmatch(r"((?:\S+, )*\S+)\s+(.*)", line).groups()
        found |= dict.fromkeys(paths.split(", "), about)
    return found


def tracked() -> set[str]:
    """Files of the repository without what git ignores."""
    if (ROOT / ".git").exists():
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
        return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
    found = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return {p.as_posix() for p in found if not IGNORED & set(p.parts) and "__pycache__" not in p.parts}


def is_on_map(file: str, paths: dict[str, str]) -> bool:
    """Whether a file has a line, or is in a folder that has a line and none below it."""
    folders = ["/".join(file.split("/")[:depth]) + "/" for depth in range(file.count("/"), 0, -1)]
    nearest = next((folder for folder in folders if folder in paths), None)
    is_open = nearest is not None and not any(path != nearest and path.startswith(nearest) for path in paths)
    return file in paths or is_open


def test_map_is_read_line_by_line():
    found = map_of("## Map\n\n```text\ntrain/   Lightning\n\na/b.py, a/c.py   two files\n```\n")
    assert found == {"train/": "Lightning", "a/b.py": "two files", "a/c.py": "two files"}
    assert is_on_map("train/x.py", found) and is_on_map("a/b.py", found) and not is_on_map("a/d.py", found)
    assert not is_on_map("train/x.py", found | {"train/y.py": "one of two"})


def test_map_names_every_module_and_nothing_else():
    paths, files = map_of(read(DOCS / "architecture.md")), tracked()
    assert all(paths.values()), "every line says what it is"
    assert not [p for p in paths if p not in files and not any(f.startswith(p) for f in files if p.endswith("/"))], (
        "named but missing"
    )
    modules = {f for f in files if re.match(r"(?:latent_reason|train|eval)/", f) and f.endswith((".py", ".sh"))}
    modules = {f for f in modules if not f.endswith("__init__.py")}
    top = {f"{f.split('/')[0]}/" if "/" in f else f for f in files} - IGNORED
    missing = [f for f in modules if not is_on_map(f, paths)] + [f for f in top if f not in paths]
    assert not sorted(missing), "in the tree but not on the map"


# -- generated pages and lists ----------------------------------------------------------------------------------------
def test_generated_pages_are_current():
    stale = runpy.run_path(str(DOCS / "generate.py"))["stale"]()
    assert not stale, f"{stale}: run python docs/generate.py"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("methods.md", methods.names()),
        ("tasks.md", tasks.names()),
        ("data.md", formats.names()),
        ("rl.md", list(rewards.REWARDS)),
        ("backbones.md", list(FAMILIES)),
        ("evaluation.md", [name for name in benchmarks.names() if not name.startswith("vsp/")]),
    ],
)
def test_page_names_everything_of_its_kind(page, names):
    text = read(DOCS / page)
    assert not [name for name in names if f"`{name}`" not in text]


def test_every_error_code_is_in_the_table():
    used = set(re.findall(r'"(E\d\d)"', "".join(read(p) for p in (ROOT / "latent_reason" / "data").rglob("*.py"))))
    assert used <= set(re.findall(r"^\| (E\d\d) \|", read(DOCS / "data.md"), re.MULTILINE))


def test_fifteen_questions_each_have_a_command():
    sections = re.split(r"^## \d+\. ", read(DOCS / "questions.md"), flags=re.MULTILINE)[1:]
    assert len(sections) == 15 and all(any(b.language == "bash" for b in blocks(s)) for s in sections)


# -- results -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_page_says_how_and_what(path):
    text = read(path)
    for heading in ("## How it was made", "## What it shows", "## What it does not show"):
        assert heading in text, heading
    made = text[text.index("## How it was made") :]
    assert all(re.search(rf"^- {name}: \S", made, re.MULTILINE) for name in ("JSON", "Seed", "n"))
    assert any(block.language == "bash" for block in blocks(made))
    assert f"({path.name})" in read(DOCS / "results" / "index.md")


def test_every_figure_and_its_data_have_a_page():
    text = "".join(map(read, RESULTS))
    figures = ROOT / "paper_figs"
    assert not [p.name for p in figures.glob("*.png") if f"({'../' * 2}paper_figs/{p.name})" not in text]
    assert not [p.name for p in (figures / "data").glob("*.json") if f"{p.name}`" not in text]


TABLES = {
    "frozenlake_tiny": ("results.py", 14),
    "frozenlake_tiny_probes": ("results.py", 20),
    "controls": ("worth.py", 8),
    "heads": ("heads_quick.py", 5),
    "decodings": ("decodings.py", 18),
    "task_audit": ("needed.py", 14),
    "rl_frozenlake": ("rl.py", 7),
    "rl_plan_check": ("rl.py", 6),
    "rl_content": ("rl_content.py", 5),
}


def numbers(table: str) -> list[tuple[str, ...]]:
    """The numbers of each row that has some."""
    rows = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines() if line.startswith("|")
    ]
    found = [tuple(number for cell in row[1:] for number in re.findall(r"[-+]?\d+\.\d+", cell)) for row in rows]
    return [row for row in found if row]


@pytest.mark.parametrize("page", TABLES)
def test_table_has_the_numbers_that_its_script_prints(page, tmp_path, monkeypatch, capsys):
    script, n = TABLES[page]
    data = [str(ROOT / "paper_figs" / "data" / f"{page}.json")] if script == "rl.py" else []
    out = ["--out", str(tmp_path / "figure.png")] if script in ("rl.py", "needed.py") else []
    monkeypatch.setattr(sys, "argv", [script, *data, *out])
    monkeypatch.syspath_prepend(str(ROOT / "paper_figs"))
    runpy.run_path(str(ROOT / "paper_figs" / script), run_name="__main__")
    printed, shown = numbers(capsys.readouterr().out), numbers(read(DOCS / "results" / f"{page}.md"))
    assert len(shown) >= n and set(shown) <= set(printed), set(shown) - set(printed)


def test_the_table_of_methods_is_that_of_eval_compare(tmp_path):
    compare.main([str(ROOT / "paper_figs" / "data" / "compare.json"), "--table", str(tmp_path / "methods.md")])
    printed, shown = numbers(read(tmp_path / "methods.md")), numbers(read(DOCS / "results" / "methods.md"))
    assert len(shown) == 17 and set(shown) == set(printed)


def test_the_table_of_explicit_thinking_is_that_of_eval_compare(tmp_path):
    compare.main([str(ROOT / "paper_figs" / "data" / "explicit_wall_maze.json"), "--table", str(tmp_path / "a.md")])
    printed, shown = numbers(read(tmp_path / "a.md")), numbers(read(DOCS / "results" / "explicit.md"))
    assert len(shown) == 10 and set(shown) == set(printed)


def test_the_card_of_the_published_checkpoint_shows_its_figures():
    folder = ROOT / "checkpoints" / "frozenlake-tiny"
    shown = [line for line in read(folder / "README.md").splitlines() if line.startswith("|")]
    given = [*model_card._results(folder), *model_card._probes(folder / "probe.json")]
    assert shown == [line for line in given if line.startswith("|")]


# -- the site ----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())["docs"]
    assert len(pages) > 100 and (tmp_path / "site" / "paper_figs" / "heads.png").is_file()
    shutil.rmtree(tmp_path / "site")

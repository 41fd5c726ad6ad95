"""Writes the pages that come from the code: docs/methods.md and docs/api.md from docstrings, docs/security.md from tests.

    python docs/generate.py            # writes them
    python docs/generate.py --check    # writes nothing; exits with 1 if a page is not current

docs/configuration.md comes from ``python -m train.config.reference``.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
LIBRARY = DOCS.parent / "latent_reason"
NOTE = "<!-- Written by python docs/generate.py from docstrings. Edit those. -->"
#: what an extension subclasses or calls, by the path that people import it from
INTERFACES = (
    "latent_reason.model.heads.LatentHead",
    "latent_reason.model.targets.LatentTarget",
    "latent_reason.model.switching.Switch",
    "latent_reason.model.backbones.Backbone",
    "latent_reason.objectives.objective.Objective",
    "latent_reason.tasks.Task",
    "latent_reason.tasks.make",
    "latent_reason.data.native.read",
    "latent_reason.data.native.check",
    "latent_reason.data.native.write",
)


def markdown(docstring: str) -> str:
    """A docstring as Markdown: inline code, arXiv links, a bold word at the start of its named parts."""
    text = re.sub(r"``(.+?)``", r"`\1`", docstring, flags=re.DOTALL)
    text = re.sub(r"\b(\d{4}\.\d{5})\b", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"^(Idea|What differs[^:\n]*|Defaults):", r"\n**\1:**", text, flags=re.MULTILINE)


def methods_page() -> str:
    """Every method: its docstring and its options. Published methods come first."""
    from latent_reason import methods

    modules = {name: methods.load(name) for name in methods.names()}
    order = sorted(modules, key=lambda name: (modules[name].PAPER == "control", name))
    lines = [
        "# Methods",
        "",
        NOTE,
        "",
        "A method is one file in `latent_reason/methods/`. `python -m latent_reason methods --options` prints this list.",
        "A recipe selects a method with `method.name` and sets its options with `method.options.NAME`.",
        "To add one, see [Extending](extending.md#a-method).",
        "",
        "| method | source | summary |",
        "|---|---|---|",
    ]
    for name in order:
        paper = modules[name].PAPER
        source = paper if paper == "control" else f"[arXiv {paper}](https://arxiv.org/abs/{paper})"
        lines.append(f"| [`{name}`](#{name}) | {source} | {modules[name].SUMMARY} |")
    for name in order:
        lines += ["", f"## {name}", "", re.sub(r"\n{3,}", "\n\n", markdown(inspect.getdoc(modules[name])))]
        mode = modules[name].MODE
        lines += ["", f"Trained on traces of mode `{mode}`. Recipe: `train/recipes/frozenlake_{name}.yaml`."]
        if options := methods.schema(name):
            lines += ["", "| option | default |", "|---|---|"]
            lines += [f"| `{option}` | `{parameter.default!r}` |" for option, parameter in options.items()]
    return "\n".join(lines) + "\n"


def public_paths() -> dict[str, str]:
    """Public name -> where it is defined, from the TYPE_CHECKING imports of latent_reason/__init__.py."""
    source = ast.parse((LIBRARY / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in source.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    imports = [node for block in guarded for node in block.body if isinstance(node, ast.ImportFrom)]
    return {a.asname or a.name: f"latent_reason.{node.module}.{a.name}" for node in imports for a in node.names}


def api_page() -> str:
    """Directives of mkdocstrings for the public names and the interfaces of extensions."""
    lines = ["# API", "", NOTE, "", "## latent_reason", "", "```python", "import latent_reason", "```", ""]
    for name, path in sorted(public_paths().items()):
        lines += [f"::: {path}", "    options:", f'      heading: "latent_reason.{name}"', ""]
    lines += ["## Interfaces for extensions", "", "See [Extending](extending.md).", ""]
    for path in INTERFACES:
        lines += [f"::: {path}", "    options:", f'      heading: "{path}"', ""]
    return "\n".join(lines)


def security_page() -> str:
    """Every hostile or wrong input that the tests try, and the words of the error that answers it."""
    sys.path.insert(0, str(LIBRARY.parent / "tests"))
    from hostile import checkpoints, data, options, parts

    tables = {
        "Checkpoints and exported folders": [(kind, what, words) for kind, what, _, words in checkpoints.ROWS],
        "Recipes and command lines": [(case.kind, case.what, case.words) for case in options.CASES]
        + [("part", what, words) for what, _, words in parts.PARTS],
        "Data": [(case.kind, case.what, case.words) for case in data.CASES],
    }
    count = sum(map(len, tables.values()))
    lines = ["# Security", "", NOTE.replace("docstrings. Edit those", "the tables of tests/hostile/"), ""]
    lines += [
        "What the project promises, and how to report a vulnerability, is in SECURITY.md. This page lists the "
        f"{count} hostile or wrong inputs that the tests try. Each is answered by one sentence, before long work and in "
        "bounded time and memory; the last column has words of it. Readers and the loader are also tried with random bytes.",
    ]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", "| kind | input | the error says |", "|---|---|---|"]
        lines += [f"| {kind} | {_cell(what)} | {_cell('; '.join(words))} |" for kind, what, words in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text for a table of Markdown, in which nothing is markup."""
    shown = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", shown)


PAGES = {"methods.md": methods_page, "api.md": api_page, "security.md": security_page}


def stale() -> list[str]:
    """The generated pages that are not what this script writes."""
    return [n for n, page in PAGES.items() if not (DOCS / n).is_file() or (DOCS / n).read_text("utf-8") != page()]


def main() -> None:
    if "--check" in sys.argv[1:]:
        if names := stale():
            sys.exit(f"error: not current: {', '.join(f'docs/{name}' for name in names)}. Run: python docs/generate.py")
        return
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    sys.path.insert(0, str(LIBRARY.parent))
    main()

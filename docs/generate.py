"""Writes the pages that come from the code: docs/methods.md, docs/baselines.md and docs/api.md from docstrings, docs/security.md
from tests.

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


BASELINES = """A latent method is only worth its place beside what people do without latents. A baseline is one file in `eval/baselines/`: a
policy over turns, in which a model writes, a tool answers in text or pictures, and the model goes on. All baselines run on
every backbone, trained or untouched, through the same engine, tasks, rules of grading and result files as latent methods. Only
`imagine`, `recheck:sketches=true` and a router to sketches need a model that draws latents.

```bash
python -m eval.baselines --list
python -m eval.baselines CHECKPOINT --baseline crop:turns=2 --out results/crop.json --page results/crop.html
python -m eval.baselines CHECKPOINT --baseline whiteboard --run-code --out results/whiteboard.json
python -m eval.compare results/crop.json results/whiteboard.json
```

`--page` shows the first chats with all their pictures. The JSON is that of eval.run, so eval.compare and eval.leaderboard show
baselines beside latent methods; columns of probes stay empty, because there are no latents to replace. Costs are counted, not
only timed: tokens that the model wrote, passes of the text model, and pictures that the vision encoder read. Each turn reads the
chat again from its start, so a picture of an early turn is counted in every later one.

![A chat of the baseline draw: the question with a maze, a line that the model draws, the picture that comes back, and its
answer](images/baseline_draw.png)

*The baseline `draw` after 1,000 steps of demonstrations, with the question alone (`brief=true`), on a held-out maze.*

An episode has a budget: `--max-new-tokens` in all turns together. A turn after which a policy goes on may take half of what is left.
A call is the end of a line. One whose numbers cannot be read, or a tool that fails, is told to the model in text. What a model
writes behind a call is cut off, because it would be a guess of the result. A policy gets the pictures and the question of an item and nothing else; only `oracle` and `random` are given pictures
of the solution, as bounds.

A first table on mazes of walls: [Explicit thinking beside latents](results/explicit.md).

## Train a model for a baseline

A small model cannot call tools by instructions alone. `data.baseline` turns the solutions of a task into chats of a baseline, and
the checkpoint remembers it:

```bash
python -m train.compare --config train/recipes/explicit_wall_maze.yaml --init_from CHECKPOINT --out FILE.json
python -m train.sft --config train/recipes/frozenlake_text_cot.yaml --data.baseline draw:brief=true --init_from CHECKPOINT
```

`brief=true` asks the question alone, without instructions. `direct`, `text`, `caption`, `imagine`, `oracle` and `random` have
demonstrations for every task; `crop`, `draw` and `whiteboard` for `frozenlake_plan`, `plan_check`, `wall_maze` and `fold_punch`,
whose states they write as points and lines (`eval/turns/demonstrations.py`). The right answers of a trained model are the next
training data: chats that call tools, those first in which a failed call was mended, or the answers alone:

```bash
python -m train.rejection_sampling CHECKPOINT --baseline draw:brief=true --out data/drawn
python -m train.rejection_sampling CHECKPOINT --baseline crop:brief=true --answers-only --out data/distilled
```

## Code runs in a sandbox

`whiteboard`, `code_plot` and `code_tools` run code that a model wrote, and only with `--run-code` (in `train.compare`: where the
recipe names one of them). The sandbox (`eval/sandbox/`) has no network, no files but those of Python and one scratch folder, no
further processes, and limits of time, memory, output and pictures. It needs Linux with Landlock and seccomp, and refuses to run
elsewhere. SECURITY.md says what it does not protect from.

## Add one

A file in `eval/baselines/` has a docstring and one subclass of `Baseline` (`eval/turns/baseline.py`), whose fields are its options.
`think(problem)` is a generator: it yields `Ask(chat)`, `Read(chat)` or `Call(function)` and is sent what comes back. One that
calls tools subclasses `ToolBaseline` and only says how a call is found. The tests find the file by itself.
"""


def baselines_page() -> str:
    """How to use baselines, and each with its docstring and options."""
    sys.path.insert(0, str(LIBRARY.parent))
    import dataclasses

    from eval import baselines

    kinds = {name: baselines.load(name) for name in baselines.names()}
    order = sorted(kinds, key=lambda name: (kinds[name].PAPER == "control", name))
    lines = ["# Explicit thinking", "", NOTE, "", *BASELINES.splitlines(), "", "## List", ""]
    lines += ["| baseline | source | summary |", "|---|---|---|"]
    for name in order:
        source = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", kinds[name].PAPER)
        lines.append(f"| [`{name}`](#{name}) | {source} | {kinds[name].SUMMARY} |")
    for name in order:
        lines += ["", f"## {name}", "", markdown(inspect.getdoc(inspect.getmodule(kinds[name])))]
        if options := dataclasses.fields(kinds[name]):
            lines += ["", "| option | default |", "|---|---|"]
            lines += [f"| `{option.name}` | `{option.default!r}` |" for option in options]
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


PAGES = {"methods.md": methods_page, "baselines.md": baselines_page, "api.md": api_page, "security.md": security_page}


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

"""Plain texts, one a line: to rehearse while a model learns to sketch, and to measure whether it can still write.

python -m latent_reason texts FILE        # docstrings of installed packages, for --data.replay_texts FILE
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from ..files import atomic_write_text


def docstrings(folder: str | Path, pattern: str = "*.py", shortest: int = 400) -> list[str]:
    """Docstrings of the modules of a folder, of at least ``shortest`` letters, by name of their file."""
    return [
        said
        for file in sorted(Path(folder).glob(pattern))
        for node in parsed(file)
        if isinstance(node, ast.Module) and len(said := ast.get_docstring(node) or "") >= shortest
    ]


def inner_docstrings(folder: str | Path, shortest: int = 400) -> list[str]:
    """The same of the classes and functions of all modules below a folder, each text once."""
    kinds = ast.ClassDef, ast.FunctionDef
    return list(
        dict.fromkeys(
            said
            for file in sorted(Path(folder).rglob("*.py"))
            for node in parsed(file)
            if isinstance(node, kinds) and len(said := ast.get_docstring(node) or "") >= shortest
        )
    )


def parsed(file: Path) -> Iterator[ast.AST]:
    """All that stands in a Python file; nothing of one that cannot be read as such."""
    try:
        yield from ast.walk(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError):
        return


def lines(file: str | Path) -> list[str]:
    """The texts of a file: a line each, as JSON where it begins with a quotation mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no text.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{file}' of texts. Write one text a line.")
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"'{file}' holds no text. Write one text a line.")
    return [json.loads(line) if line.startswith('"') and line.endswith('"') else line for line in found]


def write(texts: list[str], file: str | Path) -> None:
    """The texts as JSON strings, one a line. Raises FileExistsError where the file is there."""
    if Path(file).exists():
        raise FileExistsError(f"'{file}' exists. Give another name, or move it away; nothing was touched.")
    atomic_write_text(file, "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts))

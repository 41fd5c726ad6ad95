"""Plain texts, one per line, to replay during training and to measure language-model loss.

python -m latent_reason texts FILE        # docstrings of installed packages, for --data.replay_texts FILE
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from ..files import atomic_write_text


def docstrings(folder: str | Path, pattern: str = "*.py", shortest: int = 400) -> list[str]:
    """Module docstrings of at least ``shortest`` characters in a folder, ordered by file name."""
    return [
        text
        for file in sorted(Path(folder).glob(pattern))
        for node in ast_nodes(file)
        if isinstance(node, ast.Module) and len(text := ast.get_docstring(node) or "") >= shortest
    ]


def inner_docstrings(folder: str | Path, shortest: int = 400) -> list[str]:
    """Docstrings of classes and functions of all modules below a folder, without duplicates."""
    kinds = ast.ClassDef, ast.FunctionDef
    return list(
        dict.fromkeys(
            text
            for file in sorted(Path(folder).rglob("*.py"))
            for node in ast_nodes(file)
            if isinstance(node, kinds) and len(text := ast.get_docstring(node) or "") >= shortest
        )
    )


def ast_nodes(file: Path) -> Iterator[ast.AST]:
    """All AST nodes of a Python file; none if it cannot be parsed."""
    try:
        yield from ast.walk(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError):
        return


def lines(file: str | Path) -> list[str]:
    """Read one text per line. Lines in double quotes are decoded as JSON strings.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file contains no text.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"Text file '{file}' not found. Create it with one text per line.")
    texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"'{file}' contains no text. Write one text per line.")
    return [json.loads(line) if line.startswith('"') and line.endswith('"') else line for line in texts]


def write(texts: list[str], file: str | Path) -> None:
    """Write the texts as JSON strings, one per line. Raises FileExistsError if the file exists."""
    if Path(file).exists():
        raise FileExistsError(f"'{file}' exists and was not changed. Use another name or move the file.")
    atomic_write_text(file, "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts))

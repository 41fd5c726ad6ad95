"""Plain texts, one per line, to replay during training and to measure language-model loss.

python -m latent_reason texts FILE        # docstrings of installed packages, for --data.replay_texts FILE
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from ..files import atomic_write_text
from . import jsonl
from .errors import DataError


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
        ValueError: the file contains no text, or a line that cannot be read.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"Text file '{file}' not found. Create it with one text per line.")
    texts = [_text_of(line, path, number) for number, line in jsonl.lines(path) if line.strip()]
    if not texts:
        raise ValueError(f"'{file}' contains no text. Write one text per line.")
    return texts


def _text_of(line: bytes, file: Path, number: int) -> str:
    """The text of a line. Raises DataError for a line that is too long or cannot be read."""
    line = line.removeprefix(jsonl.BOM).rstrip(b"\r\n")
    is_encoded = line.startswith(b'"') and line.endswith(b'"') and len(line) > 1
    try:
        return jsonl.decode(line) if is_encoded or len(line) > jsonl.LINE_BYTES else line.decode()
    except UnicodeDecodeError:
        raise DataError("E01", "", "not UTF-8. Save the file as UTF-8.", str(file), number) from None
    except DataError as error:
        raise error.at(str(file), number) from None


def write(texts: list[str], file: str | Path) -> None:
    """Write the texts as JSON strings, one per line. Raises FileExistsError if the file exists."""
    if Path(file).exists():
        raise FileExistsError(f"'{file}' exists and was not changed. Use another name or move the file.")
    atomic_write_text(file, "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts))

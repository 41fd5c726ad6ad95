"""The JSON file of :mod:`.task_audit`, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latent_reason.json_files import fields_of, read_json

console = Console(soft_wrap=True)


def read_audits(out: Path) -> list[dict]:
    """The results that the output file has. Raises ValueError if it is no file of this command."""
    expected = "the JSON of eval.task_audit"
    results = read_json(out, expected, ("schema", "results"))["results"]
    with fields_of(out, expected):
        if any("needed" not in result or not isinstance(result["task"], str) for result in results):
            raise KeyError("needed")
    return results


def left_tasks(names: Sequence[str], results: list[dict], command: str, out: Path) -> list[str]:
    """The tasks that this command has not audited yet. Raises FileExistsError if another command has audited one."""
    commands = {result["task"]: result.get("command") for result in results}
    if others := [name for name in names if name in commands and commands[name] != command]:
        raise FileExistsError(
            f"'{out}' has results of {', '.join(others)} by another command. Name another file, or replace them with "
            "--overwrite."
        )
    if kept := [name for name in names if name in commands]:
        console.print(f"{out} has the results of {', '.join(kept)} already.")
    return [name for name in names if name not in commands]


def share_cell(share: dict | None) -> str:
    return f"{share['value']:.2f}\n{share['low']:.2f}-{share['high']:.2f}" if share else "-"


def audit_table(results: Sequence[dict]) -> Table:
    """One line per level: shares of val items with Wilson intervals."""
    output = Table(title="answers and sketches predicted without the sketches")
    for name in (
        "task",
        "level",
        "n",
        "chance",
        "question",
        "words",
        "first sketch",
        "constant",
        "change",
        "last sketch",
        "needed",
    ):
        output.add_column(name)
    for result in results:
        for row in result["rows"]:
            question, first, last = (
                row["question"],
                *(row["glance"].get(position, {}) for position in ("first", "last")),
            )
            is_last = row is result["rows"][-1]
            output.add_row(
                result["task"],
                str(row["level"]),
                str(question["chance"]["n"]),
                *(share_cell(question[name]) for name in ("chance", "by_question", "by_words")),
                *(share_cell(first.get(name)) for name in ("read", "constant", "change")),
                share_cell(last.get("read")),
                "; ".join(result["reasons"] if is_last else row["reasons"]) or "yes",
                end_section=is_last,
            )
    return output

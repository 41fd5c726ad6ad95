"""The JSON file of a comparison, which a later call continues."""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from latent_reason.errors import did_you_mean
from latent_reason.files import atomic_write_json
from latent_reason.json_files import fields_of, read_json
from latent_reason.locks import open_locked
from latent_reason.outputs import check_output

from .progress import console

#: entries that must be equal in the file and in the call that continues it
IDENTITY = ("steps", "batch_size", "items", "task", "levels", "test_items", "start")
#: keys of a recipe that do not change what is trained
PLACES = ("run_name", "accelerator", "logger", "logging_steps")


class Results:
    """The rows of a comparison, in a JSON file that is written again after each of them. One process at a time holds it.

    Args:
        about: describes the comparison in the file; ``command`` among others.
        recipes: (name, seed) -> config of each variant.
        only: the name of the variant that is wanted, or a text in the names of those that are.
        column: the entry of a row with the name of its variant.

    Raises:
        ValueError: ``only`` fits no variant, or the file is not of this comparison, or has a variant of another recipe.
        BlockingIOError: another process writes it.
        OSError: it cannot be written.
    """

    def __init__(
        self, file: str | Path, about: dict, recipes: dict[tuple[str, int], Any], only: str | None, column: str
    ):
        self.file, self.about, self.only, self.column = check_output(file, True), about, only, column
        known = list(dict.fromkeys(name for name, _ in recipes))
        if only and not any(only in name for name in known):
            raise ValueError(
                f"only: no {column} has {only!r} in its name. {did_you_mean(only, known)} Known: {', '.join(known)}."
            )
        self.recipes = {key: recipe_digest(config) for key, config in recipes.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open_locked(self.file.with_name(f".{self.file.name}.lock"))
        try:
            self.rows = self._read() if self.file.exists() else []
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the file for other processes."""
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()

    def _read(self) -> list[dict]:
        command = " ".join(self.about["command"].split()[:3])  # python -m MODULE
        expected = f"the JSON of {command}"
        found = read_json(self.file, expected, ("command", "results"))
        with fields_of(self.file, expected):
            names = [(row[self.column], row["seed"]) for row in found["results"]]
            if not found["command"].startswith(command):
                raise ValueError(f"its command is {found['command'][:60]}")
        about = json.loads(json.dumps(self.about))
        if differ := [key for key in IDENTITY if key in about and key in found and about[key] != found[key]]:
            raise ValueError(
                f"'{self.file}' has another comparison, which differs in {', '.join(differ)}. Give another --out."
            )
        for key, row in zip(names, found["results"], strict=True):
            if "recipe" in row and row["recipe"] != self.recipes.get(key, row["recipe"]):
                raise ValueError(
                    f"'{self.file}' has {self.column} {key[0]!r}, seed {key[1]}, of another recipe. Give another --out, "
                    "or give it another name."
                )
        return found["results"]

    def is_wanted(self, name: str, seed: int) -> bool:
        """Whether a variant is to be trained: it is named by ``only``, and has no row yet."""
        is_name = any(self.only == variant for variant, _ in self.recipes)
        is_named = not self.only or (name == self.only if is_name else self.only in name)
        return is_named and not self.has_row(name, seed)

    def has_row(self, name: str, seed: int) -> bool:
        """Whether a variant has been trained and measured."""
        return any((row[self.column], row["seed"]) == (name, seed) for row in self.rows)

    def add(self, name: str, seed: int, config, row: dict) -> None:
        """Add the row of a variant that was trained with ``config``, and write the file."""
        about = {"method": config.method.name} if self.column == "arm" else {}
        self.rows.append({self.column: name, **about, "seed": seed, "recipe": recipe_digest(config)} | row)
        console.print(summary_of(row))
        atomic_write_json(self.file, self.about | {"results": self.rows})


def summary_of(row: dict) -> str:
    """The numbers of a row and its verdict in a line, such as ``n 200  success 0.735  latents_per_answer 18.9``."""
    shown = {
        key: entry["value"] if isinstance(entry, dict) and "value" in entry else entry for key, entry in row.items()
    }
    numbers = [f"{key} {entry:.4g}" for key, entry in shown.items() if isinstance(entry, int | float)]
    return "  ".join([*numbers, *filter(None, [row.get("verdict")])])


def recipe_digest(config) -> str:
    """A short hash of all keys that decide what is trained."""
    keys = {key: value for key, value in dataclasses.asdict(config).items() if key not in PLACES}
    return sha256(json.dumps(keys, sort_keys=True, default=str).encode()).hexdigest()[:12]

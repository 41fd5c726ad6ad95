"""The list of all keys as Markdown, from the configs themselves.

    python -m train.config.reference > docs/configuration.md

A test compares the committed file with what this prints.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from itertools import pairwise

from latent_reason.values import bounds_of

from .help import choices_of, describe_type, show_value
from .keys import OLD_KEYS, OLD_VALUES, is_group
from .trainers import CONFIGS

OPENING = """# Configuration

Made by `python -m train.config.reference > docs/configuration.md`; edit the docstrings in `train/config/`, not this file.

A training command reads a recipe (a YAML file of `train/recipes/`) and its command line. Later keys win:

```bash
python -m train.sft --config train/recipes/quickstart.yaml --optim.max_steps 500 --method.options.k 8
python -m train.sft --help
```

A config has the keys that its command uses. A key of another command, an unknown key and a key of an earlier version
are errors that say what to write instead. `stages` and `arms` hold changes to the config: only the keys that differ.
"""


def key_docs(config: type) -> dict[str, str]:
    """Text below each field of a dataclass and its bases."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for line, text in pairwise(body):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(line, ast.AnnAssign) and is_text:
                docs[line.target.id] = " ".join(text.value.value.split())
    return docs


def key_table(config: type, prefix: str = "") -> str:
    """One row for each key of a config, without those of its groups."""
    hints, docs = typing.get_type_hints(config), key_docs(config)
    bounded = typing.get_type_hints(config, include_extras=True)
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if is_group(hint):
            continue
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        value = describe_type(hint)
        if choices := choices_of(hint):
            value = value.replace("CHOICE", "|".join(choices))
        bounds = bounds_of(bounded[field.name])
        value = f"`{value}`, {bounds}" if bounds else f"`{value}`"
        cells = [f"`{prefix}{field.name}`", value, f"`{show_value(default)}`", docs[field.name]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def reference() -> str:
    """The whole page."""
    parts, groups = [OPENING], {}
    parts.append("## Commands\n\n| command | config | groups |\n|---|---|---|")
    for config in CONFIGS:
        hints = {name: hint for name, hint in typing.get_type_hints(config).items() if is_group(hint)}
        groups |= {hint: name for name, hint in hints.items()}
        named = ", ".join(f"[`{name}`](#{hint.__name__.lower()})" for name, hint in hints.items())
        anchor = f"[`{config.__name__}`](#{config.__name__.lower()})"
        parts[-1] += f"\n| `python -m {config.command}` | {anchor} | {named} |"
    parts += [f"## {config.__name__}\n\n{key_table(config)}" for config in CONFIGS]
    parts += [
        f"## {group.__name__}\n\n{inspect.getdoc(group)}.\n\n{key_table(group, f'{name}.')}"
        for group, name in groups.items()
    ]
    old = "\n".join(f"| `{old}` | `{new}` |" for old, new in OLD_KEYS.items())
    values = "\n".join(
        f"| `{key}`: `{old}` | `{new}` |" for key, renamed in OLD_VALUES.items() for old, new in renamed.items()
    )
    parts.append(f"## Keys of earlier versions\n\n| earlier | today |\n|---|---|\n{old}\n{values}")
    return "\n\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


if __name__ == "__main__":
    print(reference(), end="")

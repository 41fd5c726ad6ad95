"""A checkpoint with its demo as the folder of a Hugging Face Space.

README.md           what the Space runs, as its head says it
app.py              starts latent_reason/demo on the checkpoint beside it
requirements.txt    packages
checkpoint/         the exported checkpoint
latent_reason/      this library, which need not be installed there
"""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

from ...files import atomic_folder
from ...folders import read_json
from ..config_file import CONFIG_FILE
from ..markdown import code, escape, one_line
from . import bundle
from .exporter import export

GRADIO = "6.31.0"  # a version that the extra `demo` allows
CHECKPOINT = "checkpoint"  # the folder of the checkpoint in the Space
LEFT_OUT = ("__pycache__", "*.pyc", "contracts")
APP = '''"""The demo of the checkpoint in this folder."""

import os
from pathlib import Path

from latent_reason.demo.server import start

if __name__ == "__main__":
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"  # a Space is reached from outside
    start([Path(__file__).parent / "{checkpoint}"], names=[{name}], host=host, port=7860)
'''
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: {license}
---

# {heading}

A page to ask the checkpoint in [{checkpoint}/]({checkpoint}/README.md) (method {method}) about pictures, and to watch its text and
sketches as they come. Latents can be switched off or replaced by zero, by noise or by those of another picture.

The folder `latent_reason/` is the library, under its own licence (`LICENSE`). To run the page on your machine:

```bash
pip install -r requirements.txt
python app.py
```
"""


def export_space(run: str | Path, folder: str | Path, **options) -> Path:
    """Write the folder of a Space for the checkpoint of a run. ``options`` are those of :func:`.exporter.export`, whose
    errors it raises."""
    name = one_line(Path(run).resolve().name)
    with atomic_folder(folder) as new:
        export(run, new / CHECKPOINT, **options)
        shutil.copytree(bundle.LIBRARY, new / bundle.LIBRARY.name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.copyfile(bundle.licence(), new / "LICENSE")
        card = read_json(new / CHECKPOINT / CONFIG_FILE)
        (new / "app.py").write_text(APP.format(checkpoint=CHECKPOINT, name=json.dumps(name)), encoding="utf-8")
        (new / "requirements.txt").write_text(requirements(new), encoding="utf-8")
        (new / "README.md").write_text(readme(card, name), encoding="utf-8")
    return Path(folder)


def requirements(folder: Path) -> str:
    """The packages of the library and of the checkpoint in a folder, and gradio, which brings the server."""
    copied = (file.read_text(encoding="utf-8") for file in (folder / bundle.LIBRARY.name).rglob("*.py"))
    needed = {bundle.packages().get(name, name) for text in copied for name in bundle.imports(text)}
    of_library = {line for package, line in bundle.required_packages().items() if package in needed}
    of_checkpoint = (folder / CHECKPOINT / "requirements.txt").read_text(encoding="utf-8").split("\n")
    return "\n".join([*sorted(of_library.union(filter(None, of_checkpoint))), f"gradio=={GRADIO}"]) + "\n"


def readme(card: dict, name: str) -> str:
    """README.md with the head of a Space."""
    return README.format(
        title=json.dumps(name),
        gradio=GRADIO,
        python=".".join(platform.python_version_tuple()[:2]),
        license=one_line(card["licence"]["license"]),
        heading=f"Ask {escape(name)}",
        checkpoint=CHECKPOINT,
        method=code(card["method"] or "built by hand"),
    )

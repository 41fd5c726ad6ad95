"""Exported checkpoints: every method and several families load by AutoModel and by the library, and say the same."""

from __future__ import annotations

import ast
import json
import re
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CASES, ready
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_runs import shorten_snippet, tiny_checkpoint
from transformers.dynamic_module_utils import get_relative_import_files

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.export import bundle, checks, isolated_check
from latent_reason.checkpoint.export.exporter import export, without_places
from latent_reason.checkpoint.hf import parity
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding.engine import generate

#: what a folder is made of: a method on a family
MADE = [
    *((name, "qwen2_5_vl") for name in methods.names()),
    ("modal_mixed", "gemma3"),
    ("modal_mixed", "llava"),
    ("skila", "smolvlm"),
    ("monet", "qwen3_vl"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, make_backbone, make_traces):
    """``exported(method, family)``: an exported folder, and the reasoner that is in it."""
    made, root = {}, tmp_path_factory.mktemp("exported")

    def make(method, family) -> tuple[Path, object]:
        if (method, family) not in made:
            case = next(case for case in CASES if case.method == method)
            reasoner = ready(case, lambda positions: make_backbone(positions, family), make_traces)
            checkpoint.save(reasoner.eval(), root / f"{method}-{family}.saved")
            folder = export(root / f"{method}-{family}.saved", root / f"{method}-{family}")
            made[method, family] = folder, reasoner
        return made[method, family]

    return make


@pytest.mark.parametrize(("method", "family"), MADE)
def test_every_method_exports_and_passes(method, family, exported):
    folder, _ = exported(method, family)
    results = checks.check(folder)
    assert [result.state for result in results] == ["passed"] * 9 + ["left out"], results
    copied = {Path(file).name for file in get_relative_import_files(folder / "modeling_latent_reason.py")}
    assert copied | {"modeling_latent_reason.py"} == {file.name for file in folder.glob("*.py")}, "as transformers does"
    assert_inference_code_only(folder)


def assert_inference_code_only(folder):
    """Few files, short, without losses, objectives, packing or policies of reinforcement learning."""
    texts = {file.name: file.read_text() for file in folder.glob("*.py")}
    sizes = {name: len(text.splitlines()) for name, text in texts.items()}
    assert len(sizes) <= 15 and sum(sizes.values()) <= 3200, sizes
    for name, text in texts.items():
        assert "objectives" not in text and not re.search(r"def \w*(loss|pack|replay)", text), name
        assert not defined_names(text) & training_names(), name


@cache
def training_names() -> set[str]:
    """Functions and classes of objectives/, but for names that the rest of the library uses, too."""
    names = {"objectives": set(), "others": set()}
    for path in bundle.LIBRARY.rglob("*.py"):
        part = "objectives" if path.parent.name == "objectives" else "others"
        names[part] |= defined_names(path.read_text())
    return names["objectives"] - names["others"]


def defined_names(text: str) -> set[str]:
    """The functions and classes of a module, at any depth."""
    return set(re.findall(r"^ *(?:async def|def|class) (\w+)", text, re.MULTILINE))


@pytest.mark.slow
def test_strangers_see_the_same_logits_and_the_same_sketch(exported):
    """In one fresh process, elsewhere, without a network and without this library."""
    folders = [exported(*made)[0] for made in MADE]
    for folder in folders:
        shorten_snippet(folder)
    found = isolated_check.ask(folders)
    for made, one in zip(MADE, found, strict=True):
        assert (one["loading"], one["keys"], one["probe"], one["snippet"]) == ("", [], "", ""), made
        assert {"logits"} <= one["off"].keys() and ("latents" in one["off"]) == exported(*made)[1].can_sketch, made
        assert max(one["off"].values()) < parity.BOUNDS["float32"], made


@pytest.mark.parametrize("made", [("modal_mixed", "qwen2_5_vl"), ("modal_mixed", "gemma3"), ("skila", "smolvlm")])
def test_the_library_loads_what_was_saved(made, exported, make_traces):
    folder, reasoner = exported(*made)
    again, decoder = checkpoint.load(folder, device="cpu")
    assert decoder is None and again.method.name == made[0] and not again.training
    ours, theirs = reasoner.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    prompts = [r.processor(make_traces(), generate=True) for r in (reasoner, again)]
    first, second = (
        generate(r, p, max_new_tokens=12, latent_mode="first") for r, p in zip((reasoner, again), prompts, strict=True)
    )
    assert torch.equal(first.ids, second.ids)
    assert_close(first.latent_embeds, second.latent_embeds)


# -- what is in the folder -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with figures."""
    run = tmp_path_factory.mktemp("figures") / "run"
    shutil.copytree(tiny_checkpoint(), run / "model")
    row = {
        "task": "frozenlake_plan",
        "level": 3,
        "split": "test",
        "n": 4,
        "metric": "success",
        "value": 0.5,
        "low": 0.15,
        "high": 0.85,
    }
    sketches = row | {"metric": "sketches_per_item", "low": None, "high": None}
    (run / "eval.json").write_text(
        json.dumps(
            {"schema": 1, "checkpoint": str(run / "model"), "results": [row, row | {"metric": "exact"}, sketches]}
        )
    )
    (run / "controls").mkdir()
    (run / "controls" / "direct.json").write_text(json.dumps({"schema": 1, "results": [row | {"value": 0.25}]}))
    (run / "probe.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "n": 4,
                "protocol": "regenerate",
                "probes": {
                    "as_generated": {"accuracy": 0.5, "low": 0.2, "high": 0.8},
                    "zero": {
                        "accuracy": 0.25,
                        "low": 0.1,
                        "high": 0.6,
                        "difference": {"value": 0.25, "low": 0.0, "high": 0.5},
                    },
                },
            }
        )
    )
    (run / "recipe.yaml").write_text(f"seed: 0\nrun: {run}\n")
    return run


@pytest.fixture(scope="module")
def shown(run):
    return export(run, run / "export")


def test_an_export_holds_the_checkpoint_and_what_is_known_of_it(shown, run):
    there = {p.relative_to(shown).as_posix() for p in shown.rglob("*") if p.is_file() and p.suffix != ".py"}
    assert there == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "processor_config.json",
        "preprocessor_config.json",
        "decoder/config.json",
        "decoder/diffusion_pytorch_model.safetensors",
        "probe.safetensors",
        "README.md",
        "LICENSE",
        "requirements.txt",
        "latent_reason.json",
        "example.png",
        "sketches.png",
        "eval.json",
        "probe.json",
        "recipe.yaml",
        "controls/direct.json",
    }
    assert json.loads((shown / "eval.json").read_text())["checkpoint"] == "model", "no path of this machine"
    assert all(r.state != "failed" for r in checks.check(shown))
    first, second = (
        json.loads((shown / "processor_config.json").read_text())["image_processor"],
        json.loads((shown / "preprocessor_config.json").read_text()),
    )
    assert first == second


def test_weights_lie_once_and_are_those_of_the_run(shown):
    weights, saved = load_file(shown / "model.safetensors"), tiny_checkpoint()
    stock, own = load_file(saved / "backbone" / "model.safetensors"), load_file(saved / "reasoner.safetensors")
    assert len(weights) == len(stock) + len(own)
    assert all(torch.equal(weights[f"reasoner.{name}"], value) for name, value in own.items())
    reasoner, _ = checkpoint.load(saved, device="cpu")
    for name, value in reasoner.backbone.model.state_dict().items():
        if name != "lm_head.weight":  # tied
            assert torch.equal(weights[f"reasoner.backbone.model.{name}"], value), name


def test_the_model_card_has_a_head_results_and_limits(shown):
    text = (shown / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    found = yaml.safe_load(head)
    assert found["license"] == "apache-2.0" and found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "image-text-to-text" and found["metrics"] == ["success"]
    assert found["datasets"] == ["frozenlake_plan"] and "modal_mixed" in found["tags"]
    assert found["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
    assert "| this model | frozenlake_plan | test | 3 | 4 | 0.500 (0.15-0.85) | 0.500 (0.15-0.85) |" in body
    assert "| direct | frozenlake_plan | test | 3 | 4 | 0.250 (0.15-0.85) |  |" in body
    assert "| zero | 0.250 | 0.100 - 0.600 | +0.250 (+0.000 to +0.500) |" in body
    assert "@misc{modal_mixed," in body and "eprint = {2602.00574}" in body and f"torch {version('torch')}" in body
    assert "![sketches](sketches.png)" in body and (shown / "sketches.png").is_file(), "drawn, as the run had none"
    assert "## Limits" in body and "None" not in body and str(shown.parent) not in text


def test_many_files_of_weights_hold_the_same(shown, tmp_path):
    folder = export(shown, tmp_path / "shards", max_shard_size="150KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 2 and not (folder / "model.safetensors").exists()
    whole = load_file(shown / "model.safetensors")
    for name, file in index.items():
        with safe_open(folder / file, "pt") as opened:
            assert torch.equal(opened.get_tensor(name), whole[name])
    assert index.keys() == whole.keys()


def test_an_export_can_be_exported_again(shown, tmp_path):
    """All but what the model makes of the probe, which is made anew and may differ in the last bit."""
    again = export(shown, tmp_path / "again")
    for file in (p.relative_to(shown) for p in shown.rglob("*") if p.is_file() and p.name != "probe.safetensors"):
        assert (again / file).read_bytes() == (shown / file).read_bytes(), file


def test_records_of_ones_own_are_named_and_no_task_is_claimed(tmp_path):
    saved = shutil.copytree(tiny_checkpoint(), tmp_path / "model")
    given = json.loads((saved / checkpoint.CONFIG_FILE).read_text())
    given["notes"] |= {"backbone": "some/model", "data": given["notes"]["data"] | {"folder": "/data/mine/shapes"}}
    (saved / checkpoint.CONFIG_FILE).write_text(json.dumps(given))
    folder = export(saved, tmp_path / "out")
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["datasets"] == ["shapes"] and yaml.safe_load(head)["base_model"] == "some/model"
    assert "frozenlake" not in body and "What does the picture show?" in body
    assert "come from `some/model`, whose terms hold" in body
    assert checks.passed(checks.check(folder))


@pytest.mark.parametrize(
    "told, wanted, said",
    [
        (
            "---\nlicense: other\nlicense_name: qwen-research\nlicense_link: LICENSE\n---\n# A model\n",
            {"license": "other", "license_name": "qwen-research", "license_link": "LICENSE"},
            "licence is qwen-research, see",
        ),
        ("---\nlicense: mit\n---\n", {"license": "mit"}, "its licence is mit, see LICENSE-base."),
        (None, {"license": "other", "license_name": "terms-of-the-base-model"}, "was not at hand, see LICENSE-base."),
        ("---\nlicense: [\n---\n", {"license": "other", "license_name": "terms-of-the-base-model"}, "was not at hand"),
    ],
)
def test_the_licence_is_that_of_the_model_it_began_with(told, wanted, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved, base = shutil.copytree(tiny_checkpoint(), tmp_path / "model"), tmp_path / "base"
    base.mkdir()
    (base / "LICENSE").write_text("Not for sale.")
    if told is not None:
        (base / "README.md").write_text(told)
    given = json.loads((saved / checkpoint.CONFIG_FILE).read_text())
    given["notes"]["backbone"] = "base"
    (saved / checkpoint.CONFIG_FILE).write_text(json.dumps(given))
    folder = export(saved, tmp_path / "out")
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(head)
    assert {key: found[key] for key in ("license", "license_name", "license_link") if key in found} == wanted
    assert said in body and (folder / "LICENSE-base").read_text() == "Not for sale."
    assert checks.passed(checks.check(folder))
    shutil.rmtree(base)
    again = export(folder, tmp_path / "again")
    assert (again / "README.md").read_text() == (folder / "README.md").read_text()
    assert (again / "LICENSE-base").is_file()


def test_a_link_out_of_the_run_is_not_copied(tmp_path):
    shutil.copytree(tiny_checkpoint(), tmp_path / "run" / "model")
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "run" / "eval.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"eval\.json' is a link that leaves the folder"):
        export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_merge_is_said(run, tmp_path):
    with pytest.raises(ValueError, match="has no adapter to merge"):
        export(run, tmp_path / "merged", merge_lora=True)
    assert not list(tmp_path.iterdir())


def test_places_are_cut_to_their_last_part():
    said = 'a: ROOT/me/runs/lake-1, b: runs/lake, c: "https://x.org/a/b", d: C:\\runs\\lake, e: 1/2, f: "ROOT/x/"'
    said = said.replace("ROOT", "/some")
    assert without_places(said) == 'a: lake-1, b: runs/lake, c: "https://x.org/a/b", d: lake, e: 1/2, f: "x"'


# -- the generated code --------------------------------------------------------------------------------------------
def test_generated_code_is_the_librarys(shown):
    """Every function and method says what that of the library says, but for docstrings and imports."""
    kept = bundle.kept_code(checkpoint.load(tiny_checkpoint(), device="cpu")[0])
    for name, paths in bundle.by_file(kept).items():
        ours, theirs = {}, functions(shown / f"{name}.py")
        for path in paths:
            ours |= functions(path)
            assert path.relative_to(bundle.LIBRARY).as_posix() in " ".join((shown / f"{name}.py").read_text().split())
        for own in ("LatentReasonForConditionalGeneration.build_reasoner", "import_object"):  # of an export alone
            theirs.pop(own, None)
        for function, body in theirs.items():
            assert body == ours[function], f"{name}: {function}"


def functions(path: Path) -> dict[str, str]:
    """Name -> signature and body of every function and method of a file, without docstrings and imports of the file's
    own package."""
    found = {}

    def walk(node, prefix=""):
        for inner in node.body:
            if isinstance(inner, ast.ClassDef):
                walk(inner, f"{prefix}{inner.name}.")
            elif isinstance(inner, ast.FunctionDef):
                body = [one for one in inner.body if not (isinstance(one, ast.ImportFrom) and one.level)]
                if len(body) > 1 and bundle.docstring_of(inner):
                    body = body[1:]
                elif bundle.docstring_of(inner):
                    body = []  # nothing but a docstring, of which the first paragraph is kept
                found[prefix + inner.name] = ast.dump(inner.args) + "".join(map(ast.dump, body))

    walk(ast.parse(path.read_text()))
    return found


# -- the model -----------------------------------------------------------------------------------------------------
def test_the_model_answers_in_words_latents_and_pictures(shown, picture):
    model = LatentReasonForConditionalGeneration.from_pretrained(shown)
    answer = model.generate_interleaved(picture(8, 12), "Which way?", latent_mode="first", max_new_tokens=12)
    assert answer.segments[0] is answer.sketches[0] and len(answer.sketches) == len(answer.images)
    assert answer.latents[0].shape == (4, 32) and answer.images[0].size == (3 * 32, 2 * 32)
    assert answer.text == "".join(p for p in answer.segments if isinstance(p, str))
    plain = model.generate_interleaved([], "Which way?", latent_mode="off", max_new_tokens=3)
    assert not plain.sketches and plain.text


def test_a_model_without_its_tokenizer_says_so(shown):
    config = LatentReasonForConditionalGeneration.config_class.from_pretrained(shown)
    with pytest.raises(ValueError, match=r"Use AutoModelForImageTextToText\.from_pretrained"):
        LatentReasonForConditionalGeneration(config)

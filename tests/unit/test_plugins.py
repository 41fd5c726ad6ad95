"""Methods, tasks and heads of a user's own package, by dotted path; and that a checkpoint cannot have code imported."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch

from latent_reason import LatentReasonForConditionalGeneration, checkpoint, imports, methods, tasks
from latent_reason.checkpoint.export.exporter import export
from latent_reason.imports import UntrustedCode, import_object, path_of, restrict_imports
from latent_reason.model import backbones, heads
from latent_reason.model.backbones import Backbone
from latent_reason.model.backbones.qwen_vl import QwenVL
from train.rl import rewards

PLUGIN = """
from latent_reason.methods.modal_mixed import build_model, build_objective
from latent_reason.model.backbones.qwen_vl import QwenVL
from latent_reason.model.heads import LatentHead, MLPHead
from latent_reason.tasks.wall_maze import WallMaze

PAPER, SUMMARY, MODE = "none", "a method of a user", "mixed"


class MyHead(MLPHead):
    pass


class Unfinished(LatentHead):
    pass


class MyTask(WallMaze):
    name = "my_maze"


class MyBackbone(QwenVL):
    pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user on the path, not imported yet."""
    name = f"users_package_{abs(hash(tmp_path.name))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "parts.py").write_text(PLUGIN)
    (tmp_path / name / "half.py").write_text("PAPER = 'none'\n")
    (tmp_path / name / "broken.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield name
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


TINY = {"width": 32, "layers": 1, "heads": 2, "vision_width": 32}


# -- by path -----------------------------------------------------------------------------------------------------------
def test_methods_heads_and_tasks_are_named_by_path(package):
    reasoner = methods.build_method(
        f"{package}.parts",
        backbones.load_backbone("tiny", **TINY),
        k=4,
        head=f"{package}.parts:MyHead",
        head_options={"hidden": 8},
    )
    assert reasoner.method.name == f"{package}.parts" and type(reasoner.head).__name__ == "MyHead"
    assert path_of(type(reasoner.head)) == f"{package}.parts:MyHead" and path_of(heads.MLPHead) is None
    with pytest.raises(ValueError, match=r"has no option 'kk'. Did you mean 'k'"):
        methods.build_method(f"{package}.parts", reasoner.backbone, kk=1)
    with pytest.raises(ValueError, match=r"has no option 'hiden'. Did you mean 'hidden'"):
        heads.make(f"{package}.parts.MyHead", 8, 8, hiden=1)
    for path in (f"{package}.parts:MyTask", f"{package}.parts.MyTask"):
        assert tasks.make(path, level=2)[0].question and tasks.own(path, {"skin": "plain", "chonk": 1}) == {
            "skin": "plain"
        }


def test_a_backbone_is_named_by_the_path_of_its_class(package, tmp_path):
    tiny = backbones.load_backbone("tiny", **TINY)
    tiny.model.save_pretrained(tmp_path / "small")
    tiny.tokenizer.save_pretrained(tmp_path / "small")
    tiny.image_processor.save_pretrained(tmp_path / "small")
    found = backbones.load_backbone(f"{package}.parts:MyBackbone@{tmp_path / 'small'}")
    assert isinstance(found, QwenVL) and path_of(type(found)) == f"{package}.parts:MyBackbone"
    assert torch.equal(found.model.lm_head.weight, tiny.model.lm_head.weight)
    checkpoint.save(methods.build_method("direct", found), tmp_path / "saved")
    assert path_of(type(checkpoint.load(tmp_path / "saved")[0].backbone)) == f"{package}.parts:MyBackbone"
    del sys.modules[f"{package}.parts"]
    with pytest.raises(UntrustedCode, match="names a backbone of the module"):
        checkpoint.load(tmp_path / "saved")


@pytest.mark.parametrize("kind", ["method", "head", "task", "reward"])
def test_a_module_is_named_on_the_console_before_it_is_imported(kind, package, tmp_path, capsys):
    """Also one that somebody's recipe holds."""
    (tmp_path / package / "parts.py").write_text("raise ValueError('it ran')\n")
    use = {
        "method": methods.load,
        "head": lambda path: heads.make(f"{path}:MyHead", 8, 8),
        "task": lambda path: tasks.make(f"{path}:MyTask"),
        "reward": lambda path: rewards.find(f"{path}.mine"),
    }
    with pytest.raises(ValueError, match="it ran"):
        use[kind](f"{package}.parts")
    assert capsys.readouterr().err == f"Importing {package}.parts ({kind})\n"


def test_what_is_wrong_with_a_path_is_named(package):
    with pytest.raises(ValueError, match=r"unknown method 'miraj'. Did you mean 'mirage'\?.*as my_pkg\.my_method"):
        methods.load("miraj")
    with pytest.raises(ValueError, match=rf"'{package}\.part': there is no module '{package}\.part'.*PYTHONPATH"):
        methods.load(f"{package}.part")
    with pytest.raises(ValueError, match="there is no module 'no_such_package'"):
        methods.load("no_such_package.method")
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        methods.load(f"{package}.broken")
    with pytest.raises(ValueError, match=rf"'{package}\.half' lacks build_model, build_objective, SUMMARY, MODE"):
        methods.load(f"{package}.half")
    with pytest.raises(ValueError, match=r"has no 'MyHaed'. Did you mean 'MyHead'\?"):
        heads.make(f"{package}.parts:MyHaed", 8, 8)
    with pytest.raises(ValueError, match=r"has to be a subclass of latent_reason\.model\.heads\.base\.LatentHead\.$"):
        heads.make(f"{package}.parts:MyTask", 8, 8)
    with pytest.raises(ValueError, match=r"subclass of .*LatentHead\. It does not implement .*sample"):
        heads.make(f"{package}.parts:Unfinished", 8, 8)
    with pytest.raises(ValueError, match="has to be a subclass of"):
        import_object("os.path.join", "backbone", Backbone)
    for _ in range(2):  # not imported yet, and imported
        with pytest.raises(
            ValueError, match=r"task 'wsgiref.headers' is a module. Name what it holds: wsgiref.headers:"
        ):
            import_object("wsgiref.headers", "task")
        importlib.import_module("wsgiref.headers")


# -- named by a checkpoint ---------------------------------------------------------------------------------------------
@pytest.fixture
def download(package, tmp_path):
    """A checkpoint whose method, head and task are of a package that this process has not imported."""
    head = {"head": f"{package}.parts:MyHead", "head_options": {"hidden": 8}}
    reasoner = methods.build_method(f"{package}.parts", backbones.load_backbone("tiny", **TINY), k=4, **head)
    reasoner.target.standardizer.fitted.fill_(True)
    checkpoint.save(reasoner, tmp_path / "saved", notes={"data": {"task": f"{package}.parts:MyTask", "levels": [2]}})
    del sys.modules[f"{package}.parts"]
    return tmp_path / "saved"


def untouched(package) -> bool:
    return f"{package}.parts" not in sys.modules


def test_a_checkpoint_that_names_code_is_refused(package, download, monkeypatch):
    with pytest.raises(
        UntrustedCode, match=rf"saved' names a method of the module '{package}\.parts'.*PLUGINS={package},"
    ):
        checkpoint.load(download)
    assert untouched(package)
    monkeypatch.setenv(imports.PLUGINS, "another, more.of_it")
    with pytest.raises(UntrustedCode):
        checkpoint.load(download)
    assert untouched(package)
    assert checkpoint.load(download, allow_imports=True)[0].method.name == f"{package}.parts"


def test_a_head_of_one_of_our_methods_is_refused_too(package, download):
    card = json.loads((download / checkpoint.CONFIG_FILE).read_text())
    (download / checkpoint.CONFIG_FILE).write_text(json.dumps(card | {"method": "modal_mixed"}))
    with pytest.raises(UntrustedCode, match="names a head of the module"):
        checkpoint.load(download)
    assert untouched(package)


@pytest.mark.parametrize("trust", ["imported", "listed"])
def test_code_that_was_imported_or_listed_is_trusted(package, download, monkeypatch, trust):
    if trust == "imported":
        importlib.import_module(f"{package}.parts")
    else:
        monkeypatch.setenv(imports.PLUGINS, f"other,{package}")
    assert type(checkpoint.load(download)[0].head).__name__ == "MyHead"


def test_the_task_of_a_checkpoint_is_refused_where_it_would_be_made(package, download):
    with pytest.raises(UntrustedCode, match="names a task of the module"):
        tasks.check_trusted(f"{package}.parts:MyTask", "saved")
    assert untouched(package) and tasks.check_trusted("slide", "saved") == "slide"


def test_a_class_of_transformers_refuses_it_too(package, download):
    reasoner, _ = checkpoint.load(download, allow_imports=True)
    whole = download.parent / "whole"
    LatentReasonForConditionalGeneration.from_reasoner(reasoner).save_pretrained(whole)
    del sys.modules[f"{package}.parts"]
    with pytest.raises(UntrustedCode):
        LatentReasonForConditionalGeneration.from_pretrained(whole)
    assert untouched(package)


def test_blocks_of_trust_end_where_they_end(package):
    with restrict_imports("outer", allow=True), restrict_imports("inner"):
        import_object(f"{package}.parts:MyHead", "head")
    del sys.modules[f"{package}.parts"]
    with restrict_imports("outer"), pytest.raises(UntrustedCode, match="'outer' names"):
        import_object(f"{package}.parts:MyHead", "head")
    import_object(f"{package}.parts:MyHead", "head")


def test_an_export_of_a_users_code_says_what_to_do(package, download, tmp_path):
    importlib.import_module(f"{package}.parts")
    with pytest.raises(ValueError, match=r"code of your own package .*an export cannot hold"):
        export(download, tmp_path / "out")
    assert not (tmp_path / "out").exists()

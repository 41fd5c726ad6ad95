"""The ten checks of an exported folder: each sees the damage it is there for, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from export_damages import (
    DAMAGES,
    a_longest_answer,
    a_token,
    a_weight_with_another_name,
    an_unknown_method,
    another_id_of_a_control_token,
    edit,
    half_a_file,
    rewrite,
    weights_outside_of_the_folder,
)
from safetensors.torch import save_file
from tiny_runs import shorten_snippet, tiny_checkpoint, untrained

from latent_reason import checkpoint
from latent_reason.checkpoint.export import checks, content_checks, isolated_check
from latent_reason.checkpoint.export.exporter import export
from latent_reason.cli import main
from latent_reason.model import adapters


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Exported folders to copy: one file of weights, several, an adapter."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # the adapter's base has a relative name
        reasoner, _ = untrained()
        checkpoint.save(reasoner, "base")
        start, _ = checkpoint.load("base", device="cpu")
        adapters.add(start, rank=2)
        with torch.no_grad():
            for name, p in start.named_parameters():
                if "lora_B" in name or "trainable_tokens" in name:
                    p.add_(torch.randn_like(p), alpha=0.3)
        checkpoint.save(start, "adapted")
        one = export(tiny_checkpoint(), root / "one")
        folders = {
            "one": one,
            "adapter": export("adapted", root / "adapter"),
            "shards": export(one, root / "shards", max_shard_size="200KB"),  # with the sketches of the first
        }
        yield folders


@pytest.mark.parametrize("kind", ["one", "shards", "adapter"])
def test_a_whole_folder_passes(kind, whole):
    results = checks.check(whole[kind])
    assert [r.state for r in results] == ["passed"] * 9 + ["passed" if kind == "adapter" else "left out"], results
    assert checks.passed(results) and checks.report(results)["ok"]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_seen_by_its_check_alone(name, whole, tmp_path):
    number, kind, function = DAMAGES[name]
    folder = shutil.copytree(whole[kind], tmp_path / "damaged")
    function(folder)
    results = checks.check(folder)
    assert [r.number for r in results if r.state == "failed"] == [number], results
    assert all(f.file and f.found and f.expected and f.fix for r in results for f in r.findings)
    assert not checks.passed(results)


def test_every_check_has_a_damage():
    assert {number for number, *_ in DAMAGES.values()} == set(range(1, 11)) == set(checks.CHECKS)


def test_what_only_a_stranger_sees(whole, tmp_path):
    """Code and snippet run in a process of their own, which goes on after a snippet that ends it."""
    folders = [shutil.copytree(whole["one"], tmp_path / name) for name in ("quits", "code", "snippet")]
    for folder in folders:
        shorten_snippet(folder)
    rewrite(folders[0], r"print\(answer.text\)", "raise SystemExit('bye')")
    rewrite(folders[1], r"return build_model\(", "return int(", "modeling_latent_reason.py")
    rewrite(folders[2], r"print\(answer.text\)", "print(answer.txt)")
    quits, code, snippet = isolated_check.ask(folders)
    assert quits["snippet"] == "SystemExit: bye"
    assert code["loading"].startswith("TypeError") and code["off"] == {}
    assert snippet["loading"] == "" and "no attribute 'txt'" in snippet["snippet"]
    for folder, found, number in ((folders[1], code, 6), (folders[2], snippet, 7)):
        case = checks.Case(folder)
        case.stranger = found
        first, second = (finding.found for finding in checks.CHECKS[number][0](case))
        assert "line " in first and (found["loading"] or found["snippet"]) in second


def test_a_snippet_that_never_ends_is_ended(whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole["one"], tmp_path / "stays")
    rewrite(folder, r"from PIL import Image\n", "import time; time.sleep(600)\n")
    monkeypatch.setattr(isolated_check, "MINUTES", 0.01)
    with pytest.raises(RuntimeError, match=r"has not ended after 0\.01 minutes a folder"):
        isolated_check.ask([folder])


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (a_weight_with_another_name, "does not hold the weights of method 'modal_mixed'"),
        (an_unknown_method, "unknown method 'modal_mixd'. Did you mean 'modal_mixed'?"),
        (lambda folder: edit(folder / "config.json", options={"kk": 1}), "has no option 'kk'"),
        (lambda folder: edit(folder / "config.json", backbone_config=None), "has no backbone_config"),
        (
            lambda folder: edit(folder / "config.json", backbone_config={"model_type": "x"}),
            "of the kind 'x', which this",
        ),
        (
            lambda folder: edit(folder / "config.json", backbone_config={"model_type": "llama"}),
            "is not supported",
        ),
        (another_id_of_a_control_token, "The tokenizer was changed"),
        (half_a_file, "is incomplete: model.safetensors has"),
        (weights_outside_of_the_folder, "names weights outside of its folder: '../elsewhere.safetensors'"),
    ],
)
def test_the_library_refuses_it_in_one_sentence(damaged, said, whole, tmp_path):
    folder = shutil.copytree(
        whole["shards" if damaged is weights_outside_of_the_folder else "one"], tmp_path / "damaged"
    )
    if damaged is weights_outside_of_the_folder:
        edit(folder / checkpoint.CONFIG_FILE, files={})  # or the size of the index would tell
    damaged(folder)
    with pytest.raises(ValueError) as error:
        checkpoint.load(folder, device="cpu")
    assert said in str(error.value) and "\n" not in str(error.value) and "damaged" in str(error.value)


def test_the_library_runs_nothing_of_a_folder(whole, tmp_path, capsys, monkeypatch):
    """Not even to check it, unless --run-code says so."""
    folder = shutil.copytree(whole["one"], tmp_path / "mine")
    for file in folder.glob("*.py"):
        file.write_text("raise SystemExit('run')")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Slow", "evil.Fast"]})
    (folder / "evil.py").write_text("raise SystemExit('run')")
    rewrite(folder, r"print\(answer.text\)", "raise SystemExit('run')")
    assert checkpoint.load(folder, device="cpu")[0].method.name == "modal_mixed"
    asked = []
    answer = {"loading": "", "keys": [], "off": {}, "probe": "", "snippet": ""}
    monkeypatch.setattr(isolated_check, "ask", lambda folders: asked.append(folders) or [answer])
    for words in (["check", str(folder)], ["push", str(folder), "me/lake", "--dry-run"]):
        with pytest.raises(SystemExit):
            main(words)
        assert not asked
    said = capsys.readouterr().out
    assert " 6 FAILED" in said and " 8 FAILED" in said and "evil.py: found Python that is not part of an export" in said
    assert 'modeling_latent_reason.py: found line 1: "raise SystemExit(\'run\')", expected \'"""Inference code' in said
    assert "tokenizer_config.json: found the auto_map" in said
    with pytest.raises(SystemExit):
        main(["check", str(folder), "--run-code"])
    assert asked == [[folder]]


def test_a_folder_with_a_pipe_is_refused_before_it_is_opened(whole, tmp_path):
    folder = shutil.copytree(whole["one"], tmp_path / "mine")
    os.mkfifo(folder / "eval.json")
    for words in (
        ["check", str(folder)],
        ["push", str(folder), "me/lake"],
        ["export", str(folder), str(tmp_path / "new")],
    ):
        with pytest.raises(SystemExit, match=r"eval\.json' is a named pipe, not a plain file"):
            main(words)


def test_one_added_line_is_named(whole, tmp_path):
    """A line at the end of the code, in the snippet, and a name of code elsewhere."""
    folder = shutil.copytree(whole["one"], tmp_path / "mine")
    lines = len((folder / "modeling_latent_reason.py").read_text().splitlines())
    with open(folder / "modeling_latent_reason.py", "a") as file:
        file.write("import os  # mine\n")
    edit(folder / "config.json", auto_map={"AutoModel": "somebody/else--code.Model"})
    found = [str(finding) for finding in checks.check(folder)[5].findings]
    assert f"modeling_latent_reason.py: found line {lines + 1}: 'import os  # mine', expected ''" in found[0]
    assert "config.json: found the auto_map {'AutoModel': 'somebody/else--code.Model'}" in found[1] and len(found) == 2
    (folder / "modeling_latent_reason.py").write_text((whole["one"] / "modeling_latent_reason.py").read_text())
    shutil.copy(whole["one"] / "config.json", folder)
    for text in ("import os\nprint(answer.text)", "print(answer.text)\n```\n```py\nimport os"):
        shutil.copy(whole["one"] / "README.md", folder)
        rewrite(folder, r"print\(answer.text\)", text)
        (finding,) = checks.check(folder)[6].findings
        assert "a snippet whose line 7: 'import os'" in str(finding) or "2 Python snippets" in str(finding)


def test_weights_whose_length_looks_like_a_pickle_are_none(whole, tmp_path):
    folder = shutil.copytree(whole["one"], tmp_path / "mine")
    for more in range(500, 650):
        save_file({"a": torch.zeros(1)}, folder / "reasoner.safetensors", metadata={"more": "x" * more})
        if (folder / "reasoner.safetensors").read_bytes().startswith(b"\x80\x02"):
            break
    else:
        pytest.fail("no header is as long")
    assert not list(content_checks.check_files(folder))


def test_a_secret_is_not_repeated(whole, tmp_path):
    folder = shutil.copytree(whole["one"], tmp_path / "damaged")
    a_token(folder)
    found = checks.check(folder)[7].findings
    assert found and "hf_" not in str(found[0])


def test_the_command_says_what_to_do_and_writes_all_ten(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        isolated_check, "ask", lambda folders: [{"loading": "", "keys": [], "off": {}, "probe": "", "snippet": ""}]
    )
    main(["check", str(whole["one"]), "--json", str(tmp_path / "good.json")])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 11 and said[0].startswith(" 1 passed") and said[9].startswith("10 left out")
    folder = shutil.copytree(whole["one"], tmp_path / "damaged")
    a_longest_answer(folder)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(folder), "--json", str(tmp_path / "bad.json")])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert " 5 FAILED" in said and "generation_config.json: found max_length 20, expected none" in said
    assert "Remove the line." in said and " 1 not run  " in said and "(check 5 failed)" in said
    report = json.loads((tmp_path / "bad.json").read_text())
    assert not report["ok"] and [one["number"] for one in report["checks"]] == list(range(1, 11))
    with pytest.raises(SystemExit, match="was not exported"):
        main(["check", str(tiny_checkpoint())])
    main(["export", str(tiny_checkpoint()), str(tmp_path / "new"), "--check", "--json", str(tmp_path / "new.json")])
    assert json.loads((tmp_path / "new.json").read_text())["ok"] and "10 left out" in capsys.readouterr().out

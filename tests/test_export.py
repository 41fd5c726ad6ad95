"""Exported checkpoints: every method and several families load by AutoModel and by the library, and say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import CASES, ready

from latent_reason import hub, methods
from latent_reason.generation import generate
from latent_reason.publishing import checks, fresh
from latent_reason.publishing.export import export

#: what a folder is made of: a method on a family
MADE = [*((name, "qwen2_5_vl") for name in methods.names()), ("modal_mixed", "gemma3"), ("modal_mixed", "llava"),
        ("skila", "smolvlm"), ("monet", "qwen3_vl")]
STRANGE = [("modal_mixed", "qwen2_5_vl"), ("modal_mixed", "gemma3"), ("skila", "smolvlm"), ("covt", "qwen2_5_vl"),
           ("text_cot", "qwen2_5_vl"), ("deepsketcher", "qwen2_5_vl")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, make_backbone, make_traces):
    """``exported(method, family)``: an exported folder, and the reasoner that is in it."""
    made, root = {}, tmp_path_factory.mktemp("exported")

    def make(method, family) -> tuple[Path, object]:
        if (method, family) not in made:
            case = next(case for case in CASES if case.method == method)
            reasoner = ready(case, lambda positions: make_backbone(positions, family), make_traces)
            hub.save(reasoner.eval(), root / f"{method}-{family}.saved")
            folder = export(root / f"{method}-{family}.saved", root / f"{method}-{family}")
            made[method, family] = folder, reasoner
        return made[method, family]

    return make


@pytest.mark.parametrize(("method", "family"), MADE)
def test_every_method_exports_and_passes(method, family, exported):
    folder, _ = exported(method, family)
    results = checks.check(folder, in_fresh=False)
    assert [result.state for result in results] == ["passed"] * 9 + ["left out"], results
    assert checks.report(results)["ok"] is not False


def test_strangers_see_the_same_logits_and_the_same_sketch(exported):
    """In one fresh process, elsewhere, without a network and without this library."""
    found = fresh.ask([exported(*made)[0] for made in STRANGE])
    for made, one in zip(STRANGE, found, strict=True):
        assert (one["loading"], one["keys"], one["probe"], one["snippet"]) == ("", [], "", ""), made
        assert {"logits"} <= one["off"].keys() and ("latents" in one["off"]) == (made[0] != "text_cot")
        assert max(one["off"].values()) < 1e-5, made


@pytest.mark.parametrize("made", STRANGE[:3])
def test_the_library_loads_what_was_saved(made, exported, make_traces):
    folder, reasoner = exported(*made)
    again, decoder = hub.load(folder, device="cpu")
    assert decoder is None and again.recipe["method"] == made[0] and not again.training
    ours, theirs = reasoner.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    prompts = [r.collator()(make_traces(), generate=True) for r in (reasoner, again)]
    first, second = (generate(r, p, max_new=12, sketching="first") for r, p in zip((reasoner, again), prompts,
                                                                                  strict=True))
    assert torch.equal(first.ids, second.ids) and torch.equal(first.vectors, second.vectors)

"""python -m train.compare: equal items and steps or no comparison, and one that was stopped goes on."""

from __future__ import annotations

import json
import runpy

import pytest
from tiny_runs import EMPTY, METHOD, ROOT, recipe, short, untrained

from latent_reason import checkpoint, methods
from train import compare
from train import config as recipes
from train.config import armed, dump, load

SHIPPED = ROOT / "train" / "recipes" / "compare_frozenlake.yaml"


def test_shipped_comparison_is_fair_and_names_what_there_is():
    base = load(SHIPPED)
    compare.fair(base, armed(base))
    assert {"direct", "text_cot", "blank"} <= {arm.method.name for arm in armed(base).values()} <= set(methods.names())
    for arm in armed(base).values():
        assert arm.method.options.keys() <= methods.schema(arm.method.name).keys()


def test_shipped_comparison_of_rewards_is_fair():
    base = load(SHIPPED.with_name("rl_compare_frozenlake.yaml"))
    arms = armed(base)
    compare.fair(base, arms, "rl")
    assert {arm.rl.policy for arm in arms.values()} >= {"mask", "reward_weighted", "vlpo", "gaussian", "flow_sde"}
    with pytest.raises(ValueError, match=r"arm 'ddpm_sde' begins with 'checkpoints/rl-start/ddpm-0'\. One start"):
        compare.fair(base, arms)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({"rl": {"group": 9}}, "takes 8 x 9 rollouts"),
        ({"optim": {"steps": 7}}, "takes 7 steps"),
        ({"data": {"items": 9}}, "other data (items)"),
        ({"data": {"batch_size": 3}}, "of batch [3]"),
        ({"stages": [{"optim": {"steps": 3}}, {"optim": {"steps": 3}}]}, "takes 6 steps"),
        ({"stages": [{"data": {"seed": 5}, "optim": {"steps": 3}}, {"optim": {"steps": 2}}]}, "other data (seed)"),
    ],
)
def test_an_unfair_arm_is_refused(arm, words):
    base = recipes.load(EMPTY, optim__steps=5, arms={"even": {}, "odd": arm})
    with pytest.raises(ValueError, match="arm 'odd'") as error:
        compare.fair(base, armed(base))
    assert words in str(error.value)


def test_a_comparison_without_arms_is_refused():
    with pytest.raises(ValueError, match="no arms"):
        compare.fair(load(EMPTY), {})


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_and_becomes_a_table(tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=12)
    reasoner, decoder = untrained("direct")
    start = checkpoint.save(reasoner, tmp_path / "start", decoder=decoder, notes={})
    sketch = {"method": {"name": "modal_mixed", "options": METHOD["modal_mixed"]}}
    base = recipe(tmp_path / "never", "direct", optim__steps=2, arms={"direct": {}, "sketch": sketch})
    (tmp_path / "compare.yaml").write_text(dump(base))
    out = tmp_path / "found.json"
    words = [
        "--config",
        str(tmp_path / "compare.yaml"),
        "--init",
        str(start),
        "--n",
        "2",
        "--seeds",
        "0",
        "--out",
        str(out),
        "--runs",
        str(tmp_path / "runs"),
    ]
    compare.main([*words, "--only", "direct"])
    first = json.loads(out.read_text())["results"]
    trained = (tmp_path / "runs" / "direct-0" / "model" / checkpoint.CONFIG_FILE).stat().st_mtime_ns
    compare.main(words)
    found = json.loads(out.read_text())["results"]
    assert [r["arm"] for r in found] == ["direct", "sketch"] and found[:1] == first
    assert (tmp_path / "runs" / "direct-0" / "model" / checkpoint.CONFIG_FILE).stat().st_mtime_ns == trained, (
        "not trained again"
    )
    assert found[0]["latents_per_answer"] == 0 and "probes" not in found[0]
    assert found[1]["latents_per_answer"] > 0 and {"zero", "foreign", "oracle"} <= found[1]["probes"].keys()
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["compare.py", str(out)])
    runpy.run_path(str(ROOT / "paper_figs" / "compare.py"), run_name="__main__")
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and table[0].startswith("| arm | success |") and {len(t.split("|")) for t in table} == {13}

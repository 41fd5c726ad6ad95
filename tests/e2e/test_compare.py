"""python -m train.compare: equal items and steps or no comparison, and one that was stopped goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import EMPTY, METHOD, ROOT, recipe, short, tiny_checkpoint, untrained

from latent_reason import checkpoint, methods
from latent_reason.decoding.items import decode as real_decode
from latent_reason.decoding.items import decode_each
from train import arm_measures, compare
from train.config import CompareConfig, RLCompareConfig, arms_of, dump, load
from train.rl import compare as rl_compare
from train.rl import rewards

SHIPPED = ROOT / "train" / "recipes" / "compare_frozenlake.yaml"


def test_shipped_comparison_is_fair_and_names_what_there_is():
    base = load(SHIPPED, CompareConfig)
    compare.check_fair(base, arms_of(base))
    assert (
        {"direct", "text_cot", "blank"} <= {arm.method.name for arm in arms_of(base).values()} <= set(methods.names())
    )
    for arm in arms_of(base).values():
        assert arm.method.options.keys() <= methods.schema(arm.method.name).keys()


def test_shipped_comparison_of_rewards_is_fair():
    base = load(SHIPPED.with_name("rl_compare_frozenlake.yaml"), RLCompareConfig)
    arms = arms_of(base)
    compare.check_fair(base, arms)
    assert {arm.rl.latent_policy for arm in arms.values()} >= {
        "mask",
        "reward_weighted",
        "vlpo",
        "gaussian",
        "flow_sde",
    }
    assert arms["ddpm_sde"].init_from == "checkpoints/rl-start/ddpm-0", "arms may start from checkpoints of their own"
    base = load(EMPTY, RLCompareConfig, arms={"odd": {"rl": {"num_generations": 9}}})
    with pytest.raises(ValueError, match=r"arm 'odd' takes 1000 batches of \[72\] rows, the comparison 1000 of 64"):
        compare.check_fair(base, arms_of(base))


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({"init_from": "checkpoints/x"}, "starts from 'checkpoints/x'"),
        ({"optim": {"max_steps": 7}}, "takes 7 batches"),
        ({"data": {"items": 9}}, "other data (items)"),
        ({"data": {"global_batch_size": 3}}, "of [3] rows"),
        ({"stages": [{"optim": {"max_steps": 3}}, {"optim": {"max_steps": 3}}]}, "takes 6 batches"),
        (
            {"stages": [{"data": {"seed": 5}, "optim": {"max_steps": 3}}, {"optim": {"max_steps": 2}}]},
            "other data (seed)",
        ),
    ],
)
def test_an_unfair_arm_is_refused(arm, words):
    base = load(EMPTY, CompareConfig, optim__max_steps=5, arms={"even": {}, "odd": arm})
    with pytest.raises(ValueError, match="arm 'odd'") as error:
        compare.check_fair(base, arms_of(base))
    assert words in str(error.value)


def test_a_comparison_without_arms_is_refused():
    with pytest.raises(ValueError, match="no arms"):
        compare.check_fair(load(EMPTY, CompareConfig), {})


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_and_becomes_a_table(tmp_path, monkeypatch, capsys):
    short(monkeypatch, budget=12)
    reasoner, decoder = untrained("direct")
    start = checkpoint.save(reasoner, tmp_path / "start", decoder=decoder, notes={})
    sketch = {"method": {"name": "modal_mixed", "options": METHOD["modal_mixed"]}}
    base = recipe(tmp_path / "runs", "direct", CompareConfig, optim__max_steps=2, arms={"direct": {}, "sketch": sketch})
    (tmp_path / "compare.yaml").write_text(dump(base))
    out = tmp_path / "found.json"
    words = [
        "--config",
        str(tmp_path / "compare.yaml"),
        "--init_from",
        str(start),
        "--test_items",
        "2",
        "--seeds",
        "[0]",
        "--out",
        str(out),
    ]
    compare.main([*words, "--only", "direct"])
    first = json.loads(out.read_text())["results"]
    trained = (tmp_path / "runs" / "direct-0" / "model" / checkpoint.CONFIG_FILE).stat().st_mtime_ns
    left = tmp_path / "runs" / "direct-0" / arm_measures.UNFINISHED
    left.touch()  # by a process that was killed after it wrote the row
    compare.main(words)
    assert not left.exists()
    found = json.loads(out.read_text())["results"]
    assert [r["arm"] for r in found] == ["direct", "sketch"] and found[:1] == first
    assert (tmp_path / "runs" / "direct-0" / "model" / checkpoint.CONFIG_FILE).stat().st_mtime_ns == trained, (
        "not trained again"
    )
    assert found[0]["latents_per_answer"] == 0 and "probes" not in found[0]
    assert found[1]["latents_per_answer"] > 0 and {"zero", "foreign", "oracle"} <= found[1]["probes"].keys()
    printed = capsys.readouterr().out
    assert "direct: arm 1 of 2, seed 1 of 1" in printed and "sketch: arm 2 of 2, seed 1 of 1" in printed
    compare.main([*words, "--table", str(tmp_path / "table.md")])
    table = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 4 and table[0].startswith("|  | success |") and len({t.count("|") for t in table}) == 1
    assert "difference" in table[0] and "probed" in table[0] and "success" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"table.md' exists, and nothing was changed"):
        compare.main([*words, "--table", str(tmp_path / "table.md")])


@pytest.mark.slow
def test_rewards_are_compared_with_their_starts_and_curves(tmp_path, monkeypatch, capsys):
    """Each start is measured once, each arm trained; what a run logged is kept in its row."""
    short(monkeypatch, budget=12)
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    base = recipe(
        tmp_path / "runs",
        config=RLCompareConfig,
        init_from=str(tiny_checkpoint()),
        optim__max_steps=1,
        rl__num_generations=2,
        data__global_batch_size=2,
        rl__max_completion_length=8,
        rl__rewards={"long": 1.0},
        arms={"mask": {}, "gaussian": {"rl": {"latent_policy": "gaussian"}}},
    )
    (tmp_path / "compare.yaml").write_text(dump(base))
    out = tmp_path / "found.json"
    words = ["--config", str(tmp_path / "compare.yaml"), "--out", str(out), "--test_items", "2", "--seeds", "[3]"]
    rl_compare.main(words)
    written = out.read_text()
    rl_compare.main(words)  # every row is of the recipe that it was before its arm was trained
    found = json.loads(written)
    assert out.read_text() == written
    assert [(r["arm"], r["seed"]) for r in found["results"]] == [("start of mask", 0), ("mask", 3), ("gaussian", 3)]
    assert found["batch_size"] == 4 and "train.rl.compare" in found["command"]
    assert all("curves" in r for r in found["results"][1:]) and "reward" in found["results"][1]["curves"]
    assert (tmp_path / "runs" / "gaussian-3" / "model" / checkpoint.CONFIG_FILE).is_file()


STOPS = {"items": ("eval.run.decode_each", 3), "blind": ("eval.run.decode_each", 6), "probes": ("eval.probe.decode", 4)}


@pytest.mark.parametrize("stop", STOPS)
def test_an_arm_that_was_cut_off_while_it_was_measured_decodes_only_the_rest(tmp_path, monkeypatch, stop):
    """Four items of two levels, one a batch. Numbers are those of a whole measurement, but for the time."""
    short(monkeypatch, budget=12)
    monkeypatch.setattr(arm_measures, "BATCH", 1)
    arm = recipe(tmp_path / "arm", data__levels=[4, 3])
    decoded: list[tuple] = []
    place, count = STOPS[stop]
    limits = {"eval.run.decode_each": 99, "eval.probe.decode": 99}

    def watch(name: str) -> None:
        def note(known: str, *ids: str) -> None:
            if sum(name == one[0] for one in decoded) == limits[name]:
                raise KeyboardInterrupt
            decoded.append((name, known, *ids))

        def watched(reasoner, decoder, task, items, mode, **options):
            note(options.get("progress", ""), *(item.id for item in items))
            return real_decode(reasoner, decoder, task, items, mode, **options)

        def watched_each(*given, **options):
            for place, result in decode_each(*given, **options):
                note("blind" if "make_trace" in options else "items", result.item.id)
                yield place, result

        monkeypatch.setattr(name, watched_each if name.endswith("each") else watched)

    for name in limits:
        watch(name)

    def measure(unfinished: Path) -> dict:
        decoded.clear()
        with arm_measures.measured(tiny_checkpoint(), arm, 2, unfinished) as row:
            assert unfinished.is_file(), "kept until the row is written"
        assert not unfinished.exists()
        return {key: value for key, value in row.items() if key != "seconds_per_answer"}

    whole, all_decoded = measure(tmp_path / "whole.unfinished"), list(decoded)
    assert whole["n"] == 4 and whole["health"] and {"foreign", "removed"} <= whole["probes"].keys()
    limits[place] = count
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "cut.unfinished")
    first = list(decoded)
    with pytest.raises(ValueError, match=r"cut.unfinished' has the results of another.*differs in .*recipe"):
        other = replace(arm, seed=7)
        arm_measures.measured(tiny_checkpoint(), other, 2, tmp_path / "cut.unfinished").__enter__()
    limits[place] = 99
    assert measure(tmp_path / "cut.unfinished") == whole
    again = [one for one in decoded if one in first]
    assert {one[1] for one in again} <= {"probe as generated"}, "only what all probes are compared with"
    assert set(first) | set(decoded) == set(all_decoded)


def test_a_comparison_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="a comparison needs --init_from"):
        compare.main(["--config", str(SHIPPED)])

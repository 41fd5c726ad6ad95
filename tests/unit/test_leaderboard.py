"""The leaderboard: what it reads, what it refuses to lay side by side, what it names and leaves out, and that no text
of a file becomes part of the page."""

from __future__ import annotations

import copy
import html
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import ROOT, short, tiny_checkpoint

from eval import leaderboard, leaderboard_page, probe, results, run
from eval.leaderboard import build_tables, gather_results, main, with_probes
from eval.leaderboard_columns import COLUMNS

EVIL = "\"><script>alert(1)</script>|`x`\n<img src=//a.b>'"
BENCHMARK = {
    "schema": 1,
    "kind": "benchmark",
    "checkpoint": "checkpoints/a/model",
    "method": "mirage",
    "benchmark": "mmvp",
    "protocol": {"prompt": "boxed", "checker": "letter", "n_published": 300, "partial": False},
    "seed": 0,
    "device": "CPU",
    "unparsed": 2,
    "latents_per_item": 4.0,
    "tokens_per_item": 20.5,
    "seconds_per_item": 0.25,
    "results": [{"task": "all", "metric": "pair", "n": 150, "value": 0.5, "low": 0.42, "high": 0.58, "chance": 0.25}],
}
PROBE = {
    "schema": 1,
    "checkpoint": "checkpoints/a",
    "task": "frozenlake_plan",
    "levels": [3, 4],
    "n": 150,
    "seed": 1,
    "protocol": "regenerate",
    "decoding": "greedy",
    "probes": {
        "as_generated": {"accuracy": 0.9},
        "noise": {"difference": {"value": 0.4, "low": 0.3, "high": 0.5}},
        "foreign": {
            "difference": {"value": -0.1, "low": -0.2, "high": 0.0},
            "follow_rate": 0.7,
            "follow_by_chance": 0.1,
        },
    },
}
RUN = {
    "schema": 1,
    "checkpoint": "checkpoints/b",
    "method": "direct",
    "decoding": "greedy",
    "seed": 1,
    "seconds": 9.0,
    "results": [
        {
            "task": "frozenlake_plan",
            "level": 3,
            "split": "test",
            "metric": metric,
            "n": n,
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
        }
        for metric, n, value in (
            ("success", 20, 0.6),
            ("exact", 20, 0.5),
            ("sketch_equal", 31, 0.3),
            ("constant", 20, 0.2),
        )
    ]
    + [
        {
            "task": "frozenlake_plan",
            "level": 3,
            "split": "test",
            "metric": f"{what}_per_item",
            "n": 20,
            "value": value,
            "low": None,
            "high": None,
        }
        for what, value in (("sketches", 1.5), ("latents", 24.0), ("tokens", 9.5))
    ],
}
COMPARE = {
    "schema": 1,
    "command": "python -m train.compare --config x.yaml",
    "steps": 600,
    "batch_size": 16,
    "items": 3000,
    "task": "wall_maze",
    "levels": [3, 4],
    "device": "CPU",
    "results": [
        {
            "arm": "arm one",
            "method": "mirage",
            "seed": seed,
            "n": 200,
            "success": {"value": v, "low": 0.1, "high": 0.9},
            "latents_per_answer": 1.5,
            "words_per_answer": 12.0,
            "seconds_per_answer": 0.01,
            "probes": PROBE["probes"],
        }
        for seed, v in ((0, 0.5), (1, 0.6), (2, 0.8))
    ],
}
DOSSIER = {"schema": 1, "about": {"checkpoint": "checkpoints/a"}, "main_score": "success"}
KINDS = {"dossier": DOSSIER, "benchmark": BENCHMARK, "probe": PROBE, "run": RUN, "compare": COMPARE}


def changed(value, **changes):
    """A copy with other values; keys are dotted by ``__``, numbers are places in lists."""
    value = copy.deepcopy(value)
    for path, new in changes.items():
        *way, last = [int(step) if step.isdigit() else step for step in path.split("__")]
        here = value
        for step in way:
            here = here[step]
        if new is ...:
            del here[last]
        else:
            here[last] = new
    return value


def read(value):
    """Rows of a value as if it came from a file."""
    reader = results._reader_of(value)
    return reader(results.Fields(value, "x.json")).rows


# -- what is read ------------------------------------------------------------------------------------------------------
def test_every_kind_of_file_is_read(write_results):
    rows, left_out = gather_results(write_results(a=BENCHMARK, b=RUN, c=COMPARE, **{"deep.down.d": PROBE}))
    assert not left_out
    mmvp, frozen, *arms = rows
    assert (mmvp.method, mmvp.model, mmvp.benchmark, mmvp.task) == ("mirage", "checkpoints/a", "mmvp", "all")
    assert mmvp.protocol == BENCHMARK["protocol"] | {"metric": "pair"}
    assert (
        mmvp.share.value,
        mmvp.chance,
        mmvp.n,
        mmvp.latents,
        mmvp.tokens,
        mmvp.seconds,
        mmvp.seed,
        mmvp.device,
        mmvp.unparsed,
    ) == (0.5, 0.25, 150, 4.0, 20.5, 0.25, 0, "CPU", 2)
    assert (frozen.benchmark, frozen.task, frozen.protocol["metric"]) == ("frozenlake_plan", "level 3", "success")
    assert (frozen.share.value, frozen.chance) == (0.6, 0.2), "the headline measure alone"
    assert (frozen.latents, frozen.tokens) == (24.0, 9.5)
    assert [(r.method, r.model, r.seed, r.share.value) for r in arms] == [
        ("arm one", "mirage", 0, 0.5),
        ("arm one", "mirage", 1, 0.6),
        ("arm one", "mirage", 2, 0.8),
    ]
    for row in (mmvp, *arms):
        assert (row.probes.noise.value, row.probes.foreign.value) == (0.4, -0.1)
        assert (row.probes.follows, row.probes.by_chance) == (0.7, 0.1)
    assert "frozenlake_plan, levels 3, 4, n 150, regenerate" == mmvp.probes.on and frozen.probes is None


def test_other_options_of_a_task_are_another_protocol(write_results):
    usual, other = ({"frozenlake_plan": given} for given in ({}, {"skin": "plain", "dist": "vsp"}))
    rows, _ = gather_results(
        write_results(a=RUN, b=RUN | {"options": usual}, c=RUN | {"options": other}, d=RUN | {"options": usual})
    )
    assert [row.protocol["options"] for row in rows] == ["not named", "as usual", "dist vsp, skin plain", "as usual"]


def test_what_this_repository_holds_is_read():
    rows, left_out = gather_results(ROOT / "checkpoints" / "frozenlake-tiny")
    assert all("not result files" in sentence for sentence in left_out)
    (published,) = [
        r
        for r in rows
        if r.model == "checkpoints/frozenlake-tiny" and r.task == "level 3-6" and r.protocol["split"] == "test"
    ]
    assert (published.share.value, published.n, published.chance) == (0.9643, 700, 0.2243)
    assert (published.probes.noise.value, published.probes.follows) == (0.9067, 0.82)
    compared = results.read(ROOT / "paper_figs" / "data" / "compare.json", "compare.json").rows
    assert len({r.method for r in compared}) == 17 and {r.seed for r in compared} == {0, 1}


def test_what_eval_run_and_eval_probe_write_now_is_read(tmp_path, monkeypatch):
    short(monkeypatch)
    model = str(tiny_checkpoint())
    run.main([model, "--levels", "3", "--n", "3", "--out", str(tmp_path / "run.json")])
    probe.main([model, "--levels", "3", "--n", "4", "--out", str(tmp_path / "probe.json")])
    (row,), left_out = gather_results(tmp_path)
    assert not left_out and row.method == "modal_mixed" and row.protocol["metric"] == "success" and row.n == 3
    assert row.probes.noise is not None and row.probes.n == 4


def test_probes_of_the_own_task_come_before_others_and_those_on_more_items_before_fewer():
    (row,) = read(changed(BENCHMARK, benchmark="wall_maze"))
    many, own, fewer = (results.Probes(task=task, n=n) for task, n in (("x", 500), ("wall_maze", 90), ("wall_maze", 9)))
    assert with_probes(row, [fewer, many, own]).probes == own and with_probes(row, [many]).probes == many
    assert with_probes(row, []).probes is None


# -- what stands in one table ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change, said",
    [
        ({"protocol__prompt": "plain"}, 'prompt ("boxed" and "plain")'),
        ({"protocol__n_published": ...}, "n_published (300 and nothing)"),
        ({"results__0__metric": "single"}, 'metric ("pair" and "single")'),
        ({"protocol__partial": 0}, "partial (false and 0)"),
    ],
)
def test_other_protocols_stand_apart_or_are_an_error(write_results, tmp_path, capsys, change, said):
    where = write_results(a=BENCHMARK, b=changed(BENCHMARK, **change))
    assert len(build_tables(gather_results(where)[0])) == 2
    out = tmp_path / "board.html"
    with pytest.raises(SystemExit) as ended:
        main([str(where), "--one-table", "--out", str(out)])
    assert f"'a.json' and 'b.json' cannot be in one table: they differ in {said}." in ended.value.code
    assert not out.exists()


def test_one_measure_can_be_chosen_where_a_file_has_several(write_results, tmp_path):
    single = BENCHMARK["results"][0] | {"metric": "single", "value": 0.45}
    where, out = write_results(a=changed(BENCHMARK, results=[*BENCHMARK["results"], single])), tmp_path / "board.html"
    for words, said in (
        ([], r"'a\.json' and 'a\.json' cannot be in one table.* differ in metric"),
        (["--metric", "singel"], "no result has the metric 'singel'. Did you mean 'single'"),
    ):
        with pytest.raises(SystemExit, match=said):
            main([str(where), "--one-table", "--out", str(out), *words])
    main([str(where), "--one-table", "--metric", "single", "--out", str(out)])
    assert "0.450" in out.read_text() and "0.500" not in out.read_text()


def test_what_no_protocol_names_does_not_part(write_results):
    protocol = dict(reversed(BENCHMARK["protocol"].items())) | {"n_published": 300.0}
    where = write_results(a=BENCHMARK, b=changed(BENCHMARK, method="direct", seed=3, device="H100", protocol=protocol))
    (table,) = build_tables(gather_results(where)[0], one_table=True)
    assert len(table.rows) == 2 and table.title == "mmvp, all, n 150: pair"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"results__0__level": "3-6"},
            r"items \(frozenlake_plan, level 3, n 20 and frozenlake_plan, level 3-6, n 20\)",
        ),
        ({"results__0__n": 40}, r"items \(frozenlake_plan, level 3, n 20 and frozenlake_plan, level 3, n 40\)"),
    ],
)
def test_other_items_stand_apart(write_results, change, said):
    """Levels 3 and 3 to 6 are other items, and so are the first 20 and the first 40."""
    one = changed(RUN, results=RUN["results"][:1])
    rows, _ = gather_results(write_results(a=one, b=changed(one, **change)))
    assert len(build_tables(rows)) == 2
    with pytest.raises(ValueError, match=said):
        build_tables(rows, one_table=True)


def test_items_can_be_chosen(write_results, tmp_path):
    levels = [RUN["results"][0] | {"level": level} for level in (3, 4)]
    where, out = write_results(a=changed(RUN, results=levels)), tmp_path / "board.html"
    main([str(where), "--one-table", "--items", "level 4", "--out", str(out)])
    assert "level 4" in out.read_text() and "level 3" not in out.read_text()
    with pytest.raises(SystemExit, match="no result has the items 'level 5'"):
        main([str(where), "--items", "level 5", "--out", str(tmp_path / "none.html")])


def test_tables_stand_by_level_and_rows_by_share():
    rows = [
        row
        for method, level, value in (("a", 10, 0.55), ("b", 9, 0.5), ("c", 9, 0.65))
        for row in read(changed(RUN, method=method, results=[RUN["results"][0] | {"level": level, "value": value}]))
    ]
    assert [[r.method for r in table.rows] for table in build_tables(rows)] == [["c", "b"], ["a"]], "10 after 9"


def seeded(model, *values, **changes):
    return [
        read(changed(BENCHMARK, checkpoint=model, seed=seed, results__0__value=value, **changes))[0]
        for seed, value in enumerate(values)
    ]


def test_seeds_are_one_row_their_mean():
    (row,) = build_tables(read(COMPARE))[0].rows
    assert row.by_seed == ((0, 0.5), (1, 0.6), (2, 0.8)) and row.share.value == pytest.approx(19 / 30)
    assert (row.share.low, row.share.high) == pytest.approx((0.1, 0.9)), "the means of the ends"
    assert (row.latents, row.seconds, row.seed) == (1.5, 0.01, None) and row.probes.noise.value == pytest.approx(0.4)
    cells = {column.title: column.of(row)[0] for column in COLUMNS}
    assert cells["share"] == "0.633 (0.10 to 0.90)" and cells["seeds"] == "0: 0.500, 1: 0.600, 2: 0.800, sd 0.153"
    (two,) = build_tables(read(changed(COMPARE, results__2=...)))[0].rows
    assert two.share.value == pytest.approx(0.55)
    (one,) = build_tables(read(BENCHMARK))[0].rows
    assert one.by_seed == () and one.seed == 0


def test_models_that_share_a_seed_are_not_averaged_together():
    apart = leaderboard.mean_over_seeds(seeded("a", 0.45, 0.5, 0.55) + seeded("b", 0.5, 0.5))
    assert [(r.model, len(r.by_seed), r.share.value) for r in apart] == [("a", 3, pytest.approx(0.5)), ("b", 2, 0.5)]
    twice = leaderboard.mean_over_seeds(seeded("a", 0.45, 0.5) + seeded("a", 0.55))
    assert [r.share.value for r in twice] == [0.45, 0.5, 0.55], "a seed that occurs twice is no mean"
    (over,) = leaderboard.mean_over_seeds([*seeded("a", 0.45, 0.5), *read(changed(BENCHMARK, checkpoint="b", seed=2))])
    assert over.model == "2 models" and len(over.by_seed) == 3
    unnamed = leaderboard.mean_over_seeds(seeded("a", 0.45) + read(changed(BENCHMARK, checkpoint="a", seed=None)))
    assert len(unnamed) == 2, "a seed that is not named may be any"


def test_rows_link_to_the_dossier_of_their_checkpoint(write_results, tmp_path):
    where = write_results(a=BENCHMARK, b=RUN, **{"deep.one.dossier": DOSSIER, "deep.two.dossier": DOSSIER})
    (where / "deep" / "one" / "index.html").write_text("<h1>dossier</h1>")
    rows, left_out = gather_results(where)
    assert not left_out and [len(row.dossiers) for row in rows] == [1, 0], "the second has no page"
    main([str(where), "--out", str(tmp_path / "board.html"), "--columns", "dossier,share"])
    assert '<a href="in/deep/one/index.html">page</a>' in (tmp_path / "board.html").read_text()
    lines = (tmp_path / "board.md").read_text().splitlines()
    assert "| dossier | share |" in lines and "| [page](in/deep/one/index.html) | 0.500 (0.42 to 0.58) |" in lines
    with pytest.raises(SystemExit, match=r"there is no column 'shares'. Did you mean 'share'"):
        main([str(where), "--out", str(tmp_path / "other.html"), "--columns", "shares"])


# -- what is left out --------------------------------------------------------------------------------------------------
BAD = [
    ("{", "'bad.json' is not readable JSON"),
    ('{"kind": "benchmark", "seed": NaN}', "NaN is not JSON"),
    ("[" * 100_000, "is not readable JSON"),
    ('{"kind": "benchmark", "method": "\\ud800"}', "surrogates not allowed"),
    (changed(BENCHMARK, schema=2), "schema is 2, expected 1, which this version reads"),
    (changed(BENCHMARK, method=...), "'bad.json': method is None, expected a text"),
    (changed(BENCHMARK, protocol="boxed"), "protocol is 'boxed', expected an object"),
    (changed(BENCHMARK, seed="0"), "seed is '0', expected a whole number"),
    (changed(BENCHMARK, seed=True), "seed is True, expected a whole number"),
    (changed(BENCHMARK, results={}), "results is {}, expected a list"),
    (changed(BENCHMARK, results__0=7), "results[0] is 7, expected an object"),
    (changed(BENCHMARK, results__0__value=50.0), "results[0].value is 50.0, expected a number from 0 to 1"),
    (changed(BENCHMARK, results__0__value=0.9), "[0.9, 0.42, 0.58], expected low, value and high in this order"),
    (changed(BENCHMARK, results__0__n=0), "results[0].n is 0, expected a number from 1"),
    (changed(BENCHMARK, tokens_per_item=-1), "tokens_per_item is -1"),
    (changed(BENCHMARK, latents_per_item=10**400), "latents_per_item is 1000"),
    (changed(RUN, results__0__split=3), "results[0].split is 3, expected a text"),
    (changed(PROBE, probes__noise__difference__low="x"), "probes.noise.difference.low is 'x'"),
    (changed(COMPARE, results__1__success=0.5), "results[1] is {"),
]


@pytest.mark.parametrize("value, said", BAD, ids=[said for _, said in BAD])
def test_a_broken_file_is_named_and_left_out(write_results, tmp_path, capsys, value, said):
    main([str(write_results(bad=value, good=RUN)), "--out", str(tmp_path / "board.html")])
    printed = capsys.readouterr().out
    assert "Left out: 'bad.json'" in printed and said in printed and "1 results of 1 files" in printed
    assert said in html.unescape((tmp_path / "board.html").read_text()), "the page says it too"


def test_foreign_files_links_and_idle_probes_are_named(write_results, tmp_path, capsys):
    where = write_results(**{"x.config": {"hidden_size": 4}, "list": [1], "a": RUN}, idle=PROBE)
    (tmp_path / "secret.json").write_text(json.dumps(BENCHMARK))
    (where / "way.json").symlink_to(tmp_path / "secret.json")
    (where / "x" / "round.json").symlink_to(where / "x" / "round.json")
    rows, left_out = gather_results(where)
    assert [r.file for r in rows] == ["a.json"]
    assert left_out == [
        "Left out: 'way.json' is a link to a file outside the folder. Copy the file into the folder.",
        "Left out: probes of 'checkpoints/a', because no file has its accuracy. Evaluate it, or use the same checkpoint path "
        "in both files.",
        "Left out, because they are not result files: list.json, x/config.json, x/round.json.",
    ]


def test_a_folder_without_results_and_a_wrong_name_are_errors(write_results, tmp_path):
    where = str(write_results(a={"x": 1}))
    for words, said in (
        ([where], "has no result files"),
        ([where, "--out", "a.md"], "ends in .html"),
        ([str(tmp_path / "none")], "There is no folder"),
    ):
        with pytest.raises(SystemExit, match=f"error: .*{said}"):
            main(words)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, str(key)))


@given(st.data())
def test_whatever_stands_in_a_file_it_is_shown_or_refused_in_a_sentence(data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    path = data.draw(st.sampled_from([p for p in places(KINDS[kind]) if p]))
    value = changed(KINDS[kind], **{"__".join(path): data.draw(JSON)})
    try:
        rows = read(value) if results._reader_of(value) else []
    except ValueError as error:
        assert str(error).startswith("'x.json': ") and "expected" in str(error) and len(str(error)) < 400
        return
    found = build_tables(rows)
    leaderboard_page.markdown(found, COLUMNS, "", [])
    leaderboard_page.page(found, COLUMNS, "", [])

"""Every script of paper_figs runs on what is committed and draws or prints something."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

FIGURES = Path(__file__).parents[2] / "paper_figs"
SCRIPTS = sorted(p.stem for p in FIGURES.glob("*.py") if p.stem not in ("figure", "rows", "sources"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_draws_its_figure_or_prints_its_table(name, tmp_path, monkeypatch, capsys):
    source, out = FIGURES / f"{name}.py", tmp_path / "figure.png"
    draws = "from figure import" in source.read_text(encoding="utf-8")
    monkeypatch.setattr("sys.argv", [str(source), *(["--out", str(out)] if draws else [])])
    monkeypatch.syspath_prepend(str(FIGURES))
    before = {p: p.read_bytes() for p in FIGURES.glob("*.png")}
    runpy.run_path(str(source), run_name="__main__")
    if draws:
        with Image.open(out) as picture:
            assert min(picture.size) > 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 20, "an empty figure"
        assert before == {p: p.read_bytes() for p in FIGURES.glob("*.png")}
    else:
        assert capsys.readouterr().out.count("|") > 20


def test_a_treatment_is_held_against_the_start_it_had(monkeypatch):
    """Its own, or that of the first that was trained, whatever stands before it in the file."""
    monkeypatch.syspath_prepend(str(FIGURES))
    script = runpy.run_path(str(FIGURES / "rl.py"))
    rows = {name: [{"arm": name}] for name in ("start of words", "start of mask", "mask", "flow_sde", "words")}
    assert [script["start_of"](name, rows)["arm"] for name in ("mask", "flow_sde", "words")] == [
        "start of mask",
        "start of mask",
        "start of words",
    ]

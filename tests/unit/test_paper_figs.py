"""Every script of paper_figs runs on what is committed and draws or prints something."""

import importlib
import json
import runpy
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.text import Text
from PIL import Image

FIGURES = Path(__file__).parents[2] / "paper_figs"
SCRIPTS = sorted(p.stem for p in FIGURES.glob("*.py") if p.stem not in ("figure", "rows", "sources", "style"))


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


def run(name: str, monkeypatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words])
    monkeypatch.syspath_prepend(str(FIGURES))
    runpy.run_path(str(FIGURES / f"{name}.py"), run_name="__main__")


DRAWN = [(name, None) for name in ("boundary", "budgets", "centring", "heads", "needed", "probes", "rl")]
DRAWN += [("rl", "rl_plan_check.json"), ("probes", "carrying.json"), ("heads", "heads_quick.json")]


@pytest.mark.parametrize(("name", "source"), DRAWN)
def test_no_text_lies_on_another_and_no_legend_on_data(name, source, tmp_path, monkeypatch):
    """At the size of a column, in letters that can be read there."""
    monkeypatch.syspath_prepend(str(FIGURES))
    style, found = importlib.import_module("style"), []
    monkeypatch.setattr(style, "save", lambda figure, file: found.append(figure))
    words = [str(FIGURES / "data" / source)] if source else []
    run(name, monkeypatch, *words, "--out", str(tmp_path / "figure.pdf"))
    (figure,) = found
    figure.draw_without_rendering()
    assert figure.get_size_inches()[0] in (style.COLUMN, style.PAGE)
    texts = texts_of(figure)
    assert len(texts) > 8 and min(t.get_fontsize() for t in texts) >= 6
    boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in texts]
    assert not [(a, b) for (a, box), (b, other) in combinations(boxes, 2) if box.overlaps(other)]
    whole = figure.bbox.padded(1)
    assert not [text for text, box in boxes if not (whole.contains(*box.min) and whole.contains(*box.max))], "cut off"
    legends = [legend.get_window_extent().padded(-1) for legend in figure.legends]
    assert not [
        axis for axis in figure.axes for box in legends if axis.axison and box.overlaps(axis.get_window_extent())
    ]
    assert not [axis for axis in figure.axes if axis.get_legend()], "legends of all panels, outside of them"


def texts_of(figure) -> list[Text]:
    """All texts that are drawn, ticks outside of the limits left out."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    texts += [text for text in (*figure.texts, figure._suptitle, figure._supxlabel, figure._supylabel) if text]
    for axes in figure.axes:
        if axes.axison:
            texts += [axes.title, *axes.texts]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                texts += [axis.label, *(tick.label1 for tick in ticks)]
    return [text for text in dict.fromkeys(texts) if text.get_visible() and text.get_text().strip()]


def test_figures_are_vectors_unless_another_ending_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("boundary", monkeypatch)
    assert (tmp_path / "boundary.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(SystemExit, match="exists, and nothing was changed"):
        run("boundary", monkeypatch)
    for name in ("a.svg", "b.svg"):
        run("boundary", monkeypatch, "--out", name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes(), "the same figure is the same file"


def test_a_script_takes_any_file_of_its_kind_and_says_what_another_lacks(tmp_path, monkeypatch, capsys):
    sketch = {"arm": "sketch", "seed": 0, "n": 4, "success": {"value": 0.5, "low": 0, "high": 1}, "right": "0101"}
    direct = sketch | {"arm": "direct", "right": "0001", "latents_per_answer": 0.0}
    other = {"task": "mine", "results": [sketch | {"latents_per_answer": 4.0}, direct]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    run("worth", monkeypatch, str(tmp_path / "other.json"))
    assert "+0.250" in capsys.readouterr().out, "sketches against the other arm"
    for name, said in (("centring", "no arm is named 'NAME centred' or 'NAME raw'"), ("probes", "it has no 'steps'")):
        with pytest.raises(SystemExit, match=said):
            run(name, monkeypatch, str(tmp_path / "other.json"), "--out", str(tmp_path / f"{name}.pdf"))


def test_tables_of_a_folder_name_its_controls(tmp_path, monkeypatch, capsys):
    published = FIGURES.parent / "checkpoints" / "frozenlake-tiny"
    (tmp_path / "controls").mkdir()
    for name, new in (("eval", "eval"), ("probe", "probe"), ("controls/blank", "controls/mine")):
        (tmp_path / f"{new}.json").write_text((published / f"{name}.json").read_text())
    run("results", monkeypatch, str(tmp_path))
    printed = capsys.readouterr().out
    assert "| modal_mixed | success |" in printed and "| mine | success |" in printed and "published" not in printed


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

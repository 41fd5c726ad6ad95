"""The page and the Markdown of the leaderboard: what strangers write in their files stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_leaderboard import BENCHMARK, EVIL, PROBE, changed

from eval import leaderboard_page
from eval.leaderboard import main


class Page(HTMLParser):
    """Tags by name, texts of cells row by row, and what each cell sorts by."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th", "button")
        if tag in ("td", "th"):
            self.rows[-1].append(["", dict(attrs).get("data-by")])

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1][0] += data

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")


# -- the page and the Markdown -----------------------------------------------------------------------------------------
@pytest.fixture
def hostile(write_results, tmp_path):
    """(page, Markdown) of files in which every text is hostile."""
    value = changed(
        BENCHMARK,
        checkpoint=EVIL,
        method=EVIL,
        benchmark=EVIL,
        device=EVIL,
        results__0__task=EVIL,
        results__0__metric=EVIL,
        protocol={EVIL: EVIL, "list": [EVIL]},
    )
    probes = changed(PROBE, checkpoint=EVIL, task=EVIL, protocol=EVIL)
    where = write_results(a=value, b=probes, c=changed(value, seed=1), d=changed(BENCHMARK, results__0__value=EVIL))
    main([str(where), "--out", str(tmp_path / "board.html")])
    return (tmp_path / "board.html").read_text(), (tmp_path / "board.md").read_text()


def test_no_text_of_a_file_becomes_part_of_the_page(hostile):
    page = Page(hostile[0])
    assert sum(tag == "script" for tag, _ in page.tags) == 1 and not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    head, *rows = page.rows
    assert len(rows) == 1, "two seeds"
    for row in rows:
        shown = {title[0]: cell for title, cell in zip(head, row, strict=True)}
        assert shown["method"] == shown["device"] == [EVIL, EVIL] and EVIL in shown["probed on"][0]


def test_the_page_needs_no_other_file_and_runs_one_script(hostile):
    page = Page(hostile[0])
    loads = {"src", "href", "srcset", "action", "data", "background"}
    addresses = [attrs for _, attrs in page.tags if loads & attrs.keys()]
    assert all(re.fullmatch(r"#table-\d", attrs["href"]) for attrs in addresses), "links within the page alone"
    assert "url(" not in leaderboard_page.BOARD_STYLE + leaderboard_page.STYLE and "@import" not in hostile[0]
    (rules,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    script = re.search(r"<script>(.*?)</script></html>", hostile[0], re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in rules


def test_tables_can_be_sorted_by_keyboard_and_by_values(write_results, tmp_path):
    main(
        [
            str(write_results(a=BENCHMARK, p=PROBE, b=changed(BENCHMARK, checkpoint="x", results__0__chance=None))),
            "--out",
            str(tmp_path / "board.html"),
        ]
    )
    text = (tmp_path / "board.html").read_text()
    page = Page(text)
    head, first, second, *_ = page.rows
    titles = [title for title, _ in head]
    assert sum(tag == "button" for tag, _ in page.tags) == len(head), "each heading takes the keyboard's focus"
    kinds = {
        title: attrs["data-kind"]
        for title, (_, attrs) in zip(
            titles, [t for t in page.tags if t[0] == "th" and "data-kind" in t[1]], strict=True
        )
    }
    assert kinds["share"] == kinds["loss under noise"] == "number" and kinds["method"] == "text"
    by = [dict(zip(titles, [value for _, value in row], strict=True)) for row in (first, second)]
    assert [r["share"] for r in by] == ["0.5", "0.5"] and {r["chance"] for r in by} == {"0.25", ""}
    assert {r["loss under noise"] for r in by} == {"0.4", ""} and "follows (chance)" in titles
    assert "aria-sort" in text and "name=viewport" in text and "overflow-x: auto" in text and "tabindex=0" in text
    assert 'querySelectorAll("table.board")' in text and ("table", {"class": "board"}) in page.tags


def test_columns_can_be_hidden_and_tables_of_one_title_say_how_they_differ(write_results, tmp_path):
    other = changed(BENCHMARK, protocol__prompt="bare")
    main([str(write_results(a=BENCHMARK, b=other)), "--out", str(tmp_path / "board.html")])
    page = Page(text := (tmp_path / "board.html").read_text())
    boxes = [attrs["value"] for tag, attrs in page.tags if tag == "input"]
    assert boxes[:2] == ["share", "method"] and "file" in boxes and "probed on" not in boxes, "columns that are shown"
    assert [title for title, _ in page.rows[0]] == boxes
    assert "<small>prompt bare</small>" in text and "<small>prompt boxed</small>" in text


def test_markdown_keeps_its_cells_whatever_stands_in_them(hostile):
    rows = [line for line in hostile[1].splitlines() if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert len(rows) == 3 and len(set(cells)) == 1
    assert "<script" in hostile[1] and not any(
        "<" in re.sub(r"`[^`]*`", "", line) for line in hostile[1].splitlines()
    ), "in code spans alone"


@given(st.text(max_size=30))
def test_any_text_is_one_code_span_of_one_cell(text):
    found = leaderboard_page.code(text)
    assert "\n" not in found and not re.search(r"(?<!\\)\|", found)
    assert found == "" or (found.count("`") == 2 and found[0] == found[-1] == "`")

"""The leaderboard as one self-contained HTML page, whose tables are sorted by a click on a heading, and as Markdown.

All text from files is escaped. The content security policy of the page allows its one script and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html

from latent_reason.checkpoint.markdown import code

from .html import STYLE, bar

BOARD_STYLE = """
body { max-width: none } dl.protocol { display: flex; flex-wrap: wrap; gap: .2rem 1.6rem; margin: .4rem 0 }
dl.protocol div { display: flex; gap: .4rem } dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto; border: 1px solid #ddd } .wide:focus-visible { outline: 2px solid #3a6ea5 }
.wide table { margin: 0 } .wide td, .wide th { padding: .2rem .6rem; border-bottom: 1px solid #eee }
.wide tr > :first-child { position: sticky; left: 0; background: #fff }
th[data-kind=number] { text-align: right }
th button { font: inherit; color: inherit; background: none; border: 0; padding: .2rem 0; cursor: pointer }
th button::after { content: " \\2195"; color: #aaa } th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" } td svg { vertical-align: middle }
@media (max-width: 40rem) {
  body { margin: .6rem auto; padding: 0 .5rem }
  .wide tr > :first-child { max-width: 9rem; overflow: hidden; text-overflow: ellipsis }
}
"""
#: Empty cells are last in both directions.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.board")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const number = head.dataset.kind === "number", before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : number;
    const key = row => row.cells[column].dataset.by;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = number ? x - y : x.localeCompare(y, "en", {numeric: true});
      return down ? -order : order;
    });
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  }));
}
"""
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
CONTENT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}'"
SEED_COLUMNS = ("method", "model", "task", "each seed", "mean ± standard deviation over seeds")
text = html.escape


def cell(column, row) -> str:
    visible, sort_key = column.of(row)
    share = row.share
    interval_bar = f" {bar(share.low, share.value, share.high)}" if column.title == "share" else ""
    kind = ' class="n"' if column.number else ""
    return f'<td{kind} data-by="{text("" if sort_key is None else str(sort_key))}">{text(visible)}{interval_bar}</td>'


def board(table, columns, number: int) -> str:
    """The protocol and the rows of one table."""
    visible = [c for c in columns if any(c.of(row)[0] for row in table.rows)]
    protocol = "".join(f"<div><dt>{text(n)}</dt><dd>{text(v)}</dd></div>" for n, v in table.protocol.items())
    head = "".join(
        f'<th scope="col" data-kind="{"number" if c.number else "text"}"><button type="button" '
        f'title="{text(c.note or c.title)}">{text(c.title)}</button></th>'
        for c in visible
    )
    body = "".join(f"<tr>{''.join(cell(c, row) for c in visible)}</tr>" for row in table.rows)
    return (
        f"<section><h2>{number}. {text(table.title)}</h2><dl class=protocol>{protocol}</dl>"
        f'<div class=wide role=region tabindex=0 aria-label="{text(table.title)}"><table class=board><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>{seed_table(table.seeds)}</section>"
    )


def seed_table(seeds) -> str:
    if not seeds:
        return ""
    head = "".join(f"<th scope=col>{title}</th>" for title in SEED_COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{text(v)}</td>' for v in seed_cells(s))}</tr>" for s in seeds)
    return (
        f"<details open><summary>Each seed</summary><div class=wide><table><thead><tr>{head}</tr></thead><tbody>"
        f"{body}</tbody></table></div></details>"
    )


def seed_cells(seeds) -> list[str]:
    """Cells of the columns ``SEED_COLUMNS``."""
    return [
        seeds.method,
        seeds.model,
        seeds.task,
        ", ".join(f"{seed}: {value:.3f}" for seed, value in seeds.values_by_seed),
        seeds.note or f"{seeds.mean:.3f} ± {seeds.sd:.3f}",
    ]


def page(tables, columns, introduction: str, warnings: list[str]) -> str:
    """The whole page: one table per protocol, then the warnings."""
    boards = "".join(board(table, columns, number) for number, table in enumerate(tables, 1))
    warnings_html = "".join(f"<li>{text(sentence)}</li>" for sentence in warnings)
    warnings_html = f"<h2>Left out</h2><ul class=quiet>{warnings_html}</ul>" if warnings_html else ""
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv="Content-Security-Policy" content="'
        f'{CONTENT_POLICY}"><meta name=viewport content="width=device-width, initial-scale=1"><title>Leaderboard</title>'
        f"<style>{STYLE}{BOARD_STYLE}</style><h1>Leaderboard</h1><p>{text(introduction)} Click a heading to sort; its "
        f"tooltip explains the column.</p>{boards}{warnings_html}<script>{SCRIPT}</script></html>\n"
    )


# -- Markdown ----------------------------------------------------------------------------------------------------------
def markdown(tables, columns, introduction: str, warnings: list[str]) -> str:
    parts = ["# Leaderboard", "", introduction, ""]
    for number, table in enumerate(tables, 1):
        visible = [c for c in columns if any(c.of(row)[0] for row in table.rows)]
        parts += [
            f"## {number}. {code(table.title)}",
            "",
            "Protocol: " + "; ".join(f"{code(n)} {code(v)}" for n, v in table.protocol.items()),
            "",
        ]
        parts += _grid(
            [c.title for c in visible],
            [[c.of(row)[0] if c.number else code(c.of(row)[0]) for c in visible] for row in table.rows],
        )
        if table.seeds:
            parts += ["", *_grid(SEED_COLUMNS, [[code(v) for v in seed_cells(s)] for s in table.seeds])]
        parts.append("")
    parts += [f"- {code(sentence)}" for sentence in warnings]
    return "\n".join(parts).rstrip() + "\n"


def _grid(head, lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]

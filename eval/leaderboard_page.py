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
nav ol { margin: .4rem 0; padding-left: 1.6rem } a { color: #1d4e89 } summary { cursor: pointer; color: #555 }
.choices { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .4rem 0 } .choices label { white-space: nowrap }
.wide { overflow-x: auto; border: 1px solid #ddd } .wide:focus-visible { outline: 2px solid #3a6ea5 }
.wide table { margin: 0 } .wide td, .wide th { padding: .2rem .6rem; border-bottom: 1px solid #eee; vertical-align: top }
.wide tr > :first-child { position: sticky; left: 0; background: #fff; border-right: 1px solid #ddd }
.wide [hidden] { display: none } .wide small { color: #555; font-size: .9em }
th[data-kind=number] { text-align: right }
th button { font: inherit; color: inherit; background: none; border: 0; padding: .2rem 0; cursor: pointer }
th button::after { content: " \\2195"; color: #aaa } th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" } td svg { vertical-align: middle }
@media (max-width: 40rem) {
  body { margin: .6rem auto; padding: 0 .5rem; font-size: 14px }
  .wide td, .wide th { padding: .2rem .4rem } .wide svg { display: none } .wide small { display: block }
  .wide th button { white-space: normal; text-align: inherit }
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
for (const box of document.querySelectorAll(".choices input")) {
  const show = () => document.querySelectorAll("table.board").forEach(table => {
    const column = [...table.tHead.rows[0].cells].findIndex(head => head.innerText.trim() === box.value);
    if (column >= 0) for (const row of table.rows) row.cells[column].hidden = !box.checked;
  });
  box.addEventListener("change", show);
}
"""
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
CONTENT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}'"
text = html.escape


def cell(column, row) -> str:
    visible, sort_key = column.of(row)
    value, space, interval = visible.partition(" ") if column.number else (visible, "", "")
    shown = text(value) + (f" <small>{text(interval)}</small>" if space else "")
    if links := column.links(row):
        shown = " ".join(
            f'<a href="{text(link)}">page{f" {k}" * (len(links) > 1)}</a>' for k, link in enumerate(links, 1)
        )
    share = row.share
    interval_bar = f" {bar(share.low, share.value, share.high)}" if column.title == "share" else ""
    kind = ' class="n"' if column.number else ""
    return f'<td{kind} data-by="{text("" if sort_key is None else str(sort_key))}">{shown}{interval_bar}</td>'


def shown_columns(table, columns) -> list:
    """The columns that some row of a table fills."""
    return [column for column in columns if any(column.of(row)[0] for row in table.rows)]


def board(table, columns, number: int) -> str:
    """The protocol and the rows of one table."""
    visible = shown_columns(table, columns)
    protocol = "".join(f"<div><dt>{text(n)}</dt><dd>{text(v)}</dd></div>" for n, v in table.protocol.items())
    head = "".join(
        f'<th scope="col" data-kind="{"number" if c.number else "text"}"><button type="button" '
        f'title="{text(c.note or c.title)}">{text(c.title)}</button></th>'
        for c in visible
    )
    body = "".join(f"<tr>{''.join(cell(c, row) for c in visible)}</tr>" for row in table.rows)
    return (
        f"<section id=table-{number}><h2>{number}. {text(table.title)}</h2><dl class=protocol>{protocol}</dl>"
        f'<div class=wide role=region tabindex=0 aria-label="{text(table.title)}"><table class=board><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def contents(tables) -> str:
    """Links to the tables; those of one title with the settings in which they differ."""
    links = []
    for number, table in enumerate(tables, 1):
        protocols = [other.protocol for other in tables if other.title == table.title]
        differ = [n for n, value in table.protocol.items() if any(p.get(n) != value for p in protocols)]
        settings = f" <small>{text('; '.join(f'{n} {table.protocol[n]}' for n in differ))}</small>" if differ else ""
        links.append(f'<li><a href="#table-{number}">{text(table.title)}</a>{settings}</li>')
    return f"<nav><ol>{''.join(links)}</ol></nav>" if len(tables) > 1 else ""


def choices(tables, columns) -> str:
    """A box for each column, which hides it in all tables."""
    titles = dict.fromkeys(column.title for table in tables for column in shown_columns(table, columns))
    boxes = "".join(
        f'<label><input type=checkbox checked value="{text(title)}"> {text(title)}</label>' for title in titles
    )
    return f"<details><summary>Columns</summary><div class=choices>{boxes}</div></details>"


def page(tables, columns, introduction: str, warnings: list[str]) -> str:
    """The whole page: one table per protocol and set of items, then the warnings."""
    boards = "".join(board(table, columns, number) for number, table in enumerate(tables, 1))
    warnings_html = "".join(f"<li>{text(sentence)}</li>" for sentence in warnings)
    warnings_html = f"<h2>Left out</h2><ul class=quiet>{warnings_html}</ul>" if warnings_html else ""
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv="Content-Security-Policy" content="'
        f'{CONTENT_POLICY}"><meta name=viewport content="width=device-width, initial-scale=1"><title>Leaderboard</title>'
        f"<style>{STYLE}{BOARD_STYLE}</style><h1>Leaderboard</h1><p>{text(introduction)} Click a heading to sort; its "
        f"tooltip explains the column.</p>{choices(tables, columns)}{contents(tables)}{boards}{warnings_html}"
        f"<script>{SCRIPT}</script></html>\n"
    )


# -- Markdown ----------------------------------------------------------------------------------------------------------
def markdown(tables, columns, introduction: str, warnings: list[str]) -> str:
    parts = ["# Leaderboard", "", introduction, ""]
    for number, table in enumerate(tables, 1):
        visible = shown_columns(table, columns)
        parts += [
            f"## {number}. {code(table.title)}",
            "",
            "Protocol: " + "; ".join(f"{code(n)} {code(v)}" for n, v in table.protocol.items()),
            "",
        ]
        head, lines = [c.title for c in visible], [[markdown_cell(c, row) for c in visible] for row in table.rows]
        parts += [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]
        parts.append("")
    parts += [f"- {code(sentence)}" for sentence in warnings]
    return "\n".join(parts).rstrip() + "\n"


def markdown_cell(column, row) -> str:
    if links := column.links(row):
        return " ".join(f"[page{f' {k}' * (len(links) > 1)}]({link})" for k, link in enumerate(links, 1))
    return column.of(row)[0] if column.number else code(column.of(row)[0])

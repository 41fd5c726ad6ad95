"""The dossier as one self-contained HTML page."""

from __future__ import annotations

import base64
import html

from .statistics import p_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; white-space: nowrap }
th { font-weight: 600; color: #555 } td.n { text-align: right; font-variant-numeric: tabular-nums }
.verdict { background: #f3f6fb; border-left: 4px solid #3a6ea5; padding: .7rem 1rem; font-size: 1.05rem }
.alarm { background: #fdf2ec; border-left: 4px solid #c8541c; padding: .7rem 1rem } .quiet { color: #666 }
img { max-width: 100%; border: 1px solid #ddd }
"""


def bar(low: float, value: float, high: float, signed: bool = False) -> str:
    """An interval as an SVG image: a line from low to high with a dot at the value, on 0 to 1 (or -1 to 1)."""

    def x(v):
        return 4 + 152 * ((v + 1) / 2 if signed else v)

    zero = f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="2" y2="14" stroke="#999"/>' if signed else ""
    return (
        f'<svg width="160" height="16" role="img"><rect x="4" y="7" width="152" height="2" fill="#e4e4e4"/>{zero}'
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="8" y2="8" stroke="#3a6ea5" stroke-width="3"/>'
        f'<circle cx="{x(value):.1f}" cy="8" r="4" fill="#1d4e89"/></svg>'
    )


def row(label: str, share: dict, *extra: str) -> str:
    cells = "".join(f'<td class="n">{m}</td>' for m in extra)
    return (
        f"<tr><td>{html.escape(label.replace('_', ' '))}</td><td class=n>{share['value']:.3f}</td>"
        f"<td>{bar(share['low'], share['value'], share['high'])}</td>"
        f"<td class=n>{share['low']:.2f} to {share['high']:.2f}</td><td class=n>{html.escape(str(share.get('n', '')))}</td>{cells}"
        "</tr>"
    )


def table(rows: list[str], *extra: str) -> str:
    head = "".join(f"<th>{h}</th>" for h in ("", "share", "95 % interval", "", "n", *extra))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else "<p class=quiet>No results.</p>"


def plain_table(columns: list[str], lines: list[list]) -> str:
    def cell(v):
        return f'<td class="n">{v:.3f}</td>' if isinstance(v, float) else f"<td>{html.escape(str(v))}</td>"

    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{chr(32).join(map(cell, line))}</tr>' for line in lines)}</table>"


def loss_cells(report: dict) -> list[str]:
    d = report.get("loss") or report.get("difference")
    return [f"{d['value']:+.3f}", bar(d["low"], d["value"], d["high"], signed=True)] if d else ["", ""]


def page(report: dict, about: dict, storyboard_png: bytes) -> str:
    """The whole dossier as HTML. All text from files is escaped."""
    key, parts = report["main_score"], []

    def section(title: str, description: str, body: str) -> None:
        parts.append(f"<h2>{html.escape(title)}</h2><p class=quiet>{html.escape(description)}</p>{body}")

    if "verdict" in report:
        parts.append(f"<p class=verdict>{html.escape(report['verdict'])}</p>")
    if report.get("alarm"):
        parts.append(f"<p class=alarm>{html.escape(report['alarm'])}</p>")
    section(
        "Accuracy",
        f"Share of right held-out items ({key}).",
        table([row(label, scores[key]) for label, scores in report["accuracy"].items()]),
    )
    if report["out_of_distribution"]:
        section(
            "Out of distribution",
            "The same metric on larger puzzles, with other graphics and other compositions.",
            table([row(label, scores[key]) for label, scores in report["out_of_distribution"].items()]),
        )
    section(
        "Changed inputs",
        "Blind: each image is replaced by its mean color. Text twin: the image is described in text. Gold crop: the "
        "part with the answer, enlarged (the zoom gap is minus its loss). Turned, flipped: the answer changes with the "
        "image. The loss is paired with the same unchanged items.",
        table([row(n, r, *loss_cells(r)) for n, r in report["input"].items()], "loss", ""),
    )
    if as_image := report.get("as_pixels"):
        section(
            "Text as image",
            "The text twin is rendered as an image, in several fonts and sizes (pixels): from "
            f"{as_image['min']:.3f} to {as_image['max']:.3f}, median {as_image['median']:.3f}.",
            table([row(n, r, *loss_cells(r)) for n, r in as_image["grid"].items()], "loss", ""),
        )
    if "probes" in report:
        section(
            "Probes of the latents",
            "Each latent is replaced when it is sampled, and all later text is free. Image blanked, image masked: the "
            "latents are kept, and the image is replaced by its mean color from the start, or hidden from the text "
            "after a sketch. The loss is paired; p is from McNemar's test with Holm's correction over the probes "
            "with as many items.",
            table(
                [
                    row(
                        n,
                        r | {"value": r["accuracy"]},
                        *loss_cells(r),
                        f"{r['flip_rate']:.2f}" if "flip_rate" in r else "",
                        html.escape(p_text(r["holm_p"])) if "holm_p" in r else "",
                        f"{r['follow_rate']:.2f} ({r['follow_by_chance']:.2f})" if r.get("follow_n") else "",
                    )
                    for n, r in report["probes"].items()
                ],
                "loss",
                "",
                "changed",
                "p",
                "follows (chance)",
            ),
        )
        section(
            "The answer's distribution",
            "The text is kept and only latents are replaced: KL divergence at the answer's first token.",
            plain_table(["latents are", "nats", "n"], [[n, r["nats"], r["n"]] for n, r in report["answer_kl"].items()]),
        )
        section(
            "Accuracy by step",
            "The answer is forced after a number of the model's own steps.",
            table([row(f"after {r['step']}", r) for r in report["by_step"]]),
        )
        section(
            "Latents and denoising steps",
            "Accuracy and time for other budgets than in training.",
            table(
                [row(f"{r['what']}: {r['at']}", r, f"{1000 * r['seconds']:.0f} ms") for r in report["by_budget"]],
                "time",
            ),
        )
        attention = report["attention"]
        if attention:
            names = list(attention["share_of_positions"])
            section(
                "Attention before the answer",
                f"Attention of the state before the answer, {attention['n']} items.",
                plain_table(
                    ["layer", *names],
                    [
                        ["share of positions", *attention["share_of_positions"].values()],
                        *([f"layer {i}", *r.values()] for i, r in enumerate(attention["layers"], 1)),
                    ],
                ),
            )
        section(
            "Diagnostics of the latents",
            "Similarity of latents across items, effective rank, and how often a sketch is nearest to its own true "
            "sketch.",
            plain_table(["", ""], [[n, float(v)] for n, v in report["health"].items()]),
        )
    if attention := report.get("attention_in_box"):
        names, ratio = list(attention["layers"][0]), attention["ratio"]
        section(
            "Attention on the part with the answer",
            "The share of the attention on the image that falls on the part with the answer. This part has "
            f"{attention['share_of_area']:.3f} of the area ({attention['n']} items). Last rows: the share divided by "
            "the area (1: no focus).",
            plain_table(
                ["layer", *names],
                [
                    *([f"layer {i}", *r.values()] for i, r in enumerate(attention["layers"], 1)),
                    *([f"times the area, {what}", *(ratio[n][what] for n in names)] for what in ("mean", "best")),
                ],
            ),
        )
    if report.get("consistency"):
        shares = {n: r for n, r in report["consistency"].items() if isinstance(r, dict)}
        section(
            "Agreement of reasoning and answer",
            f"{report['consistency']['silent']} items whose reasoning has no conclusion are left out.",
            table([row(n, r) for n, r in shares.items()]),
        )
    if "sketches_alone" in report:
        section(
            "Sketches alone",
            "What the task's parser reads from the images: the model's own sketches, true sketches through encoder and "
            "decoder (ceiling), true images (pixels), another item's sketch (floor).",
            table([row(n, r) for n, r in report["sketches_alone"].items()]),
        )
    if "sketchqa_vlm" in report:
        section(
            "Sketches read by a model",
            f"How often {about['reader']}, given only the last sketch, reaches the item's answer, beside the model itself "
            "(answer): from the model's own sketches, from those of another item (foreign), from true ones as images "
            "(pixels) and through encoder and decoder (ceiling), from a blank page and from another item's true sketch.",
            table([row(n, r) for n, r in report["sketchqa_vlm"].items()]),
        )
    if storyboard_png:
        parts.append(
            "<h2>Sketches</h2><img alt='six items: input, gold sketches, gold sketches decoded, sketches of the model, its answer' "
            f"src='data:image/png;base64,{base64.b64encode(storyboard_png).decode()}'>"
        )
    rows_html = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in about.items())
    title = html.escape(f"{about['method']}: {about['checkpoint']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><table>{rows_html}</table>{''.join(parts)}</html>\n"
    )

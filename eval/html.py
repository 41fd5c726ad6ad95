"""The dossier as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html

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
    """An interval as a picture: a line from low to high with a dot at the value, on 0 to 1 (or -1 to 1)."""

    def x(v):
        return 4 + 152 * ((v + 1) / 2 if signed else v)

    zero = f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="2" y2="14" stroke="#999"/>' if signed else ""
    return (
        f'<svg width="160" height="16" role="img"><rect x="4" y="7" width="152" height="2" fill="#e4e4e4"/>{zero}'
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="8" y2="8" stroke="#3a6ea5" stroke-width="3"/>'
        f'<circle cx="{x(value):.1f}" cy="8" r="4" fill="#1d4e89"/></svg>'
    )


def row(label: str, share: dict, *more: str) -> str:
    cells = "".join(f'<td class="n">{m}</td>' for m in more)
    return (
        f"<tr><td>{html.escape(label.replace('_', ' '))}</td><td class=n>{share['value']:.3f}</td>"
        f"<td>{bar(share['low'], share['value'], share['high'])}</td>"
        f"<td class=n>{share['low']:.2f} to {share['high']:.2f}</td><td class=n>{share.get('n', '')}</td>{cells}"
        "</tr>"
    )


def table(rows: list[str], *more: str) -> str:
    head = "".join(f"<th>{h}</th>" for h in ("", "share", "95 % interval", "", "n", *more))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else "<p class=quiet>Nothing to show.</p>"


def plain_table(columns: list[str], lines: list[list]) -> str:
    def cell(v):
        return f'<td class="n">{v:.3f}</td>' if isinstance(v, float) else f"<td>{html.escape(str(v))}</td>"

    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{chr(32).join(map(cell, line))}</tr>' for line in lines)}</table>"


def loss_cells(report: dict) -> list[str]:
    d = report.get("loss") or report.get("difference")
    return [f"{d['value']:+.3f}", bar(d["low"], d["value"], d["high"], signed=True)] if d else ["", ""]


def page(found: dict, about: dict, sheet: bytes) -> str:
    """The whole dossier as HTML. Every text that came from a file is escaped."""
    key, parts = found["main_score"], []

    def section(title: str, why: str, body: str) -> None:
        parts.append(f"<h2>{html.escape(title)}</h2><p class=quiet>{html.escape(why)}</p>{body}")

    if "verdict" in found:
        parts.append(f"<p class=verdict>{html.escape(found['verdict'])}</p>")
    if found.get("alarm"):
        parts.append(f"<p class=alarm>{html.escape(found['alarm'])}</p>")
    section(
        "Accuracy",
        f"Share of held-out items right ({key}).",
        table([row(label, scores[key]) for label, scores in found["accuracy"].items()]),
    )
    section(
        "Out of distribution",
        "The same measure on larger puzzles, another skin, other compositions.",
        table([row(label, scores[key]) for label, scores in found["out_of_distribution"].items()]),
    )
    section(
        "Without the picture, and with another",
        "Blind: each picture is its mean colour. Text twin: it is said in "
        "words. Gold crop: the part that suffices, enlarged (the zoom gap is minus its loss). Turned, flipped: the "
        "answer turns with the picture. The loss is paired, against the same items as they are.",
        table([row(n, r, *loss_cells(r)) for n, r in found["input"].items()], "loss", ""),
    )
    drawn = found["as_pixels"]
    section(
        "Words as pixels",
        "The words of the text twin drawn on paper in place of the picture, in some fonts and "
        f"sizes (pixels): from {drawn['min']:.3f} to {drawn['max']:.3f}, median {drawn['median']:.3f}.",
        table([row(n, r, *loss_cells(r)) for n, r in drawn["grid"].items()], "loss", ""),
    )
    if "probes" in found:
        section(
            "Probes of the latents",
            "Each latent is replaced as it is drawn and all later words are free. Image "
            "blanked, image masked: latents are kept, and the picture is its mean colour from the start, or out of "
            "sight of the words after a sketch. The loss is paired; p is McNemar's with Holm's correction over "
            "the probes with as many items.",
            table(
                [
                    row(
                        n,
                        r | {"value": r["accuracy"]},
                        *loss_cells(r),
                        f"{r['flip_rate']:.2f}" if "flip_rate" in r else "",
                        f"{r['holm_p']:.3f}" if "holm_p" in r else "",
                        f"{r['follow_rate']:.2f} ({r['follow_by_chance']:.2f})" if r.get("follow_n") else "",
                    )
                    for n, r in found["probes"].items()
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
            "With all words kept and only latents replaced: divergence at the answer's first token.",
            plain_table(["latents are", "nats", "n"], [[n, r["nats"], r["n"]] for n, r in found["answer_kl"].items()]),
        )
        section(
            "Step by step",
            "The answer is forced after so many of the model's own steps.",
            table([row(f"after {r['step']}", r) for r in found["by_step"]]),
        )
        section(
            "Latents and denoising steps",
            "Accuracy and time for other budgets than it was trained on.",
            table(
                [row(f"{r['what']}: {r['at']}", r, f"{1000 * r['seconds']:.0f} ms") for r in found["by_budget"]], "time"
            ),
        )
        looked = found["attention"]
        if looked:
            names = list(looked["share_of_positions"])
            section(
                "Where the answer looks",
                f"Attention of the state before the answer, {looked['n']} items.",
                plain_table(
                    ["layer", *names],
                    [
                        ["share of positions", *looked["share_of_positions"].values()],
                        *([f"layer {i}", *r.values()] for i, r in enumerate(looked["layers"], 1)),
                    ],
                ),
            )
        section(
            "Health of the latents",
            "How alike latents of different items are, how many directions they use, and "
            "whether a drawn sketch is nearest to its own true one.",
            plain_table(["", ""], [[n, float(v)] for n, v in found["health"].items()]),
        )
    if looked := found["attention_in_box"]:
        names, ratio = list(looked["layers"][0]), looked["ratio"]
        section(
            "Does it look where the answer is?",
            "Of the attention on the picture, the share within the part that "
            f"suffices to answer, which is {looked['share_of_area']:.3f} of it, {looked['n']} items; and how many "
            "times that is (1: no focus).",
            plain_table(
                ["layer", *names],
                [
                    *([f"layer {i}", *r.values()] for i, r in enumerate(looked["layers"], 1)),
                    *([f"times the area, {what}", *(ratio[n][what] for n in names)] for what in ("mean", "best")),
                ],
            ),
        )
    if found["consistency"]:
        told = {n: r for n, r in found["consistency"].items() if isinstance(r, dict)}
        section(
            "Do thought and answer agree?",
            f"{found['consistency']['silent']} items whose thought concludes nothing are left out.",
            table([row(n, r) for n, r in told.items()]),
        )
    if "sketches_alone" in found:
        section(
            "Sketches alone",
            "What the task's own reader makes of the pictures: the model's, true ones through "
            "encoder and decoder (ceiling), true pixels, another item's (floor).",
            table([row(n, r) for n, r in found["sketches_alone"].items()]),
        )
    if "sketchqa_vlm" in found:
        section(
            "Sketches read by a model",
            f"How often {about['reader']}, shown the last sketch alone, goes on to the "
            "item's answer: from the model's own, from true ones as pixels and through encoder and decoder "
            "(ceiling), from an empty page and from another item's (floor).",
            table([row(n, r) for n, r in found["sketchqa_vlm"].items()]),
        )
    if sheet:
        parts.append(
            "<h2>Sketches</h2><img alt='six items: input, gold sketches, the same decoded, sketches of the model, its answer' "
            f"src='data:image/png;base64,{base64.b64encode(sheet).decode()}'>"
        )
    lines = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in about.items())
    title = html.escape(f"{about['method']}: {about['checkpoint']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><table>{lines}</table>{''.join(parts)}</html>\n"
    )

"""Storyboards: the sketches and the text beside an item are those of its own answer, and nothing is cut off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from PIL import ImageFont
from tiny_runs import short, tiny_checkpoint, untrained

from latent_reason.cli import main
from latent_reason.decoding.items import decode
from latent_reason.decoding.replacements import StoredLatents
from latent_reason.tasks import make
from latent_reason.visualization import contact_sheet, storyboard
from latent_reason.visualization.contact_sheet import draw_sheet, wrap_text
from latent_reason.visualization.storyboard import arrange_steps, draw_storyboard, reconstruct_picture, split_text

LEVELS = (6, 3, 5, 4, 3, 6, 4)
COLUMNS = ["input", "gold sketch", "gold sketch, decoded", "model's sketch", "answer"]


@pytest.fixture
def decoded():
    """(reasoner, decoder, items, texts, latents, results) of boards of shuffled sizes. Forced answers differ between
    items in their text, the number of their sketches and the latents of these. Three items a batch, so that items are
    sorted across batches too."""
    reasoner, decoder = untrained()
    task = make("frozenlake_plan", split="test", level=tuple(sorted(set(LEVELS))), chunk=(1, 1))
    pool = [task[i] for i in range(12)]  # the levels in turn
    items = [pool.pop(next(i for i, item in enumerate(pool) if item.level == level)) for level in LEVELS]
    numbers, v = {item.id: number for number, item in enumerate(items)}, reasoner.vocabulary
    moves = [list("UDLR"[n % 4] * (1 + n % 3)) for n in range(len(items))]
    texts = [[f"Go {move}. Row {n}." for move in its] + [f"\\boxed{{{n}}}"] for n, its in enumerate(moves)]
    latents = [[torch.full((4, 32), 1.0 + n + 10 * k) for k in range(len(its))] for n, its in enumerate(moves)]

    def force_text(chunk):
        parts = [[v.encode_text(text) for text in texts[numbers[item.id]]] for item in chunk]
        return [[i for part in its[:-1] for i in (*part, v.open)] + its[-1] + [v.end] for its in parts]

    results = decode(
        reasoner,
        decoder,
        task,
        items,
        "mixed",
        batch_size=3,
        forced_tokens=force_text,
        latent_hook=lambda chunk: StoredLatents([latents[numbers[item.id]] for item in chunk]),
    )
    return reasoner, decoder, items, texts, latents, results


def test_every_item_is_shown_with_its_own_text_and_sketches(decoded):
    reasoner, decoder, items, texts, latents, results = decoded
    assert [r.row for r in results] != [n % 3 for n in range(len(items))], "rows are not in the order of the items"
    for item, text, spans, result in zip(items, texts, latents, results, strict=True):
        rows = arrange_steps(reasoner, decoder, result.decoded)
        inputs, gold, decoded_gold, own, answer = (
            [row[c][1] for row in rows if row[c][1] is not None] for c in range(5)
        )
        assert inputs == item.images and gold == [s.sketch for s in item.steps if s.sketch is not None]
        assert [" ".join(said.split()) for said in answer] == text
        assert "".join(answer) == result.text and rows[-1][4] == (f"gold answer: {item.answer}", None)
        size = reasoner.backbone.token_grid(item.images[0])
        expected = [decoder.draw(z, reasoner.target.latent_grid(*size), size) for z in spans]
        assert [p.tobytes() for p in own] == [p.tobytes() for p in expected]
        assert [p.tobytes() for p in decoded_gold] == [
            reconstruct_picture(reasoner, decoder, p).tobytes() for p in gold
        ]


def test_a_sheet_is_drawn_from_rows_of_several_rollouts(decoded, monkeypatch):
    reasoner, decoder, _, texts, _, results = decoded
    sheets = []
    monkeypatch.setattr(storyboard, "draw_sheet", lambda rows, **options: sheets.append(rows) or draw_sheet(rows))
    picture = draw_storyboard(reasoner, decoder, [result.decoded for result in results[::-1]])
    (rows,) = sheets
    said = [" ".join(row[4][1].split()) for row in rows if row and row[4][1] is not None]
    assert said == [text for its in texts[::-1] for text in its]
    assert rows.count([]) == len(results) - 1 and picture.width > 700
    captions = [[caption for caption, _ in row] for row in rows if row and row[0][1]]
    assert len(captions) == len(results) and COLUMNS in captions


def test_columns_without_content_have_no_caption(decoded):
    reasoner, decoder, *_, results = decoded
    trace, rollout, row = results[0].decoded
    rows = arrange_steps(reasoner, decoder, storyboard.DecodedTrace(trace.prompt(), rollout, row))
    assert [caption for caption, _ in rows[0]] == ["input", "", "", "model's sketch", "answer"]


def test_render_pairs_items_and_answers(tmp_path, monkeypatch):
    """The default levels of the checkpoint alternate, and decoding begins with the highest."""
    calls = []
    short(monkeypatch, budget=60)
    monkeypatch.setattr(storyboard, "arrange_steps", lambda *args: calls.append(args) or arrange_steps(*args))
    main(["render", str(tiny_checkpoint()), "--n", "4", "--out", str(tmp_path / "sheet.png")])
    task = make("frozenlake_plan", split="test", seed=1, level=(3, 4), chunk=(1, 1))
    assert [one.trace.level for *_, one in calls] == [3, 4, 3, 4]
    first = [one.rollout.latents(one.rollout.spans_of(one.row)[0])[0] for *_, one in calls]
    assert torch.pdist(torch.stack(first)).min() > 0.01, "else another item's answer might pass for the item's own"
    for number, (reasoner, _, one) in enumerate(calls):
        assert one.trace.images() == task[number].images
        alone = decode(reasoner, None, task, [task[number]], "mixed")[0]
        assert split_text(one.rollout, one.row, reasoner.vocabulary) == split_text(
            alone.rollout, alone.row, reasoner.vocabulary
        )
        torch.testing.assert_close(first[number], alone.latents[0][0], rtol=1e-4, atol=1e-4)


def test_a_sheet_cuts_off_no_text():
    text = "\\boxed{" + "U,R," * 40 + "U} and " + "more words " * 60
    sheet = draw_sheet([[("a long caption " * 9, PILImage.new("RGB", (64, 32))), ("", text)], [], [("", text)]])
    ink = np.argwhere(np.asarray(sheet.convert("L")) < 200)
    assert ink.min() >= contact_sheet.GAP - 2
    assert (ink.max(0) < np.array(sheet.size[::-1]) - contact_sheet.GAP + 2).all()


def test_captions_of_a_storyboard_fit_their_column():
    font = ImageFont.load_default(contact_sheet.FONT_SIZE)
    assert all(len(wrap_text(caption, font.getlength, 144)) == 1 for caption in COLUMNS)


def test_text_is_wrapped_without_loss():
    font = ImageFont.load_default(12)
    text = "a bb ccc\n\nWWWWWWWWWWWWWWWWWWWWWWWW iii"
    lines = wrap_text(text, font.getlength, 60)
    assert all(font.getlength(line) <= 60 for line in lines) and len(lines) > 4
    assert "".join(lines).replace(" ", "") == "".join(text.split()) and lines[:2] == ["a bb ccc", ""]
    assert wrap_text("", font.getlength, 60) == [] and wrap_text("W", font.getlength, 1) == ["W"]

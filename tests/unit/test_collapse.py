"""The monitors of drawn latents: what they measure, and that they cry when they should."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import short, untrained

from eval import collapse as monitors
from latent_reason.decoding.items import decode
from latent_reason.tasks import make

GRID = (0, 1, 2)


def spans(n=200, share=0.0, width=16):
    """n spans of two latents that share a constant: ``share`` of their variance."""
    torch.manual_seed(0)
    common = torch.randn(2, width)
    return {(i, GRID): math.sqrt(share) * common + math.sqrt(1 - share) * torch.randn(2, width) for i in range(n)}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_likeness_is_the_share_all_items_have_in_common(share):
    slots = monitors.group_by_slot(spans(share=share))
    assert len(slots) == 2 and slots[0].shape == (200, 16)
    assert monitors.mean_cosine(slots) == pytest.approx(share, abs=0.1)
    pairs = [torch.cosine_similarity(z[i], z[j], 0) for z in slots for i in range(8) for j in range(8) if i != j]
    assert monitors.mean_cosine([z[:8] for z in slots]) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-5)


def test_sketches_of_one_item_are_not_compared_with_each_other():
    z = torch.randn(2, 2, 4)
    slots = monitors.group_by_slot({(i, (n, 1, 2)): z[i] + 100 * n for i in range(2) for n in range(3)})
    assert len(slots) == 6 and all(
        len(s) == 2 and torch.equal(s - s.round(decimals=-2), s - 100 * n)
        for s, n in zip(slots, (0, 0, 1, 1, 2, 2), strict=True)
    )


def test_rank_counts_directions():
    torch.manual_seed(0)
    for rank in (1, 3):
        z = torch.randn(500, rank) @ torch.linalg.qr(torch.randn(16, rank))[0].T
        assert monitors.effective_rank([z]) == pytest.approx(rank, rel=0.05)


def test_drawn_sketches_find_their_own_true_ones():
    torch.manual_seed(0)
    common = 50 * torch.randn(2, 16)  # what all have in common must not decide
    true = {(i, GRID): common + torch.randn(2, 16) for i in range(30)}
    near = {key: z + 0.3 * torch.randn(2, 16) for key, z in true.items()}
    blind = {key: common + torch.randn(2, 16) for key in true}
    assert monitors.retrieval(near, true) == (1.0, pytest.approx(1 / 30))
    assert monitors.retrieval(blind, true)[0] < 0.2
    assert monitors.retrieval({(0, GRID): common}, true) is None
    assert (
        monitors.neighbor_cosine({0: torch.ones(3, 4)}) == pytest.approx(1)
        and monitors.neighbor_cosine({0: torch.ones(1, 4)}) == 0
    )


def test_alarm_knows_how_alike_true_latents_are():
    def said(**figures):
        return monitors.collapse_warning({"latent_items": 10, "latent_rms": 1.0} | figures)

    assert said(latent_cosine=0.5) is None and monitors.collapse_warning({}) is None
    assert "collapse: " in said(latent_cosine=0.93)
    assert said(latent_cosine=0.93, true_cosine=0.92) is None
    assert "collapse: " in said(latent_cosine=0.98, true_cosine=0.92)
    assert "7.00 times" in said(latent_cosine=0.1, latent_rms=7.0)
    assert "only 9 items were compared and 10 are needed" in said(latent_cosine=0.98, latent_items=9)


def test_figures_of_a_model(monkeypatch):
    short(monkeypatch)
    reasoner, _ = untrained()
    task = make("frozenlake_plan", split="val", level=3, chunk=(1, 1))
    items = [task[i] for i in range(10)]
    results = decode(reasoner, None, task, items, "mixed")
    found = monitors.latent_diagnostics(reasoner, results)
    assert found["stop_count"] + found.get("stop_budget", 0) == 1
    assert 0 < found["latent_rms"] and -1 <= found["latent_cosine"] <= 1 and found["latent_rank"] >= 1
    assert found["latent_items"] == 10
    assert {"true_cosine", "true_rank"} <= found.keys()
    torch.nn.init.normal_(reasoner.target.standardizer.mean)
    reasoner.head.sample = lambda h, context=None, noise=None: torch.zeros(len(h), 32)
    same = monitors.latent_diagnostics(reasoner, decode(reasoner, None, task, items, "mixed"))
    assert same["latent_cosine"] > 0.99 and "collapse: " in monitors.collapse_warning(same), (
        "the slot's mean for every item"
    )

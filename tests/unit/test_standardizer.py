"""The space in which latents are learned: means of slots and stds of channels, exact on every grid that was seen."""

import math

import pytest
import torch
from tiny_runs import tiny_checkpoint, untrained

from latent_reason import checkpoint
from latent_reason.checkpoint.export.exporter import export
from latent_reason.contracts.closeness import assert_close
from latent_reason.model.targets import Standardizer
from train.model_setup import load_compatible_weights

float64 = pytest.mark.usefixtures("float64")


def drawn_tokens(n, grid, width=8, seed=0):
    """Tokens that are mostly the constant of their place, as pooled vision tokens are."""
    g = torch.Generator().manual_seed(seed)
    constant = 3 * torch.randn(36, width, generator=torch.Generator().manual_seed(99))[: grid[0] * grid[1]]
    scale = torch.linspace(0.1, 2, width)
    return [(constant + scale * torch.randn(grid[0] * grid[1], width, generator=g), grid) for _ in range(n)]


@pytest.fixture
def fitted():
    standard = Standardizer(8, side=3)
    standard.fit(drawn_tokens(400, (3, 3)))
    return standard


def stacked(samples):
    return torch.stack([z for z, _ in samples]), torch.tensor([g for _, g in samples])


def test_held_out_targets_have_mean_0_a_slot_and_std_1(fitted):
    z = fitted(*stacked(drawn_tokens(400, (3, 3), seed=2)))
    assert fitted.fitted
    assert z.mean(0).abs().max() < 0.3
    assert (z.std((0, 1)) - 1).abs().max() < 0.1


def test_predicting_the_slot_mean_costs_about_1(fitted):
    z, grids = stacked(drawn_tokens(400, (3, 3), seed=2))
    cost = (fitted(fitted.slot_mean(grids[:, None], torch.arange(9)), grids) - fitted(z, grids)).square().mean()
    assert 0.9 < cost < 1.1
    assert (z - z.mean((0, 1))).square().mean() / z.var() > 0.5, "while most of the raw variance is the constant"


@float64
@pytest.mark.parametrize("grid", [(3, 3), (2, 4), (1, 3), (5, 2)])
def test_inverse_undoes_it_on_every_grid(fitted, grid):
    z, grids = stacked(drawn_tokens(3, grid))
    assert_close(fitted.inverse(fitted(z, grids), grids), z)


@float64
def test_means_are_interpolated_for_other_grids(fitted):
    grids = torch.tensor([[3, 3], [5, 5], [2, 2]])
    means = fitted.slot_mean(grids[:, None], torch.arange(25))
    assert_close(means[0, :9].reshape(3, 3, 8), fitted.mean)
    assert_close(means[1].reshape(5, 5, 8)[::2, ::2], fitted.mean)
    assert_close(means[1].reshape(5, 5, 8)[0, 1], fitted.mean[0, :2].mean(0))
    assert_close(means[2, :4].reshape(2, 2, 8), fitted.mean[::2, ::2])
    assert_close(fitted.slot_mean(torch.tensor([1, 3]), torch.arange(3)), fitted.mean.mean(0))
    assert_close(fitted.slot_mean(torch.tensor([2, 1]), torch.arange(2)), fitted.mean.mean(1)[::2])
    assert not means[0, 9:].any() and not means[2, 4:].any(), "zero beyond a span's length"


@pytest.mark.parametrize("k", [4, 8, 27, 32])
def test_no_slot_has_a_constant_left_on_any_grid_that_was_seen(k):
    """Interpolated from a square grid, more than half of the standardized variance is still the slot's constant."""
    grids = [(h, k // h) for h in range(1, k + 1) if k % h == 0 and h <= 16 and k // h <= 16]
    constants = {g: 3 * torch.randn(k, 8, generator=torch.Generator().manual_seed(sum(g))) for g in grids}
    random = torch.Generator().manual_seed(0)

    def sketches(n):
        return [(constants[g] + torch.randn(k, 8, generator=random), g) for g in grids for _ in range(n)]

    def left(standard) -> float:
        """The largest share that is a constant of its slot, over grids."""
        standard.fit(sketches(200))
        z = standard(*stacked(sketches(200))).unflatten(0, (len(grids), 200))
        return float((z.mean(1).square().mean((1, 2)) / z.square().mean((1, 2, 3))).max())

    standard = Standardizer(8, side=math.isqrt(k))
    assert left(standard) < 0.03 and left(Standardizer(8, side=math.isqrt(k), places=False)) > 0.5
    assert standard.stored_means == ([] if k == 4 and len(grids) == 1 else [len(grids) - (k == 4), k])


def test_a_grid_that_was_seldom_seen_is_interpolated(fitted):
    one = Standardizer(8, side=3)
    one.fit([*drawn_tokens(400, (3, 3)), *drawn_tokens(7, (2, 4))])
    assert one.stored_means == [] and not one(*stacked(drawn_tokens(7, (2, 4)))).mean(0).abs().max() < 0.3
    one.fit([*drawn_tokens(400, (3, 3)), *drawn_tokens(8, (2, 4))])
    assert one.stored_means == [1, 8] and one(*stacked(drawn_tokens(8, (2, 4)))).mean(0).abs().max() < 1e-4
    assert_close(one.mean, fitted.mean), "and other grids do not move the square one"
    one.fit(drawn_tokens(8, (2, 4)), center=False)
    assert one.stored_means == [] and not one.mean.any()


@float64
def test_grids_of_one_batch_have_each_their_means():
    standard = Standardizer(8, side=2)
    seen = [*drawn_tokens(9, (2, 3)), *drawn_tokens(9, (3, 1)), *drawn_tokens(9, (2, 2))]
    standard.fit(seen)
    grids = torch.tensor([[3, 1], [2, 3], [2, 2], [1, 6]])
    means = standard.slot_mean(grids[:, None], torch.arange(6))
    for row, (start, n) in enumerate([(9, 3), (0, 6), (18, 4)]):
        assert_close(means[row, :n], torch.stack([z for z, _ in seen[start : start + 9]]).mean(0))
        assert not means[row, n:].any()
    slot = torch.tensor([2, 5, 3, 0])
    assert_close(standard.slot_mean(grids, slot), means[torch.arange(4), slot])


def test_statistics_are_kept_bit_by_bit(fitted, tmp_path):
    torch.save(fitted.state_dict(), tmp_path / "s.pt")
    other = Standardizer(8, side=3)
    other.load_state_dict(torch.load(tmp_path / "s.pt"))
    for name, value in fitted.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


@float64
def test_means_follow_their_statistics(fitted):
    grids = torch.tensor([[2, 2], [3, 3]])
    first = fitted.slot_mean(grids[:, None], torch.arange(9))
    fitted.mean.mul_(2)
    assert_close(fitted.slot_mean(grids[:, None], torch.arange(9)), 2 * first)
    fitted.load_state_dict({n: t / 4 if n == "mean" else t for n, t in fitted.state_dict().items()})
    assert_close(fitted.slot_mean(grids[:, None], torch.arange(9)), first / 2)
    fitted.mean = None
    fitted.mean = torch.ones(3, 3, 8)
    assert (fitted.slot_mean(grids[:, None], torch.arange(4)) == 1).all(), (
        "another tensor may get the memory of the one before"
    )
    assert fitted.to(torch.bfloat16).slot_mean(grids, 9).dtype == torch.bfloat16


def test_channels_that_never_move_do_not_explode():
    standard = Standardizer(2, side=1)
    standard.fit([(torch.tensor([[1.0, float(i)]]), (1, 1)) for i in range(4)])
    assert standard.std[0] == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="at least two sketches"):
        standard.fit([(torch.zeros(1, 2), (1, 1))])


# -- in checkpoints ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def with_grids():
    """A model whose target has seen two grids that are no square."""
    reasoner, _ = untrained("modal_mixed")
    width = reasoner.target.standardizer.std.shape[0]
    seen = [
        (torch.randn(8, width, generator=torch.Generator().manual_seed(i)), g)
        for g in ((2, 4), (4, 2))
        for i in range(9)
    ]
    reasoner.target.fit_statistics(seen)
    assert reasoner.target.standardizer.stored_means == [2, 8]
    return reasoner


def test_means_of_all_grids_are_saved_and_exported(with_grids, tmp_path):
    checkpoint.save(with_grids, tmp_path / "saved")
    export(tmp_path / "saved", tmp_path / "exported")
    for folder in ("saved", "exported"):
        loaded, _ = checkpoint.load(tmp_path / folder, device="cpu")
        for name, value in with_grids.target.state_dict().items():
            assert torch.equal(loaded.target.state_dict()[name], value), (folder, name)


def test_a_run_that_begins_with_them_has_them(with_grids):
    reasoner, _ = untrained("modal_mixed")
    assert load_compatible_weights(reasoner, with_grids) == set()
    assert reasoner.target.standardizer.stored_means == [2, 8] and reasoner.target.standardizer.fitted


def test_older_checkpoints_interpolate(tmp_path):
    """They have no means of grids, and are saved again as they were."""
    loaded, _ = checkpoint.load(tiny_checkpoint(), device="cpu")
    assert loaded.target.standardizer.stored_means == []
    reasoner, _ = untrained("modal_mixed")
    assert "target" not in load_compatible_weights(reasoner, loaded)
    assert reasoner.target.standardizer.stored_means == []

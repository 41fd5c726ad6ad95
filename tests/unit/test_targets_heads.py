"""What a sketch should be, the space it is learnt in, and the heads that draw it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.model import heads
from latent_reason.model.heads.denoise import draw_times
from latent_reason.model.targets import VisionTokens, latent_grid, pool_tokens

float64 = pytest.mark.usefixtures("float64")
SIDES = st.integers(1, 20)


# -- grids and pooling -------------------------------------------------------------------------------------------------
def aspect_error(grid, height, width):
    return abs(math.log(grid[0] * width / (grid[1] * height)))


@settings(deadline=None, max_examples=200)
@given(height=SIDES, width=SIDES, k=st.integers(1, 64))
def test_latent_grid_fits_the_picture_and_keeps_its_shape(height, width, k):
    h, w = latent_grid(height, width, k)
    assert 1 <= h <= height and 1 <= w <= width and h * w <= k
    if height * width <= k:
        assert (h, w) == (height, width), "pooling never invents tokens"
        return
    fits = [(a, n // a) for n in range(h * w, k + 1) for a in range(1, height + 1) if n % a == 0 and n // a <= width]
    assert max(a * b for a, b in fits) == h * w, "as many latents as the picture has room for"
    assert aspect_error((h, w), height, width) == min(aspect_error(g, height, width) for g in fits)
    assert latent_grid(width, height, k)[0] * latent_grid(width, height, k)[1] == h * w


def test_latent_grid_of_the_paper_and_of_nothing():
    assert latent_grid(16, 16, 32) in ((8, 4), (4, 8))
    assert latent_grid(4, 16, 32) == (2, 16) or aspect_error(latent_grid(4, 16, 32), 4, 16) < math.log(2)
    with pytest.raises(ValueError, match="at least one latent"):
        latent_grid(3, 3, 0)


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 7), width=st.integers(1, 7), k=st.integers(1, 12))
def test_pooling_keeps_rows_columns_and_every_token(height, width, k):
    plane = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).float()
    tokens = plane.reshape(-1, 2).requires_grad_()
    h, w = latent_grid(height, width, k)
    pooled = pool_tokens(tokens, (height, width), (h, w))
    places = pooled.detach().reshape(h, w, 2)
    assert torch.equal(places[:, :, 0], places[:, :1, 0].expand(h, w)) and (places[:, 0, 0].diff() > 0).all()
    assert torch.equal(places[:, :, 1], places[:1, :, 1].expand(h, w)) and (places[0, :, 1].diff() > 0).all()
    pooled.sum().backward()
    assert (tokens.grad > 0).all(), "no remainder is dropped"


def test_columns_of_a_sketch_stay_apart(make_backbone):
    backbone = make_backbone()
    target = VisionTokens(backbone, k=4)
    half = np.zeros((256, 256, 3), dtype=np.uint8)
    half[:, 128:] = 255
    (latents,) = target.encode_embeddings(backbone.preprocess_images([PILImage.fromarray(half)]), [(2, 2)])
    between = (latents[0::2] - latents[1::2]).square().mean()
    within = (latents[:2] - latents[2:]).square().mean()
    assert between > 20 * within


@float64
def test_targets_are_the_pooled_tokens_of_the_models_own_eye(make_backbone, picture):
    backbone = make_backbone()
    target = VisionTokens(backbone, k=4)
    seen = backbone.preprocess_images([picture(2, 2), picture(4, 4)])
    small, large = target.encode_embeddings(seen)
    raw = backbone.encode_images(seen)
    assert_close(small, raw[0])
    assert_close(large[1], raw[1].reshape(4, 4, -1)[:2, 2:].mean((0, 1)))


# -- heads -------------------------------------------------------------------------------------------------------------
HEADS = [
    ("identity", {}),
    ("identity", {"loss": "cosine"}),
    ("mlp", {}),
    ("mlp", {"loss": "cosine"}),
    ("glu", {}),
    ("gaussian", {}),
    ("flow", {"repeats": 3}),
    ("flow", {"residual": False}),
    ("mean_flow", {"repeats": 3}),
    ("mean_flow", {"residual": False, "steps": 2}),
    *(("diffusion", {"prediction": p, "residual": False}) for p in ("eps", "x", "v")),
]
DENOISING = [
    ("flow", {}),
    ("flow", {"residual": False}),
    ("diffusion", {"prediction": "eps", "residual": True}),
    *(("diffusion", {"prediction": p, "residual": False}) for p in ("eps", "x", "v")),
]


def awake(head):
    """With weights at random: denoisers begin at zero, where nothing depends on anything."""
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return head


@pytest.mark.parametrize(("kind", "options"), HEADS, ids=str)
def test_losses_are_one_number_a_latent_in_fp32(kind, options):
    head = awake(heads.make(kind, 8, 8, **options))
    h = torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = head.to(torch.bfloat16).loss(h, torch.randn(5, 8))
    assert loss.shape == (5,) and loss.dtype == torch.float32
    loss.sum().backward()
    assert h.grad.abs().sum() > 0, "the loss teaches the state before the latent"
    assert head.sample(h).shape == (5, 8)


@float64
@pytest.mark.parametrize(("kind", "options"), HEADS, ids=str)
def test_a_sample_is_a_pure_function_of_state_and_noise(kind, options):
    head = awake(heads.make(kind, 8, 8, **options)).eval()
    h, noise = torch.randn(6, 8), torch.randn(6, 8)
    first = head.sample(h, noise=noise)
    torch.manual_seed(1)
    assert_close(head.sample(h, noise=noise), first)
    assert_close(head.sample(h[2:4], noise=noise[2:4]), first[2:4])
    assert relative_error(head.sample(h.flip(0), noise=noise), first) > 1e-3
    assert (relative_error(head.sample(h, noise=noise.flip(0)), first) > 1e-3) == head.is_stochastic


@float64
def test_a_gaussian_head_knows_the_density_of_what_it_draws():
    head = awake(heads.make("gaussian", 8, 6, sigma=0.3))
    h, noise = torch.randn(5, 8), torch.randn(5, 6)
    z = head.sample(h, noise=noise)
    assert_close((z - head.mean.net(h)) / 0.3, noise)
    expected = torch.distributions.Normal(head.mean.net(h), 0.3).log_prob(z).sum(-1)
    assert_close(head.log_prob(h, z), expected)
    pulled = torch.autograd.grad(head.log_prob(h, z.detach() + 1).sum(), list(head.parameters()))
    assert all(g.any() for g in pulled)
    with pytest.raises(ValueError, match="sigma=0"):
        heads.make("gaussian", 8, 6, sigma=0)


CENTRE = torch.tensor([1.0, -1.0, 0.5])


def draw_gaussians(n):
    """States (n, 2) and targets (n, 3): z is a Gaussian around +-CENTRE; the state tells the sign, and the spread of 0
    or 0.5."""
    sign, spread = torch.randint(0, 2, (2, n, 1)).float()
    return torch.cat([2 * sign - 1, spread], 1), (2 * sign - 1) * CENTRE + 0.5 * spread * torch.randn(n, 3)


def teach(head, steps, n=96, draw=draw_gaussians):
    """Teach a head the targets of states, of which ``draw(n)`` gives n."""
    optimizer = torch.optim.AdamW(head.parameters(), 1.2 / steps, weight_decay=0.0, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        h, z = draw(n)
        optimizer.zero_grad()
        head.loss(h, z).mean().backward()
        optimizer.step()
        decay.step()
    return head.eval()


@float64
@pytest.mark.parametrize(("kind", "options"), DENOISING, ids=str)
def test_denoising_heads_recover_a_point_and_a_gaussian(kind, options):
    # noise is the hardest to predict, and its draws are the least exact
    steps = 300 if options.get("prediction") == "eps" else 150
    head = teach(heads.make(kind, 2, 3, hidden=64, depth=2, steps=25, **options), steps)
    corners = torch.tensor([[sign, spread] for sign in (-1.0, 1.0) for spread in (0.0, 1.0)])
    drawn = head.sample(corners.repeat_interleave(500, 0), noise=torch.randn(2000, 3)).detach()
    for (sign, spread), z in zip(corners, drawn.split(500), strict=True):
        low, middle, high = z.quantile(torch.tensor([0.16, 0.5, 0.84]), 0)  # eps draws one in a hundred far off
        assert (middle - sign * CENTRE).abs().max() < 0.2
        assert ((high - low) / 2 - 0.5 * spread).abs().max() < 0.2


def energy_distance(x, y):
    """Of two samples (n, Z) and (m, Z): 0 if they are of one distribution."""
    within = torch.cdist(x, x).mean() + torch.cdist(y, y).mean()
    return 2 * torch.cdist(x, y).mean() - within


def two_modes(share, n):
    """(n, 3) draws around CENTRE, a ``share`` (n, 1) of them, or around -CENTRE."""
    return torch.where(torch.rand(n, 1) < share, CENTRE, -CENTRE) + 0.1 * torch.randn(n, 3)


def teach_mixtures(head, steps=400):
    """Teach a head mixtures of two modes, of which the state (n, 2) tells the shares: 0, a half or all."""

    def draw(n):
        share = torch.randint(0, 3, (n, 1)) / 2
        return torch.cat([share, 1 - share], 1), two_modes(share, n)

    return teach(head, steps, n=192, draw=draw)


def distances_of(head):
    """The energy distances (3,) between draws and the mixtures that :func:`teach_mixtures` taught."""
    found = []
    for share in (0.0, 0.5, 1.0):
        h = torch.tensor([[share, 1 - share]]).expand(1000, 2)
        drawn = head.sample(h, noise=torch.randn(1000, 3)).detach()
        found.append(energy_distance(drawn, two_modes(torch.tensor(share), 1000)))
    return torch.stack(found)


@float64
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("flow", {}),
        *(("flow", {"residual": False, "times": times}) for times in ("uniform", "late", "logit_normal")),
        ("mean_flow", {}),
        *(("diffusion", {"prediction": p, "residual": r}) for p in ("eps", "x", "v") for r in (True, False)),
        ("diffusion", {"residual": False, "times": "late"}),
    ],
    ids=str,
)
def test_heads_recover_the_modes_of_a_mixture_in_their_own_number_of_steps(kind, options):
    """Bounded by a tenth of the distance of a point between the two modes, or of a head that knows no state."""
    head = teach_mixtures(heads.make(kind, 2, 3, hidden=64, **options))
    half, one, none = (two_modes(torch.tensor(share), 1000) for share in (0.5, 1.0, 0.0))
    between = energy_distance(0.1 * torch.randn(1000, 3), half)
    blind = energy_distance(torch.cat([half[:333], one[:333], none[:334]]), one)
    assert distances_of(head).max() < 0.11 < 0.1 * min(between, blind)


@float64
def test_an_eps_head_begins_where_a_signal_is_left():
    """At the very last time the estimate of a latent is a sign, and ten steps do not make up for it."""
    matrix = torch.randn(4, 16) / 2

    def draw(n):
        h = torch.randn(n, 4)
        return h, h @ matrix

    head = teach(heads.make("diffusion", 4, 16, hidden=64, prediction="eps", residual=False), 400, n=192, draw=draw)
    (h, z), noise, alpha = draw(500), torch.randn(500, 16), head.train_scheduler.alphas_cumprod
    ours, times = (head.sample(h, noise=noise) - z).square().mean(), head.chain_times()
    assert alpha[times[0]].sqrt() >= 0.02 > alpha[times[0] + 1].sqrt() and len(times) == 10
    assert_close(head.scheduler.alphas_cumprod.flip(0), alpha[times])

    class FromTheLast(heads.DiffusionHead):
        LEAST_SIGNAL = 0.0

    last = FromTheLast(4, 16, "eps", hidden=64, residual=False)
    last.load_state_dict(head.state_dict())
    assert last.chain_times()[0] == 999 and ours < 0.5 * (last.sample(h, noise=noise) - z).square().mean()


def test_the_number_of_steps_may_change_after_training():
    head = heads.make("diffusion", 8, 6).eval()
    for n in (1, 4, 25, 1000):
        head.set_steps(n)
        assert head.steps == len(head.chain_times()) == n and head.sample(torch.randn(2, 8)).isfinite().all()


@pytest.mark.parametrize(("kind", "mean"), [("uniform", 0.5), ("late", 0.8), ("logit_normal", 0.5)])
def test_noise_levels_are_drawn_as_they_are_named(kind, mean):
    times = draw_times(20_000, kind, torch.device("cpu"))
    assert 0 <= times.min() and times.max() <= 1 and times.mean() == pytest.approx(mean, abs=0.01)
    middle = ((times > 0.25) & (times < 0.75)).double().mean()
    assert middle == pytest.approx({"uniform": 0.5, "late": 0.75**4 - 0.25**4, "logit_normal": 0.728}[kind], abs=0.02)


@float64
@pytest.mark.parametrize("options", [{}, pytest.param({"residual": False}, marks=pytest.mark.long)], ids=str)
def test_a_mean_flow_recovers_a_point_and_two_modes_in_one_step(options):
    """Of the state: the share of a mode. Where it is 0.5, one Euler step of a flow gives the point between the modes."""
    distances = {}
    for kind in ("mean_flow", "flow"):
        torch.manual_seed(0)
        head = teach_mixtures(heads.make(kind, 2, 3, hidden=64, steps=1, **options))
        for share in (0.0, 0.5, 1.0):
            h, expected = torch.tensor([[share, 1 - share]]).expand(1000, 2), two_modes(torch.tensor(share), 1000)
            drawn = head.sample(h, noise=torch.randn(1000, 3)).detach()
            distances[kind, share] = energy_distance(drawn, expected)
            if kind == "mean_flow":
                assert abs((drawn[:, 0] > 0).double().mean() - share) < 0.12
                near = torch.minimum((drawn - CENTRE).norm(dim=1), (drawn + CENTRE).norm(dim=1)) < 0.75
                assert near.double().mean() > 0.75, "the rest lies between the modes"
                assert share == 0.5 or (drawn.mean(0) - (2 * share - 1) * CENTRE).abs().max() < 0.2
    assert distances["mean_flow", 0.5] < 0.15 * distances["flow", 0.5]


@float64
def test_the_loss_of_a_mean_flow_is_that_of_its_identity(monkeypatch):
    """By differences of the average velocity along the flow. Without an interval it is the loss of the flow head."""
    head = awake(heads.make("mean_flow", 4, 3, hidden=16, depth=1, residual=False))
    h, z = torch.randn(6, 4), torch.randn(6, 3)
    t, r, noise, eps = torch.full((6, 1), 0.7), torch.full((6, 1), 0.2), torch.randn(6, 3), 1e-6

    def average(t, r):
        return head.net((1 - t) * z + t * noise, torch.cat([t, t - r], 1), h)

    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    monkeypatch.setattr(head, "draw_intervals", lambda n, device: (t, r))
    change = (average(t + eps, r) - average(t - eps, r)) / (2 * eps)
    goal = noise - z - (t - r) * change
    assert relative_error(head.loss(h, z), (average(t, r) - goal).square().mean(-1)) < 1e-5
    got = torch.autograd.grad(head.loss(h, z).sum(), list(head.parameters()))
    expected = torch.autograd.grad((average(t, r) - goal.detach()).square().mean(-1).sum(), list(head.parameters()))
    assert relative_error(torch.cat([g.flatten() for g in got]), torch.cat([g.flatten() for g in expected])) < 1e-5
    monkeypatch.setattr(head, "draw_intervals", lambda n, device: (t, t))
    assert_close(head.loss(h, z), (average(t, t) - (noise - z)).square().mean(-1))


def test_the_loss_of_a_mean_flow_is_of_fp32_under_autocast():
    head = awake(heads.make("mean_flow", 8, 8))
    h, z = torch.randn(5, 8), torch.randn(5, 8)
    torch.manual_seed(1)
    plain = head.denoising_loss(h, z)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = head.denoising_loss(h.bfloat16().float(), z)
    assert cast.dtype == torch.float32 and relative_error(cast, plain) < 1e-2
    torch.manual_seed(1)
    assert_close(head.denoising_loss(h.bfloat16().float(), z), cast)


@float64
def test_a_residual_head_draws_its_mean_and_what_is_left_of_it():
    head = awake(heads.make("flow", 4, 4, hidden=16, depth=1, residual=True)).eval()
    h, noise = torch.randn(3, 4), torch.randn(3, 4)
    head.scale.fill_(0.0)
    assert_close(head.sample(h, noise=noise), head.mean.sample(h))
    head.scale.fill_(2.0)
    assert_close(
        head.sample(h, noise=noise),
        head.mean.sample(h) + 2 * head.denoise(head.net.chain(head.sampling_constants(), h), noise)[-1],
    )


@float64
def test_in_a_residual_head_only_the_mean_teaches_the_state():
    head = awake(heads.make("flow", 4, 4, hidden=16, depth=1, residual=True)).eval()
    h, z = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    (by_head,) = torch.autograd.grad(head.loss(h, z).sum(), h)
    (by_mean,) = torch.autograd.grad(head.mean.loss(h, z).sum(), h)
    assert_close(by_head, by_mean)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: heads.make("mpl", 4, 4), "known heads are identity, mlp, gaussian, diffusion, flow"),
        (lambda: heads.make("diffusion", 4, 4, prediction="z"), "'eps', 'x' or 'v'"),
        (lambda: heads.make("diffusion", 4, 4, steps=1001), "steps=1001: must be from 1 to 1000"),
        (lambda: heads.make("flow", 4, 4, times="early"), "'uniform', 'late', 'logit_normal'"),
        (
            lambda: heads.make("mlp", 4, 4, loss="l3").loss(torch.zeros(1, 4), torch.zeros(1, 4)),
            "'mse', 'l1' or 'cosine'",
        ),
        (lambda: heads.make("identity", 4, 6), "as wide as states"),
    ],
)
def test_unknown_names_are_refused_with_what_there_is(make, words):
    with pytest.raises(ValueError, match=words):
        make()

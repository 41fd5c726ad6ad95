"""Latents as actions: densities against numerical integration and torch's own, chains against their samplers."""

import copy
import math

import pytest
import torch
from diffusers.schedulers import DDPMScheduler
from torch.distributions import Normal

from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.model import heads
from latent_reason.objectives.latent_policies import DdpmSde, FlowSde, Gaussian, Mask, RewardWeighted, Vlpo

pytestmark = pytest.mark.usefixtures("float64")
WIDTH, LATENT, N = 12, 6, 9
HEADS = {
    "identity": ("identity", {}),
    "mlp": ("mlp", {}),
    "gaussian": ("gaussian", {}),
    "flow": ("flow", {}),
    "plain flow": ("flow", {"residual": False}),
    "diffusion": ("diffusion", {}),
    "eps": ("diffusion", {"residual": False, "prediction": "eps", "steps": 20}),
}
MADE = {
    "mask": Mask,
    "weighted": RewardWeighted,
    "vlpo": Vlpo,
    "vlpo 10": lambda h: Vlpo(h, sigma=10.0),
    "sum": lambda h: Gaussian(h, norm="sum"),
    "sqrt": Gaussian,
    "mean": lambda h: Gaussian(h, norm="mean"),
    "spread": lambda h: Gaussian(h, spread=torch.linspace(0.5, 2, h.latent_width)),
    "rank": lambda h: Gaussian(h, norm="sum", basis=Gaussian.directions(torch.randn(50, h.latent_width), 3)),
    "flow_sde": FlowSde,
    "flow_sde window": lambda h: FlowSde(h, window=3),
    "ddpm_sde": DdpmSde,
    "ddpm_sde window": lambda h: DdpmSde(h, window=2),
    "awr": lambda h: RewardWeighted(h, weighting="awr"),
}
FITS = [
    (p, h)
    for p in MADE
    for h in HEADS
    if ("flow_sde" not in p or "flow" in h)
    and ("ddpm_sde" not in p or h in ("diffusion", "eps"))
    and (p not in ("weighted", "awr") or h not in ("identity", "mlp"))
]


def head_of(name: str, latent: int = LATENT):
    """A head that says something: those that begin at zero are shaken."""
    kind, options = HEADS[name]
    torch.manual_seed(1)
    head = heads.make(kind, latent if kind == "identity" else WIDTH, latent, **options)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.1 * torch.randn_like(p))
        if getattr(head, "mean", None) is not None and hasattr(head, "scale"):
            head.scale.fill_(0.7)
    return head.eval()


@pytest.fixture(params=FITS, ids=" of ".join)
def case(request):
    policy, head = request.param[0], head_of(request.param[1])
    torch.manual_seed(2)
    made = MADE[policy](head)
    h = torch.randn(N, head.width)
    z, record = made.sample(head, h, torch.randn(N, made.num_draws, head.latent_width))
    return made, head, h, z.detach(), record.detach()


def test_a_record_says_what_was_drawn_and_nothing_has_changed_before_an_update(case):
    policy, head, h, z, record = case
    assert z.shape == (N, LATENT) and z.isfinite().all()
    if not getattr(policy, "window", 0):
        assert torch.equal(record[:, -1], z) if record.shape[1] else isinstance(policy, Mask)
    found = policy.log_prob(head, h, record)
    assert found.shape == (N, policy.steps) and found.dtype == torch.float32 and found.isfinite().all()
    if not policy.uses_head_loss:
        assert_close((policy.log_prob(head, h, record) - found).exp(), torch.ones_like(found))  # the ratio
    kl = policy.kl(head, h, copy.deepcopy(head), h.clone(), record)
    assert kl.shape == found.shape and (kl.abs() < 1e-9).all()


def test_a_row_does_not_see_its_batch(case):
    policy, head, h, _, record = case
    if policy.uses_head_loss:
        return  # a head's own loss draws fresh noise
    h = h + 0.1 * torch.randn_like(h)  # Vlpo gives 0 at the states it was drawn in
    assert_close(policy.log_prob(head, h[3:5], record[3:5]), policy.log_prob(head, h, record)[3:5])


def test_only_the_state_before_a_latent_counts_and_its_gradient_is_the_schemes(case):
    policy, head, h, _, record = case
    h = h.clone().requires_grad_()
    found = policy.log_prob(head, h, record)
    if not policy.has_log_prob:
        assert found.numel() == 0
        return
    if policy.uses_head_loss:
        assert found.requires_grad and (found <= 0).all()
        return
    (pulled,) = torch.autograd.grad(found[2].sum(), h)
    assert not pulled[[i for i in range(N) if i != 2]].any()
    if isinstance(policy, Vlpo):
        assert pulled[2].abs().max() < 1e-12, "drawn at its own mean, nothing is learnt before the policy has moved"
        moved = policy.log_prob(head, h + 0.1 * torch.randn_like(h), record)
        assert (moved < found).all(), "and a ratio is at most 1"
    else:
        assert pulled[2].abs().max() > 1e-4


def test_divergence_is_none_only_where_nothing_differs(case):
    policy, head, h, _, record = case
    if policy.has_log_prob and not policy.uses_head_loss:
        kl = policy.kl(head, h, head, h + 0.3 * torch.randn_like(h), record)
        assert (kl > 0).all() and kl.isfinite().all()


def test_a_gaussian_is_torchs_own():
    head = head_of("mlp")
    h, spread = torch.randn(N, WIDTH), torch.linspace(0.5, 2, LATENT)
    policy = Gaussian(head, fraction=0.1, norm="sum", spread=spread)
    z, record = policy.sample(head, h, torch.randn(N, 1, LATENT))
    other = head_of("mlp")
    with torch.no_grad():
        other.net[-1].bias.add_(0.03)
    for one in (head, other):
        wanted = Normal(one.sample(h), 0.1 * spread).log_prob(z).sum(-1)
        assert_close(policy.log_prob(one, h, record)[:, 0], wanted)
        for norm, divisor in (("sqrt", LATENT**0.5), ("mean", LATENT)):
            tempered = Gaussian(head, fraction=0.1, norm=norm, spread=spread).log_prob(one, h, record)[:, 0]
            assert_close(tempered, wanted / divisor)
    exact = torch.distributions.kl_divergence(*(Normal(one.sample(h), 0.1 * spread) for one in (head, other)))
    assert_close(policy.kl(head, h, other, h, record)[:, 0], exact.sum(-1))


def test_a_basis_keeps_noise_within_it_and_counts_its_coordinates_alone():
    head, h = head_of("mlp"), torch.randn(N, WIDTH)
    basis = Gaussian.directions(torch.randn(200, LATENT) * torch.tensor([5, 0.1, 4, 0.1, 0.1, 3.0]), 3)
    assert_close(basis.T @ basis, torch.eye(3))
    assert basis[[1, 3, 4]].abs().max() < 0.1, "the directions in which latents differ"
    policy = Gaussian(head, norm="sum", basis=basis)
    z, record = policy.sample(head, h, torch.randn(N, 1, LATENT))
    off = z - head.sample(h)
    assert_close(off @ basis @ basis.T, off)
    other = copy.deepcopy(head)
    with torch.no_grad():
        other.net[-1].bias.add_(torch.linalg.svd(basis.T).Vh[-1])  # a direction outside
    found = (policy.log_prob(one, h, record) for one in (head, other))
    assert_close(*found)


@pytest.mark.parametrize(
    "name, policy",
    [
        ("flow", FlowSde),
        ("plain flow", FlowSde),
        ("diffusion", DdpmSde),
        ("eps", DdpmSde),
        ("mlp", Gaussian),
        ("flow", Gaussian),
    ],
)
def test_every_step_is_a_density(name, policy):
    """Of a latent of one channel, summed over a fine grid of what could have come next: 1."""
    head = head_of(name, latent=1)
    made, h = policy(head), torch.randn(1, WIDTH)
    _, record = made.sample(head, h, torch.randn(1, made.num_draws, 1))
    values = torch.linspace(-10, 10, 10_001)
    first = 0 if getattr(head, "mean", None) is not None and policy is not Gaussian else 1
    steps = range(max(1, record.shape[1] - 3), record.shape[1])
    for j in steps[:-1] if policy is DdpmSde else steps:  # the last of DDPM is narrower than any grid
        grid = record.expand(len(values), -1, -1).clone()
        grid[:, j, 0] = values
        step = j - first if policy is not Gaussian else 0
        with torch.no_grad():
            total = made.log_prob(head, h.expand(len(values), -1), grid)[:, step].double().exp().sum()
        assert abs(total * 20 / 10_000 - 1) < 2e-3


@pytest.mark.parametrize("name, policy", [("flow", FlowSde), ("plain flow", FlowSde), ("diffusion", DdpmSde)])
def test_all_windows_together_are_the_whole_chain(name, policy):
    """Each action of a chain is in as many windows as there are actions in one: their scores and gradients add up to
    those of the whole."""
    head, h = head_of(name), torch.randn(1, WIDTH, requires_grad=True)
    whole, window = policy(head), policy(head, window=3)
    _, record = whole.sample(head, h, torch.randn(1, whole.num_draws, LATENT))
    record = record.detach()
    # a normal in the middle of each share of the line
    chance = torch.special.ndtri((torch.arange(whole.steps) + 0.5) / whole.steps)
    cut = torch.cat([window.cut(record, one[None]) for one in chance])
    assert cut[:, 0, 0].tolist() == list(range(whole.steps)) and cut.shape[1] == 6
    by_window = window.log_prob(head, h.expand(whole.steps, -1), cut)
    full = whole.log_prob(head, h, record)
    assert_close(by_window[:, 0], full[0])
    assert_close(by_window.sum(), 3 * full.sum())
    one, other = (torch.autograd.grad(x, h, retain_graph=True)[0] for x in (by_window.sum(), 3 * full.sum()))
    assert_close(one, other)


def test_rollouts_weigh_by_what_they_did():
    a, best = torch.tensor([-1.0, 0.0, 2.0, 9.0]), torch.tensor([False, False, False, True])
    weigh = {
        name: RewardWeighted(head_of("flow"), weighting=name).weight(a, best) for name in ("positive", "raft", "awr")
    }
    assert weigh["positive"].tolist() == [0, 0, 2, 9] and weigh["raft"].tolist() == [0, 0, 0, 1]
    assert_close(weigh["awr"], [math.exp(-1), 1, math.exp(2), 20])
    with pytest.raises(ValueError, match="weighting='best': one of positive, raft, awr"):
        RewardWeighted(head_of("flow"), weighting="best")
    with pytest.raises(ValueError, match="a MLPHead is not stochastic"):
        RewardWeighted(head_of("mlp"))


def test_without_noise_the_flow_is_its_euler_chain():
    for name in ("flow", "plain flow"):
        head, h = head_of(name), torch.randn(N, WIDTH)
        policy, start = FlowSde(head, noise=1e-6), torch.randn(N, 1, LATENT)
        z, _ = policy.sample(head, h, torch.cat([start, torch.randn(N, head.steps, LATENT)], 1))
        assert relative_error(z, head.sample(h, noise=start[:, 0])) < 1e-5


@pytest.mark.parametrize("steps, low, high", [(10, 0.46, 0.52), (40, 0.48, 0.52)])
def test_the_noisy_flow_keeps_the_marginals(steps, low, high, monkeypatch):
    """Of a normal of spread 0.5, whose velocity is known: 0.478 at 10 steps and 0.498 at 40."""
    head = heads.make("flow", WIDTH, 1, residual=False, steps=steps)

    def velocity(x, t, h):
        s = (t / 1000)[:, None]
        return x * (s - 0.25 * (1 - s)) / (s**2 + 0.25 * (1 - s) ** 2)

    monkeypatch.setattr(head.net, "forward", velocity)
    policy = FlowSde(head)
    z, _ = policy.sample(head, torch.zeros(20_000, WIDTH), torch.randn(20_000, policy.num_draws, 1))
    assert low < z.std() < high and abs(z.mean()) < 0.02


def test_a_step_of_the_noisy_diffusion_is_that_of_ddpm():
    """With as many steps as there are times with a signal, the posterior of the textbook."""
    head = heads.make("diffusion", WIDTH, LATENT, residual=False, prediction="v", steps=987)
    assert head.step_times == list(range(987))
    h, x = torch.randn(N, WIDTH), torch.randn(N, LATENT)
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.1 * torch.randn_like(p))
    scheduler = DDPMScheduler.from_config(head.train_scheduler.config, variance_type="fixed_small")
    for t in (700, 300):
        mean, spread = DdpmSde(head).step(head, 986 - t, x, h)
        alpha, before = scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[t - 1]
        beta = 1 - alpha / before
        v = head.net(x, torch.full((N,), t), h)
        clean = alpha.sqrt() * x - (1 - alpha).sqrt() * v
        wanted = (before.sqrt() * beta * clean + (alpha / before).sqrt() * (1 - before) * x) / (1 - alpha)
        assert_close(mean, wanted)
        assert math.isclose(spread**2, float(beta * (1 - before) / (1 - alpha)), rel_tol=1e-3)


def test_a_policy_of_another_head_says_so():
    for policy, name, said in (
        (FlowSde, "mlp", "flow head, not a MLPHead"),
        (DdpmSde, "flow", "diffusion head, not a FlowHead"),
    ):
        with pytest.raises(ValueError, match=said):
            policy(head_of(name))
    reading = heads.make("autoregressive", WIDTH, LATENT)
    with pytest.raises(ValueError, match="reads more than the state"):
        Gaussian(reading)
    for options, said in (({"norm": "max"}, "norm='max'"), ({"fraction": 0.0}, "fraction=0.0")):
        with pytest.raises(ValueError, match=said):
            Gaussian(head_of("mlp"), **options)
    with pytest.raises(ValueError, match=r"noise=0.0: must be more than 0"):
        FlowSde(head_of("flow"), noise=0.0)
    with pytest.raises(ValueError, match=r"sigma=0.0, relative=0.15: must be more than 0"):
        Vlpo(head_of("mlp"), sigma=0.0)
    for rank in (0, 7):
        with pytest.raises(ValueError, match=f"rank={rank}: must be from 1 to 6"):
            Gaussian.directions(torch.randn(50, LATENT), rank)
    with pytest.raises(ValueError, match=r"window=99: must be from 1 to the \d+ steps"):
        FlowSde(head_of("flow"), window=99)

"""Batches of reinforcement learning: in parts, of several processes, with what teaches nothing left out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_runs import rewarded, rolled, short, tiny_reasoner, untrained

from latent_reason import checkpoint, methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding import engine
from latent_reason.model.batch import LATENT
from latent_reason.objectives import policy_gradient
from latent_reason.objectives.replay import replay
from latent_reason.tasks import make
from train.rl import rewards, trainer
from train.rl.losses import latent_loss
from train.rl.rollouts import build_policy, target_latents
from train.trainer import make_run_folder


@pytest.fixture(autouse=True)
def cut(monkeypatch):
    """Held-out items are answered by untrained models, which ramble."""
    short(monkeypatch)


@pytest.fixture
def module(float64):
    """One whose rewards are the lengths of what it wrote, with noisy latents."""
    made = rewarded(
        "unused",
        rl__latent_policy="gaussian",
        rl__latent_policy_options={"fraction": 0.3},
        rl__max_completion_length=12,
        rl__num_generations=4,
    )
    found = trainer.RLModule(tiny_reasoner(), make("frozenlake_plan", level=3), made)
    found.log_dict = lambda *args, **options: None
    found.log = lambda *args, **options: None
    found.sampler.rewards = {"long": (lambda group: [float(len(one.text)) for one in group], 1.0)}
    return found


def gradient(module, found) -> torch.Tensor:
    module.zero_grad()
    for one in found:
        module.loss(one)[0].backward()
    grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters() if p.requires_grad)
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("objective", ["grpo", "dapo", "gspo", "reinforce"])
def test_rollouts_scored_a_few_at_a_time_teach_the_same(module, objective, monkeypatch):
    """With spans that were opened in some rows alone, and rows of several lengths."""
    module.sampler.objective = policy_gradient.OBJECTIVES[objective]
    forced = [[module.reasoner.vocabulary.open] if row % 3 else [] for row in range(8)]
    monkeypatch.setattr("train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=forced))
    items = [module.sampler.task[i] for i in range(2)]
    whole = rolled(module, items)
    assert whole.latent_actions.any() and len({len(one.text) for one in whole.graded}) > 1
    wanted = gradient(module, [whole])
    parts = [whole.select(rows, module.reasoner) for rows in ([0, 1, 2], [3], [4, 5, 6, 7])]
    assert_close(gradient(module, parts), wanted, depth=16)
    assert wanted.abs().max() > 0


def test_rows_that_teach_nothing_are_not_scored_again(module):
    found = rolled(module, [module.sampler.task[i] for i in range(3)])
    found.advantages = torch.tensor([0.0] * 5 + [1.0, -1.0, 0.0] + [0.0] * 4)
    pieces = module.micro_batches(found)
    assert [len(one.traces) for one in pieces] == [2]
    assert_close(gradient(module, pieces), gradient(module, [found]), depth=16)


def test_groups_that_earn_the_same_are_drawn_again(module, monkeypatch):
    """Of three batches of two items, the first teaches nothing, the second half of what is asked."""
    module.sampler.rl = replace(module.rl, dynamic_sampling=3)
    plain, dull = module.sampler.sample, [(True, True), (True, False), (False, False), (False, False)]

    def sample(items, *where):
        found = plain(items)
        found.advantages = torch.tensor(
            [0.0 if each else (-1.0) ** i for each in dull[module.sampler.num_batches - 1] for i in range(4)]
        )
        return found

    monkeypatch.setattr(module.sampler, "sample", sample)
    items = [module.sampler.task[i] for i in range(8)]
    collected = module.sampler.collect(items)
    found = module.set_weights(collected.experiences)
    assert collected.tried == items[:6]
    assert module.sampler.num_batches == 3 and [len(one.traces) for one in found] == [4, 8]
    assert sum(float(one.weights.sum()) for one in found) == pytest.approx(1), "all that is left counts, once"


@pytest.mark.parametrize("objective", ["dapo", "grpo", "dr_grpo"])
def test_averages_are_over_the_rollouts_of_all_processes(module, monkeypatch, objective):
    """Gradients are averaged over processes: the mean of what each weighs is what one would weigh that has all."""
    module.sampler.objective = policy_gradient.OBJECTIVES[objective]
    every = [module.sampler.sample([module.sampler.task[i]]) for i in range(3)]
    every[0].actions[1:] = False  # one process has far fewer
    sizes = [
        torch.stack([module.objective.average(one.actions, module.rl.max_completion_length)[1] for one in some]).sum()
        for some in (every[:1], every[1:])
    ]
    module.set_weights(every)
    whole = [one.weights for one in every]
    monkeypatch.setattr(
        module, "gather_values", lambda mine: torch.stack([torch.stack([size, size]) for size in sizes])
    )
    for some, wanted in ((every[:1], whole[:1]), (every[1:], whole[1:])):
        for one, weights in zip(module.set_weights(some), wanted, strict=True):
            assert_close(one.weights / 2, weights)


def test_only_items_that_no_rollout_solved_are_anchored(module, monkeypatch):
    """AHPO's gate; all of those that were tried, where a recipe says so."""
    seen, plain = [], module.sampler.grade
    monkeypatch.setattr(
        module.sampler,
        "grade",
        lambda rollout, row, item, measured, step: replace(
            plain(rollout, row, item, measured, step), score=float(item.index == 0 and row % 4 == 1)
        ),
    )
    monkeypatch.setattr(module, "losses", lambda pieces, *rest: [])
    monkeypatch.setattr(module, "gold_batch", lambda items: seen.append([item.index for item in items]) or (None, {}))
    monkeypatch.setattr(module, "update", list)
    for anchor_on, anchored in (("unsolved", [1, 2]), ("all", [0, 1, 2])):
        module.sampler.rl = replace(module.rl, sft_coef=0.5, sft_items=anchor_on)
        module.sampler.num_prompts = 3
        module.training_step([module.sampler.task[i] for i in range(3)], 0)
        assert seen.pop() == anchored


def test_latents_are_clipped_by_a_bound_of_their_own(module, monkeypatch):
    monkeypatch.setattr(
        "train.rl.rollout_sampler.generate",
        partial(engine.generate, forced_tokens=[[module.reasoner.vocabulary.open]] * 4),
    )
    found = rolled(module, [module.sampler.task[0]])
    new = replay(module.reasoner, found.rollout, module.policy, 1.0).latents.detach()
    found.old_latent_log_probs = new - 0.05  # ratios of 1.05
    for bound, clipped in ((0.01, True), (0.2, False)):
        module.sampler.rl = replace(module.rl, latent_epsilon=bound)
        latent = latent_loss(module.loss_context(), found, new)
        assert bool(latent.high > 0) == clipped and float(latent.ratio_mean) == pytest.approx(1.0513, abs=1e-3)


def test_a_reward_that_fails_for_a_group_leaves_it_out(module, capsys):
    """Counted, and named once; where it fails for all of them there is nothing to go on with."""

    def frail(group):
        if group[0].item.index % 2:
            raise KeyError("no such cell")
        return [float(len(one.text)) for one in group]

    module.sampler.rewards = {"frail": (frail, 1.0)}
    items = [module.sampler.task[i] for i in range(4)]
    found, _ = module.sampler.sample(items), module.sampler.sample(items)
    assert found.num_failed == 2 and not found.advantages[4:8].any() and not found.actions[4:8].any()
    assert found.advantages[:4].any() and found.actions[:4].any()
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("reward 'frail' on item") == 1 and "raised KeyError: 'no such cell' Its group is left out" in said
    with pytest.raises(rewards.RewardError, match="raised KeyError"):
        module.sampler.sample([module.sampler.task[1], module.sampler.task[3]])


def test_figures_are_those_of_all_processes(module, monkeypatch):
    said = {}
    monkeypatch.setattr(module, "log_dict", lambda told, **options: said.update(told))
    monkeypatch.setattr(type(module), "num_processes", 2)
    monkeypatch.setattr(
        torch.distributed,
        "all_gather_object",
        lambda parts, mine: parts.__setitem__(
            slice(None), [mine, [{"reward": 3.0, "num_tokens": 30.0, "latents/norm": 7.0, "anchor/gate_rate": 1.0}]]
        ),
    )
    module.log_rollout_metrics([{"reward": 1.0, "num_tokens": 10.0}], unsolved=0.0)
    assert said == {"reward": 2.0, "num_tokens": 40.0, "latents/norm": 7.0, "anchor/gate_rate": 0.5}


def test_views_are_of_rows_that_teach_nothing_too(module):
    found = rolled(module, [module.sampler.task[0]])
    found.advantages = torch.tensor([1.0, -1.0, 0.0, 0.0])
    assert sum(len(piece.traces) for piece in module.micro_batches(found)) == 2
    module.sampler.rl = replace(module.rl, perturbations={"necessity": 0.1})
    assert sum(len(piece.traces) for piece in module.micro_batches(found)) == 4


def test_a_gaussian_of_low_rank_explores_what_taught_latents_span(module):
    made = replace(module.config, rl=replace(module.rl, latent_policy_options={"rank": 4, "norm": "sum"}))
    policy, z = (
        build_policy(module.reasoner, made, module.sampler.task),
        target_latents(module.reasoner, module.sampler.task),
    )
    assert policy.basis.shape == (z.shape[1], 4) and policy.channels == 4 and len(z) > 64
    kept = ((z - z.mean(0)) @ policy.basis).square().sum() / (z - z.mean(0)).square().sum()
    other = torch.linalg.qr(torch.randn(z.shape[1], 4)).Q
    assert kept > 2 * ((z - z.mean(0)) @ other).square().sum() / (z - z.mean(0)).square().sum()


def test_rollouts_without_an_end_can_be_left_out(module):
    module.sampler.rl = replace(module.rl, mask_truncated_completions=True)
    found = rolled(module, [module.sampler.task[0]])
    cut = torch.tensor([not one.ended for one in found.graded])
    assert cut.any() and not found.actions[cut].any() and not found.latent_actions[cut].any()
    assert not found.advantages[cut].any() and not found.weights[cut].any()


def test_distances_to_the_start_are_zero_at_the_start(module, monkeypatch):
    module.sampler.context = replace(module.sampler.context, reference=tiny_reasoner())
    monkeypatch.setattr(
        "train.rl.rollout_sampler.generate",
        partial(engine.generate, forced_tokens=[[module.reasoner.vocabulary.open]] * 4),
    )
    found = rolled(module, [module.sampler.task[0]])
    with torch.no_grad():
        _, parts = module.loss(found)
    assert abs(float(parts["kl"])) < 1e-9 and abs(float(parts["kl/latent"])) < 1e-9
    assert_close(parts["latents/cos_to_sft"], 1.0)
    with torch.no_grad():
        for p in module.reasoner.head.parameters():
            p.add_(0.05 * torch.randn_like(p))
        _, parts = module.loss(found)
    assert float(parts["kl/latent"]) > 1e-3 and float(parts["latents/cos_to_sft"]) < 0.999


def test_the_scale_of_a_head_is_that_of_taught_latents(tmp_path, monkeypatch):
    """Its own draws are narrower, and would make it smaller at every pass."""
    monkeypatch.setitem(rewards.REWARDS, "long", lambda group: [float(len(one.text)) for one in group])
    torch.manual_seed(0)
    reasoner = methods.build_method("modal_mixed", untrained()[0].backbone, k=4, head="flow")
    reasoner.target.standardizer.fitted.fill_(True)
    reasoner.head.scale.fill_(0.7)
    start = checkpoint.save(reasoner, tmp_path / "start")
    made = rewarded(
        tmp_path / "run",
        init_from=str(start),
        rl__latent_policy="reward_weighted",
        rl__rewards={"long": 1.0},
        method__options={"k": 4, "head": "flow"},
        trainable=["text_model", "embeddings", "head"],
    )
    after, _ = trainer.train(made, make_run_folder(made))
    assert float(after.head.scale) == pytest.approx(0.7)
    made = rewarded(
        tmp_path / "frozen",
        init_from=str(start),
        rl__rewards={"long": 1.0},
        rl__sft_coef=0.5,
        method__options={"k": 4, "head": "flow"},
        trainable=["text_model", "embeddings"],
    )
    after, _ = trainer.train(made, make_run_folder(made))
    assert float(after.head.scale) == pytest.approx(0.7), "nor does that of a frozen head move with an anchor"


def test_distances_do_not_depend_on_the_parts(module, monkeypatch):
    """Nor do latents of rows that are left out of the statistics move to others'."""
    module.sampler.context = replace(module.sampler.context, reference=tiny_reasoner())
    with torch.no_grad():
        for p in module.reasoner.head.parameters():
            p.add_(0.05 * torch.randn_like(p))
    module.sampler.rl = replace(module.rl, latent_beta=1.0, beta=0.1, mask_truncated_completions=True)
    forced = [[module.reasoner.vocabulary.open] if row % 2 else [] for row in range(4)]
    monkeypatch.setattr("train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=forced))
    whole = rolled(module, [module.sampler.task[0]])
    assert whole.latent_actions.shape[1] and not whole.latent_actions.all()
    whole.advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    whole.latent_actions[3] = False
    sizes = (whole.rollout.token_type == LATENT).sum(1)
    found = {}
    for name, parts in (("whole", [[0, 1, 2, 3]]), ("parts", [[0, 1], [2, 3]])):
        pieces = [whole.select(rows, module.reasoner) for rows in parts]
        for piece, rows in zip(pieces, parts, strict=True):
            piece.latent_share = float(sizes[rows].sum() / sizes.sum())
        found[name] = gradient(module, pieces)
    assert_close(found["parts"], found["whole"], depth=16)


def test_what_is_forced_is_no_action_and_what_is_sampled_is(module, monkeypatch):
    """A span that is forced open, one that the model opens, and their ends, which the count decides."""
    v, plain = module.reasoner.vocabulary, module.reasoner.backbone.logits
    bias = torch.zeros(len(module.reasoner.backbone.model.get_output_embeddings().weight))
    bias[v.open] = 9.0  # untrained, it would hardly ever open a span
    monkeypatch.setattr(module.reasoner.backbone, "logits", lambda states: plain(states) + bias)
    monkeypatch.setattr("train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=[[v.open]] * 4))
    module.sampler.rl = replace(module.rl, max_completion_length=20)
    found = rolled(module, [module.sampler.task[0]])
    opened, closed = (found.rollout.ids == token for token in (v.open, v.close))
    assert opened[:, 0].all() and opened[:, 1:].any() and closed.any()
    assert not found.actions[:, 0].any() and found.actions[:, 1:][opened[:, 1:]].all()
    assert not found.actions[closed].any() and not found.actions[found.rollout.token_type == LATENT].any()
    assert not found.weights[~found.actions].any() and float(found.weights.sum()) == pytest.approx(1)


def test_a_head_alone_learns_where_some_parts_have_no_sketch(module, monkeypatch):
    module.config.data.micro_batch_size = 1
    for name, p in module.named_parameters():
        p.requires_grad_("head." in name)
    forced = [[module.reasoner.vocabulary.open] if row == 1 else [module.reasoner.vocabulary.end] for row in range(4)]
    monkeypatch.setattr("train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=forced))
    found = rolled(module, [module.sampler.task[0]])
    found.advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    pieces = module.micro_batches(found)
    assert len(pieces) == 4
    module.sampler.rl = replace(module.rl, sft_coef=0.5)
    gold, shares = module.gold_batch([module.sampler.task[0]])
    assert {name: float(share) for name, share in shares.items()} == {"text": 1, "latent": 1, "stop": 1}
    for loss in module.losses(pieces, gold, shares, 1, []):
        loss.backward()


def test_groups_that_earn_the_same_teach_exactly_nothing():
    """Whatever rounding leaves of their mean."""
    for value in (0.1, 0.6, 0.7, 1.6):
        for advantage in (
            policy_gradient.zscore,
            policy_gradient.center,
            policy_gradient.leave_one_out,
        ):
            assert not advantage(torch.full((16,), value), torch.arange(2).repeat_interleave(8)).any()


def test_rollouts_in_few_slots_are_those_of_all_at_once(module, monkeypatch):
    """A rollout that ends leaves its slot to the next."""
    v, plain = module.reasoner.vocabulary, module.reasoner.backbone.logits
    bias = torch.zeros(len(module.reasoner.backbone.model.get_output_embeddings().weight))
    bias[v.open], bias[v.end] = 4.0, 4.0  # untrained, it would hardly ever open a span or end
    monkeypatch.setattr(module.reasoner.backbone, "logits", lambda states: plain(states) + bias)
    items = [module.sampler.task[i] for i in range(2)]
    module.sampler.rl = replace(module.rl, max_completion_length=16)
    whole = module.sampler.sample(items).rollout
    module.sampler.num_batches = 0
    module.sampler.rl = replace(module.rl, num_slots=3)
    some = module.sampler.sample(items).rollout
    assert torch.equal(some.ids, whole.ids) and some.spans == whole.spans and whole.spans
    assert_close(some.latent_embeds, whole.latent_embeds)
    assert_close(some.policy_records, whole.policy_records)
    assert_close(some.sampled_log_prob, whole.sampled_log_prob)

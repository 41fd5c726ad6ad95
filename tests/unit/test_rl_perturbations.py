"""Other pictures under the same words, latents recorded, drawn again or out of sight; words that differ; ratios of
spans."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from tiny_runs import rl_module, rolled

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.decoding import engine
from latent_reason.model.batch import LATENT
from latent_reason.objectives.policy_gradient import dispersion, emphasis, span_ratio
from latent_reason.objectives.replay import replay
from train.rl import perturbations, trainer
from train.rl.losses import latent_loss
from train.rl.rollouts import token_weights


@pytest.fixture
def module(monkeypatch, float64):
    """Rollouts of which every other begins with a sketch."""
    found = rl_module(level=3)
    forced = [[found.reasoner.vocabulary.open] if row % 2 else [] for row in range(4)]
    monkeypatch.setattr("train.rl.rollout_sampler.generate", partial(engine.generate, forced_tokens=forced))
    return found


def test_pictures_are_masked_by_patches_and_noise_fades():
    picture, random = PILImage.new("RGB", (140, 70), (200, 100, 50)), np.random.default_rng(0)
    black = (np.asarray(perturbations.mask_patches(picture, 0.6, random)) == 0).all(-1)
    assert black.reshape(5, 14, 10, 14).all((1, 3)).sum() == black.sum() / 196, "whole patches"
    assert (
        0.4 < black.mean() < 0.8
        and not (np.asarray(perturbations.mask_patches(picture, 0.0, random)) == 0).all(-1).any()
    )
    off = [
        np.abs(np.asarray(perturbations.add_noise(picture, done, random)).astype(float) - np.asarray(picture)).mean()
        for done in (0.0, 0.5, 1.0)
    ]
    assert off[0] > off[1] > off[2] and off[0] > 40 > 5 > off[2]


def test_the_same_picture_changes_nothing_and_another_does(module):
    found = rolled(module, [module.sampler.task[0]])
    words = replay(module.reasoner, found.rollout).text.detach()
    same = perturbations.with_images_of(module.reasoner, found.rollout, found.traces, "recorded")
    assert_close(replay(module.reasoner, same).text, words)
    black = [
        perturbations.change_images(
            trace, partial(perturbations.mask_patches, share=1.0, random=np.random.default_rng(0))
        )
        for trace in found.traces
    ]
    other = replay(
        module.reasoner, perturbations.with_images_of(module.reasoner, found.rollout, black, "recorded")
    ).text.detach()
    assert (other - words).abs().max() > 1e-3
    assert (
        float(perturbations.bounded_kl(words, other).min()) >= 0
        and float(perturbations.bounded_kl(words, words).max()) < 1e-12
    )


def test_latents_recorded_drawn_again_or_out_of_sight(module):
    """With the picture as it was, drawing again is what was drawn; words after a dropped sketch are others, and words
    of rows without one are not."""
    found = rolled(module, [module.sampler.task[0]])
    words, sketched = replay(module.reasoner, found.rollout).text, torch.tensor([False, True, False, True])
    assert ((found.rollout.token_type == LATENT).any(1) >= sketched).all()
    again = perturbations.with_images_of(module.reasoner, found.rollout, found.traces, "regenerated")
    assert_close(again.latent_embeds, found.rollout.latent_embeds)
    assert_close(replay(module.reasoner, again).text, words)
    dropped = replay(
        module.reasoner, perturbations.with_images_of(module.reasoner, found.rollout, found.traces, "dropped")
    ).text
    moved = (dropped - words).abs().amax(1)
    assert (moved[sketched] > 1e-4).all() and (moved[~(found.rollout.token_type == LATENT).any(1)] < 1e-9).all()
    black = [
        perturbations.change_images(
            trace, partial(perturbations.mask_patches, share=1.0, random=np.random.default_rng(0))
        )
        for trace in found.traces
    ]
    other = perturbations.with_images_of(module.reasoner, found.rollout, black, "regenerated")
    assert (other.latent_embeds - found.rollout.latent_embeds).abs().max() > 1e-3 and torch.equal(
        other.ids, found.rollout.ids
    )
    with pytest.raises(ValueError, match="a regenerated sketch has another number of latents"):
        perturbations.with_images_of(module.reasoner, found.rollout, black, "regenerated", latents_per_span=2)


def test_drawn_again_from_the_same_picture_noise_is_the_same(module):
    """A head with noise, fewer latents a span than the method's own, a part of the rows."""
    made = replace(
        module.config,
        rl=replace(module.rl, latent_policy="gaussian", latent_policy_options={"fraction": 0.3}, latents_per_span=2),
    )
    torch.manual_seed(0)
    reasoner = methods.build_method("modal_mixed", module.reasoner.backbone, k=4, head="flow")
    reasoner.target.standardizer.fitted.fill_(True)
    module = trainer.RLModule(reasoner, module.sampler.task, made)
    module.sampler.rewards = {"long": (lambda group: [float(len(one.text)) for one in group], 1.0)}
    found = rolled(module, [module.sampler.task[0]]).select([1, 3], reasoner)
    assert found.row_ids == [1, 3] and {s.length for s in found.rollout.spans} == {2}
    again = perturbations.with_images_of(
        reasoner,
        found.rollout,
        found.traces,
        "regenerated",
        seed=found.seed,
        row_ids=found.row_ids,
        **module.sampler.latent_options(),
    )
    assert_close(again.latent_embeds, found.rollout.latent_embeds)
    plain = perturbations.with_images_of(reasoner, found.rollout, found.traces, "regenerated", latents_per_span=2)
    assert (plain.latent_embeds - found.rollout.latent_embeds).abs().max() > 0.1, "another noise is another sketch"


def test_what_views_cost_enters_the_loss_with_the_right_sign(module):
    found = rolled(module, [module.sampler.task[0]])
    plain, _ = module.loss(found)
    for name, sign in (("necessity", -1), ("robustness", 1)):
        module.sampler.rl = replace(module.rl, perturbations={name: 1e4})
        loss, parts = module.loss(found)
        far = 1e4 * float(parts[f"views/{name}"].detach())
        assert far > 1e-3 and float((loss - plain).detach()) == pytest.approx(sign * far, rel=1e-2)
    module.sampler.rl = replace(
        module.rl, perturbations={"necessity": 0.01, "entropy": 0.05}, perturbation_latents="dropped"
    )
    loss, _ = module.loss(found)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_words_weigh_by_how_much_a_group_differs():
    tables = torch.full((4, 3, 5), 0.2).log()
    tables[:2, 1], tables[2:, 1] = (torch.tensor([p, *[(1 - p) / 4] * 4]).log() for p in (0.9, 0.3))
    counted = torch.ones(4, 3, dtype=torch.bool)
    spread = dispersion(tables, counted)
    assert spread[0] == spread[2] == 0 < spread[1]
    gap = (tables[:, 1].mean(0) - tables[:, 1]).clamp(-11, 11)
    assert spread[1] == pytest.approx(float((gap.exp() - gap - 1).sum(-1).mean()))
    assert emphasis(spread, 1.7).tolist() == pytest.approx([1, 1.7, 1])
    counted[2:, 1] = False
    assert dispersion(tables, counted)[1] == 0, "of rollouts that hold a word there"


def test_rollouts_weigh_their_words_so_and_latents_by_one(module):
    module.sampler.rl = replace(module.rl, max_token_weight=1.7)
    found = rolled(module, [module.sampler.task[0]])
    weights = token_weights(module.reasoner, found.rollout, 4, 1.7)
    assert weights.min() >= 1 and float(weights.max()) == pytest.approx(1.7, abs=1e-4)
    assert (weights[~found.rollout.text_decisions] == 1).all()
    even, size = module.objective.average(found.actions, module.rl.max_completion_length)
    assert_close(found.weights, even / size * weights)


def test_a_span_has_one_ratio():
    change = torch.tensor([[0.1, 0.3, -0.2, 0.5, 0.0]])
    blocks, actions = torch.tensor([[0, 0, 1, 1, -1]]), torch.tensor([[True, True, True, False, False]])
    found = span_ratio(blocks)(change, actions)
    assert found[0, :4].tolist() == pytest.approx([0.2, 0.2, -0.2, -0.2])


def test_latents_learn_by_spans_too(module):
    """The same before an update; after one, one ratio a span, so that whole spans are clipped."""
    made = replace(
        module.config,
        rl=replace(
            module.rl,
            latent_policy="gaussian",
            latent_policy_options={"fraction": 0.3},
            latent_importance_sampling_level="span",
            num_iterations=2,
        ),
    )
    module = trainer.RLModule(module.reasoner, module.sampler.task, made)
    module.log_dict = module.log = lambda *args, **options: None
    module.sampler.rewards = {"long": (lambda group: [float(len(one.text)) for one in group], 1.0)}
    found = rolled(module, [module.sampler.task[0]])
    assert found.latent_actions.any()
    new = replay(module.reasoner, found.rollout, module.policy).latents
    found.old_latent_log_probs = new.detach() - torch.linspace(0, 1, len(new))[:, None]
    by_span = latent_loss(module.loss_context(), found, new)
    assert float(by_span.ratio_max) < float(torch.linspace(0, 1, len(new)).exp()[-1])
    ends = [s.length for s in found.rollout.spans]
    change = torch.linspace(0, 1, len(new)).split(ends)
    assert float(by_span.ratio_max) == pytest.approx(max(float(c.mean().exp()) for c in change), rel=1e-4)

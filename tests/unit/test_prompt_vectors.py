"""Vectors in the prompt, optimised for each item: rewards through the cache, patches, the search, and the answer."""

import math
from dataclasses import replace

import pytest
import torch

from latent_reason import GenerationConfig, Image, Message, Text, Trace, generate, methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.decoding.strategies.prompt_vectors import Optimiser, PromptVectors, generate_with_vectors, optimise
from latent_reason.decoding.strategies.vector_block import VectorBlock
from latent_reason.decoding.strategies.vector_search import REWARDS, Search, antithetic_gradient, reward_of_logits
from latent_reason.model.backbones.families import FAMILIES
from latent_reason.model.batch import IMAGE, TEXT

float64 = pytest.mark.usefixtures("float64")
SHORT = PromptVectors(length=3, iterations=4, top_k=5, samples=2, start="now")


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def make_reasoner(make_backbone):
    def make(family="qwen2_5_vl", method="direct", **options):
        torch.manual_seed(0)
        return methods.build_method(method, make_backbone(family=family), **options).eval()

    return make


@pytest.fixture
def prompts(make_traces):
    return [trace.prompt() for trace in make_traces()]


def optimiser(reasoner, trace, options, seed=0, row_id=0):
    block = VectorBlock(reasoner, trace, options.length, options.start, options.patch_positions)
    return Optimiser(reasoner, block, options, seed, row_id)


def columns(length, num_patches, stop):
    """The columns of vectors and patches (L, 1 + c) of a block that ends before ``stop``."""
    return torch.arange(stop - length * (1 + num_patches), stop).view(length, -1)


def reward_without_cache(reasoner, prompt, embeds, options, num_patches, behind):
    """The reward of a whole prompt in one pass, by the formula of the paper over the allowed tokens."""
    h = reasoner.backbone.forward_text(embeds, prompt.mask, prompt.positions)
    at = columns(options.length, num_patches, embeds.shape[1] - behind)[:, -1]
    forbidden = reasoner.vocabulary.forbidden_mask(forbid_open=True, size=reasoner.backbone.vocab_size)
    p = reasoner.backbone.logits(h)[0, at].double().masked_fill(forbidden, -torch.inf).softmax(-1)
    p = p.sort(-1, descending=True).values[:, : options.top_k]
    p = p / p.sum(-1, keepdim=True)
    return float((1 + (p * p.log()).sum(-1) / math.log(options.top_k)).mean())


# -- one block of every family -----------------------------------------------------------------------------------------
@float64
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_gives_the_reward_of_the_whole_prompt(make_reasoner, prompts, family):
    reasoner, trace = make_reasoner(family), prompts[0]
    backbone = reasoner.backbone
    for patch_positions in ("line", "image"):
        options = replace(SHORT, patch_positions=patch_positions)
        search = optimiser(reasoner, trace, options)
        block, none = search.block, torch.zeros(3, 0, dtype=torch.long)
        behind = block.suffix.shape[1]
        patches = search.pick_patches(none)
        assert patches.shape == (3, 2) and backbone.attn_implementation == "sdpa"
        vectors = search.search.candidates(search.search.perturbations())
        for some in (none, patches):
            scored, prompt = search.score(vectors, some), block.prompt(some)
            for vector, reward in zip(vectors, scored, strict=True):
                embeds = block.prompt_embeds(vector, some)
                assert_close(
                    reward, reward_without_cache(reasoner, prompt, embeds, options, some.shape[1], behind), depth=16
                )
        features = torch.cat(backbone.encode_images(search.block.plain.images))
        at = columns(3, 2, embeds.shape[1] - behind)
        injected = embeds[0, at[:, 1:]]
        assert torch.equal(injected[..., : backbone.width], embeds[0, patches, : backbone.width])
        assert not injected[..., backbone.width :].any(), "no features of later layers, no part of an image"
        assert all(
            (relative_error_to(features, row) < 1e-12).any() for row in injected[..., : backbone.width].flatten(0, 1)
        )
        line = backbone.position_ids(prompt)
        assert (prompt.token_type[0, at] == TEXT).all() and torch.equal(
            line[..., : block.at], prompt.positions[..., : block.at]
        )
        if patch_positions == "line":
            assert torch.equal(prompt.positions, line)
        else:
            own = prompt.positions[:, 0]
            assert torch.equal(own[:, at[:, 1:]], own[:, patches])
            kept = [i for i in range(own.shape[1]) if i not in at[:, 1:].flatten().tolist()]
            assert torch.equal(own[:, kept], block.plain.positions[:, 0]), "vectors and header stay on the line"


def relative_error_to(rows, row):
    return (rows - row).norm(dim=-1) / row.norm()


@float64
@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_follows_exactly_what_was_scored_best(make_reasoner, prompts, monkeypatch, family):
    """Every log-probability of the answer is that of one pass over the kept vectors, patches and positions."""
    reasoner, plain = make_reasoner(family), Optimiser.score
    bonus = 10  # so that what is kept has patches, whatever random weights make of them
    monkeypatch.setattr(Optimiser, "score", lambda *args: plain(*args) + bonus * bool(args[2].numel()))
    backbone, config = reasoner.backbone, GenerationConfig(max_new_tokens=5)
    for patch_positions in ("line", "image"):
        options = replace(SHORT, patch_positions=patch_positions)
        rollout, found = generate_with_vectors(reasoner, prompts, options, config)
        for row, kept in enumerate(found):
            n, behind = int(rollout.token_type[row].bool().sum()), len(suffix_of(reasoner))
            again = reward_without_cache(reasoner, kept.prompt, kept.prompt_embeds, options, 2, behind)
            assert_close(kept.best_reward - bonus, again, depth=16)
            assert kept.best_reward == max(x for rewards in kept.rewards for x in rewards)
            answer = backbone.pad_extra(backbone.embed(rollout.ids[row : row + 1, :n]))
            embeds = torch.cat([kept.prompt_embeds, answer], 1)
            positions = torch.cat([kept.prompt.positions, rollout.positions[:, row : row + 1, :n]], -1)
            mask = torch.ones(embeds.shape[:2], dtype=torch.bool)
            h = backbone.forward_text(embeds, mask, positions)[:, -n - 1 : -1]
            log_probs = reasoner.mask_forbidden_tokens(backbone.logits(h[0]), torch.zeros(n).bool()).log_softmax(-1)
            assert torch.equal(log_probs.argmax(-1), rollout.ids[row, :n])
            assert_close(rollout.log_prob[row, :n], log_probs.amax(-1), depth=16)
            assert int(rollout.positions[0, row, 0]) == int(kept.prompt.positions.max()) + 1


def suffix_of(reasoner):
    v = reasoner.vocabulary
    return [v.end, *v.encode_text(v.layout.after), *v.encode_text(v.layout.header("assistant"))]


@float64
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_patches_are_the_image_tokens_that_a_vector_attends_to_most(make_reasoner, prompts, family):
    reasoner = make_reasoner(family)
    backbone, search = reasoner.backbone, optimiser(reasoner, prompts[0], SHORT)
    block, none = search.block, torch.zeros(3, 0, dtype=torch.long)
    first = search.pick_patches(none)
    for patches in (none, first):  # without patches, and with those of an iteration before
        prompt, embeds = block.prompt(patches), block.prompt_embeds(block.start, patches)
        backbone.model.set_attn_implementation("eager")
        options = {"use_cache": False, "output_attentions": True}
        output = backbone.call_text_model(embeds, prompt.mask, prompt.positions, **options)
        backbone.model.set_attn_implementation("sdpa")
        at = columns(3, patches.shape[1], embeds.shape[1] - block.suffix.shape[1])[:, 0]
        weights = torch.stack(output.attentions).mean((0, 2))[0, at]
        weights = weights.masked_fill(prompt.token_type[0] != IMAGE, -1)
        expected = weights.argsort(-1, descending=True)[:, :2].sort(-1).values
        assert torch.equal(block.attended(block.start, patches, prompt.positions, 2), expected)


@float64
def test_a_patch_that_moves_changes_the_reward(make_reasoner, prompts):
    search = optimiser(make_reasoner(), prompts[0], SHORT)
    start, patches = search.block.start[None], search.pick_patches(torch.zeros(3, 0, dtype=torch.long))
    other = next(c for c in search.block.image_columns if c not in patches)
    before = search.score(start, patches)
    for place in range(patches.numel()):
        moved = patches.clone()
        moved.view(-1)[place] = other
        assert relative_error(search.score(start, moved), before) > 1e-6
    assert not torch.equal(search.score(start, patches[:, :0]), before)


def test_the_end_marker_of_an_image_is_no_patch(make_reasoner, prompts):
    reasoner = make_reasoner("llava_onevision")
    block = VectorBlock(reasoner, prompts[0], 2)
    grids = reasoner.backbone.token_grids(block.plain.images)
    assert len(block.image_columns) == sum(h * w for h, w in grids)
    assert int((block.plain.token_type == IMAGE).sum()) == len(block.image_columns) + len(grids)


def test_all_tokens_of_a_small_image_may_be_patches(make_reasoner, prompts):
    search = optimiser(make_reasoner(), prompts[0], replace(SHORT, patches=1000))
    patches = search.pick_patches(torch.zeros(3, 0, dtype=torch.long))
    assert torch.equal(patches, search.block.image_columns.expand(3, -1))


# -- the search --------------------------------------------------------------------------------------------------------
def test_rewards_are_those_of_the_formulas():
    flat, peaked = torch.zeros(400), torch.tensor([30.0] + [0.0] * 399)
    p = torch.full((10,), 1 / 400)
    expected = {"entropy": 1 + (p * p.log()).sum(), "normalized_entropy": 0.0, "confidence": math.log(400)}
    for reward in REWARDS:
        assert relative_error(reward_of_logits(flat, reward, 10), expected[reward], scale=1) < 1e-5
    assert all(reward_of_logits(peaked, reward, 10) > 0.999 for reward in REWARDS)
    assert reward_of_logits(flat, "entropy", 10) > 0.8, "why ours normalises: a flat distribution must not look sure"
    assert reward_of_logits(peaked.bfloat16(), "entropy", 10).dtype == torch.float32


def test_pairs_of_opposite_noise_point_uphill():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        vectors, goal, noise = (torch.randn(*n, 4, 16, generator=generator) for n in ((), (), (64,)))
        points = torch.cat([vectors + 0.1 * noise, vectors - 0.1 * noise])
        gradient = antithetic_gradient(-(points - goal).square().sum((1, 2)), noise)
        assert torch.cosine_similarity(gradient.flatten(), (goal - vectors).flatten(), 0) > 0.5


def test_the_search_climbs_a_known_hill():
    start, goal = torch.randn(2, 8), torch.randn(2, 8)
    search = Search(PromptVectors(length=2, samples=16, step=0.2), start, 0, 0)
    for _ in range(40):
        noise = search.perturbations()
        search.update(noise, -(search.candidates(noise) - goal).square().sum((1, 2)))
    assert (search.vectors - goal).norm() < 0.2 * (start - goal).norm()


def test_updates_are_those_of_the_formulas():
    start, rewards = torch.randn(3, 8), torch.tensor([0.4, 0.9])
    paper = Search(replace(PromptVectors.PAPER, length=3, samples=2), start, 0, 0)
    noise = paper.perturbations()
    xi = 0.1 * noise
    assert_close(paper.candidates(noise), start + xi)
    moved = paper.update(noise, rewards)
    expected = 1e-3 / 0.1**2 * (rewards[:, None, None] * xi).mean(0)
    assert_close(paper.vectors, start + expected)
    assert_close(moved, (expected.norm(dim=1) / start.norm(dim=1)).max())
    assert paper.sigma == pytest.approx(0.095) and paper.step == 1e-3, "the step of the formula does not decay"
    ours = Search(PromptVectors(length=3, samples=1), start, 0, 0)
    size = start.square().mean().sqrt()
    assert ours.sigma == pytest.approx(float(0.1 * size))
    ours.update(noise[:1], rewards)
    assert_close((ours.vectors - start).square().mean().sqrt(), 0.05 * size)
    assert torch.cosine_similarity((ours.vectors - start).flatten(), -noise[0].flatten(), 0) > 0.999


def test_noise_follows_from_seed_row_and_iteration():
    def draw(seed, row, iteration):
        search = Search(PromptVectors(length=2, samples=1), torch.ones(2, 500), seed, row)
        search.iteration = iteration
        return search.perturbations()

    one = draw(0, 7, 3)
    assert torch.equal(one, draw(0, 7, 3))
    for other in (draw(1, 7, 3), draw(0, 8, 3), draw(0, 7, 4)):
        assert abs(torch.cosine_similarity(one.flatten(), other.flatten(), 0)) < 0.15


def test_the_vectors_climb_on_a_model(make_reasoner, prompts):
    """The mean of the search itself, not the luckiest of its candidates, which could only be better."""
    reasoner, options, gains = make_reasoner(), replace(SHORT, patches=0, iterations=15, samples=4, patience=None), []
    for seed in range(4):
        for trace in prompts:
            search = optimiser(reasoner, trace, options, seed)
            start, none = search.block.start[None], torch.zeros(3, 0, dtype=torch.long)
            found = search.run()
            gains.append(float(search.score(search.search.vectors[None], none) - search.score(start, none)))
            assert found.best_reward >= found.start_reward
    gains = torch.tensor(gains)
    assert gains.mean() > 0.1 and gains.min() > 0  # 0.24 and 0.17 in 16 runs


def test_patience_ends_the_search(make_reasoner, prompts, monkeypatch):
    reasoner = make_reasoner()
    monkeypatch.setattr(Optimiser, "score", lambda self, vectors, patches: torch.zeros(len(vectors)))
    found = optimise(reasoner, prompts[0], replace(SHORT, iterations=9, patience=2))
    assert len(found.rewards) == 2 and found.best_reward == found.start_reward
    assert not found.best.patches.numel() and torch.equal(
        found.prompt.positions, reasoner.backbone.position_ids(found.prompt)
    )
    assert len(optimise(reasoner, prompts[0], replace(SHORT, iterations=9, patience=None)).rewards) == 9


# -- what it costs -----------------------------------------------------------------------------------------------------
def test_an_iteration_costs_a_twentieth_of_two_prompts(make_reasoner, picture):
    reasoner = make_reasoner()
    reasoner.backbone.set_pixel_limits(max_pixels=640**2)
    trace = Trace("large", (Message("user", (Image(picture(40, 40)), Text("which way?"))),))
    costs = [optimise(reasoner, trace, PromptVectors(iterations=n, patience=None)) for n in (0, 5)]
    length = costs[0].prompt.ids.shape[1]
    assert length > 1600 and costs[0].num_positions <= length
    assert costs[1].num_positions - costs[0].num_positions <= 5 * 2 * length / 20
    assert [x.num_passes for x in costs] == [2, 2 + 5 * 2]


# -- decoding ----------------------------------------------------------------------------------------------------------
@float64
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_without_iterations_it_is_plain_decoding(make_reasoner, prompts, family):
    reasoner = make_reasoner(family)
    rollout, found = generate_with_vectors(
        reasoner, prompts, replace(SHORT, iterations=0, start="."), GenerationConfig(max_new_tokens=6)
    )
    traces = []
    for trace in prompts:
        *before, last = trace.messages
        traces.append(replace(trace, messages=(*before, replace(last, content=(*last.content, *[Text(".")] * 3)))))
    prompt = reasoner.processor(traces, generate=True)
    plain = generate(reasoner, prompt, max_new_tokens=6)
    assert torch.equal(rollout.prompt.ids, prompt.ids) and torch.equal(rollout.prompt.token_type, prompt.token_type)
    assert torch.equal(rollout.ids, plain.ids) and torch.equal(rollout.positions, plain.positions)
    assert_close(rollout.log_prob, plain.log_prob)
    assert [x.num_passes for x in found] == [2] * len(found)


@float64
def test_a_result_does_not_depend_on_the_others_of_its_batch(make_reasoner, prompts):
    reasoner = make_reasoner("qwen3_vl")
    config = GenerationConfig(max_new_tokens=6, temperature=1.0, seed=3)
    together, found = generate_with_vectors(reasoner, prompts, SHORT, config, row_ids=[5, 6, 7, 8])
    for row in (3, 1):
        alone, (own,) = generate_with_vectors(reasoner, prompts[row : row + 1], SHORT, config, row_ids=[5 + row])
        n = alone.ids.shape[1]
        assert torch.equal(own.best.patches, found[row].best.patches)
        assert_close(own.prompt_embeds, found[row].prompt_embeds)
        assert_close(own.best_reward, found[row].best_reward)
        assert torch.equal(together.ids[row, :n], alone.ids[0]) and not together.token_type[row, n:].any()
        assert_close(together.log_prob[row, :n], alone.log_prob[0])


def test_reasoners_with_sketches_of_earlier_turns_and_text_alone(make_reasoner, picture, make_traces):
    reasoner = make_reasoner(method="modal_mixed", k=4).train()
    earlier = make_traces()[0]
    traces = [
        replace(earlier, messages=(*earlier.messages, Message("user", (Text("and now?"),)))),
        Trace("words", (Message("user", (Text("no image"),)),)),
    ]
    config = GenerationConfig(max_new_tokens=9, latent_mode="first", latents_per_span=4)
    rollout, found = generate_with_vectors(reasoner, traces, SHORT, config)
    assert len(rollout.spans) == 2 and reasoner.training
    assert not found[1].best.patches.numel() and len(found[1].rewards) == 4


# -- what is refused ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "values",
    [
        {"length": 0},
        {"patches": -1},
        {"iterations": -1},
        {"samples": 0},
        {"top_k": 1},
        {"sigma": 0.0},
        {"step": math.inf},
        {"decay": 1.1},
        {"patience": 0},
        {"sigma_unit": "percent"},
        {"patch_positions": "2d"},
        {"estimator": "adam"},
        {"reward": "accuracy"},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}=.*must be"):
        PromptVectors(**values)


def test_what_cannot_be_done_is_refused(make_reasoner, prompts):
    reasoner, words = make_reasoner(), Message("user", (Text("hello"),))
    with pytest.raises(ValueError, match="trace 'x': vectors end a user's turn"):
        optimise(
            reasoner, Trace("x", (words, Message("assistant", (Text("hi"),)), Message("system", (Text("go"),)))), SHORT
        )
    with pytest.raises(ValueError, match="start='': "):
        optimise(reasoner, prompts[0], replace(SHORT, start=""))
    with pytest.raises(ValueError, match=r"top_k=5000: the model may write \d+ tokens only"):
        optimise(reasoner, prompts[0], replace(SHORT, top_k=5000))
    with pytest.raises(ValueError, match="hide_images: the patches"):
        generate_with_vectors(reasoner, prompts, SHORT, GenerationConfig(hide_images=True))
    with pytest.raises(ValueError, match="iteration 0: rewards are not finite"):
        optimise(reasoner, prompts[0], replace(SHORT, sigma=1e39))


def test_layers_with_a_window_are_refused(make_reasoner, prompts):
    reasoner = make_reasoner()
    config = reasoner.backbone.model.config.get_text_config()
    config.layer_types, config.sliding_window = ["full_attention", "sliding_attention"], 8
    reasoner.backbone.text_model.has_sliding_layers = True
    with pytest.raises(ValueError, match="keep a window of the past only"):
        optimise(reasoner, prompts[0], SHORT)


def test_large_steps_of_the_formula_are_reported(make_reasoner, prompts):
    reasoner = make_reasoner()
    with pytest.warns(UserWarning, match=r"a step moved a vector by .* times its RMS"):
        optimise(reasoner, prompts[0], replace(PromptVectors.PAPER, sigma_unit="rms", sigma=0.01, step=0.1))

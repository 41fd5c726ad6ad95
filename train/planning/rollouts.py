"""The work of reinforcement learning without rollouts: every rollout is as long as it may be and holds one sketch."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from latent_reason.decoding.rollout import Rollout, Span
from latent_reason.model.batch import LATENT, TEXT, MixedBatch
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.latent_policies import LatentPolicy
from latent_reason.objectives.packing import collate_examples

from ..config import RLTrainingConfig
from ..rl.module import RLModule
from ..rl.records import load_records
from ..rl.rollouts import Experience, encode_prompts
from ..rl.trainer import check_supported
from ..traces import make_task
from .model import build_model
from .step import EXAMPLES, Decoding, Work


def policy_work(
    config: RLTrainingConfig, reasoner: LatentReasoner, name: str | None, mode: FakeTensorMode, processes: int
) -> Work:
    """The update of one of so many processes on the longest prompts of a config. Windows of a latent policy count as its whole chain; ``name`` and
    ``mode`` are those of the model, for a reference beside it. Raises ValueError as a run does."""
    check_supported(config)
    options = {key: value for key, value in config.rl.latent_policy_options.items() if key not in ("window", "rank")}
    config = replace(config, rl=replace(config.rl, latent_policy_options=options))
    task = load_records(config) if config.data.folder else make_task(config.data, "train")
    reference = None
    if config.rl.beta or config.rl.latent_beta or config.rl.latent_anchor:
        reference = build_model(config, mode, name)[0].requires_grad_(False).eval()
    module = RLModule(reasoner, task, config, reference, processes=processes)
    items = [task[index] for index in islice(task.indices(EXAMPLES), EXAMPLES)]
    rows = module.sampler.num_prompts * config.rl.num_generations
    size = min(rows, config.data.micro_batch_size or rows)
    traces = [task.trace(item, module.sampler.mode) for item in items]
    traces = sorted(traces, key=lambda t: len(reasoner.processor.encode(t, generate=True).ids), reverse=True)
    traces = [traces[0]] * size
    examples = encode_prompts(traces[:1], reasoner, module.sampler.can_cache_features) * size
    rollout = longest_rollout(config, reasoner, collate_examples(reasoner.processor, examples), module.policy)
    experience = experience_of(rollout, traces, examples, module.sampler.steps)
    losses = [(lambda: module.loss(experience)[0], -(-rows // size))]
    if config.rl.sft_coef:
        gold, shares = module.gold_batch(items[: module.sampler.num_prompts])
        losses.append((lambda: next(module.losses([], gold, shares, 0, [])), 1))
    length = rollout.prompt.ids.shape[1] + rollout.ids.shape[1]
    latents = int((rollout.token_type[0] == LATENT).sum())
    counts = {"examples": rows, "positions": rows * length, "sketches": rows * bool(latents), "latents": rows * latents}
    return Work(
        module, losses, counts, clears_first=True, decoding=decoding_of(reasoner, rows, length, rollout.ids.shape[1])
    )


@torch.no_grad()
def longest_rollout(
    config: RLTrainingConfig, reasoner: LatentReasoner, prompt: MixedBatch, policy: LatentPolicy | None
) -> Rollout:
    """A rollout of ``rl.max_completion_length`` text tokens, with one sketch after the first of them."""
    rows, length, vocabulary = len(prompt.ids), config.rl.max_completion_length, reasoner.vocabulary
    ids = torch.full((rows, length), vocabulary.end)
    token_type = torch.full_like(ids, TEXT)
    embeds, records = torch.zeros_like(reasoner.backbone.embed(ids)), None
    stop, h, w = 1, 0, 0
    if reasoner.can_sketch:
        h, w = reasoner.latent_grid_for(None)
        stop = min(length, 1 + (config.rl.latents_per_span or h * w))
        token_type[:, 1:stop] = LATENT
        if policy is not None:
            states = torch.zeros_like(embeds[:, 1:stop].flatten(0, 1)).float()
            noise = torch.randn(len(states), policy.num_draws, reasoner.head.latent_width)
            records = policy.sample(reasoner.head, states, noise)[1]
    positions = reasoner.backbone.position_ids(prompt)
    is_text, zeros = token_type == TEXT, torch.zeros(rows, length)
    return Rollout(
        prompt,
        ids,
        token_type,
        embeds,
        positions.amax(-1, keepdim=True) + 1 + torch.arange(length),
        log_prob=zeros,
        sampled_log_prob=zeros,
        stop_log_prob=zeros,
        text_decisions=is_text,
        stop_decisions=torch.zeros_like(is_text),
        open_allowed=torch.ones_like(is_text),
        spans=[Span(row, 1, stop - 1, (h, w), "count") for row in range(rows)] if stop > 1 else [],
        policy_records=records,
        hides_images=reasoner.hides_images,
    )


def experience_of(rollout: Rollout, traces: list, examples: list, steps: int) -> Experience:
    """A rollout with advantages of one. ``steps`` are the actions of a latent."""
    rows, actions = len(rollout.ids), int((rollout.token_type[0] == LATENT).sum()) * steps
    ones = torch.ones(rows)
    return Experience(
        traces,
        examples,
        rollout,
        graded=[],
        rewards={},
        total=ones,
        advantages=ones,
        actions=rollout.text_decisions,
        latent_actions=torch.ones(rows, actions, dtype=torch.bool),
        weights=torch.ones(rollout.ids.shape),
        latent_weights=torch.ones(rows, actions),
    )


def decoding_of(reasoner: LatentReasoner, rows: int, length: int, steps: int) -> Decoding:
    """The decoding of ``rows`` of ``length`` positions, the last ``steps`` of them one after the other."""
    backbone = reasoner.backbone
    text = backbone.model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cached = 2 * text.num_hidden_layers * text.num_key_value_heads * width  # keys and values of a position
    weights = [*backbone.text_model.layers.parameters(), *backbone.model.lm_head.parameters()]
    return Decoding(
        flops=2 * sum(p.numel() for p in weights) * rows * length,
        cache=cached * backbone.text_model.dtype.itemsize * rows * length,
        steps=steps,
        weights=sum(p.nbytes for p in weights),
    )

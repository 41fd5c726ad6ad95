"""Traces that share a row have the losses and gradients they have alone, in every family."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import CASES, loss_of, objective_for, ready
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import both, losses, same
from tiny_runs import BACKBONE, short
from transformers import AttentionInterface

from latent_reason import methods, tasks
from latent_reason.contracts.closeness import is_close
from latent_reason.model.backbones import load_backbone
from latent_reason.model.processor import EncodedExample
from latent_reason.objectives.latent_inputs import ScheduledSampling
from latent_reason.objectives.objective import RunOptions
from latent_reason.objectives.packing import pack_examples
from train import sft
from train.config import SFTConfig, load
from train.trainer import make_run_folder

float64 = pytest.mark.usefixtures("float64")
FAMILIES = [
    ("qwen2_5_vl", "2d"),
    ("qwen2_5_vl", "1d"),
    ("qwen3_vl", "2d"),
    ("gemma3", "1d"),
    ("llava_onevision", "1d"),
    ("internvl", "1d"),
    ("smolvlm", "1d"),
]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=30), st.integers(1, 200))
@settings(deadline=None)
def test_every_row_is_in_one_row_whole_and_none_is_too_long(lengths, budget):
    rows = [EncodedExample(ids=[i] * n, token_type=[1] * n, loss_weight=[0.0] * n) for i, n in enumerate(lengths)]
    out = pack_examples(rows, budget)
    assert max(len(r.ids) for r in out) <= max(budget, *lengths)
    found = []
    for r in out:
        at = 0
        for length, pictures in r.document_lengths:
            assert len(set(r.ids[at : at + length])) == 1 and pictures == 0
            found.append((r.ids[at], length))
            at += length
        assert at == len(r.ids)
    assert sorted(found) == list(enumerate(lengths))


def test_traces_of_all_lengths_leave_less_than_a_twentieth_to_padding():
    task = tasks.make("frozenlake_plan", level=(3, 4, 5, 6), chunk=(1, 1), omit_state_p=1.0)
    backbone = load_backbone("tiny", **BACKBONE, latent_positions="2d")
    processor = methods.build_method("modal_mixed", backbone, k=36, head="mlp").processor
    rows = [processor.encode(task.trace(task[i], "mixed")) for i in range(64)]
    lengths = [len(r.ids) for r in rows]
    assert max(lengths) > 2 * min(lengths)
    out = pack_examples(rows, 1024)
    assert sum(lengths) >= 0.95 * len(out) * max(len(r.ids) for r in out)
    assert sum(lengths) < 0.8 * len(rows) * max(lengths), "one a row they would leave more"


@float64
@pytest.mark.parametrize("family, positions", FAMILIES)
def test_packed_losses_and_gradients_are_those_of_rows_alone(family, positions, make_backbone, make_traces):
    case = next(c for c in CASES if c.options.get("head") == "mlp" and c.options.get("supervise") == "full")
    reasoner = ready(case, lambda _: make_backbone(positions, family), make_traces)
    alone, together = both(reasoner, make_traces())
    at, own = (b.positions[:, b.mask] for b in (together, alone))
    assert sorted(at.flatten().tolist()) == sorted(own.flatten().tolist()), "each begins at 0 again"
    same(losses(reasoner, alone), losses(reasoner, together))


def varlen(module, query, key, value, attention_mask, cu_seq_lens_q=None, max_length_q=None, **options):
    """What flash attention does with traces end to end, in the words of PyTorch: each alone."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    causal = options.get("is_causal")
    causal = module.is_causal if causal is None else causal
    if cu_seq_lens_q is None:
        out = F.scaled_dot_product_attention(query, key, value, scale=options.get("scaling"), is_causal=causal)
    else:
        assert attention_mask is None and len(query) == 1 and cu_seq_lens_q[-1] == query.shape[2]
        lengths = cu_seq_lens_q.diff().tolist()
        assert max_length_q == max(lengths) and cu_seq_lens_q.dtype == torch.int32
        parts = (x.split(lengths, 2) for x in (query, key, value))
        out = torch.cat(
            [
                F.scaled_dot_product_attention(*qkv, scale=options.get("scaling"), is_causal=True)
                for qkv in zip(*parts, strict=True)
            ],
            2,
        )
    return out.transpose(1, 2), None


@float64
@pytest.mark.parametrize("family, positions", [f for f in FAMILIES if f[0] != "gemma3"])
def test_flash_attention_is_told_where_each_trace_begins(family, positions, make_backbone, make_traces, monkeypatch):
    """On a stand-in for its kernel, which runs on GPUs alone."""
    AttentionInterface.register("varlen", varlen)
    case = next(c for c in CASES if c.options.get("head") == "mlp" and c.options.get("supervise") == "full")
    reasoner = ready(case, lambda _: make_backbone(positions, family), make_traces)
    alone, together = both(reasoner, make_traces())
    wanted = losses(reasoner, alone)
    reasoner.backbone.model.set_attn_implementation("varlen")
    same(wanted, losses(reasoner, together))
    narrow = methods.objective_of(reasoner, RunOptions(attention_bottleneck_prob=1.0))
    with pytest.raises(ValueError, match="attn_implementation='varlen' takes no mask for each position"):
        reasoner.train()(narrow.loss, together)


def test_flash_attention_is_not_asked_for_what_it_cannot(make_backbone, make_traces):
    """Pieces of packed rows after a cache have several traces before them."""
    AttentionInterface.register("varlen", varlen)
    case = next(c for c in CASES if c.method == "coconut")
    reasoner = ready(case, make_backbone, make_traces)
    _, together = both(reasoner, make_traces(reasoner.can_sketch))
    assert reasoner.can_sketch and objective_for(reasoner).unrolls_latents
    reasoner.backbone.model.set_attn_implementation("varlen")
    with pytest.raises(ValueError, match="takes no mask"):
        loss_of(reasoner, together)


@float64
@pytest.mark.parametrize("method", methods.names())
def test_a_method_packs_or_says_that_it_does_not(method, make_backbone, make_traces):
    case = next(case for case in CASES if case.method == method)
    reasoner = ready(case, make_backbone, make_traces)
    objective_for(reasoner).scheduled_sampling = ScheduledSampling()
    if not objective_for(reasoner).can_pack or (reasoner.can_sketch and reasoner.head.needs_context):
        assert method in ("latent_sketchpad", "covt", "ilvr", "deepsketcher", "mcout", "monet", "scolar", "colt")
        return
    alone, together = both(reasoner, make_traces(reasoner.can_sketch))
    if (
        reasoner.head is not None and reasoner.head.is_stochastic
    ):  # its loss draws noise latent by latent, in another order
        objective_for(reasoner).weights = replace(objective_for(reasoner).weights, latent=0.0)
    same(losses(reasoner, alone), losses(reasoner, together))


@float64
def test_a_bottleneck_stays_within_a_trace(make_backbone, make_traces):
    case = next(c for c in CASES if c.options.get("head") == "mlp" and c.options.get("supervise") == "full")
    reasoner = ready(case, make_backbone, make_traces).train()
    alone, together = both(reasoner, make_traces())
    free = losses(reasoner, alone)
    objective = methods.objective_of(reasoner, RunOptions(attention_bottleneck_prob=1.0))
    narrow = losses(reasoner, alone, objective)
    assert not is_close(free[0]["text"], narrow[0]["text"])
    same(narrow, losses(reasoner, together, objective))


def test_a_recipe_packs(tmp_path, monkeypatch):
    short(monkeypatch)
    small = {
        "data__items": 24,
        "data__val_items": 4,
        "data__levels": [3, 4],
        "optim__max_steps": 2,
        "data__packing_length": 300,
        "backbone__options": BACKBONE,
    }
    recipe = load("train/recipes/quickstart.yaml", SFTConfig, init_from=None, run_name=str(tmp_path / "run"), **small)
    sft.train(recipe, make_run_folder(recipe))
    assert (tmp_path / "run" / "model").is_dir()
    recipe = load(
        "train/recipes/frozenlake_ilvr.yaml",
        SFTConfig,
        init_from=None,
        stages=[],
        run_name=str(tmp_path / "no"),
        **small,
    )
    with pytest.raises(ValueError, match="'ilvr' reads each row as a whole"):
        sft.train(recipe, make_run_folder(recipe))

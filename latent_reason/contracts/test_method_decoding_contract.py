"""Method contract, properties 5 to 9: decoding, replay of rollouts, and files. The others are in test_method_contract.py."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import latent_reason

from .. import checkpoint, imports
from ..decoding.engine import Engine, generate
from ..decoding.prompts import planned_grids
from ..model.batch import LATENT, TEXT
from ..objectives.replay import replay, rollout_states
from ..trace import Image, Message, Text, Trace
from .closeness import arithmetic, assert_close, relative_error
from .fixtures import eager, loss_of, objective_for, ready_copy, slot_by_slot, training_batch

float64 = pytest.mark.usefixtures("float64")


def prompts(reasoner, make_traces, rows=slice(None)):
    return reasoner.processor(make_traces(reasoner.can_sketch)[rows], generate=True)


def settings(reasoner, rows=(0, 1, 2, 3)):
    """Generation options for which rows open spans, end and exceed the budget at different steps."""
    v = reasoner.vocabulary
    opens, words = [v.open] * reasoner.can_sketch, v.encode_text("go left then up")
    queues = [opens, words[:2] + opens, [], words[:1] + opens + words + opens]
    budgets = [13, 9, 17, 21]
    return {
        "max_new_tokens": [budgets[r] for r in rows],
        "forced_tokens": [queues[r] for r in rows],
        "row_ids": list(rows),
    }


@pytest.fixture(params=[0.0, 1.0], ids=["greedy", "sampled"])
def rollout(request, case, reasoner, make_traces, rollout_once):
    """A rollout whose rows are in different modes at every step. It is decoded once for tests 6 and 7."""
    eager(reasoner)
    key = (repr(case), request.param, torch.get_default_dtype())
    if key not in rollout_once:
        rollout_once[key] = generate(
            reasoner, prompts(reasoner, make_traces), temperature=request.param, seed=3, **settings(reasoner)
        )
    out = rollout_once[key]
    latent = out.token_type == LATENT
    assert not reasoner.can_sketch or (latent.any(0) & (out.token_type == TEXT).any(0)).any(), (
        "no step with mixed modes"
    )
    return out


@pytest.fixture(scope="module")
def rollout_once() -> dict:
    return {}


# -- 5, 6, 7, 8: decoding ----------------------------------------------------------------------------------------------
@float64
def test_5_cached_is_uncached(reasoner, make_traces, monkeypatch):
    """The states of decoding are those of one pass over prompt and answer."""
    states, trunk = [], reasoner.backbone.forward_text

    def recorded(*given):
        states.append(trunk(*given))
        return states[-1]

    monkeypatch.setattr(reasoner.backbone, "forward_text", recorded)
    monkeypatch.setattr(Engine, "compact", lambda engine: None)  # so that rows keep their slots
    whole = reasoner.can_sketch and reasoner.head.draws_whole_span  # with a hook, it too draws one latent a pass
    given = settings(reasoner) | (
        {"latent_hook": lambda rows, spans, slots, latents, written: latents} if whole else {}
    )
    out = generate(eager(reasoner), prompts(reasoner, make_traces), temperature=1.0, **given)
    there = out.token_type != 0
    assert there.shape[1] > 5 and len(states) == 1 + there.shape[1], "the prompt, then one pass a position"
    monkeypatch.setattr(reasoner.backbone, "forward_text", trunk)
    assert_close(torch.cat(states[1:], 1)[there], rollout_states(reasoner, out)[there])


@float64
def test_5_latents_are_fed_back_in_the_space_of_their_targets(sketcher, batch):
    mask, width, grids, head = batch.latent_slots()[2], sketcher.head.latent_width, batch.spans[:, 2:], sketcher.head
    h, noise = torch.randn(*mask.shape, sketcher.backbone.width), torch.randn(*mask.shape, width)

    def sample(h, grids, slot, noise, context):
        return head.sample(h, context, noise, **({"slot": slot} if head.reads_slot else {}))

    expected = slot_by_slot(sketcher, batch, h, noise, sample)
    if not head.in_hidden_space:
        inverse = sketcher.target.standardizer.inverse if sketcher.target.standardize else lambda z, grids: z
        expected = sketcher.latents_to_embeddings(inverse(expected, grids))
    assert_close(slot_by_slot(sketcher, batch, h, noise, sketcher.sample_latents)[mask], expected[mask])
    if (
        objective_for(sketcher).has_latent_loss(sketcher)
        and sketcher.target is not None
        and head.in_hidden_space
        and not head.needs_context
    ):
        # a state equal to its target has zero loss, once no noise of training is on the target
        sketcher.eval()
        rows, position, _ = batch.latent_slots()
        z = sketcher.target(batch)
        states = torch.zeros(*batch.ids.shape, width).index_put((rows[mask], position[mask]), z[mask])
        assert objective_for(sketcher).loss_terms(sketcher, batch, states, z).latent < 1e-6


@float64
def test_5_training_on_own_latents_draws_what_decoding_draws(sketcher, make_traces):
    """Unrolling in training and decoding with forced text sample the same latents."""
    traces = make_traces(same_size=True)[:2]
    batch, prompt = training_batch(sketcher, traces), sketcher.processor(traces, generate=True)
    noise = torch.zeros(1, sketcher.head.latent_width) if sketcher.head.is_stochastic else None
    draw = sketcher.sample_latents

    def silent(h, grids, slot, _noise=None, context=None, *known):
        return draw(h, grids, slot, None if noise is None else noise.expand(len(h), -1), context, *known)

    sketcher.sample_latents = silent
    _, own = objective_for(sketcher).own_latent_states(sketcher, batch, sketcher.backbone.position_ids(batch))

    v, n = sketcher.vocabulary, prompt.ids.shape[1]
    said = [
        [i for i, k in zip(ids, kinds, strict=True) if k == TEXT and i != v.close]
        for ids, kinds in zip(batch.ids.tolist(), batch.token_type.tolist(), strict=True)
    ]
    asked = [int((row == TEXT).sum()) for row in prompt.token_type]
    queue = [words[a:] for words, a in zip(said, asked, strict=True)]
    plan = None if sketcher.switch.stop == "count" else 4
    out = generate(
        sketcher, prompt, max_new_tokens=batch.ids.shape[1] - n + 20, forced_tokens=queue, latents_per_span=plan
    )
    assert_close(out.latent_embeds[out.token_type == LATENT], own[batch.latent_slots()[2]])


@float64
def test_6_a_row_in_a_batch_is_that_row_alone(reasoner, make_traces, rollout, request):
    """Two rows of four are decoded greedily, the other two are sampled."""
    temperature = 1.0 if "sampled" in request.node.name else 0.0
    for r in (1, 3) if temperature else (0, 2):
        alone = generate(
            reasoner,
            prompts(reasoner, make_traces, slice(r, r + 1)),
            temperature=temperature,
            seed=3,
            **settings(reasoner, [r]),
        )
        t = alone.ids.shape[1]
        assert not (rollout.token_type[r, t:] != 0).any()
        for name in ("ids", "token_type", "text_decisions", "stop_decisions", "open_allowed"):
            real = alone.token_type[0] != 0
            assert torch.equal(getattr(rollout, name)[r, :t][real], getattr(alone, name)[0][real]), name
        assert torch.equal(rollout.positions[:, r, :t][:, real], alone.positions[:, 0][:, real])
        for name in ("latent_embeds", "log_prob", "sampled_log_prob", "stop_log_prob"):
            assert_close(getattr(rollout, name)[r, :t], getattr(alone, name)[0])
        assert rollout.finish_reasons[r] == alone.finish_reasons[0]
        assert [dataclasses.replace(s, row=0) for s in rollout.spans_of(r)] == alone.spans


@float64
def test_7_replaying_a_rollout_gives_its_log_probabilities(reasoner, rollout, monkeypatch):
    words, stops, *_ = replay(reasoner, rollout)
    assert rollout.text_decisions.any() and (rollout.log_prob[rollout.text_decisions] < 0).all()
    assert rollout.stop_decisions.any() == (reasoner.can_sketch and reasoner.switch.stop == "close")
    assert_close(words, rollout.log_prob)
    assert_close(stops, rollout.stop_log_prob)
    table = reasoner.backbone.model.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(words.sum() + stops.sum(), table)
    assert gradient.any()
    monkeypatch.setattr("latent_reason.objectives.losses.MAX_LOGITS", 3 * len(reasoner.vocabulary))
    again = torch.stack(replay(reasoner, rollout)[:2])
    assert_close(again, torch.stack([words, stops]))
    assert_close(torch.autograd.grad(again.sum(), table)[0], gradient, depth=16)


def test_7_in_bfloat16_too(reasoner, batch, make_traces):
    terms = loss_of(reasoner.to(torch.bfloat16), batch)
    assert all(part.isfinite() and part.dtype == torch.float32 for part in terms.parts().values())
    out = generate(eager(reasoner), prompts(reasoner, make_traces), temperature=1.0, **settings(reasoner))
    for replayed, said in zip(replay(reasoner, out)[:2], (out.log_prob, out.stop_log_prob), strict=True):
        assert replayed.dtype == torch.float32
        assert relative_error(replayed, said) < 8 * torch.finfo(torch.bfloat16).eps, "eight products, each off by eps"


def test_8_spans_open_and_close_and_keep_their_limits(sketcher, make_traces):
    sketcher.switch = dataclasses.replace(sketcher.switch, min_latents=3, cap=1.5, max_spans=2)
    learned, budgets, v = sketcher.switch.stop != "count", [1, 4, 11, 40], sketcher.vocabulary
    eager(sketcher)
    causes = set()
    plans = [h * w for h, w in planned_grids(sketcher, prompts(sketcher, make_traces))]
    for seed in range(20):
        if seed > 0 and len(causes) > 1 and "budget" in causes:
            break
        out = generate(sketcher, prompts(sketcher, make_traces), temperature=1.0, seed=seed, max_new_tokens=budgets)
        for r, budget in enumerate(budgets):
            ids, latent = out.ids[r].tolist(), (out.token_type[r] == LATENT).tolist()
            used, spans = int((out.token_type[r] != 0).sum()), out.spans_of(r)
            assert used <= budget or (used == budget + 1 and ids[budget - 1] == v.open), "only a mark may overdraw"
            assert out.finish_reasons[r] == ("end" if v.end in ids[:used] else "budget")
            assert len(spans) == ids[:used].count(v.open) == ids[:used].count(v.close) <= 2
            inside = set()
            for span in spans:
                stop = span.start + span.length
                assert ids[span.start - 1] == v.open and ids[stop] == v.close and all(latent[span.start : stop])
                assert span.start < 2 or ids[span.start - 2] != v.close, "a span needs text before it"
                low, high = (3, int(1.5 * plans[r])) if learned else [plans[r]] * 2
                assert span.length <= high and (span.length >= low or span.cause == "budget")
                inside |= set(range(span.start, stop))
                causes.add(span.cause)
            assert inside == {i for i, here in enumerate(latent) if here}
    assert "budget" in causes and len(causes) > 1


def test_8_a_span_opened_at_the_last_position_still_closes(sketcher, make_traces):
    v = sketcher.vocabulary
    for budget, length, cause in ((1, 0, "budget"), (2, 0, "budget"), (4, 2, "budget"), (6, 4, "count")):
        out = generate(
            sketcher, prompts(sketcher, make_traces), max_new_tokens=budget, latent_mode="first", latents_per_span=4
        )
        assert out.ids.shape[1] == max(2, budget)
        assert (out.ids[:, 0] == v.open).all() and (out.ids[:, -1] == v.close).all()
        assert [(s.length, s.cause) for s in out.spans] == [(length, cause)] * 4


# -- 9: save and load --------------------------------------------------------------------------------------------------
RELOAD = """
import json, socket, sys
def no_network(*_): raise OSError("the network was asked")
socket.socket.connect = no_network
import torch
from PIL import Image as PILImage
from latent_reason import Image, Message, Text, Trace, generate, load
from latent_reason.contracts.closeness import arithmetic
trace = Trace("q", (Message("user", (Image(PILImage.open(sys.argv[1] + "/q.png")), Text("where to go?"))),))
said = []
for folder in sys.argv[2:]:
    reasoner, _ = load(folder, device="cpu")
    prompt = reasoner.processor([trace], generate=True)
    mode = ("learned", "first")[reasoner.can_sketch]
    with arithmetic("float64"):
        out = generate(reasoner.double(), prompt, max_new_tokens=12, temperature=1.0, latent_mode=mode)
    said.append([out.ids.tolist(), out.latent_embeds.abs().sum(-1).tolist(), out.log_prob.tolist()])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory, make_backbone, make_traces, picture, method_cases, ready_once):
    """Outputs of each case before saving, and after loading in a new offline process from another folder."""
    root = tmp_path_factory.mktemp("saved")
    picture(2, 3, 7).save(root / "q.png")
    trace = Trace("q", (Message("user", (Image(picture(2, 3, 7)), Text("where to go?"))),))
    here, folders = [], []
    for i, case in enumerate(method_cases):
        reasoner = ready_copy(case, make_backbone, make_traces, ready_once)
        folders.append(str(checkpoint.save(reasoner, root / f"{i}")))
        prompt = reasoner.processor([trace], generate=True)
        mode = ("learned", "first")[reasoner.can_sketch]
        with arithmetic("float64"):
            out = generate(reasoner.double(), prompt, max_new_tokens=12, temperature=1.0, latent_mode=mode)
        here.append([out.ids.tolist(), out.latent_embeds.abs().sum(-1).tolist(), out.log_prob.tolist()])
    away = tmp_path_factory.mktemp("elsewhere")
    library = str(Path(latent_reason.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(root), *folders],
        cwd=away,
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([library, *filter(None, sys.path)]),  # includes a user's method
            "HF_HUB_OFFLINE": "1",
            imports.PLUGINS: ",".join({case.method.partition(".")[0] for case in method_cases}),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {str(c): pair for c, *pair in zip(method_cases, here, json.loads(done.stdout.splitlines()[-1]), strict=True)}


def test_9_a_fresh_process_says_the_same(case, reloaded):
    (ids, vectors, logprob), (new_ids, new_vectors, new_logprob) = reloaded[str(case)]
    assert new_ids == ids
    with arithmetic("float64"):
        assert_close(new_vectors, vectors)
        assert_close(new_logprob, logprob)

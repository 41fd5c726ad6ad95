"""Method contract: twelve properties of every method. Files in methods/ are included automatically, a user's method
with ``--method my_pkg.my_method``.

Methods are built in a small version (see CASES in fixtures.py). Tests depend on properties of the reasoner
(``sketches``, ``head.is_stochastic``, ``latent_input``), never on the method's name.
"""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import latent_reason

from .. import checkpoint, imports, methods
from ..decoding.engine import generate, planned_grids
from ..model.batch import LATENT, TEXT, shift_right
from ..objectives.latent_inputs import text_since_span
from ..objectives.losses import loss_shares
from ..objectives.replay import replay
from ..trace import Image, Message, Sketch, Text, Trace
from .closeness import arithmetic, assert_close, relative_error
from .fixtures import eager, fit, loss_of, objective_for, ready_copy, seen_once, training_batch

float64 = pytest.mark.usefixtures("float64")


# -- building blocks ---------------------------------------------------------------------------------------------------
def train(reasoner, batch, steps=140, until=lambda first, now: False):
    """Train all unfrozen parameters with AdamW for at most ``steps`` steps and return the first and the last loss
    terms. A head in hidden space needs more steps."""
    reasoner.train()
    raw = objective_for(reasoner).has_latent_loss(reasoner) and reasoner.head.in_hidden_space
    lr, steps = (1.5e-2, 3 * steps) if raw else (1e-2, steps)
    trained = [p for p in reasoner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr, weight_decay=0.0, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    first = now = None
    for _ in range(steps):
        terms = loss_of(reasoner, batch)
        now = {n: p.item() for n, p in terms.parts().items()}
        first = first or now
        if until(first, now):
            break
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        decay.step()
    reasoner.eval()
    return first, now


def gradients(reasoner, batch):
    torch.manual_seed(1)
    reasoner.zero_grad()
    loss_of(reasoner, batch).total.backward()
    return {n: p.grad.clone() for n, p in reasoner.named_parameters() if p.grad is not None}


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


# -- 1, 2, 3: builds, learns -------------------------------------------------------------------------------------------
def test_1_builds_and_says_how(case, reasoner):
    assert reasoner.method.name == case.method
    assert reasoner.method.options.items() >= case.options.items()
    assert json.loads(json.dumps(reasoner.method.options)) == reasoner.method.options
    module = methods.load(case.method)
    assert module.__doc__ and module.PAPER and module.SUMMARY and module.MODE in ("direct", "text", "vision", "mixed")
    with pytest.raises(ValueError, match="has no option 'kk'"):
        methods.build_method(case.method, reasoner.backbone, kk=1)


@pytest.mark.parametrize("frozen", [True, False], ids=["eye frozen", "eye trained"])
def test_2_loss_is_finite_and_its_gradient_reaches_what_trains_and_nothing_else(reasoner, batch, frozen):
    torch.nn.ParameterList(reasoner.backbone.vision_parameters).requires_grad_(not frozen)
    terms = loss_of(reasoner, batch)
    stops = reasoner.can_sketch and reasoner.switch.supervise != "none"
    assert (
        list(terms.parts())
        == ["text"] + ["latent"] * objective_for(reasoner).has_latent_loss(reasoner) + ["stop"] * stops
    )
    for part in terms.parts().values():
        assert part.isfinite() and part > 0 and part.dtype == torch.float32
    terms.total.backward()
    for name, p in reasoner.named_parameters():
        reached = p.grad is not None and p.grad.isfinite().all() and bool(p.grad.any())
        assert reached == p.requires_grad, name


@float64
def test_3_overfits_one_batch(reasoner, make_traces):
    rows = make_traces(reasoner.can_sketch, same_size=True)[1::2]
    batch = seen_once(reasoner, training_batch(reasoner, rows))

    def learnt(first, now, latent=0.05):
        return all(now[part] < (latent if part == "latent" else 0.05) * first[part] for part in now)

    denoises = reasoner.can_sketch and reasoner.head.is_stochastic  # its loss contains irreducible noise
    blank = objective_for(reasoner).latent_input == "blank"  # a few blank latents cannot encode every pixel of a map
    rest = 0.2 if denoises else 0.35 if blank else 0.05
    first, last = train(reasoner, batch, until=partial(learnt, latent=0.35 if blank else 0.05))
    assert learnt(first, last, latent=rest), f"{first} became {last}"
    if reasoner.can_sketch and not reasoner.head.in_hidden_space:
        drawn, z, mask = drawn_latents(reasoner, batch)
        error = (drawn - z)[mask].square().mean() / (z[mask] - z[mask].mean(0)).square().mean()
        assert error < 0.5, f"drawn latents are off by {error:.2f} of the variance of what was to be drawn"
        nearest = torch.cdist(drawn[mask], z[mask]).argmin(1)
        assert (nearest == torch.arange(len(nearest))).float().mean() > 0.7, "they are nearer to other targets"


@torch.no_grad()
def drawn_latents(reasoner, batch):
    """(latents sampled from the trained model (S, K, D), targets, mask of the real slots)."""
    z, positions = reasoner.latents_to_embeddings(reasoner.target(batch)), reasoner.backbone.position_ids(batch)
    rows, position, mask = batch.latent_slots()
    if objective_for(reasoner).latent_input == "self":
        states, _ = objective_for(reasoner).own_latent_states(reasoner, batch, positions)
    else:
        states = reasoner.backbone.forward_text(reasoner.embed_batch(batch, z), batch.mask, positions)
    h = shift_right(states)[rows, position]
    return (
        slot_by_slot(reasoner, batch, h, torch.randn(*mask.shape, reasoner.head.latent_width), reasoner.sample_latents),
        z,
        mask,
    )


def slot_by_slot(reasoner, batch, h, noise, draw):
    """(S, K, ...) outputs of ``draw(h, grids, slot, noise, context)``, computed slot by slot for all spans."""
    mask, scene, columns = batch.latent_slots()[2], reasoner.head_context(batch), []
    if scene is not None:
        rows, states = (
            batch.spans[:, 0],
            torch.randn(len(batch.spans), batch.ids.shape[1], h.shape[-1], generator=torch.Generator().manual_seed(0)),
        )
        scene = scene.for_spans(rows, states, text_since_span(batch))  # one row per span
    for j in range(mask.shape[1]):
        own = mask[:, j].nonzero()[:, 0]
        slot = torch.full_like(own, j)
        drawn = draw(h[own, j], batch.spans[own, 2:], slot, noise[own, j], scene and scene.for_rows(own, slot))
        columns.append(drawn.new_zeros(len(mask), drawn.shape[-1]).index_put((own,), drawn))
    return torch.stack(columns, 1)


# -- 4: the latents matter ---------------------------------------------------------------------------------------------
def two_questions(picture):
    """Two traces with the same question and image. Only the sketch determines the answer."""

    def trace(seed, answer, box):
        return Trace(
            answer,
            (
                Message("user", (Image(picture(2, 2)), Text("which way?"))),
                Message("assistant", (Sketch(picture(2, 2, seed), box=box), Text(answer))),
            ),
        )

    return [trace(1, "left", (0, 0, 0.5, 1)), trace(2, "right", (0.5, 0, 1, 1))]


def answer_losses(reasoner, batch, latents):
    """(B,) text loss of each row with ``latents`` in the context."""
    h = shift_right(
        reasoner.backbone.forward_text(
            reasoner.embed_batch(batch, latents), batch.mask, reasoner.backbone.position_ids(batch)
        )
    )
    nll = -reasoner.backbone.logits(h).log_softmax(-1).gather(-1, batch.ids[..., None])[..., 0]
    return (nll * batch.loss_weight).sum(1)


@float64
def test_4_the_answer_is_read_from_the_latents(sketcher, picture):
    if sketcher.target is not None and not sketcher.target.renderable and not sketcher.switch.count:
        sketcher.switch = dataclasses.replace(sketcher.switch, count=2)  # the size of a region is unknown in decoding
    batch = seen_once(sketcher, training_batch(sketcher, two_questions(picture)))
    if objective_for(sketcher).latent_input != "teacher":
        assert latent_gradient(sketcher, batch) > 0
        return
    fit(sketcher, batch)
    train(sketcher, batch, steps=280, until=lambda first, now: now["text"] < 0.02)
    z = sketcher.latents_to_embeddings(sketcher.target(batch)).detach().requires_grad_()
    right, swapped = answer_losses(sketcher, batch, z), answer_losses(sketcher, batch, z.flip(0))
    assert (right < 0.3).all() and (swapped > 2).all()
    assert (torch.autograd.grad(right.sum(), z)[0].abs().sum((1, 2)) > 0).all()

    prompt, k = sketcher.processor(two_questions(picture), generate=True), z.shape[1]
    for order in ([0, 1], [1, 0]):

        def fed(rows, spans, slots, vectors, written, order=order):
            return z.detach()[torch.tensor(order)[rows], slots]

        out = generate(sketcher, prompt, max_new_tokens=12, latent_mode="first", latents_per_span=k, latent_hook=fed)
        assert [out.text(r, sketcher.vocabulary) for r in (0, 1)] == [("left", "right")[i] for i in order]


def latent_gradient(reasoner, batch):
    """Norm of the gradient of the text loss with respect to the latents that the method feeds back. If they are
    detached from their source, with respect to the context that contains them."""
    draw, call, drawn, contexts = reasoner.sample_latents, reasoner.backbone.call_text_model, [], []

    def recorded(*args, **options):
        drawn.append(draw(*args, **options))
        return drawn[-1]

    def called(embeds, *where, **options):
        if options.get("output_hidden_states"):
            contexts.append(embeds)
        return call(embeds, *where, **options)

    reasoner.sample_latents = recorded
    reasoner.backbone.call_text_model = called
    loss = loss_of(reasoner, batch).text
    if not any(z.requires_grad for z in drawn):
        rows, position, mask = batch.latent_slots()
        return torch.autograd.grad(loss, contexts[0])[0][rows[mask], position[mask]].abs().sum(-1).min()
    if objective_for(reasoner).jacobi_sweeps:  # latents of earlier sweeps are intermediate results
        drawn = drawn[-1:]
    grads = torch.autograd.grad(loss, drawn)
    return min(g.abs().sum(-1).min() for g in grads)


# -- 5, 6, 7, 8: decoding ----------------------------------------------------------------------------------------------
@float64
def test_5_cached_is_uncached(reasoner, make_traces, monkeypatch):
    fed, trunk = [], reasoner.backbone.forward_text

    def recorded(embeds, mask, positions, cache=None):
        fed.append((embeds, mask, positions, trunk(embeds, mask, positions, cache)))
        return fed[-1][-1]

    monkeypatch.setattr(reasoner.backbone, "forward_text", recorded)
    out = generate(eager(reasoner), prompts(reasoner, make_traces), temperature=1.0, **settings(reasoner))
    (asked, _, placed, answered), steps = fed[0], fed[1:]
    there = out.token_type[:, : len(steps)] != 0
    assert there.shape[1] > 5 and [f[0].shape[0] for f in steps] == there.sum(0).tolist(), "who has ended is not fed"

    def whole(first, column, rows_in):
        """(B, N + T, ...) inputs of decoding, zero after the end of a row."""
        more = first.new_zeros(len(first), len(steps), *first.shape[2:])
        for t, f in enumerate(steps):
            more[there[:, t], t] = rows_in(f[column])[:, 0]
        return torch.cat([first, more], 1)

    mask = torch.cat([out.prompt.mask, there], 1)
    embeds, cached = whole(asked, 0, lambda x: x), whole(answered, 3, lambda x: x)
    positions = whole(placed.permute(1, 2, 0), 2, lambda x: x.permute(1, 2, 0)).permute(2, 0, 1)
    assert_close(cached[mask], trunk(embeds, mask, positions)[mask])


@float64
def test_5_latents_are_fed_back_in_the_space_of_their_targets(sketcher, batch):
    mask, width, grids, head = batch.latent_slots()[2], sketcher.head.latent_width, batch.spans[:, 2:], sketcher.head
    h, noise = torch.randn(*mask.shape, sketcher.backbone.width), torch.randn(*mask.shape, width)
    expected = slot_by_slot(
        sketcher, batch, h, noise, lambda h, grids, slot, noise, context: head.sample(h, context, noise)
    )
    if not head.in_hidden_space:
        expected = sketcher.latents_to_embeddings(sketcher.target.standardizer.inverse(expected, grids))
    assert_close(slot_by_slot(sketcher, batch, h, noise, sketcher.sample_latents)[mask], expected[mask])
    if (
        objective_for(sketcher).has_latent_loss(sketcher)
        and sketcher.target is not None
        and head.in_hidden_space
        and not head.needs_context
    ):
        # a state equal to its target has zero loss
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

    def silent(h, grids, slot, _noise=None, context=None):
        return draw(h, grids, slot, None if noise is None else noise.expand(len(h), -1), context)

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
    temperature = 1.0 if "sampled" in request.node.name else 0.0
    for r in range(4):
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
    causes, plans = set(), planned_grids(sketcher, prompts(sketcher, make_traces)).prod(-1).tolist()
    for seed in range(20):
        if seed > 3 and len(causes) > 1 and "budget" in causes:
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


# -- 10, 11: targets are fixed, gradient checkpointing has no effect ---------------------------------------------------
@float64
def test_10_a_target_does_not_move_when_only_the_head_trains(sketcher, batch):
    if not objective_for(sketcher).has_latent_loss(sketcher) or sketcher.target is None:
        pytest.skip("no picture teaches its latents")
    before_training = sketcher.target(batch)
    sketcher.backbone.requires_grad_(False)
    sketcher.target.requires_grad_(False)
    statistics = copy.deepcopy(sketcher.target.state_dict())
    if any(p.requires_grad for p in sketcher.parameters()):
        train(sketcher, batch, steps=3)
    assert_close(sketcher.target(batch), before_training)
    for name, value in sketcher.target.state_dict().items():
        assert torch.equal(value, statistics[name]), name


def test_10_the_latent_loss_does_not_pull_at_the_target(sketcher, batch):
    if not objective_for(sketcher).has_latent_loss(sketcher) or sketcher.target is None:
        pytest.skip("no picture teaches its latents")
    sketcher.requires_grad_(True)
    h = torch.randn(*batch.ids.shape, sketcher.backbone.width, requires_grad=True)
    loss = objective_for(sketcher).loss_terms(sketcher, batch, h, sketcher.target(batch)).latent
    teacher = [*sketcher.target.parameters(), *sketcher.backbone.vision_parameters]
    pulled = torch.autograd.grad(loss, [h, *teacher], allow_unused=True)
    assert pulled[0].any() and not any(g is not None and g.any() for g in pulled[1:])


@float64
def test_11_activation_checkpointing_changes_no_gradient_or_is_refused(reasoner, batch):
    passes = []
    reasoner.backbone.model.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    plain, usual = gradients(copy.deepcopy(reasoner.train()), batch), len(passes)
    reasoner.backbone.set_gradient_checkpointing()
    assert reasoner.backbone.is_gradient_checkpointing
    if objective_for(reasoner).latent_input == "self" and not objective_for(reasoner).jacobi_sweeps:
        with pytest.raises(ValueError, match="'self' cannot run with activation checkpointing"):
            loss_of(reasoner, batch)
        return
    checked = gradients(reasoner, batch)
    assert len(passes) - usual > usual, "the layer was not recomputed, so nothing was tested"
    assert_close(checked, plain, depth=16)


# -- 12: it does not matter how examples are cut into batches ----------------------------------------------------------
@float64
@torch.no_grad()
def test_12_the_loss_of_a_batch_is_the_mean_of_its_rows_under_their_weights(reasoner, make_traces, monkeypatch):
    for name in ("rand_like", "randn_like"):  # a row gets the same noise alone and in the batch
        monkeypatch.setattr(torch, name, lambda x: torch.full_like(x, 0.3))
    for name in ("rand", "randn"):
        monkeypatch.setattr(torch, name, lambda *size, **options: torch.full(size, 0.3))
    monkeypatch.setattr(torch, "randint", lambda low, high, size, **options: torch.full(size, 300))
    objective, traces = objective_for(reasoner.eval()), make_traces(reasoner.can_sketch)
    batch, rows = training_batch(reasoner, traces), [training_batch(reasoner, [trace]) for trace in traces]
    whole, parts = objective.loss_weights(reasoner, batch), loss_of(reasoner, batch).parts()
    weights = [objective.loss_weights(reasoner, row) for row in rows]
    shares = [loss_shares(own, whole) for own in weights]
    alone = [loss_of(reasoner, row).scaled(share).parts() for row, share in zip(rows, shares, strict=True)]
    for name, part in parts.items():
        assert_close(sum(row[name] for row in alone if name in row), part)
    assert len({float(share["text"]) for share in shares}) > 1, "rows of equal weight show nothing"

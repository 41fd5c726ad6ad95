"""Method contract: twelve properties of every method. Files in methods/ are included automatically, a user's method
with ``--method my_pkg.my_method``. Here are 1 to 4 and 10 to 12, on building and training; 5 to 9, on decoding and
files, are in test_method_decoding_contract.py.

Methods are built in a small version (see CASES in fixtures.py). Tests depend on properties of the model and its
objective (``can_sketch``, ``head.is_stochastic``, ``latent_input``), never on the method's name.
"""

import copy
import dataclasses
import json
from functools import partial

import pytest
import torch

from .. import methods
from ..decoding.engine import generate
from ..model.batch import shift_right
from ..objectives.losses import loss_shares
from ..trace import Image, Message, Sketch, Text, Trace
from .closeness import assert_close
from .fixtures import fit, loss_of, objective_for, seen_once, slot_by_slot, training_batch

float64 = pytest.mark.usefixtures("float64")


# -- building blocks ---------------------------------------------------------------------------------------------------
def train(reasoner, batch, steps=140, until=lambda first, now: False, lr=1e-2, betas=(0.9, 0.999)):
    """Train all unfrozen parameters with AdamW for at most ``steps`` steps and return the first and the last loss
    terms. A head in hidden space needs more and larger steps."""
    reasoner.train()
    raw = objective_for(reasoner).has_latent_loss(reasoner) and reasoner.head.in_hidden_space
    lr, steps = (1.5 * lr, 3 * steps) if raw else (lr, steps)
    trained = [p for p in reasoner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr, betas=betas, weight_decay=0.0, fused=True)
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
    raw = reasoner.can_sketch and reasoner.target is not None and not reasoner.target.standardize
    # most of a raw target is the mean of all of them, which is learnt first and tells none from another
    small = partial(learnt, latent=0.35 if blank else 0.01 if raw and not reasoner.head.in_hidden_space else 0.05)
    first, last = train(reasoner, batch, until=small, lr=2e-2, betas=(0.9, 0.95))  # in about half as many steps
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

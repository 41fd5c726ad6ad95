"""A head that draws a whole span from one state."""

from dataclasses import replace

import pytest
import torch
from test_targets_heads import awake

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.queue import Request, decode_requests
from latent_reason.model import heads

float64 = pytest.mark.usefixtures("float64")


def spans_of_one_state(rows=3, longest=6, **options):
    """A head, and the context of rows of which the last has no image."""
    head = awake(heads.make("whole_span", 8, 5, longest=longest, **options)).eval()
    there = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [False] * 4])
    context = heads.HeadContext(torch.randn(rows, 4, 8) * there[..., None], there, there.sum(1))
    return head, context.for_rows(torch.arange(rows))


LOOKS = pytest.mark.parametrize("looks", [0, 2], ids=["one state", "images too"])


@float64
@LOOKS
def test_a_whole_span_is_drawn_as_its_latents_one_by_one(looks):
    """Rows are at different slots, and later states are not read; a second span forgets the first."""
    head, context = spans_of_one_state(cross_attention_layers=looks)
    first, other = torch.randn(2, 3, 8)
    expected, again = head.draw_span(first, 6, context), head.draw_span(other, 6, context)
    for step in range(8):
        slot = torch.tensor([step % 6, (step - 1) % 6, step % 3])
        rows = torch.tensor([0, 2]) if step == 0 else torch.tensor([0, 1, 2])  # row 1 begins one step later
        is_new = torch.tensor([step >= 6, step >= 7, step >= 3])[:, None]
        state = torch.where((slot == 0)[:, None], torch.where(is_new, other, first), torch.randn(3, 8))
        drawn = head.sample(state[rows], context.for_rows(rows, slot[rows]))
        wanted = torch.where(is_new[..., None], again, expected)[torch.arange(3), slot]
        assert_close(drawn, wanted[rows])


@float64
@LOOKS
def test_first_latents_do_not_depend_on_the_length_of_their_span(looks):
    head, context = spans_of_one_state(cross_attention_layers=looks)
    h = torch.randn(3, 8)
    drawn = head.draw_span(h, 6, context)
    assert_close(head.draw_span(h, 3, context), drawn[:, :3])
    assert relative_error(drawn[:, 1:], drawn[:, :1].expand(-1, 5, -1)) > 1e-2
    images = torch.randn(3, 4, 8) * context.image_mask[..., None]
    changed = (head.draw_span(h, 6, replace(context, image_tokens=images)) - drawn).abs().sum((1, 2))
    assert (changed > 1e-3).tolist() == [bool(looks)] * 2 + [False], "a row without images sees none"
    swapped = context.image_tokens.clone()
    swapped[:, :2] = swapped[:, :2].flip(1)
    changed = (head.draw_span(h, 6, replace(context, image_tokens=swapped)) - drawn).abs().sum((1, 2))
    assert (changed > 1e-3).tolist() == [bool(looks)] * 2 + [False], "it matters where a token stands"
    with pytest.raises(ValueError, match="a span of 7 latents, but the head was built for longest=6"):
        head.draw_span(h, 7, context)
    with pytest.raises(NotImplementedError, match="MLPHead draws a span latent by latent"):
        heads.make("mlp", 8, 5).draw_span(h, 2)


@float64
@pytest.mark.parametrize("loss", ["mse", "l1", "cosine"])
def test_the_loss_of_a_whole_span_reads_its_first_state_alone(loss):
    head, context = spans_of_one_state(loss=loss)
    h, z = torch.randn(3, 4, 8, requires_grad=True), torch.randn(3, 4, 5)
    places = (torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 2, 3]))
    losses = head.span_loss(h, z, places, context)
    assert losses.shape == (5,)
    (grad,) = torch.autograd.grad(losses.sum(), h)
    assert grad[:, 0].abs().sum(-1).gt(0).all() and not grad[:, 1:].any()
    drawn = head.draw_span(h[:, 0], 4, context).detach()
    assert head.span_loss(h, drawn, places, context).abs().max() < 1e-12


def test_a_span_that_is_drawn_at_once_costs_one_pass(make_backbone, make_traces):
    """Its latents and its end; drawn one by one, each latent costs one."""
    for method, at_once in (("scolar", True), ("modal_mixed", False)):
        options = {"k": 4} if at_once else {"k": 4, "head": "mlp"}
        reasoner = methods.build_method(method, make_backbone(), **options).eval()
        v = reasoner.vocabulary
        request = Request(make_traces()[0], 0, max_new_tokens=12, forced_tokens=[v.open, *v.encode_text("go"), v.end])
        [done] = decode_requests(reasoner, [request], GenerationConfig(), 1)
        assert done.cost.latents == 4 and done.cost.passes == 1 + done.cost.tokens + (0 if at_once else 4)

"""Traces to tensors: what stands where, what is taught, and THE one shift."""

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import loss_of, objective_for, training_batch

import latent_reason
from latent_reason import methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.contracts.fixtures import CELL
from latent_reason.model.batch import IMAGE, LATENT, PAD, TEXT, shift_right
from latent_reason.model.processor import EncodedExample
from latent_reason.trace import Image, Message, Sketch, Text, Trace

pytestmark = pytest.mark.usefixtures("float64")
SOURCE = Path(latent_reason.__file__).parent
CORE = sorted(p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts[0] not in ("tasks", "data", "contracts"))


@pytest.fixture
def reasoner(make_backbone):
    return methods.build_method("modal_mixed", make_backbone(), k=4, head="mlp", stop="close", supervise="full")


@pytest.fixture
def batch(reasoner, make_traces):
    return training_batch(reasoner, make_traces())


def encode(reasoner, trace, **options):
    return reasoner.processor.encode(trace, **options)


def taught_states(loss, states):
    """(B, N) bool: the states a loss depends on."""
    return torch.autograd.grad(loss, states, retain_graph=True)[0].abs().sum(-1) > 0


# -- the one shift -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (2, 5, 3, 2)])
def test_before_is_the_entry_one_position_earlier(shape):
    x = torch.randn(shape)
    shifted = shift_right(x)
    assert shifted.shape == x.shape
    assert not shifted[:, 0].any()
    assert torch.equal(shifted[:, 1:], x[:, :-1])


def test_every_loss_reads_the_states_one_position_before_what_it_predicts(reasoner, batch):
    b, n = batch.ids.shape
    states = torch.randn(b, n, reasoner.backbone.width, requires_grad=True)
    terms = objective_for(reasoner).loss_terms(reasoner, batch, shift_right(states), reasoner.target(batch))
    latent = batch.token_type == LATENT
    later_slot = latent & F.pad(latent[:, :-1], (1, 0))
    close = ~latent & F.pad(latent[:, :-1], (1, 0))
    for loss, predicted in (
        (terms.text, batch.loss_weight > 0),
        (terms.latent, latent),
        (terms.stop, later_slot | close),
    ):
        assert torch.equal(taught_states(loss, states), F.pad(predicted[:, 1:], (0, 1)))


def test_losses_in_chunks_are_the_losses(reasoner, batch, monkeypatch):
    """With the gradients of the states and of the table of words, and never more logits at once than is said."""
    states = torch.randn(*batch.ids.shape, reasoner.backbone.width, requires_grad=True)
    table = reasoner.backbone.model.get_output_embeddings().weight
    logits, rows = reasoner.backbone.logits, []
    monkeypatch.setattr(reasoner.backbone, "logits", lambda h: rows.append(len(h)) or logits(h))

    def cost() -> list[torch.Tensor]:
        terms = objective_for(reasoner).loss_terms(reasoner, batch, states, None)
        return [terms.text, terms.stop, *torch.autograd.grad(terms.text + terms.stop, (states, table))]

    whole, most = cost(), max(rows)
    monkeypatch.setattr("latent_reason.objectives.losses.MAX_LOGITS", 4 * len(reasoner.vocabulary))
    rows.clear()
    for one, other in zip(cost(), whole, strict=True):
        assert_close(one, other)
    assert max(rows) == 4 < most


def test_text_loss_is_that_of_the_stock_model(reasoner, make_traces):
    batch = training_batch(reasoner, make_traces(sketches=False)[2:3])
    words = batch.token_type.masked_fill(batch.token_type == IMAGE, TEXT)
    batch = dataclasses.replace(batch, images=None, token_type=words, layout=None)
    batch = dataclasses.replace(batch, positions=reasoner.backbone.position_ids(batch))
    labels = batch.ids.masked_fill(batch.loss_weight == 0, -100)
    stock = reasoner.backbone.model(input_ids=batch.ids, attention_mask=batch.mask.long(), labels=labels)
    assert_close(loss_of(reasoner, batch).text, stock.loss)


# -- what stands where -------------------------------------------------------------------------------------------------
def test_kinds_follow_the_ids(reasoner, batch, make_traces):
    v = reasoner.vocabulary
    assert torch.equal(batch.token_type == LATENT, batch.ids == v.latent)
    assert torch.equal(batch.token_type == IMAGE, batch.ids == v.image)
    assert (batch.ids[batch.token_type == PAD] == v.pad).all()
    assert (batch.mask.diff(dim=1).int() >= 0).all() and batch.mask[:, -1].all(), "padding stands on the left"
    cells = [sum(p.width * p.height for p in t.images()) // CELL**2 for t in make_traces()]
    assert (batch.token_type == IMAGE).sum(1).tolist() == cells


def test_spans_of_different_length_stand_between_their_marks(reasoner, batch):
    v, (rows, position, mask) = reasoner.vocabulary, batch.latent_slots()
    assert sorted(batch.span_lengths.tolist()) == [2, 2, 4, 4]
    assert torch.equal(mask.sum(1), batch.span_lengths)
    assert (batch.token_type[rows[mask], position[mask]] == LATENT).all()
    assert mask.sum() == (batch.token_type == LATENT).sum()
    first, last = batch.spans[:, 1], batch.spans[:, 1] + batch.span_lengths - 1
    assert (batch.ids[batch.spans[:, 0], first - 1] == v.open).all()
    assert (batch.ids[batch.spans[:, 0], last + 1] == v.close).all()


def test_latents_and_pictures_are_put_at_their_own_places(reasoner, batch):
    z = torch.randn(*batch.latent_slots()[2].shape, reasoner.backbone.width)
    embeds, words = reasoner.embed_batch(batch, z), reasoner.backbone.embed(batch.ids)
    for s, (row, start, h, w) in enumerate(batch.spans.tolist()):
        assert torch.equal(embeds[row, start : start + h * w], z[s, : h * w])
    assert_close(embeds[batch.token_type == IMAGE], torch.cat(reasoner.backbone.encode_images(batch.images)))
    assert torch.equal(embeds[batch.token_type == TEXT], words[batch.token_type == TEXT])


def test_a_prompt_is_how_its_training_row_begins(reasoner, make_traces):
    for trace in make_traces():
        whole, prompt = encode(reasoner, trace), encode(reasoner, trace, generate=True)
        n = len(prompt.ids)
        assert whole.ids[:n] == prompt.ids and whole.token_type[:n] == prompt.token_type
        assert not any(prompt.loss_weight) and not prompt.spans and prompt.images == whole.images
        assert any(whole.loss_weight[n:]) and not any(whole.loss_weight[:n])
        assert reasoner.vocabulary.decode(whole.ids[n:]).rstrip("\n") == trace.assistant_text()


def test_sketches_of_earlier_turns_stand_in_a_prompt_as_what_they_were_to_hold(reasoner, picture):
    turn = Message("assistant", (Text("go"), Sketch(picture(2, 2)), Text("up")))
    ask = Message("user", (Image(picture(2, 2)), Text("where?")))
    batch = reasoner.processor([Trace("two turns", (ask, turn, ask, turn))], generate=True)
    assert len(batch.spans) == 1
    latents = reasoner.target(batch)
    assert_close(reasoner.prompt_embeddings(batch), reasoner.embed_batch(batch, latents))
    assert relative_error(reasoner.prompt_embeddings(batch), reasoner.embed_batch(batch)) > 1e-3


# -- what is taught ----------------------------------------------------------------------------------------------------
def test_open_is_taught_as_text_and_latents_and_close_never_are(reasoner, batch):
    v = reasoner.vocabulary
    assert (batch.loss_weight[batch.ids == v.open] == 1).all()
    assert (batch.loss_weight[(batch.ids == v.close) | (batch.token_type == LATENT)] == 0).all()
    assert (batch.loss_weight[(batch.token_type == PAD) | (batch.token_type == IMAGE)] == 0).all()
    ends = (batch.ids == v.end).long()
    last_end = batch.ids.shape[1] - 1 - ends.flip(1).argmax(1)
    assert (batch.loss_weight.gather(1, last_end[:, None]) == 1).all(), "the end of the assistant's turn is taught"


def test_a_text_part_may_weigh_its_own_loss(reasoner):
    parts = (Text("left ", loss=0.0), Text("right ", loss=0.5), Text("up"))
    row = encode(reasoner, Trace("weights", (Message("user", (Text("go", loss=0.25),)), Message("assistant", parts))))
    words = reasoner.vocabulary.encode_text
    expected = [w for text, w in (("go", 0.25), ("left ", 0.0), ("right ", 0.5), ("up", 1.0)) for _ in words(text)]
    begin = len(words(reasoner.vocabulary.layout.turn.format(role="user")))
    between = len(row.ids) - begin - len(expected) - 1 - len(words("\n"))
    asked = len(words("go"))
    assert row.loss_weight == [0.0] * begin + expected[:asked] + [0.0] * between + expected[asked:] + [1.0] + [
        0.0
    ] * len(words("\n"))


# -- mismatches are errors ---------------------------------------------------------------------------------------------
def test_spans_without_their_pictures_raise(reasoner, batch):
    row = EncodedExample(
        ids=[0, 0], token_type=[TEXT, LATENT], loss_weight=[0.0, 0.0], spans=[(1, 1, 1)], span_weight=[1.0]
    )
    with pytest.raises(ValueError, match="row 0: 1 spans but 0 sketches"):
        reasoner.processor.collate([row])
    batch.sketches = None
    with pytest.raises(ValueError, match="4 spans but 0 sketches"):
        loss_of(reasoner, batch)


def test_a_tokenizer_without_the_layouts_tokens_is_refused(make_backbone):
    from latent_reason.model.tokenization import Layout, Vocabulary

    with pytest.raises(ValueError, match=r"no token '<image>'"):
        Vocabulary(make_backbone().tokenizer, Layout(image="<image>"))


# -- ids are never written down ----------------------------------------------------------------------------------------
def is_number(node):
    return isinstance(node, ast.Constant) and type(node.value) is int


def is_ids(node):
    return not isinstance(node, ast.Call) and any(
        getattr(n, "attr", getattr(n, "id", None)) in ("ids", "input_ids") for n in ast.walk(node)
    )


def nodes(paths, kind):
    """(where, node) of every node of a kind in the sources."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


def comparisons(paths):
    return ((where, [node.left, *node.comparators]) for where, node in nodes(paths, ast.Compare))


def test_no_file_writes_a_token_id_down():
    for where, sides in comparisons(CORE):
        assert not (any(map(is_number, sides)) and any(map(is_ids, sides))), f"{where}: an id is compared with a number"
    for where, node in nodes(CORE, ast.Constant):
        assert not (is_number(node) and 32000 <= node.value < 300000), f"{where}: {node.value} looks like a token id"


def test_only_the_bridge_and_the_engine_compare_ids_with_control_tokens():
    roles = ("open", "latent", "close", "image", "end", "pad")
    for where, sides in comparisons(
        p for p in CORE if p.name not in ("tokenization.py", "processor.py", "engine.py", "steps.py")
    ):
        control = any(isinstance(s, ast.Attribute) and s.attr in roles for s in sides)
        assert not (control and any(map(is_ids, sides))), where


def test_words_that_look_like_control_tokens_stay_words(reasoner):
    v = reasoner.vocabulary
    text = f"a {v.tokens.open} b {v.layout.end} {v.layout.image}"
    trace = Trace("x", (Message("user", (Text(text),)), Message("assistant", (Text(text),))))
    row = encode(reasoner, trace)
    assert v.open not in row.ids and v.image not in row.ids and row.ids.count(v.end) == 2
    assert v.tokenizer.decode(row.ids).count(text) == 2


def test_a_method_without_a_head_refuses_sketches(batch, make_backbone):
    with pytest.raises(ValueError, match="without a latent head"):
        loss_of(methods.build_method("direct", make_backbone()), batch)

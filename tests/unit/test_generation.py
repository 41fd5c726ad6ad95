"""The engine that decodes words and latents in one batch."""

import itertools

import pytest
import torch
from conftest import eager, loss_of, training_batch

from latent_reason import methods
from latent_reason.contracts.closeness import assert_close, is_close
from latent_reason.decoding.engine import generate
from latent_reason.decoding.rollout import Span
from latent_reason.decoding.sampling import STOP, TOKEN, noise_counters, normal, row_keys, shift_keys, uniform
from latent_reason.model.batch import IMAGE, LATENT, PAD, TEXT, shift_right
from latent_reason.objectives.replay import replay

pytestmark = pytest.mark.usefixtures("float64")
COUNT, CLOSE = {"head": "mlp"}, {"head": "mlp", "stop": "close", "supervise": "full"}


@pytest.fixture
def make_reasoner(make_backbone):
    def make(**options):
        return eager(methods.build_method("modal_mixed", make_backbone(), **{"k": 4} | options).eval())

    return make


@pytest.fixture
def reasoner(make_reasoner):
    return make_reasoner(**CLOSE)


@pytest.fixture
def prompts(make_traces):
    """``prompts(reasoner, order)``: the prompts of the four traces in a given order."""
    return lambda reasoner, order=(0, 1, 2, 3): reasoner.processor([make_traces()[i] for i in order], generate=True)


@pytest.fixture
def prompt(prompts, reasoner):
    return prompts(reasoner)


def same(a, b, rows=slice(None)):
    """Whether the rows of one rollout are the rows of another."""
    decided = all(torch.equal(getattr(a, n)[rows], getattr(b, n)) for n in ("ids", "token_type", "text_decisions"))
    return decided and is_close(a.latent_embeds[rows], b.latent_embeds)


# -- E7: no text logit is read inside a span ---------------------------------------------------------------------------
@torch.no_grad()
def states_before(reasoner, out):
    """(B, T, D) the state from which every position of a rollout was decided."""
    fed = torch.where((out.token_type == LATENT)[..., None], out.latent_embeds, reasoner.backbone.embed(out.ids))
    h = reasoner.backbone.forward_text(
        torch.cat([reasoner.prompt_embeddings(out.prompt), fed], 1),
        torch.cat([out.prompt.mask, out.token_type != PAD], 1),
        torch.cat([reasoner.backbone.position_ids(out.prompt), out.positions], -1),
    )
    return shift_right(h)[:, out.prompt.ids.shape[1] :]


def poison(reasoner, inside):
    """Make every logit read at these states NaN, but the two of the stop. Returns how often such a state was read."""
    v, plain, hits = reasoner.vocabulary, reasoner.backbone.logits, []

    def poisoned(h):
        logits = plain(h)
        here = torch.cdist(h, inside).amin(-1) < 1e-3
        hits.append(int(here.sum()))
        others = torch.ones(logits.shape[-1], dtype=torch.bool)
        others[[v.latent, v.close]] = False
        return logits.masked_fill(here[:, None] & others, float("nan"))

    reasoner.backbone.logits = poisoned
    return hits


@pytest.mark.parametrize("options", [COUNT, CLOSE], ids=["count", "close"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_poisoned_logits_inside_spans_change_nothing(make_reasoner, prompts, options, temperature):
    reasoner = make_reasoner(**options)
    v, settings = reasoner.vocabulary, {"max_new_tokens": 20, "temperature": temperature}
    settings["forced_tokens"] = [[v.open], [], [], []]
    clean = generate(reasoner, prompts(reasoner), **settings)
    assert clean.spans
    inside = states_before(reasoner, clean)[(clean.token_type == LATENT) | (clean.ids == v.close)]
    hits = poison(reasoner, inside)
    poisoned = generate(reasoner, prompts(reasoner), **settings)
    assert same(clean, poisoned)
    assert_close(poisoned.log_prob, clean.log_prob)
    assert options is COUNT or sum(hits) > 0, "the stop was read"
    assert poisoned.stop_log_prob.isfinite().all()


def test_poisoned_logits_inside_spans_do_not_reach_the_loss(reasoner, make_traces):
    batch = training_batch(reasoner, make_traces())
    clean = loss_of(reasoner, batch).parts()
    with torch.no_grad():
        embeds = reasoner.embed_batch(batch, reasoner.target(batch))
        h = shift_right(reasoner.backbone.forward_text(embeds, batch.mask, reasoner.backbone.position_ids(batch)))
    hits = poison(reasoner, h[(batch.token_type == LATENT) | (batch.ids == reasoner.vocabulary.close)])
    assert_close(loss_of(reasoner, batch).parts(), clean)
    assert sum(hits) > 0, "the stop was read"


# -- E8: forced words --------------------------------------------------------------------------------------------------
def test_a_forced_phrase_appears_verbatim_and_is_no_choice(make_reasoner, prompts):
    reasoner = make_reasoner(**COUNT)
    v = reasoner.vocabulary
    one, two = v.encode_text("go left"), v.encode_text(" then up.")
    out = generate(
        reasoner,
        prompts(reasoner),
        max_new_tokens=20,
        temperature=1.0,
        forced_tokens=[[*one, v.open, *two], one, [], [v.open, *two]],
    )
    span, n, m = [v.open, *[v.latent] * 4, v.close], len(one), len(two)
    for row, expected in ((0, [*one, *span, *two]), (1, one), (3, [*span, *two])):
        assert out.ids[row].tolist()[: len(expected)] == expected, "the queue waits until the span is closed"
        assert not out.text_decisions[row, : len(expected)].any() and not out.log_prob[row, : len(expected)].any()
        assert out.text_decisions[row, len(expected)], "then the model goes on by itself"
    assert out.text_decisions[2, 0]
    assert out.spans_of(0)[0] == Span(0, n + 1, 4, (2, 2), "count") and out.spans_of(3)[0].start == 1
    assert not out.latent_embeds[out.token_type == TEXT].any()
    words, *_ = replay(reasoner, out)
    assert not words[0, : n + m + 6].any()


def test_a_forced_end_ends_the_row_and_leaves_the_others_alone(reasoner, prompt):
    v = reasoner.vocabulary
    plain = generate(reasoner, prompt, max_new_tokens=12, temperature=1.0)
    out = generate(
        reasoner, prompt, max_new_tokens=12, temperature=1.0, forced_tokens=[[], [*v.encode_text("no"), v.end], [], []]
    )
    assert out.finish_reasons[1] == "end" and (out.token_type[1] != PAD).sum() == len(v.encode_text("no")) + 1
    assert out.text(1, v) == "no"
    assert same(plain.select([0, 2], plain.prompt), out.select([0, 2], out.prompt))


# -- E13: seeds --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("head", ["mlp", "flow"])
def test_a_seed_is_a_rollout_in_any_order_of_the_batch(make_reasoner, prompts, head):
    reasoner = make_reasoner(**CLOSE | {"head": head})
    for p in reasoner.head.parameters():
        torch.nn.init.normal_(p, std=0.2)

    def decoded(seed=5, order=(0, 1, 2, 3), named=10):
        return generate(
            reasoner,
            prompts(reasoner, order),
            seed=seed,
            row_ids=[named + i for i in order],
            max_new_tokens=16,
            temperature=1.0,
            latent_mode="first",
        )

    first = decoded()
    torch.manual_seed(99)
    assert same(first, decoded())
    assert same(first, decoded(order=(2, 0, 3, 1)), [2, 0, 3, 1])
    assert not same(first, decoded(seed=6)) and not same(first, decoded(named=0))


def test_noise_is_keyed_by_everything_that_names_a_draw():
    draws: dict[tuple, tuple] = {}
    for seed, row, position in itertools.product((0, 1), (0, 1, 11), (0, 1, 11)):
        keys, at = row_keys(seed, [row]), torch.tensor([position])
        noise = normal(keys, at, noise_counters(3))[0].tolist()
        draws[seed, row, position] = *(uniform(keys, at, purpose).item() for purpose in (TOKEN, STOP)), *noise
        later = normal(shift_keys(row_keys(seed, [5, row]), torch.tensor([9, 4])), at + 4, noise_counters(3))[1]
        assert later.tolist() == noise, "whatever else is drawn, and wherever the count begins"
    assert len({x for draw in draws.values() for x in draw}) == 5 * len(draws)


def test_random_numbers_are_uniform_normal_and_independent():
    rows, n = 400, 500
    keys, at = row_keys(3, range(rows)), torch.arange(rows)
    u = torch.stack([uniform(keys, torch.full_like(at, t), TOKEN) for t in range(n)], 1).double()
    z = normal(keys, torch.zeros_like(at), noise_counters(n)).double()
    assert (u >= 0).all() and (u < 1).all()
    long = normal(keys[:8], torch.arange(8), noise_counters(50_000))
    assert torch.corrcoef(long).fill_diagonal_(0).abs().max() * 50_000**0.5 < 4.5
    for x, moments in ((u, (1 / 2, 1 / 3, 1 / 4, 1 / 5)), (z, (0, 1, 0, 3))):
        for power, moment in enumerate(moments, 1):
            sample = x.pow(power).flatten()
            assert abs(sample.mean() - moment) < 4.5 * sample.std() / sample.numel() ** 0.5
        for table in (x, x.T):  # of two rows, and of two positions or channels
            related = torch.corrcoef(table).fill_diagonal_(0).abs().max() * table.shape[1] ** 0.5
            assert related < 6, "the largest of 80,000 normal numbers is about 4.4"
    counts = (u * 64).long().flatten().bincount(minlength=64)
    assert ((counts - u.numel() / 64).square() / (u.numel() / 64)).sum() < 63 + 5 * (2 * 63) ** 0.5


# -- what a caller may ask for -----------------------------------------------------------------------------------------
def test_sketching_may_be_off_or_first(reasoner, prompt):
    v = reasoner.vocabulary
    off = generate(reasoner, prompt, max_new_tokens=30, temperature=1.0, latent_mode="off")
    assert (
        not off.spans and not (off.ids == v.open).any() and not off.open_allowed.any() and not off.latent_embeds.any()
    )
    first = generate(reasoner, prompt, max_new_tokens=9, latent_mode="first")
    assert (
        (first.ids[:, 0] == v.open).all()
        and (first.token_type[:, 1] == LATENT).all()
        and not first.text_decisions[:, 0].any()
    )
    with pytest.raises(ValueError, match="'learned', 'off' or 'first'"):
        generate(reasoner, prompt, latent_mode="always")
    with pytest.raises(ValueError, match="a span is forced open"):
        generate(reasoner, prompt, latent_mode="off", forced_tokens=[[v.open], [], [], []])


def test_a_method_that_never_sketches_cannot_be_made_to(make_backbone, make_traces):
    control = methods.build_method("direct", make_backbone())
    prompt = control.processor(make_traces(sketches=False), generate=True)
    with pytest.raises(ValueError, match="a span is forced open, but the model has no latent head"):
        generate(control, prompt, latent_mode="first")
    assert not generate(eager(control), prompt, max_new_tokens=20, temperature=1.0).spans


@pytest.mark.parametrize("options", [COUNT, CLOSE], ids=["count", "close"])
def test_the_number_of_latents_may_be_overridden(make_reasoner, prompts, options):
    reasoner = make_reasoner(**options)
    v = reasoner.vocabulary
    for k in (0, 1, 3, 6):
        out = generate(reasoner, prompts(reasoner), max_new_tokens=k + 4, latent_mode="first", latents_per_span=k)
        assert [s.length for s in out.spans if s.start == 1] == [k] * 4
        assert (out.ids[:, 0] == v.open).all() and (out.ids[:, k + 1] == v.close).all()
    none = generate(
        reasoner, prompts(reasoner), max_new_tokens=12, temperature=1.0, latent_mode="first", latents_per_span=0
    )
    assert not (none.token_type == LATENT).any() and not none.latent_embeds.any()


def test_a_span_is_as_large_as_the_rows_last_picture(make_reasoner, prompts):
    reasoner = make_reasoner(head="mlp", k=32)
    out = generate(reasoner, prompts(reasoner), max_new_tokens=14, latent_mode="first")
    assert [s.grid for s in out.spans if s.start == 1] == [(2, 3), (3, 3), (2, 2), (3, 2)]
    assert [s.length for s in out.spans if s.start == 1] == [6, 9, 4, 6]


def test_what_intervene_returns_is_what_is_fed(reasoner, prompt):
    asked = []

    def fed(rows, spans, slots, vectors, written):
        asked.append((rows.tolist(), spans.tolist(), slots.tolist(), {row: list(ids) for row, ids in written.items()}))
        mark = (100 * rows + 10 * spans + slots).float()
        return mark[:, None].expand_as(vectors)

    out = generate(
        reasoner, prompt, max_new_tokens=[9, 20, 9, 20], temperature=1.0, latent_mode="first", latent_hook=fed
    )
    assert len(out.spans_of(1)) + len(out.spans_of(3)) > 2, "more than one span in a row"
    for row in range(4):
        for number, span in enumerate(out.spans_of(row)):
            expected = 100.0 * row + 10 * number + torch.arange(span.length)
            assert torch.equal(out.latents(span), expected[:, None].expand(-1, 32))
    for step, (rows, _, slots, written) in enumerate(asked, 1):
        for row, slot in zip(rows, slots, strict=True):
            assert written[row] == out.ids[row, : len(written[row])].tolist()
            assert out.token_type[row, len(written[row])] == LATENT and (step > slot)
    words, stops, *_ = replay(reasoner, out)
    assert_close(words, out.log_prob)
    assert_close(stops, out.stop_log_prob)


def test_hidden_pictures_are_out_of_reach_of_words_after_a_sketch(make_reasoner, prompts):
    """Keys and values of the pictures are spoilt in the cache once the first span is full. Where pictures are hidden,
    the words that follow are as before, and the next span, which may look, is not."""
    reasoner = make_reasoner(**COUNT)
    v, trunk = reasoner.vocabulary, reasoner.backbone.forward_text
    said = [v.open, *v.encode_text("no"), v.open, *v.encode_text("no"), v.end]
    given = prompts(reasoner)
    pictures = torch.zeros_like(given.mask)  # their columns in the cache, which holds no padding
    for row, kinds in enumerate(given.token_type):
        columns = (kinds[kinds != PAD] == IMAGE).nonzero()[:, 0]
        pictures[row, columns] = True
    full = 5  # passes: the prompt and its last position, the open token and two latents
    opens = full + 1 + len(v.encode_text("no"))

    def states(spoil, **options):
        seen = []

        def watched(embeds, mask, positions, cache=None):
            for layer in cache.layers if spoil and len(seen) == full else ():
                for held in (layer.keys, layer.values):
                    held.transpose(1, 2)[:, : pictures.shape[1]][pictures] += 1
            seen.append(trunk(embeds, mask, positions, cache))
            return seen[-1]

        reasoner.backbone.forward_text = watched
        generate(reasoner, prompts(reasoner), forced_tokens=[said] * 4, latents_per_span=2, **options)
        return seen

    for hidden in (False, True):
        plain, spoilt = states(False, hide_images=hidden), states(True, hide_images=hidden)
        unchanged = [is_close(a[:, -1], b[:, -1]) for a, b in zip(plain, spoilt, strict=True)]
        assert (
            all(unchanged[:full]) and set(unchanged[full:opens]) == {hidden} and not any(unchanged[opens : opens + 3])
        )


def test_top_p_keeps_the_smallest_set_of_that_mass(make_reasoner, prompts):
    reasoner = make_reasoner(**COUNT)
    prompt = prompts(reasoner)
    tight = generate(reasoner, prompt, max_new_tokens=10, temperature=1.0, top_p=1e-6)
    assert same(tight, generate(reasoner, prompt, max_new_tokens=10)) and not tight.sampled_log_prob.any()
    out = generate(reasoner, prompt, max_new_tokens=25, temperature=0.7, top_p=0.5, seed=1)
    h = states_before(reasoner, out)[out.text_decisions]
    shaped = (
        reasoner.mask_forbidden_tokens(reasoner.backbone.logits(h), out.open_allowed[out.text_decisions]) / 0.7
    ).softmax(-1)
    for p, i, kept in zip(shaped, out.ids[out.text_decisions], out.sampled_log_prob[out.text_decisions], strict=True):
        nucleus = p[p > p[i]].sum()
        assert nucleus < 0.5, "a word outside the nucleus was written"
        order = p.sort(descending=True).values
        mass = order[: int((order.cumsum(0) - order < 0.5).sum())].sum()
        assert_close(kept, (p[i] / mass).log(), scale=1.0)


def test_words_are_drawn_by_their_probability(reasoner, make_traces):
    rows, temperature = 300, 0.5
    prompt = reasoner.processor(make_traces()[2:3] * rows, generate=True)
    out = generate(reasoner, prompt, max_new_tokens=1, temperature=temperature, latent_mode="off")
    h = reasoner.backbone.forward_text(
        reasoner.prompt_embeddings(prompt)[:1], prompt.mask[:1], reasoner.backbone.position_ids(prompt)[:, :1]
    )
    p = (
        reasoner.mask_forbidden_tokens(reasoner.backbone.logits(h[:, -1]), torch.tensor([False])) / temperature
    ).softmax(-1)[0]
    drawn = out.ids[:, 0].bincount(minlength=len(p)) / rows
    assert ((drawn - p).abs() < 4 * (p * (1 - p) / rows).sqrt() + 2 / rows).all()
    assert_close(out.sampled_log_prob[:, 0], p[out.ids[:, 0]].log())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_learned_stop_is_the_models_own(make_reasoner, prompts, temperature):
    for role, length, cause in (("close", 1, "close"), ("latent", 8, "cap")):
        reasoner = make_reasoner(**CLOSE)
        plain, bias = reasoner.backbone.logits, torch.zeros(len(reasoner.vocabulary))
        bias[getattr(reasoner.vocabulary, role)] = 40.0
        reasoner.backbone.logits = lambda states, plain=plain, bias=bias: plain(states) + bias
        out = generate(reasoner, prompts(reasoner), max_new_tokens=12, latent_mode="first", temperature=temperature)
        assert [(s.length, s.cause) for s in out.spans if s.start == 1] == [(length, cause)] * 4


def test_stops_are_drawn_at_the_temperature_of_the_words(make_reasoner, make_traces):
    reasoner, rows, temperature = make_reasoner(**CLOSE), 300, 0.5
    plain, bias = reasoner.backbone.logits, torch.zeros(len(reasoner.vocabulary))
    bias[reasoner.vocabulary.latent] = 0.5
    reasoner.backbone.logits = lambda states: plain(states) + bias
    prompt = reasoner.processor(make_traces()[2:3] * rows, generate=True)
    out = generate(reasoner, prompt, max_new_tokens=6, temperature=temperature, latent_mode="first")
    made = out.stop_decisions[:, 2]
    assert made.all(), "every row decides after its first latent"
    odds = (out.stop_log_prob[:, 2].exp() / (1 - out.stop_log_prob[:, 2].exp())) ** (1 / temperature)
    assert_close(out.sampled_log_prob[:, 2], (odds / (1 + odds)).log())
    closed = out.ids[:, 2] == reasoner.vocabulary.close
    p = out.sampled_log_prob[:, 2].exp()
    p = torch.where(closed, p, 1 - p).mean()
    assert 0.05 < p < 0.95 and (closed.float().mean() - p).abs() < 4 * (p * (1 - p) / rows).sqrt()


def test_words_that_may_not_be_written_never_are(reasoner, prompt):
    v = reasoner.vocabulary
    for seed in range(3):
        out = generate(reasoner, prompt, max_new_tokens=30, temperature=3.0, seed=seed)
        assert not torch.isin(out.ids[out.text_decisions], torch.tensor(v.suppress_tokens)).any()
        assert (out.ids[out.text_decisions] < len(v)).all()


# -- reading a rollout -------------------------------------------------------------------------------------------------
def test_pieces_are_the_words_and_spans_in_order(make_reasoner, prompts):
    reasoner = make_reasoner(**COUNT)
    v = reasoner.vocabulary
    said = [*v.encode_text("go"), v.open, *v.encode_text(" left then "), v.open, *v.encode_text("up."), v.end]
    out = generate(
        reasoner,
        prompts(reasoner),
        max_new_tokens=40,
        forced_tokens=[said, [v.open, *v.encode_text("no"), v.end], [v.end], [*v.encode_text("yes"), v.end]],
    )
    first, second = out.spans_of(0)
    assert out.segments(0, v) == ["go", first, " left then ", second, "up."]
    assert out.segments(1, v) == [*out.spans_of(1), "no"] and out.segments(2, v) == [] and out.segments(3, v) == ["yes"]
    assert out.text(0, v) == "go left then up." and out.finish_reasons == ["end"] * 4
    assert out.latents(second).shape == (4, 32)


def test_rows_stop_by_their_own_budget_and_nothing_is_also_an_answer(reasoner, prompt):
    out = generate(reasoner, prompt, max_new_tokens=[0, 1, 3, 7], latent_mode="off")
    used = (out.token_type != PAD).sum(1).tolist()
    assert all(u <= b for u, b in zip(used, [0, 1, 3, 7], strict=True)) and used[0] == 0
    empty = generate(reasoner, prompt, max_new_tokens=0)
    assert empty.ids.shape == (4, 0) and empty.segments(0, reasoner.vocabulary) == []
    assert replay(reasoner, empty)[0].shape == (4, 0)


def test_generate_leaves_the_mode_of_the_model_as_it_was(reasoner, prompt):
    for training in (True, False):
        reasoner.train(training)
        out = generate(reasoner, prompt, max_new_tokens=3)
        assert reasoner.training == training and not out.latent_embeds.requires_grad

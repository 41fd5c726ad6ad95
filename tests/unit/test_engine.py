"""The engine under generate(): what a step costs, where keys and values lie, and rows that come and go."""

from dataclasses import replace

import pytest
import torch
from conftest import CASES, eager
from torch._dynamo.backends.debugging import aot_eager

from eval.bench.counting import HostReads, count_operations
from eval.bench.models import plain_step
from latent_reason import GenerationConfig, generate, load_backbone, methods
from latent_reason.contracts.closeness import assert_close, relative_error
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.decoding.batch_invariant import batch_invariant
from latent_reason.decoding.engine import Engine
from latent_reason.decoding.prompt_store import PromptStore
from latent_reason.decoding.queue import Request, RequestQueue, decode_requests
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.backbones.cache import GROWTH
from latent_reason.model.batch import PAD
from latent_reason.objectives.replay import replay
from latent_reason.trace import Message, Text, Trace

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm")


@pytest.fixture
def make_reasoner():
    def make(family="qwen2_5_vl", ends=False, **options):
        torch.manual_seed(0)
        backbone = load_backbone("tiny-" + family.replace("_", "-"))
        reasoner = methods.build_method("modal_mixed", backbone, **{"k": 4} | options).eval()
        if ends:
            return eager(reasoner)
        with torch.no_grad():  # it never ends by itself
            backbone.model.get_output_embeddings().weight[reasoner.vocabulary.end] = 0
        return reasoner

    return make


# -- what a step costs -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_takes_few_operations_and_one_read(make_reasoner, make_traces, family, rows):
    reasoner = make_reasoner(family, head="flow")
    reasoner.backbone.model.set_attn_implementation("sdpa")
    prompt = reasoner.processor(make_traces()[:1] * rows, generate=True)
    step = plain_step(reasoner, prompt)
    step()
    plain = count_operations(step)
    for temperature in (0.0, 1.0):
        config = GenerationConfig(max_new_tokens=30, latent_mode="off", temperature=temperature, seed=2)
        engine = Engine(reasoner, config, rows)
        engine.admit(prompt)
        engine.step()
        assert engine.kind == "text" and engine.num_active
        assert count_operations(engine.step) <= 1.25 * plain
        with HostReads() as reads:
            engine.step()
        assert reads.total == 1
    config = GenerationConfig(max_new_tokens=60, latent_mode="first", latents_per_span=9)
    engine = Engine(reasoner, config, rows)
    engine.admit(prompt)
    engine.step()
    assert engine.kind == "latent"
    for _ in range(8):
        assert count_operations(engine.step) <= 1.5 * plain
        assert engine.kind == "latent"


def test_a_span_of_known_length_is_not_read(make_reasoner, make_traces):
    reasoner = make_reasoner(head="flow")
    prompt = reasoner.processor(make_traces()[:1] * 3, generate=True)
    engine = Engine(reasoner, GenerationConfig(max_new_tokens=40, latent_mode="first", latents_per_span=20), 3)
    engine.admit(prompt)
    engine.step()
    with HostReads() as reads:
        for _ in range(20):
            engine.step()
    assert reads.total == 0 and engine.num_reads == 1
    assert engine.kind == "mixed", "now the spans are closed"


# -- where keys and values lie -----------------------------------------------------------------------------------------
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hide_images", [False, True])
def test_a_static_cache_decodes_as_a_dynamic_one(make_reasoner, make_traces, family, hide_images):
    reasoner = make_reasoner(family, head="flow")
    prompt = reasoner.processor(make_traces(), generate=True)
    settings = {
        "max_new_tokens": [70, 30, 20, 9],
        "temperature": 1.0,
        "latent_mode": "first",
        "hide_images": hide_images,
    }
    dynamic, static = (generate(reasoner, prompt, cache_implementation=x, **settings) for x in ("dynamic", "static"))
    check_same(static, dynamic)


def check_same(one, other):
    for name in ("ids", "token_type", "text_decisions", "positions", "open_allowed"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("latent_embeds", "log_prob", "sampled_log_prob"):
        assert_close(getattr(one, name), getattr(other, name))
    assert one.spans == other.spans and one.finish_reasons == other.finish_reasons


def test_a_row_may_end_where_the_cache_does(make_reasoner, make_traces):
    """The longest row ends at the last column there is, and a shorter one goes on."""
    reasoner = make_reasoner(head="mlp")
    prompt = reasoner.processor(make_traces(), generate=True)
    lengths = (prompt.token_type != PAD).sum(1).tolist()
    longest, room = lengths.index(max(lengths)), GROWTH - max(lengths)
    for budget in range(room - 1, room + 3):
        budgets = [
            budget if row == longest else budget + max(lengths) - length - 3 for row, length in enumerate(lengths)
        ]
        budgets = [n + 6 if row == (longest + 1) % 4 else n for row, n in enumerate(budgets)]
        for options in ({}, {"cache_implementation": "static"}):
            out = generate(reasoner, prompt, max_new_tokens=budgets, latent_mode="off", **options)
            assert (out.token_type != PAD).sum(1).tolist() == budgets


def test_a_row_that_has_ended_has_room_next_to_a_whole_span(make_reasoner):
    """The longest row ends near the last column there is; then a shorter one feeds a whole span at once."""
    reasoner = make_reasoner(head="whole_span", k=9)
    traces = [Trace(str(n), (Message("user", (Text("go " * n),)),)) for n in (24, 2)]
    prompt, v = reasoner.processor(traces, generate=True), reasoner.vocabulary
    budgets = [GROWTH - prompt.ids.shape[1] - 2, GROWTH - prompt.ids.shape[1] + 12]
    words = [v.encode_text("go")[0]] * budgets[0]
    rollout = generate(reasoner, prompt, max_new_tokens=budgets, forced_tokens=[[], [*words, v.open]])
    assert (rollout.token_type != PAD).sum(1).tolist() == budgets and len(rollout.spans) == 1


@pytest.mark.usefixtures("float64")
def test_a_prompt_of_several_rows_is_computed_once(make_reasoner, make_traces, monkeypatch):
    reasoner, seen = make_reasoner(ends=True, head="flow"), []
    trunk = reasoner.backbone.forward_text
    prompt = reasoner.processor([trace for trace in make_traces()[:2] for _ in range(3)], generate=True)
    settings = {"max_new_tokens": 20, "temperature": 1.0, "latent_mode": "first"}
    plain = generate(reasoner, prompt, **settings)

    def recorded(embeds, *given):
        seen.append(embeds.shape[:2])
        return trunk(embeds, *given)

    monkeypatch.setattr(reasoner.backbone, "forward_text", recorded)
    check_same(generate(reasoner, prompt, group_size=3, **settings), plain)
    assert seen[0] == (2, prompt.ids.shape[1] - 1) and not torch.equal(plain.ids[0], plain.ids[1])
    with pytest.raises(ValueError, match="6 rows are no groups of 4"):
        generate(reasoner, prompt, group_size=4, **settings)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_prompt_is_not_computed_again(make_reasoner, make_traces, monkeypatch, family):
    """The second run takes other rows together, in other slots, and only writes."""
    reasoner, seen = make_reasoner(family, ends=True, head="flow"), []
    traces, store = [trace.prompt() for trace in make_traces()], PromptStore()
    config = GenerationConfig(max_new_tokens=14, latent_mode="first", hide_images=True)

    def run(slots: int, prompts: PromptStore | None, order: int = 1) -> dict[int, Rollout]:
        requests = [Request(trace, n, prompts=prompts) for n, trace in enumerate(traces)][::order]
        done = decode_requests(reasoner, requests, config, slots)
        return {one.request.number: one.rollout.select([one.row], one.rollout.prompt) for one in done}

    trunk = reasoner.backbone.forward_text
    monkeypatch.setattr(reasoner.backbone, "forward_text", lambda e, *rest: seen.append(e.shape[1]) or trunk(e, *rest))
    plain, first = run(len(traces), None), run(len(traces), store)
    assert max(seen) > 10 and store.num_bytes > 0
    seen.clear()
    second = run(2, store, -1)
    assert set(seen) == {1}, "no prompt was computed"
    for n in range(len(traces)):
        for other in (first[n], second[n]):
            assert other.ids.tolist() == plain[n].ids.tolist()
            assert_close(other.latent_embeds, plain[n].latent_embeds)
    full = PromptStore(max_bytes=store.num_bytes // 2)
    run(len(traces), full)
    assert 0 < full.num_bytes <= full.max_bytes and full.find(traces) is None
    check = run(len(traces), full)
    assert all(check[n].ids.tolist() == plain[n].ids.tolist() for n in check)


# -- rows that come and go ---------------------------------------------------------------------------------------------
METHODS = ("modal_mixed", "coconut", "covt", "latent_sketchpad", "deepsketcher", "skila")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", METHODS)
def test_a_request_is_answered_as_it_is_alone(make_backbone, make_traces, ready_once, method):
    """In any number of slots, in any order, next to any others."""
    case = next(case for case in CASES if case.method == method)
    reasoner = eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())
    traces, budgets = make_traces(reasoner.can_sketch) * 2, [5, 31, 9, 17, 24, 3, 12, 40]
    opens = [reasoner.vocabulary.open]
    config = GenerationConfig(
        temperature=1.0, seed=4, answer_prefix=reasoner.vocabulary.encode_text("So"), answer_budget=3
    )
    requests = [
        Request(trace, n, max_new_tokens=budget, forced_tokens=opens if n % 2 else ())
        for n, (trace, budget) in enumerate(zip(traces, budgets, strict=True))
    ]
    alone = [
        generate(
            reasoner,
            reasoner.processor([request.trace], generate=True),
            replace(config, max_new_tokens=request.max_new_tokens, forced_tokens=[request.forced_tokens]),
            row_ids=[request.number],
        )
        for request in requests
    ]
    for slots, order in ((3, 1), (3, -1), (2, 1), (8, 1)):
        answered = list(decode_requests(reasoner, requests[::order], config, slots))
        assert sorted(request.number for request, *_ in answered) == list(range(8))
        for request, rollout, row, _ in answered:
            one = rollout.select([row], alone[request.number].prompt)
            check_same(one, alone[request.number])
            assert one.forced_answer == alone[request.number].forced_answer
    assert any(rollout.spans for rollout in alone)
    queue = RequestQueue(reasoner, config, 2)
    for request in requests:
        queue.submit(request)
    while not queue.is_idle:
        queue.step()
    engine = queue.engine
    assert not engine.records and (engine.slots.history is None or engine.slots.history.length == 0), "nothing is kept"


@pytest.mark.usefixtures("float64")
def test_a_whole_span_is_one_pass(make_reasoner, make_traces, monkeypatch):
    """It is drawn from one state and fed at once, next to rows that write; the answer is that of one latent a pass."""
    reasoner = make_reasoner(ends=True, head="whole_span", k=9)
    for parameter in reasoner.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    prompt, v = reasoner.processor(make_traces(), generate=True), reasoner.vocabulary
    forced = [[v.open, *v.encode_text("go"), v.open], [], v.encode_text("go on"), [v.open]]
    settings = {"max_new_tokens": [60, 30, 20, 3], "forced_tokens": forced, "seed": 3}

    def decoded(temperature, **options):
        config = GenerationConfig(temperature=temperature, **settings, **options)
        engine = Engine(reasoner, config, 4)
        group = engine.admit(prompt)
        while engine.num_active:
            engine.step()
            engine.compact()
        return engine.collect(group), engine.num_passes

    for temperature in (0.0, 1.0):
        whole, passes = decoded(temperature)
        one, more_passes = decoded(temperature, latent_hook=lambda rows, spans, slots, latents, written: latents)
        check_same(whole, one)
        assert {span.cause for span in whole.spans} == {"count", "budget"} and more_passes > passes
        words, *_ = replay(reasoner, whole)
        assert_close(words, whole.log_prob)
    requests = [
        Request(trace, n, max_new_tokens=m, forced_tokens=f)
        for n, (trace, m, f) in enumerate(zip(make_traces(), settings["max_new_tokens"], forced, strict=True))
    ]
    for request, rollout, row, _ in decode_requests(reasoner, requests, GenerationConfig(temperature=1.0, seed=3), 2):
        alone = rollout.select([row], rollout.prompt)
        check_same(alone, whole.select([request.number], whole.prompt))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_a_whole_span_leaves_nothing_to_other_rows(make_reasoner, make_traces, family):
    """Neither to the next row of its slot, where the span was the end of its row, nor to a longer or shorter one."""
    reasoner = make_reasoner(family, head="whole_span", k=9)
    for parameter in reasoner.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    v, traces = reasoner.vocabulary, make_traces()
    requests = [
        Request(traces[0], 0, max_new_tokens=2, forced_tokens=[v.open]),  # its budget ends with its span
        Request(traces[1], 1, max_new_tokens=20, forced_tokens=[v.open]),
        Request(traces[3], 2, max_new_tokens=9, forced_tokens=[*v.encode_text("go on and on"), v.open]),
        Request(traces[2], 3, max_new_tokens=14, forced_tokens=[v.open]),
    ]
    config = GenerationConfig(temperature=1.0, seed=3)
    alone = {n: next(decode_requests(reasoner, [request], config, 1)) for n, request in enumerate(requests)}
    for slots in (1, 2, 4):
        for request, rollout, row, _ in decode_requests(reasoner, requests, config, slots):
            one = alone[request.number].rollout
            check_same(rollout.select([row], one.prompt), one)


@pytest.mark.usefixtures("float64")
def test_hidden_images_and_whole_spans(make_reasoner, make_traces):
    reasoner = make_reasoner(ends=True, head="whole_span", k=9)
    prompt = reasoner.processor(make_traces(), generate=True)
    settings = {"max_new_tokens": 20, "latent_mode": "first", "hide_images": True}
    hooked = generate(reasoner, prompt, latent_hook=lambda rows, spans, slots, z, written: z, **settings)
    check_same(generate(reasoner, prompt, **settings), hooked)


@pytest.mark.parametrize("head", ["flow", "autoregressive", "whole_span"])
@pytest.mark.parametrize("static", ["static", "dynamic"])
def test_a_row_of_nan_spoils_no_other(make_reasoner, make_traces, head, static):
    reasoner = make_reasoner(head=head)
    bad = reasoner.vocabulary.encode_text("bad")[0]
    with torch.no_grad():
        reasoner.backbone.model.get_input_embeddings().weight[bad] = float("nan")
    plain = reasoner.backbone.logits
    reasoner.backbone.logits = lambda h: plain(h).index_fill(-1, torch.tensor([bad]), -9.0)
    opens, trace = reasoner.vocabulary.open, make_traces()[0]
    requests = [
        Request(trace, n, max_new_tokens=16, forced_tokens=[bad, opens] if n < 2 else [opens]) for n in range(4)
    ]
    config = GenerationConfig(cache_implementation=static)
    for one in decode_requests(reasoner, requests, config, 2):
        spoilt = not one.rollout.select([one.row], one.rollout.prompt).latent_embeds.isfinite().all()
        assert spoilt == (one.request.number < 2)


def test_a_span_longer_than_the_head_allows_is_refused(make_reasoner, make_traces):
    reasoner = make_reasoner(head="autoregressive", head_options={"longest": 8})
    prompt = reasoner.processor(make_traces(), generate=True)
    with pytest.raises(ValueError, match="a span of 9 latents, but the head was built for longest=8"):
        generate(reasoner, prompt, latents_per_span=9)


def test_slots_are_in_use(make_reasoner, make_traces):
    """Lengths are spread over a factor of ten; the next request comes as soon as a slot is free."""
    reasoner, n, slots = make_reasoner(head="mlp"), 120, 8
    random = torch.Generator().manual_seed(0)
    lengths = (10 ** (1 + torch.rand(n, generator=random))).int().sort(descending=True).values.tolist()
    v = reasoner.vocabulary
    queue = RequestQueue(reasoner, GenerationConfig(latent_mode="off"), slots)
    for number, length in enumerate(lengths):
        words = (v.encode_text("go on") * length)[:length]
        queue.submit(Request(make_traces()[0], number, max_new_tokens=length, forced_tokens=words))
    done = []
    while not queue.is_idle:
        done += queue.step()
    assert len(done) == n and all((r.rollout.token_type[r.row] != PAD).sum() == lengths[r.request.number] for r in done)
    assert queue.engine.num_row_steps == sum(lengths)
    assert queue.engine.num_row_steps / (queue.engine.num_passes * slots) >= 0.95
    assert max(lengths) >= 9 * min(lengths) and not queue.engine.records


def test_a_request_may_be_stopped(make_reasoner, make_traces):
    reasoner = make_reasoner(head="mlp")
    queue = RequestQueue(reasoner, GenerationConfig(latent_mode="off", max_new_tokens=30), 2)
    for number in range(4):
        queue.submit(Request(make_traces()[0], number))
    done = [x for _ in range(5) for x in queue.step()]
    queue.cancel(1)
    queue.cancel(3)
    while not queue.is_idle:
        done += queue.step()
    lengths = {r.request.number: int((r.rollout.token_type[r.row] != PAD).sum()) for r in done}
    assert lengths.keys() == {0, 1, 2} and lengths[1] == 5


@pytest.mark.parametrize("head", ["flow", "mlp"])
def test_replay_is_the_rollout_in_single_precision(make_reasoner, make_traces, head):
    reasoner = make_reasoner(ends=True, head=head, stop="close", supervise="full")
    prompt = reasoner.processor(make_traces(), generate=True)
    rollout = generate(reasoner, prompt, max_new_tokens=40, temperature=1.0, latent_mode="first", seed=1)
    assert rollout.spans and rollout.stop_decisions.any()
    words, stops, *_ = replay(reasoner, rollout)
    assert relative_error(words + stops, rollout.log_prob + rollout.stop_log_prob) < 1e-6


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_replay_is_the_rollout_to_the_bit_where_arithmetic_is_batch_invariant(make_reasoner, make_traces, family):
    reasoner = make_reasoner(family, ends=True, head="flow", stop="close", supervise="full")
    prompt = reasoner.processor(make_traces()[:3], generate=True)
    settings = {"max_new_tokens": [12, 9, 5], "temperature": 0.7, "latent_mode": "first", "seed": 1}
    with torch.no_grad():
        plain = generate(reasoner, prompt, **settings)
        with batch_invariant():
            rollout = generate(reasoner, prompt, **settings)
            exact = replay(reasoner, rollout, temperature=0.7)
            alone = generate(
                reasoner,
                reasoner.processor(make_traces()[1:2], generate=True),
                row_ids=[1],
                **settings | {"max_new_tokens": 9},
            )
    assert rollout.spans and torch.equal(exact.text + exact.stops, rollout.sampled_log_prob)
    assert torch.equal(exact.stops != 0, rollout.stop_decisions)
    assert torch.equal(alone.latent_embeds[0], rollout.latent_embeds[1, : alone.ids.shape[1]])
    assert torch.equal(alone.log_prob[0], rollout.log_prob[1, : alone.ids.shape[1]])
    assert not torch.equal(plain.latent_embeds, rollout.latent_embeds), "or there was nothing to mend"


# -- compiled ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def graphs(monkeypatch):
    """The graphs that torch.compile makes, without code for a machine. It raises at the first graph break."""
    made, plain = [], torch.compile

    def backend(graph, inputs):
        made.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", lambda *given, **options: plain(*given, **options | {"backend": backend}))
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "family, options",
    [
        pytest.param("qwen2_5_vl", {"head": "flow"}, id="qwen2_5_vl"),
        pytest.param(
            "gemma3", {"head": "mlp", "stop": "close", "supervise": "full"}, id="gemma3", marks=pytest.mark.long
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch imports to compile
def test_compiled_steps_are_whole_and_three(make_reasoner, make_traces, graphs, family, options):
    reasoner = make_reasoner(family, ends=True, **options)
    reasoner.backbone.model.set_attn_implementation("sdpa")
    prompt = reasoner.processor(make_traces(), generate=True)
    settings = {"max_new_tokens": [40, 30, 20, 9], "temperature": 1.0, "latent_mode": "first", "seed": 3}
    plain = generate(reasoner, prompt, **settings)
    compiled = generate(reasoner, prompt, compile=True, **settings)
    assert torch.equal(compiled.ids, plain.ids) and compiled.spans == plain.spans
    assert relative_error(compiled.latent_embeds, plain.latent_embeds) < 1e-5
    assert relative_error(compiled.log_prob, plain.log_prob) < 1e-5
    assert 2 <= len(graphs) <= 3, "one for each kind of step: text, latent (of counted spans) and mixed"
    generate(reasoner, prompt, compile=True, **settings | {"seed": 4})
    assert len(graphs) <= 3, "and none for another rollout"
    if family == "gemma3":
        for rows in (1, 2, 3):  # more than the graphs that torch allows a function by itself
            some = reasoner.processor(make_traces()[:rows], generate=True)
            generate(reasoner, some, compile=True, max_new_tokens=12, latent_mode="first")
        assert len(graphs) <= 12


@pytest.mark.parametrize("head", ["flow", "whole_span"])
def test_decoding_under_autocast(make_reasoner, make_traces, head):
    """Keys of a prompt and of a step may then differ in precision."""
    reasoner = make_reasoner(head=head)
    prompt = reasoner.processor(make_traces(), generate=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = generate(reasoner, prompt, max_new_tokens=12, latent_mode="first", latents_per_span=3)
    assert len(out.spans) >= 4 and out.latent_embeds.isfinite().all() and out.log_prob.isfinite().all()

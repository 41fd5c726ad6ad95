"""Test-time methods that choose what is fed, and those that choose among answers."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import CASES, eager

from latent_reason import GenerationConfig, generate, load_backbone, methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.decoding.queue import Request, decode_requests
from latent_reason.decoding.strategies import make_decoding
from latent_reason.decoding.strategies.mixtures import Lead, SoftThinking, SwiReasoning
from latent_reason.decoding.strategies.step_search import StepSearch
from latent_reason.decoding.strategies.voting import BestOfN, SelfConsistency, final_answer
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import rollout_states

pytestmark = pytest.mark.usefixtures("float64")
RULES = [
    SoftThinking(top_n=5),
    SoftThinking(top_n=3, cold_entropy=100.0, cold_steps=6, close_phrase="so"),
    SwiReasoning(window=3, max_switches=2, close_phrase="so", open_phrase="go"),
    Lead(window=2, starts_soft=True),
]


@pytest.fixture
def reasoner(make_backbone, make_traces, ready_once):
    case = next(c for c in CASES if c.method == "modal_mixed")._replace(options={"k": 4, "head": "flow"})
    return eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())


def settings(reasoner, **options):
    v = reasoner.vocabulary
    forced = [[v.open], [], [*v.encode_text("go"), v.open], []]
    return {"max_new_tokens": [40, 30, 24, 12], "forced_tokens": forced, "seed": 2} | options


# -- mixtures ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rule",
    [SoftThinking(top_n=1), SwiReasoning(window=math.inf), Lead(window=math.inf)],
    ids=lambda r: type(r).__name__,
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neutral_knobs_are_plain_decoding(reasoner, make_traces, rule, temperature):
    if temperature and isinstance(rule, SoftThinking):
        pytest.skip("a mixture of one token is its most probable one, not a sample")
    prompt = reasoner.processor(make_traces(), generate=True)
    plain, mixed = (
        generate(reasoner, prompt, mixture=x, **settings(reasoner, temperature=temperature)) for x in (None, rule)
    )
    assert torch.equal(plain.ids, mixed.ids) and torch.equal(plain.token_type, mixed.token_type)
    is_latent = plain.token_type == LATENT
    assert torch.equal(plain.latent_embeds[is_latent], mixed.latent_embeds[is_latent])
    assert bool(mixed.mixed.any()) == isinstance(rule, SoftThinking)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_mixtures_are_fed_and_nothing_else(reasoner, make_traces, rule):
    prompt = reasoner.processor(make_traces(), generate=True)
    out = generate(reasoner, prompt, mixture=rule, **settings(reasoner, temperature=1.0))
    assert out.mixed.any() and out.spans and not out.mixed[out.token_type != TEXT].any()
    v, h = reasoner.vocabulary, rollout_states(reasoner, out).detach()
    assert not torch.isin(out.ids[out.mixed], torch.tensor([v.open, v.end, v.close])).any()
    weights = reasoner.backbone.logits(h).log_softmax(-1)
    for row, at in out.mixed.nonzero().tolist():
        p = weights[row, at].exp()
        p[reasoner.forbidden_tokens()[0]] = 0
        p[[v.open, v.end]] = 0
        assert out.ids[row, at] == p.argmax()
        top = p.topk(rule.top_n)
        mixture = (top.values / top.values.sum()) @ reasoner.backbone.embed(top.indices)
        fed = out.latent_embeds[row, at]
        is_first = not out.mixed[row, :at].any() if isinstance(rule, Lead | SwiReasoning) else False
        if not is_first and isinstance(rule, SoftThinking):
            assert_close(fed, mixture)
    words, *_ = replay(reasoner, out)
    assert_close(words, out.log_prob)
    for row in range(2):
        alone = generate(
            reasoner,
            reasoner.processor(make_traces()[row : row + 1], generate=True),
            mixture=rule,
            row_ids=[row],
            **{n: [x[row]] if isinstance(x, list) else x for n, x in settings(reasoner, temperature=1.0).items()},
        )
        n = alone.ids.shape[1]
        assert torch.equal(alone.ids[0], out.ids[row, :n]) and torch.equal(alone.mixed[0], out.mixed[row, :n])


def test_an_answer_is_written_in_tokens(reasoner, make_traces):
    v, prompt = reasoner.vocabulary, reasoner.processor(make_traces()[:1], generate=True)
    marker = v.encode_text("\\boxed{")
    out = generate(
        reasoner, prompt, mixture=SoftThinking(), max_new_tokens=40, forced_tokens=[marker], latent_mode="off"
    )
    assert out.ids.shape[1] > len(marker) and not out.mixed.any()


def test_the_reasoning_is_closed_by_a_phrase(reasoner, make_traces):
    v, prompt = reasoner.vocabulary, reasoner.processor(make_traces(), generate=True)
    rule = SoftThinking(cold_entropy=100.0, cold_steps=4, close_phrase="so then")
    phrase = v.encode_text(rule.close_phrase)
    out = generate(reasoner, prompt, mixture=rule, max_new_tokens=20, latent_mode="off")
    for row in range(4):
        if int((out.token_type[row] == TEXT).sum()) < 4 + len(phrase):
            continue
        assert out.mixed[row].nonzero()[:, 0].tolist() == [0, 1, 2]
        assert out.ids[row, 4 : 4 + len(phrase)].tolist() == phrase
    assert out.mixed.any()


def test_a_switch_follows_the_entropy():
    rule = Lead(window=2, max_switches=2)
    state = {name: x for name, x in rule.first_state(1, torch.device("cpu")).items()}
    free, seen = torch.tensor([True]), []
    for entropy in (1.0, 1.5, 1.5, 1.6, 1.7, 0.9, 2.0, 2.0, 2.0, 0.5):
        mixed = rule.choose_soft(state, torch.tensor([entropy]), free)
        seen.append((bool(mixed.soft), bool(mixed.closing), round(float(mixed.vectors), 1)))
    soft = [False, False, True, True, True, False, False, False, True, False]
    assert [s for s, *_ in seen] == soft
    assert [w for s, _, w in seen if s] == [0.6, 1.0, 1.0, 0.6] and [c for _, c, _ in seen] == [False] * 9 + [True]


# -- several answers ---------------------------------------------------------------------------------------------------
def requests(reasoner, traces):
    opens = [reasoner.vocabulary.open]
    return [
        Request(trace, n, max_new_tokens=24, forced_tokens=opens if n % 2 else ()) for n, trace in enumerate(traces)
    ]


@pytest.mark.parametrize("strategy", [BestOfN(1), SelfConsistency(1), StepSearch(1, 1)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_answer_is_plain_decoding(reasoner, make_traces, strategy, temperature):
    config = GenerationConfig(temperature=temperature, seed=7)
    plain, found = (
        {one.request.number: one for one in decode(reasoner, requests(reasoner, make_traces()), config, 3)}
        for decode in (decode_requests, strategy)
    )
    for number in range(4):
        (_, a, i, _), (_, b, j, _) = plain[number], found[number]
        a, b = a.select([i], a.prompt), b.select([j], b.prompt)
        assert torch.equal(a.ids, b.ids) and a.spans == b.spans and a.finish_reasons == b.finish_reasons
        assert_close(b.latent_embeds, a.latent_embeds)
        assert_close(b.log_prob, a.log_prob)


def test_the_best_and_the_most_frequent_answers_are_chosen(reasoner, make_traces):
    config, wanted = GenerationConfig(temperature=1.0), requests(reasoner, make_traces())
    plain = {
        (number, n): next(
            iter(decode_requests(reasoner, [replace(wanted[number], row_id=number + n * 2**40)], config, 1))
        )
        for number in range(4)
        for n in range(5)
    }
    scores = lambda request, rollout, row: float(rollout.ids[row].sum())
    for number, found in ((f.request.number, f) for f in BestOfN(5, score=scores)(reasoner, wanted, config, 4)):
        samples = [plain[number, n] for n in range(5)]
        best = max(samples, key=lambda one: scores(*one[:3]))
        assert found.rollout.text(found.row, reasoner.vocabulary) == best.rollout.text(0, reasoner.vocabulary)
        lengths = [int((one.rollout.token_type[0] != 0).sum()) for one in samples]
        assert found.cost.tokens + found.cost.latents == sum(lengths) and found.cost.passes == max(lengths) + 1
    for found in SelfConsistency(5)(reasoner, wanted, config, 4):
        answers = [final_answer(plain[found.request.number, n].rollout.text(0, reasoner.vocabulary)) for n in range(5)]
        answer = final_answer(found.rollout.text(found.row, reasoner.vocabulary))
        assert answers.count(answer) == max(map(answers.count, answers))


def test_the_answer_of_a_text_is_its_box_or_its_last_line():
    assert final_answer("so \\boxed{U,R} or \\boxed{D}") == "D" and final_answer("so\nleft \n") == "left"


@pytest.mark.parametrize("method", ["modal_mixed", "direct"])
def test_steps_are_searched(reasoner, make_backbone, make_traces, method):
    if method == "direct":
        reasoner = eager(methods.build_method("direct", make_backbone()).eval())
    v, wanted = reasoner.vocabulary, requests(reasoner, make_traces(reasoner.can_sketch))
    if method == "direct":
        wanted = [replace(request, forced_tokens=v.encode_text("go\nleft")) for request in wanted]
    judged = []

    def verifier(model, request, ids):
        judged.append((request.number, list(ids)))
        return sum(ids) / len(ids)

    search = StepSearch(2, 3, max_steps=3, verifier=verifier)
    found = {one.request.number: one for one in search(reasoner, wanted, GenerationConfig(seed=1), 12)}
    for number, one in found.items():
        ids = one.rollout.ids[0, : int((one.rollout.token_type[0] != 0).sum())].tolist()
        ended = [path for n, path in judged if n == number and (path[-1] == v.end or len(path) >= 24)]
        assert ids in ended, "a path that was judged"
        assert one.cost.tokens + one.cost.latents >= len(ids) and one.cost.passes > len(ids)
        words, *_ = replay(reasoner, one.rollout)
        assert_close(words, one.rollout.log_prob)
    plain = StepSearch(2, 2)
    assert len(list(plain(reasoner, wanted, GenerationConfig(seed=1), 1))) == 4, "judged by its own answers"


def test_searches_follow_seeds_and_budgets(reasoner, make_traces):
    trace, config = make_traces()[0], GenerationConfig(temperature=1.0)
    made = [make_decoding(name) for name in ("step_search:max_steps=2", "ltpo:iterations=1", "best_of_n:n=2")]
    for strategy in made:
        ids = [
            next(iter(strategy(reasoner, [Request(trace, 0, max_new_tokens=12, seed=seed)], config, 6))).rollout.ids
            for seed in (1, 2, 1)
        ]
        assert torch.equal(ids[0], ids[2]) and not torch.equal(ids[0], ids[1]), strategy
        (nothing,) = strategy(reasoner, [Request(trace, 0, max_new_tokens=0)], config, 6)
        assert nothing.rollout.text(nothing.row, reasoner.vocabulary) == ""
    with pytest.raises(ValueError, match="samples of a request have one number"):
        list(made[2](reasoner, [Request(trace, 0)], replace(config, latent_hook=lambda *given: given[3]), 2))


def test_heads_that_read_the_states_are_not_searched(make_backbone, make_traces, ready_once):
    case = next(case for case in CASES if case.method == "latent_sketchpad")
    reasoner = eager(ready_copy(case, make_backbone, make_traces, ready_once).eval())
    with pytest.raises(ValueError, match="AutoregressiveHead reads more than the state"):
        list(StepSearch()(reasoner, requests(reasoner, make_traces()), GenerationConfig(), 4))


@pytest.mark.parametrize("family", ["qwen3-vl", "gemma3", "smolvlm"])
def test_they_work_on_untouched_backbones(make_traces, family):
    reasoner = eager(methods.build_method("direct", load_backbone(f"tiny-{family}")).eval())
    wanted = [Request(trace, n, max_new_tokens=10) for n, trace in enumerate(make_traces(sketches=False)[:2])]
    for rule in (SoftThinking(), Lead(window=1), SwiReasoning(window=1)):
        assert len(list(decode_requests(reasoner, wanted, GenerationConfig(mixture=rule), 2))) == 2
    for strategy in (BestOfN(2), SelfConsistency(3), StepSearch(2, 2)):
        assert len(list(strategy(reasoner, wanted, GenerationConfig(), 2))) == 2

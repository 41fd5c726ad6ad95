"""Every method on other families than the one its contracts are tested on: it trains, a row does not see its batch, and
a rollout is replayed."""

import pytest
import torch
from conftest import CASES, eager, loss_of, ready, training_batch

from latent_reason import checkpoint, methods
from latent_reason.contracts.closeness import assert_close
from latent_reason.contracts.fixtures import ready_copy
from latent_reason.decoding.engine import generate
from latent_reason.model.backbones import load_backbone
from latent_reason.model.backbones.families import FAMILIES
from latent_reason.objectives.replay import replay

float64 = pytest.mark.usefixtures("float64")

#: of methods with the same kinds of head and target, each family gets one
GROUPS = [
    ("coconut", "cvrr", "mcout", "monet"),
    ("mirage", "swimbird"),
    ("direct", "text_cot"),
    *(
        (name,)
        for name in "atlas blank colt covt deepsketcher hylar ilvr latent_sketchpad livr lvr modal_mixed scolar skila".split()
    ),
]
#: latent_sketchpad draws what a connector takes, and not every family has one that stands alone
TRIED = [
    (group[number % len(group)], family)
    for number, family in enumerate(("qwen3_vl", "gemma3", "llava_onevision", "internvl", "smolvlm"))
    for group in GROUPS
    if group != ("latent_sketchpad",) or family in ("llava_onevision", "internvl")
]


def test_every_method_head_and_target_is_tried(make_backbone, make_traces, ready_once):
    assert {name for name, _ in TRIED} == set(methods.names()) == {name for group in GROUPS for name in group}
    for group in GROUPS[:3]:
        cases = [next(case for case in CASES if case.method == name) for name in group]
        built = [ready_copy(case, make_backbone, make_traces, ready_once) for case in cases]
        assert len({(type(r.head), type(r.target)) for r in built}) == 1, group


@pytest.fixture(params=TRIED, ids="-".join)
def reasoner(request, make_backbone, make_traces):
    method, family = request.param
    case = next(case for case in CASES if case.method == method)

    def make(positions):
        return make_backbone(positions, family)

    return ready(case, make, make_traces)


@float64
def test_a_method_trains_and_decodes_on_this_family(reasoner, make_traces):
    reasoner.train()
    terms = loss_of(reasoner, training_batch(reasoner, make_traces(reasoner.can_sketch)))
    terms.total.backward()
    assert terms.total.isfinite()
    trunk = [p.grad for n, p in reasoner.named_parameters() if "layers.0." in n and ("language" in n or "text_" in n)]
    assert trunk and all(g is not None and g.any() for g in trunk)

    eager(reasoner.eval())
    prompt, settings = make_traces(reasoner.can_sketch), {"max_new_tokens": 16, "temperature": 1.0, "seed": 3}
    processor = reasoner.processor
    together = generate(reasoner, processor(prompt, generate=True), **settings)
    for r in (0, 2):  # the short ones, which are padded in the batch
        alone = generate(reasoner, processor([prompt[r]], generate=True), row_ids=[r], **settings)
        n = int((alone.token_type[0] != 0).sum())
        assert torch.equal(alone.ids[0, :n], together.ids[r, :n]) and not together.token_type[r, n:].any()
        assert_close(alone.latent_embeds[0, :n], together.latent_embeds[r, :n])
    words, stops, *_ = replay(reasoner, together)
    assert_close(words, together.log_prob)
    assert_close(stops, together.stop_log_prob)


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "smolvlm"])
def test_a_family_without_a_connector_of_its_own_says_so(family, make_backbone):
    with pytest.raises(ValueError, match=r"no features before (a|the) connector"):
        methods.build_method("latent_sketchpad", make_backbone(family=family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_a_family_comes_back_as_it_was(family, make_backbone, make_traces, tmp_path):
    case = next(case for case in CASES if case.method == "modal_mixed")
    reasoner = ready(case, lambda positions: make_backbone(positions, family), make_traces)
    checkpoint.save(reasoner.eval(), tmp_path / "model")
    again, _ = checkpoint.load(tmp_path / "model")
    assert type(again.backbone) is type(reasoner.backbone)

    def parts(reasoner):
        torch.manual_seed(0)  # of the flow's noise
        return loss_of(reasoner, training_batch(reasoner, make_traces())).parts()

    assert_close(parts(again), parts(reasoner))


def test_weights_that_are_missing_are_not_made_up(make_backbone, tmp_path):
    backbone = make_backbone(family="smolvlm")
    state = {n: t for n, t in backbone.model.state_dict().items() if "connector" not in n}
    backbone.model.save_pretrained(tmp_path, state_dict=state)
    backbone.tokenizer.save_pretrained(tmp_path)
    backbone.image_processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config.json. describes .* weights, but the files beside it hold"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("method", [*methods.names(), "mcout of many thoughts"])
def test_on_a_backbone_in_bfloat16_heads_stay_in_float32(method, make_backbone, make_traces):
    """Small steps of a head would round to none."""
    method, *many = method.split(" of ")
    case = next(case for case in CASES if case.method == method and case.options.get("multi", False) == bool(many))
    reasoner = ready(case, lambda positions: make_backbone(positions).to(torch.bfloat16), make_traces)
    assert reasoner.backbone.model.dtype == torch.bfloat16
    head = [] if reasoner.head is None else list(reasoner.head.parameters())
    assert all(p.dtype == torch.float32 for p in head)
    terms = loss_of(reasoner.train(), training_batch(reasoner, make_traces(reasoner.can_sketch)))
    terms.total.backward()
    assert terms.total.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in head)
    prompt = reasoner.processor(make_traces(reasoner.can_sketch), generate=True)
    mode = ("learned", "first")[reasoner.can_sketch]
    out = generate(eager(reasoner.eval()), prompt, max_new_tokens=12, latent_mode=mode)
    assert out.latent_embeds.isfinite().all() and (out.spans or not reasoner.can_sketch)

"""What the released code of a method does, and that a checkpoint made before an option keeps what it was."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import fit, loss_of, objective_for, training_batch

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.config_file import CONFIG_FILE
from latent_reason.checkpoint.export.exporter import export
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.checkpoint.hf.chat import chat_template
from latent_reason.contracts.closeness import assert_close
from latent_reason.methods import swimbird
from latent_reason.model.batch import TEXT
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.model.switching import Switch
from latent_reason.objectives.latent_inputs import mean_latents
from latent_reason.trace import Image, Message, Sketch, Text, Trace

float64 = pytest.mark.usefixtures("float64")
OLDER = {name: methods.load(name).OLDER for name in methods.names() if hasattr(methods.load(name), "OLDER")}


def fitted(make_backbone, traces, name, **options):
    reasoner = methods.build_method(name, make_backbone(), **options)
    batch = training_batch(reasoner, traces)
    fit(reasoner, batch)
    return reasoner, batch


# -- older checkpoints -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OLDER)
def test_a_checkpoint_without_an_option_is_what_it_was(name, make_backbone, tmp_path):
    defaults = {option: p.default for option, p in methods.schema(name).items()}
    assert OLDER[name].keys() <= defaults.keys()
    assert all(defaults[option] != value for option, value in OLDER[name].items())
    methods.check_options(name, OLDER[name])
    sizes = {option: 4 for option in ("k", "depth") if option in defaults}
    for form in ("now", "format 2", "format 1"):
        folder = tmp_path / form
        checkpoint.save(methods.build_method(name, make_backbone(), **sizes), folder)
        config = json.loads((folder / CONFIG_FILE).read_text())
        assert config["options"].keys() >= OLDER[name].keys(), "a new checkpoint says all its options"
        if form != "now":
            config["options"] = {o: v for o, v in config["options"].items() if o not in OLDER[name]}
        if form == "format 1":
            config |= {"format": 1, "positions": "line"}
            del config["latent_positions"]
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        found = checkpoint.load(folder)[0].method.options
        wanted = {o: defaults[o] for o in OLDER[name]} if form == "now" else OLDER[name]
        assert {o: found[o] for o in OLDER[name]} == wanted


def test_an_older_model_of_transformers_is_what_it_was(make_backbone, tmp_path):
    """Its options are all known, so that training goes on as it began."""
    reasoner = methods.build_method("swimbird", make_backbone(), k=4, system_prompt=False)
    checkpoint.save(reasoner, tmp_path / "saved")
    export(tmp_path / "saved", tmp_path / "exported")
    file = tmp_path / "exported" / "config.json"
    config = json.loads(file.read_text())
    del config["options"]["system_prompt"]
    file.write_text(json.dumps(config))
    loaded = LatentReasonForConditionalGeneration.from_pretrained(tmp_path / "exported").reasoner
    assert loaded.system_prompt == "" and loaded.method.options == reasoner.method.options


# -- raw states and targets --------------------------------------------------------------------------------------------
@float64
@pytest.mark.parametrize("name", ["mirage", "lvr", "ilvr"])
def test_raw_states_are_compared_with_raw_targets(name, make_backbone, make_traces):
    reasoner, batch = fitted(make_backbone, make_traces(), name, k=4, **({"count": 4} if name == "lvr" else {}))
    reasoner.eval()
    rows, position, mask = batch.latent_slots()
    z, h = reasoner.target(batch), torch.randn(*batch.ids.shape, reasoner.backbone.width)
    states, goal = h[rows, position][mask], z[mask]
    raw = 1 - F.cosine_similarity(states, goal, -1) if name != "lvr" else (states - goal).square().mean(-1)
    assert_close(objective_for(reasoner).loss_terms(reasoner, batch, h, z).latent, raw.mean())
    before, _ = fitted(make_backbone, make_traces(), name, **(reasoner.method.options | {"standardize": True}))
    before.eval()
    standardized = objective_for(before).loss_terms(before, batch, h, z).latent
    assert abs(standardized / raw.mean() - 1) > 0.01, "the constant of a slot is no longer part of it"
    assert torch.equal(mean_latents(reasoner, batch), mean_latents(before, batch)), "dropped latents are the same"


@float64
def test_a_raw_head_draws_raw_latents(make_backbone, make_traces):
    reasoner, batch = fitted(make_backbone, make_traces(), "lvr", k=4, head="mlp", count=4)
    *_, slot, grids = batch.latent_places()
    h = torch.randn(len(slot), reasoner.backbone.width)
    assert_close(reasoner.sample_latents(h, grids, slot), reasoner.head.net(h))
    means = reasoner.latent_means(grids, 5)[torch.arange(len(slot)), slot]
    assert_close(reasoner.sample_latents(h, grids, slot, means=means), reasoner.head.net(h))


# -- ilvr --------------------------------------------------------------------------------------------------------------
def test_ilvr_noise_is_on_the_target_alone(make_backbone, make_traces, monkeypatch):
    fed, goals = {}, {}
    for place in ("target", "inputs"):
        reasoner, batch = fitted(make_backbone, make_traces(), "ilvr", k=4, noise_on=place)
        objective, clean = objective_for(reasoner), reasoner.target(batch)
        embed, span_loss = reasoner.embed_batch, reasoner.head.span_loss
        monkeypatch.setattr(reasoner, "embed_batch", lambda b, z=None, e=embed, p=place: fed.update({p: z}) or e(b, z))
        reasoner.head.span_loss = lambda h, z, *rest, s=span_loss, p=place: goals.update({p: z}) or s(h, z, *rest)
        for training in (False, True):
            reasoner.train(training)
            objective.loss(reasoner, batch)
            mask = batch.latent_slots()[2]
            noises = [(x[place] - clean)[mask] for x in (fed, goals)]
            noisy = goals if place == "target" else fed
            for x, noise in zip((fed, goals), noises, strict=True):
                assert bool(noise.any()) == (training and x is noisy), (place, training)
            if training and place == "target":
                assert 0.007 < noises[1].std() < 0.013, "in the units of the tokens"


# -- START -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["coconut", "mcout", "covt", "cvrr", "livr", "colt"])
def test_a_forced_start_has_no_text_loss(name, make_backbone, make_traces):
    for start_loss in (False, True):
        reasoner = methods.build_method(name, make_backbone(), start_loss=start_loss)
        batch = training_batch(reasoner, make_traces(False))
        is_open = batch.ids == reasoner.vocabulary.open
        assert is_open.sum() == 4 and (batch.loss_weight[is_open] == float(start_loss)).all()
        assert (batch.loss_weight[(batch.token_type == TEXT) & ~is_open] > 0).sum() > 4
    with pytest.raises(ValueError, match="open_loss=False"):
        Switch(open_loss=False)


def test_a_start_by_the_rule_has_no_text_loss(make_backbone, make_traces):
    small = {"k": 4, "depth": 1, "cross_attention_layers": 1}
    for rule, start_loss, weight in ((True, False, 0), (True, True, 1), (False, False, 1)):
        options = small | {"open_after_sentences": rule, "start_loss": start_loss}
        reasoner = methods.build_method("latent_sketchpad", make_backbone(), **options)
        batch = training_batch(reasoner, make_traces())
        assert (batch.loss_weight[batch.ids == reasoner.vocabulary.open] == weight).all()
    assert methods.with_older_options("latent_sketchpad", {})["start_loss"]


@pytest.mark.parametrize("name", ["mcout", "cvrr", "livr", "colt"])
def test_an_answer_without_a_loss_has_none_for_its_start_and_span(name, make_backbone):
    reasoner = methods.build_method(name, make_backbone(), start_loss=True)
    for loss in (0.0, None):
        said = Message("assistant", (Text("Go up.", loss), Text(" Left.", loss)))
        batch = training_batch(reasoner, [Trace("t", (Message("user", (Text("where?"),)), said))])
        taught = loss is None
        assert batch.loss_weight.any() == taught and batch.span_weight.tolist() == [float(taught)]


# -- coconut -----------------------------------------------------------------------------------------------------------
def story(name: str) -> Trace:
    said = Message("assistant", (Text("Go up. Then left. Go on. Then down. Go in. Done: \\boxed{U}"),))
    return Trace(name, (asked("where?"), said))


def asked(question: str) -> Message:
    return Message("user", (Text(question),))


def encoded(reasoner, trace):
    objective = objective_for(reasoner)
    row, last = objective.encode(reasoner, trace), objective.prepare_example(reasoner, trace).messages[-1]
    (text,) = (part.text for part in last.content if isinstance(part, Text))
    return row.spans[0][2] if row.spans else 0, text.count(".")


def test_coconut_the_last_stage_replaces_all_steps(make_backbone):
    for stage, max_stage, expected in ((3, 3, (6, 2)), (4, 3, (6, 0)), (9, 3, (6, 0)), (4, 0, (8, 1)), (9, 0, (18, 0))):
        reasoner = methods.build_method("coconut", make_backbone(), c=2, stage=stage, max_stage=max_stage)
        assert encoded(reasoner, story("t")) == expected and reasoner.switch.count == expected[0]


def test_coconut_mixes_stages(make_backbone):
    traces = [story(str(i)) for i in range(60)]
    reasoner = methods.build_method("coconut", make_backbone(), c=2, stage=1, uniform_prob=0.5)
    found = [encoded(reasoner, trace) for trace in traces]
    assert set(found) == {(0, 5), (2, 4), (4, 3), (6, 2), (6, 0)} and 20 < found.count((2, 4)) < 50
    assert found == [encoded(reasoner, trace) for trace in traces], "a resumed run draws the same"
    assert loss_of(reasoner, training_batch(reasoner, traces[:8])).text.isfinite()
    alike = [replace(story("same"), messages=(asked(str(i)), *story("same").messages[1:])) for i in range(60)]
    assert 20 < sum(encoded(reasoner, trace) == (2, 4) for trace in alike) < 50, "traces that share an id draw apart"
    with pytest.raises(ValueError, match=r"uniform_prob=0.5 has no effect in stage 0"):
        methods.build_objective("coconut", stage=0, uniform_prob=0.5)
    plain = methods.build_method("coconut", make_backbone(), c=2, stage=1)
    assert {encoded(plain, trace) for trace in traces} == {(2, 4)}


# -- lvr ---------------------------------------------------------------------------------------------------------------
def test_lvr_several_boxes(make_backbone, picture):
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 1.0), (0.0, 0.5, 1.0, 1.0)]
    image = picture(4, 4)
    parts = [part for box in boxes for part in (Text("look."), Sketch(image, box=box))]
    trace = Trace("t", (Message("user", (Image(image), Text("?"))), Message("assistant", (*parts, Text("up")))))
    grids = [[2, 2], [4, 2], [2, 4]]
    for options, count in (({}, 3), ({"max_spans": 1}, 1), ({"max_spans": 2}, 2)):
        options = {"k": 16, "stop": "close", "supervise": "full"} | options
        reasoner, batch = fitted(make_backbone, [trace, trace], "lvr", **options)
        assert batch.spans[:, 2:].tolist() == 2 * grids[:count]
        assert loss_of(reasoner, batch).latent.isfinite()


def test_lvr_refuses_to_train_on_no_span(make_backbone):
    reasoner = methods.build_method("lvr", make_backbone(), k=4, max_spans=0)
    with pytest.raises(ValueError, match="max_spans=0: method 'lvr' would train"):
        objective_for(reasoner).check(reasoner)


@pytest.mark.parametrize("head", ["flow", "diffusion", "mean_flow", "gaussian"])
def test_lvr_refuses_raw_targets_of_a_stochastic_head(head, make_backbone):
    with pytest.raises(ValueError, match=f"head='{head}' .*Set standardize: true"):
        methods.build_method("lvr", make_backbone(), k=4, head=head)
    assert methods.build_method("lvr", make_backbone(), k=4, head=head, standardize=True).head.is_stochastic


def test_lvr_reads_the_width_of_the_models_mlp_for_a_glu_alone(make_backbone, monkeypatch):
    backbone = make_backbone()
    config = backbone.text_model.config
    monkeypatch.delattr(config, "intermediate_size")
    monkeypatch.delattr(type(config), "intermediate_size")
    for head in ("identity", "mlp"):
        methods.build_method("lvr", backbone, k=4, head=head)
    with pytest.raises(AttributeError, match="intermediate_size"):
        methods.build_method("lvr", backbone, k=4, head="glu")


def test_lvr_heads_are_as_wide_as_released(make_backbone):
    width = (backbone := make_backbone()).width
    hidden = backbone.text_model.config.intermediate_size
    for options, shape in (
        ({"head": "mlp"}, (width, width)),
        ({"head": "mlp", "mlp_ratio": 4}, (4 * width, width)),
        ({"head": "mlp", "head_options": {"hidden": 7}}, (7, width)),
        ({"head": "glu"}, (hidden, width)),
    ):
        head = methods.build_method("lvr", make_backbone(), k=4, **options).head
        first = head.gate if options["head"] == "glu" else head.net[1]
        assert first.weight.shape == shape
    x = torch.randn(3, width)
    expected = head.down(F.silu(head.gate(x)) * head.up(x))
    assert_close(head.sample(x), expected)
    assert_close(head.loss(x, torch.zeros_like(x)), expected.square().mean(-1))


# -- latent_sketchpad --------------------------------------------------------------------------------------------------
@float64
def test_sketchpad_adds_the_error_after_the_connector(make_backbone, make_traces):
    options = {"k": 4, "depth": 1, "cross_attention_layers": 1}
    reasoner, batch = fitted(make_backbone, make_traces(), "latent_sketchpad", connector_weight=0.5, **options)
    z, h = reasoner.target(batch), torch.randn(*batch.ids.shape, reasoner.backbone.width)
    span, _, _, slot, grids = batch.latent_places()
    drawn, context = torch.zeros_like(z), reasoner.head_context(batch).for_rows(batch.spans[:, 0])
    drawn[span, slot] = reasoner.head.predict_span(
        h[batch.latent_slots()[0], batch.latent_slots()[1]], reasoner.target.normalize(z, batch.spans[:, 2:]), context
    )[span, slot]
    raw = reasoner.target.denormalize(drawn[span, slot], grids, slot)
    connected = reasoner.backbone.apply_connector(raw) - reasoner.backbone.apply_connector(z[span, slot])
    features = (raw - z[span, slot]) / reasoner.target.std
    expected = features.abs().mean() + 0.5 * connected.abs().mean()
    assert_close(objective_for(reasoner).loss_terms(reasoner, batch, h, z).latent, expected)
    plain, _ = fitted(make_backbone, make_traces(), "latent_sketchpad", connector_weight=0.0, **options)
    plain.load_state_dict(reasoner.state_dict())
    assert_close(objective_for(plain).loss_terms(plain, batch, h, z).latent, features.abs().mean())


# -- swimbird ----------------------------------------------------------------------------------------------------------
def test_swimbird_names_its_modes_in_training_and_decoding(make_backbone, make_traces, tmp_path):
    trace = make_traces()[0]
    asked = replace(trace, messages=(Message("system", (Text("be brief"),)), *trace.messages))
    said = replace(trace, messages=(Message("system", (Text(swimbird.SYSTEM_PROMPT),)), *trace.messages))
    plain = methods.build_method("swimbird", make_backbone(), k=4, system_prompt=False)
    reasoner = methods.build_method("swimbird", make_backbone(), k=4)
    by_hand = LatentReasoner(make_backbone(), system_prompt=swimbird.SYSTEM_PROMPT, switch=Switch())
    folder = tmp_path / "by-hand"
    checkpoint.save(by_hand, folder)
    assert checkpoint.load(folder)[0].system_prompt == swimbird.SYSTEM_PROMPT
    for generate in (False, True):
        ids, own, without = (r.processor.encode(trace, generate=generate).ids for r in (reasoner, plain, plain))
        wanted = plain.processor.encode(said, generate=generate).ids
        assert ids == wanted and own == without != ids
        for model in (reasoner, plain):
            assert (
                model.processor.encode(asked, generate=generate).ids
                == plain.processor.encode(asked, generate=generate).ids
            )
    first = objective_for(reasoner).encode(reasoner, trace)
    assert first.ids == plain.processor.encode(said).ids
    assert not any(first.loss_weight[: len(first.ids) - len(plain.processor.encode(trace).ids)])


def test_the_chat_template_says_what_the_processor_says(make_backbone):
    reasoner = methods.build_method("swimbird", make_backbone(), k=4)
    tokenizer, layout = reasoner.backbone.tokenizer, reasoner.vocabulary.layout
    trace = Trace("t", (Message("user", (Text("which way?"),)),))
    for prompt in (reasoner.system_prompt, ""):
        tokenizer.chat_template = chat_template(layout, reasoner.vocabulary.tokens, prompt)
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "which way?"}], tokenize=False, add_generation_prompt=True
        )
        reasoner.system_prompt = prompt
        assert tokenizer(text)["input_ids"] == reasoner.processor.encode(trace, generate=True).ids

"""Plans: what is simulated is what a real step takes, and the command says what to change."""

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from tiny_runs import BACKBONE, ROOT, command, recipe, untrained
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from latent_reason import checkpoint, methods
from latent_reason.model import adapters, backbones
from latent_reason.model.backbones.stock_config import count_weights
from train import compare, gpu_check, plan, sft
from train.batch_sizes import accumulation_steps
from train.config import RLTrainingConfig, SFTConfig, dump
from train.lit_modules import SFTModule, parameter_table
from train.model_setup import build_objective, choose_attention, freeze_all_but, prepare_model
from train.optim import make_optimizer
from train.planning import changes, examples, model
from train.planning.estimate import estimate
from train.planning.simulation import ATTENTION
from train.planning.step import autocast, longest_batch
from train.trainer import set_precision

SIZES = BACKBONE | {"width": 64, "layers": 2}  # larger than what the allocator keeps for itself
SMALL = {"data__global_batch_size": 4, "data__items": 4, "optim__name": "adamw", "backbone__options": SIZES}
LORA = {"lora__rank": 4, "trainable": ["lora", "head"]}


def real_module(config):
    """The module that a run of a config trains."""
    reasoner, _ = prepare_model(config)
    objective = build_objective(config, reasoner)
    choose_attention(reasoner, config, objective)
    freeze_all_but(reasoner, config.trainable)
    if reasoner.target is not None:
        reasoner.target.standardizer.fitted.fill_(True)
    return SFTModule(reasoner.train(), objective, config.optim)


def measure_real_step(config):
    """(bytes at the peak of the second step, operations of forward and backward) with real numbers, as the allocator and
    torch's own counter report them."""
    module = real_module(config)
    set_precision(module, config.precision)
    with torch.no_grad():
        batch = longest_batch(config, module)
    optimizer = make_optimizer(module, config.optim)

    def step():
        with autocast(config.precision):
            loss = module.compute_loss(batch)[0]
        optimizer.zero_grad()
        loss.backward()

    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        step()
    optimizer.step()
    gc.collect()  # the counter holds activations
    there = [*module.parameters(), *module.buffers(), *(p.grad for p in module.parameters() if p.grad is not None)]
    there += [t for state in optimizer.state.values() for t in state.values()]
    there += [t for images in (batch.images, batch.sketches) for t in (images.features or [images.pixels])]
    before = sum({t.data_ptr(): t.untyped_storage().nbytes() for t in there}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
        optimizer.step()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    events = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return before + max(accumulate(events)), counter.get_total_flops()


CASES = {
    "all": {},
    "adapter, recomputed": LORA | {"backbone__gradient_checkpointing": True},
    "16 bits, accumulated": {"precision": "bf16-true", "data__global_batch_size": 12, "data__micro_batch_size": 4},
    "a trained encoder, packed": {
        "trainable": ["text_model", "vision_encoder", "head"],
        "data__packing_length": 300,
        "precision": "bf16-mixed",
    },
}


@pytest.mark.parametrize("keys", CASES.values(), ids=CASES)
def test_a_plan_is_what_a_real_step_takes(keys, tmp_path):
    config = recipe(tmp_path, **SMALL | keys)
    planned, (peak, flops) = estimate(config), measure_real_step(config)
    assert sum(planned.memory(1).values()) == pytest.approx(peak, rel=0.1)
    times = accumulation_steps(config, 1)
    assert planned.flops["forward"] + planned.flops["backward"] == pytest.approx(times * flops, rel=0.05)


@pytest.mark.parametrize("length", [0, 300])
@pytest.mark.parametrize("name, stage, share", [("monet", 3, 1.0), ("ilvr", 1, 0.1)])
def test_a_teacher_that_is_a_copy_is_planned(name, stage, share, length, tmp_path):
    """Of the model, or of its text model."""
    keys = {"method__name": name, "method__options": {"k": 2, "stage": stage}}
    found = estimate(recipe(tmp_path, **SMALL | keys), length=length).memory(1)
    assert share * 0.95 * found["weights"] <= found["teacher, reference"] <= 1.05 * found["weights"]


SHORT_BATCHES = ["--data.levels", "[3]", "--data.items", "8", "--data.global_batch_size", "4", "--optim.name", "adamw"]
SHORT_ROLLOUTS = """
method: {name: modal_mixed, options: {k: 4, head: mlp}}
data: {levels: [3], items: 8, global_batch_size: 2, micro_batch_size: 4}
optim: {name: adamw}
rl: {num_generations: 4, max_completion_length: 128}
"""
RESIDENT = {
    "all": [],
    "adapter, recomputed": [
        *("--lora.rank", "8", "--trainable", "[lora, head]"),
        *("--backbone.gradient_checkpointing", "true"),
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("words", [*RESIDENT.values(), None], ids=[*RESIDENT, "reinforcement learning"])
def test_a_plan_is_the_resident_memory_of_a_fresh_process(words, tmp_path):
    size = {"width": 448, "layers": 8}
    if words is None:
        reasoner = methods.build_method("modal_mixed", backbones.load_backbone("tiny", **size), k=4, head="mlp")
        reasoner.target.standardizer.fitted.fill_(True)
        start = checkpoint.save(reasoner.eval(), tmp_path / "start")
        (tmp_path / "rl.yaml").write_text(f"init_from: {start}\n{SHORT_ROLLOUTS}")
        words = [str(tmp_path / "rl.yaml")]
    else:
        sizes = [word for key, value in size.items() for word in (f"--backbone.options.{key}", str(value))]
        words = [str(ROOT / "train" / "recipes" / "quickstart.yaml"), *sizes, *SHORT_BATCHES, *words]
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-m", "train.planning.measured", *words],
        env=os.environ | freed,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 <= float(ran.stdout.split()[-1]) <= 1.1, ran.stdout


LAYERED = BACKBONE | {"width": 64, "vision_width": 16, "layers": 3}  # layers are larger than all the rest
ALL = ["text_model", "embeddings", "connector", "vision_encoder"]  # a frozen encoder would not be split
SMALLEST = {
    "data__global_batch_size": 1,
    "data__items": 2,
    "optim__name": "adamw",
    "backbone__options": LAYERED,
    "trainable": ALL,
}
SHARED = ("weights", "gradients", "optimizer state")


@pytest.fixture(scope="module")
def alone():
    """The plan of a model on one device."""
    return estimate(recipe("unused", method="direct", **SMALLEST))


def split(gpus=4, **keys):
    """The plan of a model on several devices, with a row for each that reads rows of its own."""
    rows = {"data__global_batch_size": max(1, gpus // keys.get("tensor_parallel_size", 1)), "data__micro_batch_size": 1}
    return estimate(recipe("unused", method="direct", fsdp=True, **SMALLEST | rows | keys), gpus)


def layers_of(planned):
    """(bytes of the three layers, of all other weights) of a plan on one device, in 32 bits."""
    layers = 4 * (planned.parameters["text_model"][0] - LAYERED["width"])  # without the last norm
    return layers, planned.memory(1)["weights"] - layers


def test_buckets_of_ddp_are_counted(alone):
    """They are there in every moment, and twice before the second step, when nothing else is."""
    small = replace(alone, peaks=[alone.between | {"activations": 1, "gradients": 0}]).memory(4)
    large = replace(alone, peaks=[alone.between | {"activations": 2**40, "gradients": 0}]).memory(4)
    gradients = 4 * sum(n for _, n in alone.parameters.values())
    assert small["gradients"] == small["gradients, of the first step"] == pytest.approx(gradients, rel=0.01)
    assert large["gradients"] == small["gradients"] and "gradients, of the first step" not in large
    assert replace(alone, peaks=[{"gradients": 0}]).memory(1) == {"gradients": 0}


def test_sharded_weights_are_a_share(alone):
    whole, sharded = alone.memory(1), split(optim__ema_decay=0.9).memory(4)
    assert sharded["averaged weights"] == pytest.approx(4 * sum(n for _, n in alone.parameters.values()) / 4, rel=0.05)
    for kind in SHARED:
        assert sharded[kind] == pytest.approx(whole[kind] / 4, rel=0.05), kind
    assert 0.9 * whole["weights"] <= sharded["gathered weights"] <= 1.3 * whole["weights"]


def test_resharded_layers_are_gathered_one_after_the_other_and_in_16_bits_with_mixed_precision(alone):
    layers, others = layers_of(alone)
    peak = split(fsdp_reshard_after_forward=True).memory(4)
    assert (
        others + layers / 3 <= peak["gathered weights"] * 1.05 <= 1.1 * (others + 2 * layers / 3)
    )  # while one is copied
    rounded = split(fsdp_reshard_after_forward=True, precision="bf16-mixed").memory(4)
    assert others + layers / 6 <= rounded["gathered weights"] * 1.05 <= 1.1 * (others + layers / 3)
    assert rounded["weights"] == peak["weights"]


@pytest.mark.parametrize("gpus", [1, 4])
def test_offloaded_weights_are_in_main_memory_and_not_on_the_device(gpus, alone):
    planned, whole = split(gpus, fsdp_cpu_offload=True), alone.memory(1)
    assert not {*SHARED, "averaged weights"} & planned.memory(gpus).keys()
    assert planned.memory(gpus)["gathered weights"] >= 0.9 * whole["weights"]
    for kind in SHARED:
        assert planned.main_memory[kind] == pytest.approx(whole[kind] / gpus, rel=0.05), kind


def test_processes_that_share_matrices_hold_a_share_of_them_and_read_one_batch(alone):
    layers, others = layers_of(alone)
    planned = split(tensor_parallel_size=2)
    assert planned.memory(4)["weights"] == pytest.approx(
        layers / 4 + others / 2, rel=0.05
    )  # others are shared by groups
    assert planned.step(4)["positions"] == alone.step(2)["positions"]
    assert planned.flops["forward"] < 0.75 * alone.flops["forward"]
    with pytest.raises(ValueError, match="4 processes cannot form groups of 3"):
        split(tensor_parallel_size=3)


@pytest.mark.parametrize("adapter", [{}, {"rank": 2, "alpha": 4}], ids=["whole", "adapter"])
def test_a_checkpoint_is_planned_without_its_weights(adapter, tmp_path, monkeypatch):
    reasoner, _ = untrained("direct")
    if adapter:
        adapters.add(reasoner, **adapter)
    folder, parameters = checkpoint.save(reasoner, tmp_path / "model"), parameter_table(reasoner)
    monkeypatch.setattr(checkpoint, "load", None)
    config = recipe(tmp_path, "direct", init_from=str(folder), trainable=["lora" if adapter else "text_model"])
    planned, _ = model.build_model(config, FakeTensorMode(allow_non_fake_inputs=True))
    assert [row[:2] for row in parameter_table(planned)] == [row[:2] for row in parameters]


def test_rollouts_are_planned_on_a_backbone_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "corpus", lambda data: BACKBONE["corpus"])
    rl = {"data__global_batch_size": 2, "rl__num_generations": 2, "rl__max_completion_length": 12, "rl__beta": 0.1}
    method = {"k": 4, "head": "flow", "head_options": {"hidden": 32}}
    config = recipe(
        tmp_path, config=RLTrainingConfig, init_from="none", method__options=method, optim__name="adamw", **rl
    )
    config = replace(config, rl=replace(config.rl, latent_policy="flow_sde", latent_policy_options={"window": 2}))
    planned = estimate(config, name="tiny")
    assert planned.counts["examples"] == 4 and planned.counts["sketches"] == 4
    assert planned.flops["decoding"] > 0 and planned.traffic > 0
    assert planned.memory(1)["teacher, reference"] == pytest.approx(planned.memory(1)["weights"], rel=0.01)


def test_every_change_is_proposed_once(tmp_path):
    found = [json.dumps(keys, sort_keys=True) for group in changes.changes_for(recipe(tmp_path), 2) for keys in group]
    assert len(found) == len(set(found))
    for key in ("fsdp_reshard_after_forward", "fsdp_cpu_offload", "tensor_parallel_size", "precision", "lora.rank"):
        assert any(key in keys for keys in found), key
    alone = [keys for group in changes.changes_for(recipe(tmp_path, fsdp=True), 1) for keys in group]
    assert {"fsdp_cpu_offload": True} in alone and not any("tensor_parallel_size" in keys for keys in alone)


def test_the_command_says_what_to_change(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "changes_for", lambda config, gpus: list(changes.changes_for(config, gpus))[:1])
    file = tmp_path / "mine.yaml"
    file.write_text(
        "data: {levels: [3], items: 4, global_batch_size: 4}\noptim: {name: adamw}\nmethod: {name: direct}\n"
        f"backbone: {{options: {json.dumps(BACKBONE)}}}\n"
    )
    words = [str(file), "--memory", "1", "--gpus", "2", "--optim.max_steps", "7", "--out", str(tmp_path / "plan.json")]
    plan.main(words)
    printed = capsys.readouterr().out
    assert "does not fit into 1 GiB" in printed and "--backbone.gradient_checkpointing true" in printed
    assert max(map(len, printed.splitlines())) <= plan.WIDTH or "plan.json" in printed
    found = json.loads((tmp_path / "plan.json").read_text())
    (stage,) = found["stages"]
    assert found["computed"] and stage["max_steps"] == 7 and not stage["fits"]
    smaller = stage["changes"][0]
    assert smaller["keys"]["data.micro_batch_size"] == 1 and smaller["needed_gib"] <= stage["needed_gib"]
    with pytest.raises(SystemExit, match="exists, and nothing was changed"):
        plan.main(words)


def test_changes_that_are_not_needed_together_are_tried_alone(monkeypatch, tmp_path):
    config = recipe(tmp_path, data__global_batch_size=8)

    def figures(config, target):
        needed = (config.data.micro_batch_size or 8) * (1 if config.backbone.gradient_checkpointing else 2)
        return {"needed_gib": needed, "main_memory_gib": {}, "fits": needed <= 4, "hours": 0.0}

    monkeypatch.setattr(plan, "figures", figures)
    found = plan.plan(config, plan.Target(memory=4))["changes"]
    shrunk, recomputed = (
        {"data.micro_batch_size": 1},
        "backbone.gradient_checkpointing",
    )
    assert [c["keys"] for c in found[:3]] == [shrunk | {recomputed: True}, {recomputed: True}, shrunk]
    assert [c["fits"] for c in found[:3]] == [True, False, True]


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys, alone):
    (tmp_path / "small.yaml").write_text(dump(recipe(tmp_path / "run", "direct")))
    words = ["--config", str(tmp_path / "small.yaml"), "--dry_run", "--accelerator", "auto"]
    monkeypatch.setattr(sft, "train", None)
    before = sorted(tmp_path.rglob("*"))
    assert command(monkeypatch, sft, *words) is None
    assert "GiB are needed. 3 steps take" in capsys.readouterr().out
    monkeypatch.setattr(plan, "estimate", lambda *_: alone)
    for memory, said in ((80, None), (1, "do not fit into the 1 GiB of this GPU")):
        monkeypatch.setattr(plan, "gpu_here", lambda accelerator, memory=memory: ("NVIDIA H200", memory))
        monkeypatch.setattr(plan, "changes_for", lambda config, gpus: [])
        sentence = command(monkeypatch, sft, *words)
        assert sentence is None if said is None else said in sentence
        assert "on 1 x H200" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_comparison_refuses_a_dry_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = [
        "--config",
        "train/recipes/compare_frozenlake.yaml",
        "--init_from",
        "none",
        "--out",
        "none.json",
        "--dry_run",
    ]
    with pytest.raises(SystemExit, match="dry_run: a comparison is not planned"):
        compare.main(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--backbone", "Qwen/Qwen9-VL"], "'Qwen/Qwen9-VL': its sizes are not known here"),
        (["--tokens-per-example", "9"], "--tokens-per-example 9: an example of these data has"),
        (["--optim.max_stepz", "9"], "optim.max_stepz"),
        (["--precision", "64-true"], "is not planned. Set 32-true"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(words, sentence, capsys):
    quick = str(ROOT / "train" / "recipes" / "quickstart.yaml")
    options = ["--backbone.options", json.dumps(BACKBONE), "--data.items", "2", "--data.global_batch_size", "1"]
    with pytest.raises(SystemExit, match=sentence):
        plan.main([quick, *words, *(options if words[0] in ("--tokens-per-example", "--precision") else [])])


def test_known_models_have_as_many_parameters_as_their_pages_say():
    sizes = model.sizes_of("Qwen/Qwen3-VL-8B-Instruct")
    config = model.CONFIG_MAPPING[sizes["config"]["model_type"]].from_dict(sizes["config"])
    assert count_weights(config) == sizes["parameters"]


@pytest.mark.parametrize("name", examples.NAMES)
def test_an_example_is_a_command_and_states_its_plan(name):
    script, plans = ROOT / "train" / "examples" / f"{name}.sh", examples.read_plans()["plans"]
    file, words = examples.command_of(script)
    config = plan.read_config(str(ROOT / file), ["Qwen/Qwen2.5-VL-3B-Instruct" if w[0] == "$" else w for w in words])
    assert config.fsdp == ("fsdp" in name) and bool(config.lora.rank) == ("lora" in name)
    assert isinstance(config, RLTrainingConfig if name.startswith("rl") else SFTConfig)
    text = script.read_text()
    assert text == examples.with_head(text, examples.head_of(name, plans)), "python -m train.planning.examples"


def test_the_table_in_the_documentation_is_that_of_the_plans():
    page = examples.PAGE.read_text()
    assert page == examples.with_table(page, examples.table_of(examples.read_plans()["plans"]))


def test_the_gpu_check_runs_on_a_cpu_and_one_failure_keeps_the_rest(tmp_path, monkeypatch):
    def fail(is_tiny):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_check, "SECTIONS", gpu_check.SECTIONS | {"attention": fail})
    monkeypatch.setattr(gpu_check, "FAMILIES", ["qwen3_vl"])
    monkeypatch.setitem(gpu_check.SIZES, "tiny", {"width": 32, "layers": 1, "heads": 2})
    gpu_check.main(["--tiny", "--out", str(tmp_path / "check.json")])
    found = json.loads((tmp_path / "check.json").read_text())
    sections = found["sections"]
    assert found["device"] in ("CPU", torch.cuda.is_available() and torch.cuda.get_device_name())
    assert sections["attention"] == {"error": "RuntimeError: no such kernel"}
    assert sections["families"]["qwen3_vl"] > 0 and sections["memory"]["planned_gib"] > 0

"""Values of options that are wrong, absurd or hostile, in recipes and on command lines: each is one sentence that names
the key or the file, at once. ``CASES`` is the catalogue, one row a case."""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_reason import methods, tasks, values
from latent_reason.errors import at_least, numbers
from latent_reason.model import heads
from latent_reason.model.backbones import load_backbone
from latent_reason.objectives.latent_inputs import ScheduledSampling
from latent_reason.values import Bounds
from train.config import CONFIGS, CompareConfig, RLCompareConfig, RLTrainingConfig, SFTConfig, parse
from train.config.keys import hints_of
from train.config.machine import CPU_PROCESSES
from train.config.parsing import parse_command_line

SFT, RL = SFTConfig, RLTrainingConfig


class Case(NamedTuple):
    """A hostile value: a command line (words), a recipe (bytes), or a function that makes the file of one."""

    kind: str
    what: str  # one sentence of the catalogue
    made: Any
    words: tuple[str, ...]  # what the error says
    config: type = SFT


def laughs(value: str) -> bytes:
    """Nine aliases of nine aliases, eight levels deep: 43 million values of one line each."""
    lines = [f"a0: &a0 {value}"] + [
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}"
        if value.startswith("{")
        else f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]"
        for i in range(1, 9)
    ]
    return "\n".join(lines).encode()


ODD_ARGUMENTS = [
    "nan",
    "inf",
    "-1",
    "0",
    "1",
    "1.5",
    "1e400",
    "9" * 5000,
    "many",
    "",
    " ",
    "²",
    "True",
    "0x10",
    "1\n2",
    "3,,4",
]
CASES = [
    # numbers
    Case("sign", "A learning rate below 0.", "--optim.lr -1", ("optim.lr=-1.0", "between 0 and 1,000")),
    Case(
        "sign",
        "A clipping norm below 0, which would ascend.",
        "--optim.max_grad_norm -1",
        ("optim.max_grad_norm=-1.0", "more than 0"),
    ),
    Case(
        "sign",
        "A clipping norm of 0, which would not train.",
        "--optim.max_grad_norm 0",
        ("optim.max_grad_norm=0.0", "more than 0"),
    ),
    Case("sign", "A seed below 0.", "--seed -1", ("seed=-1", "0 or more")),
    Case("sign", "A seed of the data below 0.", "--data.seed -7", ("data.seed=-7", "0 or more")),
    Case("sign", "A weight decay below 0.", "--optim.weight_decay -0.1", ("optim.weight_decay=-0.1", "0 or more")),
    Case("sign", "Steps between saves below 0.", "--save_steps -5", ("save_steps=-5", "0 or more")),
    Case("sign", "Steps between log entries of 0.", "--logging_steps 0", ("logging_steps=0", "1 or more")),
    Case("sign", "A rank of LoRA below 0.", "--lora.rank -8", ("lora.rank=-8", "between 0 and 65,536")),
    Case("sign", "A batch of no rows.", "--data.batch_size 0", ("data.batch_size=0", "between 1 and 100,000")),
    Case(
        "sign",
        "A sampling temperature of 0.",
        "--rl.temperature 0",
        ("rl.temperature=0.0", "more than 0 and at most 100"),
        RL,
    ),
    Case("sign", "A KL weight below 0.", "--rl.beta -0.1", ("rl.beta=-0.1", "0 or more"), RL),
    Case("sign", "A level below 0.", "--data.levels [-3]", ("data.levels[0]=-3", "between 0 and 1,000,000")),
    Case("size", "A seed that NumPy does not take.", f"--seed {2**70}", ("seed=", "too large")),
    Case("size", "A seed of 33 bits.", f"--seed {2**33}", ("seed=8589934592", "4,294,967,295 or less")),
    Case("size", "10^30 steps.", f"--optim.max_steps {10**30}", ("optim.max_steps=1000", "too large")),
    Case("size", "A billion billion items.", f"--data.items {10**18}", ("data.items=1000", "1,000,000,000 or less")),
    Case(
        "size",
        "A number of 400 digits where a rate is wanted.",
        f"--optim.lr {'9' * 400}",
        ("optim.lr=999", "too large"),
    ),
    Case(
        "size",
        "A number of 400 digits in a recipe.",
        b"optim: {lr: " + b"9" * 400 + b"}",
        ("optim.lr=a number of", "bits"),
    ),
    Case(
        "size",
        "A number of 5,000 digits, which Python refuses to read.",
        b"seed: " + b"9" * 5000,
        ("recipe.yaml: not YAML",),
    ),
    Case(
        "size",
        "A decay rate of 1, with which a moment never moves.",
        "--optim.betas [0.9,1.0]",
        ("optim.betas[1]=1.0", "below 1"),
    ),
    Case("size", "A decay rate above 1.", "--optim.betas [1.5,0.9]", ("optim.betas[0]=1.5", "below 1")),
    Case("size", "A decay rate below 0.", "--optim.betas [-0.1,0.9]", ("optim.betas[0]=-0.1", "at least 0")),
    Case("size", "A dropout above 1.", "--lora.dropout 1.5", ("lora.dropout=1.5", "between 0 and 1")),
    Case("size", "A share above 1.", "--optim.min_lr_ratio 2", ("optim.min_lr_ratio=2.0", "between 0 and 1")),
    Case(
        "size",
        "A million worker processes.",
        "--data.num_workers 1000000",
        ("data.num_workers=1000000", "between 0 and 1,024"),
    ),
    Case("finite", "A rate that is no number.", b"optim: {lr: .nan}", ("optim.lr=nan", "finite")),
    Case("finite", "An infinite weight decay.", b"optim: {weight_decay: .inf}", ("optim.weight_decay=inf", "finite")),
    Case("finite", "A number beyond all floats.", "--optim.lr 1e400", ("optim.lr=inf", "finite")),
    Case("finite", "An infinite number in a list.", b"optim: {betas: [.inf, 0.9]}", ("optim.betas[0]=inf", "finite")),
    Case(
        "finite",
        "A reward whose weight is no number.",
        b"rl: {rewards: {accuracy: .nan}}",
        ("rl.rewards.accuracy=nan", "finite"),
        RL,
    ),
    Case(
        "finite",
        "An option of the method that is no number.",
        b"method: {options: {latent_weight: .nan}}",
        ("method.options.latent_weight=nan", "finite"),
    ),
    Case(
        "finite",
        "A stage whose rate is infinite.",
        b"stages: [{optim: {lr: .inf}}]",
        ("stages[0].optim.lr=inf", "finite"),
    ),
    # types
    Case(
        "type",
        "True where steps are counted.",
        b"optim: {max_steps: true}",
        ("optim.max_steps: expected INTEGER; got True",),
    ),
    Case("type", "True where a rate is wanted.", b"optim: {lr: true}", ("optim.lr: expected NUMBER; got True",)),
    Case("type", "Null where steps are counted.", b"optim: {max_steps: null}", ("optim.max_steps=None", "an integer")),
    Case("type", "Half a step.", "--optim.max_steps 1.5", ("optim.max_steps: expected INTEGER; got 1.5",)),
    Case("type", "A list where a number is wanted.", "--optim.lr [1]", ("optim.lr: expected NUMBER",)),
    Case("type", "Three decay rates.", "--optim.betas [0.9,0.9,0.9]", ("optim.betas: expected [NUMBER, NUMBER]",)),
    Case(
        "type",
        "A text of a megabyte where a number is wanted.",
        b"optim: {lr: " + b"x" * 900_000 + b"}",
        ("optim.lr=xxx", "more than 100,000 characters"),
    ),
    Case(
        "type", "An option of binary data.", b"method: {options: {k: !!binary aGk=}}", ("method.options.k: is a bytes",)
    ),
    Case("type", "An option whose name is a number.", b"method: {options: {1: 2}}", ("method.options", "a text")),
    Case("value", "No reward has a weight.", b"rl: {rewards: {accuracy: 0}}", ("rl.rewards", "no weight but 0"), RL),
    Case("value", "A comparison without seeds.", "--seeds []", ("seeds is empty",), CompareConfig),
    Case(
        "value", "An arm whose name is a path.", b"arms: {../../x: {seed: 1}}", ("arms=../../x", "'..'"), CompareConfig
    ),
    Case(
        "value",
        "An arm whose name has a slash.",
        b"arms: {a/b: {seed: 1}}",
        ("arms: a/b has a slash",),
        RLCompareConfig,
    ),
    Case(
        "value",
        "A pattern of LoRA that is no regular expression.",
        "--lora.target_modules (",
        ("lora.target_modules: ", "not a regular expression"),
    ),
    Case(
        "value",
        "A pattern of LoRA that repeats a repetition.",
        "--lora.target_modules (.*a)*(a+)+b",
        ("lora.target_modules: ", "may take for ever"),
    ),
    # texts
    Case("text", "An empty run name.", ["--run_name", ""], ("run_name is empty",)),
    Case("text", "An empty checkpoint.", ["--init_from", ""], ("init_from is empty",)),
    Case("text", "A run name of two dots.", "--run_name ..", ("run_name=..", "no new folder")),
    Case("text", "A run name that leads upwards.", "--run_name ../../etc/x", ("run_name=../../etc/x", "'..'")),
    Case("text", "The root folder as the run.", "--run_name /", ("run_name=/", "no new folder")),
    Case("text", "A run name with a NUL.", b'run_name: "a\\0b"', ("run_name='a\\x00b'", "NUL")),
    Case("text", "A run name of two lines.", ["--run_name", "a\nb"], ("run_name='a\\nb'", "line end")),
    Case(
        "text",
        "A run name with a code that clears the terminal.",
        ["--run_name", "a\x1b[2J"],
        ("run_name='a\\x1b[2J'", "control character"),
    ),
    Case(
        "text",
        "A run name longer than file systems take.",
        ["--run_name", "é" * 150],
        ("run_name=", "longer than file systems take"),
    ),
    Case("text", "A run name that is no UTF-8.", ["--run_name", "a\udcff"], ("run_name='a\\udcff'", "not UTF-8")),
    # files
    Case(
        "recipe",
        "A recipe of 43 million values by aliases.",
        laughs("[x, x, x]"),
        ("recipe.yaml: holds more than 10,000 values",),
    ),
    Case(
        "recipe",
        "A recipe of 43 million merged keys.",
        laughs("{x: 1}"),
        ("recipe.yaml: holds more than 10,000 values",),
    ),
    Case("recipe", "A list that holds itself.", b"seed: &a [*a]", ("recipe.yaml: '*a' holds itself",)),
    Case(
        "recipe", "10,000 brackets.", b"seed: " + b"[" * 10_000, ("recipe.yaml: holds lists or keys more than 20 deep",)
    ),
    Case(
        "recipe",
        "30 brackets.",
        b"seed: " + b"[" * 30 + b"]" * 30,
        ("recipe.yaml: holds lists or keys more than 20 deep",),
    ),
    Case(
        "recipe",
        "10,000 brackets on a command line.",
        f"--method.options.k {'[' * 10_000}",
        ("method.options.k: holds lists or keys more than 20 deep",),
    ),
    Case("recipe", "One key twice.", b"seed: 1\nseed: 2", ("recipe.yaml: key 'seed' twice",)),
    Case("recipe", "One key of a group twice.", b"optim:\n  lr: 1\n  lr: 2", ("recipe.yaml: key 'lr' twice", "line 2")),
    Case("recipe", "Tabs for spaces.", b"optim:\n\tlr: 1", ("recipe.yaml: not YAML", "\\t")),
    Case(
        "recipe",
        "An object of Python.",
        b"seed: !!python/object/apply:os.system [id]",
        ("recipe.yaml: not YAML", "python"),
    ),
    Case("recipe", "Two documents.", b"seed: 1\n---\nseed: 2", ("recipe.yaml: not YAML",)),
    Case("recipe", "A file that is no UTF-8.", b"seed: \xff", ("recipe.yaml: not UTF-8 at byte 7",)),
    Case("recipe", "A file with a NUL.", b"seed: \x00", ("recipe.yaml: not YAML",)),
    Case(
        "recipe",
        "A file of 100 MB.",
        lambda file: (file.touch(), os.truncate(file, 100 * 2**20)),
        ("recipe.yaml: is larger than 1 MiB",),
    ),
    Case("recipe", "A pipe that nobody writes to.", os.mkfifo, ("recipe.yaml' is no plain file",)),
    Case(
        "recipe",
        "A device that never ends.",
        lambda file: file.symlink_to("/dev/zero"),
        ("recipe.yaml' is no plain file",),
    ),
    Case("recipe", "A folder.", lambda file: file.mkdir(), ("recipe.yaml' is no plain file",)),
    Case("recipe", "A name with a NUL.", ["--config", "a\0b"], ("recipe 'a\\x00b'", "does not exist")),
    # machines
    Case("machine", "A GPU where there is none.", "--accelerator cuda", ("accelerator=cuda", "this machine has none")),
    Case("machine", "A TPU where there is none.", "--accelerator tpu", ("accelerator=tpu", "this machine has none")),
    Case("machine", "No device.", "--devices 0", ("devices=0", "between 1 and 1,024")),
    Case("machine", "Devices below 0.", "--devices -1", ("devices=-1", "between 1 and 1,024")),
    Case("machine", "A list of devices.", "--devices 2,3", ("devices: expected INTEGER|auto; got 2,3",)),
    Case("machine", "A million devices.", "--devices 1000000", ("devices=1000000", "between 1 and 1,024")),
    Case(
        "machine",
        "More processes than the CPU runs.",
        f"--accelerator cpu --devices {CPU_PROCESSES + 1}",
        (f"devices={CPU_PROCESSES + 1}", "processes train on the CPU"),
    ),
    Case(
        "machine", "The type of a device as its number.", "--devices cpu", ("devices: expected INTEGER|auto; got cpu",)
    ),
    Case(
        "machine",
        "Numbers of 16 bits on a CPU.",
        "--accelerator cpu --precision 16-mixed",
        ("precision=16-mixed", "bf16-mixed"),
    ),
    Case(
        "machine",
        "A precision of another library.",
        "--precision fp16",
        ("precision: expected one of 32-true", "got fp16"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_hostile_option_is_one_sentence_at_once(case, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words, file = case.made, tmp_path / "recipe.yaml"
    if isinstance(words, str):
        words = words.split()
    elif not isinstance(words, list):
        file.write_bytes(words) if isinstance(words, bytes) else words(file)
        words = ["--config", str(file)]
    with pytest.raises(SystemExit) as ended:
        parse_command_line(case.config, "", words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1 and len(said) < 3000
    assert all(part in said for part in case.words), said


# -- options of methods, heads and tasks, and of other command lines ---------------------------------------------------
def head(kind: str, **options) -> None:
    methods.check_options("modal_mixed", {"head": kind, "head_options": options})


PARTS = [  # what, how it is called, and what the error says
    (
        "A method of no latents.",
        lambda: methods.check_options("modal_mixed", {"k": 0}),
        ("method modal_mixed: k=0", "between 1 and 65,536"),
    ),
    ("Latents below 0.", lambda: methods.check_options("lvr", {"count": -1}), ("method lvr: count=-1",)),
    ("True latents.", lambda: methods.check_options("mirage", {"k": True}), ("method mirage: k=True", "an integer")),
    (
        "10^30 layers.",
        lambda: methods.check_options("latent_sketchpad", {"depth": 10**30}),
        ("depth=10000", "too large"),
    ),
    (
        "A loss that does not exist.",
        lambda: methods.check_options("skila", {"loss": "huber"}),
        ("loss=huber", "mse, l1, cosine"),
    ),
    (
        "A loss weight that is no number.",
        lambda: methods.check_options("monet", {"latent_weight": float("nan")}),
        ("latent_weight=nan", "finite"),
    ),
    (
        "A loss weight below 0.",
        lambda: methods.check_options("covt", {"latent_weight": -1}),
        ("latent_weight=-1", "0 or more"),
    ),
    (
        "A text where true or false is wanted.",
        lambda: methods.check_options("mcout", {"multi": "no"}),
        ("multi=no", "true or false"),
    ),
    ("A head that is a number.", lambda: methods.check_options("modal_mixed", {"head": 3}), ("head=3", "a text")),
    (
        "Options of a head that are a list.",
        lambda: methods.check_options("modal_mixed", {"head_options": [1]}),
        ("head_options=[1]", "names with values"),
    ),
    ("A head of a width below 0.", lambda: head("flow", hidden=-1), ("head flow: hidden=-1",)),
    ("A head of no steps.", lambda: head("diffusion", steps=0), ("head diffusion: steps=0",)),
    (
        "A head with a spread that is no number.",
        lambda: head("gaussian", sigma=float("nan")),
        ("sigma=nan",),
    ),
    ("A head with half a layer.", lambda: head("autoregressive", depth=0.5), ("depth=0.5", "an integer")),
    ("Noise below 0.", lambda: ScheduledSampling(noise_std=-1), ("scheduled_sampling.noise_std=-1",)),
    (
        "A share of own latents that is no number.",
        lambda: ScheduledSampling(prob=float("nan")),
        ("scheduled_sampling.prob=nan",),
    ),
    (
        "A model of no width.",
        lambda: load_backbone("tiny", width=0),
        ("backbone.options.width=0", "between 1 and 65,536"),
    ),
    ("Half a layer.", lambda: load_backbone("tiny", layers=1.5), ("backbone.options.layers=1.5", "an integer")),
    ("Heads below 0.", lambda: load_backbone("tiny", heads=-1), ("backbone.options.heads=-1",)),
    ("A task without levels.", lambda: tasks.make("slide", level=()), ("the level is empty",)),
    ("A task whose seed is below 0.", lambda: tasks.make("slide", seed=-1), ("task slide: seed=-1",)),
    ("A chunk of no moves.", lambda: tasks.make("frozenlake_plan", chunk=(0, 0)), ("chunk[0]=0", "1 or more")),
    (
        "A chunk whose ends are swapped.",
        lambda: tasks.make("wall_maze", chunk=(3, 1)),
        ("chunk=(3, 1)", "above the second"),
    ),
    ("A chunk that is a number.", lambda: tasks.make("rush_hour", chunk=3), ("chunk=3", "a list")),
    ("A board of one cell, on which no move fits.", lambda: tasks.make("plan_check", n=1), ("n=1", "between 2 and 50")),
    (
        "More moves than a board holds.",
        lambda: tasks.make("plan_check", level=10**6),
        ("at most 20 on a board of n=5",),
    ),
    ("A margin that no jigsaw has.", lambda: tasks.make("jigsaw", margin=10**6), ("margin=1000000", "between 0 and 2")),
]


@pytest.mark.parametrize("part", PARTS, ids=[part[0] for part in PARTS])
def test_hostile_option_of_a_part_is_one_sentence(part):
    _, make, words = part
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), str(error.value)


@pytest.mark.parametrize("name", methods.names())
def test_every_number_of_a_method_has_bounds_that_its_default_keeps(name):
    module = methods.load(name)
    hints = {k: v for f in (module.build_model, module.build_objective) for k, v in values.hints_of(f).items()}
    options = {option: parameter.default for option, parameter in methods.schema(name).items()}
    assert not [option for option in options if unbounded(hints[option])]
    methods.check_options(name, options)


@pytest.mark.parametrize("kind", heads.KINDS)
def test_every_number_of_a_head_has_bounds_that_its_default_keeps(kind):
    hints = values.hints_of(heads.KINDS[kind].__init__)
    assert not [name for name, hint in hints.items() if name not in ("width", "latent_width") and unbounded(hint)]
    heads.make(kind, 8, 8)


@pytest.mark.parametrize("odd", [value for value in ODD_ARGUMENTS])
@pytest.mark.parametrize("hint", [values.Seed, values.Share, values.Positive, values.Count, values.Temperature])
def test_an_argument_of_a_command_is_a_number_within_its_bounds_or_refused(hint, odd):
    try:
        value = values.argument(hint)(odd)
    except argparse.ArgumentTypeError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        values.check(value, hint, "x")


@pytest.mark.parametrize("odd", [value for value in ODD_ARGUMENTS if value not in ("1", "0")])
def test_counts_and_levels_of_a_command_refuse_all_but_numbers(odd):
    for read in (at_least(1), numbers):
        with pytest.raises(argparse.ArgumentTypeError):
            read(odd)


# -- every number ------------------------------------------------------------------------------------------------------
def unbounded(hint) -> list:
    """The types of numbers in a type that have no bounds."""
    if typing.get_origin(hint) is typing.Annotated and any(isinstance(rule, Bounds) for rule in hint.__metadata__):
        return []
    return [hint] if hint in (int, float) else [one for inner in typing.get_args(hint) for one in unbounded(inner)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.command)
def test_every_number_has_bounds_that_its_default_keeps(config):
    hints = hints_of(config, with_bounds=True)
    assert not [key for key, hint in hints.items() if unbounded(hint)]
    config()


ODD = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    0,
    1.5,
    10**30,
    10**5000,
    -(2**70),
    "many",
    "",
    True,
    None,
    [],
    {},
    b"x",
]
GROUPS = sorted(
    {hint for config in CONFIGS for hint in typing.get_type_hints(config).values() if dataclasses.is_dataclass(hint)},
    key=str,
)


@pytest.mark.parametrize("group", [*GROUPS, *CONFIGS], ids=lambda c: c.__name__)
def test_every_key_takes_an_odd_value_or_is_named(group):
    for field in dataclasses.fields(group):
        for value in ODD:
            try:
                group(**{field.name: value})
            except ValueError as error:
                sentence = str(error)
                assert field.name in sentence and "\n" not in sentence and len(sentence) < 500, sentence


KEYS = sorted((config.command, key) for config in CONFIGS for key in hints_of(config))
VALUES = (
    st.sampled_from(ODD[:-1]) | st.floats() | st.integers() | st.text(max_size=5) | st.lists(st.floats(), max_size=3)
)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(KEYS), VALUES, st.booleans())
def test_any_value_of_any_key_is_taken_or_named(named, value, as_words):
    command, key = named
    config = next(config for config in CONFIGS if config.command == command)
    text = str(value) if not (isinstance(value, int) and abs(value) > 10**4000) else "9" * 5000
    try:
        parse(config, [f"--{key}={text}"])
    except ValueError as error:
        assert key.rpartition(".")[2] in str(error) and "\n" not in str(error), str(error)

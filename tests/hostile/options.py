"""Values of options that are wrong, absurd or hostile, in recipes and on command lines. ``CASES`` is the catalogue, one row a
case."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from train.config import CompareConfig, RLCompareConfig, RLTrainingConfig, SFTConfig
from train.config.machine import CPU_PROCESSES

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
    Case(
        "sign",
        "A batch of no rows.",
        "--data.global_batch_size 0",
        ("data.global_batch_size=0", "between 1 and 100,000"),
    ),
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

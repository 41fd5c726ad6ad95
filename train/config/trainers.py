"""One config for each command. It has the keys that the command uses and no others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from latent_reason.values import Bounds, Count, Name, Natural, Seed, Weight, show

from .groups import (
    BackboneConfig,
    DecoderDataConfig,
    ImageConfig,
    Keys,
    LoadedBackboneConfig,
    LoggerName,
    LoraConfig,
    MethodConfig,
    OptimConfig,
    Part,
    Precision,
    PretrainDataConfig,
    RLDataConfig,
    SFTDataConfig,
    SFTMethodConfig,
)
from .rl import RLConfig

LONGEST_NAME, LONGEST_PATH = 200, 3000  # bytes: file systems take 255 and 4,096, and names get suffixes


def check_folder_name(path: str, key: str) -> None:
    """Raises ValueError for the path of a new folder that a file system does not take, or that leads upwards."""
    parts = path.split("/")
    if max(len(part.encode()) for part in parts) > LONGEST_NAME or len(path.encode()) > LONGEST_PATH:
        raise ValueError(f"{key}={show(path)}: is longer than file systems take. Write a shorter name.")
    if ".." in parts or not {*parts} - {"", "."}:
        raise ValueError(f"{key}={path}: is no new folder, or has a part '..'. Write its path without that.")


@dataclass
class RunConfig(Keys):
    """Keys of every run"""

    command: ClassVar[str]
    keeps_model: ClassVar[bool] = False  # options that a recipe leaves out are those of the checkpoint

    run_name: Name = "run"
    """Folder of the run below checkpoints/; a path with a slash is used as it is."""
    init_from: Name | None = None
    """Checkpoint folder to start from."""
    seed: Seed = 0
    """Seed of weights, order and noise."""
    precision: Precision = "32-true"
    """Numbers of the forward and backward pass, as Lightning names them; with bf16-true, only the weights of the backbone
    are in bf16. Weights in 16 bits are stepped by way of a copy in fp32."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    """Device type."""
    devices: Annotated[int, Bounds(1, 1024)] | Literal["auto"] = "auto"
    """Number of devices of this machine; auto: those of torchrun, or one."""
    logger: LoggerName | list[LoggerName] = field(default_factory=lambda: ["tensorboard"])
    """Where the run is logged, one place or several, such as [tensorboard, csv]; trackio and wandb need their packages."""
    logging_steps: Count = 10
    """Steps between two log entries."""
    eval_steps: Natural = 0
    """Steps between two validations; 0: four times a run, at least 50 steps apart, and at the end."""
    save_steps: Natural = 0
    """Steps between two saves of the training state, as RUN/state/step-N; 0: every five minutes."""
    save_total_limit: Natural = 2
    """Number of training states that are kept until the model is saved; 0: all, also after that."""
    resume: Name | None = None
    """Continue a run exactly, after its last saved state: its folder or name; auto: that of run_name, if there is one."""
    fast_dev_run: bool = False
    """Try one training and one validation batch, and keep nothing."""

    def __post_init__(self):
        super().__post_init__()
        check_folder_name(self.run_name, "run_name")
        self.logger = [self.logger] if isinstance(self.logger, str) else self.logger
        if not self.logger or len(set(self.logger)) < len(self.logger):
            raise ValueError(f"logger={show(self.logger)}: name at least one place, each once, such as [tensorboard].")


@dataclass
class ModelConfig(RunConfig):
    """Keys of every run that trains a model"""

    trainable: list[Part] = field(default_factory=lambda: ["text_model", "embeddings", "head"])
    """Parts whose parameters train; all others are frozen."""
    image: ImageConfig = field(default_factory=ImageConfig)


@dataclass
class PretrainConfig(ModelConfig):
    """Keys of pretraining"""

    command: ClassVar[str] = "train.pretrain"

    reconstruction_weight: Weight = 10.0
    """Weight of the image reconstruction loss beside the text loss."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class DecoderConfig(RunConfig):
    """Keys of sketch decoder training"""

    command: ClassVar[str] = "train.decoder"

    data: DecoderDataConfig = field(default_factory=DecoderDataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass
class StagedConfig(ModelConfig):
    """Keys of runs in stages"""

    fsdp: bool = False
    """Split weights, gradients and optimizer state among processes (FSDP2) instead of copying them."""
    fsdp_reshard_after_forward: bool = False
    """Free the gathered weights of a layer after its forward pass and gather them again for the backward pass: less memory,
    half as much more communication."""
    fsdp_cpu_offload: bool = False
    """Keep the parts of weights, gradients and optimizer state in main memory, where the optimizer then runs."""
    tensor_parallel_size: Count = 1
    """Processes that share the matrices of each layer of the text model, and read the same batches; needs fsdp."""
    dry_run: bool = False
    """Print memory and hours of the run, as train.plan computes them, and do nothing else. Ends with status 1 if the run
    does not fit into the GPU of this machine."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Changes to this config, trained one after another, each from the model of the stage before."""


@dataclass
class SFTConfig(StagedConfig):
    """Keys of supervised fine-tuning"""

    command: ClassVar[str] = "train.sft"

    teacher: Name | None = None
    """Checkpoint of the teacher, for methods that learn from one; default: the model as it starts."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: SFTMethodConfig = field(default_factory=SFTMethodConfig)
    data: SFTDataConfig = field(default_factory=SFTDataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class RLTrainingConfig(StagedConfig):
    """Keys of a reinforcement learning run"""

    command: ClassVar[str] = "train.rl"
    keeps_model: ClassVar[bool] = True

    backbone: LoadedBackboneConfig = field(default_factory=LoadedBackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    data: RLDataConfig = field(default_factory=RLDataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    rl: RLConfig = field(default_factory=RLConfig)


# -- comparisons -------------------------------------------------------------------------------------------------------
@dataclass
class ComparisonKeys(Keys):
    """Keys of every comparison"""

    out: Name | None = None
    """JSON file of the results; what it holds already is not trained again."""
    seeds: list[Seed] = field(default_factory=lambda: [0, 1])
    """Each variant is trained once for each of these seeds."""
    test_items: Count = 100
    """Held-out items of each level."""
    only: Name | None = None
    """Train only the variants whose name contains this text."""

    def __post_init__(self):
        super().__post_init__()
        if not self.seeds:
            raise ValueError("seeds is empty. Name a seed, such as [0].")


@dataclass
class ArmKeys(ComparisonKeys):
    """Keys of a comparison of arms"""

    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to this config by name; each arm is trained by itself, in checkpoints/RUN_NAME/ARM-SEED."""
    table: Name | None = None
    """File of the table that is printed at the end: FILE.md, FILE.csv or FILE.tex."""
    overwrite: bool = False
    """Replace the file of ``table`` if it exists."""

    def __post_init__(self):
        super().__post_init__()
        for name in self.arms:
            check_folder_name(name, "arms")
            if "/" in name:
                raise ValueError(f"arms: {show(name)} has a slash. The name of an arm is that of its folder.")


@dataclass
class CompareConfig(ArmKeys, SFTConfig):
    """Keys of a comparison of supervised arms"""

    command: ClassVar[str] = "train.compare"
    trainer: ClassVar[type] = SFTConfig


@dataclass
class RLCompareConfig(ArmKeys, RLTrainingConfig):
    """Keys of a comparison of reinforcement learning arms"""

    command: ClassVar[str] = "train.rl.compare"
    trainer: ClassVar[type] = RLTrainingConfig


@dataclass
class HeadComparisonConfig(ComparisonKeys):
    """Keys of the comparison of heads"""

    command: ClassVar[str] = "train.compare_heads"

    init_from: Name | None = None
    """Checkpoint folder that every head starts from."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    """Device type."""
    trainable: list[Part] = field(default_factory=lambda: ["text_model", "embeddings", "head"])
    """Parts whose parameters train; all others are frozen."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    data: SFTDataConfig = field(default_factory=SFTDataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)


#: the config of each command, in the order of a project: make a model, train it, compare
CONFIGS = (
    PretrainConfig,
    SFTConfig,
    DecoderConfig,
    RLTrainingConfig,
    CompareConfig,
    RLCompareConfig,
    HeadComparisonConfig,
)

"""One config for each command. It has the keys that the command uses and no others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from .groups import (
    BackboneConfig,
    DecoderDataConfig,
    LoadedBackboneConfig,
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


@dataclass
class RunConfig:
    """Keys of every run"""

    command: ClassVar[str]

    run_name: str = "run"
    """Folder of the run below checkpoints/; a path with a slash is used as it is."""
    init_from: str | None = None
    """Checkpoint folder to start from."""
    seed: int = 0
    """Seed of weights, order and noise."""
    precision: Precision = "32-true"
    """Numbers of the forward and backward pass, as Lightning names them; with bf16-true, only the weights of the backbone
    are in bf16. Weights in 16 bits are stepped by way of a copy in fp32."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    """Device type."""
    devices: int | Literal["auto"] = "auto"
    """Number of devices of this machine; auto: those of torchrun, or one."""
    logging_steps: int = 10
    """Steps between two log entries."""
    eval_steps: int = 0
    """Steps between two validations; 0: only at the end."""
    save_steps: int = 0
    """Steps between two saves of the training state, as RUN/state/step-N; 0: every five minutes."""
    save_total_limit: int = 2
    """Number of training states that are kept until the model is saved; 0: all, also after that."""
    resume: str | None = None
    """Continue a run exactly, after its last saved state: its folder or name; auto: that of run_name, if there is one."""
    fast_dev_run: bool = False
    """Try one training and one validation batch, and keep nothing."""

    def __post_init__(self):
        for name, low in (("logging_steps", 1), ("eval_steps", 0), ("save_steps", 0), ("save_total_limit", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)}: must be {low} or more.")
        if self.devices != "auto" and self.devices < 1:
            raise ValueError(f"devices={self.devices}: must be 1 or more, or auto.")


@dataclass
class ModelConfig(RunConfig):
    """Keys of every run that trains a model"""

    trainable: list[Part] = field(default_factory=lambda: ["text_model", "embeddings", "head"])
    """Parts whose parameters train; all others are frozen."""


@dataclass
class PretrainConfig(ModelConfig):
    """Keys of pretraining"""

    command: ClassVar[str] = "train.pretrain"

    reconstruction_weight: float = 10.0
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
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Changes to this config, trained one after another, each from the model of the stage before."""


@dataclass
class SFTConfig(StagedConfig):
    """Keys of supervised fine-tuning"""

    command: ClassVar[str] = "train.sft"

    teacher: str | None = None
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

    backbone: LoadedBackboneConfig = field(default_factory=LoadedBackboneConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    data: RLDataConfig = field(default_factory=RLDataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    rl: RLConfig = field(default_factory=RLConfig)


# -- comparisons -------------------------------------------------------------------------------------------------------
@dataclass
class ComparisonKeys:
    """Keys of every comparison"""

    out: str | None = None
    """JSON file of the results; what it holds already is not trained again."""
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    """Each variant is trained once for each of these seeds."""
    test_items: int = 100
    """Held-out items of each level."""
    only: str | None = None
    """Train only the variants whose name contains this text."""


@dataclass
class CompareConfig(ComparisonKeys, SFTConfig):
    """Keys of a comparison of supervised arms"""

    command: ClassVar[str] = "train.compare"
    trainer: ClassVar[type] = SFTConfig

    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to this config by name; each arm is trained by itself, in checkpoints/RUN_NAME/ARM-SEED."""


@dataclass
class RLCompareConfig(ComparisonKeys, RLTrainingConfig):
    """Keys of a comparison of reinforcement learning arms"""

    command: ClassVar[str] = "train.rl.compare"
    trainer: ClassVar[type] = RLTrainingConfig

    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to this config by name; each arm is trained by itself, in checkpoints/RUN_NAME/ARM-SEED."""


@dataclass
class HeadComparisonConfig(ComparisonKeys):
    """Keys of the comparison of heads"""

    command: ClassVar[str] = "train.compare_heads"

    init_from: str | None = None
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

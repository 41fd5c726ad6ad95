"""Configuration: one dataclass for each training command, filled by a recipe (YAML) and the command line.

    python -m train.sft --config train/recipes/quickstart.yaml --optim.max_steps 500
    python -m train.sft --help

``python -m train.config.reference`` prints docs/configuration.md, the list of all keys.
"""

from .groups import (
    BackboneConfig,
    DataConfig,
    DecoderDataConfig,
    LoadedBackboneConfig,
    LoraConfig,
    MethodConfig,
    OptimConfig,
    PretrainDataConfig,
    RLDataConfig,
    SFTDataConfig,
    SFTMethodConfig,
)
from .options import complete
from .parsing import answer_help, arms_of, dump, load, parse, parse_command_line, stages_of
from .resuming import check_same_run, continued, folder_of
from .rl import RLConfig
from .trainers import (
    CONFIGS,
    CompareConfig,
    DecoderConfig,
    HeadComparisonConfig,
    ModelConfig,
    PretrainConfig,
    RLCompareConfig,
    RLTrainingConfig,
    RunConfig,
    SFTConfig,
    StagedConfig,
)

__all__ = [
    "BackboneConfig",
    "CONFIGS",
    "CompareConfig",
    "DataConfig",
    "DecoderConfig",
    "DecoderDataConfig",
    "HeadComparisonConfig",
    "LoadedBackboneConfig",
    "LoraConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimConfig",
    "PretrainConfig",
    "PretrainDataConfig",
    "RLCompareConfig",
    "RLConfig",
    "RLDataConfig",
    "RLTrainingConfig",
    "RunConfig",
    "SFTConfig",
    "SFTDataConfig",
    "SFTMethodConfig",
    "StagedConfig",
    "answer_help",
    "arms_of",
    "check_same_run",
    "complete",
    "continued",
    "dump",
    "folder_of",
    "load",
    "parse",
    "parse_command_line",
    "stages_of",
]

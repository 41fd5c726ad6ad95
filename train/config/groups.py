"""The groups of keys that configs of several trainers share.

Every field is one key of a recipe. The text below a field is its line in ``--help`` and in docs/configuration.md. Names
are those of TRL and transformers where these have one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from latent_reason.model.adapter_config import LINEAR, check_pattern
from latent_reason.values import (
    Bounds,
    Count,
    Name,
    Natural,
    Positive,
    Seed,
    Share,
    ShareBelow1,
    SizeOrZero,
    Weight,
    check_fields,
)

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4"]
LoggerName = Literal["tensorboard", "csv", "trackio", "wandb"]
Part = Literal["text_model", "embeddings", "connector", "vision_encoder", "head", "target", "lora"]
BatchSize = Annotated[int, Bounds(1, 100_000)]
MicroBatchSize = Annotated[int, Bounds(0, 100_000)]
Workers = Annotated[int, Bounds(0, 1024)]
LearningRate = Annotated[float, Bounds(0, 1000)]
Level = Annotated[int, Bounds(0, 1_000_000)]


@dataclass
class Keys:
    """A group of keys. Every value is checked against its type and bounds when the group is made."""

    group: ClassVar[str] = ""  # how names of its keys begin

    def __post_init__(self):
        check_fields(self, self.group)


# -- model -------------------------------------------------------------------------------------------------------------
@dataclass
class LoadedBackboneConfig(Keys):
    """Vision-language model of the checkpoint"""

    group: ClassVar[str] = "backbone."

    latent_positions: Literal["1d", "2d"] = "1d"
    """Rotary positions of latents: in a line like text, or on the grid of the sketch like image tokens."""
    attn_implementation: Attention = "auto"
    """Attention kernel; auto takes the fastest that this machine and method allow."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


@dataclass
class BackboneConfig(LoadedBackboneConfig):
    """Vision-language model"""

    name: Name = "tiny"
    """tiny, tiny-FAMILY (such as tiny-gemma3), a local folder or a Hub name. Not used with init_from."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the loader, such as {dtype: bfloat16}, {bits: 4} or {tiles: true}; sizes of a tiny model."""

    def __post_init__(self):
        super().__post_init__()
        if moved := {"min_pixels", "max_pixels"} & self.options.keys():
            name = min(moved)
            raise ValueError(f"'backbone.options.{name}' is now 'image.{name}'.")


@dataclass
class ImageConfig(Keys):
    """Sizes to which images are resized, for families that keep their shape (Qwen-VL)"""

    group: ClassVar[str] = "image."

    min_pixels: Natural = 0
    """Fewest pixels of an image; 0: as the model or the checkpoint does."""
    max_pixels: Natural = 0
    """Most pixels of an image; 0: as the model or the checkpoint does."""


@dataclass
class MethodConfig(Keys):
    """Latent reasoning method"""

    group: ClassVar[str] = "method."

    name: Name = "modal_mixed"
    """A file of latent_reason/methods; `python -m latent_reason methods` lists all."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the method; `python -m latent_reason methods --options` lists all."""


@dataclass
class SFTMethodConfig(MethodConfig):
    """Latent reasoning method"""

    center_targets: bool = True
    """Subtract the mean of each latent slot from the targets of a method that standardizes them."""
    attention_bottleneck_prob: Share = 0.0
    """Share of rows whose text after a sketch cannot attend to the input image or to earlier steps."""
    latent_dropout: Share = 0.0
    """Share of latents that a training step replaces by the mean of their slot."""
    feedback: Literal["raw", "norm_matched"] = "raw"
    """How latents become inputs: as they are, or multiplied by one number, measured before training, that gives them the
    mean norm of token embeddings."""


@dataclass
class LoraConfig(Keys):
    """LoRA adapter of the text model"""

    group: ClassVar[str] = "lora."

    rank: SizeOrZero = 0
    """Rank of the adapter; 0: no adapter. Train it with the parts lora and head."""
    alpha: Count = 32
    """Scale of the adapter: its output is multiplied by alpha / rank."""
    dropout: Share = 0.0
    """Dropout before the adapter."""
    target_modules: Name = LINEAR
    """Regular expression of full module names that get an adapter."""

    def __post_init__(self):
        super().__post_init__()
        try:
            check_pattern(self.target_modules)
        except ValueError as error:
            raise ValueError(f"lora.target_modules: {error}") from error


# -- data --------------------------------------------------------------------------------------------------------------
@dataclass
class DataConfig(Keys):
    """Training and validation items"""

    group: ClassVar[str] = "data."

    task: Name = "frozenlake_plan"
    """Procedural task that generates items; a file of latent_reason/tasks."""
    levels: list[Level] = field(default_factory=lambda: [3, 4])
    """Difficulty levels of the items."""
    items: Count = 4000
    """Number of training items; of data.folder, the most that are read."""
    val_items: Natural = 64
    """Number of validation items; 0: no validation."""
    seed: Seed = 0
    """Seed of the generated items."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the task, such as {chunk: [1, 1]}."""

    def __post_init__(self):
        super().__post_init__()
        if not self.levels:
            raise ValueError("data.levels is empty. Name a level, such as [4].")

    def with_defaults(self) -> SFTDataConfig:
        """The same data for :class:`train.data.TraceData`; keys that this config does not have keep their defaults."""
        return SFTDataConfig(**vars(self))


@dataclass
class RLDataConfig(DataConfig):
    """Training and validation items"""

    folder: Name | None = None
    """Folder of native records with answers to train on instead of a task."""
    include_ids: Name | None = None
    """A file of eval.item_filter; only the items that it names are used, such as those that a base model fails."""
    global_batch_size: BatchSize = 8
    """Items of a batch of rollouts, over all devices."""
    micro_batch_size: MicroBatchSize = 0
    """Rollouts of one forward and backward pass on each device; 0: all of them."""

    def __post_init__(self):
        super().__post_init__()
        if self.folder and self.include_ids:
            raise ValueError("data.include_ids names items of a task, but data.folder is set. Remove one of them.")


@dataclass
class DecoderDataConfig(DataConfig):
    """Training and validation items"""

    folder: Name | None = None
    """Folder of native records to train on instead of a task."""
    global_batch_size: BatchSize = 32
    """Rows of an optimizer step, over all devices. Every part of the loss is a mean over all of them."""
    micro_batch_size: MicroBatchSize = 0
    """Rows of one forward and backward pass on each device; as many passes follow as data.global_batch_size needs. 0: one
    pass."""
    streaming: bool = False
    """Read the shards of a packed folder during training; data.items (at most 2,000) then only give the statistics."""
    num_workers: Workers = 0
    """Processes on each device that read the stream; 0: the training process reads it."""
    max_length: Natural = 0
    """Most positions of an example, images included; 0: what the model's config allows."""
    skip_longer: bool = False
    """Leave out and count examples that are longer than data.max_length, instead of refusing to train."""

    def __post_init__(self):
        super().__post_init__()
        if self.streaming and not self.folder:
            raise ValueError("data.streaming reads the shards of a folder. Set data.folder, or remove data.streaming.")
        if self.num_workers and not self.streaming:
            raise ValueError("data.num_workers needs data.streaming. Set it to true, or remove data.num_workers.")


@dataclass
class PretrainDataConfig(DecoderDataConfig):
    """Training and validation items"""

    packing_length: Natural = 0
    """Pack the traces of a batch into rows of at most this many positions; 0: one trace a row."""
    replay_texts: Name | None = None
    """File of plain texts, one a line, that are trained beside the traces so that language is not forgotten."""
    replay_folder: Name | None = None
    """Folder of native records without sketches that are trained beside the traces, so that reasoning in text is not
    forgotten; at most data.items of them are read."""
    replay_batch_size: BatchSize = 2
    """Rows of data.replay_texts and of the first data.items records of data.replay_folder, drawn from all of them, in each
    batch."""


@dataclass
class SFTDataConfig(PretrainDataConfig):
    """Training and validation items"""

    modes: list[Name] = field(default_factory=list)
    """Forms of a trace, taken in turn, such as [text, vision, mixed]; empty: the form of the method."""
    pair_modes: bool = False
    """Give each item in every one of data.modes; data.items counts traces."""
    baseline: Name | None = None
    """Way of explicit thinking that the traces show, such as crop or "draw:brief=true"; a file of eval/baselines."""
    swap_image_prob: Share = 0.0
    """Share of items whose image is that of another item, so that only the sketch tells how to go on."""
    include_ids: Name | None = None
    """A file of eval.item_filter; only the items that it names are used, such as those that a base model fails."""
    feature_cache_gb: Weight = 8.0
    """Features of a frozen vision encoder that each process caches in memory, in GB."""
    cache: Name | None = None
    """Folder that caches features of a frozen vision encoder on disk, in latent_reason_features, for later runs."""
    cache_gb: Positive = 20.0
    """Largest size of data.cache in GB."""
    cache_dtype: Literal["float16", "bfloat16"] = "float16"
    """Data type in data.cache; bfloat16 is 8 times coarser, float16 ends at 65,504."""

    def __post_init__(self):
        super().__post_init__()
        if self.pair_modes and (len(self.modes) < 2 or self.folder):
            raise ValueError(
                "data.pair_modes gives each item of a task in every one of data.modes. Name two modes or more, such as "
                "[direct, text, mixed], and remove data.folder."
            )
        if self.baseline and (self.folder or self.modes or self.swap_image_prob):
            raise ValueError(
                "data.baseline shows items of a task in its own form. Remove data.folder, data.modes and "
                "data.swap_image_prob, or data.baseline."
            )


# -- optimization ------------------------------------------------------------------------------------------------------
@dataclass
class OptimConfig(Keys):
    """Optimizer and learning rates"""

    group: ClassVar[str] = "optim."

    name: Literal["muon", "adamw"] = "muon"
    """muon: Muon for the matrices inside the network, AdamW for all other parameters. adamw: AdamW for all."""
    max_steps: Count = 1000
    """Number of optimizer steps."""
    lr: LearningRate = 5e-3
    """Peak learning rate; of Muon with name muon, of AdamW with name adamw."""
    adamw_lr: LearningRate = 2e-3
    """Peak learning rate of AdamW with name muon."""
    head_lr_scale: Positive = 1.0
    """Learning rates of the latent head, as a multiple of those of all other parameters."""
    weight_decay: Weight = 0.05
    """Weight decay of matrices inside the network; other parameters have none."""
    betas: tuple[ShareBelow1, ShareBelow1] = (0.9, 0.98)
    """Decay rates of AdamW's moments."""
    warmup_steps: Count = 30
    """Steps of linear warm-up; cosine decay follows."""
    min_lr_ratio: Share = 0.05
    """Last learning rate as a share of the peak."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to at most this norm."""
    ema_decay: ShareBelow1 = 0.0
    """Decay of the moving average of the trained weights, such as 0.999; validation and the saved model use it. 0: no
    average."""

"""Recipes: everything a run depends on, as dataclasses that a YAML file and the command line fill in.

python -m train.sft --config train/recipes/NAME.yaml --optim.steps 500
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, get_loader

from latent_reason.errors import did_you_mean
from latent_reason.model.adapters import LINEAR
from latent_reason.objectives.policy_gradient import OBJECTIVES


@dataclass
class Backbone:
    """``name``: tiny, tiny-FAMILY, a folder, or a Hub name; ignored where the run starts from a checkpoint (``init``).
    ``checkpointing`` computes activations again in the backward pass instead of keeping them. ``attn``: auto, sdpa,
    eager, flash_attention_2, ..._3 or ..._4 (latent_reason/model/backbones/attention.py)."""

    name: str = "tiny"
    positions: str = "line"
    attn: str = "auto"
    checkpointing: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Method:
    """A file of latent_reason/methods and its options, and what may make the latents of any method carry the state:
    ``centred`` targets (without the constant of their place), a ``bottleneck`` (share of rows whose words after a
    sketch may not look at the input picture or at earlier steps), ``dropped`` (share of latents left out)."""

    name: str = "modal_mixed"
    options: dict[str, Any] = field(default_factory=dict)
    centred: bool = True
    bottleneck: float = 0.0
    dropped: float = 0.0

    def __post_init__(self):
        shares(self, "method", "bottleneck", "dropped")


@dataclass
class Lora:
    """An adapter of this ``rank`` on the text model (0: none; latent_reason/model/adapters.py), which trains as the part
    ``lora`` together with the rows of the control tokens. ``targets`` is a regular expression of whole module names."""

    rank: int = 0
    alpha: int = 32
    dropout: float = 0.0
    targets: str = LINEAR

    def __post_init__(self):
        at_least_one(self, "lora", "alpha")
        if self.rank < 0:
            raise ValueError(f"lora.rank={self.rank}: a number such as 16, or 0 for no adapter.")
        shares(self, "lora", "dropout")


@dataclass
class Data:
    """Items of a task, made on the fly; or a folder of native records (``folder``), of which at most ``items`` are
    trained on and at most ``val_items`` of those marked ``val`` are held out. ``batch_size`` counts rows a device.
    ``modes``, such as [text, vision, mixed], are taken in turn; none given: the one of the method. With ``paired`` each
    item of a task is there in every mode (``items`` counts traces). ``foreign`` is the share of items of a task whose
    picture is another item's, so that only the sketch tells how to go on. ``keep`` is a file of eval.item_filter: only the
    items it names are trained on. ``pack`` joins the traces of a batch in rows of at most that many positions (0: each
    has its own row): less padding, the same loss. What a frozen eye saw of pictures is kept in memory, by each process
    up to ``seen_gb`` GB (pictures beyond that are kept themselves); and on disk in the folder ``cache``, up to
    ``cache_gb`` GB, for later runs with the same eye (train/feature_cache.py), in ``cache_dtype`` float16, exactly what
    memory keeps, or bfloat16, which is eight times coarser and takes values beyond 65,504. With ``stream``,
    ``folder`` is a packed one, read epoch after epoch while training by ``workers`` processes beside each (0: by
    itself), and ``items`` (at most 2,000) only give the statistics of sketches. ``rehearse`` is a file of plain
    texts, one a line, of which every batch gets ``rehearse_rows`` more, so that a model that could write still can
    (latent_reason/data/texts.py)."""

    task: str = "frozenlake_plan"
    levels: list[int] = field(default_factory=lambda: [3, 4])
    items: int = 4000
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    modes: list[str] = field(default_factory=list)
    paired: bool = False
    foreign: float = 0.0
    keep: str | None = None
    batch_size: int = 32
    pack: int = 0
    seen_gb: float = 8.0
    cache: str | None = None
    cache_gb: float = 20.0
    cache_dtype: str = "float16"
    stream: bool = False
    workers: int = 0
    rehearse: str | None = None
    rehearse_rows: int = 2
    val_items: int = 64

    def __post_init__(self):
        at_least_one(self, "data", "items", "batch_size", "rehearse_rows")
        shares(self, "data", "foreign")
        if self.pack < 0:
            raise ValueError(f"data.pack={self.pack}: positions of a row, such as 2048, or 0 for a row a trace.")
        if self.paired and (len(self.modes) < 2 or self.folder):
            raise ValueError(
                "data.paired: the items of a task, each in every one of data.modes. Name two modes or "
                "more, such as [direct, text, mixed], and leave out data.folder."
            )
        if self.stream and not self.folder:
            raise ValueError(
                "data.stream: shards are streamed out of a folder. Name it with data.folder, or leave the key out."
            )
        if self.workers < 0 or (self.workers and not self.stream):
            raise ValueError(
                f"data.workers={self.workers}: processes that read a stream, from 0 on. Without "
                "data.stream leave it out."
            )
        if self.cache_gb <= 0:
            raise ValueError(f"data.cache_gb={self.cache_gb}: more than 0.")
        if self.cache_dtype not in ("bfloat16", "float16"):
            raise ValueError(f"data.cache_dtype={self.cache_dtype!r}: 'bfloat16' or 'float16'.")
        if not self.levels:
            raise ValueError("data.levels is empty. Name a level, such as [4].")


@dataclass
class Optim:
    """``name``: muon (matrices by Muon at ``lr``, the rest by AdamW at ``other_lr``) or adamw (all at ``lr``). Linear
    warm-up, cosine decay to ``final`` of the peak. A step takes the mean gradient of ``accumulate`` batches."""

    name: str = "muon"
    steps: int = 1000
    accumulate: int = 1
    lr: float = 5e-3
    other_lr: float = 2e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 30
    final: float = 0.05
    clip: float = 1.0

    def __post_init__(self):
        at_least_one(self, "optim", "steps", "accumulate", "warmup")
        if self.name not in ("muon", "adamw"):
            raise ValueError(f"optim.name={self.name!r}: 'muon' or 'adamw'.")


@dataclass
class Rl:
    """Reinforcement learning (train/rl.py): ``group`` rollouts of each of ``prompts`` items at ``temperature``, of at
    most ``max_new`` positions, ``max_spans`` sketches and ``latents_per_span`` (0: the method's own), then ``updates``
    steps by the ``objective`` (latent_reason/objectives.py). A rollout without an end is made to write ``answer_with``,
    such as ``\\boxed{``, and has ``answer_room`` more positions.

    ``policy`` says how latents are actions (latent_reason/objectives/latent_policies.py), ``latent_weight`` what they weigh beside words,
    ``latent_ratio`` whether each ``latent`` has a ratio or each ``span``, ``latent_clip`` its bound (0: the policy's).
    ``rewards`` are those of train/rl/rewards.py, or dotted paths, with their weights; ``kl`` weighs the distance of words
    and stops to ``reference`` (a checkpoint; none: the one it began with), ``latent_kl`` that of latents. ``anchor``
    weighs the solver's traces of items that no rollout solved (``anchor_on`` ``unsolved``) or of ``all``, and falls to
    1/e in ``anchor_fade`` steps (0: never). ``dual`` bounds the loss of a bad action by that many advantages (0: not).
    With ``token_weight`` above 1, words count up to that much more where the rollouts of a group differ.

    Items come ``in_turn`` or by the ``pass_rate`` of their level (``sampler``), which ``difficulty`` weighs advantages
    by too (train/rl/samplers.py); with ``triples`` each comes in three (train/rl/evidence_triples.py). ``views`` weigh what other
    pictures would change (train/rl/perturbations.py): ``necessity`` pays words for depending on it, where ``masked_share`` of its
    patches are black, ``robustness`` charges them for noise, ``entropy`` charges for unlikely words, seen so and so;
    ``view_latents`` are ``recorded``, ``regenerated`` or ``dropped``.

    ``refill`` draws up to that many times ``prompts`` more where all rollouts of an item earn the same, and leaves
    those out (DAPO's dynamic sampling); ``unfinished`` says whether rollouts that ran out of budget are ``graded`` or
    ``left_out``, of the statistics of their group too. ``replay_rows`` rollouts are scored again at a time (0: all)."""

    objective: str = "dapo"
    policy: str = "mask"
    policy_options: dict[str, Any] = field(default_factory=dict)
    group: int = 8
    prompts: int = 8
    updates: int = 1
    temperature: float = 1.0
    max_new: int = 256
    rewards: dict[str, float] = field(default_factory=lambda: {"accuracy": 1.0, "format": 0.1})
    kl: float = 0.0
    latent_kl: float = 0.0
    latent_weight: float = 1.0
    anchor: float = 0.0
    dual: float = 0.0
    refill: int = 0
    unfinished: str = "graded"
    replay_rows: int = 0
    max_spans: int = 0
    latents_per_span: int = 0
    answer_with: str = ""
    answer_room: int = 32
    latent_ratio: str = "latent"
    latent_clip: float = 0.0
    reference: str | None = None
    anchor_on: str = "unsolved"
    anchor_fade: int = 0
    token_weight: float = 0.0
    sampler: str = "in_turn"
    difficulty: bool = False
    triples: bool = False
    views: dict[str, float] = field(default_factory=dict)
    view_latents: str = "recorded"
    masked_share: float = 0.6

    def __post_init__(self):
        at_least_one(self, "rl", "prompts", "updates", "max_new", "answer_room")
        shares(self, "rl", "masked_share")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"rl.objective={self.objective!r}: one of {', '.join(OBJECTIVES)}.")
        if self.group < 2:
            raise ValueError(f"rl.group={self.group}: rollouts are compared with others of their item, so 2 or more.")
        for name, known in {
            "unfinished": ("graded", "left_out"),
            "latent_ratio": ("latent", "span"),
            "anchor_on": ("unsolved", "all"),
            "sampler": ("in_turn", "pass_rate"),
            "view_latents": ("recorded", "regenerated", "dropped"),
        }.items():
            if getattr(self, name) not in known:
                raise ValueError(f"rl.{name}={getattr(self, name)!r}: one of {', '.join(known)}.")
        if unknown := self.views.keys() - {"necessity", "robustness", "entropy"}:
            raise ValueError(f"rl.views: no view {min(unknown)!r}. Known: necessity, robustness, entropy.")
        for name in (
            "kl",
            "latent_kl",
            "latent_weight",
            "anchor",
            "dual",
            "refill",
            "replay_rows",
            "max_spans",
            "latents_per_span",
            "latent_clip",
            "anchor_fade",
            "token_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"rl.{name}={getattr(self, name)}: 0 or more.")
        if 0 < self.token_weight < 1:
            raise ValueError(f"rl.token_weight={self.token_weight}: 1 or more, such as 1.7, or 0 for none.")
        if self.triples and self.prompts < 3:
            raise ValueError(f"rl.triples: an item comes in three, so rl.prompts={self.prompts} is too few. Set 3.")
        if self.updates > 1 and OBJECTIVES[self.objective].low is None:
            raise ValueError(f"rl.objective={self.objective!r} corrects for no change of the policy: rl.updates is 1.")
        if self.temperature <= 0:
            raise ValueError(f"rl.temperature={self.temperature}: more than 0, or all rollouts are the same.")
        if not self.rewards:
            raise ValueError("rl.rewards is empty. Name one, such as {accuracy: 1.0}.")


@dataclass
class Recipe:
    """One run. ``init`` is a checkpoint folder to start from and ``teacher`` one to learn from, where a method has a
    teacher (none given: the model as it starts); ``run`` names the folder under checkpoints/. ``stages`` are changes to
    this recipe, key by key (a reward that is not named stays; weight 0 takes it out), trained one after the other, each
    from the model of the one before; ``arms`` are changes by name, each
    trained by itself and compared (train/compare.py). Several processes each hold the whole model, or, ``sharded``, a
    part of it (FSDP2: train/sharding.py)."""

    run: str = "run"
    init: str | None = None
    seed: int = 0
    backbone: Backbone = field(default_factory=Backbone)
    method: Method = field(default_factory=Method)
    teacher: str | None = None
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    rl: Rl = field(default_factory=Rl)
    trainable: list[str] = field(default_factory=lambda: ["trunk", "embeddings", "head"])
    sharded: bool = False
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: str = "auto"
    log_every: int = 10
    sketch_every: int = 0  # steps between looks at held-out items, with sketch panels; 0: at the end only
    save_every: int = 0  # steps between checkpoints, of which the last is kept as RUN/step-N; 0: at the end only
    stages: list[dict[str, Any]] = field(default_factory=list)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    picture_weight: float = 10.0  # pretraining: weight of the picture loss beside the reading loss
    fast_dev_run: bool = False


def at_least_one(holder, group: str, *names: str) -> None:
    for name in names:
        if getattr(holder, name) < 1:
            raise ValueError(f"{group}.{name}={getattr(holder, name)}: a number from 1 on.")


def shares(holder, group: str, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(holder, name) <= 1:
            raise ValueError(f"{group}.{name}={getattr(holder, name)}: a share from 0 to 1.")


def staged(recipe: Recipe) -> list[Recipe]:
    """The recipe of every stage; of a recipe without stages, itself.

    Raises:
        ValueError: a stage has a key or value that a recipe may not have; says which stage.
    """
    return [
        _changed(recipe, changes, f"stage {n}", {"stages", "arms", "run", "init"})
        for n, changes in enumerate(recipe.stages, 1)
    ] or [recipe]


def armed(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe of every arm by its name. Raises ValueError as :func:`staged`."""
    return {name: _changed(recipe, changes, f"arm {name!r}", {"arms", "run"}) for name, changes in recipe.arms.items()}


def _changed(recipe: Recipe, changes: dict, where: str, fixed: set[str]) -> Recipe:
    """A recipe without stages and arms, with some keys changed; ``fixed`` keys may not be."""
    if not isinstance(changes, dict) or fixed & changes.keys():
        raise ValueError(f"{where}: holds keys of a recipe, but none of {', '.join(sorted(fixed))}; got {changes!r}.")
    base = dataclasses.asdict(recipe) | {"stages": [], "arms": {}}
    try:
        changes = _plain(changes, where)
        if changes.get("method", {}).get("name", recipe.method.name) != recipe.method.name:
            base["method"]["options"] = {}  # another method has options of its own
        return _made(_merged(base, changes))
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix(where + ': ')}") from None


def parse(argv: list[str] | None = None, description: str = "") -> Recipe:
    """The recipe of a command line: ``--config FILE`` and dotted keys (``--optim.steps 500``), later ones win.

    Raises:
        ValueError, FileNotFoundError: one sentence that says what is wrong where; an unknown key names the nearest.
    """
    values: dict = {}
    for key, text in _words(sys.argv[1:] if argv is None else argv):
        if key == "help":
            _parser(description).print_help()
            raise SystemExit(0)
        if key == "config":
            if text is None:
                raise ValueError("command line: --config needs a file, such as train/recipes/quickstart.yaml.")
            values = _merged(values, read(text))
        else:
            values = _merged(values, _plain(_nested(key, text), "command line"))
    return _made(values)


def load(path: str | Path, **changes) -> Recipe:
    """A recipe file. ``changes`` are dotted keys with ``__``: ``load(f, optim__steps=3)``. Raises as :func:`parse`."""
    values = read(path)
    for key, value in changes.items():
        values = _merged(values, _nested(key.replace("__", "."), value))
    return _made(values)


def read(path: str | Path) -> dict:
    """The plain values of a recipe file.

    Raises:
        FileNotFoundError: it is not there; names the nearest shipped recipe.
        ValueError: it is not YAML, or has a key that a recipe may not have.
    """
    path = Path(path)
    if not path.is_file():
        shipped = sorted(p.as_posix() for p in Path("train/recipes").glob("*.yaml"))
        raise FileNotFoundError(f"recipe '{path}' is not there. {did_you_mean(path.as_posix(), shipped)}")
    try:
        values = get_loader("yaml")(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no keys. Write lines like 'seed: 0'.")
    return _plain(values, str(path))


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    plain = dataclasses.asdict(recipe)
    plain["optim"]["betas"] = list(plain["optim"]["betas"])
    return yaml.safe_dump(plain, sort_keys=False)


def _words(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """(key, text) of every ``--key text`` and ``--key=text``; the text of a key that stands alone is None."""
    at = 0
    while at < len(argv):
        word, at = argv[at], at + 1
        if word != "-h" and not word.startswith("--"):
            raise ValueError(f"command line: '{word}' belongs to no key. Write keys as --optim.steps 100.")
        key, equals, text = ("help", "", "") if word == "-h" else word[2:].partition("=")
        if not equals and at < len(argv) and not argv[at].startswith("--"):
            equals, text, at = "=", argv[at], at + 1
        yield key, text if equals else None


def _nested(key: str, value) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _merged(old: dict, new: dict) -> dict:
    both = {
        k: _merged(old[k], v) if isinstance(v, dict) and isinstance(old.get(k), dict) else v for k, v in new.items()
    }
    return old | both


def _plain(values: dict, where: str, kind=Recipe, prefix: str = "") -> dict:
    """The values with numbers as text where text is wanted, and texts from a command line as what they say.

    Raises:
        ValueError: a key that ``kind`` does not have, or a key without a value.
    """
    hints, plain = typing.get_type_hints(kind), {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"{where}: unknown key '{prefix}{key}'. {_nearest_key(f'{prefix}{key}')}")
        if value is None and hints[key] is bool:
            value = True
        elif value is None and where == "command line":
            raise ValueError(f"command line: --{prefix}{key} needs a value.")
        elif dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ValueError(
                    f"{where}: {prefix}{key} holds keys, such as {prefix}{key}."
                    f"{dataclasses.fields(hints[key])[0].name}; got {value!r}."
                )
            value = _plain(value, where, hints[key], f"{prefix}{key}.")
        elif hints[key] is str and isinstance(value, int | float):
            value = str(value)
        elif typing.get_origin(hints[key]) is dict and where == "command line":
            value = _said(value)
        elif isinstance(value, dict) and typing.get_origin(hints[key]) is not dict:
            raise ValueError(f"{where}: unknown key '{prefix}{key}.{next(iter(value))}'. {prefix}{key} holds no keys.")
        plain[key] = value
    return plain


def _said(value):
    """The YAML values that texts (in dicts) spell."""
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items()}
    return get_loader("yaml")(value) if isinstance(value, str) else value


def _nearest_key(key: str) -> str:
    group, _, name = key.rpartition(".")
    known = _keys(Recipe)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if close:
        return f"Did you mean '{close[0]}'?"
    names = {k.rpartition(".")[2]: k for k in known}
    close = difflib.get_close_matches(name, names, n=1)
    return (
        f"Did you mean '{names[close[0]]}'?" if close else did_you_mean(key, [k for k in known if k.startswith(group)])
    )


def _keys(kind, prefix: str = "") -> list[str]:
    """Every dotted key of a dataclass."""
    out = []
    for name, hint in typing.get_type_hints(kind).items():
        out += _keys(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return out


def _parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", help="a YAML recipe; keys after it change it")
    parser.add_class_arguments(Recipe)
    return parser


def _made(values: dict) -> Recipe:
    """A recipe of plain values. Raises ValueError for a value of the wrong type."""
    try:
        checked = _parser("").parse_object(values).as_dict()
    except ArgumentError as error:
        said = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(error).split())).replace(". Got value: ", ", got ")
        raise ValueError(re.sub(r'^Parser key "(.*?)": Expected an? ', r"\1: expected ", said)) from None
    checked.pop("config", None)
    recipe = _built(Recipe, checked)
    staged(recipe)
    armed(recipe)
    return recipe


def _built(kind, values: dict):
    hints = typing.get_type_hints(kind)
    return kind(**{k: _built(hints[k], v) if dataclasses.is_dataclass(hints[k]) else v for k, v in values.items()})

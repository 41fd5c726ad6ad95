"""Wrong options of methods, heads, tasks and backbones, and of other command lines. ``PARTS`` is the catalogue."""

from __future__ import annotations

from latent_reason import methods, tasks
from latent_reason.checkpoint import parts
from latent_reason.model.backbones import load_backbone
from latent_reason.objectives.latent_inputs import ScheduledSampling


# -- options of methods, heads and tasks, and of other command lines ---------------------------------------------------
def head(kind: str, **options) -> None:
    methods.check_options("modal_mixed", {"head": kind, "head_options": options})


def part(role: str, kind: str, **arguments) -> None:
    """A model built by hand, as a checkpoint describes it."""
    parts.build({"head": None, "target": None} | {role: {"class": kind, "arguments": arguments}}, None)


PARTS = [  # what, how it is called, and what the error says
    (
        "A method of no latents.",
        lambda: methods.check_options("modal_mixed", {"k": 0}),
        ("method modal_mixed: k=0", "between 1 and 65,536"),
    ),
    (
        "A head built by hand that is too wide.",
        lambda: part("head", "MLPHead", width=8, latent_width=8, hidden=10**9),
        ("MLPHead: hidden=1000000000",),
    ),
    (
        "A target built by hand without an encoder.",
        lambda: part("target", "ExternalEncoder", encoder=""),
        ("encoder is",),
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

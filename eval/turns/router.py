"""Fits the classifier of the baseline ``route``: from the state of a prompt to the way to think.

    python -m eval.turns.router CHECKPOINT --out ROUTER.json [--task NAME] [--levels 3,4] [--n 300] [--seed 0]

CHECKPOINT follows the mode that its prompt names (data.pair_modes with the task option ``asked``, as in
train/recipes/dual_frozenlake.yaml). Every mode answers the same training items. The right choice for an item is the cheapest
mode whose answer is right: at once, in words, with sketches. Items that no mode solves are left out. A fifth of the items is
held out, and the file has the accuracy of each mode and of the choice on them.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.turns.router", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--task", help="default: the task it was trained on")
    parser.add_argument("--levels", type=numbers, help="default: the levels it was trained on")
    parser.add_argument("--n", type=at_least(10), default=300, help="training items (default: 300)")
    parser.add_argument("--seed", type=argument(Seed), default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from latent_reason import checkpoint
from latent_reason.checkpoint.training_data import TrainingData, make_task
from latent_reason.files import atomic_write_json
from latent_reason.json_files import read_json
from latent_reason.outputs import check_output
from latent_reason.tasks.base import ASKED

from .baseline import Ask, Baseline, Chat, Problem, Read, Thinking
from .episodes import EpisodeLimits, run_episodes

#: from cheap to dear; each with the form of its trace
MODES = {"direct": "direct", "text": "text", "sketch": "mixed"}
HELD_OUT = 5
console = Console(soft_wrap=True)


def ask_for(problem: Problem, mode: str) -> Chat:
    """The question, as a task with the option ``asked`` puts it in a mode."""
    return Chat().with_user(f"{problem.question} {ASKED[mode]}", problem.pictures)


@dataclass(frozen=True)
class Router:
    """A linear classifier of states: weights (M, D) and biases (M,) of M modes, after centering and scaling."""

    modes: tuple[str, ...]
    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def choose(self, state: torch.Tensor) -> str:
        """The mode for a state (D,)."""
        scores = self.weight @ ((state - self.mean) / self.scale) + self.bias
        return self.modes[int(scores.argmax())]

    @classmethod
    def fit(cls, states: torch.Tensor, labels: Sequence[str], penalty: float = 1e-2) -> Router:
        """Logistic regression on states (n, D), with a penalty on the squared weights."""
        modes = tuple(mode for mode in MODES if mode in labels)
        target = torch.tensor([modes.index(label) for label in labels])
        mean, scale = states.mean(0), states.std(0).clamp_min(1e-6)
        inputs = (states - mean) / scale
        weight = torch.zeros(len(modes), states.shape[1], requires_grad=True)
        bias = torch.zeros(len(modes), requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = (
                torch.nn.functional.cross_entropy(inputs @ weight.T + bias, target) + penalty * weight.square().sum()
            )
            value.backward()
            return value

        optimizer.step(loss)
        return cls(modes, mean, scale, weight.detach(), bias.detach())

    def to_json(self) -> dict:
        tensors = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weight", "bias")}
        return {"modes": list(self.modes), **tensors}

    @classmethod
    def read(cls, path: str) -> Router:
        """From a file of this command.

        Raises:
            FileNotFoundError, ValueError: no such file, or not such a file.
        """
        known = read_json(path, "a file of eval.turns.router", ("router",))["router"]
        try:
            tensors = {name: torch.tensor(known[name]) for name in ("mean", "scale", "weight", "bias")}
            shapes = [tuple(tensors[name].shape) for name in ("mean", "scale", "weight", "bias")]
            m, d = shapes[2]
            if (
                shapes != [(d,), (d,), (m, d), (m,)]
                or m != len(known["modes"])
                or not set(known["modes"]) <= set(MODES)
            ):
                raise ValueError("shapes")
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"'{path}': its router is damaged. Fit it again with python -m eval.turns.router."
            ) from None
        return cls(tuple(known["modes"]), **tensors)


@dataclass(frozen=True)
class OneMode(Baseline):
    """Every question in one mode."""

    mode: str

    @property
    def may_sketch(self) -> bool:
        return self.mode == "mixed"

    def think(self, problem: Problem) -> Thinking:
        reply = yield Ask(ask_for(problem, self.mode))
        return reply.text


@dataclass(frozen=True)
class ReadPrompt(Baseline):
    """Reads the question and keeps its state in ``states``."""

    states: dict[str, torch.Tensor]

    def think(self, problem: Problem) -> Thinking:
        reading = yield Read(problem.chat())
        self.states[problem.id] = reading.state
        return ""


def fit_router(model, task, items: Sequence, seed: int) -> tuple[Router, dict]:
    """(the router, the accuracy of each mode and of the choice on held-out items).

    Raises:
        ValueError: all items have one right choice, so that there is nothing to learn.
    """
    limits, states = EpisodeLimits(seed=seed), dict[str, torch.Tensor]()
    problems = [ReadPrompt(states).problem(task, item) for item in items]
    for _ in run_episodes(model, None, ReadPrompt(states), problems, limits):
        pass
    right = {}
    for name, mode in MODES.items():
        if mode == "mixed" and not model.can_sketch:
            continue
        episodes = dict(run_episodes(model, None, OneMode(mode), problems, limits))
        right[name] = [next(iter(task.score(episodes[n].text, item.meta).values())) for n, item in enumerate(items)]
    labels = [next((name for name in right if right[name][n] >= 1), None) for n in range(len(items))]
    training = [n for n, label in enumerate(labels) if label and n % HELD_OUT]
    if len({labels[n] for n in training}) < 2:
        raise ValueError(
            f"the cheapest right mode is the same for all {len(training)} items that any mode solves, so there is nothing to "
            "choose. Use other levels, or more items."
        )
    router = Router.fit(torch.stack([states[items[n].id] for n in training]), [labels[n] for n in training])
    held_out = range(0, len(items), HELD_OUT)
    chosen = {n: router.choose(states[items[n].id]) for n in held_out}
    report = {name: sum(marks[n] for n in held_out) / len(held_out) for name, marks in right.items()}
    report["choice"] = sum(right[chosen[n]][n] for n in held_out) / len(held_out)
    shares = {name: sum(mode == name for mode in chosen.values()) / len(chosen) for name in router.modes}
    return router, {"n": len(held_out), "accuracy": report, "chosen": shares}


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        fit_to_file(parse_arguments(argv))


def fit_to_file(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite)
    model, _ = checkpoint.load(args.checkpoint)
    notes = model.method.notes
    if not TrainingData.of(notes).options.get("asked"):
        raise ValueError(
            f"'{args.checkpoint}' was not trained to follow the mode in its prompt. Train it with a recipe like "
            "train/recipes/dual_frozenlake.yaml (data.pair_modes, and the task option asked)."
        )
    # another seed than that of the training, whose answers the model may know by heart
    task = make_task(notes, args.checkpoint, args.task, levels=args.levels, split="train", seed=args.seed + 1000)
    router, report = fit_router(model, task, [task[i] for i in range(args.n)], args.seed)
    about = {
        "schema": 1,
        "checkpoint": Path(args.checkpoint).as_posix(),
        "task": task.name,
        "n": args.n,
        "seed": args.seed,
    }
    atomic_write_json(args.out, about | {"held_out": report, "router": router.to_json()})
    accuracies = ", ".join(f"{name} {value:.2f}" for name, value in report["accuracy"].items())
    console.print(f"{report['n']} held-out items: {accuracies}")
    console.print(f"Results written to {args.out}")


if __name__ == "__main__":
    main()

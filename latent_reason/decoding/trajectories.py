"""Several answers after one trajectory of latents (hierarchical rollouts, LaDi-RL 2602.01705)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..model.batch import MixedBatch
from ..model.reasoner import LatentReasoner
from ..model.switching import DONE
from .branches import Branch, restore_branches, save_branch
from .config import GenerationConfig
from .engine import Engine
from .host_rows import Group, Row
from .rollout import Rollout


@torch.no_grad()
def generate_trajectories(
    model: LatentReasoner,
    prompt: MixedBatch,
    config: GenerationConfig | None = None,
    *,
    completions: int,
    row_ids: Sequence[int] | None = None,
    group_size: int = 1,
    **overrides: Any,
) -> Rollout:
    """As :func:`.engine.generate`, but ``completions`` rows one after the other share a trajectory: all that the first of
    them does up to the end of its first sketch. What follows is of their own. A row that ends without a sketch, or with
    it, is repeated. So every row is a sample of the policy, and the mean over a trajectory's rows is an unbiased estimate
    for what they share: where it ends does not depend on what follows.

    Raises:
        ValueError: the rows are no groups of ``completions`` with one prompt, or an option that this model cannot follow.
    """
    config = replace(config or GenerationConfig(), **overrides)
    was_training = model.training
    model.eval()
    try:
        n = len(prompt.ids)
        if group_size % completions or n % group_size:
            raise ValueError(f"{n} rows in groups of {group_size} are no trajectories of {completions} rows.")
        names = list(range(n)) if row_ids is None else list(row_ids)
        engine = Engine(model, config, n)
        group = engine.admit(prompt, row_ids=names, same_prompt=[row - row % group_size for row in range(n)])
        first = group.rows[::completions]
        engine.stop([row for row in group.rows if row not in first])
        branches = decode_first(engine, first)
        rows = complete(engine, first, branches, names, completions)
        return engine.rollout_of(Group(prompt, rows, group.start))
    finally:
        model.train(was_training)


def decode_first(engine: Engine, first: list[Row]) -> dict[Row, Branch]:
    """Decode the first row of every trajectory to its end. Returns where those are that go on after a sketch."""
    close, branches = engine.model.vocabulary.close, dict[Row, Branch]()
    while engine.num_active:
        engine.step()
        for row in first:
            if row not in branches and row.mode != DONE and row.ids[-1:] == [close]:
                branches[row] = save_branch(engine, row)
    return branches


def complete(
    engine: Engine, first: list[Row], branches: dict[Row, Branch], names: list[int], completions: int
) -> list[Row]:
    """All rows in order: the first of each trajectory, and those that continue it."""
    rows = list[Row]()
    for number, row in enumerate(first):
        own = names[number * completions + 1 : (number + 1) * completions]
        rows.append(row)
        if row in branches:
            rows += restore_branches(engine, [branches[row]] * len(own), own)
        else:
            rows += [row] * len(own)
    while engine.num_active:
        engine.step()
    return rows

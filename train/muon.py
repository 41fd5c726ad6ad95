"""Muon and AdamW as one optimizer, so that clipping, accumulation, gradient scaling and schedules apply to both alike.

Muon (2502.16982) orthogonalizes the momentum of each matrix with Newton-Schulz iterations. ``torch.optim.Muon`` always
iterates in bfloat16, which CPUs without such instructions multiply far slower than float32:

    python -m timeit -s "import torch; a = torch.randn(384, 384).bfloat16()" "a @ a"     # and without .bfloat16()

so here the iteration is in float32 where weights are on a CPU, and in bfloat16 elsewhere, as in torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.optim.adamw import adamw

from .sharding import local

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz polynomial
ITERATIONS = 5
EPS = 1e-7
COPIED_AT_ONCE = 2**27  # entries of 16-bit gradients with a copy in fp32 at a time, 512 MiB; a larger weight is alone


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps each parameter group by its ``rule``: ``muon`` (matrices) or ``adamw`` (anything).

    Weights in 16 bits have a copy in fp32, which takes the steps; moments are in fp32, too. A step of 1e-5 is less than
    half the distance of two neighboring bf16 numbers near 0.01, so without the copy most weights would never move.

    Args:
        groups: parameter groups, each with ``params``, ``rule``, ``lr`` and ``weight_decay``.
        betas: decay rates of AdamW's moments.

    Raises:
        ValueError: an unknown rule, or a parameter for Muon that is no matrix.
    """

    def __init__(self, groups: list[dict], betas: tuple[float, float] = (0.9, 0.98)):
        super().__init__(groups, {"betas": tuple(betas), "eps": 1e-8, "fused": True})
        for group in self.param_groups:
            if group["rule"] not in ("muon", "adamw"):
                raise ValueError(f"rule {group['rule']!r}: known rules are 'muon' and 'adamw'.")
            if group["rule"] == "muon" and any(p.ndim != 2 for p in group["params"]):
                raise ValueError("Muon steps matrices only. Give parameters of other shapes the rule 'adamw'.")

    def load_state_dict(self, state_dict: dict) -> None:
        """As in torch, which would round the fp32 state of a weight in 16 bits to the weight's dtype."""
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for p, number in zip(group["params"], saved["params"], strict=True):
                for name, value in state_dict["state"].get(number, {}).items():
                    self.state[p][name] = value.to(p.device, copy=True)

    @torch.no_grad()
    def step(self, closure=None):
        """One step of every group; ``closure`` computes the loss and the gradients first, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["rule"] == "muon":
                self._step_muon(group, params)
                continue
            for some in parts_of(params, COPIED_AT_ONCE):
                self._step_adamw(group, some)
        return loss

    def _master_weight(self, p: torch.Tensor) -> torch.Tensor:
        """The tensor that takes the steps of a parameter: itself, or its copy in fp32."""
        if p.dtype not in (torch.bfloat16, torch.float16):
            return p
        state = self.state[p]
        if "master" not in state:
            state["master"] = p.float()
        return state["master"]

    def _step_muon(self, group: dict, params: list[torch.Tensor]) -> None:
        """Nesterov momentum, orthogonalized, scaled to the RMS of AdamW's updates (2502.16982)."""
        for p in params:
            state, weight = self.state[p], self._master_weight(p)
            gradient = p.grad.to(weight.dtype)
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(gradient, 1 - MOMENTUM)
            update = orthogonalize(gradient.lerp(state["momentum"], MOMENTUM))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update.to(weight.dtype), alpha=-0.2 * max(p.shape) ** 0.5 * group["lr"])
            if weight is not p:
                p.copy_(weight)

    def _step_adamw(self, group: dict, params: list[torch.Tensor]) -> None:
        weights = [self._master_weight(p) for p in params]
        for p, weight in zip(params, weights, strict=True):
            state = self.state[p]
            if "step" not in state:
                state["step"] = torch.zeros((), device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        states = [self.state[p] for p in params]
        adamw(  # entry by entry, so that of sharded weights each process steps its part
            [local(weight) for weight in weights],
            [local(p.grad).to(weight.dtype) for p, weight in zip(params, weights, strict=True)],
            *([local(state[name]) for state in states] for name in ("exp_avg", "exp_avg_sq")),
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for p, weight in zip(params, weights, strict=True):
            if weight is not p:
                p.copy_(weight)


def parts_of(params: list[torch.Tensor], entries: int) -> Iterator[list[torch.Tensor]]:
    """The parameters in order, in parts of at most so many entries. A larger parameter is a part of its own."""
    part, size = [], 0
    for p in params:
        count = local(p).numel()
        if part and size + count > entries:
            yield part
            part, size = [], 0
        part.append(p)
        size += count
    if part:
        yield part


def orthogonalize(matrix: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The nearest matrix (M, N) whose singular values are all near one, by Newton-Schulz iterations in ``dtype``; by
    default float32 on a CPU and bfloat16 elsewhere."""
    dtype = dtype or (torch.float32 if matrix.device.type == "cpu" else torch.bfloat16)
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x

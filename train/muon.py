"""Muon for every machine: ``torch.optim.Muon`` (2502.16982), whose iteration is in fp32 where weights lie on a CPU.

PyTorch's always iterates in bf16, which processors without such instructions multiply far slower than fp32:

    python -m timeit -s "import torch; a = torch.randn(384, 384).bfloat16()" "a @ a"     # and without .bfloat16()
"""

from __future__ import annotations

import torch


class Muon(torch.optim.Muon):
    """Updates are scaled to the rms of AdamW's."""

    def __init__(self, params, lr: float, weight_decay: float):
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure=None):
        if any(p.device.type != "cpu" for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads, buffers = [], [], []
            self._init_group(group, params, grads, buffers)
            for p, grad, buffer in zip(params, grads, buffers, strict=True):
                buffer.lerp_(grad, 1 - group["momentum"])
                update = grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
                update = orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.to(p.dtype), alpha=-0.2 * max(p.shape) ** 0.5 * group["lr"])
        return loss


def orthogonal(matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> torch.Tensor:
    """The nearest matrix (m, n) whose singular values are all near one, by Newton and Schulz in fp32."""
    a, b, c = coefficients
    x = matrix.float().T if matrix.shape[0] > matrix.shape[1] else matrix.float()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x

"""What ``torch.compile`` may take as a whole: the text model of a training step, and the losses of its states."""

import pytest
import torch

from latent_reason import methods
from latent_reason.model.backbones.families import FAMILIES

pytestmark = [  # dynamo warns of what it does itself
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor"),
]
WHOLE = {"fullgraph": True, "backend": "aot_eager"}  # raises at the first graph break


@pytest.fixture(autouse=True)
def no_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def parts(family, make_backbone, make_traces):
    """(model, objective, batch with images and sketches) of a family."""
    reasoner = methods.build_method("modal_mixed", make_backbone(family=family), k=6, head="mlp").train()
    reasoner.target.standardizer.fitted.fill_(True)
    objective = methods.objective_of(reasoner)
    return reasoner, objective, objective.collate(reasoner, make_traces())


def step(reasoner, objective, batch):
    """The loss of a training step, and the gradients of all weights that got one."""
    torch.manual_seed(0)
    reasoner.zero_grad()
    loss = objective.loss(reasoner, batch).total
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in reasoner.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "qwen3_vl" else pytest.mark.long) for name in FAMILIES]
)
def test_the_text_model_of_a_step_compiles_without_a_graph_break(family, make_backbone, make_traces, monkeypatch):
    made = parts(family, make_backbone, make_traces)
    loss, gradients = step(*made)
    backbone = made[0].backbone
    monkeypatch.setattr(backbone, "call_text_model", torch.compile(backbone.call_text_model, **WHOLE))
    compiled, compiled_gradients = step(*made)
    torch.testing.assert_close(compiled, loss)
    assert (compiled_gradients - gradients).norm() <= 1e-5 * gradients.norm()


def test_the_losses_of_a_step_compile_without_a_graph_break(make_backbone, make_traces):
    reasoner, objective, batch = parts("qwen2_5_vl", make_backbone, make_traces)
    targets = reasoner.target(batch).detach()

    def losses(h):
        return objective.loss_terms(reasoner, batch, h, targets).total

    states = torch.randn(*batch.ids.shape, reasoner.backbone.width, requires_grad=True)
    results = []
    for run in (losses, torch.compile(losses, **WHOLE)):
        loss = run(states)
        results.append((loss.detach(), *torch.autograd.grad(loss, states)))
    for found, wanted in zip(*reversed(results), strict=True):
        torch.testing.assert_close(found, wanted)

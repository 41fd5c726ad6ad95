"""What ``torch.compile`` may take as a whole: the loss of a training step, from features of a frozen encoder on."""

import copy

import pytest
import torch
from conftest import ready
from test_host_reads import METHODS, MORE, with_features

from latent_reason import methods
from latent_reason.contracts.fixtures import Case, modal_mixed, training_batch
from latent_reason.model.backbones.families import FAMILIES

pytestmark = [  # dynamo warns of what it does itself
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor"),
]
WHOLE = {"fullgraph": True, "dynamic": False, "backend": "aot_eager"}  # raises at the first graph break
#: methods, and cases of others, whose host chooses by what the batch holds, more than shapes say, and why
NOT_WHOLE = {
    "ilvr": "its target regresses over the image positions of each row",
    "monet": "its loss takes a gradient, and its stage hides images that the tokenizer finds",
    "deepsketcher": "its editor reads the text between two spans",
    "mcout": "it cuts rows, thought by thought",
    "modal_mixed-diffusion-self-1d": "the sampler of diffusers reads its step",
    "modal_mixed-whole_span-self-1d": "as for every head with a context, the text between two spans is found",
    "latent_sketchpad-1-1-{'prob': 0.5}-1d": "its head reads the text between two spans of its own latents",
}
EVERY = [case if isinstance(case, Case) else case.values[0] for case in (*METHODS, *MORE)]
CASES = [case for case in EVERY if not {case.method, str(case)} & NOT_WHOLE.keys()]
QUICK = ("modal_mixed-1d",)
FAMILY_CASE = modal_mixed("mlp", stop="close", supervise="full")


@pytest.fixture(autouse=True)
def no_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check_whole(reasoner, traces):
    """The compiled loss of a batch, and the gradients of all weights, are those of the plain one."""
    batch = with_features(reasoner, training_batch(reasoner, traces[:2]))
    objective = methods.objective_of(reasoner)
    start = copy.deepcopy(reasoner.train().state_dict())  # a head may keep statistics of what it has learnt from
    results = []
    for loss in (objective.loss, torch.compile(objective.loss, **WHOLE)):
        torch.manual_seed(0)
        reasoner.load_state_dict(start)
        reasoner.zero_grad()
        total = loss(reasoner, batch).total
        total.backward()
        gradients = [p.grad.flatten() for p in reasoner.parameters() if p.grad is not None]
        results.append((total.detach(), torch.cat(gradients)))
    (plain, gradients), (compiled, compiled_gradients) = results
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=0)
    assert gradients.norm() > 0 and (compiled_gradients - gradients).norm() <= 1e-5 * gradients.norm()


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if str(case) in QUICK else pytest.mark.long) for case in CASES], ids=str
)
def test_the_loss_of_a_method_compiles_without_a_graph_break(case, make_backbone, make_traces):
    reasoner = ready(case, make_backbone, make_traces)
    check_whole(reasoner, make_traces(reasoner.can_sketch))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "qwen3_vl" else pytest.mark.long) for name in FAMILIES]
)
def test_the_loss_of_a_family_compiles_without_a_graph_break(family, make_backbone, make_traces):
    check_whole(ready(FAMILY_CASE, lambda positions: make_backbone(positions, family), make_traces), make_traces())

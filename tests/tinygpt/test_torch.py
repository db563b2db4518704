"""PyTorch as a yardstick, where it is installed: the same weights and batches must give the same training."""

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Tensor
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.model import GPT

torch = pytest.importorskip("torch", reason="PyTorch, an optional yardstick, is not installed")

from benchmarks import peers  # noqa: E402

CONFIGS = ARCHITECTURES | {
    "exact gelu, tied head, no bias in q, k, v": dict(activation="gelu_exact", tied_head=True),
    "separate head without a bias": dict(activation="gelu", qkv_bias=True, head_bias=False),
}


def batch(step):
    ids = np.random.default_rng(step).integers(0, 31, (4, 17))
    return ids[:, :-1], ids[:, 1:]


def pair(architecture, attention, dtype):
    """Our model and PyTorch's, with the same weights."""
    config = GPTConfig(31, block_size=16, n_layer=3, n_head=2, n_embd=24, **CONFIGS[architecture])
    ours = GPT(config, seed=1)
    for p in ours.parameters():
        p.data = p.data.astype(dtype)
    theirs = peers.TorchGPT(config, attention)
    theirs.copy_weights(ours)
    return ours, theirs


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("attention", [peers.HeadByHead, peers.ScaledDotProduct])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_twenty_steps_of_training(architecture, attention, dtype, tolerance):
    ours, theirs = pair(architecture, attention, dtype)
    our_optimizer = AdamW(ours.parameters(), lr=3e-3, weight_decay=0.1)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(20):
        ids, targets = batch(step)
        our_optimizer.zero_grad()
        their_optimizer.zero_grad()
        our_loss = ours.loss(ids, targets)
        their_loss = theirs(torch.tensor(ids), torch.tensor(targets))
        our_loss.backward()
        their_loss.backward()
        assert float(our_loss) == pytest.approx(their_loss.item(), abs=tolerance)
        if dtype == np.float64:
            their_gradients = theirs.gradients()
            assert their_gradients.keys() == dict(ours.named_parameters()).keys()
            for name, p in ours.named_parameters():
                np.testing.assert_allclose(p.grad, their_gradients[name], atol=1e-10, rtol=1e-8, err_msg=name)
        our_optimizer.step()
        their_optimizer.step()


def test_adamw_step_by_step():
    draw = np.random.default_rng(0)
    x = Tensor(draw.standard_normal((5, 7)), requires_grad=True)
    y = torch.tensor(x.data.copy(), requires_grad=True)
    ours, theirs = AdamW([x], lr=0.01), torch.optim.AdamW([y], lr=0.01)
    for _ in range(50):
        x.grad = draw.standard_normal(x.shape)
        y.grad = torch.tensor(x.grad.copy())
        ours.step()
        theirs.step()
        np.testing.assert_allclose(x.data, y.detach().numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ag.gelu, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        (ag.gelu_exact, torch.nn.functional.gelu),
        (ag.sigmoid, torch.sigmoid),
        (lambda x: ag.logsumexp(x, axis=1), lambda x: torch.logsumexp(x, 1)),
        (lambda x: ag.max(x, axis=0), lambda x: torch.amax(x, 0)),
        (lambda x: ag.var(x, axis=1, ddof=1), lambda x: torch.var(x, 1)),
        (lambda x: ag.tril(x, 1), lambda x: torch.tril(x, 1)),
    ],
)
def test_single_operations(ours, theirs):
    x = Tensor(np.random.default_rng(0).standard_normal((4, 6)), requires_grad=True)
    y = torch.tensor(x.data.copy(), requires_grad=True)
    a, b = ours(x), theirs(y)
    upstream = np.random.default_rng(1).standard_normal(a.shape)
    a.backward(upstream)
    b.backward(torch.tensor(upstream))
    np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(x.grad, y.grad.numpy(), rtol=1e-12, atol=1e-14)

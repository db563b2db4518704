"""AdamW, clipping and schedules."""

import math

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Tensor, clip_grad_norm


def parameters(seed=0):
    draw = np.random.default_rng(seed)
    return [Tensor(draw.standard_normal(shape), requires_grad=True) for shape in ((3, 4), (4,), (40_000,))]


def test_adamw_follows_its_formula():
    """Against the textbook's formulas, array by array, in float64; the last array is longer than a chunk."""
    params = parameters()
    settings = [{"lr": 0.1, "weight_decay": 0.3}, {"lr": 0.02, "weight_decay": 0.0}]
    groups = [{"params": params[::2], **settings[0]}, {"params": params[1::2], **settings[1]}]
    expected = [p.data.copy() for p in params]
    optimizer = AdamW(groups, betas=(0.8, 0.9), eps=1e-3)
    m, v = [[np.zeros_like(p) for p in expected] for _ in range(2)]
    draw = np.random.default_rng(1)
    for t in range(1, 6):
        for i, p in enumerate(params):
            g = draw.standard_normal(p.shape)
            p.grad[...] = g
            lr, decay = settings[i % 2]["lr"], settings[i % 2]["weight_decay"]
            expected[i] *= 1 - lr * decay
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.9 * v[i] + 0.1 * g * g
            expected[i] -= lr * (m[i] / (1 - 0.8**t)) / (np.sqrt(v[i] / (1 - 0.9**t)) + 1e-3)
        optimizer.step()
        for p, want in zip(params, expected, strict=True):
            np.testing.assert_allclose(p.data, want, rtol=1e-12, atol=1e-14)


def test_zero_grad_and_views_of_the_flat_buffers():
    params = parameters()
    optimizer = AdamW(params)
    (params[0] * params[0]).sum().backward()
    assert optimizer.groups[0]["grad"].any() and np.shares_memory(params[0].grad, optimizer.groups[0]["grad"])
    optimizer.zero_grad()
    assert not any(p.grad.any() for p in params)


def test_adamw_minimises():
    x = Tensor([5.0, -3.0], requires_grad=True)
    optimizer = AdamW([x], lr=0.1, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        ((x - 1.0) ** 2).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(x.data, 1, atol=1e-3)


def test_adamw_needs_parameters():
    with pytest.raises(ValueError, match="no parameters"):
        AdamW([])


def test_clip_grad_norm():
    params = parameters()
    for p in params:
        p.grad = np.ones(p.shape)
    norm = math.sqrt(sum(p.size for p in params))
    assert clip_grad_norm(params, norm + 1) == pytest.approx(norm) and params[0].grad.max() == 1
    assert clip_grad_norm(params, 2.0) == pytest.approx(norm)
    assert math.sqrt(sum((p.grad**2).sum() for p in params)) == pytest.approx(2.0, rel=1e-5)


def test_schedules():
    assert ag.constant(0.1)(0) == ag.constant(0.1)(999) == 0.1
    lr = ag.warmup_cosine(1.0, 10, 110, 0.1)
    assert lr(0) == 0.1 and lr(9) == 1.0 and lr(10) == 1.0
    assert lr(60) == pytest.approx(0.55) and lr(110) == pytest.approx(0.1) == lr(500)
    assert all(lr(i) > lr(i + 1) for i in range(10, 110))

"""AdamW, clipping and schedules."""

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Tensor
from tests.operations import checks_of, optim
from tests.operations.optim import parameters


@pytest.mark.parametrize("check", checks_of(optim).values(), ids=checks_of(optim))
def test_the_optimizer(check):
    check()


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


def test_schedules():
    assert ag.constant(0.1)(0) == ag.constant(0.1)(999) == 0.1
    lr = ag.warmup_cosine(1.0, 10, 110, 0.1)
    assert lr(0) == 0.1 and lr(9) == 1.0 and lr(10) == 1.0
    assert lr(60) == pytest.approx(0.55) and lr(110) == pytest.approx(0.1) == lr(500)
    assert all(lr(i) > lr(i + 1) for i in range(10, 110))

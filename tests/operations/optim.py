"""The records of the optimizer's functions."""

import math

import numpy as np
import pytest

from autograd import AdamW, Tensor, clip_grad_norm, optim
from tests.operations.checks import close, numbers, off_by_one
from tests.operations.record import Bug, Record


def parameters(seed=0):
    draw = np.random.default_rng(seed)
    return [Tensor(draw.standard_normal(shape), requires_grad=True) for shape in ((3, 4), (4,), (40_000,))]


def adamw_follows_its_formula():
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
            p.grad = g
            lr, decay = settings[i % 2]["lr"], settings[i % 2]["weight_decay"]
            expected[i] *= 1 - lr * decay
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.9 * v[i] + 0.1 * g * g
            expected[i] -= lr * (m[i] / (1 - 0.8**t)) / (np.sqrt(v[i] / (1 - 0.9**t)) + 1e-3)
        optimizer.step()
        for p, want in zip(params, expected, strict=True):
            np.testing.assert_allclose(p.data, want, rtol=1e-12, atol=1e-14)


def training_goes_on_with_replaced_arrays():
    """w = 1 on the loss w², lr 0.1, no decay: -0.0339675 after 30 steps in PyTorch too."""
    for flat in (False, True):
        w = Tensor([1.0], requires_grad=True, dtype=np.float64)
        optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
        if flat:
            optimizer.flatten()
        for _ in range(30):
            w.data, w.grad = w.data.copy(), None
            (w * w).backward()
            w.grad = np.clip(w.grad, -100, 100)
            optimizer.step()
        assert float(w) == pytest.approx(-0.0339675, abs=1e-6)


def unused_parameters_are_skipped():
    """No decay, and no step is counted: the first update is as large as any first one."""
    used, unused = parameters()[:2]
    optimizer = AdamW([used, unused], lr=0.1, weight_decay=0.5)
    before = unused.data.copy()
    for _ in range(5):
        used.grad = np.ones(used.shape)
        optimizer.step()
    assert np.array_equal(unused.data, before)
    unused.grad = np.ones(unused.shape)
    optimizer.step()
    np.testing.assert_allclose(unused.data, before * (1 - 0.1 * 0.5) - 0.1, rtol=1e-6)


def gradients_from_before_are_kept():
    for flat in (False, True):
        w = parameters()[0]
        w.grad = np.ones(w.shape)
        optimizer = AdamW([w])
        if flat:
            optimizer.flatten()
        assert w.grad.all()


def a_step_is_noticed_by_older_tapes():
    for flat in (False, True):
        w = parameters()[0]
        optimizer = AdamW([w])
        if flat:
            optimizer.flatten()
        loss, w.grad = (w * w).sum(), w.grad if flat else np.ones(w.shape)
        optimizer.step()
        try:
            loss.backward()
        except RuntimeError:
            continue
        raise AssertionError("a gradient from the new weights")


def only_leaves_are_trained():
    try:
        AdamW([parameters()[0] * 2])
    except ValueError:
        return
    raise AssertionError("a result was taken for a parameter")


def clipping_scales_the_joint_norm():
    params = parameters()
    for p in params:
        p.grad = np.ones(p.shape)
    norm = math.sqrt(sum(p.size for p in params))
    assert clip_grad_norm(params, norm + 1) == pytest.approx(norm) and params[0].grad.max() == 1
    assert clip_grad_norm(params, 2.0) == pytest.approx(norm)
    assert math.sqrt(sum((p.grad**2).sum() for p in params)) == pytest.approx(2.0, rel=1e-5)


def adamw_and_norm_kernels(cupy):
    runs = []
    for to_device, dtype in ((np.asarray, np.float64), (cupy.asarray, np.float32)):
        matrix, vector = (
            Tensor(to_device(numbers(*shape, seed=4).astype(dtype)), requires_grad=True)
            for shape in ((300, 8), (5,))
        )
        groups = [{"params": [matrix], "weight_decay": 0.3}, {"params": [vector], "weight_decay": 0.0}]
        optimizer = AdamW(groups, lr=0.01)
        for step in range(3):
            for p in (matrix, vector):
                gradient = to_device(numbers(*p.shape, seed=step).astype(dtype))
                p.grad = gradient * (10.0 if step == 1 else 0.001)
                if to_device is not np.asarray and step == 1:
                    p.grad = off_by_one(cupy, p.grad.get())
            norm = optimizer.clip_grad_norm(5.0)
            optimizer.step()
        runs.append([matrix.data, vector.data, norm])
    for expected, found in zip(*runs, strict=True):
        close(found, expected)


RECORDS = [
    Record(
        optim.adamw,
        checks=[adamw_follows_its_formula],
        bugs=[
            Bug(
                "AdamW: L2 in place of decoupled decay",
                right="(beta1, beta2), xp = betas, array_module(p)",
                wrong="(beta1, beta2), xp = betas, np; g += weight_decay * p; weight_decay = 0.0",
            ),
            Bug("AdamW: m without bias correction", "/ (1 - beta1**step)", ""),
            Bug("AdamW: v without bias correction", "math.sqrt(1 - beta2**step)", "1.0"),
            Bug(
                "AdamW: the learning rate is left out of the decay",
                right="        p *= 1 - lr * weight_decay",
                wrong="        p *= 1 - weight_decay",
            ),
            Bug("AdamW: eps inside the root", "xp.sqrt(v, out=part)", "xp.sqrt(v + eps, out=part)"),
        ],
        kernel_checks=[adamw_and_norm_kernels],
        kernel_bugs=[
            Bug("the second moment without its correction", "sqrtf(vi / its.bias_v)", "sqrtf(vi)"),
            Bug(
                "weight decay that is not decoupled",
                right="(1.0f - its.lr * its.weight_decay)",
                wrong="(1.0f - its.weight_decay)",
            ),
            Bug("the place of the gradient is not looked at", "fours(n, p, g, m, v)", "fours(n, p, m, v)"),
        ],
    ),
    Record(
        optim._updates,
        checks=[
            training_goes_on_with_replaced_arrays,
            unused_parameters_are_skipped,
            a_step_is_noticed_by_older_tapes,
        ],
        bugs=[
            Bug(
                "AdamW: unused parameters decay",
                right="        if parameter.grad is not None:",
                wrong="        if parameter.grad is None:\n            parameter.grad = m\n        if True:",
                caught_by="unused_parameters_are_skipped",
            ),
            Bug(
                "AdamW: all parameters count the same steps",
                right="counts[i] += 1",
                wrong="counts[:] = [max(counts) + 1 if i == 0 else max(counts)] * len(counts)",
                caught_by="unused_parameters_are_skipped",
            ),
            Bug(
                "AdamW: a step counts as no change",
                right="counts[i] += 1\n            parameter.changes[0] += 1",
                wrong="counts[i] += 1",
                caught_by="a_step_is_noticed_by_older_tapes",
            ),
            Bug(
                "AdamW: a step of flat arrays counts as no change",
                right="        for parameter in parameters:\n            parameter.changes[0] += 1\n",
                wrong="",
                caught_by="a_step_is_noticed_by_older_tapes",
            ),
        ],
    ),
    Record(
        optim._is_flat,
        bugs=[
            Bug(
                "AdamW: trains its own arrays, though others took their place",
                right="parameter.data is data and parameter.grad is grad",
                wrong="True",
                caught_by="training_goes_on_with_replaced_arrays",
            ),
        ],
    ),
    Record(
        optim.flatten,
        checks=[gradients_from_before_are_kept],
        bugs=[
            Bug("flat arrays begin without the gradients", "elif tensor.grad is not None:", "elif False:"),
        ],
    ),
    Record(
        optim._check_parameters,
        checks=[only_leaves_are_trained],
        bugs=[
            Bug("AdamW: trains a result", "if parameter.node is not None:", "if False:"),
        ],
    ),
    Record(
        optim.norm,
        checks=[clipping_scales_the_joint_norm],
        bugs=[
            Bug(
                "the norm adds up norms, not squares",
                right="xp.sqrt(sum(xp.vdot(x.ravel(), x.ravel()) for x in arrays))",
                wrong="sum(xp.sqrt(xp.vdot(x.ravel(), x.ravel())) for x in arrays)",
            ),
        ],
        kernel_checks=[adamw_and_norm_kernels],
        kernel_bugs=[
            Bug(
                "the norm adds up values, not squares",
                "total += part(value, i) * part(value, i)",
                "total += part(value, i)",
            )
        ],
    ),
]

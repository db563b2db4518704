"""Losses to step through: functions without arguments, and the leaves whose gradients count."""

import numpy as np

import autograd as ag
from autograd import Stream, Tensor, no_grad


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def scalars():
    a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)

    def loss():
        c = a * b
        d = c + b
        return d * c

    return loss, {"a": a, "b": b}


def broadcast():
    x, w, b = leaf(4, 3), leaf(3, 2, seed=1), leaf(2, seed=2)
    return lambda: (ag.tanh(x @ w + b) * x[:, :2] + b).sum(), {"x": x, "w": w, "b": b}


def many_uses():
    x = leaf(3)
    return lambda: (x * x + x * 2.0 - x / x + ag.maximum(x, x)).sum(), {"x": x}


def fused():
    x, w, b = leaf(2, 4, 6), leaf(6, 18, seed=1), leaf(6, seed=2)

    def loss():
        normed = ag.layer_norm(x, b, b)
        y = ag.causal_attention(ag.linear(normed, w), 2, dropout=0.3, stream=Stream(1))
        return ag.linear_cross_entropy(y, w, None, [[1, 2, -1, 3], [4, 5, 6, 7]], ignore_index=-1)

    return loss, {"x": x, "w": w, "b": b}


def checkpointed():
    x, w, b = leaf(2, 3), leaf(3, 3, seed=1), leaf(3, seed=2)

    def loss():
        h = x * 2.0
        y = ag.checkpoint(lambda z: ag.softmax(ag.linear(z, w, b)) @ w, h)
        return (y * w[:2] * y).sum()

    return loss, {"x": x, "w": w, "b": b}


def checkpoints_in_a_checkpoint():
    x, w = leaf(2, 3), leaf(3, 3, seed=1)

    def inner(z):
        return ag.tanh(z @ w)

    def outer(z):
        return ag.checkpoint(inner, ag.checkpoint(inner, z) * 2.0) + w[:2]

    return lambda: (ag.checkpoint(outer, x) * w[1:]).sum(), {"x": x, "w": w}


def partly_off_the_tape():
    x, y = leaf(2, 3), leaf(3, seed=1)

    def loss():
        with no_grad():
            shift = x.max(axis=1, keepdims=True)
        shifted = x - shift
        return ag.where(shifted > -1.0, ag.exp(shifted), y).sum()

    return loss, {"x": x, "y": y}


def rearranged():
    """Rows taken several times, a part that nothing uses, and views."""
    x, y = leaf(4, 3), leaf(4, 3, seed=1)

    def loss():
        first, _ = ag.split(ag.concatenate([x, y, x * y], axis=0), [7])
        return (first[[0, 0, 5, 0]].T @ x[1:, None].reshape(3, 3)[[0, 2, 2, 1]]).sum() + x[0, 0]

    return loss, {"x": x, "y": y}


def with_constants():
    """Also from a Tensor that has a gradient on another way."""
    x, data = leaf(3), np.arange(3.0)

    def loss():
        h = x * Tensor(data, dtype=np.float64)
        return (h * h.detach() / 2 + x.detach() - data).sum()

    return loss, {"x": x}


def tied_weights():
    w = leaf(7, 4)
    return lambda: ag.cross_entropy(ag.embedding(w, [[0, 1, 1, 6]]) @ w.T, [[1, 1, 6, 0]]), {"w": w}


def nothing_in_it():
    x, y = Tensor(np.zeros((0, 3)), requires_grad=True), leaf()
    return lambda: (x * 2.0).sum() + y, {"x": x, "y": y}


def not_finite():
    x = Tensor([np.nan, np.inf, 0.0, 2.0], requires_grad=True)
    return lambda: (x * x).sum(), {"x": x}


LOSSES = [
    scalars,
    broadcast,
    many_uses,
    rearranged,
    with_constants,
    tied_weights,
    nothing_in_it,
    not_finite,
    fused,
    checkpointed,
    checkpoints_in_a_checkpoint,
    partly_off_the_tape,
]

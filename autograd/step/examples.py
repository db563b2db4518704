"""Small losses to step through, from five nodes to attention. The first line of each is the film's title."""

import numpy as np

from autograd.ops.attention import causal_attention
from autograd.ops.elementwise import tanh
from autograd.ops.linalg import linear
from autograd.ops.nn import cross_entropy, layer_norm
from autograd.tensor import Tensor


def scalar() -> Tensor:
    """Five numbers: c = a b, d = c + b, loss = d c; b and c are used twice"""
    a, b = leaf(2.0), leaf(-3.0)
    c = a * b
    d = c + b
    return d * c


def neuron() -> Tensor:
    """A neuron, (tanh(w x + b) - y)²"""
    x, y, w, b = 0.5, 0.8, leaf(-1.5), leaf(1.0)
    out = tanh(w * x + b)
    error = out - y
    return error**2


def softmax() -> Tensor:
    """A linear layer, and the cross entropy of its softmax"""
    x, targets = Tensor(random(4, 3), dtype=np.float64), np.array([2, 0, 1, 1])
    weight, bias = leaf(random(3, 3, seed=1)), leaf(np.zeros(3))
    logits = linear(x, weight, bias)  # (4, 3)
    return cross_entropy(logits, targets)


def norm() -> Tensor:
    """Layer norm, and a weighted sum of what comes out"""
    x, weight, bias, direction = leaf(random(3, 5)), leaf(np.ones(5)), leaf(np.zeros(5)), random(3, 5, seed=1)
    normed = layer_norm(x, weight, bias)
    return (normed * direction).sum()


def attention() -> Tensor:
    """Causal self-attention with two heads over four positions"""
    x, w_qkv, direction = leaf(random(1, 4, 6)), leaf(random(6, 18, seed=1)), random(1, 4, 6, seed=2)
    qkv = x @ w_qkv  # (1, 4, 18)
    y = causal_attention(qkv, n_head=2)  # (1, 4, 6)
    return (y * direction).sum()


EXAMPLES = {example.__name__: example for example in (scalar, neuron, softmax, norm, attention)}


def leaf(values: np.ndarray | float) -> Tensor:
    return Tensor(values, requires_grad=True, dtype=np.float64)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)

"""Each fused operation as it would be written without a derivative of its own: composed of primitives.

Functions of Tensors, with the arguments of the operation. Some use another fused operation, which can be
opened in its turn: linear_cross_entropy is cross_entropy of linear, and that uses log_softmax. Shapes as in
model.py.
"""

import math
from collections.abc import Callable

import numpy as np

from autograd.ops import attention, elementwise, linalg, nn, reduce
from autograd.ops.elementwise import exp, log, relu, sqrt, tanh
from autograd.ops.shape import masked_fill, split
from autograd.tensor import Tensor

ONE_HOT_AT_MOST = 2**24  # elements


def composition_of(operation: Callable) -> Callable | None:
    """The composition of an operation, None if it is a primitive."""
    return _COMPOSITIONS.get(operation)


def gelu(x):
    return 0.5 * x * (1.0 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1.0 / (1.0 + exp(-x))


def mean(x, axis=None, keepdims=False):
    total = x.sum(axis, keepdims)
    return total / (x.size // max(total.size, 1))


def var(x, axis=None, keepdims=False, ddof=0):
    centred = x - x.mean(axis, keepdims=True)
    total = (centred * centred).sum(axis, keepdims)
    return total / (x.size / total.size - ddof)


def logsumexp(x, axis=None, keepdims=False):
    shift = _largest(x, axis)
    out = log(exp(x - shift).sum(axis, keepdims=True)) + shift
    return out if keepdims else out.squeeze(axis)


def softmax(x, axis=-1):
    e = exp(x - _largest(x, axis))
    return e / e.sum(axis, keepdims=True)


def log_softmax(x, axis=-1):
    shifted = x - _largest(x, axis)
    return shifted - log(exp(shifted).sum(axis, keepdims=True))


def _largest(x, axis):
    """The maximum as a constant, with its axes: it changes no result, so no gradient passes through it."""
    return x.detach().max(axis, keepdims=True)


def layer_norm(x, weight, bias=None, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)  # (..., C)
    variance = (centred * centred).mean(-1, keepdims=True)  # (..., 1)
    out = centred / sqrt(variance + eps) * weight
    return out if bias is None else out + bias


def cross_entropy(logits, targets, ignore_index=None):
    V, targets = logits.shape[-1], nn.as_ids(targets, "target").reshape(-1)  # (...) -> (N)
    counted = np.flatnonzero(targets != ignore_index) if ignore_index is not None else np.arange(targets.size)
    rows = logits if logits.ndim == 2 else logits.reshape(targets.size, V)  # (..., V) -> (N, V)
    log_probabilities = nn.log_softmax(rows)
    return -log_probabilities[counted, targets[counted]].mean()


def linear(x, weight, bias=None, activation=None):
    out = x @ weight if bias is None else x @ weight + bias  # (..., K) -> (..., M)
    return _ACTIVATIONS[activation](out) if activation else out


_ACTIVATIONS = {"relu": relu, "gelu": elementwise.gelu, "gelu_exact": elementwise.gelu_exact}


def linear_cross_entropy(x, weight, bias=None, targets=None, ignore_index=None):
    return nn.cross_entropy(linear(x, weight, bias), targets, ignore_index)


def embedding(weight, ids):
    """A row of zeros with one 1 in it, times the weight: that takes out a row."""
    V, ids = weight.shape[0], nn.as_ids(ids, "token id")
    if V * ids.size > ONE_HOT_AT_MOST:
        return weight[ids]
    one_hot = ids[..., None] == np.arange(V)  # (..., V)
    return Tensor(one_hot, dtype=weight.dtype) @ weight  # (..., V) -> (..., C)


def dropout(x, p, stream):
    if p == 0:
        return x
    keep, scale = stream.keep_mask(x.shape, p)
    return x * (keep * scale)


def residual_linear(x, h, weight, bias=None, p=0.0, stream=None):
    branch = linear(h, weight, bias)
    return x + (nn.dropout(branch, p, stream) if p else branch)


def causal_attention(qkv, n_head, scale=None, dropout=0.0, stream=None):
    """As in a textbook: scores, mask, softmax, dropout, weighted sum."""
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    D = C // n_head
    q, k, v = (
        part.reshape(B, T, n_head, D).swapaxes(1, 2)  # (B, T, C) -> (B, T, H, D) -> (B, H, T, D)
        for part in split(qkv, 3, axis=-1)
    )
    scores = q @ k.swapaxes(-1, -2) * (D**-0.5 if scale is None else scale)  # (B, H, T, T)
    future = np.triu(np.ones((T, T), bool), 1)
    weights = nn.softmax(masked_fill(scores, future, -math.inf))
    if dropout:
        keep, keep_scale = stream.keep_mask((B, n_head, T, T), dropout)
        weights = weights * (keep * keep_scale)
    return (weights @ v).swapaxes(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, H, D) -> (B, T, C)


_COMPOSITIONS = {
    elementwise.gelu: gelu,
    elementwise.sigmoid: sigmoid,
    reduce.mean: mean,
    reduce.var: var,
    reduce.logsumexp: logsumexp,
    nn.softmax: softmax,
    nn.log_softmax: log_softmax,
    nn.layer_norm: layer_norm,
    nn.cross_entropy: cross_entropy,
    nn.linear_cross_entropy: linear_cross_entropy,
    nn.embedding: embedding,
    nn.dropout: dropout,
    nn.residual_linear: residual_linear,
    linalg.linear: linear,
    attention.causal_attention: causal_attention,
}

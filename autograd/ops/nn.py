"""The operations of a GPT, fused: one forward pass and one derivative worked out by hand for each.

Written straight from primitives, each would record several operations and keep every intermediate array. Each
is tested to equal that composition. Names as in llm.c: dout is the gradient that comes in, dx the one that
goes out.
"""

import numpy as np

from autograd.backend import Array, array_module
from autograd.ops.linalg import as_rows, column_sums, row_sums
from autograd.ops.reduce import raw_logsumexp
from autograd.random import Stream
from autograd.tape import is_recording
from autograd.tensor import op

__all__ = [
    "cross_entropy",
    "dropout",
    "embedding",
    "layer_norm",
    "linear_cross_entropy",
    "log_softmax",
    "softmax",
]

LOGITS_AT_ONCE = 2**20  # of linear_cross_entropy: 4 MB in float32


@op
def softmax(x, axis: int = -1):
    """exp(x) / sum(exp(x)) along an axis.  dx = out * (dout - sum(dout * out))"""
    xp = array_module(x)
    out = xp.exp(x - x.max(axis, keepdims=True))
    out /= out.sum(axis, keepdims=True)
    return out, lambda dout: out * (dout - (dout * out).sum(axis, keepdims=True))


@op
def log_softmax(x, axis: int = -1):
    """x - logsumexp(x) along an axis.  dx = dout - softmax(x) * sum(dout)"""
    out = x - raw_logsumexp(x, axis)
    return out, lambda dout: dout - array_module(x).exp(out) * dout.sum(axis, keepdims=True)


@op
def layer_norm(x, weight, bias=None, eps: float = 1e-5):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis; x (..., C), weight and bias (C).

    With xhat = (x - mean) * rstd and dxhat = dout * weight:
    dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)): what is left of dxhat when its share along
    the constant and along xhat is taken out, because the output does not change in these directions.
    """
    x2 = as_rows(x)  # (..., C) -> (N, C)
    C = x.shape[-1]
    xhat = x2 - row_sums(x2) / C
    rstd = (row_dots(xhat, xhat) / C + eps) ** -0.5  # (N, 1)
    xhat *= rstd
    shape = x.shape
    out = xhat * weight
    if bias is not None:
        out += bias

    def dx(dout):
        dxhat = dout.reshape(xhat.shape) * weight
        mean_dxhat, mean_dxhat_xhat = row_sums(dxhat) / C, row_dots(dxhat, xhat) / C
        dxhat -= mean_dxhat
        dxhat -= xhat * mean_dxhat_xhat
        dxhat *= rstd
        return dxhat.reshape(shape)

    return out.reshape(shape), (
        dx,
        lambda dout: array_module(dout).einsum("nc,nc->c", dout.reshape(xhat.shape), xhat),
        lambda dout: column_sums(dout.reshape(xhat.shape)),
    )


def row_dots(x, y):
    """(N, C), (N, C) -> (N, 1): the dot product of each pair of rows, without a temporary of their size."""
    return array_module(x).einsum("nc,nc->n", x, y)[:, None]


@op
def cross_entropy(logits, targets: Array, ignore_index: int | None = None):
    """The mean over tokens of -log softmax(logits)[target]; a 0-d result.

    logits (..., V); targets: integers of shape (...), IndexError outside [0, V). Tokens whose target is
    ignore_index do not count, neither in the sum nor in the mean.
    dlogits = (softmax(logits) - onehot(target)) / count
    """
    xp = array_module(logits)
    targets = check_ids(targets, logits.shape[-1], "target", like=logits, ignore=ignore_index)
    logits2, targets = as_rows(logits), targets.reshape(-1)  # (..., V) -> (N, V), (...) -> (N)
    counted = targets != ignore_index if ignore_index is not None else xp.ones(targets.shape, bool)
    targets = xp.where(counted, targets, 0)
    rows = xp.arange(len(targets))
    count = counted.sum().astype(logits.dtype)
    lse = raw_logsumexp(logits2, -1)  # (N, 1)
    losses = xp.where(counted, lse[:, 0] - logits2[rows, targets], 0)

    def dlogits(dout):
        grad = xp.exp(logits2 - lse)
        grad[rows, targets] -= 1
        grad *= (counted * (dout / count))[:, None].astype(grad.dtype)
        return grad.reshape(logits.shape)

    return losses.sum() / count, dlogits


@op
def linear_cross_entropy(x, weight, bias, targets: Array, ignore_index: int | None = None):
    """cross_entropy(linear(x, weight, bias), targets): the head of a language model, fused.

    x (..., C), weight (C, V), bias (V) or None, targets (...). The logits never exist all at once: rows are
    handled in chunks. Each chunk's logits turn in place into dlogits = (softmax - onehot) / count, and these
    are used at once for its parts of dx, dweight and dbias. So when the forward pass ends the gradients are
    ready, except for the factor dout, and memory does not grow with rows times vocabulary.
    """
    xp = array_module(x)
    targets = check_ids(targets, weight.shape[1], "target", like=x, ignore=ignore_index)
    x2, targets = as_rows(x), targets.reshape(-1)  # (..., C) -> (N, C), (...) -> (N)
    counted = targets != ignore_index if ignore_index is not None else xp.ones(targets.shape, bool)
    targets = xp.where(counted, targets, 0)
    share = counted.astype(x.dtype) / counted.sum().astype(x.dtype)  # (N): each row's part in the mean
    wants_gradients = is_recording()
    if wants_gradients:
        dx = xp.empty(x2.shape, x.dtype)
        dweight_t = xp.zeros(weight.T.shape, x.dtype)  # (V, C), the layout of a head tied to the embedding
        dbias = xp.zeros(weight.shape[1], x.dtype)
    loss = xp.zeros((), x.dtype)
    rows = max(256, LOGITS_AT_ONCE // weight.shape[1])
    for start in range(0, len(x2), rows):
        # 1. This chunk's logits.
        part = slice(start, start + rows)
        logits = x2[part] @ weight  # (n, V)
        if bias is not None:
            logits += bias
        # 2. Its part of the loss: log(sum(exp(logits))) - logits[target], shifted by each row's maximum.
        n = xp.arange(len(logits))
        shift = logits.max(-1, keepdims=True)
        at_target = logits[n, targets[part]]
        logits -= shift
        xp.exp(logits, out=logits)
        total = row_sums(logits)
        loss += (share[part] * (xp.log(total) + shift - at_target[:, None])[:, 0]).sum()
        # 3. From exp(logits) to dlogits, and from these to the gradients.
        if wants_gradients:
            logits *= share[part, None] / total
            logits[n, targets[part]] -= share[part]
            xp.matmul(logits, weight.T, out=dx[part])
            dweight_t += logits.T @ x2[part]
            dbias += column_sums(logits)
    shape = x.shape
    return loss, (
        lambda dout: (dx * dout).reshape(shape),
        lambda dout: (dweight_t * dout).T,
        lambda dout: dbias * dout,
    )


@op
def embedding(weight, ids: Array):
    """The rows of weight (V, C) that integers ids (...) name: a result of shape (..., C).

    IndexError for an id outside [0, V).
    dweight[v] = sum of dout over all places where ids == v
    """
    ids = check_ids(ids, weight.shape[0], "token id", like=weight)

    def dweight(dout):
        return sum_rows_by_id(as_rows(dout), ids.reshape(-1), weight.shape[0])

    return weight[ids], dweight


def sum_rows_by_id(rows, ids, n):
    """(N, C), (N) -> (n, C): the sum of the rows that carry each id.

    Sorting brings equal ids together, in order.
    """
    xp = array_module(rows)
    out = xp.zeros((n, rows.shape[1]), rows.dtype)
    if len(ids) == 0:
        return out
    if xp is not np:  # atomic additions come in any order; a product with a one-hot matrix always in the same
        if n * len(ids) <= 2**26:
            return (xp.arange(n)[:, None] == ids).astype(rows.dtype) @ rows
        xp.add.at(out, ids, rows)
        return out
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    starts = np.flatnonzero(np.diff(sorted_ids, prepend=-1))
    out[sorted_ids[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return out


def check_ids(ids, n, what, like, ignore=None):
    """The ids, on the device of the array `like`.

    IndexError for one outside [0, n), where NumPy would count from the end; those equal to `ignore` may be.
    Ids that are on a GPU already are not looked at, since that would mean waiting for it.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{what}s must be a plain integer array, not {ids.dtype}")
    if isinstance(ids, np.ndarray):
        counted = ids if ignore is None else ids[ids != ignore]
        if counted.size and (counted.min() < 0 or counted.max() >= n):
            worst = counted.min() if counted.min() < 0 else counted.max()
            raise IndexError(f"{what} {worst} is out of range: there are {n}, from 0 to {n - 1}")
    xp = array_module(like)
    return ids if xp is np else xp.asarray(ids, dtype=np.int64)


@op
def dropout(x, p: float, stream: Stream):
    """x with elements set to 0 with probability p, and the others scaled by 1 / (1 - p).

    What is dropped depends on the stream and the row's number alone; x[i] is row stream.row + i.
    """
    keep, scale = stream.keep_mask(x.shape, p)
    keep = array_module(x).asarray(keep)

    def masked(values):
        out = values * keep
        out *= scale
        return out

    return masked(x), masked
